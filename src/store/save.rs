//! What a store saves, and how long its lock is held.

use std::time::Duration;

use tokio::time::Instant;

use super::{record::Record, version::Version};
use crate::error::{StoreError, StoreErrorKind};

/// One save: the record, and what it takes the place of.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_salesforce_auth::{Session, store::{MemoryStore, Record, Save, SessionStore}};
///
/// let store = MemoryStore::new();
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// let first = Record::new(session.clone());
/// let second = first.followed_by(session);
///
/// let mut lock = store.lock("nightly-export").await?;
/// lock.save(Save::new(&first)).await?;
/// lock.save(Save::new(&second).replacing(first.version())).await?;
/// assert!(lock.save(Save::new(&first)).await.is_err(), "there is a record");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Save<'a> {
    record: &'a Record,
    replaces: Option<Version>,
    lifetime: Option<Duration>,
}

impl<'a> Save<'a> {
    /// Saves this record if there is none.
    pub const fn new(record: &'a Record) -> Self {
        Self {
            record,
            replaces: None,
            lifetime: None,
        }
    }

    /// Saves the record in place of the record of this version. `None`: if there is none.
    #[must_use]
    pub fn replacing(mut self, version: impl Into<Option<Version>>) -> Self {
        self.replaces = version.into();
        self
    }

    /// Sets how long the record is of use, at most. Default: `None`, without end.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.lifetime = lifetime.into();
        self
    }

    /// The record that is saved.
    pub const fn record(&self) -> &'a Record {
        self.record
    }

    /// The version that the store must have. `None`: it must have no record.
    pub const fn replaces(&self) -> Option<Version> {
        self.replaces
    }

    /// How long after the save the record is of use, at most. A hint: a store may delete the record then. `None`: without
    /// end.
    pub const fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// Decides by the version that the store has. `None`: it has no record. Returns whether there is something to write: a
    /// record that the store has already is not written again.
    ///
    /// # Errors
    ///
    /// [`Superseded`](StoreErrorKind::Superseded) if the store has another version.
    pub fn is_permitted(&self, stored: Option<Version>) -> Result<bool, StoreError> {
        if stored == Some(self.record.version()) {
            return Ok(false);
        }
        if stored == self.replaces {
            return Ok(true);
        }
        Err(superseded(stored))
    }
}

/// The error of a save that finds this version.
pub(super) fn superseded(stored: Option<Version>) -> StoreError {
    StoreError::new(
        StoreErrorKind::Superseded,
        match stored {
            Some(_) => {
                "another process has saved a session since this one was loaded: load it again"
            }
            None => "another process has deleted the session since it was loaded: load it again",
        },
    )
}

/// How long a lock is held unless it is [renewed](super::StoreLock::renew), by the clock of this process.
///
/// ```
/// use std::time::Duration;
/// use tower_salesforce_auth::store::Lease;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let lease = Lease::begin(Duration::from_secs(15));
/// // Here the server takes the lock, for 15 s by its own clock.
/// assert!(!lease.is_over());
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    begun: Instant,
    length: Duration,
}

impl Lease {
    /// Begins a lease now. Call it before the request that takes or renews the lock is sent, so that the lease is over here
    /// no later than at the server.
    pub fn begin(length: Duration) -> Self {
        Self {
            begun: Instant::now(),
            length,
        }
    }

    /// The length of the lease. The layer renews it when a third has passed.
    pub const fn length(&self) -> Duration {
        self.length
    }

    /// Whether the lease is over.
    pub fn is_over(&self) -> bool {
        self.begun.elapsed() >= self.length
    }

    /// When the lease is to be renewed. `None`: later than the clock can tell.
    pub(crate) fn renewed_at(&self) -> Option<Instant> {
        self.begun.checked_add(self.length / 3)
    }

    /// Whether the lease is to be renewed.
    pub(crate) fn is_due(&self) -> bool {
        self.begun.elapsed() >= self.length / 3
    }

    /// When the lease is over. `None`: later than the clock can tell.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.begun.checked_add(self.length)
    }
}
