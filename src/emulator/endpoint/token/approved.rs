//! What the grants have in common.

use super::success::GrantKind;

/// Where the endpoint is, below the login URL or the URL of a site.
pub(super) const PATH: &str = "/services/oauth2/token";

/// A session that may begin.
pub(super) struct Approved {
    pub(super) flow: GrantKind,
    /// `None` for a plain session id.
    pub(super) scope: Option<String>,
    pub(super) nonce: Option<String>,
}

impl Approved {
    pub(super) fn new(flow: GrantKind, scope: impl Into<String>) -> Self {
        Self {
            flow,
            scope: Some(scope.into()),
            nonce: None,
        }
    }
}
