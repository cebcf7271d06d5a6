//! A store in memory whose operations fail, hang or take their time as a test says, for several processes.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::sleep;
use tower_salesforce_auth::{
    observer::StoreOperation,
    store::{
        BoxFuture, MemoryStore, Record, Save, SessionStore, StoreError, StoreErrorKind, StoreLock,
    },
};

use super::rotating::Client;

/// What happens to an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Fails,
    /// The operation is done, and fails.
    FailsAfterwards,
    /// The operation fails, and a database does it all the same, after its caller has given up.
    FailsAndIsDoneAfter(Duration),
    Takes(Duration),
    /// The operation is done, and the answer takes its time.
    AnswersAfter(Duration),
    Hangs,
}

/// The store of one process.
#[derive(Clone)]
pub(crate) struct Faulty {
    shared: Arc<Shared>,
    client: Client,
}

#[derive(Default)]
struct Shared {
    store: MemoryStore,
    faults: Mutex<HashMap<StoreOperation, VecDeque<Fault>>>,
    /// Delays of every unlock.
    unlocking: Mutex<Duration>,
    held: Mutex<Vec<(u32, Held)>>,
}

/// A lock that is held. `None` once it is released.
type Held = Arc<Mutex<Option<Box<dyn StoreLock>>>>;

impl Faulty {
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            shared: Arc::default(),
            client: client.clone(),
        }
    }

    /// The same store, in another process.
    pub(crate) fn of(&self, client: &Client) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            client: client.clone(),
        }
    }

    /// The next operations of this kind end like that, one each.
    pub(crate) fn fault(&self, operation: StoreOperation, faults: impl IntoIterator<Item = Fault>) {
        self.faults().entry(operation).or_default().extend(faults);
    }

    /// The next `times` operations of this kind fail.
    pub(crate) fn fail(&self, operation: StoreOperation, times: usize) {
        self.fault(operation, std::iter::repeat_n(Fault::Fails, times));
    }

    /// How long every release of the lock takes.
    pub(crate) fn unlock_takes(&self, delay: Duration) {
        *self.shared.unlocking.lock().unwrap() = delay;
    }

    /// Forgets all faults that were to come.
    pub(crate) fn heal(&self) {
        self.faults().clear();
        self.unlock_takes(Duration::ZERO);
    }

    /// The stored refresh token. `None` without a record or a token.
    pub(crate) async fn refresh_token(&self, key: &str) -> Option<String> {
        let record = self.shared.store.load(key).await.unwrap()?;
        let token = record.session().refresh_token()?;
        Some(token.expose().to_owned())
    }

    /// The stored access token. `None` without a record.
    pub(crate) async fn access_token(&self, key: &str) -> Option<String> {
        let record = self.shared.store.load(key).await.unwrap()?;
        Some(record.session().access_token().expose().to_owned())
    }

    /// How many locks are held.
    pub(crate) fn held(&self) -> usize {
        let held = self.shared.held.lock().unwrap();
        let is_held = |lock: &&(u32, Held)| lock.1.lock().unwrap().is_some();
        held.iter().filter(is_held).count()
    }

    /// The process ends: the system releases its locks.
    pub(crate) fn end(&self) {
        self.client.end();
        let held = self.shared.held.lock().unwrap();
        for (client, lock) in &*held {
            if *client == self.client.id {
                let lock = lock.lock().unwrap().take();
                drop(lock);
            }
        }
    }

    fn faults(&self) -> MutexGuard<'_, HashMap<StoreOperation, VecDeque<Fault>>> {
        self.shared.faults.lock().unwrap()
    }

    /// Does an operation with the fault that is its turn.
    async fn with_fault<T>(
        &self,
        operation: StoreOperation,
        done: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.with_fault_told(operation, done, || {}).await
    }

    /// Does an operation, and tells if it is done and the caller may think that it failed.
    async fn with_fault_told<T>(
        &self,
        operation: StoreOperation,
        done: impl Future<Output = Result<T, StoreError>>,
        fails_afterwards: impl FnOnce(),
    ) -> Result<T, StoreError> {
        self.client.alive().await;
        let fault = self
            .faults()
            .get_mut(&operation)
            .and_then(VecDeque::pop_front);
        match fault {
            Some(Fault::Fails | Fault::FailsAndIsDoneAfter(_)) => return Err(failed()),
            Some(Fault::Takes(delay)) => sleep(delay).await,
            Some(Fault::Hangs) => pending().await,
            _ => {}
        }
        self.client.alive().await;
        let answer = done.await;
        self.client
            .server
            .log(|| format!("{}: {operation:?} after {fault:?}", self.client.id));
        match fault {
            Some(Fault::FailsAfterwards) => {
                fails_afterwards();
                return Err(failed());
            }
            Some(Fault::AnswersAfter(delay)) => {
                // The caller may give up meanwhile.
                fails_afterwards();
                sleep(delay).await;
            }
            _ => {}
        }
        self.client.alive().await;
        answer
    }
}

fn failed() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "the store is down")
}

impl SessionStore for Faulty {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(self.with_fault(StoreOperation::Load, self.shared.store.load(key)))
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(self.with_fault(StoreOperation::Lock, async move {
            let lock = self.shared.store.lock(key).await?;
            if self.client.has_ended() {
                drop(lock);
                return pending().await;
            }
            let lock = Arc::new(Mutex::new(Some(lock)));
            let mut held = self.shared.held.lock().unwrap();
            held.retain(|(_, lock)| lock.lock().unwrap().is_some());
            held.push((self.client.id, Arc::clone(&lock)));
            let locked: Box<dyn StoreLock> = Box::new(FaultyLock {
                lock,
                store: self.clone(),
            });
            Ok(locked)
        }))
    }
}

struct FaultyLock {
    lock: Held,
    store: Faulty,
}

impl FaultyLock {
    /// Takes the lock for an operation. Waits without end if the process has ended.
    async fn take(&self) -> Taken<'_> {
        self.store.client.alive().await;
        let lock = self.lock.lock().unwrap().take();
        Taken {
            held: &self.lock,
            lock,
        }
    }
}

/// The lock during an operation that does not wait.
struct Taken<'a> {
    held: &'a Held,
    lock: Option<Box<dyn StoreLock>>,
}

impl Taken<'_> {
    fn lock(&mut self) -> &mut dyn StoreLock {
        &mut **self.lock.as_mut().expect("a lock that is held")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.held.lock().unwrap() = self.lock.take();
    }
}

impl StoreLock for FaultyLock {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(self.store.with_fault(StoreOperation::Load, async {
            self.take().await.lock().load().await
        }))
    }

    fn save<'a>(&'a mut self, save: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        let record = save.record();
        let this = &*self;
        let (client, token) = (&this.store.client, record.session().refresh_token());
        let saving = async move {
            this.take().await.lock().save(save).await?;
            client.server.log(|| {
                let text = record.encode();
                let line: Vec<_> = text.expose().split(',').take(6).collect();
                format!("{}: saves {line:?}", client.id)
            });
            client.server.saved(record.session(), client.id);
            Ok(())
        };
        let fails_afterwards = move || {
            if let Some(token) = token {
                client.server.doubts(token.expose(), client.id);
            }
        };
        let store = &this.store;
        Box::pin(store.with_fault_told(StoreOperation::Save, saving, fails_afterwards))
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.store.with_fault(StoreOperation::Delete, async {
            self.store.client.server.deleted();
            self.take().await.lock().delete().await
        }))
    }

    fn unlock(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let delay = *self.store.shared.unlocking.lock().unwrap();
            if delay > Duration::ZERO {
                sleep(delay).await;
            }
            drop(self);
        })
    }
}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        if !self.store.client.has_ended() {
            let lock = self.lock.lock().unwrap().take();
            drop(lock);
        }
    }
}
