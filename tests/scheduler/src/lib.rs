//! The two places where threads of the crate meet, under a scheduler: how waiters get the result of a refresh
//! (`src/refresh/task.rs`, the file itself), and how requests read the session (the pattern of `src/refresh/shared.rs`).
//!
//! The same tests run in three ways. `CONTRIBUTING.md` has the commands.
//!
//! - With `--cfg loom`, under loom: every interleaving of the threads, and every order that the memory model permits.
//! - Without, on real threads, many times: for Miri, and for ThreadSanitizer.
//!
//! A lost wake-up is a deadlock for loom, and a timeout on real threads.
#![cfg(test)]

#[path = "../../../src/refresh/task.rs"]
mod task;

mod finish_once;
mod hot_read;

use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

#[cfg(not(loom))]
use std::{sync::mpsc, thread};

#[cfg(loom)]
use loom::{sync::mpsc, thread};

/// Runs `scenario` in every interleaving, and prints how many there are.
#[cfg(loom)]
fn explore(name: &str, scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(None, name, scenario);
}

/// Runs `scenario` in every interleaving with at most so many preemptions. `None`: all.
#[cfg(loom)]
fn explore_within(
    preemptions: Option<usize>,
    name: &str,
    scenario: impl Fn() + Send + Sync + 'static,
) {
    let explored = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&explored);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        scenario();
    });
    println!("{name}: {} interleavings", explored.load(Ordering::Relaxed));
}

/// Runs `scenario` on real threads, `SCHEDULER_RUNS` times. Default: 2,000, and 20 under Miri.
#[cfg(not(loom))]
fn explore(name: &str, scenario: impl Fn() + Send + Sync + 'static) {
    let default = if cfg!(miri) { 20 } else { 2_000 };
    let runs = std::env::var("SCHEDULER_RUNS").map_or(default, |runs| runs.parse().unwrap());
    for _ in 0..runs {
        scenario();
    }
    println!("{name}: {runs} runs");
}

#[cfg(not(loom))]
fn explore_within(
    _preemptions: Option<usize>,
    name: &str,
    scenario: impl Fn() + Send + Sync + 'static,
) {
    explore(name, scenario);
}

/// Polls a future once, with a waker that counts.
fn poll_once<F: Future + Unpin>(future: &mut F, wakes: &Arc<Wakes>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(wakes));
    pin!(future).poll(&mut Context::from_waker(&waker))
}

/// Counts wake-ups. `on_wake` runs inside of each.
#[derive(Default)]
struct Wakes {
    count: AtomicUsize,
    on_wake: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Wakes {
    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if let Some(on_wake) = &self.on_wake {
            on_wake();
        }
    }
}

/// Waits for a future on this thread. Loom sees a lost wake-up as a deadlock. On real threads it is a panic, after a minute.
fn block_on<F: Future>(future: F) -> F::Output {
    let (wake, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(SendWake(Mutex::new(wake))));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        #[cfg(loom)]
        woken.recv().unwrap();
        #[cfg(not(loom))]
        woken
            .recv_timeout(std::time::Duration::from_secs(60))
            .expect("a wake-up was lost");
    }
}

/// Sends a message for each wake-up. The mutex is not contended: it makes the sender `Sync`, also that of loom.
struct SendWake(Mutex<mpsc::Sender<()>>);

impl Wake for SendWake {
    fn wake(self: Arc<Self>) {
        // The receiver is gone if the future was ready meanwhile.
        let _ = self.0.lock().unwrap().send(());
    }
}
