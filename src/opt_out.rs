//! Request extensions that keep the layer from doing for one request what it does for all.

/// The layer passes a request with this extension on as it is: no session, no refresh, no replay.
///
/// A relative URI is still resolved, if there is a session to resolve it against.
///
/// ```
/// # fn demo() -> http::Result<http::Request<()>> {
/// use tower_salesforce_auth::SkipAuth;
///
/// http::Request::get("https://MyDomainName.my.salesforce.com/services/data/")
///     .extension(SkipAuth)
///     .body(())
/// # }
/// # demo().unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SkipAuth;

/// A request with this extension is not sent again. Its rejection still renews the session for those that follow.
///
/// ```
/// # fn demo() -> http::Result<http::Request<()>> {
/// use tower_salesforce_auth::NoReplay;
///
/// http::Request::post("/services/data/v66.0/composite").extension(NoReplay).body(())
/// # }
/// # demo().unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReplay;

/// A request with this extension is sent with the session, and its rejection is returned: no refresh, no replay.
///
/// ```
/// # fn demo() -> http::Result<http::Request<()>> {
/// use tower_salesforce_auth::NoRefresh;
///
/// http::Request::get("/services/data/v66.0/limits").extension(NoRefresh).body(())
/// # }
/// # demo().unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRefresh;
