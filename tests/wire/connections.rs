//! Connections are reused, and headers are clean (R29).

use http::{HeaderValue, StatusCode, header::AUTHORIZATION};
use tokio::task::JoinSet;
use tower_salesforce_auth::{emulator::Org, request::AuthOutcome};

use crate::support::{ECHO, LIMITS, Protocol, client, echoed, get, in_memory, layer, post, send};

#[tokio::test]
async fn r29_a_hundred_replays_use_one_connection() {
    // Rejections have their usual body, or one as long as the peek.
    for error_body_size in [None, Some(64 * 1024)] {
        let org = Org::new();
        let _served = org.serve().await.unwrap();
        let grant = org.authorize();
        org.error_body_size(error_body_size);
        let client = client(&layer(&org, &grant), Protocol::Http1);
        for n in 1..=100 {
            org.expire_sessions();
            let (status, extensions, body) =
                send(&client, post(ECHO, in_memory(format!("body {n}"))))
                    .await
                    .unwrap();
            assert_eq!(status, StatusCode::OK);
            let outcome: &AuthOutcome = extensions.get().expect("an outcome");
            assert_eq!(outcome.attempts(), 2);
            assert_eq!(echoed(&body)["authorization_count"], 1);
            assert_eq!(echoed(&body)["body_length"], format!("body {n}").len());
        }
        let counters = org.counters();
        assert_eq!((counters.data_rejected, counters.data_accepted), (100, 100));
        assert_eq!(
            (counters.token_requests, counters.refresh_token_reuses),
            (100, 0)
        );
        assert_eq!(counters.requests_with_several_authorizations, 0);
        // There is one connection for the data, and one of the token client.
        assert_eq!(counters.connections, 2, "{error_body_size:?}");
    }
}

#[tokio::test]
async fn r29_a_larger_error_body_is_dropped_not_drained() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    // The body is larger than the socket buffers of both sides.
    org.error_body_size(16 * 1024 * 1024);
    let client = client(&layer(&org, &grant), Protocol::Http1);
    for n in 1..=3 {
        org.expire_sessions();
        let (status, ..) = send(&client, get(LIMITS)).await.unwrap();
        assert_eq!(status, StatusCode::OK);
        // A connection that is dropped inside a body cannot be reused.
        assert_eq!(org.counters().connections, 2 + n);
    }
}

#[tokio::test]
async fn r29_a_returned_rejection_has_its_whole_body() {
    for size in [0, 64 * 1024, 64 * 1024 + 1, 1024 * 1024] {
        for protocol in [Protocol::Http1, Protocol::H2] {
            let org = Org::new();
            let _served = org.serve().await.unwrap();
            let grant = org.authorize();
            org.error_body_size(size);
            org.expire_after(0);
            let client = client(&layer(&org, &grant), protocol);
            org.expire_sessions();
            let (status, _, body) = send(&client, get(LIMITS)).await.unwrap();
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            assert!(body.len() >= size && body.starts_with(b"[{\"message\":\"Session expired"));
            assert_eq!(org.counters().token_requests, 1);
        }
    }
}

#[tokio::test]
async fn r29_a_callers_own_authorization_is_sent_unchanged() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let (grant, own) = (org.authorize(), org.authorize());
    let client = client(&layer(&org, &grant), Protocol::Http1);
    let mut request = get(ECHO);
    let value = HeaderValue::from_str(&format!("OAuth {}", own.access_token())).unwrap();
    request.headers_mut().insert(AUTHORIZATION, value.clone());
    let (status, _, body) = send(&client, request).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(echoed(&body)["authorization_count"], 1);

    org.expire_sessions();
    let mut request = get(ECHO);
    request.headers_mut().insert(AUTHORIZATION, value);
    let (status, extensions, _) = send(&client, request).await.unwrap();
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(extensions.get::<AuthOutcome>().is_none());
    assert_eq!(org.counters().token_requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r02_a_thousand_concurrent_requests_over_h2_cost_one_refresh() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    let client = client(&layer(&org, &grant), Protocol::H2);
    send(&client, get(LIMITS)).await.unwrap();
    org.expire_sessions();
    let mut callers = JoinSet::new();
    for n in 0..1_000 {
        let client = client.clone();
        callers.spawn(async move {
            let text = format!("body {n}").repeat(1 + n % 50);
            let length = text.len();
            let (status, _, body) = send(&client, post(ECHO, in_memory(text))).await.unwrap();
            (status, echoed(&body)["body_length"] == length)
        });
    }
    let answers = callers.join_all().await;
    assert!(
        answers
            .iter()
            .all(|answer| *answer == (StatusCode::OK, true))
    );
    let counters = org.counters();
    assert_eq!(
        (counters.token_requests, counters.refresh_token_reuses),
        (1, 0)
    );
    assert_eq!(counters.data_accepted, 1_001);
    assert_eq!(counters.data_requests, 1_001 + counters.data_rejected);
    assert!(counters.data_rejected > 0);
}
