//! The living session, without the layer and beside it.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::{
    sync::{Notify, oneshot},
    task::{JoinHandle, JoinSet},
};
use tower::Layer;
use tower_salesforce_auth::{
    Error, LiveSession, RefreshContext, RefreshError, RefreshErrorKind, RefreshReason,
    SalesforceAuthLayer, Secret, Session, SessionHandle, SessionState,
};

use crate::support::{Api, Refresher, get, send, session};

/// Counts, and hands out `T1`, `T2` and so on.
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
    assert!(handle.current().is_none());
    let first = handle.token().await.unwrap();
    assert_eq!(first.access_token().expose(), "T1");
    assert_eq!(
        handle.token().await.unwrap().generation(),
        first.generation()
    );
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);

    handle.invalidate(first.generation());
    assert!(handle.current().is_none());
    let second = handle.token().await.unwrap();
    assert!(second.generation() > first.generation());
    // It is late: the session that it names is gone already.
    handle.invalidate(first.generation());
    assert_eq!(handle.current().unwrap().generation(), second.generation());
    assert_eq!(refreshes.load(Ordering::SeqCst), 2);

    let third = handle.refresh().await.unwrap();
    assert_eq!(third.access_token().expose(), "T3");
    assert_eq!(handle.current().unwrap().generation(), third.generation());
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
    handle.invalidate(handle.current().unwrap().generation());
    for n in 0..100 {
        let handle = handle.clone();
        callers.spawn(async move {
            let live = if n % 2 == 0 {
                handle.refresh().await
            } else {
                handle.token().await
            };
            live.unwrap().generation()
        });
    }
    // All of them are polled once before the refresh may end.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    finish.notify_one();
    let generation = first.await.unwrap();
    let mut late = 0;
    while let Some(joined) = callers.join_next().await {
        late += usize::from(joined.unwrap() != generation);
        // One that came after the landing asks for a refresh of its own.
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
    assert_eq!(handle.token().await.unwrap().access_token().expose(), "T0");
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
    let live = handle.token().await.unwrap();
    handle.invalidate(live.generation());
    handle.token().await.unwrap();
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
    assert_eq!(handle.current().unwrap().generation(), generation);
    assert_eq!(api.tokens(), ["T9"; 50]);
}

/// A refresh by hand, beside what the test does meanwhile.
fn refreshing(handle: &SessionHandle) -> JoinHandle<Result<LiveSession, Error>> {
    let handle = handle.clone();
    tokio::spawn(async move { handle.refresh().await })
}

/// A refresh token flow whose first answer waits until it is let go.
struct Rotating {
    handle: SessionHandle,
    presented: Arc<Mutex<Vec<Option<String>>>>,
    finish: Arc<Notify>,
}

impl Rotating {
    fn new() -> Self {
        let presented = Arc::new(Mutex::new(Vec::<Option<String>>::new()));
        let finish = Arc::new(Notify::new());
        let handle = {
            let (presented, finish) = (presented.clone(), finish.clone());
            SessionHandle::new(move |context: RefreshContext| {
                let token = context
                    .refresh_token()
                    .map(|token| token.expose().to_owned());
                let n = {
                    let mut presented = presented.lock().unwrap();
                    presented.push(token);
                    presented.len()
                };
                let finish = finish.clone();
                async move {
                    finish.notified().await;
                    Ok(session(&format!("T{n}")).with_refresh_token(format!("R{n}")))
                }
            })
        };
        Self {
            handle,
            presented,
            finish,
        }
    }

    async fn until_presented(&self, n: usize) {
        while self.presented.lock().unwrap().len() < n {
            tokio::task::yield_now().await;
        }
    }

    fn presented(&self) -> Vec<Option<String>> {
        self.presented.lock().unwrap().clone()
    }
}

fn some(tokens: &[&str]) -> Vec<Option<String>> {
    tokens
        .iter()
        .map(|token| Some((*token).to_owned()))
        .collect()
}

#[tokio::test]
async fn r03_a_session_without_refresh_token_keeps_the_newest() {
    let rotating = Rotating::new();
    let handle = &rotating.handle;
    handle.set(session("T0").with_refresh_token("R0"));
    for _ in 0..3 {
        rotating.finish.notify_one();
        handle.refresh().await.unwrap();
    }
    // From a cookie, say, which has no refresh token.
    handle.set(session("T8"));
    rotating.finish.notify_one();
    handle.refresh().await.unwrap();
    assert_eq!(rotating.presented(), some(&["R0", "R1", "R2", "R3"]));
}

#[tokio::test]
async fn r03_a_rotation_overtaken_by_set_is_not_lost() {
    let rotating = Rotating::new();
    let handle = &rotating.handle;
    handle.set(session("T0").with_refresh_token("R0"));
    let refresh = refreshing(handle);
    rotating.until_presented(1).await;
    // R0 is being exchanged while a copy of the session is set, R0 and all.
    handle.set(session("T8").with_refresh_token("R0"));
    assert_eq!(
        refresh.await.unwrap().unwrap().access_token().expose(),
        "T8"
    );
    // The next refresh waits for the exchange to end, and goes on from what it brought.
    let next = refreshing(handle);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        rotating.presented(),
        some(&["R0"]),
        "two exchanges at a time"
    );
    rotating.finish.notify_one();
    rotating.until_presented(2).await;
    rotating.finish.notify_one();
    let live = next.await.unwrap().unwrap();
    assert_eq!(live.access_token().expose(), "T2");
    assert_eq!(rotating.presented(), some(&["R0", "R1"]));
}

#[tokio::test]
async fn r03_a_replaced_grant_does_not_come_back() {
    let rotating = Rotating::new();
    let handle = &rotating.handle;
    handle.set(session("T0").with_refresh_token("R0"));
    let refresh = refreshing(handle);
    rotating.until_presented(1).await;
    // Another user logs in.
    handle.set(session("U0").with_refresh_token("U-R0"));
    refresh.await.unwrap().unwrap();
    rotating.finish.notify_one();
    rotating.finish.notify_one();
    let next = refreshing(handle);
    rotating.until_presented(2).await;
    rotating.finish.notify_one();
    next.await.unwrap().unwrap();
    assert_eq!(rotating.presented(), some(&["R0", "U-R0"]));
}

#[tokio::test]
async fn r03_a_rotated_token_of_an_unusable_session_is_kept() {
    let presented = Arc::new(Mutex::new(Vec::new()));
    let handle = {
        let presented = presented.clone();
        SessionHandle::new(move |context: RefreshContext| {
            presented
                .lock()
                .unwrap()
                .push(context.refresh_token().cloned());
            let n = presented.lock().unwrap().len();
            async move {
                let instance = if n == 1 {
                    "https://example.com"
                } else {
                    crate::support::INSTANCE
                };
                let session = Session::new("T1", instance).map_err(RefreshError::terminal)?;
                Ok(session.with_refresh_token(format!("R{n}")))
            }
        })
    };
    handle.set(session("T0").with_refresh_token("R0"));
    let error = handle.refresh().await.unwrap_err();
    assert_eq!(
        error.refresh_error().unwrap().kind(),
        RefreshErrorKind::UntrustedInstance
    );
    handle.refresh().await.unwrap();
    let expected = ["R0", "R1"].map(|token| Some(Secret::from(token)));
    assert_eq!(*presented.lock().unwrap(), expected);
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
    // The whole new session, to keep it.
    let Some(SessionState::Ready(live)) = states.changed().await else {
        panic!("no session");
    };
    assert_eq!(live.access_token().expose(), "T1");
    assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);

    handle.invalidate(live.generation());
    assert!(matches!(states.changed().await, Some(SessionState::Empty)));

    // A refresh that hangs.
    let failing = tokio::spawn({
        let handle = handle.clone();
        async move { handle.token().await }
    });
    let state = states.changed().await;
    assert!(matches!(state, Some(SessionState::Refreshing)));
    let Some(SessionState::BackingOff(error)) = states.changed().await else {
        panic!("no failure");
    };
    assert_eq!(error.kind(), RefreshErrorKind::TimedOut);
    assert!(failing.await.unwrap().is_err());

    // To look at the state is not to hold it.
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

#[tokio::test]
async fn allow_origin_holds_for_a_handle_taken_before() {
    let layer = SalesforceAuthLayer::new(|_: RefreshContext| async {
        Session::new("T1", "https://example.com").map_err(RefreshError::terminal)
    });
    let handle = layer.handle();
    assert!(handle.token().await.is_err());
    let _layer = layer.allow_origin("https://example.com").unwrap();
    assert!(handle.token().await.is_ok());
}

/// A refresh that was superseded hangs; the next one has to wait for it, out of its own time, and is cut off in the
/// middle of its exchange: the rotated token is lost and the old one presented again.
#[tokio::test(start_paused = true)]
async fn r03_a_refresh_after_a_superseded_one_has_its_full_time() {
    let presented = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&presented);
    let handle = SessionHandle::new(move |context: RefreshContext| {
        let log = Arc::clone(&log);
        async move {
            let n = log.lock().unwrap().len();
            log.lock()
                .unwrap()
                .push(context.refresh_token().map(|t| t.expose().to_owned()));
            if n == 0 {
                pending::<()>().await;
            }
            // The server has used up the token; its answer takes two seconds.
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(session(&format!("A{n}")).with_refresh_token(format!("R{n}")))
        }
    });
    let hanging = tokio::spawn({
        let handle = handle.clone();
        async move { handle.token().await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let generation = handle.set(session("T0").with_refresh_token("R-new-grant"));
    assert!(hanging.await.unwrap().is_ok());
    tokio::time::sleep(Duration::from_secs(1)).await;
    handle.invalidate(generation);
    let first = handle.token().await;
    let second = handle.token().await;
    let presented = presented.lock().unwrap().clone();
    assert!(
        first.is_ok(),
        "{first:?}, then {second:?}; presented: {presented:?}"
    );
}

/// What a superseded refresh rotated is to be seen by whoever persists what `subscribe` shows.
#[tokio::test(start_paused = true)]
async fn r03_a_subscriber_sees_a_superseded_refreshs_token() {
    let handle = SessionHandle::new(|_: RefreshContext| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(session("T1").with_refresh_token("R1"))
    });
    handle.set(session("T0").with_refresh_token("R0"));
    let states = handle.subscribe();
    let _refreshing = refreshing(&handle);
    tokio::time::sleep(Duration::from_millis(1)).await;
    handle.set(session("T0b")); // a login by other means, without a refresh token
    tokio::time::sleep(Duration::from_secs(5)).await;
    let seen = match states.state() {
        SessionState::Ready(live) => live.refresh_token().map(|t| t.expose().to_owned()),
        _ => None,
    };
    assert_eq!(seen.as_deref(), Some("R1"));
    assert_eq!(handle.refresh_token(), Some(Secret::from("R1")));
}

/// A refresh function that notes which refresh token it is given, and hangs the first time.
fn noting() -> (SessionHandle, Arc<Mutex<Vec<Option<String>>>>) {
    let presented = Arc::new(Mutex::new(Vec::new()));
    let log = presented.clone();
    let handle = SessionHandle::new(move |context: RefreshContext| {
        let token = context
            .refresh_token()
            .map(|token| token.expose().to_owned());
        let n = {
            let mut log = log.lock().unwrap();
            log.push(token);
            log.len()
        };
        async move {
            if n == 1 {
                pending::<()>().await;
            }
            // The server has used up the token by then; its answer takes a while.
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(session(&format!("T{n}")).with_refresh_token(format!("R{n}")))
        }
    });
    (handle, presented)
}

#[tokio::test(start_paused = true)]
async fn r03_a_refresh_superseded_before_it_began_spends_nothing() {
    let (handle, presented) = noting();
    handle.set(session("T0").with_refresh_token("R0"));
    let mut refresh = Box::pin(handle.refresh());
    assert!(futures_util::poll!(&mut refresh).is_pending());
    // Its task has not run yet.
    handle.set(session("T8").with_refresh_token("fresh"));
    assert_eq!(refresh.await.unwrap().access_token().expose(), "T8");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(*presented.lock().unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn r03_a_refresh_superseded_while_it_waits_spends_nothing() {
    let (handle, presented) = noting();
    let mut hanging = Box::pin(handle.token());
    assert!(futures_util::poll!(&mut hanging).is_pending());
    tokio::time::sleep(Duration::from_millis(1)).await;
    handle.invalidate(handle.set(session("T8").with_refresh_token("R0")));
    let mut waiting = Box::pin(handle.token());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    tokio::time::sleep(Duration::from_millis(1)).await;
    handle.set(session("T9").with_refresh_token("fresh"));
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(*presented.lock().unwrap(), [None]);
}

#[tokio::test(start_paused = true)]
async fn r03_no_token_call_is_cut_off_within_its_own_time() {
    let (handle, presented) = noting();
    for n in 0..2 {
        let mut superseded = Box::pin(handle.token());
        assert!(futures_util::poll!(&mut superseded).is_pending());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let session = session(&format!("S{n}"));
        handle.invalidate(handle.set(match n {
            0 => session.with_refresh_token("R0"),
            _ => session,
        }));
    }
    handle.token().await.unwrap();
    let mut presented = presented.lock().unwrap().clone();
    let calls = presented.len();
    presented.dedup();
    assert_eq!(
        presented.len(),
        calls,
        "a refresh token was presented twice"
    );
}

#[tokio::test(start_paused = true)]
async fn r27_a_session_of_another_org_gets_no_old_refresh_token() {
    let of = |org: &str, token: &str| {
        session(token).with_identity_url(format!("https://login.salesforce.com/id/{org}/005xx"))
    };
    let handle = SessionHandle::new(move |context: RefreshContext| async move {
        assert!(context.refresh_token().is_some());
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(of("00DA", "A1").with_refresh_token("RA1"))
    });
    handle.set(of("00DA", "A0").with_refresh_token("RA0"));
    let refresh = refreshing(&handle);
    tokio::time::sleep(Duration::from_millis(1)).await;
    handle.set(of("00DB", "B0"));
    assert_eq!(
        refresh.await.unwrap().unwrap().access_token().expose(),
        "B0"
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(handle.current().unwrap().refresh_token(), None);
    assert_eq!(handle.refresh_token(), None);
}
