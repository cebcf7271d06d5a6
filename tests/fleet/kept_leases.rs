//! Leases that last as long as they are needed, and that are lost when their holder is stopped (R32).

use std::time::Duration;

use crate::{
    database::Kind,
    fleet::{Fleet, Settings},
    part::{Order, Step},
    program::Signal,
};

/// The shortest lease.
const LEASE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn r32_a_call_of_three_leases_on_redis_keeps_its_lock() {
    keeps_its_lock(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r32_a_call_of_three_leases_on_postgres_keeps_its_lock() {
    keeps_its_lock(Kind::Postgres).await;
}

async fn keeps_its_lock(kind: Kind) {
    let settings = Settings {
        lease: LEASE,
        token_call: 3 * LEASE,
        ..Settings::default()
    };
    let Some(mut fleet) = Fleet::start(kind, 3, settings).await else {
        return;
    };
    let before = fleet.counts().await;
    fleet.org.expire_sessions();
    for sent in fleet.send(5).await {
        assert_eq!(sent.succeeded, 5, "{sent:?}");
    }
    assert_eq!(fleet.counters().tokens_issued, 2);
    fleet.assert_no_fault("after the call").await;
    let counts = fleet.counts().await;
    assert_eq!(counts.saves, before.saves + 1);
    // Once for each third of a lease, and fewer times on a busy machine.
    assert!(counts.renewed >= before.renewed + 3, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r32_a_stopped_holder_on_redis_loses_the_lock() {
    loses_the_lock(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r32_a_stopped_holder_on_postgres_loses_the_lock() {
    loses_the_lock(Kind::Postgres).await;
}

/// The server does not rotate, or the second of two calls with one refresh token would end the grant.
async fn loses_the_lock(kind: Kind) {
    let settings = Settings {
        lease: LEASE,
        ..Settings::default()
    };
    let Some(mut fleet) = Fleet::start(kind, 2, settings).await else {
        return;
    };
    fleet.org.rotate_refresh_tokens(false);
    fleet.org.expire_sessions();
    let before = fleet.counts().await;

    // The first process has made its call, and is stopped before it saves.
    let [first, second] = &mut fleet.programs[..] else {
        unreachable!()
    };
    first.halt_at(Step::Save).await;
    first.order(Order::Send(3)).await;
    first.is_at(Step::Save).await;
    first.signal(Signal::Stop).await;

    // The second one takes over after the lease, and halts with the lock held and its session saved.
    fleet.org.expire_sessions();
    second.halt_at(Step::Release).await;
    second.order(Order::Send(3)).await;
    second.is_at(Step::Release).await;

    // The first one's save is refused. It adopts, and its release frees no lock of another process.
    first.signal(Signal::Continue).await;
    first.order(Order::Go).await;
    let sent = first.sent().await;
    assert_eq!(sent.succeeded, 3, "{sent:?}");
    assert!(
        fleet.database.is_locked().await,
        "the second process holds the lock"
    );
    let second = &mut fleet.programs[1];
    second.order(Order::Go).await;
    let sent = second.sent().await;
    assert_eq!(sent.succeeded, 3, "{sent:?}");

    let counts = fleet.counts().await;
    assert_eq!(
        (counts.calls, counts.saves),
        (before.calls + 2, before.saves + 1)
    );
    assert_eq!(counts.adoptions, before.adoptions + 1);
    assert_eq!(counts.unlocked_calls, 0);
    fleet.database.is_free().await;
}
