//! A refresh token with the key that it is bound to.

use super::dpop_key::DpopKey;
use crate::secret::Secret;

/// A refresh token, and the key that has to prove each use of it (RFC 9449 §5). The two are kept and replaced together.
///
/// Equal tokens are the same token: a copy of it may have come without the key.
#[derive(Clone, Debug)]
pub(crate) struct GrantToken {
    pub(crate) token: Secret,
    /// `None` if the token is not known to be bound.
    pub(crate) dpop_key: Option<DpopKey>,
}

impl GrantToken {
    pub(crate) fn unbound(token: Secret) -> Self {
        Self {
            token,
            dpop_key: None,
        }
    }
}

impl PartialEq for GrantToken {
    fn eq(&self, other: &Self) -> bool {
        self.token == other.token
    }
}

impl Eq for GrantToken {}
