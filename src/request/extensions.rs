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

/// The layer sends a request with this extension with a proof, although Salesforce documents none for its API: Bulk API 1.0 or
/// the Pub/Sub API, with a session that is bound to a DPoP key (RFC 9449).
///
/// The session is carried as usual, and the proof in the header `DPoP`. Without the extension such a request fails before it is
/// sent. It changes no other request.
///
/// ```
/// use tower_salesforce_auth::request::UndocumentedDpop;
///
/// let request = http::Request::get("/services/async/66.0/job/750xx")
///     .extension(UndocumentedDpop)
///     .body(())?;
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a marker has nothing to grow")]
pub struct UndocumentedDpop;
