//! One refresh for all callers, and one replay for each of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, RefreshContext, RefreshError, ReplayBody, SalesforceAuthLayer,
    observer::RefreshReason,
    refresh::from_service,
    request::{AuthOutcome, NoRefresh, NoReplay, ReplaySkipped, SkipAuth},
};

use crate::support::{
    Answering, Api, EXPIRED, Refresher, all_together, counting, expired, get, kind, outcome, post,
    send, session, starting_with, text,
};

type ReqBody = ReplayBody<Full<Bytes>>;

#[tokio::test]
async fn a_good_answer_is_returned_untouched() {
    let api = Api::accepting("T0");
    let refresher = Refresher::of(&api);
    let service = refresher.layer().layer(api.clone());

    let response = send(&service, get("/services/data/")).await.unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.extensions().get::<AuthOutcome>().is_none());
    assert_eq!(text(response).await, "ok");
    assert_eq!((api.calls(), refresher.count()), (1, 0));
    assert_eq!(api.seen()[0].authorizations(), ["Bearer T0"]);
    assert!(api.seen()[0].headers["authorization"].is_sensitive());
}

#[tokio::test]
async fn r01_an_always_rejecting_server_costs_one_refresh() {
    let api = Api::accepting("nothing");
    let (layer, refreshes) = counting(|n| async move { Ok(session(&format!("T{n}"))) });
    let service = layer.layer(api.clone());

    let response = send(&service, get("/services/data/")).await.unwrap();

    assert_eq!((api.calls(), refreshes.load(Ordering::SeqCst)), (2, 1));
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["www-authenticate"], "Token");
    assert_eq!(outcome(&response).attempts(), 2);
    assert!(outcome(&response).refreshed());
    assert_eq!(
        outcome(&response).replay_skipped(),
        Some(ReplaySkipped::RefreshesExhausted)
    );
    assert_eq!(text(response).await, EXPIRED);
    assert_eq!(api.tokens(), ["T0", "T1"]);
}

#[tokio::test]
async fn r01_zero_refreshes_per_request_means_one_call() {
    let api = Api::accepting("nothing");
    let refresher = Refresher::of(&api);
    let service = refresher.layer().max_refreshes(0).layer(api.clone());

    let response = send(&service, get("/services/data/")).await.unwrap();

    assert_eq!((api.calls(), refresher.count()), (1, 0));
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(text(response).await, EXPIRED);
}

#[tokio::test]
async fn r01_more_refreshes_per_request_are_used_up_one_by_one() {
    let api = Api::accepting("nothing");
    let (layer, _) = counting({
        let api = api.clone();
        move |n| {
            // The API accepts the third token.
            if n == 3 {
                api.accept("T3");
            }
            async move { Ok(session(&format!("T{n}"))) }
        }
    });
    let service = layer.max_refreshes(4).layer(api.clone());

    let response = send(&service, post("/services/data/", "body"))
        .await
        .unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(outcome(&response).attempts(), 4);
    assert_eq!(outcome(&response).replay_skipped(), None);
    assert_eq!(api.tokens(), ["T0", "T1", "T2", "T3"]);
    assert!(api.seen().iter().all(|seen| seen.body == "body"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r02_a_thousand_concurrent_rejections_cost_one_refresh() {
    const CALLERS: usize = 1_000;
    for _ in 0..200 {
        let api = Api::accepting("nothing yet");
        let refresher = Refresher::of(&api);
        let service = refresher.layer().layer(all_together(&api, CALLERS));

        let mut callers = JoinSet::new();
        for n in 0..CALLERS {
            let service = service.clone();
            callers.spawn(async move {
                let response = send(&service, post("/services/data/", n.to_string())).await?;
                Ok::<_, BoxError>(response.status())
            });
        }
        let answers = callers.join_all().await;

        assert!(
            answers
                .iter()
                .all(|status| *status.as_ref().unwrap() == 200)
        );
        assert_eq!((refresher.count(), api.calls()), (1, 2 * CALLERS));
        let replayed = api.tokens().iter().filter(|token| *token == "T1").count();
        assert_eq!(replayed, CALLERS);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r02_a_failed_refresh_fails_all_waiters_alike() {
    const CALLERS: usize = 1_000;
    let api = Api::accepting("nothing");
    let (layer, refreshes) = counting(|_| async { Err(RefreshError::terminal("revoked")) });
    let service = layer.layer(all_together(&api, CALLERS));

    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let service = service.clone();
        callers.spawn(async move { send(&service, get("/services/data/")).await });
    }
    for answer in callers.join_all().await {
        let error = answer.unwrap_err();
        assert_eq!(kind(&error), Some(ErrorKind::Refresh));
        let refresh_error = error.downcast_ref::<Error>().unwrap().refresh_error();
        let cause = refresh_error.unwrap().causes().next().unwrap();
        assert_eq!(cause.to_string(), "revoked");
    }
    // Stragglers get the same failure, and start no refresh.
    assert_eq!(
        (refreshes.load(Ordering::SeqCst), api.calls()),
        (1, CALLERS)
    );
}

#[tokio::test(start_paused = true)]
async fn r05_a_straggler_is_replayed_with_the_current_session() {
    let api = Api::accepting("T0");
    let refresher = Refresher::of(&api);
    let inner = {
        let api = api.clone();
        service_fn(move |request: Request<ReqBody>| {
            let api = api.clone();
            async move {
                let is_late = request.uri().path() == "/late"
                    && request.headers()["authorization"] == "Bearer T0";
                if is_late {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                }
                api.oneshot(request).await.map_err(std::io::Error::other)
            }
        })
    };
    let service = refresher.layer().layer(inner);

    let late = tokio::spawn({
        let service = service.clone();
        async move { send(&service, get("/late")).await }
    });
    tokio::task::yield_now().await;
    api.accept("nothing");
    send(&service, get("/early")).await.unwrap();
    assert_eq!(refresher.count(), 1);

    let response = late.await.unwrap().unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(refresher.count(), 1);
    assert_eq!(outcome(&response).attempts(), 2);
    assert_eq!(api.tokens(), ["T0", "T1", "T0", "T1"]);
}

#[tokio::test(start_paused = true)]
async fn r15_a_request_may_time_out_while_its_refresh_goes_on() {
    let api = Api::accepting("nothing yet");
    let refresher = Refresher::of(&api);
    let layer = refresher.layer_with(|_| tokio::time::sleep(Duration::from_secs(5)));
    let service = layer.layer(api.clone());
    let hurried = ServiceBuilder::new()
        .timeout(Duration::from_millis(50))
        .service(service.clone());
    let started = Instant::now();

    let error = send(&hurried, get("/services/data/")).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>());
    assert!(started.elapsed() <= Duration::from_millis(52));

    sleep_until(started + Duration::from_millis(5_100)).await;
    let response = send(&service, get("/services/data/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.extensions().get::<AuthOutcome>().is_none());
    assert_eq!(refresher.count(), 1);
    assert_eq!(api.tokens(), ["T0", "T1"]);
}

#[tokio::test]
async fn r19_a_refresh_with_the_same_token_causes_no_replay() {
    let api = Api::accepting("nothing");
    let (layer, refreshes) = counting(|_| async { Ok(session("T0")) });
    let service = layer.layer(all_together(&api, 100));

    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let service = service.clone();
        callers.spawn(async move { send(&service, get("/services/data/")).await });
    }
    for answer in callers.join_all().await {
        let response = answer.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(
            outcome(&response).replay_skipped(),
            Some(ReplaySkipped::Unchanged)
        );
        assert_eq!(outcome(&response).attempts(), 1);
        assert_eq!(text(response).await, EXPIRED);
    }
    assert_eq!((api.calls(), refreshes.load(Ordering::SeqCst)), (100, 1));
}

#[tokio::test]
async fn r19_a_straggler_is_not_replayed_with_its_rejected_token() {
    let (layer, refreshes) = counting(|_| async { Ok(session("T0")) });
    let (release, held) = oneshot::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(Some(held)));
    let inner = service_fn(move |request: Request<ReqBody>| {
        let held = (request.uri().path() == "/late").then(|| held.lock().unwrap().take());
        async move {
            if let Some(Some(held)) = held {
                held.await.expect("a release");
            }
            Ok::<_, std::convert::Infallible>(expired())
        }
    });
    let service = layer.layer(inner);
    let late = tokio::spawn({
        let service = service.clone();
        async move { send(&service, get("/late")).await }
    });
    tokio::task::yield_now().await;
    send(&service, get("/early")).await.unwrap();
    release.send(()).unwrap();

    let response = late.await.unwrap().unwrap();

    assert_eq!(
        outcome(&response).replay_skipped(),
        Some(ReplaySkipped::Unchanged)
    );
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn r23_requests_during_a_refresh_wait_for_the_new_token() {
    let api = Api::accepting("nothing yet");
    let refresher = Refresher::of(&api);
    let (layer, started, finish) = refresher.gated_layer();
    let service = layer.layer(api.clone());
    let first = tokio::spawn({
        let service = service.clone();
        async move { send(&service, get("/first")).await }
    });
    started.notified().await;

    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let service = service.clone();
        callers.spawn(async move { send(&service, get("/during")).await });
    }
    // Every caller is polled, and waits.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(api.calls(), 1);
    finish.notify_one();

    for answer in callers.join_all().await {
        let response = answer.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.extensions().get::<AuthOutcome>().is_none());
    }
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(refresher.count(), 1);
    let during: Vec<_> = api
        .seen()
        .into_iter()
        .filter(|seen| seen.uri.path() == "/during")
        .map(|seen| seen.authorizations().concat())
        .collect();
    assert_eq!(during, ["Bearer T1"; 50]);
}

#[tokio::test]
async fn r23_requests_during_a_manual_refresh_use_the_old_token() {
    let api = Api::accepting("T0");
    let refresher = Refresher::of(&api);
    let (layer, started, finish) = refresher.gated_layer();
    let handle = layer.handle();
    let service = layer.layer(api.clone());
    let refresh = tokio::spawn(async move { handle.refresh().await });
    started.notified().await;

    for _ in 0..50 {
        let response = send(&service, get("/during")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    finish.notify_one();

    let live = refresh.await.unwrap().unwrap();
    assert_eq!(live.access_token().expose(), "T1");
    assert_eq!(api.tokens(), ["T0"; 50]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_first_login_runs_once_before_any_request_is_sent() {
    let api = Api::accepting("nothing yet");
    let refresher = Refresher::of(&api);
    let service = refresher.layer_without_session().layer(api.clone());

    let mut callers = JoinSet::new();
    for n in 0..200 {
        let service = service.clone();
        callers.spawn(async move { send(&service, post("/services/data/", n.to_string())).await });
    }
    for answer in callers.join_all().await {
        let response = answer.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.extensions().get::<AuthOutcome>().is_none());
    }
    assert_eq!((refresher.count(), api.calls()), (1, 200));
    assert_eq!(api.tokens(), vec!["T1"; 200]);
}

#[tokio::test]
async fn r26_a_rejection_of_a_fixed_session_is_returned() {
    let api = Api::accepting("nothing");
    let service = SalesforceAuthLayer::fixed(session("T0")).layer(api.clone());

    for _ in 0..2 {
        let response = send(&service, get("/services/data/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(
            outcome(&response).replay_skipped(),
            Some(ReplaySkipped::NotConfigured)
        );
        assert_eq!(text(response).await, EXPIRED);
    }
    assert_eq!(api.tokens(), ["T0", "T0"]);
}

#[tokio::test]
async fn requests_opt_out_of_auth_refresh_and_replay() {
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let service = refresher.layer().layer(api.clone());

    let mut request = get("/services/data/");
    request.extensions_mut().insert(SkipAuth);
    let response = send(&service, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.extensions().get::<AuthOutcome>().is_none());
    assert_eq!((api.calls(), refresher.count()), (1, 0));
    assert_eq!(
        api.seen()[0].uri,
        "https://example.my.salesforce.com/services/data/"
    );

    let mut request = get("/services/data/");
    request.extensions_mut().insert(NoRefresh);
    let response = send(&service, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!((api.calls(), refresher.count()), (2, 0));

    let mut request = get("/services/data/");
    request.extensions_mut().insert(NoReplay);
    let response = send(&service, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        outcome(&response).replay_skipped(),
        Some(ReplaySkipped::NotWanted)
    );
    assert!(outcome(&response).refreshed());
    assert_eq!((api.calls(), refresher.count()), (3, 1));

    let response = send(&service, get("/services/data/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((api.calls(), refresher.count()), (4, 1));
    assert_eq!(api.tokens(), ["", "T0", "T0", "T1"]);
}

#[tokio::test]
async fn a_tower_service_works_as_a_refresh_fn_with_its_layers() {
    let api = Api::accepting("T1");
    let readied = Arc::new(AtomicUsize::new(0));
    let login = {
        let readied = readied.clone();
        ServiceBuilder::new()
            .concurrency_limit(1)
            .map_request(move |context: RefreshContext| {
                readied.fetch_add(1, Ordering::SeqCst);
                context
            })
            .service(service_fn(|context: RefreshContext| async move {
                assert_eq!(context.reason(), RefreshReason::Rejected);
                assert_eq!(context.attempt(), 1);
                let previous = context.previous().expect("the rejected session");
                assert_eq!(previous.access_token().expose(), "T0");
                Ok::<_, RefreshError>(session("T1"))
            }))
    };
    let service = starting_with(session("T0"), from_service(login)).layer(api);

    let response = send(&service, get("/services/data/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(readied.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_service_error_keeps_its_kind() {
    let terminal = service_fn(|_: RefreshContext| async {
        Err::<tower_salesforce_auth::Session, _>(RefreshError::terminal("locked"))
    });
    let foreign = service_fn(|_: RefreshContext| async {
        Err::<tower_salesforce_auth::Session, _>(std::io::Error::other("unplugged"))
    });
    let inner = Answering(|_: Request<ReqBody>| expired());

    let service = SalesforceAuthLayer::new(from_service(terminal)).layer(inner.clone());
    let error = send(&service, get("/")).await.unwrap_err();
    let error = error
        .downcast_ref::<Error>()
        .unwrap()
        .refresh_error()
        .unwrap();
    assert!(error.is_terminal());

    let service = SalesforceAuthLayer::new(from_service(foreign)).layer(inner);
    let error = send(&service, get("/")).await.unwrap_err();
    let error = error
        .downcast_ref::<Error>()
        .unwrap()
        .refresh_error()
        .unwrap();
    assert!(!error.is_terminal());
    assert!(error.causes().next().unwrap().is::<std::io::Error>());
}

#[tokio::test]
async fn an_inner_service_error_passes_through_unchanged() {
    let inner = service_fn(|_: Request<ReqBody>| async {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::other("unplugged"))
    });
    let service = SalesforceAuthLayer::fixed(session("T0")).layer(inner);
    let error = send(&service, get("/")).await.unwrap_err();
    assert_eq!(
        error.downcast_ref::<std::io::Error>().unwrap().to_string(),
        "unplugged"
    );
}
