//! Terminal failures (R10), transient failures (R11), and useless refreshes (R12, R19).

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use tokio::time::{Instant, advance};
use tower::Layer;
use tower_salesforce_auth::{
    Error, ErrorKind, RefreshContext, RefreshError, ReplayBody, SalesforceAuthLayer, SessionHandle,
    handle::{SessionHandleBuilder, SessionState},
    layer::OnRefreshFailure,
    request::{AuthOutcome, ReplaySkipped},
};

use crate::support::{
    Api, Reauthentications, counting, expired, get, send, session, starting_with,
};

/// Builds a handle that starts with the session `T0`, and whose n-th refresh, from 0, ends with `plan(n)`. Also returns
/// the times at which refreshes began.
fn planned(
    plan: impl Fn(usize) -> Result<&'static str, RefreshError> + Send + Sync + 'static,
) -> (SessionHandleBuilder, Arc<Mutex<Vec<Instant>>>) {
    let began = Arc::new(Mutex::new(Vec::new()));
    let builder = {
        let began = Arc::clone(&began);
        SessionHandle::builder(move |_: RefreshContext| {
            let mut began = began.lock().unwrap();
            let ended = plan(began.len()).map(session);
            began.push(Instant::now());
            async { ended }
        })
    };
    (builder.initial_session(session("T0")), began)
}

#[tokio::test(start_paused = true)]
async fn r10_a_terminal_failure_latches_until_set_or_reset() {
    let api = Api::accepting("T1");
    let (builder, began) = planned(|_| Err(RefreshError::terminal("the grant is dead")));
    let reauthentications = Reauthentications::default();
    let handle = builder.observer(reauthentications.clone()).build();
    let service = SalesforceAuthLayer::from(handle.clone()).layer(api.clone());

    for _ in 0..1_000 {
        let before = Instant::now();
        let error = send(&service, get("/")).await.unwrap_err();
        let error: &Error = error.downcast_ref().unwrap();
        assert_eq!(error.kind(), ErrorKind::Refresh);
        let cause = error.refresh_error().unwrap().causes().next().unwrap();
        assert_eq!(cause.to_string(), "the grant is dead");
        assert_eq!(before.elapsed(), Duration::ZERO);
        advance(Duration::from_millis(600)).await;
    }
    assert_eq!(began.lock().unwrap().len(), 1);
    assert_eq!(reauthentications.count(), 1);
    let state = handle.subscribe().state();
    assert!(matches!(state, SessionState::ReauthenticationRequired(_)));

    // A reset allows one more refresh.
    handle.reset();
    assert!(matches!(handle.subscribe().state(), SessionState::Empty));
    for _ in 0..10 {
        send(&service, get("/")).await.unwrap_err();
    }
    assert_eq!(began.lock().unwrap().len(), 2);
    assert_eq!(reauthentications.count(), 2);

    // A session that is set serves until it expires, and then allows one more refresh.
    handle.set(session("T1"));
    let response = send(&service, get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    api.accept("nothing");
    send(&service, get("/")).await.unwrap_err();
    assert_eq!(began.lock().unwrap().len(), 3);
}

/// R42: a terminal failure while a session is in use is shown once that session is rejected.
#[tokio::test]
async fn r42_a_latched_failure_shows_once_no_session_serves() {
    let (builder, began) = planned(|_| Err(RefreshError::terminal("the grant is dead")));
    let handle = builder.build();
    handle.refresh().await.unwrap_err();
    let states = handle.subscribe();
    assert!(matches!(states.state(), SessionState::Ready(_)));

    handle.invalidate(handle.try_session().unwrap().generation());
    let state = states.state();
    assert!(matches!(state, SessionState::ReauthenticationRequired(_)));
    handle.session().await.unwrap_err();
    assert_eq!(began.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn r10_a_failed_manual_refresh_keeps_the_latch() {
    let api = Api::accepting("T1");
    let (builder, began) = planned(|n| match n {
        0 => Err(RefreshError::terminal("wrong password")),
        1 => Err(RefreshError::transient("unplugged")),
        _ => Ok("T1"),
    });
    let handle = builder.build();
    let service = SalesforceAuthLayer::from(handle.clone()).layer(api);
    send(&service, get("/")).await.unwrap_err();
    handle.refresh().await.unwrap_err();
    let tried = began.lock().unwrap().len();
    send(&service, get("/")).await.unwrap_err();
    assert_eq!(began.lock().unwrap().len(), tried, "it is still latched");
    handle.refresh().await.unwrap();
    let response = send(&service, get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn r11_spaced_retries_recover_every_waiter() {
    for retry_after in [None, Some(Duration::from_secs(7))] {
        let api = Api::accepting("T1");
        let (builder, began) = planned(move |n| {
            if n == 2 {
                return Ok("T1");
            }
            let failure = RefreshError::transient("busy");
            Err(match retry_after {
                Some(delay) => failure.with_retry_after(delay),
                None => failure,
            })
        });
        let first = session("T0").with_refresh_token("R0");
        let handle = builder.initial_session(first).build();
        let service = SalesforceAuthLayer::from(handle.clone()).layer(api);
        let requests = (0..50).map(|_| send(&service, get("/")));
        for response in futures_util::future::join_all(requests).await {
            assert_eq!(response.unwrap().status(), StatusCode::OK);
        }
        let began = began.lock().unwrap();
        let [first, second, third] = began[..] else {
            panic!("{} attempts", began.len());
        };
        let spaces = [second - first, third - second];
        match retry_after {
            // Equal to the second: tokio's clock ticks by the millisecond.
            Some(delay) => assert!(
                spaces
                    .iter()
                    .all(|space| space.as_secs() == delay.as_secs())
            ),
            None => {
                assert!(spaces[0] >= Duration::from_millis(250), "{spaces:?}");
                assert!(spaces[1] >= Duration::from_millis(500), "{spaces:?}");
                assert!(spaces[1] <= Duration::from_millis(1_010), "{spaces:?}");
            }
        }
        assert_eq!(handle.refresh_token().unwrap().expose(), "R0");
    }
}

#[tokio::test(start_paused = true)]
async fn r11_a_retry_after_beyond_the_timeout_is_honoured() {
    let hour = Duration::from_secs(3_600);
    let api = Api::accepting("T1");
    let (builder, began) = planned(move |n| match n {
        0 => Err(RefreshError::transient("login rate exceeded").with_retry_after(hour)),
        _ => Ok("T1"),
    });
    let service = SalesforceAuthLayer::from(builder.build()).layer(api);
    for _ in 0..100 {
        let before = Instant::now();
        send(&service, get("/")).await.unwrap_err();
        assert_eq!(before.elapsed(), Duration::ZERO);
        advance(Duration::from_secs(35)).await;
    }
    assert_eq!(began.lock().unwrap().len(), 1);
    // The rest of the hour is shorter than the refresh timeout.
    advance(Duration::from_secs(80)).await;
    let response = send(&service, get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let began = began.lock().unwrap();
    assert!(began[1] - began[0] >= hour);
}

#[tokio::test(start_paused = true)]
async fn r12_refreshes_with_rejected_tokens_become_rare() {
    const TOKENS: [&str; 14] = [
        "T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12", "T13", "T14",
    ];
    let api = Api::accepting("nothing");
    let (builder, began) = planned(|n| Ok(TOKENS[n]));
    let service = SalesforceAuthLayer::from(builder.build()).layer(api.clone());
    let started = Instant::now();
    for _ in 0..1_000 {
        let before = Instant::now();
        let response = send(&service, get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(before.elapsed(), Duration::ZERO);
        let outcome = response.extensions().get::<AuthOutcome>().unwrap();
        assert!(matches!(
            outcome.replay_skipped(),
            Some(ReplaySkipped::RefreshesExhausted | ReplaySkipped::Fruitless)
        ));
        advance(Duration::from_millis(600)).await;
    }
    assert!(started.elapsed() >= Duration::from_secs(600));
    let refreshes = began.lock().unwrap().len();
    assert!((5..=10).contains(&refreshes), "{refreshes}");

    // One success resets the breaker.
    api.accept(TOKENS[refreshes]);
    advance(Duration::from_secs(300)).await;
    for expected in [refreshes + 1, refreshes + 2] {
        let response = send(&service, get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(began.lock().unwrap().len(), expected);
        api.accept(TOKENS[expected]);
        advance(Duration::from_millis(1)).await;
    }
}

/// The accepted request of a waiter does not confirm the token: its endpoint may accept every token. Otherwise each
/// refusal of the other endpoint would cost a login.
#[tokio::test(start_paused = true)]
async fn r12_a_waiter_at_another_endpoint_confirms_no_token() {
    let (layer, logins) = counting(|n| async move { Ok(session(&format!("T{n}"))) });
    let service = layer.layer(tower::service_fn(
        async |request: http::Request<ReplayBody<Full<Bytes>>>| {
            Ok::<_, Infallible>(match request.uri().path() {
                "/refusing" => expired(),
                _ => http::Response::new(Full::default()),
            })
        },
    ));
    for _ in 0..100 {
        // The second request comes after the rejection of the first, and before the refresh begins.
        let (refused, waited) = tokio::join!(
            biased;
            send(&service, get("/refusing")),
            send(&service, get("/elsewhere")),
        );
        assert_eq!(refused.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(waited.unwrap().status(), StatusCode::OK);
        advance(Duration::from_millis(100)).await;
    }
    let logins = logins.load(Ordering::SeqCst);
    assert!(logins <= 5, "{logins} logins in some ten seconds");
}

/// The other endpoints accept every token.
#[tokio::test(start_paused = true)]
async fn r12_a_refusing_endpoint_costs_no_login_per_request() {
    let (layer, logins) = counting(|n| async move { Ok(session(&format!("T{n}"))) });
    let service = layer.layer(tower::service_fn(
        async |request: http::Request<ReplayBody<Full<Bytes>>>| {
            let mut response = http::Response::new(Full::<Bytes>::default());
            if request.uri().path() == "/refused" {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            Ok::<_, std::convert::Infallible>(response)
        },
    ));
    for n in 0..1_000 {
        let path = if n % 2 == 0 { "/refused" } else { "/" };
        let response = send(&service, get(path)).await.unwrap();
        assert_eq!(response.status() == StatusCode::OK, n % 2 == 1);
        advance(Duration::from_millis(100)).await;
    }
    let logins = logins.load(Ordering::SeqCst);
    assert!(logins <= 8, "{logins}");
}

/// One endpoint refuses every token. The others accept a token for a minute, as with a short-lived JWT.
#[tokio::test(start_paused = true)]
async fn r12_a_refusing_endpoint_lets_others_refresh() {
    let issued = Arc::new(Mutex::new(Vec::new()));
    let layer = {
        let issued = Arc::clone(&issued);
        starting_with(session("T0"), move |_: RefreshContext| {
            let mut issued = issued.lock().unwrap();
            issued.push(Instant::now());
            let token = format!("T{}", issued.len());
            async move { Ok(session(&token)) }
        })
    };
    let api = {
        let issued = Arc::clone(&issued);
        tower::service_fn(move |request: http::Request<ReplayBody<Full<Bytes>>>| {
            let issued = issued.lock().unwrap();
            let token = request.headers()["authorization"].to_str().unwrap();
            let is_latest = token == format!("Bearer T{}", issued.len());
            let is_young = issued
                .last()
                .is_some_and(|at| at.elapsed() < Duration::from_secs(60));
            let mut response = http::Response::new(Full::<Bytes>::default());
            if request.uri().path() == "/refused" || !is_latest || !is_young {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            async { Ok::<_, std::convert::Infallible>(response) }
        })
    };
    let service = layer.layer(api);
    let mut rejected = 0;
    for _ in 0..600 {
        // Both requests are sent when the session has expired.
        let [refused, good] = futures_util::future::join_all(
            [get("/refused"), get("/")].map(|request| send(&service, request)),
        )
        .await
        .try_into()
        .unwrap();
        assert_eq!(refused.unwrap().status(), StatusCode::UNAUTHORIZED);
        rejected += usize::from(good.unwrap().status() != StatusCode::OK);
        advance(Duration::from_secs(1)).await;
    }
    // Sometimes the good endpoint is rejected while the breaker is open because of the other.
    assert!(rejected <= 60, "{rejected}");
}

#[tokio::test(start_paused = true)]
async fn r19_a_refresh_with_the_same_token_counts_as_useless() {
    let api = Api::accepting("nothing");
    let (builder, began) = planned(|_| Ok("T0"));
    let service = SalesforceAuthLayer::from(builder.build()).layer(api);
    let mut outcomes = Vec::new();
    for _ in 0..10 {
        let response = send(&service, get("/")).await.unwrap();
        let outcome = response.extensions().get::<AuthOutcome>().unwrap();
        outcomes.push(outcome.replay_skipped().unwrap());
    }
    assert_eq!(began.lock().unwrap().len(), 1);
    assert_eq!(outcomes[0], ReplaySkipped::Unchanged);
    assert!(
        outcomes[1..]
            .iter()
            .all(|skipped| *skipped == ReplaySkipped::Fruitless)
    );
}

#[tokio::test]
async fn on_refresh_failure_decides_between_error_and_rejection() {
    let api = Api::accepting("T1");
    let (builder, _) = planned(|_| Err(RefreshError::terminal("the grant is dead")));
    let layer = SalesforceAuthLayer::from(builder.build());
    let respond = layer
        .clone()
        .on_refresh_failure(OnRefreshFailure::Respond)
        .layer(api.clone());
    let fail = layer.layer(api);
    let response = send(&respond, get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let outcome = response.extensions().get::<AuthOutcome>().unwrap();
    assert_eq!(outcome.replay_skipped(), Some(ReplaySkipped::RefreshFailed));
    assert!(!outcome.refreshed());
    assert!(send(&fail, get("/")).await.is_err());
    // Without a session nothing is sent, so there is no rejection to return.
    assert!(send(&respond, get("/")).await.is_err());
}
