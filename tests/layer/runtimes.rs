//! Refreshes that hang, panic, or lose their runtime (R14).

use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::StatusCode;
use tokio::{
    runtime::Runtime,
    task::JoinSet,
    time::{Instant, timeout},
};
use tower::Layer;
use tower_salesforce_auth::{
    RefreshContext, RefreshError, RefreshErrorKind, SessionHandle, handle::SessionState,
};

use crate::support::{
    Api, Refresher, all_together, get, paused, refresh_kind, send, session, starting_with,
};

// === Hangs and panics ===

#[tokio::test(start_paused = true)]
async fn r14_a_hung_refresh_fails_all_waiters_at_the_timeout() {
    let api = Api::accepting("T2");
    let refresher = Refresher::of(&api);
    let dropped = Arc::new(AtomicUsize::new(0));
    let layer = {
        let dropped = dropped.clone();
        refresher.layer_with(move |n| {
            let dropped = dropped.clone();
            async move {
                if n == 1 {
                    let _guard = scopeguard(move || dropped.fetch_add(1, Ordering::SeqCst));
                    pending::<()>().await;
                }
            }
        })
    };
    let service = layer.layer(api.clone());
    let started = Instant::now();

    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let service = service.clone();
        callers.spawn(async move { send(&service, get("/services/data/")).await });
    }
    for answer in callers.join_all().await {
        assert_eq!(
            refresh_kind(&answer.unwrap_err()),
            Some(RefreshErrorKind::TimedOut)
        );
    }
    // The timer wheel is a millisecond coarse.
    assert_eq!(started.elapsed().as_secs(), 30);
    assert!(started.elapsed() <= Duration::from_millis(30_001));
    assert_eq!(dropped.load(Ordering::SeqCst), 1, "the refresh was dropped");
    assert_eq!(
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        0
    );

    let response = send(&service, get("/services/data/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(refresher.count(), 2);
}

/// Calls a function when it is dropped.
fn scopeguard<F: FnOnce() -> T, T>(f: F) -> impl Drop {
    struct Guard<F: FnOnce() -> T, T>(Option<F>);
    impl<F: FnOnce() -> T, T> Drop for Guard<F, T> {
        fn drop(&mut self) {
            self.0.take().map(|f| f());
        }
    }
    Guard(Some(f))
}

#[tokio::test(start_paused = true)]
async fn r14_a_panicking_refresh_fails_all_waiters_at_once() {
    for panics_before_its_future_is_made in [true, false] {
        let api = Api::accepting("T2");
        let refresher = Refresher::of(&api);
        let layer = {
            let refresher = refresher.clone();
            starting_with(session("T0"), move |_: RefreshContext| {
                let n = refresher.begin();
                assert!(n > 1 || !panics_before_its_future_is_made, "on purpose");
                let refresher = refresher.clone();
                async move {
                    tokio::task::yield_now().await;
                    assert!(n > 1, "on purpose");
                    refresher.complete(n)
                }
            })
        };
        let service = layer.layer(all_together(&api, 50));
        let started = Instant::now();

        let mut callers = JoinSet::new();
        for _ in 0..50 {
            let service = service.clone();
            callers.spawn(async move { send(&service, get("/services/data/")).await });
        }
        for answer in callers.join_all().await {
            assert_eq!(
                refresh_kind(&answer.unwrap_err()),
                Some(RefreshErrorKind::Panicked)
            );
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert_eq!(
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
            0
        );

        let response = send(&service, get("/services/data/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(refresher.count(), 2);
    }
}

/// A process was frozen (suspend, SIGSTOP, blocking code) beyond the refresh timeout, and the answer is in its socket.
/// The waiter that is polled first must not discard that answer.
#[tokio::test(start_paused = true)]
async fn r14_a_late_refresh_that_still_runs_is_not_repeated() {
    let started = Arc::new(AtomicUsize::new(0));
    let answer = Arc::new(tokio::sync::Notify::new());
    let handle = SessionHandle::new({
        let (started, answer) = (Arc::clone(&started), Arc::clone(&answer));
        move |_: RefreshContext| {
            let n = started.fetch_add(1, Ordering::SeqCst);
            let answer = Arc::clone(&answer);
            async move {
                if n == 0 {
                    answer.notified().await;
                }
                Ok(session(&format!("T{n}")))
            }
        }
    });
    let first = tokio::spawn({
        let handle = handle.clone();
        async move { handle.session().await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    answer.notify_one();
    {
        // The clock advances while nothing else is polled.
        let mut frozen = pin!(tokio::time::advance(Duration::from_secs(40)));
        let _ = frozen
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
    }
    let second = handle.session().await;
    let first = first.await.unwrap();
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(started.load(Ordering::SeqCst), 1, "refreshes");
}

// === Runtimes that stop ===

/// A handle whose first refresh hangs, on a runtime that is no longer driven. Later refreshes succeed.
fn undriven() -> (SessionHandle, Arc<AtomicUsize>, Runtime) {
    let started = Arc::new(AtomicUsize::new(0));
    let handle = SessionHandle::new({
        let started = Arc::clone(&started);
        move |_: RefreshContext| {
            let n = started.fetch_add(1, Ordering::SeqCst);
            async move {
                if n == 0 {
                    pending::<()>().await;
                }
                Ok(session(&format!("T{n}")))
            }
        }
    });
    let undriven = paused();
    undriven.block_on(async {
        let _ = timeout(Duration::from_millis(1), handle.session()).await;
    });
    assert_eq!(started.load(Ordering::SeqCst), 1);
    (handle, started, undriven)
}

/// On a runtime that is shut down, `spawn` drops the driver at once, while the core is locked.
#[test]
fn r14_a_refresh_on_a_shut_down_runtime_does_not_deadlock() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let gone = paused();
        let runtime = gone.handle().clone();
        drop(gone);
        let _context = runtime.enter();
        let handle = SessionHandle::new(async |_: RefreshContext| Ok(session("T1")));
        let mut token = pin!(handle.session());
        let polled = token.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Err(error)) = polled else {
            panic!("a session, or none yet");
        };
        done.send(error.refresh_error().unwrap().kind()).unwrap();
    });
    assert_eq!(
        is_done.recv_timeout(Duration::from_secs(10)),
        Ok(RefreshErrorKind::Cancelled),
        "deadlock"
    );
}

#[test]
fn r14_waiters_fail_if_the_refresh_runtime_shuts_down() {
    let api = Api::accepting("T1");
    let refreshes = Arc::new(AtomicUsize::new(0));
    let layer = {
        let refreshes = refreshes.clone();
        starting_with(session("T0"), move |_: RefreshContext| {
            let n = refreshes.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                if n == 1 {
                    std::future::pending::<()>().await;
                }
                Ok(session("T1"))
            }
        })
    };
    let service = layer.layer(api);
    for first in [
        tokio::runtime::Builder::new_current_thread(),
        tokio::runtime::Builder::new_multi_thread(),
    ] {
        refreshes.store(0, Ordering::SeqCst);
        layer.handle().set(session("T0"));
        let (mut first, second) = (first, tokio::runtime::Runtime::new().unwrap());
        let first = first.enable_all().build().unwrap();
        let cause = {
            let service = service.clone();
            first.spawn(async move { send(&service, get("/services/data/")).await })
        };
        first.block_on(async {
            while refreshes.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        });
        let mut waiter = Box::pin({
            let service = service.clone();
            async move { send(&service, get("/services/data/")).await }
        });
        second.block_on(async {
            // The waiter has joined the refresh when this returns.
            assert!(futures_util::poll!(waiter.as_mut()).is_pending());
        });

        first.shutdown_background();
        let error = second.block_on(waiter).unwrap_err();

        let error: &tower_salesforce_auth::Error = error.downcast_ref().unwrap();
        assert_eq!(
            error.refresh_error().unwrap().kind(),
            tower_salesforce_auth::RefreshErrorKind::Cancelled
        );
        drop(cause);
        let response = second.block_on(send(&service, get("/services/data/")));
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
}

/// R42: the state has the failure that the callers got, and not the one before it.
#[test]
fn r42_a_backoff_that_a_shutdown_ends_shows_the_shutdown() {
    let failing = async |_: RefreshContext| Err(RefreshError::transient("busy"));
    let handle = SessionHandle::new(failing);
    let mut states = handle.subscribe();
    let kind = |state: Option<SessionState>| match state {
        Some(SessionState::BackingOff(error)) => error.kind(),
        state => panic!("{state:?}"),
    };
    let runtime = paused();
    runtime.block_on(async {
        let _ = timeout(Duration::from_millis(1), handle.session()).await;
        assert_eq!(kind(states.changed().await), RefreshErrorKind::Other);
        // Another caller waits, and nothing has changed.
        let _ = timeout(Duration::from_millis(1), handle.session()).await;
        assert!(futures_util::poll!(pin!(states.changed())).is_pending());
    });
    drop(runtime);
    assert_eq!(kind(Some(states.state())), RefreshErrorKind::Cancelled);
}

#[test]
fn r14_an_undriven_refresh_times_out_and_the_next_starts() {
    let api = Api::accepting("T2");
    let refresher = Refresher::of(&api);
    let layer = refresher.layer_with(|n| async move {
        if n == 1 {
            pending::<()>().await;
        }
    });
    let service = layer.layer(api);
    let (left_alone, driven) = (paused(), paused());
    left_alone.block_on(async {
        let mut abandoned = pin!(send(&service, get("/services/data/")));
        assert!(futures_util::poll!(abandoned.as_mut()).is_pending());
        tokio::task::yield_now().await;
    });

    driven.block_on(async {
        // The waiter itself notices the timeout.
        let error = send(&service, get("/waiting")).await.unwrap_err();
        let error: &tower_salesforce_auth::Error = error.downcast_ref().unwrap();
        assert_eq!(
            error.refresh_error().unwrap().kind(),
            tower_salesforce_auth::RefreshErrorKind::TimedOut
        );
        // The next request starts a new refresh.
        let response = send(&service, get("/next")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    });
    // The task of the first refresh ends without effect.
    left_alone.block_on(tokio::task::yield_now());
    assert_eq!(left_alone.metrics().num_alive_tasks(), 0);
    assert_eq!(refresher.count(), 2);
}

/// The waiter is on a runtime that runs, the refresh on one that is no longer driven.
#[test]
fn r14_a_waiter_on_an_undriven_refresh_times_out() {
    let (handle, _, _undriven) = undriven();
    let live = paused();
    let waited =
        live.block_on(async { timeout(Duration::from_secs(3600), handle.session()).await });
    let error = waited.expect("still waiting after an hour").unwrap_err();
    let kind = error.refresh_error().unwrap().kind();
    assert_eq!(kind, RefreshErrorKind::TimedOut);
}

/// A caller that comes after the refresh timeout starts a new refresh.
#[test]
fn r14_a_caller_after_an_overdue_refresh_gets_a_session() {
    let (handle, started, _undriven) = undriven();
    let live = paused();
    let got = live.block_on(async {
        tokio::time::advance(Duration::from_secs(60)).await;
        handle.session().await
    });
    assert!(
        got.is_ok(),
        "{got:?}; refreshes started: {}",
        started.load(Ordering::SeqCst)
    );
}
