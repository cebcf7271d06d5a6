//! Request extensions that limit what the layer does for a request.

/// The layer passes a request with this extension through: no session, no refresh, no replay.
///
/// The layer still resolves a relative URI, if there is a session whose instance it can use.
///
/// ```
/// use tower_salesforce_auth::request::SkipAuth;
///
/// let request = http::Request::get("https://MyDomainName.my.salesforce.com/services/data/")
///     .extension(SkipAuth)
///     .body(())?;
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a marker has nothing to grow")]
pub struct SkipAuth;

/// The layer never replays a request with this extension. A rejection still refreshes the session for later requests.
///
/// ```
/// use tower_salesforce_auth::request::NoReplay;
///
/// let request = http::Request::post("/services/data/v66.0/composite").extension(NoReplay).body(())?;
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a marker has nothing to grow")]
pub struct NoReplay;

/// The layer sends a request with this extension with the session, and returns a rejection: no refresh, no replay.
///
/// ```
/// use tower_salesforce_auth::request::NoRefresh;
///
/// let request = http::Request::get("/services/data/v66.0/limits").extension(NoRefresh).body(())?;
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a marker has nothing to grow")]
pub struct NoRefresh;
