//! Why a refresh runs, and what it does: for events and spans.

use std::borrow::Cow;

/// Why a [`RefreshFn`](crate::RefreshFn) is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefreshReason {
    /// There was no session yet.
    FirstLogin,
    /// The session was rejected, or [invalidated](crate::SessionHandle::invalidate).
    Rejected,
    /// [`SessionHandle::refresh`](crate::SessionHandle::refresh) was called.
    Manual,
    /// The session is still good, and about to end.
    Proactive,
}

/// What a [`RefreshFn`](crate::RefreshFn) is going to do, and where: two words to tell refreshes apart by, neither of them secret.
///
/// Both are fit for the label of a metric: there are as many as there are logins in a program.
///
/// ```
/// use tower_salesforce_auth::{RefreshContext, RefreshDescription, RefreshError, RefreshFn, Session};
///
/// struct Vault;
///
/// impl RefreshFn for Vault {
///     async fn refresh(&self, _context: RefreshContext) -> Result<Session, RefreshError> {
///         Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com").map_err(RefreshError::terminal)
///     }
///
///     fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
///         Some(RefreshDescription::new("vault", "vault.example.com"))
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefreshDescription {
    grant: Cow<'static, str>,
    host: Cow<'static, str>,
}

impl RefreshDescription {
    /// This grant is presented to this host.
    pub fn new(grant: impl Into<Cow<'static, str>>, host: impl Into<Cow<'static, str>>) -> Self {
        Self {
            grant: grant.into(),
            host: host.into(),
        }
    }

    /// The OAuth grant type (RFC 6749), `refresh_token` for one, or `soap_login`, or whatever a [`RefreshFn`](crate::RefreshFn) of the user's
    /// own calls it.
    pub fn grant(&self) -> &str {
        &self.grant
    }

    /// The host that is asked: of the login URL, for the flows.
    pub fn host(&self) -> &str {
        &self.host
    }
}
