//! Processes that follow their store (R34).

use crate::{
    database::Kind,
    fleet::{Fleet, Settings},
    part::Told,
};

const PROCESSES: usize = 5;
const TASKS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn r34_processes_on_redis_adopt_before_a_rejection() {
    adopt_before_a_rejection(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r34_processes_on_postgres_adopt_before_a_rejection() {
    adopt_before_a_rejection(Kind::Postgres).await;
}

async fn adopt_before_a_rejection(kind: Kind) {
    let settings = Settings {
        follows: true,
        ..Settings::default()
    };
    let Some(mut fleet) = Fleet::start(kind, PROCESSES, settings).await else {
        return;
    };
    assert_eq!(fleet.database.subscriptions(PROCESSES).await, PROCESSES);
    for expiry in 1..=10 {
        fleet.org.expire_sessions();
        let rejected = fleet.counters().data_rejected;
        let (first, others) = fleet.programs.split_first_mut().unwrap();
        for other in &mut *others {
            other.take_unheard();
        }
        let sent = first.send(1).await;
        assert_eq!(sent.succeeded, 1, "{sent:?}");
        for other in others {
            let adopted = |told: &Told| match told {
                Told::Adopted(reason) if reason == "Followed" => Some(()),
                _ => None,
            };
            other.hears("an adoption", adopted).await;
        }
        for sent in fleet.send(TASKS).await {
            assert_eq!(sent.succeeded, TASKS, "{sent:?}");
        }
        let counters = fleet.counters();
        assert_eq!(counters.data_rejected, rejected + 1, "expiry {expiry}");
        assert_eq!(counters.tokens_issued, 1 + expiry);
    }
    fleet.assert_no_fault("after all expiries").await;
    assert_eq!(fleet.database.subscriptions(PROCESSES).await, PROCESSES);
}

#[tokio::test(flavor = "multi_thread")]
async fn r34_a_process_that_does_not_follow_subscribes_to_none() {
    for kind in Kind::ALL {
        let Some(mut fleet) = Fleet::start(kind, 2, Settings::default()).await else {
            continue;
        };
        fleet.org.expire_sessions();
        for sent in fleet.send(TASKS).await {
            assert_eq!(sent.succeeded, TASKS, "{sent:?}");
        }
        assert_eq!(fleet.database.subscriptions(0).await, 0, "{kind:?}");
    }
}
