//! The error of a refresh.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc, time::Duration};

use super::shared::{BoxError, SharedError, as_source};
use crate::secret::Secret;

/// Why a refresh brought no session, or a call to the authorization server no answer.
///
/// A [`RefreshFn`](crate::RefreshFn) says with [`terminal`](Self::terminal) that trying again cannot help until
/// somebody changes something, and with [`transient`](Self::transient) that it can.
///
/// ```
/// use std::time::Duration;
/// use tower_salesforce_auth::RefreshError;
///
/// let locked = RefreshError::terminal("the integration user is locked");
/// assert!(locked.is_terminal());
///
/// let busy = RefreshError::transient("vault is sealed").with_retry_after(Duration::from_secs(5));
/// assert_eq!(busy.retry_after(), Some(Duration::from_secs(5)));
/// ```
#[derive(Clone)]
pub struct RefreshError(Arc<Failure>);

/// What a [`RefreshError`] shares with its clones: all who waited for a refresh get one.
#[derive(Clone)]
struct Failure {
    kind: RefreshErrorKind,
    terminal: bool,
    message: Cow<'static, str>,
    error_code: Option<Arc<str>>,
    retry_after: Option<Duration>,
    source: Option<SharedError>,
    /// The refresh token that came with a session that cannot be used.
    rotated_refresh_token: Option<Secret>,
}

/// What a [`RefreshError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefreshErrorKind {
    /// The authorization server said no; see [`RefreshError::error_code`].
    Refused,
    /// The authorization server could not be reached, or did not answer to the end.
    Transport,
    /// The authorization server answered something that is not a token response.
    InvalidResponse,
    /// The refresh brought a session that must not be used, for a host that is not trusted for one.
    UntrustedInstance,
    /// Something that the flow needs is missing, a refresh token for one.
    Configuration,
    /// The answer's signature was made with another client secret.
    InvalidSignature,
    /// What the user's browser brought back is not the answer to the authorization that was begun.
    InvalidCallback,
    /// Offline access was asked for, and no refresh token came.
    NoRefreshToken,
    /// The refresh took longer than the refresh timeout.
    TimedOut,
    /// The refresh panicked.
    Panicked,
    /// The runtime that the refresh ran on was shut down, or a session was set meanwhile.
    Cancelled,
    /// The session was logged out meanwhile.
    LoggedOut,
    /// The [store](crate::store) that the session is shared by could not be asked, so that nothing was asked of the
    /// server. The source is the [`StoreError`](crate::store::StoreError).
    Store,
    /// Whatever a [`RefreshFn`](crate::RefreshFn) of the user's own reports.
    Other,
}

impl RefreshError {
    pub(crate) fn new(
        kind: RefreshErrorKind,
        terminal: bool,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Arc::new(Failure {
            kind,
            terminal,
            message: message.into(),
            error_code: None,
            retry_after: None,
            source: None,
            rotated_refresh_token: None,
        }))
    }

    fn failure_mut(&mut self) -> &mut Failure {
        Arc::make_mut(&mut self.0)
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.failure_mut().source = Some(source.into().into());
        self
    }

    pub(crate) fn with_error_code(mut self, code: &str) -> Self {
        self.failure_mut().error_code = Some(code.into());
        self
    }

    /// Hands on a refresh token that replaced the one that was presented, although nothing else came of the refresh.
    pub(crate) fn with_rotated_refresh_token(mut self, refresh_token: Option<Secret>) -> Self {
        self.failure_mut().rotated_refresh_token = refresh_token;
        self
    }

    /// The setting that keeps a request from being made.
    pub(crate) fn configuration(source: impl Into<BoxError>) -> Self {
        Self::new(
            RefreshErrorKind::Configuration,
            true,
            "the request cannot be made",
        )
        .with_source(source)
    }

    /// The refresh token of an answer that is no use otherwise. There may be no other that still works, so keep it.
    ///
    /// The layer does so by itself.
    pub fn rotated_refresh_token(&self) -> Option<&Secret> {
        self.0.rotated_refresh_token.as_ref()
    }

    /// A failure that trying again cannot cure: a revoked grant, a wrong password, a missing permission.
    pub fn terminal(source: impl Into<BoxError>) -> Self {
        Self::other(true, source)
    }

    /// A failure that may be gone at the next try: the network, a server in trouble.
    pub fn transient(source: impl Into<BoxError>) -> Self {
        Self::other(false, source)
    }

    fn other(terminal: bool, source: impl Into<BoxError>) -> Self {
        Self::new(
            RefreshErrorKind::Other,
            terminal,
            "the refresh function failed",
        )
        .with_source(source)
    }

    /// Takes an error as it comes: a `RefreshError` stays what it is, any other is [transient](Self::transient).
    pub(crate) fn from_boxed(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => *error,
            Err(error) => Self::transient(error),
        }
    }

    /// Says how long to wait before the next try, at least.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.failure_mut().retry_after = Some(delay);
        self
    }

    /// What the failure is about.
    pub fn kind(&self) -> RefreshErrorKind {
        self.0.kind
    }

    /// Whether trying again cannot help until somebody changes something.
    pub fn is_terminal(&self) -> bool {
        self.0.terminal
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The server's own code: the `error` of OAuth (RFC 6749 §5.2), `invalid_grant` for one, or the `exceptionCode` of
    /// SOAP, `INVALID_LOGIN` for one.
    pub fn error_code(&self) -> Option<&str> {
        self.0.error_code.as_deref()
    }
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshError")
            .field("kind", &self.0.kind)
            .field("terminal", &self.0.terminal)
            .field("message", &self.0.message)
            .field("error_code", &self.0.error_code)
            .field("retry_after", &self.0.retry_after)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl StdError for RefreshError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        as_source(self.0.source.as_ref())
    }
}
