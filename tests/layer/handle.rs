//! `SessionHandle`, with and without the layer.

use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::StatusCode;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
};
use tower::Layer;
use tower_salesforce_auth::{
    ErrorKind, RefreshContext, RefreshError, RefreshErrorKind, SalesforceAuthLayer, Session,
    SessionHandle,
    handle::{SessionHandleBuilder, SessionState},
    observer::{Observer, RefreshReason},
    request::{AuthOutcome, ReplaySkipped},
};

use crate::support::{Api, Refresher, get, outcome, send, session};

/// A handle whose refreshes return `T1`, `T2` and so on, and the count of its refreshes.
fn counting() -> (SessionHandle, Arc<AtomicUsize>) {
    let refreshes = Arc::new(AtomicUsize::new(0));
    let handle = {
        let refreshes = refreshes.clone();
        SessionHandle::new(move |_: RefreshContext| {
            let n = refreshes.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok(session(&format!("T{n}"))) }
        })
    };
    (handle, refreshes)
}

#[tokio::test]
async fn a_handle_serves_a_client_without_the_layer() {
    let (handle, refreshes) = counting();
    assert!(handle.try_session().is_none());
    let first = handle.session().await.unwrap();
    assert_eq!(first.access_token().expose(), "T1");
    assert_eq!(
        handle.session().await.unwrap().generation(),
        first.generation()
    );
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);

    handle.invalidate(first.generation());
    assert!(handle.try_session().is_none());
    let second = handle.session().await.unwrap();
    assert!(second.generation() > first.generation());
    // A late call has no effect: the session of this generation is already replaced.
    handle.invalidate(first.generation());
    assert_eq!(
        handle.try_session().unwrap().generation(),
        second.generation()
    );
    assert_eq!(refreshes.load(Ordering::SeqCst), 2);

    let third = handle.refresh().await.unwrap();
    assert_eq!(third.access_token().expose(), "T3");
    assert_eq!(
        handle.try_session().unwrap().generation(),
        third.generation()
    );
}

#[tokio::test]
async fn a_fixed_session_is_replaced_by_set_alone() {
    let api = Api::accepting("T1");
    let handle = SessionHandle::fixed(session("T0").with_refresh_token("R0"));
    let service = SalesforceAuthLayer::from(handle.clone()).layer(api.clone());
    let first = handle.session().await.unwrap();
    assert_eq!(first.access_token().expose(), "T0");
    let error = handle.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSession);

    // A rejection reaches the caller, and the session stays in use.
    for _ in 0..2 {
        let response = send(&service, get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let skipped = outcome(&response).replay_skipped();
        assert_eq!(skipped, Some(ReplaySkipped::NotConfigured));
    }
    handle.invalidate(first.generation());
    let error = handle.session().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSession);
    handle.set(session("T1"));
    let response = send(&service, get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["T0", "T0", "T1"]);
}

#[tokio::test]
async fn a_fixed_session_may_have_settings() {
    let api = Api::accepting("T1");
    let reported = Arc::new(Mutex::new(Vec::new()));
    let handle = SessionHandleBuilder::fixed(session("T0"))
        .allow_origin("https://api.salesforce.com".parse().unwrap())
        .observer(Skips(reported.clone()))
        .build();
    let service = SalesforceAuthLayer::from(handle).layer(api.clone());
    let uri = "https://api.salesforce.com/einstein";
    let response = send(&service, get(uri)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.tokens(), ["T0"]);
    let skipped = outcome(&response).replay_skipped();
    assert_eq!(*reported.lock().unwrap(), [skipped]);
}

/// Records why replays were skipped.
struct Skips(Arc<Mutex<Vec<Option<ReplaySkipped>>>>);

impl Observer for Skips {
    fn replay_skipped(&self, outcome: &AuthOutcome) {
        self.0.lock().unwrap().push(outcome.replay_skipped());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn manual_and_rejected_callers_share_one_refresh() {
    let started = Arc::new(Notify::new());
    let finish = Arc::new(Notify::new());
    let refreshes = Arc::new(AtomicUsize::new(0));
    let handle = {
        let (started, finish, refreshes) = (started.clone(), finish.clone(), refreshes.clone());
        SessionHandle::new(move |_: RefreshContext| {
            refreshes.fetch_add(1, Ordering::SeqCst);
            let (started, finish) = (started.clone(), finish.clone());
            async move {
                started.notify_one();
                finish.notified().await;
                Ok(session("T1"))
            }
        })
    };
    handle.set(session("T0"));
    let mut callers = JoinSet::new();
    let first = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await.unwrap().generation() }
    });
    started.notified().await;
    handle.invalidate(handle.try_session().unwrap().generation());
    for n in 0..100 {
        let handle = handle.clone();
        callers.spawn(async move {
            let live = if n % 2 == 0 {
                handle.refresh().await
            } else {
                handle.session().await
            };
            live.unwrap().generation()
        });
    }
    // Every caller is polled once before the refresh may end.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    finish.notify_one();
    let generation = first.await.unwrap();
    let mut late = 0;
    while let Some(joined) = callers.join_next().await {
        late += usize::from(joined.unwrap() != generation);
        // A caller that came after the end starts a refresh of its own.
        finish.notify_one();
    }
    assert_eq!(refreshes.load(Ordering::SeqCst) > 1, late > 0);
}

#[tokio::test]
async fn a_failed_manual_refresh_keeps_the_session() {
    let handle = SessionHandle::new(|_: RefreshContext| async {
        Err::<Session, _>(RefreshError::transient("unplugged"))
    });
    handle.set(session("T0"));
    let error = handle.refresh().await.unwrap_err();
    assert_eq!(
        error.refresh_error().unwrap().kind(),
        RefreshErrorKind::Other
    );
    assert_eq!(
        handle.session().await.unwrap().access_token().expose(),
        "T0"
    );
    assert!(matches!(handle.subscribe().state(), SessionState::Ready(_)));
}

#[tokio::test(start_paused = true)]
async fn r11_a_transient_failure_is_retried_for_its_waiters() {
    let refreshes = Arc::new(AtomicUsize::new(0));
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let handle = {
        let (refreshes, attempts) = (refreshes.clone(), attempts.clone());
        SessionHandle::new(move |context: RefreshContext| {
            attempts
                .lock()
                .unwrap()
                .push((context.reason(), context.attempt()));
            let n = refreshes.fetch_add(1, Ordering::SeqCst);
            async move {
                if n < 2 {
                    return Err(RefreshError::transient("unplugged"));
                }
                Ok(session("T1"))
            }
        })
    };
    let live = handle.session().await.unwrap();
    handle.invalidate(live.generation());
    handle.session().await.unwrap();
    handle.refresh().await.unwrap();
    assert_eq!(
        *attempts.lock().unwrap(),
        [
            (RefreshReason::FirstLogin, 1),
            (RefreshReason::FirstLogin, 2),
            (RefreshReason::FirstLogin, 3),
            (RefreshReason::Rejected, 1),
            (RefreshReason::Manual, 1),
        ]
    );
}

#[tokio::test]
async fn setting_a_session_wakes_every_waiter() {
    let api = Api::accepting("T9");
    let (started, started_rx) = oneshot::channel();
    let started = Mutex::new(Some(started));
    let layer = SalesforceAuthLayer::new(move |_: RefreshContext| {
        let started = started.lock().unwrap().take();
        async move {
            if let Some(started) = started {
                let _ = started.send(());
            }
            pending().await
        }
    });
    let handle = layer.handle();
    let service = layer.layer(api.clone());
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let service = service.clone();
        callers.spawn(async move { send(&service, get("/")).await.unwrap().status() });
    }
    started_rx.await.unwrap();

    let generation = handle.set(session("T9"));

    assert!(
        callers
            .join_all()
            .await
            .iter()
            .all(|status| *status == StatusCode::OK)
    );
    assert_eq!(handle.try_session().unwrap().generation(), generation);
    assert_eq!(api.tokens(), ["T9"; 50]);
}

#[tokio::test(start_paused = true)]
async fn r28_a_subscription_shows_each_state_in_turn() {
    let api = Api::accepting("T0");
    let refresher = Refresher::of(&api);
    let finish = Arc::new(Notify::new());
    let layer = {
        let (refresher, finish) = (refresher.clone(), finish.clone());
        SalesforceAuthLayer::new(move |_: RefreshContext| {
            let (refresher, finish) = (refresher.clone(), finish.clone());
            async move {
                finish.notified().await;
                refresher.complete(refresher.begin())
            }
        })
    };
    let handle = layer.handle();
    let mut states = handle.subscribe();
    assert!(matches!(states.state(), SessionState::Empty));
    handle.set(session("T0"));
    let Some(SessionState::Ready(live)) = states.changed().await else {
        panic!("no session");
    };
    assert_eq!(live.access_token().expose(), "T0");

    api.accept("nothing");
    let service = layer.layer(api);
    let answer = tokio::spawn(async move { send(&service, get("/")).await });
    let state = states.changed().await;
    assert!(matches!(state, Some(SessionState::Refreshing)));
    finish.notify_one();
    // The state holds the whole new session.
    let Some(SessionState::Ready(live)) = states.changed().await else {
        panic!("no session");
    };
    assert_eq!(live.access_token().expose(), "T1");
    assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);

    // What changes nothing is not shown.
    handle.reset();
    assert!(futures_util::poll!(pin!(states.changed())).is_pending());

    handle.invalidate(live.generation());
    assert!(matches!(states.changed().await, Some(SessionState::Empty)));

    // The next refresh hangs until it times out.
    let failing = tokio::spawn({
        let handle = handle.clone();
        async move { handle.session().await }
    });
    let state = states.changed().await;
    assert!(matches!(state, Some(SessionState::Refreshing)));
    let Some(SessionState::BackingOff(error)) = states.changed().await else {
        panic!("no failure");
    };
    assert_eq!(error.kind(), RefreshErrorKind::TimedOut);
    assert!(failing.await.unwrap().is_err());

    // Reading the state takes no lock: `set` works inside the `if let`.
    if let SessionState::BackingOff(_) = states.state() {
        handle.set(session("T9"));
    }
    drop((handle, layer));
    assert!(matches!(
        states.changed().await,
        Some(SessionState::Ready(_))
    ));
    assert!(states.changed().await.is_none());
}
