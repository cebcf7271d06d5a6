//! Flights and the runtimes that they are on.

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

use tokio::time::timeout;
use tower_salesforce_auth::{RefreshContext, RefreshErrorKind, SessionHandle};

use crate::support::session;

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

/// Hangs the first time, and works from then on.
fn hangs_once(started: Arc<AtomicUsize>) -> SessionHandle {
    SessionHandle::new(move |_: RefreshContext| {
        let n = started.fetch_add(1, Ordering::SeqCst);
        async move {
            if n == 0 {
                pending::<()>().await;
            }
            Ok(session(&format!("T{n}")))
        }
    })
}

/// A flight that departs on a runtime that is shut down: spawn drops the driver at once, under the lock.
#[test]
fn r14_a_refresh_on_a_shut_down_runtime_does_not_deadlock() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let gone = paused();
        let runtime = gone.handle().clone();
        drop(gone);
        let _context = runtime.enter();
        let handle = SessionHandle::new(async |_: RefreshContext| Ok(session("T1")));
        let mut token = pin!(handle.token());
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

/// Somebody on a live runtime waits for a flight on a runtime that nobody drives any more.
#[test]
fn r14_a_waiter_on_an_undriven_refresh_times_out() {
    let undriven = paused();
    let started = Arc::default();
    let handle = hangs_once(Arc::clone(&started));
    undriven.block_on(async {
        let _ = timeout(Duration::from_millis(1), handle.token()).await;
    });
    assert_eq!(started.load(Ordering::SeqCst), 1);
    let live = paused();
    let waited = live.block_on(async { timeout(Duration::from_secs(3600), handle.token()).await });
    let error = waited.expect("still waiting after an hour").unwrap_err();
    let kind = error.refresh_error().unwrap().kind();
    assert_eq!(kind, RefreshErrorKind::TimedOut);
}

/// Whoever comes after the refresh timeout does not share the fate of what stopped before.
#[test]
fn r14_a_caller_after_an_overdue_refresh_gets_a_session() {
    let undriven = paused();
    let started = Arc::default();
    let handle = hangs_once(Arc::clone(&started));
    undriven.block_on(async {
        let _ = timeout(Duration::from_millis(1), handle.token()).await;
    });
    let live = paused();
    let got = live.block_on(async {
        tokio::time::advance(Duration::from_secs(60)).await;
        handle.token().await
    });
    assert!(
        got.is_ok(),
        "{got:?}; refreshes started: {}",
        started.load(Ordering::SeqCst)
    );
}

/// A process that was frozen (suspend, SIGSTOP, blocking code) for longer than the refresh timeout, with the answer of
/// the token endpoint waiting in the socket: whoever is polled first must not throw it away.
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
        async move { handle.token().await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    answer.notify_one();
    {
        // The clock moves on while nothing else is polled.
        let mut frozen = pin!(tokio::time::advance(Duration::from_secs(40)));
        let _ = frozen
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
    }
    let second = handle.token().await;
    let first = first.await.unwrap();
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(started.load(Ordering::SeqCst), 1, "refreshes");
}
