//! What can go wrong, and what to ask of it.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc, time::Duration};

use crate::secret::Secret;

/// The error of a tower stack: anything boxed. The layer's own [`Error`] is found in it by `downcast_ref`.
pub type BoxError = Box<dyn StdError + Send + Sync>;

pub(crate) type SharedError = Arc<dyn StdError + Send + Sync>;

pub(crate) fn as_source(source: Option<&SharedError>) -> Option<&(dyn StdError + 'static)> {
    source.map(|source| &**source as &(dyn StdError + 'static))
}

// === Error ===

/// An error of this crate's own making. Errors of the wrapped service are passed on as they are.
///
/// It can be cloned, since one failed refresh fails every request that waited for it, and it never holds a secret. Show
/// its sources too: what the server said, and what to do about it, is in there.
///
/// ```
/// fn show(error: &dyn std::error::Error) -> String {
///     let mut shown = error.to_string();
///     let mut cause = error.source();
///     while let Some(error) = cause {
///         shown += &format!(": {error}");
///         cause = error.source();
///     }
///     shown
/// }
/// # let session = tower_salesforce_auth::Session::new("", "https://example.com").unwrap_err();
/// # assert_eq!(show(&session), "the access token is empty");
/// ```
///
/// ```
/// use tower_salesforce_auth::{ErrorKind, Session};
///
/// let error = Session::new("00Dxx…", "http://MyDomainName.my.salesforce.com").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidUrl);
/// ```
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<SharedError>,
}

/// What an [`Error`] is about.
///
/// ```
/// use tower_salesforce_auth::{BoxError, Error, ErrorKind};
///
/// /// What to tell a caller of a web service, for the error of a request that was sent through the layer.
/// fn status(error: &BoxError) -> u16 {
///     match error.downcast_ref::<Error>().map(Error::kind) {
///         Some(ErrorKind::Refresh | ErrorKind::Connect) => 503,
///         Some(ErrorKind::LoggedOut | ErrorKind::NoSession) => 401,
///         // Of this crate, or of the client.
///         _ => 502,
///     }
/// }
/// # let error = tower_salesforce_auth::Session::new("", "https://example.com").unwrap_err();
/// # assert_eq!(status(&error.into()), 502);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An instance URL, login URL or allowed origin is not one that a token may be sent to; or, with an
    /// `https::HttpsClient`, the URI of a request is not, or the URL of its proxy is none that can be used.
    InvalidUrl,
    /// An access token is empty or cannot stand in a header.
    InvalidToken,
    /// A private key, a code verifier or a `state` cannot be used.
    InvalidKey,
    /// The root certificates for an `https::HttpsClient` cannot be used, or there are none.
    InvalidCertificate,
    /// An `https::HttpsClient` got no connection. The request was not sent.
    Connect,
    /// The session was ended by [`SessionHandle::logout`](crate::SessionHandle::logout).
    LoggedOut,
    /// A session of another org was set while the request waited for one.
    OtherOrg,
    /// The request cannot be sent as it is: its URI does not resolve against the instance.
    InvalidRequest,
    /// The operating system has no random numbers to give.
    NoRandomness,
    /// There is no session, and nothing that could bring one.
    NoSession,
    /// A refresh had to start outside of a tokio runtime.
    NoRuntime,
    /// A refresh came back through its own layer, and would have waited for itself.
    Reentrant,
    /// The refresh failed. The source is the [`RefreshError`].
    Refresh,
    /// [`Sessions`](crate::Sessions) are full, and none of them can be given up.
    SessionsFull,
    /// The session was logged out here, but may live on at the server, or in its store. The source is the
    /// [`RefreshError`].
    Logout,
    /// The session could not be saved. The source is the [`StoreError`](crate::store::StoreError), if there is a store.
    Store,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// What the error is about.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The failure of the refresh, where that is what went wrong.
    pub fn refresh_error(&self) -> Option<&RefreshError> {
        as_source(self.source.as_ref())?.downcast_ref()
    }
}

impl From<RefreshError> for Error {
    fn from(error: RefreshError) -> Self {
        if error.kind() == RefreshErrorKind::LoggedOut {
            return logged_out();
        }
        Self::new(
            ErrorKind::Refresh,
            "the Salesforce session could not be refreshed",
        )
        .with_source(error)
    }
}

/// What every request gets after a logout.
pub(crate) fn logged_out() -> Error {
    Error::new(
        ErrorKind::LoggedOut,
        "the Salesforce session was logged out: set a new one, or reset the handle to log in again",
    )
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        as_source(self.source.as_ref())
    }
}

// === RefreshError ===

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

    /// Whether it failed because it came back through its own layer.
    pub(crate) fn is_reentrant(&self) -> bool {
        let mut cause = self.source();
        while let Some(error) = cause {
            let error_of_ours = error.downcast_ref::<Error>();
            if error_of_ours.is_some_and(|error| error.kind == ErrorKind::Reentrant) {
                return true;
            }
            cause = error.source();
        }
        false
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
