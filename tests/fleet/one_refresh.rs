//! Processes whose session expires everywhere at once (R31).

use tower_salesforce_auth::emulator::Fault;

use crate::{
    database::Kind,
    fleet::{Fleet, Settings},
    part::Order,
};

const PROCESSES: usize = 5;
const TASKS: usize = 30;
const EXPIRIES: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn r31_processes_on_redis_refresh_once_per_expiry() {
    refresh_once_per_expiry(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r31_processes_on_postgres_refresh_once_per_expiry() {
    refresh_once_per_expiry(Kind::Postgres).await;
}

async fn refresh_once_per_expiry(kind: Kind) {
    let Some(mut fleet) = Fleet::start(kind, PROCESSES, Settings::default()).await else {
        return;
    };
    for expiry in 1..=EXPIRIES {
        fleet.org.expire_sessions();
        for sent in fleet.send(TASKS).await {
            assert_eq!(sent.succeeded, TASKS, "expiry {expiry}: {sent:?}");
        }
        assert_eq!(fleet.counters().tokens_issued, 1 + expiry);
    }
    fleet.assert_no_fault("after all expiries").await;
    let counts = fleet.counts().await;
    assert_eq!(counts.calls, 1 + EXPIRIES);
    assert_eq!(counts.adoptions, (PROCESSES as u64 - 1) * (1 + EXPIRIES));
    // The others adopt without the lock. Between the release and its next load, one of them may take it.
    assert!(counts.locks < 2 * counts.calls, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r31_a_token_call_holds_no_transaction_of_a_database() {
    for kind in Kind::ALL {
        let Some(mut fleet) = Fleet::start(kind, PROCESSES, Settings::default()).await else {
            continue;
        };
        fleet.org.expire_sessions();
        fleet.org.on_token(Fault::Hang);
        fleet.programs[0].take_unheard();
        for (number, program) in fleet.programs.iter_mut().enumerate() {
            program.order(Order::Send(TASKS)).await;
            if number == 0 {
                program.calls().await;
            }
        }
        assert_eq!(fleet.database.held(), 0, "{kind:?}");
        fleet.org.on_token(Fault::None);
        for sent in fleet.sent().await {
            assert_eq!(sent.succeeded, TASKS, "{sent:?}");
        }
        fleet.assert_no_fault("at the end").await;
    }
}
