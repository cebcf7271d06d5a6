//! The error of the layer and of the session.

use std::{borrow::Cow, error::Error as StdError, fmt};

use super::{
    message::Message,
    refresh::{RefreshError, RefreshErrorKind},
    shared::BoxError,
};

/// An error of this crate. Errors of the wrapped service pass through unchanged.
///
/// The error is `Clone`, because one failed refresh fails every request that waited for it.
///
/// # What it says
///
/// `{error}` is one line: what failed, why, down to the first cause, and what to do. `{error:?}` is the same line, so that
/// a `main` that returns the error prints it; `{error:#?}` has the fields.
///
/// [`source`](StdError::source) leaves out the causes that the line has, so that no report of a chain says anything twice.
/// [`causes`](Self::causes) has all of them, to look for one by its type.
///
/// The line never contains a secret of this crate's. The texts of errors from your own code are in it: keep secrets out of
/// them.
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
    pub(super) message: Message,
}

/// The kind of an [`Error`].
///
/// ```
/// use tower_salesforce_auth::{BoxError, Error, ErrorKind};
///
/// /// The status that a web service returns if its request through the layer failed.
/// fn status(error: &BoxError) -> u16 {
///     match error.downcast_ref::<Error>().map(Error::kind) {
///         Some(ErrorKind::Refresh | ErrorKind::Connect) => 503,
///         Some(ErrorKind::LoggedOut | ErrorKind::NoSession) => 401,
///         // Another error of this crate, or an error of the client.
///         _ => 502,
///     }
/// }
/// # let error = tower_salesforce_auth::Session::new("", "https://example.com").unwrap_err();
/// # assert_eq!(status(&error.into()), 502);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An instance URL, login URL or allowed origin is invalid, or a token must not be sent to it. With an
    /// `https::HttpsClient`: a token must not be sent to the URI of a request, or the URL of the proxy is not usable.
    InvalidUrl,
    /// An access token is empty, or contains characters that no header may contain.
    InvalidToken,
    /// A private key, a code verifier or a `state` is not usable.
    InvalidKey,
    /// The root certificates of an `https::HttpsClient` are not usable, or there are none.
    InvalidCertificate,
    /// An `https::HttpsClient` could not connect. The request was not sent.
    Connect,
    /// [`SessionHandle::logout`](crate::SessionHandle::logout) ended the session.
    LoggedOut,
    /// A session of another org was set while the request waited for a session.
    OtherOrg,
    /// The request cannot be sent, because its URI does not resolve against the instance URL.
    InvalidRequest,
    /// The operating system provides no random numbers.
    NoRandomness,
    /// There is no session, and no [`RefreshFn`](crate::RefreshFn) that could get one.
    NoSession,
    /// A refresh was needed, or an `https::HttpsClient` had to send, outside of a tokio runtime.
    NoRuntime,
    /// A refresh sent a request through its own layer, which would wait for that same refresh.
    Reentrant,
    /// The refresh failed: see [`Error::refresh_error`].
    Refresh,
    /// [`Sessions`](crate::Sessions) is full, and no session in it may be dropped.
    SessionsFull,
    /// The session was logged out here, but may still be valid at the server, or stay in its store: see
    /// [`Error::refresh_error`].
    Logout,
    /// The session could not be saved: see [`Error::store_error`].
    Store,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: Message::new(message),
        }
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.message.source = Some(source.into().into());
        self
    }

    /// Adds what to do, to be said after the causes.
    pub(crate) fn with_remedy(mut self, remedy: Option<&'static str>) -> Self {
        self.message.remedy = remedy;
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The error of the refresh. `None` if no refresh failed.
    pub fn refresh_error(&self) -> Option<&RefreshError> {
        self.message.cause()?.downcast_ref()
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

/// The error of every request after a logout.
pub(crate) fn not_ended() -> RefreshError {
    RefreshError::new(
        RefreshErrorKind::TimedOut,
        false,
        "a refresh that was under way has not ended",
    )
}

pub(crate) fn logged_out() -> Error {
    Error::new(
        ErrorKind::LoggedOut,
        "the Salesforce session was logged out: set a new one, or reset the handle to log in again",
    )
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.message, f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("message", &self.message.what)
            .field("source", &self.message.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.message.unsaid()
    }
}
