//! Counters of what an org has seen.

use serde::Serialize;

/// A snapshot of what an [`Org`](crate::emulator::Org) has seen since its creation.
///
/// The org counts a request, and the decisions about it, on arrival. Only `tokens_issued`,
/// `token_refusals` and `tokens_revoked` change with the answer. All clones of an org share the
/// counters. The serialized form is an object with the names of the fields.
///
/// ```
/// use tower_salesforce_auth::emulator::{Counters, Org};
///
/// let counters: Counters = Org::new().counters();
/// assert_eq!((counters.token_requests, counters.data_rejected), (0, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Connections that [`Org::serve`](crate::emulator::Org::serve) accepted. Calls made without a socket open none.
    pub connections: u64,
    /// Requests of any kind.
    pub requests: u64,
    /// Requests of any kind that carried more than one `Authorization` header.
    pub requests_with_several_authorizations: u64,

    /// Requests to the token endpoint, refused ones included.
    pub token_requests: u64,
    /// Granted token requests. They include those whose answer
    /// [`Fault::LoseAnswer`](crate::emulator::Fault::LoseAnswer) lost.
    /// [`Org::authorize`](crate::emulator::Org::authorize) does not count.
    pub tokens_issued: u64,
    /// Token requests answered with an error.
    pub token_refusals: u64,
    /// Refresh tokens presented after rotation. Each one revoked its whole lineage.
    pub refresh_token_reuses: u64,
    /// Refresh tokens presented while another request with the same token had no answer yet.
    pub concurrent_refreshes: u64,

    /// Requests to the authorization endpoint, pages included.
    pub authorize_requests: u64,
    /// Authorization codes issued, those of [`Org::approve`](crate::emulator::Org::approve) included.
    pub codes_issued: u64,
    /// Devices that began the device flow.
    pub device_codes_issued: u64,

    /// Logins that the org let in: by password (SOAP `login()` included), on the login page, and by
    /// signed assertion.
    pub logins: u64,
    /// Logins of the same kinds that were refused for their user name, their password, or a limit.
    pub failed_logins: u64,

    /// Requests to the revocation endpoint, refused ones included.
    pub revoke_requests: u64,
    /// Revocation requests that ended a token.
    pub tokens_revoked: u64,
    /// Requests to the introspection endpoint.
    pub introspections: u64,
    /// Requests to userinfo and to identity URLs, refused ones included.
    pub identity_requests: u64,

    /// Proofs (DPoP) that the org accepted.
    pub dpop_proofs_accepted: u64,
    /// Proofs that the org refused, for any reason but their nonce.
    pub dpop_proofs_refused: u64,
    /// Proofs that the org refused for their nonce, or for want of one.
    pub dpop_nonces_demanded: u64,

    /// Requests below `/services/data/vNN.0/`, `/services/apexrest/` and `/services/async/`, rejected ones included.
    pub data_requests: u64,
    /// Data requests with a valid session. The answer of the resource does not matter: a 404 counts.
    pub data_accepted: u64,
    /// Data requests answered with the 401 or 400 of an invalid session or token.
    pub data_rejected: u64,
    /// Data requests refused by a fault before the session check.
    pub data_refused: u64,

    /// Requests to a SOAP endpoint, of any operation.
    pub soap_requests: u64,
    /// SOAP calls answered with `INVALID_SESSION_ID`.
    pub soap_rejected: u64,
    /// Sessions ended by SOAP `logout()`.
    pub soap_logouts: u64,
}
