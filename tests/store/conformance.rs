//! Both stores keep the contract, and the check finds stores that break it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tower_salesforce_auth::{
    Session,
    store::{
        BoxFuture, EncryptionKey, FileStore, MemoryStore, Record, Save, SessionStore, StoreError,
        StoreErrorKind, StoreLock, conformance,
    },
};

const SOON: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_store_conforms() {
    let store = MemoryStore::new().lock_timeout(SOON);
    conformance::check(|| store.clone()).await;
    is_empty(&store);
}

fn is_empty(store: &MemoryStore) {
    let shown = format!("{store:?}");
    assert!(shown.contains("keys: 0,"), "{shown}");
}

/// A web application has a key for each browser, so old keys must not take memory.
#[tokio::test]
async fn a_deleted_or_absent_key_leaves_nothing_in_memory() {
    let store = MemoryStore::new().lock_timeout(SOON);
    let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com").unwrap();
    for key in ["one", "two"] {
        assert!(store.load(key).await.unwrap().is_none());
        is_empty(&store);
        drop(store.lock(key).await.unwrap());
        is_empty(&store);

        let mut lock = store.lock(key).await.unwrap();
        let record = Record::new(session.clone());
        lock.save(Save::new(&record)).await.unwrap();
        lock.unlock().await;
        assert!(store.load(key).await.unwrap().is_some());

        let mut lock = store.lock(key).await.unwrap();
        lock.delete().await.unwrap();
        // A waiter gets the lock, and excludes all others.
        let waiting = store.lock(key);
        let (next, ()) = tokio::join!(waiting, async { lock.unlock().await });
        let mut next = next.unwrap();
        assert!(store.lock(key).await.is_err());
        let mut impatient = store.lock(key);
        assert!(futures_util::poll!(&mut impatient).is_pending());
        assert!(next.load().await.unwrap().is_none());
        next.unlock().await;
        drop(impatient);
        is_empty(&store);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    conformance::check(|| {
        FileStore::open(directory.path())
            .unwrap()
            .lock_timeout(SOON)
    })
    .await;
    // The directory is empty afterwards.
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

#[tokio::test]
async fn r34_the_file_store_tells_of_changes() {
    let directory = tempfile::tempdir().unwrap();
    let open = || FileStore::open(directory.path()).unwrap();
    conformance::check_notices(|| open().notice_interval(Duration::ZERO)).await;
    conformance::check_notices(open).await;
    // Nothing is told while nothing changes.
    let store = open().notice_interval(Duration::ZERO);
    let told = tokio::time::timeout(SOON, store.changed("example", None)).await;
    told.unwrap_err();
    // A file that was replaced by another program is told of, whether or not it is a record.
    std::fs::write(store.path("example"), "no record").unwrap();
    store.changed("example", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_encrypted_file_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let store = FileStore::open(directory.path())
            .unwrap()
            .lock_timeout(SOON);
        store.encryption(EncryptionKey::new([7; 32]))
    };
    conformance::check(open).await;
}

// === Stores that break the contract ===

/// How a store breaks the contract.
#[derive(Clone, Copy, Debug)]
enum Fault {
    HasNoLock,
    LocksAllKeysAtOnce,
    CallsBusyDown,
    LosesCaseOfKeys,
    CutsKeys,
    LoadsWithTheLockAlone,
    KeepsTheFirstRecord,
    KeepsEachProcessItsOwn,
    CannotDeleteWhatIsNotThere,
    DeletesNothing,
    LosesRefreshTokens,
    SavesInPieces,
    LosesWhatIsGivenUp,
    LeaksTheLockOfADroppedCaller,
    SavesAfterItWasGivenUp,
    LosesTheLockByASave,
    LosesTheLockByADeletion,
    UndoesWhatWasNotUnlocked,
}

/// A store in memory with a fault.
#[derive(Clone)]
struct Faulty {
    store: MemoryStore,
    fault: Fault,
    unlocked: Arc<Mutex<HashMap<String, Record>>>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self {
            store: MemoryStore::new().lock_timeout(SOON),
            fault,
            unlocked: Arc::default(),
        }
    }

    fn key(&self, key: &str) -> String {
        match self.fault {
            Fault::LosesCaseOfKeys => key.to_lowercase(),
            Fault::CutsKeys => key.chars().take(64).collect(),
            _ => key.to_owned(),
        }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<String, Record>> {
        self.unlocked.lock().unwrap()
    }
}

fn down() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "a fault")
}

impl SessionStore for Faulty {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            let key = self.key(key);
            if matches!(self.fault, Fault::LoadsWithTheLockAlone) {
                self.store.lock(&key).await?;
            }
            Ok(self.records().get(&key).cloned())
        })
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let key = self.key(key);
            let lock = match self.fault {
                Fault::HasNoLock => None,
                Fault::LocksAllKeysAtOnce => Some(self.store.lock("all").await?),
                Fault::CallsBusyDown => Some(self.store.lock(&key).await.map_err(|_| down())?),
                Fault::LeaksTheLockOfADroppedCaller => {
                    let (store, key) = (self.store.clone(), key.clone());
                    // Its own task keeps waiting for the lock, and leaks it.
                    let (give, given) = tokio::sync::oneshot::channel();
                    tokio::spawn(async move {
                        let lock = store.lock_timeout(10 * SOON).lock(&key).await;
                        if let Err(unwanted) = give.send(lock) {
                            std::mem::forget(unwanted);
                        }
                    });
                    Some(
                        tokio::time::timeout(SOON, given)
                            .await
                            .map_err(|_| StoreError::new(StoreErrorKind::LockBusy, "busy"))?
                            .unwrap()?,
                    )
                }
                _ => Some(self.store.lock(&key).await?),
            };
            let lock: Box<dyn StoreLock> = Box::new(FaultyLock {
                store: self.clone(),
                key,
                lock,
                before: Vec::new(),
            });
            Ok(lock)
        })
    }
}

struct FaultyLock {
    store: Faulty,
    key: String,
    lock: Option<Box<dyn StoreLock>>,
    /// The stored record before each save, to be restored.
    before: Vec<Option<Record>>,
}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        if let Some(before) = self.before.drain(..).next() {
            let mut records = self.store.records();
            match before {
                Some(record) => records.insert(self.key.clone(), record),
                None => records.remove(&self.key),
            };
        }
    }
}

impl StoreLock for FaultyLock {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        let record = self.store.records().get(&self.key).cloned();
        Box::pin(std::future::ready(Ok(record)))
    }

    fn save<'a>(&'a mut self, save: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        let record = save.record();
        Box::pin(async move {
            let bare = |session: &Session| {
                let url = session.instance_url().to_string();
                Session::new(session.access_token().clone(), &url).unwrap()
            };
            match self.store.fault {
                Fault::KeepsTheFirstRecord if self.store.records().contains_key(&self.key) => {
                    return Ok(());
                }
                Fault::LosesRefreshTokens => {
                    let lost = record.followed_by(bare(record.session()));
                    self.store.records().insert(self.key.clone(), lost);
                    return Ok(());
                }
                Fault::SavesAfterItWasGivenUp => {
                    let (store, key, record) =
                        (self.store.clone(), self.key.clone(), record.clone());
                    // A longer record is saved later.
                    let len = u32::try_from(record.encode().expose().len()).unwrap();
                    let saving = tokio::spawn(async move {
                        tokio::time::sleep(SOON * len / 10_000).await;
                        store.records().insert(key, record);
                    });
                    saving.await.unwrap();
                    return Ok(());
                }
                Fault::LosesTheLockByASave => self.lock = None,
                Fault::UndoesWhatWasNotUnlocked => {
                    let before = self.store.records().get(&self.key).cloned();
                    self.before.push(before);
                }
                Fault::SavesInPieces => {
                    let half = record.followed_by(bare(record.session()));
                    self.store.records().insert(self.key.clone(), half);
                    tokio::task::yield_now().await;
                }
                Fault::LosesWhatIsGivenUp => {
                    self.store.records().remove(&self.key);
                    tokio::task::yield_now().await;
                }
                _ => {}
            }
            let mut records = self.store.records();
            let stored = records.get(&self.key).map(Record::version);
            if save.is_permitted(stored)? {
                records.insert(self.key.clone(), record.clone());
            }
            Ok(())
        })
    }

    fn unlock(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        self.before.clear();
        Box::pin(std::future::ready(()))
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        if matches!(self.store.fault, Fault::LosesTheLockByADeletion) {
            self.lock = None;
        }
        let deleted = match self.store.fault {
            Fault::DeletesNothing => Ok(()),
            _ => match self.store.records().remove(&self.key) {
                None if matches!(self.store.fault, Fault::CannotDeleteWhatIsNotThere) => {
                    Err(down())
                }
                _ => Ok(()),
            },
        };
        Box::pin(std::future::ready(deleted))
    }
}

async fn is_found(fault: Fault) {
    let shared = Faulty::new(fault);
    let open = move || match fault {
        Fault::KeepsEachProcessItsOwn => Faulty::new(fault),
        _ => shared.clone(),
    };
    let checked = tokio::spawn(async move { conformance::check(open).await });
    let found = checked
        .await
        .expect_err(&format!("{fault:?} was not found"));
    assert!(found.is_panic());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_breaks_the_contract_fails_the_check() {
    for fault in [
        Fault::HasNoLock,
        Fault::LocksAllKeysAtOnce,
        Fault::CallsBusyDown,
        Fault::LosesCaseOfKeys,
        Fault::CutsKeys,
        Fault::LoadsWithTheLockAlone,
        Fault::KeepsTheFirstRecord,
        Fault::KeepsEachProcessItsOwn,
        Fault::CannotDeleteWhatIsNotThere,
        Fault::DeletesNothing,
        Fault::LosesRefreshTokens,
        Fault::SavesInPieces,
        Fault::LosesWhatIsGivenUp,
        Fault::LeaksTheLockOfADroppedCaller,
        Fault::LosesTheLockByASave,
        Fault::LosesTheLockByADeletion,
        Fault::UndoesWhatWasNotUnlocked,
    ] {
        is_found(fault).await;
    }
}

/// Runs in real time, which goes on while others read.
#[tokio::test]
async fn a_store_that_saves_late_fails_the_check() {
    is_found(Fault::SavesAfterItWasGivenUp).await;
}
