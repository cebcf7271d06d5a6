//! Request extensions that keep the layer from doing for one request what it does for all.

/// The layer passes a request with this extension on as it is: no session, no refresh, no replay.
///
/// A relative URI is still resolved, if there is a session to resolve it against.
///
/// ```
/// use tower_salesforce_auth::SkipAuth;
///
/// let request = http::Request::get("https://MyDomainName.my.salesforce.com/services/data/")
///     .extension(SkipAuth)
///     .body(())?;
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a marker has nothing to grow")]
pub struct SkipAuth;

/// A request with this extension is not sent again. Its rejection still renews the session for those that follow.
///
/// ```
/// use tower_salesforce_auth::NoReplay;
///
/// let request = http::Request::post("/services/data/v66.0/composite").extension(NoReplay).body(())?;
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a marker has nothing to grow")]
pub struct NoReplay;

/// A request with this extension is sent with the session, and its rejection is returned: no refresh, no replay.
///
/// ```
/// use tower_salesforce_auth::NoRefresh;
///
/// let request = http::Request::get("/services/data/v66.0/limits").extension(NoRefresh).body(())?;
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a marker has nothing to grow")]
pub struct NoRefresh;
