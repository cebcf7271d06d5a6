//! The error of a session store.

use std::{borrow::Cow, error::Error as StdError, fmt};

use super::{
    message::Message,
    refresh::{RefreshError, RefreshErrorKind},
    shared::BoxError,
};

/// The error of a session store.
///
/// The error is `Clone`, because one failure fails every waiter. It must not contain a secret.
///
/// It says in one line what failed, why, and what to do: see [`Error`](crate::Error#what-it-says).
///
/// ```
/// use tower_salesforce_auth::store::{StoreError, StoreErrorKind};
///
/// fn unreachable(error: std::io::Error) -> StoreError {
///     StoreError::new(StoreErrorKind::Unavailable, "the database is unreachable")
///         .with_source(error)
/// }
/// # assert!(!unreachable(std::io::ErrorKind::BrokenPipe.into()).is_terminal());
/// ```
#[derive(Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    pub(super) message: Message,
}

/// The kind of a [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Another holder kept the lock for as long as the store waits. Transient.
    LockBusy,
    /// The lock of the session may belong to another holder: its lease is over, or it was taken away. Transient. The layer
    /// loads the record again before it goes on.
    LockLost,
    /// The store has another version of the record than the save replaces: another process saved or deleted it. Transient.
    /// The layer loads the record, and goes on with that.
    Superseded,
    /// The store or its lock service is unreachable, cannot be read or written to, or did not answer in time. Transient.
    Unavailable,
    /// The store has an older record than before: it comes from a replica that lags behind, or from a backup. Transient.
    Stale,
    /// The stored data is not a session record. Terminal.
    Corrupt,
    /// A later version of this crate wrote the record. Terminal.
    UnsupportedVersion,
    /// The record is encrypted with another key, or only one of store and record uses encryption. Terminal.
    Undecryptable,
    /// Others can read or replace the record, or it is no file of this process's user. Terminal.
    Untrusted,
}

impl StoreError {
    /// Creates an error of this kind. The message should say what failed, and the remedy.
    pub fn new(kind: StoreErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: Message::new(message),
        }
    }

    /// Adds the cause of the error. It must not contain a secret either.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.message.source = Some(source.into().into());
        self
    }

    /// Adds what to do, to be said after the causes.
    #[must_use]
    pub(crate) fn with_remedy(mut self, remedy: &'static str) -> Self {
        self.message.remedy = Some(remedy);
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether another holder had the lock while it was held here, as far as the store could tell.
    pub(crate) fn is_of_lost_lock(&self) -> bool {
        matches!(
            self.kind,
            StoreErrorKind::LockLost | StoreErrorKind::Superseded
        )
    }

    /// Whether another attempt cannot succeed until the record is repaired or deleted.
    pub fn is_terminal(&self) -> bool {
        match self.kind {
            StoreErrorKind::LockBusy
            | StoreErrorKind::LockLost
            | StoreErrorKind::Superseded
            | StoreErrorKind::Unavailable
            | StoreErrorKind::Stale => false,
            StoreErrorKind::Corrupt
            | StoreErrorKind::UnsupportedVersion
            | StoreErrorKind::Undecryptable
            | StoreErrorKind::Untrusted => true,
        }
    }
}

/// The error of a refresh whose store failed.
impl From<StoreError> for RefreshError {
    fn from(error: StoreError) -> Self {
        Self::new(
            RefreshErrorKind::Store,
            error.is_terminal(),
            "the store of the session failed",
        )
        .with_source(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.message, f)
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("StoreError")
            .field("kind", &self.kind)
            .field("message", &self.message.what)
            .field("source", &self.message.source)
            .finish()
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.message.unsaid()
    }
}
