//! The error of a refresh.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc, time::Duration};

use super::{message::Message, shared::BoxError};
use crate::{
    secret::Secret,
    text::redact::{has_secret, redact},
};

/// The error of a refresh, or of a call to the authorization server.
///
/// A [`RefreshFn`](crate::RefreshFn) returns [`terminal`](Self::terminal) if another attempt cannot succeed until a person
/// intervenes, and [`transient`](Self::transient) if it can.
///
/// It says in one line what failed, why, and what to do: see [`Error`](crate::Error#what-it-says).
///
/// ```
/// use std::time::Duration;
/// use tower_salesforce_auth::RefreshError;
///
/// let locked = RefreshError::terminal("the integration user is locked");
/// assert!(locked.is_terminal());
///
/// let busy =
///     RefreshError::transient("vault is sealed").with_retry_after(Duration::from_secs(5));
/// assert_eq!(busy.retry_after(), Some(Duration::from_secs(5)));
/// ```
#[derive(Clone)]
pub struct RefreshError(Arc<Failure>);

/// The content of a [`RefreshError`]. Its clones share it: every waiter gets one.
#[derive(Clone)]
struct Failure {
    kind: RefreshErrorKind,
    terminal: bool,
    message: Message,
    error_code: Option<Arc<str>>,
    retry_after: Option<Duration>,
    /// The rotated refresh token from a response without a usable session. `None` if there was none.
    rotated_refresh_token: Option<Secret>,
    /// The key that this refresh token is bound to, encoded. `None` if it is not known to be bound.
    rotated_dpop_key: Option<Secret>,
    /// Whether the refresh sent a request through its own layer.
    is_reentrant: bool,
    /// Whether the server could not be reached, so that nothing was sent.
    is_unreachable: bool,
}

/// The kind of a [`RefreshError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefreshErrorKind {
    /// The authorization server refused. [`RefreshError::error_code`] says why.
    Refused,
    /// The authorization server was not reachable, or its answer was incomplete.
    Transport,
    /// The answer of the authorization server was not a token response.
    InvalidResponse,
    /// The refresh returned a session for a host that is not trusted. The session is not used.
    UntrustedInstance,
    /// The flow lacks a setting or value, for example a refresh token.
    Configuration,
    /// The signature of the answer does not match the client secret.
    InvalidSignature,
    /// The callback from the user's browser does not answer the authorization that was started.
    InvalidCallback,
    /// The flow requested offline access, but the server returned no refresh token.
    NoRefreshToken,
    /// The refresh took longer than the refresh timeout.
    TimedOut,
    /// The refresh panicked.
    Panicked,
    /// The runtime of the refresh was shut down, or a session was set meanwhile.
    Cancelled,
    /// The session was logged out meanwhile.
    LoggedOut,
    /// The [store](crate::store) of the session failed, so the server was not called: see [`RefreshError::store_error`].
    Store,
    /// A custom [`RefreshFn`](crate::RefreshFn) failed.
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
            message: Message::new(message),
            error_code: None,
            retry_after: None,
            rotated_refresh_token: None,
            rotated_dpop_key: None,
            is_reentrant: false,
            is_unreachable: false,
        }))
    }

    fn failure_mut(&mut self) -> &mut Failure {
        Arc::make_mut(&mut self.0)
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.failure_mut().message.source = Some(source.into().into());
        self
    }

    /// Adds what to do, to be said after the causes.
    pub(crate) fn with_remedy(mut self, remedy: Option<&'static str>) -> Self {
        self.failure_mut().message.remedy = remedy;
        self
    }

    /// Redacts the causes if they contain any of `secrets`: a client may repeat what it sent.
    pub(crate) fn without_secrets(mut self, secrets: &[&str]) -> Self {
        let causes = Message {
            source: self.0.message.source.clone(),
            ..Message::new("")
        };
        let causes = causes.to_string();
        if has_secret(&causes, secrets) {
            self = self.with_findings();
            let message = &mut self.failure_mut().message;
            message.what = format!("{}: {}", message.what, redact(&causes, secrets)).into();
            message.source = None;
        }
        self
    }

    pub(super) fn message(&self) -> &Message {
        &self.0.message
    }

    pub(super) fn note(&mut self, is_reentrant: bool, is_unreachable: bool) {
        if is_reentrant || is_unreachable {
            let failure = self.failure_mut();
            failure.is_reentrant = is_reentrant;
            failure.is_unreachable = is_unreachable;
        }
    }

    pub(crate) fn is_reentrant(&self) -> bool {
        self.0.is_reentrant
    }

    pub(crate) fn is_unreachable(&self) -> bool {
        self.0.is_unreachable
    }

    pub(crate) fn with_error_code(mut self, code: &str) -> Self {
        self.failure_mut().error_code = Some(code.into());
        self
    }

    /// Adds the refresh token that replaced the presented one, although the refresh failed otherwise.
    pub(crate) fn with_rotated_refresh_token(mut self, refresh_token: Option<Secret>) -> Self {
        self.failure_mut().rotated_refresh_token = refresh_token;
        self
    }

    /// Adds the key that the rotated refresh token is bound to, encoded.
    pub(crate) fn with_rotated_dpop_key(mut self, key: Option<Secret>) -> Self {
        if self.0.rotated_refresh_token.is_some() && key.is_some() {
            self.failure_mut().rotated_dpop_key = key;
        }
        self
    }

    /// Takes the rotated refresh token out with its key, so that no copy of this error hands it over again (R3).
    pub(crate) fn take_rotated_refresh_token(&mut self) -> Option<(Secret, Option<Secret>)> {
        self.0.rotated_refresh_token.as_ref()?;
        let failure = self.failure_mut();
        let token = failure.rotated_refresh_token.take()?;
        Some((token, failure.rotated_dpop_key.take()))
    }

    /// Whether both are the same failure, not only alike.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A setting prevents the request from being made.
    pub(crate) fn configuration(source: impl Into<BoxError>) -> Self {
        Self::new(
            RefreshErrorKind::Configuration,
            true,
            "the request cannot be made",
        )
        .with_source(source)
    }

    /// A setting of the flow has a value that cannot be sent. `message` says which, and why.
    pub(crate) fn unusable_setting(message: String) -> Self {
        Self::new(RefreshErrorKind::Configuration, true, message)
    }

    /// The rotated refresh token from an answer that is otherwise not usable. `None` if there was none.
    ///
    /// Keep it, because the previous refresh token may no longer work. The layer keeps it by itself.
    pub fn rotated_refresh_token(&self) -> Option<&Secret> {
        self.0.rotated_refresh_token.as_ref()
    }

    /// Creates an error for a failure that another attempt cannot cure: a revoked grant, a wrong password, a missing
    /// permission.
    ///
    /// The text of the source, and of its sources, is shown and logged: it must not contain a secret.
    pub fn terminal(source: impl Into<BoxError>) -> Self {
        Self::other(true, source)
    }

    /// Creates an error for a failure that another attempt may cure: a network failure, an overloaded server.
    ///
    /// The text of the source is shown, as that of [`terminal`](Self::terminal).
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

    /// Returns a boxed `RefreshError` unchanged, and makes any other error [transient](Self::transient).
    pub(crate) fn from_boxed(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => *error,
            Err(error) => Self::transient(error),
        }
    }

    /// Sets the minimum delay before the next attempt.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.failure_mut().retry_after = Some(delay);
        self
    }

    /// Sets the longer of the delay that a server asked for and the shortest one. `None`: neither is known.
    pub(crate) fn with_delay(self, asked: Option<Duration>, shortest: Option<Duration>) -> Self {
        match asked.max(shortest) {
            Some(delay) => self.with_retry_after(delay),
            None => self,
        }
    }

    /// The kind of the error.
    pub fn kind(&self) -> RefreshErrorKind {
        self.0.kind
    }

    /// Whether another attempt cannot succeed until a person intervenes.
    pub fn is_terminal(&self) -> bool {
        self.0.terminal
    }

    /// The minimum delay before the next attempt. `None` if the server requested none.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The error code of the server.
    ///
    /// For OAuth this is `error` (RFC 6749 §5.2), for example `invalid_grant`. For SOAP it is `exceptionCode`, for example
    /// `INVALID_LOGIN`.
    pub fn error_code(&self) -> Option<&str> {
        self.0.error_code.as_deref()
    }
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.message, f)
    }
}

impl fmt::Debug for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("RefreshError")
            .field("kind", &self.0.kind)
            .field("terminal", &self.0.terminal)
            .field("message", &self.0.message.what)
            .field("error_code", &self.0.error_code)
            .field("retry_after", &self.0.retry_after)
            .field("source", &self.0.message.source)
            .finish_non_exhaustive()
    }
}

impl StdError for RefreshError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.message.unsaid()
    }
}
