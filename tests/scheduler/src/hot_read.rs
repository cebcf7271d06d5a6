//! Requests read the session without a lock, and the session changes under one.
//!
//! The pattern of `src/refresh/shared.rs`, with numbers for sessions: the core's slot is changed and published in one critical
//! section, waiters join in it, and are woken after it. What arc-swap does inside cannot be instrumented from outside, so loom
//! gets what it promises ([`current::Current`]); on real threads it is the real one.

use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};

use crate::{
    block_on, explore, explore_within,
    hot_read::current::Current,
    task::{Task, Waiter},
    thread,
};

/// A published session. The token belongs to the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    generation: usize,
    token: usize,
}

impl Session {
    fn of(generation: usize) -> Self {
        Self {
            generation,
            token: generation + 100,
        }
    }
}

#[cfg(loom)]
mod current {
    use loom::sync::atomic::{AtomicUsize, Ordering};

    use super::Session;

    /// Only what arc-swap promises: a load acquires what the store of the loaded value released.
    pub(super) struct Current {
        /// 0: none.
        generation: AtomicUsize,
        tokens: [AtomicUsize; 4],
    }

    impl Current {
        pub(super) fn new() -> Self {
            Self {
                generation: AtomicUsize::new(0),
                tokens: std::array::from_fn(|_| AtomicUsize::new(0)),
            }
        }

        pub(super) fn load(&self) -> Option<Session> {
            let generation = self.generation.load(Ordering::Acquire);
            let token =
                (generation > 0).then(|| self.tokens[generation].load(Ordering::Relaxed))?;
            Some(Session { generation, token })
        }

        pub(super) fn store(&self, session: Option<Session>) {
            if let Some(session) = session {
                self.tokens[session.generation].store(session.token, Ordering::Relaxed);
            }
            let generation = session.map_or(0, |session| session.generation);
            self.generation.store(generation, Ordering::Release);
        }
    }
}

#[cfg(not(loom))]
mod current {
    use std::sync::Arc;

    use arc_swap::ArcSwapOption;

    use super::Session;

    pub(super) struct Current(ArcSwapOption<Session>);

    impl Current {
        pub(super) fn new() -> Self {
            Self(ArcSwapOption::empty())
        }

        pub(super) fn load(&self) -> Option<Session> {
            self.0.load().as_ref().map(|session| **session)
        }

        pub(super) fn store(&self, session: Option<Session>) {
            self.0.store(session.map(Arc::new));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    LoggedOut,
}

type Outcome = Result<Session, Failure>;

struct Shared {
    current: Current,
    locked: Mutex<Locked>,
}

struct Locked {
    slot: Slot,
    last_generation: usize,
    running: Option<Arc<Task<Outcome>>>,
    /// Refreshes that were started.
    started: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Vacant,
    Serving(Session),
    LoggedOut,
}

enum Answer {
    Serve(Session),
    Wait(Waiter<Outcome>),
    /// Wait, and run the driver: this caller has started the refresh.
    Drive(Waiter<Outcome>, Arc<Task<Outcome>>),
    Refuse(Failure),
}

impl Shared {
    /// Serves a first session.
    fn new() -> Arc<Self> {
        let shared = Self {
            current: Current::new(),
            locked: Mutex::new(Locked {
                slot: Slot::Vacant,
                last_generation: 0,
                running: None,
                started: 0,
            }),
        };
        shared.publish(&mut shared.lock());
        Arc::new(shared)
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().unwrap()
    }

    fn publish(&self, locked: &mut Locked) -> Session {
        locked.last_generation += 1;
        let session = Session::of(locked.last_generation);
        locked.slot = Slot::Serving(session);
        self.current.store(Some(session));
        session
    }

    /// The session to send with, after a wait if need be.
    fn session(&self) -> Outcome {
        match self.current.load() {
            Some(session) => Ok(session),
            None => self.answered(|locked| locked.join()),
        }
    }

    /// A request was rejected that was sent with this generation.
    fn reject(&self, generation: usize) -> Outcome {
        self.answered(|locked| {
            if let Slot::Serving(session) = locked.slot
                && session.generation == generation
            {
                locked.slot = Slot::Vacant;
                self.current.store(None);
            }
            locked.join()
        })
    }

    fn answered(&self, ask: impl FnOnce(&mut Locked) -> Answer) -> Outcome {
        let answer = ask(&mut self.lock());
        let outcome = match answer {
            Answer::Serve(session) => return Ok(session),
            Answer::Refuse(failure) => return Err(failure),
            Answer::Wait(waiter) => block_on(waiter),
            Answer::Drive(waiter, task) => {
                // On the caller's thread, which would only wait meanwhile.
                self.drive(&task);
                block_on(waiter)
            }
        };
        // A session that was logged out before its waiter was polled is not used.
        match outcome {
            Ok(_) if self.lock().slot == Slot::LoggedOut => Err(Failure::LoggedOut),
            outcome => outcome,
        }
    }

    fn drive(&self, task: &Arc<Task<Outcome>>) {
        let finished = {
            let mut locked = self.lock();
            // Superseded by a set or a logout: what it returned is not published.
            let is_wanted = locked
                .running
                .as_ref()
                .is_some_and(|running| Arc::ptr_eq(running, task));
            is_wanted.then(|| {
                let session = self.publish(&mut locked);
                (locked.running.take(), session)
            })
        };
        if let Some((Some(running), session)) = finished {
            running.finish(Ok(session));
        }
    }

    fn set(&self) -> Session {
        let (session, running) = {
            let mut locked = self.lock();
            (self.publish(&mut locked), locked.running.take())
        };
        if let Some(running) = running {
            running.finish(Ok(session));
        }
        session
    }

    fn log_out(&self) {
        let running = {
            let mut locked = self.lock();
            locked.slot = Slot::LoggedOut;
            self.current.store(None);
            locked.running.take()
        };
        if let Some(running) = running {
            running.finish(Err(Failure::LoggedOut));
        }
    }
}

impl Locked {
    fn join(&mut self) -> Answer {
        match self.slot {
            Slot::Serving(session) => return Answer::Serve(session),
            Slot::LoggedOut => return Answer::Refuse(Failure::LoggedOut),
            Slot::Vacant => {}
        }
        if let Some(running) = &self.running {
            return Answer::Wait(running.wait());
        }
        let task = Task::new();
        let waiter = task.wait();
        self.running = Some(Arc::clone(&task));
        self.started += 1;
        Answer::Drive(waiter, task)
    }
}

fn on_a_thread<T: Send + 'static>(
    shared: &Arc<Shared>,
    run: impl FnOnce(&Shared) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let shared = Arc::clone(shared);
    thread::spawn(move || run(&shared))
}

/// Reads twice. Sessions are read whole, and never go back to an older one.
fn read_twice(shared: &Shared) -> [Outcome; 2] {
    let read = [shared.session(), shared.session()];
    for session in read.iter().flatten() {
        assert_eq!(*session, Session::of(session.generation));
    }
    match read {
        [Ok(one), Ok(other)] => assert!(one.generation <= other.generation, "went back"),
        [Err(Failure::LoggedOut), next] => assert_eq!(next, Err(Failure::LoggedOut)),
        [Ok(_), Err(Failure::LoggedOut)] => {}
    }
    read
}

/// What a request does whose session was rejected: it is replayed with a newer session, and goes on with that.
fn recover(shared: &Shared) {
    let replayed = shared.reject(1).unwrap();
    assert!(
        replayed.generation > 1,
        "replayed with the rejected session"
    );
    let next = shared.session().unwrap();
    assert!(next.generation >= replayed.generation, "went back");
}

#[test]
fn a_reader_gets_whole_sessions_while_they_are_replaced() {
    explore("a refresh meets a reader", || {
        let shared = Shared::new();
        let reader = on_a_thread(&shared, read_twice);
        recover(&shared);
        assert!(reader.join().unwrap().iter().all(Result::is_ok));
        assert_eq!(shared.lock().started, 1);
    });
}

#[test]
fn two_readers_and_a_rejected_caller_share_one_refresh() {
    // Without a bound there are many millions.
    explore_within(Some(5), "a refresh meets two readers", || {
        let shared = Shared::new();
        let readers = [0, 1].map(|_| on_a_thread(&shared, Shared::session));
        assert_eq!(shared.reject(1), Ok(Session::of(2)));
        for reader in readers {
            let read = reader.join().unwrap().unwrap();
            assert_eq!(read, Session::of(read.generation));
        }
        assert_eq!(shared.lock().started, 1);
    });
}

#[test]
fn a_late_rejection_never_withdraws_a_newer_session() {
    // Without a bound there are a million.
    explore_within(Some(5), "three rejections of one session", || {
        let shared = Shared::new();
        let others = [0, 1].map(|_| on_a_thread(&shared, recover));
        recover(&shared);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shared.lock().started, 1, "one refresh for one session");
        assert_eq!(shared.current.load(), Some(Session::of(2)));
    });
}

#[test]
fn a_session_that_is_set_outlives_a_refresh() {
    explore("a set meets a refresh", || {
        let shared = Shared::new();
        let rejected = on_a_thread(&shared, recover);
        let reader = on_a_thread(&shared, read_twice);
        let set = shared.set();
        let next = shared.session().unwrap();
        assert!(next.generation >= set.generation);
        rejected.join().unwrap();
        assert!(reader.join().unwrap().iter().all(Result::is_ok));
        let latest = shared.current.load().map(|latest| latest.generation);
        assert_eq!(latest, Some(shared.lock().last_generation));
        // A refresh that ended before the set is of the session before. One that did not is dropped.
        assert!(set.generation <= 3);
    });
}

#[test]
fn after_a_logout_no_request_gets_a_session() {
    explore("a logout meets a refresh", || {
        let shared = Shared::new();
        let rejected = on_a_thread(&shared, |shared| shared.reject(1));
        let reader = on_a_thread(&shared, read_twice);
        shared.log_out();
        assert_eq!(shared.session(), Err(Failure::LoggedOut));
        let rejected = rejected.join().unwrap();
        assert!(rejected.is_err() || rejected == Ok(Session::of(2)));
        let _ = reader.join().unwrap();
        assert_eq!(shared.current.load(), None);
    });
}
