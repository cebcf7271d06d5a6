//! A scripted store.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;
use tower_salesforce_auth::{
    observer::StoreOperation,
    store::{
        BoxFuture, MemoryStore, Record, Save, SessionStore, StoreError, StoreErrorKind, StoreLock,
        Version,
    },
};

/// How an operation ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Fate {
    #[default]
    Done,
    After(Duration),
    Fails(StoreErrorKind),
    /// Fails this many times, then succeeds.
    FailsFor(usize),
    Hangs,
    Panics,
}

/// A store in memory that counts its operations and ends them as scripted.
#[derive(Clone, Default)]
pub(crate) struct Scripted {
    pub(crate) store: MemoryStore,
    fates: Arc<Mutex<Fates>>,
    counts: Arc<Counts>,
    /// The record to load instead of the saved one. `None` to load that.
    overwritten: Arc<Mutex<Option<Record>>>,
    /// Whether the next unlock panics.
    panics_at_unlock: Arc<AtomicBool>,
    /// A hook before each save. `None` without one.
    at_save: Arc<Mutex<Option<Hook>>>,
    /// What is done before the next lock. `None` if nothing.
    at_next_lock: Arc<Mutex<Option<BoxFuture<'static, ()>>>>,
}

type Hook = Box<dyn Fn() -> BoxFuture<'static, ()> + Send>;

#[derive(Default)]
struct Fates {
    load: Fate,
    lock: Fate,
    save: Fate,
    delete: Fate,
}

impl Fates {
    fn of(&mut self, operation: StoreOperation) -> &mut Fate {
        match operation {
            StoreOperation::Load => &mut self.load,
            StoreOperation::Lock => &mut self.lock,
            StoreOperation::Save => &mut self.save,
            StoreOperation::Delete => &mut self.delete,
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Default)]
struct Counts {
    loads: AtomicUsize,
    locks: AtomicUsize,
    saves: AtomicUsize,
    deletes: AtomicUsize,
    held: AtomicUsize,
}

impl Scripted {
    pub(crate) fn on(&self, operation: StoreOperation, fate: Fate) {
        *self.fates.lock().unwrap().of(operation) = fate;
    }

    /// Every such operation fails from now on.
    pub(crate) fn fail(&self, operation: StoreOperation) {
        self.on(operation, Fate::Fails(StoreErrorKind::Unavailable));
    }

    pub(crate) fn count(&self, operation: StoreOperation) -> usize {
        self.counter(operation).load(Ordering::SeqCst)
    }

    /// The next unlock panics, and releases the lock.
    pub(crate) fn panic_at_unlock(&self) {
        self.panics_at_unlock.store(true, Ordering::SeqCst);
    }

    pub(crate) fn at_save(&self, hook: impl Fn() -> BoxFuture<'static, ()> + Send + 'static) {
        *self.at_save.lock().unwrap() = Some(Box::new(hook));
    }

    pub(crate) fn at_next_lock(&self, hook: BoxFuture<'static, ()>) {
        *self.at_next_lock.lock().unwrap() = Some(hook);
    }

    /// Stores a record without the lock.
    pub(crate) fn overwrite(&self, record: Record) {
        *self.overwritten.lock().unwrap() = Some(record);
    }

    fn overwritten(&self) -> Option<Record> {
        self.overwritten.lock().unwrap().clone()
    }

    /// The number of locks that are held.
    pub(crate) fn held(&self) -> usize {
        self.counts.held.load(Ordering::SeqCst)
    }

    fn counter(&self, operation: StoreOperation) -> &AtomicUsize {
        match operation {
            StoreOperation::Load => &self.counts.loads,
            StoreOperation::Lock => &self.counts.locks,
            StoreOperation::Save => &self.counts.saves,
            StoreOperation::Delete => &self.counts.deletes,
            other => panic!("{other:?}"),
        }
    }

    async fn meet(&self, operation: StoreOperation) -> Result<(), StoreError> {
        self.counter(operation).fetch_add(1, Ordering::SeqCst);
        let fate = {
            let mut fates = self.fates.lock().unwrap();
            let fate = fates.of(operation);
            let met = *fate;
            if let Fate::FailsFor(times) = fate {
                *fate = match *times {
                    1 => Fate::Done,
                    times => Fate::FailsFor(times - 1),
                };
            }
            met
        };
        let failed = |kind| Err(StoreError::new(kind, "as scripted"));
        match fate {
            Fate::Done => Ok(()),
            Fate::After(delay) => {
                sleep(delay).await;
                Ok(())
            }
            Fate::Fails(kind) => failed(kind),
            Fate::FailsFor(_) => failed(StoreErrorKind::Unavailable),
            Fate::Hangs => pending().await,
            Fate::Panics => panic!("as scripted"),
        }
    }
}

impl SessionStore for Scripted {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.meet(StoreOperation::Load).await?;
            match self.overwritten() {
                Some(record) => Ok(Some(record)),
                None => self.store.load(key).await,
            }
        })
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let hook = self.at_next_lock.lock().unwrap().take();
            if let Some(hook) = hook {
                hook.await;
            }
            self.meet(StoreOperation::Lock).await?;
            let lock = self.store.lock(key).await?;
            self.counts.held.fetch_add(1, Ordering::SeqCst);
            let lock: Box<dyn StoreLock> = Box::new(ScriptedLock {
                lock,
                script: self.clone(),
            });
            Ok(lock)
        })
    }

    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        self.store.changed(key, since)
    }
}

struct ScriptedLock {
    lock: Box<dyn StoreLock>,
    script: Scripted,
}

impl StoreLock for ScriptedLock {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.script.meet(StoreOperation::Load).await?;
            match self.script.overwritten() {
                Some(record) => Ok(Some(record)),
                None => self.lock.load().await,
            }
        })
    }

    fn save<'a>(&'a mut self, save: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let hook = self
                .script
                .at_save
                .lock()
                .unwrap()
                .as_ref()
                .map(|hook| hook());
            if let Some(hook) = hook {
                hook.await;
            }
            self.script.meet(StoreOperation::Save).await?;
            let overwritten = self.script.overwritten.lock().unwrap().take();
            let Some(overwritten) = overwritten else {
                return self.lock.save(save).await;
            };
            save.is_permitted(Some(overwritten.version()))?;
            let hidden = self.lock.load().await?;
            let hidden = hidden.as_ref().map(Record::version);
            self.lock.save(save.replacing(hidden)).await
        })
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.script.meet(StoreOperation::Delete).await?;
            self.lock.delete().await
        })
    }

    fn unlock(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let panics = self.script.panics_at_unlock.swap(false, Ordering::SeqCst);
            assert!(!panics, "as scripted");
        })
    }
}

impl Drop for ScriptedLock {
    fn drop(&mut self) {
        self.script.counts.held.fetch_sub(1, Ordering::SeqCst);
    }
}
