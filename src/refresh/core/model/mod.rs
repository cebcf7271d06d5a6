//! Explores what a few processes, their store and their server can come to, with the core as it is (R41).
//!
//! A [`World`](world::World) has processes ([`process`]), one store with one lock ([`store`]), and one strict server
//! ([`server`]). A process is a core and its shell as plain data; [`shell`], [`callers`], [`drivers`] and [`tasks`] do what the
//! shell of the crate does. Everything that takes time is two actions or more, so that anything else can come in between: the
//! server answers a token call before the core gets the answer, and a process can be killed between the two.
//!
//! [`explore`] visits every state once, the nearest first. In each it checks the [`properties`]. Then it lets everything end as
//! it does if nothing else goes wrong: every waiter gets an answer, and the lock is free. Each of the [`scenarios`] limits how
//! often a thing can happen. The number of states of a scenario is limited as well:
//!
//! ```text
//! cargo test --lib refresh::core::model     10,000 states of each scenario, in seconds
//! .ci/model                                300,000 states of each, in minutes
//! MODEL_STATES=3000000 .ci/model           by hand; about 1 kB a state
//! MODEL_STATES=3000000 .ci/model r41_two   by hand; the scenarios of the tests whose names begin so
//! ```
//!
//! Time is abstract: it is always [`now`](time::now), and passes by steps to the next deadline. Identities are small integers.
//! [`mutants`] shows for each property that a [`mutation`] of the core violates it.
//!
//! Not explored: several users in one process, sessions of another org, users' code that panics, and two store keys. The shell
//! of the crate is not explored either. The tests in `tests/` run it, and `tests/scheduler` explores its threads.

pub(crate) mod values;

mod actions;
mod callers;
mod decisions;
mod digest;
mod drivers;
mod explore;
mod mutants;
mod mutation;
mod process;
mod properties;
mod scenarios;
mod server;
mod shell;
mod store;
mod tasks;
mod time;
mod world;

use self::{
    explore::explore,
    scenarios::{SCENARIOS, Scenario},
};

/// How many states of each scenario are explored.
fn limit() -> usize {
    match std::env::var("MODEL_STATES") {
        Ok(limit) => limit.parse().unwrap(),
        Err(_) => 10_000,
    }
}

fn check(is_explored: impl Fn(&Scenario) -> bool) {
    for scenario in SCENARIOS.iter().filter(|scenario| is_explored(scenario)) {
        let report = explore(scenario.world(), limit(), None);
        println!("{}: {report}", scenario.name);
        assert!(report.found.is_empty(), "{}: {report}", scenario.name);
    }
}

#[test]
fn r41_one_process_violates_no_property() {
    check(|scenario| scenario.processes == 1 && !scenario.settings.has_store);
}

#[test]
fn r41_one_process_with_a_store_violates_no_property() {
    check(|scenario| scenario.processes == 1 && scenario.settings.has_store);
}

#[test]
fn r41_two_processes_violate_no_property() {
    check(|scenario| scenario.processes == 2);
}

#[test]
fn r41_three_processes_violate_no_property() {
    check(|scenario| scenario.processes == 3);
}
