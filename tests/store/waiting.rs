//! Processes that wait while another one refreshes: they load the record, and do not queue for the lock.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_salesforce_auth::{
    RefreshContext, RefreshError, SalesforceAuthLayer, Session, SessionHandle,
    emulator::Fault,
    observer::StoreOperation,
    store::{Acquired, BoxFuture, LeaseBackend, LeaseStore, Put, StoreError, Stored, Version},
};

use crate::{
    lease_table::LeaseTable,
    scripted::{Fate, Scripted},
    setup::org_with_session,
    support::{KEY, assert_no_reuse, builder, limits, refreshing, save},
};

#[tokio::test(start_paused = true)]
async fn r31_a_waiter_adopts_without_taking_the_lock() {
    for follows in [false, true] {
        let store = Scripted::default();
        let org = org_with_session(&store.store).await;
        let layers = [(); 2].map(|()| {
            let builder = builder(&org, store.clone());
            let builder = if follows {
                builder.follow_store()
            } else {
                builder
            };
            SalesforceAuthLayer::from(builder.build())
        });
        for layer in &layers {
            limits(layer, &org).await.unwrap();
        }
        org.expire_sessions();
        org.on_token(Fault::Delay(Duration::from_secs(1)));
        let first = refreshing(&layers[0], &org).await;
        store.on(StoreOperation::Lock, Fate::Hangs);
        let since = Instant::now();
        assert_eq!(limits(&layers[1], &org).await.unwrap(), StatusCode::OK);
        let waited = since.elapsed();
        // With notices at once, otherwise within the time of the call once more.
        let longest = Duration::from_millis(if follows { 1_100 } else { 2_000 });
        assert!(waited <= longest, "{waited:?}");
        assert_eq!(first.await.unwrap().unwrap(), StatusCode::OK);
        assert_no_reuse(&org);
    }
}

// === Thousands ===

/// How long each statement takes.
const STATEMENT: Duration = Duration::from_millis(1);

const LEASE: Duration = Duration::from_secs(6);

/// A database that counts its statements.
#[derive(Clone)]
struct Counted {
    table: LeaseTable,
    begun: Instant,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    by_name: BTreeMap<&'static str, usize>,
    by_second: BTreeMap<u64, usize>,
}

impl Counted {
    fn new() -> Self {
        Self {
            table: LeaseTable::new(),
            begun: Instant::now(),
            counts: Arc::default(),
        }
    }

    async fn count(&self, name: &'static str) {
        {
            let mut counts = self.counts.lock().unwrap();
            *counts.by_name.entry(name).or_default() += 1;
            let second = self.begun.elapsed().as_secs();
            *counts.by_second.entry(second).or_default() += 1;
        }
        sleep(STATEMENT).await;
    }

    fn take(&self) -> Counts {
        std::mem::take(&mut self.counts.lock().unwrap())
    }
}

impl LeaseBackend for Counted {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        Box::pin(async move {
            self.count("get").await;
            self.table.get(key).await
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        Box::pin(async move {
            self.count("acquire").await;
            self.table.acquire(key, owner, lease).await
        })
    }

    fn renew<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            self.count("renew").await;
            self.table.renew(key, owner, lease).await
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        put: Put<'a>,
    ) -> BoxFuture<'a, Result<Option<Version>, StoreError>> {
        Box::pin(async move {
            self.count("put").await;
            self.table.put(key, put).await
        })
    }

    fn delete<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            self.count("delete").await;
            self.table.delete(key, owner).await
        })
    }

    fn release<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.count("release").await;
            self.table.release(key, owner).await
        })
    }

    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        self.table.changed(key, since)
    }
}

struct Report {
    statements: usize,
    /// The most in one second.
    busiest: usize,
    longest_wait: Duration,
}

/// Processes whose session ends at the same moment, and whose token call takes that long. `is_killed`: one that was killed just
/// before has left its lease.
async fn refreshed_by(processes: usize, call: Duration, follows: bool, is_killed: bool) -> Report {
    let database = Counted::new();
    let store = || LeaseStore::new(database.clone()).lease(LEASE);
    let session = |name: &str| {
        Session::new(name, "https://MyDomainName.my.salesforce.com")
            .unwrap()
            .with_refresh_token(format!("R-{name}"))
    };
    save(&store(), session("T0")).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let handles: Vec<_> = (0..processes)
        .map(|_| {
            let calls = Arc::clone(&calls);
            let refresh = move |context: RefreshContext| {
                let number = calls.fetch_add(1, Ordering::SeqCst) + 1;
                async move {
                    assert_eq!(context.refresh_token().unwrap().expose(), "R-T0");
                    sleep(call).await;
                    Ok::<_, RefreshError>(session(&format!("T{number}")))
                }
            };
            let builder = SessionHandle::builder(refresh).store(store(), KEY);
            if follows {
                builder.follow_store().build()
            } else {
                builder.build()
            }
        })
        .collect();
    for handle in &handles {
        handle.session().await.unwrap();
    }
    if is_killed {
        database.table.acquire(KEY, "killed", LEASE).await.unwrap();
    }
    sleep(Duration::from_secs(60) * u32::from(!is_killed)).await;
    database.take();

    let mut waiting = JoinSet::new();
    for handle in handles {
        let generation = handle.try_session().unwrap().generation();
        handle.invalidate(generation);
        waiting.spawn(async move {
            let since = Instant::now();
            let live = handle.session().await.unwrap();
            assert_eq!(live.access_token().expose(), "T1");
            since.elapsed()
        });
    }
    let waits = waiting.join_all().await;
    sleep(Duration::from_secs(60)).await;
    let counts = database.take();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(database.table.leases(), 0);
    let longest_wait = waits.into_iter().max().unwrap();
    let statements: usize = counts.by_name.values().sum();
    println!(
        "{processes} processes, call {call:?}, follow_store {follows}, killed {is_killed}: {} statements a process {:?}, by second {:?}, longest wait \
         {longest_wait:?}",
        statements / processes,
        counts.by_name,
        counts.by_second,
    );
    Report {
        statements: statements / processes,
        busiest: counts.by_second.into_values().max().unwrap(),
        longest_wait,
    }
}

#[tokio::test(start_paused = true)]
async fn r31_ten_thousand_waiters_cost_one_call_and_no_queue() {
    let call = Duration::from_secs(1);
    let report = refreshed_by(10_000, call, false, false).await;
    assert!(report.statements <= 14, "{}", report.statements);
    assert!(report.busiest <= 12 * 10_000, "{}", report.busiest);
    assert!(
        report.longest_wait <= 2 * call + call / 2,
        "{:?}",
        report.longest_wait
    );
}

#[tokio::test(start_paused = true)]
async fn r31_thousands_of_waiters_ask_ever_less_often() {
    // The token call takes ten times as long, and costs a few statements more.
    let call = Duration::from_secs(10);
    let report = refreshed_by(2_000, call, false, false).await;
    assert!(report.statements <= 30, "{}", report.statements);
    assert!(
        report.longest_wait <= call + Duration::from_secs(3),
        "{:?}",
        report.longest_wait
    );
}

#[tokio::test(start_paused = true)]
async fn r34_ten_thousand_that_follow_adopt_at_once() {
    let call = Duration::from_secs(1);
    let report = refreshed_by(10_000, call, true, false).await;
    assert!(report.statements <= 9, "{}", report.statements);
    assert!(
        report.longest_wait <= call + call / 10,
        "{:?}",
        report.longest_wait
    );
}

#[tokio::test(start_paused = true)]
async fn r32_thousands_outlast_a_killed_holder() {
    let call = Duration::from_secs(1);
    let report = refreshed_by(2_000, call, false, true).await;
    assert!(
        report.longest_wait <= LEASE + 5 * call,
        "{:?}",
        report.longest_wait
    );
}
