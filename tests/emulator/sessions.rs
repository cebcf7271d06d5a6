//! When a session is accepted, and how it is rejected.

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body_util::channel::Channel;
use serde_json::Value;
use tokio_test::assert_pending;
use tokio_test::assert_ready;
use tokio_test::task;
use tower::ServiceExt;
use tower_salesforce_auth::BoxError;
use tower_salesforce_auth::emulator::Org;

use crate::support::{
    ECHO, LIMITS, SESSION_EXPIRED, bearer, bytes_of, empty, get_limits, json_of, refresh, send,
};

#[tokio::test]
async fn an_invalid_session_meets_the_401_of_salesforce() {
    let org = Org::new();
    let ended = org.authorize();
    org.expire_sessions();
    let elsewhere = Org::new().authorize();
    let good = org.authorize();
    let requests = [
        Request::get(LIMITS),
        Request::get(LIMITS).header(AUTHORIZATION, bearer("00Dxx0000001gEF!AQEAQunknown")),
        Request::get(LIMITS).header(AUTHORIZATION, bearer(ended.access_token())),
        Request::get(LIMITS).header(AUTHORIZATION, bearer(elsewhere.access_token())),
        Request::get(LIMITS).header(AUTHORIZATION, format!("Basic {}", good.access_token())),
        Request::get(LIMITS)
            .header(AUTHORIZATION, bearer(good.access_token()))
            .header(AUTHORIZATION, bearer(good.access_token())),
    ];
    let count = requests.len() as u64;
    for (number, request) in (1_u64..).zip(requests) {
        let response = send(&org, request.body(empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let id = format!("{number:032x}");
        let expected: HeaderMap = [
            ("content-type", "application/json;charset=UTF-8"),
            (
                "cache-control",
                "no-cache,must-revalidate,max-age=0,no-store,private",
            ),
            (
                "strict-transport-security",
                "max-age=63072000; includeSubDomains",
            ),
            ("x-content-type-options", "nosniff"),
            ("x-robots-tag", "none"),
            ("www-authenticate", "Token"),
            ("server", "sfdcedge"),
            ("x-sfdc-request-id", &id),
            ("x-request-id", &id),
        ]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
        assert_eq!(*response.headers(), expected);
        assert_eq!(bytes_of(response).await, SESSION_EXPIRED);
    }
    let counters = org.counters();
    assert_eq!(counters.data_requests, count);
    assert_eq!(counters.data_rejected, count);
    assert_eq!(counters.data_accepted, 0);
    assert_eq!(counters.requests_with_several_authorizations, 1);
}

#[tokio::test]
async fn the_401_is_xml_for_clients_that_accept_xml() {
    let request = Request::get(LIMITS).header("accept", "application/xml");
    let response = send(&Org::new(), request.body(empty()).unwrap()).await;
    let content_type = &response.headers()["content-type"];
    assert_eq!(content_type, "application/xml;charset=UTF-8");
    let body = bytes_of(response).await;
    let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Errors><Error>\
                    <errorCode>INVALID_SESSION_ID</errorCode>\
                    <message>Session expired or invalid</message></Error></Errors>";
    assert_eq!(body, expected);
}

#[tokio::test]
async fn both_authorization_schemes_are_accepted() {
    let org = Org::new();
    let grant = org.authorize();
    for scheme in ["Bearer", "OAuth"] {
        let value = format!("{scheme} {}", grant.access_token());
        let request = Request::get(LIMITS).header(AUTHORIZATION, value);
        let response = send(&org, request.body(empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK, "{scheme}");
    }
    assert_eq!(org.counters().data_accepted, 2);
}

#[tokio::test]
async fn a_session_expires_after_its_number_of_calls() {
    let org = Org::new();
    let endless = org.authorize();
    org.expire_after(2);
    let grant = org.authorize();
    assert_eq!(get_limits(&org, grant.access_token()).await, StatusCode::OK);
    assert_eq!(get_limits(&org, grant.access_token()).await, StatusCode::OK);
    let status = get_limits(&org, grant.access_token()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    // A refreshed session has two calls again.
    let next = json_of(refresh(&org, grant.refresh_token()).await).await;
    let access_token = next["access_token"].as_str().unwrap();
    assert_eq!(get_limits(&org, access_token).await, StatusCode::OK);

    org.expire_after(None);
    let grant = org.authorize();
    for token in [endless.access_token(), grant.access_token()] {
        for _ in 0..3 {
            assert_eq!(get_limits(&org, token).await, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn the_body_of_a_401_can_be_large_and_is_still_json() {
    let org = Org::new();
    org.error_body_size(100_000);
    let request = Request::get(LIMITS).body(empty()).unwrap();
    let body = bytes_of(send(&org, request).await).await;
    assert_eq!(body.len(), 100_000);
    let value: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(value[0]["errorCode"], "INVALID_SESSION_ID");

    org.error_body_size(None);
    let request = Request::get(LIMITS).body(empty()).unwrap();
    let body = bytes_of(send(&org, request).await).await;
    assert_eq!(body, SESSION_EXPIRED);
}

#[tokio::test]
async fn a_401_waits_for_the_end_of_the_request_body() {
    let org = Org::new();
    let (mut sender, body) = Channel::<Bytes>::new(1);
    let mut call = task::spawn(org.clone().oneshot(Request::post(ECHO).body(body).unwrap()));
    assert_pending!(call.poll());
    sender.send_data(Bytes::from("more")).await.unwrap();
    assert_pending!(call.poll());
    drop(sender);
    let response = assert_ready!(call.poll()).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_early_401_reads_only_as_much_as_set() {
    let org = Org::new();
    org.answer_early(6);
    let (mut sender, body) = Channel::<Bytes>::new(1);
    let mut call = task::spawn(org.clone().oneshot(Request::post(ECHO).body(body).unwrap()));
    sender.send_data(Bytes::from("four")).await.unwrap();
    assert_pending!(call.poll());
    sender.send_data(Bytes::from("more")).await.unwrap();
    let response = assert_ready!(call.poll()).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);

    org.answer_early(0);
    let body = Channel::<Bytes>::new(1).1;
    let mut call = task::spawn(org.clone().oneshot(Request::post(ECHO).body(body).unwrap()));
    let response = assert_ready!(call.poll()).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);

    // An early answer is for rejections only.
    let grant = org.authorize();
    let request = Request::post(ECHO).header(AUTHORIZATION, bearer(grant.access_token()));
    let (sender, body) = Channel::<Bytes>::new(1);
    let mut call = task::spawn(org.clone().oneshot(request.body(body).unwrap()));
    assert_pending!(call.poll());
    drop(sender);
    assert_eq!(assert_ready!(call.poll()).unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_failing_request_body_fails_the_call() {
    let org = Org::new();
    let (sender, body) = Channel::<Bytes, BoxError>::new(1);
    sender.abort("the body broke".into());
    let error = org
        .oneshot(Request::post(ECHO).body(body).unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "the body broke");
}
