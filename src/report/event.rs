//! The events that an [`Observer`](crate::observer::Observer) receives.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    error::{RefreshError, StoreError},
    report::reason::{RefreshDescription, RefreshReason},
    session::live::Generation,
};

/// A [`RefreshFn`](crate::RefreshFn) is about to be called.
#[derive(Clone, Debug)]
pub struct RefreshStarted {
    pub(crate) reason: RefreshReason,
    pub(crate) attempt: u32,
    pub(crate) description: Option<RefreshDescription>,
}

impl RefreshStarted {
    /// Why a session is needed.
    pub fn reason(&self) -> RefreshReason {
        self.reason
    }

    /// The number of this attempt since the last success, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The grant and the host. `None` if the [`RefreshFn`](crate::RefreshFn) does not describe itself.
    pub fn description(&self) -> Option<&RefreshDescription> {
        self.description.as_ref()
    }
}

/// A refresh returned a session.
#[derive(Clone, Debug)]
pub struct RefreshSucceeded {
    pub(crate) attempt: u32,
    pub(crate) description: Option<RefreshDescription>,
    pub(crate) duration: Duration,
    pub(crate) waiters: usize,
    pub(crate) generation: Generation,
}

impl RefreshSucceeded {
    /// The number of this attempt since the last success, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The grant and the host. `None` if the [`RefreshFn`](crate::RefreshFn) does not describe itself.
    pub fn description(&self) -> Option<&RefreshDescription> {
        self.description.as_ref()
    }

    /// How long this attempt took, by tokio's clock.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// How many requests, and calls of [`SessionHandle`](crate::SessionHandle), waited for the refresh when it ended.
    /// Callers who gave up before do not count.
    pub fn waiters(&self) -> usize {
        self.waiters
    }

    /// The generation of the new session.
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

/// An attempt to refresh failed.
#[derive(Clone, Debug)]
pub struct RefreshFailed {
    pub(crate) attempt: u32,
    pub(crate) description: Option<RefreshDescription>,
    pub(crate) duration: Duration,
    pub(crate) error: RefreshError,
    pub(crate) will_retry: bool,
}

impl RefreshFailed {
    /// The number of this attempt since the last success, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The grant and the host. `None` if the [`RefreshFn`](crate::RefreshFn) does not describe itself.
    pub fn description(&self) -> Option<&RefreshDescription> {
        self.description.as_ref()
    }

    /// How long this attempt took, by tokio's clock.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// The cause, with the server's own [code](RefreshError::error_code) and whether it is
    /// [terminal](RefreshError::is_terminal).
    ///
    /// The kind is [`Cancelled`](crate::RefreshErrorKind::Cancelled) if a session was set, or the session was logged
    /// out, during the refresh.
    pub fn error(&self) -> &RefreshError {
        &self.error
    }

    /// Whether the same refresh makes another attempt for its waiters.
    pub fn will_retry(&self) -> bool {
        self.will_retry
    }
}

/// A session that another process had saved was adopted from the store.
#[derive(Clone, Debug)]
pub struct SessionAdopted {
    pub(crate) reason: RefreshReason,
    pub(crate) waiters: usize,
    pub(crate) generation: Generation,
}

impl SessionAdopted {
    /// Why a session was needed.
    pub fn reason(&self) -> RefreshReason {
        self.reason
    }

    /// How many requests, and calls of [`SessionHandle`](crate::SessionHandle), waited for it.
    pub fn waiters(&self) -> usize {
        self.waiters
    }

    /// The generation of the adopted session.
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

/// The store of a session failed.
#[derive(Clone, Debug)]
pub struct StoreFailed {
    pub(crate) operation: StoreOperation,
    pub(crate) key: Arc<str>,
    pub(crate) attempts: u32,
    pub(crate) duration: Duration,
    pub(crate) error: StoreError,
}

impl StoreFailed {
    /// The operation that failed.
    pub fn operation(&self) -> StoreOperation {
        self.operation
    }

    /// The key of the session.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How often the operation was tried.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long all tries took, by tokio's clock.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Why the last try failed.
    pub fn error(&self) -> &StoreError {
        &self.error
    }
}

/// An operation of a session store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreOperation {
    /// Loading the record.
    Load,
    /// Taking the lock.
    Lock,
    /// Renewing the lease of the lock.
    Renew,
    /// Saving a session.
    Save,
    /// Deleting the record, for a logout.
    Delete,
}

/// A rejected request is sent again.
#[derive(Clone, Debug)]
pub struct Replayed {
    pub(crate) attempt: u32,
    pub(crate) generation: Generation,
}

impl Replayed {
    /// The number of this attempt at the request, from 2.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The generation of the session that the request is sent with.
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

/// How a session differs from what [`App::dpop`](crate::oauth::App) is set up for.
///
/// It is told once for each kind. [`Display`](fmt::Display) says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DpopNotice {
    /// The server issued a bearer token, although the request for it had a proof. The session is used as a bearer token.
    NotBound,
    /// The refresh token, or the access token, is bound to another key than that of the app, and is proven with it: for example
    /// a stored one.
    #[non_exhaustive]
    OtherKey {
        /// The thumbprint of the key of the app.
        configured: String,
        /// The thumbprint of the key that the tokens are bound to.
        used: String,
    },
}

impl fmt::Display for DpopNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBound => f.write_str(
                "the server issued a bearer token, although the request had a DPoP proof: the grant is older than DPoP for this \
                 app, which a new authorization changes, or the server does not know DPoP",
            ),
            Self::OtherKey { configured, used } => write!(
                f,
                "the tokens are bound to the DPoP key {used}, and App::dpop has {configured}: a new authorization binds them to \
                 that one"
            ),
        }
    }
}
