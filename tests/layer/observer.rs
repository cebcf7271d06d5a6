//! Events of an observer, and states of a subscription (R28).

use std::{
    future::{pending, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::{sync::Notify, task::JoinSet, time::advance};
use tower::{Layer, Service, ServiceExt};
use tower_salesforce_auth::{
    BoxError, LiveSession, RefreshContext, RefreshError, RefreshErrorKind, RefreshFn,
    SalesforceAuthLayer, Session, SessionHandle,
    emulator::Org,
    flow::RefreshToken,
    handle::SessionState,
    layer::OnRefreshFailure,
    observer::{
        Observer, RefreshDescription, RefreshFailed, RefreshReason, RefreshStarted,
        RefreshSucceeded, Replayed,
    },
    request::{AuthOutcome, NoReplay, ReplaySkipped},
};

use crate::support::{
    Api, Refresher, answering, app, builder, counting_builder, get, get_limits, send, session,
};

#[derive(Clone, Debug)]
enum Event {
    Started(RefreshStarted),
    Succeeded(RefreshSucceeded),
    Failed(RefreshFailed),
    Replayed(Replayed),
    Skipped(ReplaySkipped, AuthOutcome),
    Changed,
    Reauthenticate,
    LoggedOut,
}

/// Records the events of an observer.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Event>>>);

impl Recorder {
    fn push(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Recorder {
    fn refresh_started(&self, event: &RefreshStarted) {
        self.push(Event::Started(event.clone()));
    }

    fn refresh_succeeded(&self, event: &RefreshSucceeded) {
        self.push(Event::Succeeded(event.clone()));
    }

    fn refresh_failed(&self, event: &RefreshFailed) {
        self.push(Event::Failed(event.clone()));
    }

    fn replayed(&self, event: &Replayed) {
        self.push(Event::Replayed(event.clone()));
    }

    fn replay_skipped(&self, outcome: &AuthOutcome) {
        let reason = outcome.replay_skipped().expect("a reason");
        self.push(Event::Skipped(reason, outcome.clone()));
    }

    fn session_changed(&self, _session: &LiveSession) {
        self.push(Event::Changed);
    }

    fn reauthentication_required(&self, _failure: &RefreshError) {
        self.push(Event::Reauthenticate);
    }

    fn logged_out(&self) {
        self.push(Event::LoggedOut);
    }
}

/// A layer that starts with the session `T0`, whose n-th refresh, from 1, is `refresh(n)`, and whose events are recorded.
fn recorded_layer<F, Fut>(recorder: &Recorder, refresh: F) -> SalesforceAuthLayer
where
    F: Fn(usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Session, RefreshError>> + Send,
{
    let (builder, _) = counting_builder(refresh);
    builder.observer(recorder.clone()).build().into()
}

/// A refresh that waits for `finish`, and has a description.
struct Gated {
    refresher: Refresher,
    started: Arc<Notify>,
    finish: Arc<Notify>,
}

impl RefreshFn for Gated {
    async fn refresh(&self, _context: RefreshContext) -> Result<Session, RefreshError> {
        let n = self.refresher.begin();
        self.started.notify_one();
        self.finish.notified().await;
        self.refresher.complete(n)
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        Some(RefreshDescription::new("vault", "vault.example.com"))
    }
}

/// Runs one expiry with 20 waiters, with `pass` during the refresh. Returns the events.
async fn one_expiry(pass: impl AsyncFnOnce()) -> Vec<Event> {
    let api = Api::accepting("T0");
    let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let recorder = Recorder::default();
    // Shared, as one that several handles use.
    let handle = SessionHandle::builder(Arc::new(Gated {
        refresher: Refresher::of(&api),
        started: Arc::clone(&started),
        finish: Arc::clone(&finish),
    }))
    .initial_session(session("T0"))
    .observer(recorder.clone())
    .build();
    let layer = SalesforceAuthLayer::from(handle);
    let mut states = layer.handle().subscribe();
    let service = layer.layer(api.clone());

    assert_eq!(send(&service, get("/")).await.unwrap().status(), 200);
    assert!(recorder.take().is_empty(), "a good answer is no event");
    assert!(matches!(states.state(), SessionState::Ready(_)));

    api.accept("none");
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut service = service.clone();
        let ready: Result<_, BoxError> =
            ServiceExt::<Request<Full<Bytes>>>::ready(&mut service).await;
        waiting.push(Box::pin(ready.unwrap().call(get("/"))));
    }
    for response in &mut waiting {
        let is_pending = poll_fn(|cx| Poll::Ready(Pin::new(&mut *response).poll(cx).is_pending()));
        assert!(is_pending.await);
    }
    let state = states.changed().await.unwrap();
    assert!(matches!(state, SessionState::Refreshing));

    started.notified().await;
    pass().await;
    finish.notify_one();
    let mut callers: JoinSet<_> = waiting.into_iter().collect();
    while let Some(response) = callers.join_next().await {
        let response = response.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response
                .extensions()
                .get::<AuthOutcome>()
                .unwrap()
                .attempts(),
            2
        );
    }
    let state = states.changed().await.unwrap();
    assert!(matches!(state, SessionState::Ready(_)));
    recorder.take()
}

fn assert_one_refresh_and_20_replays(events: &[Event]) -> RefreshSucceeded {
    let [
        Event::Started(started),
        Event::Changed,
        Event::Succeeded(succeeded),
        replays @ ..,
    ] = events
    else {
        panic!("{events:?}");
    };
    assert_eq!(started.reason(), RefreshReason::Rejected);
    assert_eq!((started.attempt(), succeeded.attempt()), (1, 1));
    assert_eq!(succeeded.waiters(), 20);
    for description in [started.description(), succeeded.description()] {
        let description = description.unwrap();
        assert_eq!(description.grant(), "vault");
        assert_eq!(description.host(), "vault.example.com");
    }
    assert_eq!(replays.len(), 20);
    for replay in replays {
        let Event::Replayed(replayed) = replay else {
            panic!("{replay:?}");
        };
        assert_eq!(replayed.attempt(), 2);
        assert_eq!(replayed.generation(), succeeded.generation());
    }
    let shown = format!("{events:?}");
    assert!(!shown.contains("T0") && !shown.contains("T1"), "{shown}");
    succeeded.clone()
}

#[tokio::test(start_paused = true)]
async fn r28_one_expiry_is_one_refresh_and_a_replay_for_each_waiter() {
    let events = one_expiry(async || advance(Duration::from_secs(3)).await).await;
    let succeeded = assert_one_refresh_and_20_replays(&events);
    assert_eq!(succeeded.duration(), Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r28_one_expiry_on_many_threads_is_one_refresh() {
    let events = one_expiry(async || ()).await;
    assert_one_refresh_and_20_replays(&events);
}

#[tokio::test(start_paused = true)]
async fn r28_a_dropped_caller_does_not_count_as_a_waiter() {
    let api = Api::accepting("T1");
    let recorder = Recorder::default();
    let (builder, started, finish) = Refresher::of(&api).gated();
    let handle = builder.observer(recorder.clone()).build();
    let given_up = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await.map(drop) }
    });
    started.notified().await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    recorder.take();
    let mut states = handle.subscribe();
    finish.notify_one();
    while !matches!(states.changed().await.unwrap(), SessionState::Ready(_)) {}
    tokio::task::yield_now().await;
    let events = recorder.take();
    let [Event::Changed, Event::Succeeded(succeeded)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(succeeded.waiters(), 0);
    assert_eq!(succeeded.description(), None);
}

/// R28: the callers of a late refresh are gone, and those that wait for its successor are not its own.
#[tokio::test(start_paused = true)]
async fn r28_a_late_refresh_has_no_waiters() {
    let recorder = Recorder::default();
    let (builder, _) = counting_builder(|n| async move {
        if n == 1 {
            return Err(RefreshError::transient("busy").with_retry_after(Duration::from_secs(4)));
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(session("T2"))
    });
    let handle = builder
        .observer(recorder.clone())
        .refresh_timeout(Duration::from_secs(5))
        .build();
    handle.invalidate(handle.try_session().unwrap().generation());
    handle.session().await.unwrap_err();
    recorder.take();
    handle.session().await.unwrap();
    let events = recorder.take();
    let [Event::Changed, Event::Succeeded(succeeded)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(succeeded.waiters(), 0);
}

#[tokio::test(start_paused = true)]
async fn r28_a_failed_attempt_says_whether_another_follows() {
    let api = Api::accepting("T2");
    let recorder = Recorder::default();
    let service = recorded_layer(&recorder, |n| async move {
        match n {
            1 => Err(RefreshError::transient("busy")),
            _ => Ok(session("T2")),
        }
    })
    .layer(api);
    assert_eq!(send(&service, get("/")).await.unwrap().status(), 200);
    let events = recorder.take();
    let [
        Event::Started(first),
        Event::Failed(failed),
        Event::Started(second),
        Event::Changed,
        Event::Succeeded(succeeded),
        Event::Replayed(_),
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert!(failed.will_retry() && !failed.error().is_terminal());
    assert_eq!((first.attempt(), failed.attempt()), (1, 1));
    assert_eq!((second.attempt(), succeeded.attempt()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn r28_an_attempt_without_time_for_a_retry_is_the_last() {
    let recorder = Recorder::default();
    let service = recorded_layer(&recorder, |_| async {
        Err(RefreshError::transient("busy").with_retry_after(Duration::from_secs(60)))
    })
    .layer(Api::accepting("T1"));
    send(&service, get("/")).await.unwrap_err();
    let events = recorder.take();
    let [Event::Started(_), Event::Failed(failed)] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(!failed.will_retry() && !failed.error().is_terminal());
}

#[tokio::test(start_paused = true)]
async fn r28_a_terminal_failure_is_reported_once() {
    let recorder = Recorder::default();
    let service = recorded_layer(&recorder, |_| async {
        Err(RefreshError::terminal("the grant is dead"))
    })
    .on_refresh_failure(OnRefreshFailure::Respond)
    .layer(Api::accepting("T1"));
    for n in 0..3 {
        let answer: Result<_, BoxError> = send(&service, get("/")).await;
        let events = recorder.take();
        if n == 0 {
            let [
                Event::Started(_),
                Event::Failed(failed),
                Event::Reauthenticate,
                Event::Skipped(ReplaySkipped::RefreshFailed, outcome),
            ] = &events[..]
            else {
                panic!("{events:?}");
            };
            assert!(failed.error().is_terminal() && !failed.will_retry());
            let response = answer.unwrap();
            assert_eq!(response.extensions().get::<AuthOutcome>(), Some(outcome));
        } else {
            answer.unwrap_err();
            assert!(events.is_empty(), "{events:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r28_a_refresh_that_times_out_or_panics_is_reported() {
    for kind in [RefreshErrorKind::TimedOut, RefreshErrorKind::Panicked] {
        let recorder = Recorder::default();
        let service = recorded_layer(&recorder, move |_| async move {
            assert_eq!(kind, RefreshErrorKind::TimedOut);
            pending().await
        })
        .layer(Api::accepting("T1"));
        send(&service, get("/")).await.unwrap_err();
        let events = recorder.take();
        let [Event::Started(_), Event::Failed(failed)] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(failed.error().kind(), kind);
        assert!(!failed.will_retry());
    }
}

#[tokio::test(start_paused = true)]
async fn r28_a_skipped_replay_is_reported_with_its_reason() {
    let api = Api::accepting("T1");
    let recorder = Recorder::default();
    let builder = Refresher::of(&api).builder();
    let handle = builder.observer(recorder.clone()).build();
    let service = SalesforceAuthLayer::from(handle).layer(api);
    let mut request = get("/");
    request.extensions_mut().insert(NoReplay);
    let response = send(&service, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let events = recorder.take();
    let [
        Event::Started(_),
        Event::Changed,
        Event::Succeeded(_),
        Event::Skipped(ReplaySkipped::NotWanted, outcome),
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(response.extensions().get::<AuthOutcome>(), Some(outcome));
}

#[tokio::test(start_paused = true)]
async fn r28_a_logout_is_reported_once_and_ends_the_refresh() {
    let api = Api::accepting("T1");
    let recorder = Recorder::default();
    let (builder, started, finish) = Refresher::of(&api).gated();
    let handle = builder.observer(recorder.clone()).build();
    let refresh = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await.map(drop) }
    });
    started.notified().await;
    recorder.take();
    finish.notify_one();
    // This API cannot revoke, which does not matter here.
    let _ = handle.logout(api.clone()).await;
    let _ = handle.logout(api).await;
    refresh.await.unwrap().unwrap_err();
    let events = recorder.take();
    let [Event::LoggedOut, Event::Failed(failed)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(failed.error().kind(), RefreshErrorKind::Cancelled);
}

/// Panics at every event.
struct Panicking;

impl Observer for Panicking {
    fn refresh_started(&self, _event: &RefreshStarted) {
        panic!("started");
    }

    fn refresh_succeeded(&self, _event: &RefreshSucceeded) {
        panic!("succeeded");
    }

    fn replayed(&self, _event: &Replayed) {
        panic!("replayed");
    }

    fn replay_skipped(&self, _outcome: &AuthOutcome) {
        panic!("skipped");
    }

    fn session_changed(&self, _session: &LiveSession) {
        panic!("changed");
    }

    fn logged_out(&self) {
        panic!("logged out");
    }
}

#[tokio::test]
async fn r28_an_observer_that_panics_changes_nothing() {
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let handle = refresher.builder().observer(Panicking).build();
    let service = SalesforceAuthLayer::from(handle.clone()).layer(api.clone());
    assert_eq!(send(&service, get("/")).await.unwrap().status(), 200);
    assert_eq!(refresher.count(), 1);
    let mut request = get("/");
    request.extensions_mut().insert(NoReplay);
    api.accept("none");
    let response = send(&service, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let _ = handle.logout(api).await;
    let state = handle.subscribe().state();
    assert!(matches!(state, SessionState::LoggedOut));
}

// === Sessions ===

/// The sessions that were reported.
#[derive(Clone, Default)]
struct Sessions(Arc<Mutex<Vec<LiveSession>>>);

impl Observer for Sessions {
    fn session_changed(&self, session: &LiveSession) {
        self.0.lock().unwrap().push(session.clone());
    }
}

#[tokio::test]
async fn an_observer_gets_every_session_before_it_is_used() {
    let org = Org::new();
    let kept = Sessions::default();
    let handle = builder(&org).observer(kept.clone()).build();
    let layer = SalesforceAuthLayer::from(handle.clone());
    for count in 1..=3 {
        org.expire_sessions();
        get_limits(&layer, &org).await.unwrap();
        let kept = kept.0.lock().unwrap();
        assert_eq!(kept.len(), count);
        let current = handle.try_session().unwrap();
        let last = kept.last().unwrap();
        assert_eq!(last.generation(), current.generation());
        assert_eq!(last.refresh_token(), current.refresh_token());
        assert_eq!(last.organization_id(), Some("00Dxx0000001gEFEAY"));
    }
    let session = Session::new("00Dxx!set", &org.instance_url()).unwrap();
    handle.set(session);
    assert_eq!(
        kept.0.lock().unwrap()[3].access_token().expose(),
        "00Dxx!set"
    );
}

#[tokio::test]
async fn an_observer_that_panics_or_uses_the_handle_is_harmless() {
    struct Curious(Arc<OnceLock<SessionHandle>>);

    impl Observer for Curious {
        fn session_changed(&self, session: &LiveSession) {
            let handle = self.0.get().unwrap();
            assert_eq!(
                handle.try_session().unwrap().generation(),
                session.generation()
            );
            handle.refresh_token().unwrap();
            panic!("after all");
        }
    }

    let org = Org::new();
    let curious = Arc::new(OnceLock::new());
    let handle = builder(&org).observer(Curious(curious.clone())).build();
    curious.set(handle.clone()).unwrap();
    let layer = SalesforceAuthLayer::from(handle);
    org.expire_sessions();
    assert_eq!(get_limits(&layer, &org).await.unwrap().0, StatusCode::OK);
}

/// The token is reported although there is no session: no older token may still work.
#[tokio::test]
async fn r03_an_observer_gets_a_refresh_token_without_a_session() {
    let body = r#"{"access_token":["A1"],"refresh_token":"R1","instance_url":"https://example.my.salesforce.com"}"#;
    let client = answering(200, &[], body);
    let org = Org::new();
    let kept = Sessions::default();
    let session = Session::new("00Dxx!AQ", &org.instance_url()).unwrap();
    let handle = SessionHandle::builder(RefreshToken::new(client, app(&org), "R0"))
        .initial_session(session)
        .observer(kept.clone())
        .build();
    handle.refresh().await.unwrap_err();
    let kept = kept.0.lock().unwrap();
    assert_eq!(kept[0].refresh_token().unwrap().expose(), "R1");
    assert_eq!(kept[0].access_token().expose(), "00Dxx!AQ");
}
