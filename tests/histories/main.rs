//! Random histories of two processes that share a store, against a server with strict refresh-token rotation.
//!
//! `HISTORIES=1000000 cargo test --test histories` runs a million of them. `SEED=17 cargo test --test histories` runs the one
//! with this seed, and prints its steps.
#![allow(missing_docs)]

#[path = "../support/faulty.rs"]
mod faulty;
mod history;
#[path = "../support/rotating.rs"]
mod rotating;
mod step;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use self::{history::History, world::World};

const HISTORIES: u64 = 20_000;

/// R3, R7, R14, R30, R42, R44: in every history
///
/// - no refresh token is presented twice, unless no client could know: the answer to the token call was lost, was cut off by
///   the end of its process, or is known to another process only, whose save has not succeeded;
/// - no two token calls of a login overlap, and nothing is presented or sent after a logout;
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
