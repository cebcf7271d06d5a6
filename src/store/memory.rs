//! Sessions in memory.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::OwnedMutexGuard, time::timeout};

use super::{
    record::Record,
    session_store::{BoxFuture, SessionStore, StoreLock},
};
use crate::error::{StoreError, StoreErrorKind};

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
    entries: Arc<Mutex<Entries>>,
    lock_timeout: Duration,
}

/// Of each key that has a session, or whose lock somebody has or waits for.
type Entries = HashMap<String, Arc<Entry>>;

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

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn share(&self, key: &str) -> Share {
        let entry = Arc::clone(self.entries().entry(key.to_owned()).or_default());
        Share {
            store: self.clone(),
            key: key.to_owned(),
            entry,
        }
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
        Box::pin(async move {
            let entries = self.entries();
            Ok(entries.get(key).and_then(|entry| entry.record().clone()))
        })
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let share = self.share(key);
            let lock = Arc::clone(&share.entry.lock).lock_owned();
            let guard = timeout(self.lock_timeout, lock).await.map_err(|elapsed| {
                StoreError::new(
                    StoreErrorKind::LockBusy,
                    "somebody else in this process holds the lock of the session",
                )
                .with_source(elapsed)
            })?;
            let locked: Box<dyn StoreLock> = Box::new(Locked {
                share,
                _guard: guard,
            });
            Ok(locked)
        })
    }
}

/// The entry of a key, for who has the lock or waits for it.
struct Share {
    store: MemoryStore,
    key: String,
    entry: Arc<Entry>,
}

/// Nothing stays of a key that has no session: there may be no end of keys.
impl Drop for Share {
    fn drop(&mut self) {
        let mut entries = self.store.entries();
        // Nobody else has it, but for the store, or can get it meanwhile.
        if Arc::strong_count(&self.entry) == 2 && self.entry.record().is_none() {
            entries.remove(&self.key);
        }
    }
}

struct Locked {
    share: Share,
    _guard: OwnedMutexGuard<()>,
}

impl StoreLock for Locked {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async { Ok(self.share.entry.record().clone()) })
    }

    fn save<'a>(&'a mut self, record: &'a Record) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async {
            *self.share.entry.record() = Some(record.clone());
            Ok(())
        })
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            *self.share.entry.record() = None;
            Ok(())
        })
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("keys", &self.entries().len())
            .field("lock_timeout", &self.lock_timeout)
            .finish_non_exhaustive()
    }
}
