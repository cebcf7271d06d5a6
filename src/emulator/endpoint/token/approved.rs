//! The result of checking a grant.

use super::success::GrantKind;

/// The path of the endpoint, below the login URL or the URL of a site.
pub(super) const PATH: &str = "/services/oauth2/token";

/// Permission to start a session.
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
