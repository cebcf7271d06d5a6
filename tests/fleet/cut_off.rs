//! A database that fails at each step of a refresh (R33).

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    database::Kind,
    faults::Fault,
    fleet::{Fleet, Settings},
    part::{Order, Step, Told},
    proxy::Network,
    rounds,
};

const TASKS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn r33_redis_fails_at_each_step_of_a_refresh() {
    fails_at_each_step(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r33_postgres_fails_at_each_step_of_a_refresh() {
    fails_at_each_step(Kind::Postgres).await;
}

/// Each fault has a server of its own.
async fn fails_at_each_step(kind: Kind) {
    // The last: the save is done, and its answer is lost.
    let steps = Step::ALL.map(|step| (step, false));
    let steps: Vec<_> = steps.into_iter().chain([(Step::Save, true)]).collect();
    let mut lanes = JoinSet::new();
    for (number, fault) in Fault::ALL.into_iter().enumerate() {
        // A plain `cargo test` has each fault at two steps, and each step with some faults.
        let is_wanted = |step: usize| rounds::are_all_wanted() || step % 3 == number % 3;
        let steps = (0..).zip(&steps).filter(|(step, _)| is_wanted(*step));
        let steps = steps.map(|(_, step)| *step).collect();
        lanes.spawn(fails(kind, fault, steps));
    }
    lanes.join_all().await;
}

async fn fails(kind: Kind, fault: Fault, steps: Vec<(Step, bool)>) {
    // What could not be saved is saved by the process that has it, before the lease is over.
    let settings = Settings {
        lease: Duration::from_secs(5),
        lock_timeout: Duration::from_secs(1),
        refresh_timeout: Duration::from_secs(3),
        ..Settings::default()
    };
    let Some(mut fleet) = Fleet::start(kind, 2, settings).await else {
        return;
    };
    for (step, is_answer) in steps {
        let at = format!("{kind:?} {fault:?} at {step:?}, answer: {is_answer}");
        let issued = fleet.counters().tokens_issued;
        fleet.database.is_free().await;
        // The processes take turns, so that each presents what the other one has saved.
        fail_at(step, is_answer, fault, &mut fleet, &at).await;
        fleet.programs.swap(0, 1);
        assert_eq!(fleet.counters().tokens_issued, issued + 1, "{at}");
    }
}

/// The database fails while the first process is at a step, until the requests of both have ended.
async fn fail_at(step: Step, is_answer: bool, fault: Fault, fleet: &mut Fleet, at: &str) {
    fleet.org.expire_sessions();
    for program in &mut fleet.programs {
        program.take_unheard();
    }
    let first = &mut fleet.programs[0];
    first.halt_at(step).await;
    first.order(Order::Send(TASKS)).await;
    first.is_at(step).await;
    if is_answer {
        fleet.proxy.set(Network::Mute);
        fleet.programs[0].order(Order::Go).await;
        fleet.proxy.holds_an_answer().await;
        // The connection with the answer breaks.
        fleet.proxy.set(Network::Cut);
        if !fault.is_of_network() {
            fleet.proxy.set(Network::Open);
        }
        fault.begin(fleet);
    } else {
        fault.begin(fleet);
        fleet.programs[0].order(Order::Go).await;
    }
    fleet.programs[1].order(Order::Send(TASKS)).await;
    for sent in fleet.sent().await {
        fleet.assert_no_hang(&sent, at);
    }
    fault.end(fleet);
    for sent in fleet.send_until_good(TASKS).await {
        assert_eq!(sent.succeeded, TASKS, "{at}: {sent:?}");
    }
    is_saved(fleet, at).await;
    fleet.assert_no_fault(at).await;
}

/// A session that could not be saved was told of once, and is saved now.
pub(crate) async fn is_saved(fleet: &mut Fleet, at: &str) {
    for program in &mut fleet.programs {
        let told = program.take_unheard();
        let is_failed_save =
            |told: &Told| matches!(told, Told::StoreFailed(operation, ..) if operation == "Save");
        let Some(failed) = told.iter().position(is_failed_save) else {
            continue;
        };
        let rest = &told[failed + 1..];
        assert!(!rest.iter().any(is_failed_save), "{at}: {told:?}");
        if !rest.iter().any(|told| matches!(told, Told::Saved)) {
            program.saved().await;
        }
    }
}
