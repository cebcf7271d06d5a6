//! A session store on a database: one algorithm for all of them.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime,
    time::{Instant, sleep},
};

use super::backend::{Acquired, LeaseBackend, Put, Stored};
#[cfg(feature = "encryption")]
use crate::store::encryption::EncryptionKey;
use crate::{
    error::{StoreError, StoreErrorKind},
    session::jitter::with_jitter,
    store::{
        encoding::Encoding,
        record::Record,
        save::{Lease, Save, superseded},
        session_store::{BoxFuture, SessionStore, StoreLock},
        version::Version,
    },
};

const DEFAULT_LEASE: Duration = Duration::from_secs(15);

/// A shorter lease could be over before the answer that grants it has arrived.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before the second attempt to take a held lock. Each further pause is as long as the wait so far, up to
/// `LONGEST_PAUSE`. Of each pause, a random half is left out, so that waiting processes come one by one, also at the end of a
/// lease.
///
/// The layer loads the record more often than that: a process that waits seldom needs the lock.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Keeps sessions in a database, for the processes of many machines.
///
/// It does with a [`LeaseBackend`] what a [`SessionStore`] promises. A lock is a lease, which the layer renews. Between two
/// calls nothing is held in the database but the row of the lease: no connection, no transaction. A save compares versions, so
/// a process that lost its lease overwrites nothing that came later.
///
/// If a process is killed while it holds the lock, others wait until the lease is over. They wait as well for a process that could
/// not save: it may have the only refresh token that is valid. At its next [save](crate::SessionHandle::save) or refresh, that
/// process goes on with its lock, and saves first what it could not save.
pub struct LeaseStore<B> {
    backend: Arc<B>,
    lease: Duration,
    lock_timeout: Duration,
    encoding: Encoding,
    /// The locks whose last save failed, by their keys.
    kept: Arc<Mutex<HashMap<String, Kept>>>,
}

impl<B: LeaseBackend> LeaseStore<B> {
    /// Creates a store on this database.
    pub fn new(backend: B) -> Self {
        Self {
            backend: Arc::new(backend),
            lease: DEFAULT_LEASE,
            lock_timeout: DEFAULT_LOCK_TIMEOUT,
            encoding: Encoding::default(),
            kept: Arc::default(),
        }
    }

    /// Sets how long a lock lasts unless it is renewed: how long others wait for a process that was killed. Default: 15 s.
    ///
    /// The layer renews it each third of that time. It should be long enough for the database to fail over. A shorter one than
    /// 1 s counts as 1 s.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(SHORTEST_LEASE);
        self
    }

    /// Sets how long to wait for a lock that is held elsewhere. Default: 10 s.
    ///
    /// It should be shorter than the refresh timeout.
    #[must_use]
    pub fn lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.lock_timeout = lock_timeout;
        self
    }

    /// Encrypts saved records. The store refuses records that are not encrypted with this key, or with one of its
    /// [older keys](EncryptionKey::or).
    #[cfg(feature = "encryption")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
    #[must_use]
    pub fn encryption(mut self, key: EncryptionKey) -> Self {
        self.encoding = Encoding::encrypted(key);
        self
    }

    /// The same store on another database.
    #[cfg(any(feature = "postgres-store", feature = "redis-store"))]
    pub(in crate::store) fn on(self, backend: B) -> Self {
        Self {
            backend: Arc::new(backend),
            // Its locks are of the other database.
            kept: Arc::default(),
            ..self
        }
    }

    /// The database.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    fn decode(&self, key: &str, stored: &Stored) -> Result<Record, StoreError> {
        let record = self.encoding.decode(key, stored.text.expose())?;
        if record.version() == stored.version {
            return Ok(record);
        }
        Err(StoreError::new(
            StoreErrorKind::Corrupt,
            "the session record has another version than the column beside it: restore both, or delete the row to log in again",
        ))
    }

    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let stored = self.backend.get(key).await?;
        stored.map(|stored| self.decode(key, &stored)).transpose()
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up the lock of a save that failed, if its lease is not over, and saves first what was not saved: the caller may be
    /// another handle, which must not load a refresh token that is spent.
    async fn take_up(&self, key: &str) -> Result<Option<LeaseLock<B>>, StoreError> {
        let Some(Kept {
            owner,
            lease,
            unsaved,
        }) = self.kept().remove(key)
        else {
            return Ok(None);
        };
        let mut lock = LeaseLock {
            store: self.clone(),
            key: key.to_owned(),
            owner,
            lease,
            unsaved: Some(unsaved.clone()),
            is_released: false,
        };
        match lock.renew().await {
            Ok(()) => {}
            Err(error) if error.kind() == StoreErrorKind::LockLost => {
                lock.forget();
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        match lock.save(unsaved.save()).await {
            Err(error) if error.kind() == StoreErrorKind::Unavailable => Err(error),
            // If the store has another record, the caller finds it.
            _ => Ok(Some(lock)),
        }
    }

    async fn take(&self, key: &str) -> Result<LeaseLock<B>, StoreError> {
        if let Some(lock) = self.take_up(key).await? {
            return Ok(lock);
        }
        let since = Instant::now();
        loop {
            let begun = Lease::begin(self.lease);
            // Dropping it releases the lease, also if the answer never comes.
            let lock = LeaseLock {
                store: self.clone(),
                key: key.to_owned(),
                owner: owner()?,
                lease: begun,
                unsaved: None,
                is_released: false,
            };
            let acquired = self.backend.acquire(key, &lock.owner, self.lease).await?;
            if acquired == Acquired::Taken {
                return Ok(lock);
            }
            lock.forget();
            let waited = since.elapsed();
            let left = self.lock_timeout.saturating_sub(waited);
            if left.is_zero() {
                return Err(StoreError::new(
                    StoreErrorKind::LockBusy,
                    format!(
                        "another process holds the lock of the session, and did not release it within {:?}",
                        self.lock_timeout
                    ),
                ));
            }
            let pause = waited.clamp(FIRST_PAUSE, LONGEST_PAUSE);
            sleep(with_jitter(pause).min(left)).await;
        }
    }
}

impl<B> Clone for LeaseStore<B> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            lease: self.lease,
            lock_timeout: self.lock_timeout,
            encoding: self.encoding.clone(),
            kept: Arc::clone(&self.kept),
        }
    }
}

impl<B: LeaseBackend> SessionStore for LeaseStore<B> {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(self.get(key))
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let lock: Box<dyn StoreLock> = Box::new(self.take(key).await?);
            Ok(lock)
        })
    }

    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        self.backend.changed(key, since)
    }
}

/// The store lock of one key.
struct LeaseLock<B: LeaseBackend> {
    store: LeaseStore<B>,
    key: String,
    /// Random, and of this lock alone: a lock that is late releases no other.
    owner: String,
    lease: Lease,
    /// The last save. `None` if it did not fail.
    unsaved: Option<Unsaved>,
    is_released: bool,
}

/// A save that failed, or whose answer never came.
#[derive(Clone)]
struct Unsaved {
    record: Record,
    replaces: Option<Version>,
    lifetime: Option<Duration>,
}

impl Unsaved {
    fn of(save: Save<'_>) -> Self {
        Self {
            record: save.record().clone(),
            replaces: save.replaces(),
            lifetime: save.lifetime(),
        }
    }

    fn save(&self) -> Save<'_> {
        Save::new(&self.record)
            .replacing(self.replaces)
            .with_lifetime(self.lifetime)
    }
}

/// A lock that was not released, since its save failed.
struct Kept {
    owner: String,
    lease: Lease,
    unsaved: Unsaved,
}

impl<B: LeaseBackend> LeaseLock<B> {
    /// There is nothing to release.
    fn forget(mut self) {
        self.is_released = true;
    }

    /// Leaves the lock to the next one of this process, if the last save failed. Returns whether it did.
    fn keep(&mut self) -> bool {
        let Some(unsaved) = self.unsaved.take() else {
            return false;
        };
        self.is_released = true;
        let kept = Kept {
            owner: self.owner.clone(),
            lease: self.lease,
            unsaved,
        };
        let mut all = self.store.kept();
        // A key that is never locked again leaves nothing behind.
        all.retain(|_, kept| !kept.lease.is_over());
        all.insert(self.key.clone(), kept);
        true
    }

    fn backend(&self) -> &B {
        &self.store.backend
    }
}

impl<B: LeaseBackend> StoreLock for LeaseLock<B> {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            let record = self.store.get(&self.key).await?;
            // The save was done all the same, or another process was faster.
            let stored = record.as_ref().map(Record::version);
            self.unsaved.take_if(|unsaved| unsaved.replaces != stored);
            Ok(record)
        })
    }

    fn save<'a>(&'a mut self, save: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let text = self.store.encoding.encode(&self.key, save.record())?;
            let put = Put {
                text: &text,
                version: save.record().version(),
                replaces: save.replaces(),
                lifetime: save.lifetime(),
            };
            // Also if the answer never comes.
            self.unsaved = Some(Unsaved::of(save));
            let stored = self.store.backend.put(&self.key, put).await;
            self.unsaved.take_if(|_| !is_unavailable(&stored));
            let stored = stored?;
            if stored == Some(put.version) {
                return Ok(());
            }
            Err(superseded(stored))
        })
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if self.backend().delete(&self.key, &self.owner).await? {
                self.unsaved = None;
                Ok(())
            } else {
                Err(lost())
            }
        })
    }

    fn lease(&self) -> Option<Lease> {
        Some(self.lease)
    }

    fn renew(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let lease = Lease::begin(self.store.lease);
            let backend = &self.store.backend;
            if !backend
                .renew(&self.key, &self.owner, lease.length())
                .await?
            {
                return Err(lost());
            }
            self.lease = lease;
            Ok(())
        })
    }

    fn unlock(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if self.keep() {
                return;
            }
            // A lease that cannot be released ends by itself.
            drop(self.backend().release(&self.key, &self.owner).await);
            self.is_released = true;
        })
    }
}

/// Releases the lease in the background. Without a runtime it ends by itself.
impl<B: LeaseBackend> Drop for LeaseLock<B> {
    fn drop(&mut self) {
        if self.is_released || self.keep() {
            return;
        }
        if let Ok(runtime) = runtime::Handle::try_current() {
            let backend = Arc::clone(&self.store.backend);
            let (key, owner) = (self.key.clone(), self.owner.clone());
            runtime.spawn(async move { drop(backend.release(&key, &owner).await) });
        }
    }
}

fn is_unavailable<T>(answer: &Result<T, StoreError>) -> bool {
    let error = answer.as_ref().err();
    error.is_some_and(|error| error.kind() == StoreErrorKind::Unavailable)
}

fn lost() -> StoreError {
    StoreError::new(
        StoreErrorKind::LockLost,
        "the lease of the session's lock was over, and another process may have the lock",
    )
}

fn random() -> Result<u64, StoreError> {
    getrandom::u64().map_err(|error| {
        StoreError::new(
            StoreErrorKind::Unavailable,
            "the system has no randomness for the owner of a lock",
        )
        .with_source(error)
    })
}

fn owner() -> Result<String, StoreError> {
    Ok(format!("{:016x}{:016x}", random()?, random()?))
}

impl<B> fmt::Debug for LeaseStore<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseStore")
            .field("lease", &self.lease)
            .field("lock_timeout", &self.lock_timeout)
            .finish_non_exhaustive()
    }
}
