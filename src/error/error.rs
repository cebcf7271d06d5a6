//! The error of the layer and of the session.

use std::{borrow::Cow, error::Error as StdError, fmt};

use super::{
    refresh::{RefreshError, RefreshErrorKind},
    shared::{BoxError, SharedError, as_source},
};

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

/// Whether a refresh failed because it came back through its own layer.
pub(crate) fn is_reentrant(error: &RefreshError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let error_of_ours = error.downcast_ref::<Error>();
        if error_of_ours.is_some_and(|error| error.kind == ErrorKind::Reentrant) {
            return true;
        }
        cause = error.source();
    }
    false
}
