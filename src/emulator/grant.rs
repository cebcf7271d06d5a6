//! The result of a user's consent.

use std::fmt;

/// A session and the refresh token to start the next one with.
///
/// [`Org::authorize`](super::Org::authorize) makes it. `Debug` prints neither token.
///
/// ```
/// use tower_salesforce_auth::{Session, emulator::Org};
///
/// let grant = Org::new().authorize();
/// let session = Session::new(grant.access_token(), grant.instance_url())?.with_refresh_token(grant.refresh_token());
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone)]
pub struct Grant {
    pub(super) access_token: String,
    pub(super) refresh_token: String,
    pub(super) instance_url: String,
}

impl Grant {
    /// The access token of the first session.
    pub fn access_token(&self) -> &str {
        &self.access_token
    }

    /// The first refresh token of the lineage.
    pub fn refresh_token(&self) -> &str {
        &self.refresh_token
    }

    /// The base URL of data calls: the instance URL of the org at the time of the consent.
    pub fn instance_url(&self) -> &str {
        &self.instance_url
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("access_token", &"[redacted]")
            .field("refresh_token", &"[redacted]")
            .field("instance_url", &self.instance_url)
            .finish()
    }
}
