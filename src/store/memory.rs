//! Sessions in memory.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::OwnedMutexGuard, time::timeout};

use super::{
    error::{StoreError, StoreErrorKind},
    record::Record,
    session_store::{BoxFuture, SessionStore, StoreLock},
};

const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps sessions in memory, for several layers of one process, and for tests. Clones share the sessions.
///
/// What is in it ends with the process. To wait for a lock takes a tokio runtime with a time driver.
///
/// ```
/// use tower_salesforce_auth::{Session, store::{MemoryStore, Record, SessionStore}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// store.lock("nightly-export").await?.save(&Record::new(session)).await?;
/// assert!(store.clone().load("nightly-export").await?.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    entries: Arc<Mutex<HashMap<String, Arc<Entry>>>>,
    lock_timeout: Duration,
}

#[derive(Default)]
struct Entry {
    /// Never held while anything is awaited.
    record: Mutex<Option<Record>>,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl MemoryStore {
    /// A store with nothing in it.
    pub fn new() -> Self {
        Self {
            entries: Arc::default(),
            lock_timeout: DEFAULT_LOCK_TIMEOUT,
        }
    }

    /// How long to wait for a lock that somebody has, 10 s by default.
    #[must_use]
    pub fn lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.lock_timeout = lock_timeout;
        self
    }

    fn entry(&self, key: &str) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(entries.entry(key.to_owned()).or_default())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Entry {
    fn record(&self) -> MutexGuard<'_, Option<Record>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionStore for MemoryStore {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move { Ok(self.entry(key).record().clone()) })
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let entry = self.entry(key);
            let lock = Arc::clone(&entry.lock).lock_owned();
            let guard = timeout(self.lock_timeout, lock).await.map_err(|elapsed| {
                StoreError::new(
                    StoreErrorKind::LockBusy,
                    "somebody else in this process holds the lock of the session",
                )
                .with_source(elapsed)
            })?;
            let locked: Box<dyn StoreLock> = Box::new(Locked {
                entry,
                _guard: guard,
            });
            Ok(locked)
        })
    }
}

struct Locked {
    entry: Arc<Entry>,
    _guard: OwnedMutexGuard<()>,
}

impl StoreLock for Locked {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async { Ok(self.entry.record().clone()) })
    }

    fn save<'a>(&'a mut self, record: &'a Record) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async {
            *self.entry.record() = Some(record.clone());
            Ok(())
        })
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            *self.entry.record() = None;
            Ok(())
        })
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("lock_timeout", &self.lock_timeout)
            .finish_non_exhaustive()
    }
}
