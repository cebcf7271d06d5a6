//! Why a refresh runs, and what it does: for events and spans.

use std::borrow::Cow;

/// Why a [`RefreshFn`](crate::RefreshFn) is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefreshReason {
    /// There was no session.
    FirstLogin,
    /// The session was rejected, or [invalidated](crate::SessionHandle::invalidate).
    Rejected,
    /// [`SessionHandle::refresh`](crate::SessionHandle::refresh) was called.
    Manual,
    /// The session is about to expire, and still in use.
    Proactive,
    /// Another process has saved a session, and this one [follows the store](crate::handle::SessionHandleBuilder::follow_store).
    /// There is no refresh with this reason, only an adoption.
    Followed,
}

/// What a [`RefreshFn`](crate::RefreshFn) does, and where: two words that tell refreshes apart, neither of them secret.
///
/// Both are fit for metric labels: a program has as many of them as it has logins.
///
/// ```
/// use tower_salesforce_auth::{
///     RefreshContext, RefreshError, RefreshFn, Session, observer::RefreshDescription,
/// };
///
/// struct Vault;
///
/// impl RefreshFn for Vault {
///     async fn refresh(&self, _context: RefreshContext) -> Result<Session, RefreshError> {
///         Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")
///             .map_err(RefreshError::terminal)
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
    /// Describes a refresh that presents `grant` to `host`.
    pub fn new(grant: impl Into<Cow<'static, str>>, host: impl Into<Cow<'static, str>>) -> Self {
        Self {
            grant: grant.into(),
            host: host.into(),
        }
    }

    /// The OAuth grant type (RFC 6749), for example `refresh_token`, or `soap_login`, or the name that your
    /// [`RefreshFn`](crate::RefreshFn) gives.
    pub fn grant(&self) -> &str {
        &self.grant
    }

    /// The host that the call goes to. For flows, the host of the login URL.
    pub fn host(&self) -> &str {
        &self.host
    }
}
