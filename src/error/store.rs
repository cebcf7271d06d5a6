//! What can go wrong with a store.

use std::{borrow::Cow, error::Error as StdError, fmt};

use super::{
    refresh::{RefreshError, RefreshErrorKind},
    shared::{BoxError, SharedError, as_source},
};

/// Why a store could not do what it was asked.
///
/// It can be cloned, since one failure fails everybody who waited, and it must not hold a secret.
///
/// ```
/// use tower_salesforce_auth::store::{StoreError, StoreErrorKind};
///
/// fn unreachable(error: std::io::Error) -> StoreError {
///     StoreError::new(StoreErrorKind::Unavailable, "the database cannot be reached").with_source(error)
/// }
/// # assert!(!unreachable(std::io::ErrorKind::BrokenPipe.into()).is_terminal());
/// ```
#[derive(Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: Cow<'static, str>,
    source: Option<SharedError>,
}

/// What a [`StoreError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Somebody else holds the lock, and did not release it for as long as the store waits. May pass.
    LockBusy,
    /// The store, or whatever keeps its locks, cannot be reached, read or written to, or did not answer in time. May pass.
    Unavailable,
    /// The store has an older record than one that was seen before: from a replica that lags behind, or from a backup. May
    /// pass.
    Stale,
    /// What is stored is not a session record.
    Corrupt,
    /// What is stored was written by a later version of this crate.
    UnsupportedVersion,
    /// What is stored is encrypted with another key, or is not encrypted although there is a key, or the other way round.
    Undecryptable,
}

impl StoreError {
    /// A failure of this kind. The message says what was attempted, and what to do.
    pub fn new(kind: StoreErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Adds what caused it, which must not hold a secret either.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// What the failure is about.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether trying again cannot help until somebody does something about the record.
    pub fn is_terminal(&self) -> bool {
        match self.kind {
            StoreErrorKind::LockBusy | StoreErrorKind::Unavailable | StoreErrorKind::Stale => false,
            StoreErrorKind::Corrupt
            | StoreErrorKind::UnsupportedVersion
            | StoreErrorKind::Undecryptable => true,
        }
    }
}

/// A refresh that could not be, for want of the store.
impl From<StoreError> for RefreshError {
    fn from(error: StoreError) -> Self {
        Self::new(
            RefreshErrorKind::Store,
            error.is_terminal(),
            "the store that the session is kept in failed",
        )
        .with_source(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreError")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        as_source(self.source.as_ref())
    }
}
