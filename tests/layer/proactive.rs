//! Refreshing a session before it expires.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use tokio::time::advance;
use tower::Layer;
use tower_salesforce_auth::{
    RefreshContext, RefreshError, SalesforceAuthLayer, Session, SessionHandle,
    handle::{ProactiveRefresh, SessionHandleBuilder, SessionState},
    observer::RefreshReason,
    request::AuthOutcome,
};

use crate::support::{Api, Reauthentications, Refresher, get, send, session};

const HOUR: Duration = Duration::from_secs(3_600);

/// Builds a handle that starts with the session `T0`, and whose n-th refresh returns `T<n>`, or `fail(n)` if that is
/// `Some`. Also returns the reasons of its refreshes.
fn builder(
    fail: impl Fn(usize) -> Option<RefreshError> + Send + Sync + 'static,
) -> (SessionHandleBuilder, Arc<Mutex<Vec<RefreshReason>>>) {
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let builder = {
        let reasons = Arc::clone(&reasons);
        SessionHandle::builder(move |context: RefreshContext| {
            let mut reasons = reasons.lock().unwrap();
            reasons.push(context.reason());
            let n = reasons.len();
            let ended = fail(n).map_or_else(|| Ok(session(&format!("T{n}"))), Err);
            async { ended }
        })
    };
    (builder.initial_session(session("T0")), reasons)
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_proactive_refresh_starts_by_traffic_not_by_a_timer() {
    let api = Api::accepting("T0");
    let (builder, reasons) = builder(|_| None);
    let handle = builder
        .refresh_before_expiry(ProactiveRefresh::at(0.5).lifetime(HOUR))
        .build();
    let service = SalesforceAuthLayer::from(handle).layer(api.clone());
    advance(Duration::from_secs(1_700)).await;
    send(&service, get("/")).await.unwrap();
    settle().await;
    assert!(
        reasons.lock().unwrap().is_empty(),
        "a twentieth earlier at most"
    );
    advance(10 * HOUR).await;
    settle().await;
    assert!(
        reasons.lock().unwrap().is_empty(),
        "nothing is refreshed without a request"
    );

    let response = send(&service, get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.extensions().get::<AuthOutcome>().is_none());
    settle().await;
    api.accept("T1");
    send(&service, get("/")).await.unwrap();
    assert_eq!(api.tokens(), ["T0", "T0", "T1"]);
    assert_eq!(*reasons.lock().unwrap(), [RefreshReason::Proactive]);

    // The new session has a new lifetime.
    advance(Duration::from_secs(1_810)).await;
    send(&service, get("/")).await.unwrap();
    settle().await;
    assert_eq!(reasons.lock().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r23_requests_in_a_proactive_refresh_use_the_old_token() {
    let api = Api::accepting("T0");
    let refresher = Refresher::of(&api);
    let (builder, begun, finish) = refresher.gated();
    let handle = builder
        .refresh_before_expiry(ProactiveRefresh::at(1.0).lifetime(Duration::ZERO))
        .build();
    let service = SalesforceAuthLayer::from(handle.clone()).layer(api.clone());
    send(&service, get("/")).await.unwrap();
    begun.notified().await;
    let requests = (0..50).map(|_| {
        let service = service.clone();
        tokio::spawn(async move { send(&service, get("/")).await.unwrap().status() })
    });
    for status in futures_util::future::join_all(requests).await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!(api.tokens(), vec!["T0"; 51]);
    let mut states = handle.subscribe();
    assert!(matches!(states.state(), SessionState::Ready(_)));
    finish.notify_one();
    while handle.try_session().unwrap().access_token().expose() != "T1" {
        states.changed().await;
    }
    assert_eq!(refresher.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_proactive_refresh_is_retried_later() {
    let api = Api::accepting("T0");
    let (builder, reasons) = builder(|n| (n <= 2).then(|| RefreshError::transient("busy")));
    let handle = builder
        .refresh_before_expiry(ProactiveRefresh::at(0.5).lifetime(HOUR))
        .build();
    let service = SalesforceAuthLayer::from(handle.clone()).layer(api.clone());
    advance(HOUR / 2).await;
    for n in 1..=30 {
        let response = send(&service, get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        settle().await;
        assert_eq!(reasons.lock().unwrap().len(), 1 + (n - 1) / 30);
        advance(Duration::from_secs(1)).await;
    }
    advance(Duration::from_secs(60)).await;
    send(&service, get("/")).await.unwrap();
    settle().await;
    advance(Duration::from_secs(60)).await;
    send(&service, get("/")).await.unwrap();
    settle().await;
    assert_eq!(*reasons.lock().unwrap(), [RefreshReason::Proactive; 3]);
    let live = handle.try_session().unwrap();
    assert_eq!(live.access_token().expose(), "T3");
}

#[tokio::test(start_paused = true)]
async fn r10_a_terminal_proactive_failure_keeps_the_session() {
    let reauthentications = Reauthentications::default();
    let api = Api::accepting("T0");
    let (builder, reasons) = builder(|_| Some(RefreshError::terminal("the grant is dead")));
    let handle = builder
        .refresh_before_expiry(ProactiveRefresh::at(0.5).lifetime(HOUR))
        .observer(reauthentications.clone())
        .build();
    let service = SalesforceAuthLayer::from(handle).layer(api.clone());
    for _ in 0..10 {
        advance(HOUR).await;
        let response = send(&service, get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        settle().await;
    }
    api.accept("nothing");
    for _ in 0..10 {
        send(&service, get("/")).await.unwrap_err();
    }
    assert_eq!(*reasons.lock().unwrap(), [RefreshReason::Proactive]);
    assert_eq!(reauthentications.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sessions_own_lifetime_overrides_the_configured_one() {
    let jwt = |lifetime: u64| {
        let claims = format!(r#"{{"iat":1750000000,"exp":{}}}"#, 1_750_000_000 + lifetime);
        format!(
            "eyJhbGciOiJSUzI1NiJ9.{}.c2ln",
            URL_SAFE_NO_PAD.encode(claims)
        )
    };
    let instance = crate::support::INSTANCE;
    let given = ProactiveRefresh::at(0.5).lifetime(HOUR);
    for (session, proactive, seconds) in [
        (Session::new(jwt(600), instance).unwrap(), given, Some(300)),
        (
            session("T0").with_lifetime(Duration::from_secs(900)),
            given,
            Some(450),
        ),
        (session("T0"), given, Some(1_800)),
        (session("T0"), ProactiveRefresh::at(0.5), None),
        (
            session("T0"),
            ProactiveRefresh::at(f64::NAN).lifetime(HOUR),
            Some(3_600),
        ),
        (
            session("T0"),
            ProactiveRefresh::at(-1.0).lifetime(HOUR),
            Some(360),
        ),
    ] {
        let (builder, reasons) = builder(|_| None);
        let handle = builder
            .initial_session(session)
            .refresh_before_expiry(proactive)
            .build();
        let due = Duration::from_secs(seconds.unwrap_or(1_000_000));
        advance(due.mul_f64(0.94)).await;
        handle.session().await.unwrap();
        settle().await;
        assert!(reasons.lock().unwrap().is_empty());
        advance(due.mul_f64(0.07)).await;
        handle.session().await.unwrap();
        settle().await;
        assert_eq!(
            reasons.lock().unwrap().len(),
            usize::from(seconds.is_some())
        );
    }
}
