//! A session store in memory.

use std::{
    collections::HashMap,
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedMutexGuard},
    time::timeout,
};

use super::{
    record::Record,
    save::Save,
    session_store::{BoxFuture, SessionStore, StoreLock},
    version::Version,
};
use crate::error::{StoreError, StoreErrorKind};

const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps sessions in memory, for several layers of one process and for tests. Clones share the sessions.
///
/// The sessions end with the process. Waiting for a lock needs a tokio runtime with a time driver.
///
/// ```
/// use tower_salesforce_auth::{Session, store::{MemoryStore, Record, Save, SessionStore}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// let record = Record::new(session);
/// store.lock("nightly-export").await?.save(Save::new(&record)).await?;
/// assert!(store.clone().load("nightly-export").await?.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    entries: Arc<Mutex<EntryMap>>,
    /// Wakes those who wait for a change, of any key.
    changes: Arc<Notify>,
    lock_timeout: Duration,
}

/// The entry of each key that has a session, or whose lock is held or waited for.
type EntryMap = HashMap<String, Arc<MemoryEntry>>;

#[derive(Default)]
struct MemoryEntry {
    /// The record. This mutex is never held across an await.
    record: Mutex<Option<Record>>,
    /// The store lock of the key.
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl MemoryStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self {
            entries: Arc::default(),
            changes: Arc::default(),
            lock_timeout: DEFAULT_LOCK_TIMEOUT,
        }
    }

    /// Sets how long to wait for a lock that is held elsewhere. Default: 10 s.
    #[must_use]
    pub fn lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.lock_timeout = lock_timeout;
        self
    }

    fn entries(&self) -> MutexGuard<'_, EntryMap> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn version(&self, key: &str) -> Option<Version> {
        let entries = self.entries();
        let record = entries.get(key)?.record();
        record.as_ref().map(Record::version)
    }

    fn entry(&self, key: &str) -> EntryRef {
        let shared = Arc::clone(self.entries().entry(key.to_owned()).or_default());
        EntryRef {
            store: self.clone(),
            key: key.to_owned(),
            shared,
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryEntry {
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
            let entry = self.entry(key);
            let lock = Arc::clone(&entry.shared.lock).lock_owned();
            let guard = timeout(self.lock_timeout, lock).await.map_err(|elapsed| {
                StoreError::new(
                    StoreErrorKind::LockBusy,
                    "another holder in this process has the lock of the session",
                )
                .with_source(elapsed)
                .with_remedy("try again, or raise MemoryStore::lock_timeout")
            })?;
            let locked: Box<dyn StoreLock> = Box::new(MemoryStoreLock {
                entry,
                _guard: guard,
            });
            Ok(locked)
        })
    }

    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            loop {
                let mut changed = pin!(self.changes.notified());
                changed.as_mut().enable();
                if self.version(key) != since {
                    return;
                }
                changed.await;
            }
        })
    }
}

/// A reference to the entry of a key, for the holder of its lock and each task that waits for it.
struct EntryRef {
    store: MemoryStore,
    key: String,
    shared: Arc<MemoryEntry>,
}

/// The last reference removes an entry without a record. Otherwise the map would grow with each new key.
impl Drop for EntryRef {
    fn drop(&mut self) {
        let mut entries = self.store.entries();
        // Only the map and this reference are left. The map is locked, so it hands out no other.
        if Arc::strong_count(&self.shared) == 2 && self.shared.record().is_none() {
            entries.remove(&self.key);
        }
    }
}

struct MemoryStoreLock {
    entry: EntryRef,
    _guard: OwnedMutexGuard<()>,
}

impl StoreLock for MemoryStoreLock {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async { Ok(self.entry.shared.record().clone()) })
    }

    fn save<'a>(&'a mut self, save: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut stored = self.entry.shared.record();
            if save.is_permitted(stored.as_ref().map(Record::version))? {
                *stored = Some(save.record().clone());
                self.entry.store.changes.notify_waiters();
            }
            Ok(())
        })
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            *self.entry.shared.record() = None;
            self.entry.store.changes.notify_waiters();
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
