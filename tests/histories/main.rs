//! Random histories of two processes that share a store, against a server with strict refresh-token rotation.
//!
//! Half of them share a `LeaseStore`, on a database whose statements fail before or after they took effect, or take effect
//! after their caller has given up. Leases are lost, and notices too.
//!
//! `HISTORIES=1000000 cargo test --test histories` runs a million of them. `SEED=17 cargo test --test histories` runs the one
//! with this seed, and prints its steps.
#![allow(missing_docs)]

#[path = "../support/faulty.rs"]
mod faulty;
mod history;
mod leased;
#[path = "../support/rotating.rs"]
mod rotating;
mod step;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tower_salesforce_auth::observer::StoreOperation;

use self::{
    faulty::Fault, history::History, leased::Wrong, rotating::Answer, step::Step, world::World,
};

const HISTORIES: u64 = 20_000;

/// R3, R7, R14, R30, R42, R44: in every history
///
/// - no refresh token is presented twice, unless no client could know: the answer to the token call was lost, was cut off by
///   the end of its process, or is known to another process only, whose save has not succeeded;
/// - no two token calls of a login overlap, and none is made without the lock, unless a lease ended that its holder had not
///   released;
/// - nothing is presented or sent after a logout;
/// - no caller waits without end, and no lock is held in the end;
/// - a session is there exactly if the state shown is ready;
/// - if no grant was lost in one of these ways, every process goes on in the end without a new login.
#[test]
fn histories_lose_no_refresh_token() {
    if let Some(seed) = number("SEED") {
        let history = History::random(seed);
        println!("{history:#?}");
        println!("{}", on_paused_clock(World::log(&history)).join("\n"));
        run(&history).unwrap();
        return;
    }
    let (last, next) = (number("HISTORIES").unwrap_or(HISTORIES), AtomicU64::new(0));
    let first = number("FIRST").unwrap_or(0);
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last {
                        return;
                    }
                    let history = History::random(first + seed);
                    if let Err(fault) = run(&history) {
                        let (history, fault) = history.shrink(fault, run);
                        let log = on_paused_clock(World::log(&history)).join("\n");
                        panic!("seed {}: {fault}\nshrunk: {history:?}\n{log}", first + seed);
                    }
                }
            });
        }
    });
}

#[test]
fn r30_a_record_that_was_loaded_before_a_logout_is_not_followed() {
    let late = Fault::AnswersAfter(Duration::from_millis(98));
    let history = History {
        follows: true,
        ..History::over(
            Wrong::Nowhere,
            vec![
                Step::Store(StoreOperation::Load, late, 3),
                Step::AwaitRefresh(0),
                Step::Logout(0, false),
                Step::SetLogin(0),
            ],
        )
    };
    run(&history).unwrap();
}

/// The same history over a database that is right, and over one that is wrong.
fn is_found(wrong: Wrong, mut steps: Vec<Step>, expected: &str) {
    // Both processes have the session.
    steps.insert(0, Step::AwaitRefresh(1));
    let over = |wrong| run(&History::over(wrong, steps.clone()));
    over(Wrong::Nowhere).unwrap();
    let fault = over(wrong).expect_err("it was not found");
    assert!(fault.contains(expected), "{fault}");
}

#[test]
fn r32_a_history_finds_a_save_without_a_comparison() {
    // The first save of the first refresh is done long after the second refresh has saved.
    let late = Fault::FailsAndIsDoneAfter(Duration::from_secs(30));
    let steps = vec![
        Step::Store(StoreOperation::Save, late, 3),
        Step::AwaitRefresh(1),
        Step::AwaitRefresh(1),
    ];
    is_found(Wrong::ComparesNothing, steps, "ReauthenticationRequired");
}

#[test]
fn r32_a_history_finds_a_lock_that_two_hold() {
    let steps = vec![
        Step::Token(Answer::slow(1_000, 1_000)),
        Step::Refresh(0),
        Step::Wait(Duration::from_millis(10)),
        Step::Refresh(1),
        Step::Wait(Duration::from_millis(10)),
    ];
    is_found(Wrong::LocksNothing, steps, "two calls");
}

#[test]
fn r32_a_history_finds_a_lock_that_another_one_released() {
    let steps = vec![
        Step::Token(Answer::slow(5_000, 500)),
        Step::Refresh(0),
        Step::Wait(Duration::from_millis(10)),
        // A wait that fails releases the lock that it may have got.
        Step::Store(StoreOperation::Lock, Fault::Fails, 1),
        Step::Expire,
        Step::Request(1),
        Step::Wait(Duration::from_millis(10)),
    ];
    is_found(Wrong::ReleasesAnyLock, steps, "two calls");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a history. `Err`: what must not happen.
fn run(history: &History) -> Result<(), String> {
    on_paused_clock(World::run(history))
}

fn on_paused_clock<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(future)
}
