//! Code of the user's never runs under a lock of the session (R13, R14): it may look at the session wherever it runs.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use tokio::time::sleep;
use tower_salesforce_auth::{
    RefreshContext, RefreshError, SessionHandle,
    handle::SessionState,
    observer::{Observer, RefreshFailed, RefreshStarted},
    store::{
        BoxFuture, MemoryStore, OnSaveFailure, Record, Save, SessionStore, StoreError,
        StoreErrorKind, StoreLock,
    },
};

use crate::rotating::session;

/// Runs a test on a thread of its own, and fails if the thread locks itself up.
fn without_deadlock(test: impl AsyncFnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(test());
        drop(runtime);
        done.send(()).unwrap();
    });
    match ended.recv_timeout(Duration::from_secs(20)) {
        Ok(()) => thread.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("deadlock"),
    }
}

/// Looks at everything that a handle shows.
fn look(handle: &SessionHandle) {
    let is_ready = matches!(handle.subscribe().state(), SessionState::Ready(_));
    assert_eq!(is_ready, handle.try_session().is_some());
    let _ = (
        handle.refresh_token(),
        handle.has_unsaved_refresh_token(),
        format!("{handle:?}"),
    );
}

/// The handle that errors look at when they are dropped.
#[derive(Clone, Default)]
struct Watched {
    handle: Arc<OnceLock<SessionHandle>>,
    drops: Arc<AtomicUsize>,
}

impl Watched {
    fn error(&self) -> Curious {
        Curious(self.clone())
    }

    fn watch(&self, handle: &SessionHandle) {
        self.handle.set(handle.clone()).unwrap();
    }
}

/// An error that looks at the handle when it is dropped.
struct Curious(Watched);

impl Drop for Curious {
    fn drop(&mut self) {
        self.0.drops.fetch_add(1, Ordering::SeqCst);
        if let Some(handle) = self.0.handle.get() {
            look(handle);
        }
    }
}

impl fmt::Debug for Curious {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Curious")
    }
}

impl fmt::Display for Curious {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("curious")
    }
}

impl std::error::Error for Curious {}

/// A store whose saves fail with such an error, and whose unlock takes a second.
#[derive(Clone, Default)]
struct CuriousStore {
    store: MemoryStore,
    watched: Watched,
}

struct CuriousLock {
    lock: Box<dyn StoreLock>,
    watched: Watched,
}

impl SessionStore for CuriousStore {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.store.load(key)
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let lock: Box<dyn StoreLock> = Box::new(CuriousLock {
                lock: self.store.lock(key).await?,
                watched: self.watched.clone(),
            });
            Ok(lock)
        })
    }
}

impl CuriousLock {
    fn fail<'a>(&self) -> BoxFuture<'a, Result<(), StoreError>> {
        let error = StoreError::new(StoreErrorKind::Unavailable, "down");
        Box::pin(std::future::ready(Err(
            error.with_source(self.watched.error())
        )))
    }
}

impl StoreLock for CuriousLock {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.lock.load()
    }

    fn save<'a>(&'a mut self, _: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        self.fail()
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.fail()
    }

    fn unlock(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            sleep(Duration::from_secs(1)).await;
            self.lock.unlock().await;
        })
    }
}

/// How a refresh is disturbed.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Nothing,
    Set,
    Reset,
    Logout,
    Refresh,
    RuntimeEnds,
}

fn disturb(handle: &SessionHandle, disturbance: Disturbance) {
    match disturbance {
        Disturbance::Nothing | Disturbance::RuntimeEnds => {}
        Disturbance::Set => drop(handle.set(session("another"))),
        Disturbance::Reset => handle.reset(),
        Disturbance::Logout => {
            let handle = handle.clone();
            let client = crate::rotating::Client::new(&crate::rotating::Server::default(), 1);
            tokio::spawn(async move { handle.logout(client).await });
        }
        Disturbance::Refresh => {
            let handle = handle.clone();
            tokio::spawn(async move { handle.refresh().await });
        }
    }
}

/// A session whose refreshes fail in turn with such an error, and succeed in turn.
fn failing(watched: &Watched, is_terminal: bool, store: Option<CuriousStore>) -> SessionHandle {
    let calls = Arc::new(AtomicUsize::new(0));
    let errors = watched.clone();
    let mut builder = SessionHandle::builder(move |_: RefreshContext| {
        let (n, errors) = (calls.fetch_add(1, Ordering::SeqCst), errors.clone());
        async move {
            sleep(Duration::from_millis(500)).await;
            match (n % 2, is_terminal) {
                (1, _) => Ok(session(&format!("T{n}"))),
                (_, true) => Err(RefreshError::terminal(errors.error())),
                (_, false) => Err(RefreshError::transient(errors.error())),
            }
        }
    })
    .on_save_failure(OnSaveFailure::Fail)
    .initial_session(session("T"));
    if let Some(store) = store {
        builder = builder.store(store, "user");
    }
    builder.build()
}

/// R14: errors of a `RefreshFn` and of a store whose drop looks at the session, at each step of a refresh.
#[test]
fn r14_a_dropped_error_may_look_at_the_session() {
    without_deadlock(async || {
        let mut drops = 0;
        for disturbance in [
            Disturbance::Nothing,
            Disturbance::Set,
            Disturbance::Reset,
            Disturbance::Logout,
            Disturbance::Refresh,
        ] {
            for (is_terminal, has_store) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                for at in (0..6_000).step_by(200) {
                    let watched = Watched::default();
                    let store = has_store.then(|| CuriousStore {
                        watched: watched.clone(),
                        ..CuriousStore::default()
                    });
                    let handle = failing(&watched, is_terminal, store);
                    watched.watch(&handle);
                    let subscription = handle.subscribe();
                    handle.invalidate(handle.try_session().unwrap().generation());
                    let waiting = tokio::spawn({
                        let handle = handle.clone();
                        async move { handle.session().await.is_ok() }
                    });
                    sleep(Duration::from_millis(at)).await;
                    disturb(&handle, disturbance);
                    waiting.await.unwrap();
                    sleep(Duration::from_secs(100)).await;
                    handle.set(session("last"));
                    drop(subscription);
                    drops += watched.drops.load(Ordering::SeqCst);
                }
            }
        }
        assert!(drops > 1_000, "{drops}");
    });
}

/// R14: the same when the runtime ends in the middle of a refresh.
#[test]
fn r14_an_error_dropped_with_the_runtime_may_look_at_it() {
    for at in (0..4_000).step_by(200) {
        let watched = Watched::default();
        let kept = watched.clone();
        without_deadlock(async move || {
            let store = CuriousStore {
                watched: watched.clone(),
                ..CuriousStore::default()
            };
            let handle = failing(&watched, true, Some(store));
            watched.watch(&handle);
            disturb(&handle, Disturbance::RuntimeEnds);
            handle.invalidate(handle.try_session().unwrap().generation());
            tokio::spawn({
                let handle = handle.clone();
                async move { handle.session().await.is_ok() }
            });
            sleep(Duration::from_millis(at)).await;
        });
        look(kept.handle.get().unwrap());
    }
}

/// A task that is polled where it is woken.
struct Inline {
    task: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    is_done: AtomicBool,
}

impl Inline {
    fn start(task: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        let inline = Arc::new(Self {
            task: Mutex::new(Some(Box::pin(task))),
            is_done: AtomicBool::new(false),
        });
        Arc::clone(&inline).wake();
        inline
    }
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        let Some(mut task) = self.task.lock().unwrap().take() else {
            return;
        };
        let waker = Waker::from(Arc::clone(&self));
        if task
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
        {
            self.is_done.store(true, Ordering::SeqCst);
        } else {
            *self.task.lock().unwrap() = Some(task);
        }
    }
}

/// R14: subscribers and callers that are polled where they are woken may look at the session.
#[test]
fn r14_a_waker_that_polls_at_once_may_look_at_the_session() {
    without_deadlock(async || {
        let watched = Watched::default();
        let handle = failing(&watched, false, None);
        watched.watch(&handle);
        let subscriber = Inline::start({
            let (handle, mut subscription) = (handle.clone(), handle.subscribe());
            async move {
                while subscription.changed().await.is_some() {
                    look(&handle);
                }
            }
        });
        handle.invalidate(handle.try_session().unwrap().generation());
        let caller = Inline::start({
            let handle = handle.clone();
            async move {
                let _ = handle.session().await;
                look(&handle);
                handle.set(session("of-the-caller"));
            }
        });
        sleep(Duration::from_secs(10)).await;
        assert!(caller.is_done.load(Ordering::SeqCst));
        handle.reset();
        assert!(
            !subscriber.is_done.load(Ordering::SeqCst),
            "the session is still there"
        );
        assert_eq!(
            handle.try_session().unwrap().access_token().expose(),
            "of-the-caller"
        );
    });
}

/// An observer that looks at the session, and changes it.
#[derive(Clone, Default)]
struct Meddling(Watched);

impl Observer for Meddling {
    fn refresh_started(&self, _: &RefreshStarted) {
        look(self.0.handle.get().unwrap());
    }

    fn refresh_failed(&self, event: &RefreshFailed) {
        let handle = self.0.handle.get().unwrap();
        look(handle);
        if !event.will_retry() {
            handle.reset();
            handle.set(session("of-the-observer"));
        }
    }

    fn reauthentication_required(&self, _: &RefreshError) {
        look(self.0.handle.get().unwrap());
    }
}

/// R28: an observer may look at the session, and set another.
#[test]
fn r28_an_observer_may_change_the_session() {
    without_deadlock(async || {
        let meddling = Meddling::default();
        let errors = meddling.0.clone();
        let handle = SessionHandle::builder(move |_: RefreshContext| {
            std::future::ready(Err(RefreshError::terminal(errors.error())))
        })
        .observer(meddling.clone())
        .build();
        meddling.0.watch(&handle);
        assert!(handle.session().await.is_err());
        let live = handle.session().await.unwrap();
        assert_eq!(live.access_token().expose(), "of-the-observer");
    });
}
