//! Leases that cannot be renewed, or that are lost at a bad moment.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;
use tower_salesforce_auth::{
    ErrorKind, RefreshContext, RefreshError, Session, SessionHandle,
    observer::StoreOperation,
    store::{
        Acquired, BoxFuture, Lease, LeaseBackend, LeaseStore, Put, Record, Save, SessionStore,
        StoreError, StoreErrorKind, StoreLock, Stored, Version,
    },
};

use crate::{
    answering::answering,
    lease_table::LeaseTable,
    scripted::{Fate, Scripted},
    support::{KEY, stored},
};

const LEASE: Duration = Duration::from_secs(6);

/// How a call of `renew` ends.
#[derive(Clone, Copy)]
enum Renew {
    After(Duration),
    Hangs,
    Panics,
    LeasePanics,
}

/// A scripted store whose locks have leases.
#[derive(Clone)]
struct Leased {
    store: Scripted,
    lease: Duration,
    renew: Renew,
    renewed: Arc<AtomicUsize>,
}

struct LeasedLock {
    lock: Box<dyn StoreLock>,
    lease: Lease,
    leased: Leased,
}

impl Leased {
    fn new(lease: Duration, renew: Renew) -> Self {
        Self {
            store: Scripted::default(),
            lease,
            renew,
            renewed: Arc::default(),
        }
    }

    fn renewed(&self) -> usize {
        self.renewed.load(Ordering::SeqCst)
    }
}

impl SessionStore for Leased {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.store.store.load(key)
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let lock: Box<dyn StoreLock> = Box::new(LeasedLock {
                lease: Lease::begin(self.lease),
                lock: self.store.lock(key).await?,
                leased: self.clone(),
            });
            Ok(lock)
        })
    }
}

impl StoreLock for LeasedLock {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.lock.load()
    }

    fn save<'a>(&'a mut self, save: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        self.lock.save(save)
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.lock.delete()
    }

    fn lease(&self) -> Option<Lease> {
        let panics = matches!(self.leased.renew, Renew::LeasePanics);
        assert!(!panics || !self.lease.is_over(), "as scripted");
        Some(self.lease)
    }

    fn renew(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        let renewed = self.leased.renewed.fetch_add(1, Ordering::SeqCst);
        match self.leased.renew {
            Renew::Panics => panic!("as scripted"),
            Renew::Hangs | Renew::LeasePanics => Box::pin(std::future::pending()),
            Renew::After(delay) => Box::pin(async move {
                if renewed > 10_000 {
                    let message = "as scripted";
                    return Err(StoreError::new(StoreErrorKind::LockLost, message));
                }
                let lease = Lease::begin(self.leased.lease);
                if delay > Duration::ZERO {
                    sleep(delay).await;
                }
                self.lease = lease;
                Ok(())
            }),
        }
    }
}

fn session(name: &str) -> Session {
    Session::new(name, "https://MyDomainName.my.salesforce.com")
        .unwrap()
        .with_refresh_token(format!("R-{name}"))
}

/// A handle whose token call takes that long, and how many calls it has begun.
fn handle(store: impl SessionStore, delay: Duration) -> (SessionHandle, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let refresh = move |_: RefreshContext| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            sleep(delay).await;
            Ok::<_, RefreshError>(session(&format!("T{number}")))
        }
    };
    let handle = SessionHandle::builder(refresh).store(store, KEY).build();
    (handle, calls)
}

#[tokio::test(start_paused = true)]
async fn r03_a_panic_in_renew_does_not_end_a_token_call() {
    for renew in [Renew::Panics, Renew::LeasePanics] {
        let store = Leased::new(LEASE, renew);
        let (handle, calls) = handle(store.clone(), 2 * LEASE);
        let live = handle.session().await.unwrap();
        assert_eq!(live.access_token().expose(), "T0");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(!handle.has_unsaved_refresh_token());
        assert_eq!(store.store.held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn r32_a_lease_of_zero_is_not_renewed_in_a_busy_loop() {
    let store = Leased::new(Duration::ZERO, Renew::After(Duration::ZERO));
    let (handle, _) = handle(store.clone(), Duration::from_secs(1));
    handle.session().await.unwrap();
    assert!(store.renewed() <= 101, "{}", store.renewed());
}

#[tokio::test(start_paused = true)]
async fn r06_a_renew_that_hangs_leaves_no_session_unsaved() {
    let store = Leased::new(LEASE, Renew::Hangs);
    store.store.on(StoreOperation::Save, Fate::FailsFor(2));
    let (handle, _) = handle(store.clone(), LEASE);
    handle.session().await.unwrap();
    assert!(!handle.has_unsaved_refresh_token());
    assert_eq!(refreshed(&store).await.as_deref(), Some("T0"));
}

async fn refreshed(store: &impl SessionStore) -> Option<String> {
    let session = stored(store).await?;
    Some(session.access_token().expose().to_owned())
}

/// A store that takes longer to load than a third of a lease, and that long to renew it.
fn slow(renew: Duration) -> Leased {
    let store = Leased::new(3 * LEASE, Renew::After(renew));
    store.store.on(StoreOperation::Load, Fate::After(2 * LEASE));
    store
}

#[tokio::test(start_paused = true)]
async fn r30_no_call_begins_after_a_logout_during_a_renew() {
    let store = slow(Duration::from_secs(2));
    let (handle, calls) = handle(store.clone(), Duration::ZERO);
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.session().await }
    });
    // The record is loaded, and the lease is renewed before the call.
    sleep(2 * LEASE + Duration::from_secs(1)).await;
    assert_eq!(store.renewed(), 1);
    store.store.on(StoreOperation::Load, Fate::Done);
    let client = answering(200, &[], "");
    handle.logout(client).await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoggedOut);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(store.store.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn r14_no_call_begins_after_a_renew_that_took_too_long() {
    // The second half of the refresh timeout has begun.
    let store = slow(Duration::from_secs(4));
    let (handle, calls) = handle(store.clone(), Duration::ZERO);
    handle.session().await.unwrap_err();
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(store.store.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn r03_a_call_after_a_slow_renew_has_its_whole_time() {
    let store = slow(Duration::from_millis(2_500));
    // It ends after its callers' time, and within its own.
    let (handle, calls) = handle(store.clone(), Duration::from_secs(29));
    handle.session().await.unwrap_err();
    let live = handle.session().await.unwrap();
    assert_eq!(live.access_token().expose(), "T0");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

// === A save by hand ===

/// A table whose saves are slow, or whose first answer to one is lost.
#[derive(Clone)]
struct SlowTable {
    table: LeaseTable,
    saves: Duration,
    lost_answers: Arc<AtomicUsize>,
    is_full: Arc<AtomicBool>,
}

impl SlowTable {
    fn new(table: &LeaseTable, saves: Duration, lost_answers: usize) -> LeaseStore<Self> {
        LeaseStore::new(Self {
            table: table.clone(),
            saves,
            lost_answers: Arc::new(lost_answers.into()),
            is_full: Arc::default(),
        })
        .lease(LEASE)
    }
}

impl LeaseBackend for SlowTable {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        self.table.get(key)
    }

    fn acquire<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        self.table.acquire(key, owner, lease)
    }

    fn renew<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        if self.is_full.load(Ordering::SeqCst) {
            return Box::pin(ready(Err(full())));
        }
        self.table.renew(key, owner, lease)
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        put: Put<'a>,
    ) -> BoxFuture<'a, Result<Option<Version>, StoreError>> {
        Box::pin(async move {
            sleep(self.saves).await;
            if self.is_full.load(Ordering::SeqCst) {
                return Err(full());
            }
            let stored = self.table.put(key, put).await?;
            let lost = &self.lost_answers;
            let less = |left: usize| left.checked_sub(1);
            match lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
                Ok(_) => Err(StoreError::new(StoreErrorKind::Unavailable, "no answer")),
                Err(_) => Ok(stored),
            }
        })
    }

    fn delete<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.table.delete(key, owner)
    }

    fn release<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.table.release(key, owner)
    }
}

fn full() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "full")
}

#[tokio::test(start_paused = true)]
async fn r32_a_lease_store_without_a_lease_locks_all_the_same() {
    let table = LeaseTable::new();
    let store = LeaseStore::new(table.clone()).lease(Duration::ZERO);
    let (handle, _) = handle(store.clone(), Duration::from_secs(10));
    handle.session().await.unwrap();
    assert!(!handle.has_unsaved_refresh_token());
    assert_eq!(table.leases(), 0);
}

/// Saves the session of a handle in the background.
fn saving(
    handle: &SessionHandle,
) -> tokio::task::JoinHandle<Result<(), tower_salesforce_auth::Error>> {
    let handle = handle.clone();
    tokio::spawn(async move { handle.save().await })
}

#[tokio::test(start_paused = true)]
async fn r30_a_save_that_lands_after_a_logout_leaves_no_record() {
    let table = LeaseTable::new();
    let store = SlowTable::new(&table, Duration::from_secs(1), 0);
    let (handle, _) = handle(store.clone(), Duration::ZERO);
    handle.set(session("login"));
    let saving = saving(&handle);
    sleep(Duration::from_millis(500)).await;
    table.lose_leases();
    handle.logout(answering(200, &[], "")).await.unwrap();
    drop(saving.await.unwrap());
    assert!(stored(&store).await.is_none());
    assert_eq!(table.leases(), 0);
}

#[tokio::test(start_paused = true)]
async fn r03_a_save_whose_answer_was_lost_keeps_what_came_later() {
    let table = LeaseTable::new();
    let store = SlowTable::new(&table, Duration::ZERO, 1);
    let (handle, _) = handle(store.clone(), Duration::ZERO);
    handle.set(session("login"));
    let saving = saving(&handle);
    sleep(Duration::from_millis(100)).await;
    table.lose_leases();
    // Another process has the lock, and refreshes what was saved.
    crate::support::save(&store, session("there")).await;
    saving.await.unwrap().unwrap();
    let stored = stored(&store).await.unwrap();
    assert_eq!(stored.refresh_token().unwrap().expose(), "R-there");
    assert_eq!(handle.refresh_token().unwrap().expose(), "R-there");
}

// === A save that failed ===

/// A process whose session cannot be saved, and the switch that lets it be saved again.
async fn unsaved(table: &LeaseTable) -> (SessionHandle, Arc<AtomicBool>) {
    let store = SlowTable::new(table, Duration::ZERO, 0);
    let is_full = Arc::clone(&store.backend().is_full);
    let (handle, _) = handle(store, Duration::ZERO);
    handle.set(session("login"));
    handle.save().await.unwrap();
    is_full.store(true, Ordering::SeqCst);
    handle.refresh().await.unwrap();
    assert!(handle.has_unsaved_refresh_token());
    (handle, is_full)
}

fn another_process(table: &LeaseTable) -> LeaseStore<SlowTable> {
    SlowTable::new(table, Duration::ZERO, 0).lock_timeout(Duration::ZERO)
}

#[tokio::test(start_paused = true)]
async fn r33_a_process_that_could_not_save_keeps_its_lock() {
    let table = LeaseTable::new();
    let (handle, is_full) = unsaved(&table).await;
    // The store would let another process present the refresh token that is spent.
    is_full.store(false, Ordering::SeqCst);
    let busy = another_process(&table).lock(KEY).await.map(drop);
    assert_eq!(busy.unwrap_err().kind(), StoreErrorKind::LockBusy);
    handle.save().await.unwrap();
    assert!(!handle.has_unsaved_refresh_token());
    assert_eq!(table.leases(), 0);
    let stored = stored(&another_process(&table)).await.unwrap();
    assert_eq!(stored.refresh_token(), handle.refresh_token().as_ref());
}

#[tokio::test(start_paused = true)]
async fn r33_the_next_refresh_takes_up_the_lock_of_a_failed_save() {
    let table = LeaseTable::new();
    let (handle, is_full) = unsaved(&table).await;
    handle.save().await.unwrap_err();
    is_full.store(false, Ordering::SeqCst);
    handle.refresh().await.unwrap();
    assert!(!handle.has_unsaved_refresh_token());
    assert_eq!(table.leases(), 0);
}

#[tokio::test(start_paused = true)]
async fn r33_a_kept_lock_that_is_over_goes_to_another_process() {
    let table = LeaseTable::new();
    let (handle, is_full) = unsaved(&table).await;
    sleep(LEASE).await;
    let lock = another_process(&table).lock(KEY).await.unwrap();
    lock.unlock().await;
    is_full.store(false, Ordering::SeqCst);
    handle.save().await.unwrap();
    assert_eq!(table.leases(), 0);
}

#[tokio::test(start_paused = true)]
async fn r33_a_save_whose_answers_were_lost_is_found() {
    let table = LeaseTable::new();
    let store = SlowTable::new(&table, Duration::ZERO, 0);
    let lost_answers = Arc::clone(&store.backend().lost_answers);
    let (handle, _) = handle(store, Duration::ZERO);
    handle.set(session("login"));
    handle.save().await.unwrap();
    lost_answers.store(3, Ordering::SeqCst);
    handle.refresh().await.unwrap();
    assert!(handle.has_unsaved_refresh_token());
    sleep(Duration::from_secs(10)).await;
    assert!(!handle.has_unsaved_refresh_token());
    handle.quiesce().await.unwrap();
    assert_eq!(table.leases(), 0);
}

#[tokio::test(start_paused = true)]
async fn r33_a_save_that_others_have_gone_on_from_is_found() {
    let table = LeaseTable::new();
    let store = SlowTable::new(&table, Duration::ZERO, 0);
    let lost_answers = Arc::clone(&store.backend().lost_answers);
    let (handle, calls) = handle(store, Duration::ZERO);
    handle.set(session("login"));
    handle.save().await.unwrap();
    lost_answers.store(3, Ordering::SeqCst);
    handle.refresh().await.unwrap();
    table.lose_leases();
    crate::support::save(&another_process(&table), session("there")).await;
    sleep(Duration::from_secs(10)).await;
    // There is nothing to save, and the next refresh adopts.
    handle.quiesce().await.unwrap();
    handle.refresh().await.unwrap();
    assert_eq!(handle.refresh_token().unwrap().expose(), "R-there");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// R3: a handle of the same store, in the same process, presents no refresh token that another one has used up.
#[tokio::test(start_paused = true)]
async fn r03_another_handle_takes_up_a_failed_save() {
    let table = LeaseTable::new();
    let store = SlowTable::new(&table, Duration::ZERO, 0);
    let is_full = Arc::clone(&store.backend().is_full);
    let (here, _) = handle(store.clone(), Duration::ZERO);
    here.set(session("login"));
    here.save().await.unwrap();
    let (there, calls) = handle(store.clone(), Duration::ZERO);
    there.session().await.unwrap();
    is_full.store(true, Ordering::SeqCst);
    here.refresh().await.unwrap();
    is_full.store(false, Ordering::SeqCst);
    there.refresh().await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(there.refresh_token(), here.refresh_token());
}

/// R3: a save that fails after another login was set changes nothing of that login.
#[tokio::test(start_paused = true)]
async fn r03_a_save_that_fails_late_replaces_no_later_login() {
    let table = LeaseTable::new();
    let store = SlowTable::new(&table, Duration::from_secs(1), 3);
    let (handle, _) = handle(store.clone(), Duration::ZERO);
    let at = |secs| std::time::UNIX_EPOCH + Duration::from_secs(secs);
    handle.set(session("first").with_issued_at(at(1)));
    let saving = saving(&handle);
    sleep(Duration::from_millis(500)).await;
    handle.set(session("second").with_issued_at(at(2)));
    saving.await.unwrap().unwrap_err();
    handle.save().await.unwrap();
    assert_eq!(handle.refresh_token().unwrap().expose(), "R-second");
}
