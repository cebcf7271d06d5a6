//! Stores whose locks have leases: the layer renews them, and notices when they are lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tower_salesforce_auth::{
    RefreshContext, RefreshError, Session, SessionHandle,
    store::{
        BoxFuture, EncryptionKey, LeaseStore, MemoryStore, Record, Save, SessionStore, StoreError,
        StoreErrorKind, StoreLock, conformance,
    },
};

use crate::{
    events::Events,
    lease_table::{LeaseTable, Mistake},
    setup::{many, org_with_session, token_calls},
    support::{KEY, assert_no_reuse, builder, layer, put, save, session, stored},
};

const LEASE: Duration = Duration::from_secs(6);

fn store(table: &LeaseTable) -> LeaseStore<LeaseTable> {
    LeaseStore::new(table.clone())
        .lease(LEASE)
        .lock_timeout(Duration::from_millis(500))
}

// === Conformance ===

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_store_conforms() {
    let table = LeaseTable::new();
    let open = || store(&table).lock_timeout(Duration::from_millis(50));
    conformance::check(open).await;
    conformance::check(|| open().encryption(EncryptionKey::new([7; 32]))).await;
}

#[tokio::test(start_paused = true)]
async fn r32_the_lease_store_keeps_its_leases() {
    let table = LeaseTable::new();
    conformance::check_leases(|| store(&table), LEASE).await;
    conformance::check_notices(|| store(&table)).await;
    let memory = MemoryStore::new();
    conformance::check_notices(|| memory.clone()).await;
}

/// What a check says of a store.
async fn verdict<S: SessionStore>(open: impl Fn() -> S + Send + Sync + 'static) -> String {
    let checked = tokio::spawn(async move { conformance::check_leases(&open, LEASE).await });
    let panicked = checked.await.expect_err("the mistake was not found");
    let panicked = panicked.into_panic();
    let text = panicked.downcast_ref::<String>().cloned();
    text.or_else(|| panicked.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn r32_each_mistake_of_a_store_is_named() {
    for (mistake, named) in [
        (Mistake::RenewsNothing, "a lease that nothing renews"),
        (
            Mistake::ReleasesAnyLock,
            "a lock that someone else released",
        ),
        (Mistake::SavesTooLate, "a save that came too late"),
        (
            Mistake::GoesOnWithoutTheLock,
            "a token call without the lock",
        ),
    ] {
        let table = LeaseTable::with(mistake);
        let told = verdict(move || store(&table)).await;
        assert!(told.contains(named), "{mistake:?}: {told}");
    }
    for (wrong, named) in [
        (
            Wrong::HoldsConnections,
            "connections that are held during a token call",
        ),
        (Wrong::TellsNoLease, "a lease that nothing renews"),
        (Wrong::NeverGivesUp, "a token call without the lock"),
    ] {
        let table = LeaseTable::new();
        let pool = Arc::new(Semaphore::new(8));
        let told = verdict(move || Pooled {
            store: store(&table),
            pool: pool.clone(),
            wrong,
        })
        .await;
        assert!(told.contains(named), "{wrong:?}: {told}");
    }
}

/// How a store is wrong beside its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// Each lock holds a connection of a pool.
    HoldsConnections,
    /// The leases end, and the layer does not know of them.
    TellsNoLease,
    /// A caller that has waited in vain gets a lock all the same.
    NeverGivesUp,
}

/// A wrong store over a pool of connections.
struct Pooled {
    store: LeaseStore<LeaseTable>,
    pool: Arc<Semaphore>,
    wrong: Wrong,
}

struct PooledLock {
    /// `None` if it was not to be had.
    lock: Option<Box<dyn StoreLock>>,
    /// `None` if it is given back.
    _connection: Option<OwnedSemaphorePermit>,
    wrong: Wrong,
}

impl PooledLock {
    fn lock(&mut self) -> &mut dyn StoreLock {
        &mut **self.lock.as_mut().unwrap()
    }
}

impl SessionStore for Pooled {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            let _connection = self.pool.acquire().await.unwrap();
            self.store.load(key).await
        })
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let connection = Arc::clone(&self.pool).acquire_owned().await.unwrap();
            let lock = match self.store.lock(key).await {
                Err(_) if self.wrong == Wrong::NeverGivesUp => None,
                locked => Some(locked?),
            };
            let lock: Box<dyn StoreLock> = Box::new(PooledLock {
                lock,
                _connection: (self.wrong == Wrong::HoldsConnections).then_some(connection),
                wrong: self.wrong,
            });
            Ok(lock)
        })
    }
}

impl StoreLock for PooledLock {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.lock().load()
    }

    fn save<'a>(&'a mut self, save: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        self.lock().save(save)
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.lock().delete()
    }

    fn lease(&self) -> Option<tower_salesforce_auth::store::Lease> {
        if self.wrong == Wrong::TellsNoLease {
            return None;
        }
        self.lock.as_ref()?.lease()
    }

    fn renew(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.lock().renew()
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lock_and_a_dropped_wait_leave_no_lease() {
    let table = LeaseTable::new();
    let lock = store(&table).lock(KEY).await.unwrap();
    let waiting = store(&table);
    let mut waiting = waiting.lock(KEY);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(waiting);
    drop(lock);
    tokio::task::yield_now().await;
    assert_eq!(table.leases(), 0);
}

#[tokio::test]
async fn a_text_that_does_not_fit_its_version_is_corrupt() {
    let table = LeaseTable::new();
    let first = Record::new(access("T0"));
    put(&store(&table), &first).await;
    table.write(KEY, first.followed_by(access("T1")).encode());
    let error = store(&table).load(KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(!format!("{error} {error:?}").contains("T1"));
}

fn access(token: &str) -> Session {
    Session::new(token, "https://MyDomainName.my.salesforce.com").unwrap()
}

// === The layer ===

/// A handle whose token call takes that long and returns these tokens.
fn slow(
    table: &LeaseTable,
    delay: Duration,
    name: &'static str,
) -> (SessionHandle, Arc<AtomicUsize>, Events) {
    let calls = Arc::new(AtomicUsize::new(0));
    let events = Events::default();
    let counted = Arc::clone(&calls);
    let refresh = move |_: RefreshContext| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            sleep(delay).await;
            let session = access(&format!("{name}{number}"));
            Ok::<_, RefreshError>(session.with_refresh_token(format!("R-{name}{number}")))
        }
    };
    let handle = SessionHandle::builder(refresh)
        .store(store(table), KEY)
        .observer(events.clone())
        .build();
    (handle, calls, events)
}

async fn token(handle: &SessionHandle) -> String {
    let live = handle.session().await.unwrap();
    live.access_token().expose().to_owned()
}

#[tokio::test(start_paused = true)]
async fn r32_a_call_of_three_leases_keeps_its_lock() {
    let table = LeaseTable::new();
    let (here, calls, _) = slow(&table, 3 * LEASE, "here");
    let (there, others, _) = slow(&table, Duration::ZERO, "there");
    let calling = tokio::spawn(async move { token(&here).await });
    sleep(LEASE / 2).await;
    // It waits for longer than it may begin a call of its own, and adopts.
    assert_eq!(token(&there).await, "here0");
    assert_eq!(calling.await.unwrap(), "here0");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(others.load(Ordering::SeqCst), 0);
    assert_eq!(table.leases(), 0);
}

#[tokio::test(start_paused = true)]
async fn r32_a_holder_that_lost_its_lease_adopts_what_came_later() {
    let table = LeaseTable::new();
    let (here, _, events) = slow(&table, Duration::from_secs(5), "here");
    let calling = {
        let here = here.clone();
        tokio::spawn(async move { token(&here).await })
    };
    sleep(Duration::from_secs(1)).await;
    table.lose_leases();
    // The user logs in elsewhere, with the lock.
    let (there, ..) = slow(&table, Duration::ZERO, "there");
    there.set(access("login").with_refresh_token("R-login"));
    there.save().await.unwrap();

    assert_eq!(calling.await.unwrap(), "login");
    let stored = stored(&store(&table)).await.unwrap();
    assert_eq!(stored.access_token().expose(), "login");
    assert_eq!(here.refresh_token().unwrap().expose(), "R-login");
    assert_eq!(
        events.take(),
        [
            "started",
            "Renew LockLost 1",
            "Save Superseded 1",
            "failed Store",
            "adopted FirstLogin"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn r32_a_lost_lease_without_another_save_loses_no_token() {
    let table = LeaseTable::new();
    let (here, ..) = slow(&table, Duration::from_secs(5), "here");
    let calling = tokio::spawn({
        let here = here.clone();
        async move { token(&here).await }
    });
    sleep(Duration::from_secs(1)).await;
    table.lose_leases();
    assert_eq!(calling.await.unwrap(), "here0");
    assert!(!here.has_unsaved_refresh_token());
    let stored = stored(&store(&table)).await.unwrap();
    assert_eq!(stored.access_token().expose(), "here0");
}

#[tokio::test(start_paused = true)]
async fn r32_no_call_begins_with_a_lost_lease() {
    let table = LeaseTable::new();
    table.reads_take(Duration::from_millis(2_500));
    let (here, calls, events) = slow(&table, Duration::ZERO, "here");
    let calling = tokio::spawn(async move { token(&here).await });
    // It has the lock, and loads the record.
    sleep(Duration::from_secs(4)).await;
    assert_eq!(table.leases(), 1);
    table.lose_leases();
    assert_eq!(calling.await.unwrap(), "here0");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let told = events.take();
    assert!(
        told.starts_with(&["Renew LockLost 1".to_owned()]),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_logged_out_elsewhere_is_not_stored_again() {
    let table = LeaseTable::new();
    let (here, ..) = slow(&table, Duration::from_secs(5), "here");
    token(&here).await;
    let generation = here.try_session().unwrap().generation();
    here.invalidate(generation);
    let calling = tokio::spawn({
        let here = here.clone();
        async move { here.session().await }
    });
    sleep(Duration::from_secs(1)).await;
    table.lose_leases();
    let mut lock = store(&table).lock(KEY).await.unwrap();
    lock.delete().await.unwrap();
    lock.unlock().await;
    calling.await.unwrap().unwrap_err();
    assert!(stored(&store(&table)).await.is_none());
    sleep(Duration::from_secs(60)).await;
    assert!(
        stored(&store(&table)).await.is_none(),
        "nor in the background"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lock_of_a_killed_process_is_taken_after_its_lease() {
    let table = LeaseTable::new();
    std::mem::forget(store(&table).lock(KEY).await.unwrap());
    let (here, ..) = slow(&table, Duration::ZERO, "here");
    assert_eq!(token(&here).await, "here0");
}

#[tokio::test(start_paused = true)]
async fn many_processes_refresh_once_for_each_expiry() {
    let table = LeaseTable::new();
    let org = org_with_session(&store(&table)).await;
    let layers: Vec<_> = (0..5)
        .map(|_| layer(&org, store(&table).lock_timeout(Duration::from_secs(10))))
        .collect();
    for expiry in 0..20 {
        let mut requests: Vec<_> = layers.iter().map(|layer| many(30, layer, &org)).collect();
        for requests in &mut requests {
            while let Some(answer) = requests.join_next().await {
                assert_eq!(answer.unwrap().unwrap(), StatusCode::OK);
            }
        }
        assert_eq!(token_calls(&org), expiry);
        org.expire_sessions();
    }
    assert_no_reuse(&org);
    assert_eq!(table.leases(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_save_by_hand_is_compared_again_if_its_lock_was_lost() {
    let table = LeaseTable::new();
    let org = org_with_session(&store(&table)).await;
    let handle = builder(&org, store(&table)).build();
    handle.session().await.unwrap();
    handle.set(session(&org.authorize()));
    table.reads_take(Duration::from_secs(1));
    let saving = tokio::spawn({
        let handle = handle.clone();
        async move { handle.save().await }
    });
    sleep(Duration::from_millis(500)).await;
    table.lose_leases();
    table.reads_take(Duration::ZERO);
    save(&store(&table), access("other")).await;
    // What the user has set replaces what was saved meanwhile.
    saving.await.unwrap().unwrap();
    let stored = stored(&store(&table)).await.unwrap();
    let live = handle.try_session().unwrap();
    assert_eq!(stored.access_token(), live.access_token());
}
