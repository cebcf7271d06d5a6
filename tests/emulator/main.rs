//! The emulated org, seen through its public surface: without a socket, and over loopback.

mod bulk;
mod controls;
mod device;
mod grants;
mod ingest;
mod soap;
mod tokens;
mod web_server;

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service, ServiceExt};
use tower_salesforce_auth::BoxError;
use tower_salesforce_auth::emulator::{Fault, Grant, Org, ResponseFuture};

// === the token endpoint ===

#[tokio::test]
async fn a_refresh_answers_with_the_fields_and_headers_of_salesforce() {
    let org = Org::new();
    let grant = org.authorize();
    let response = refresh(&org, grant.refresh_token()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers();
    assert_eq!(headers["content-type"], "application/json;charset=UTF-8");
    assert_eq!(headers["cache-control"], "no-store");

    let body = json_of(response).await;
    let access_token = body["access_token"].as_str().unwrap();
    assert!(access_token.starts_with("00Dxx0000001gEF!AQEAQ"));
    assert_ne!(access_token, grant.access_token());
    let refresh_token = body["refresh_token"].as_str().unwrap();
    assert!(refresh_token.starts_with("5Aep861"));
    assert_ne!(refresh_token, grant.refresh_token());
    assert_eq!(body["instance_url"], org.instance_url());
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["scope"], "refresh_token api");
    // The grant took the first number, and every token is a second later than the one before.
    assert_eq!(body["issued_at"], "1750000001000");
    let id = format!(
        "{}/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS",
        org.login_url()
    );
    assert_eq!(body["id"], id);
    assert_eq!(body["signature"].as_str().map(str::len), Some(44));
    assert_eq!(body.as_object().unwrap().len(), 8);

    assert_eq!(get_limits(&org, access_token).await, StatusCode::OK);
    assert_eq!(org.counters().token_requests, 1);
    assert_eq!(org.counters().tokens_issued, 1);
    assert_eq!(org.counters().token_refusals, 0);
}

#[tokio::test]
async fn without_rotation_the_refresh_token_stays() {
    let org = Org::new();
    org.rotate_refresh_tokens(false);
    let grant = org.authorize();
    for _ in 0..2 {
        let body = json_of(refresh(&org, grant.refresh_token()).await).await;
        assert!(body["access_token"].is_string());
        assert_eq!(body.get("refresh_token"), None);
    }
}

#[tokio::test]
async fn reuse_of_a_rotated_out_refresh_token_revokes_the_family() {
    let org = Org::new();
    let grant = org.authorize();
    let bystander = org.authorize();
    let next = json_of(refresh(&org, grant.refresh_token()).await).await;

    let reused = refresh(&org, grant.refresh_token()).await;
    assert_refused(reused, "invalid_grant", "expired access/refresh token").await;
    assert_eq!(org.counters().refresh_token_reuses, 1);

    let current = next["refresh_token"].as_str().unwrap();
    let after = refresh(&org, current).await;
    assert_refused(after, "invalid_grant", "expired access/refresh token").await;
    let unauthorized = StatusCode::UNAUTHORIZED;
    assert_eq!(get_limits(&org, grant.access_token()).await, unauthorized);
    let access_token = next["access_token"].as_str().unwrap();
    assert_eq!(get_limits(&org, access_token).await, unauthorized);

    // The other family goes on.
    assert_eq!(
        get_limits(&org, bystander.access_token()).await,
        StatusCode::OK
    );
    let response = refresh(&org, bystander.refresh_token()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(org.counters().refresh_token_reuses, 1);
}

#[tokio::test]
async fn client_credentials_are_taken_from_the_form_and_from_basic() {
    let org = Org::new();
    let (id, secret) = (org.client_id(), org.client_secret());
    let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    let body = json_of(send(&org, token_request(form)).await).await;
    assert_eq!(body["scope"], "api");
    assert_eq!(body.get("refresh_token"), None);
    let access_token = body["access_token"].as_str().unwrap();
    assert_eq!(get_limits(&org, access_token).await, StatusCode::OK);

    let basic = |credentials: &str| {
        let mut request = token_request("grant_type=client_credentials");
        let value = HeaderValue::try_from(format!("Basic {credentials}")).unwrap();
        request.headers_mut().insert(AUTHORIZATION, value);
        request
    };
    // `printf '%s' "$client_id:$client_secret" | base64`
    let credentials = "M01WRzllbXVsYXRvci5jb25uZWN0ZWQuYXBwOjdFMUM1QTBEOTNCMjRGNjg4NkUwRDVDNEIz\
                       QTI5MUYwN0UxQzVBMEQ5M0IyNEY2ODg2RTBENUM0QjNBMjkxRjA=";
    let response = send(&org, basic(credentials)).await;
    assert_eq!(response.status(), StatusCode::OK);
    // `printf '%s' "$client_id:wrong" | base64`
    let wrong = "M01WRzllbXVsYXRvci5jb25uZWN0ZWQuYXBwOndyb25n";
    let response = send(&org, basic(wrong)).await;
    assert_refused(response, "invalid_client", "invalid client credentials").await;
    let response = send(&org, basic("not base64")).await;
    let description = "invalid basic authorization header";
    assert_refused(response, "invalid_basic_auth_header", description).await;
    assert_eq!(org.counters().tokens_issued, 2);
    assert_eq!(org.counters().token_refusals, 2);
}

#[tokio::test]
async fn the_token_endpoint_refuses_in_the_words_of_salesforce() {
    let org = Org::new();
    let grant = org.authorize();
    let (id, secret) = (org.client_id(), org.client_secret());
    let token = grant.refresh_token();
    let unknown_grant = ("unsupported_grant_type", "grant type not supported");
    let unknown_client = ("invalid_client_id", "client identifier invalid");
    let wrong_secret = ("invalid_client", "invalid client credentials");
    let dead = ("invalid_grant", "expired access/refresh token");
    let cases = [
        (String::new(), unknown_grant),
        ("grant_type=magic".to_owned(), unknown_grant),
        ("grant_type=refresh_token".to_owned(), unknown_client),
        (
            format!("grant_type=refresh_token&refresh_token={token}&client_id=x&client_secret=y"),
            unknown_client,
        ),
        (
            format!("grant_type=refresh_token&refresh_token={token}&client_id={id}"),
            wrong_secret,
        ),
        (
            format!("grant_type=client_credentials&client_id={id}&client_secret=wrong"),
            wrong_secret,
        ),
        (
            format!("grant_type=refresh_token&client_id={id}&client_secret={secret}"),
            (
                "invalid_request",
                "missing required parameter: refresh_token",
            ),
        ),
        (
            "grant_type=refresh_token&grant_type=password".to_owned(),
            ("invalid_request", "duplicate parameter: grant_type"),
        ),
        (refresh_form(&org, "5Aep861unknown"), dead),
    ];
    let count = cases.len() as u64;
    for (form, (error, description)) in cases {
        let response = send(&org, token_request(form)).await;
        assert_refused(response, error, description).await;
    }

    let mut get = token_request("");
    *get.method_mut() = Method::GET;
    let response = send(&org, get).await;
    assert_refused(response, "invalid_request", "must use HTTP POST").await;
    let mut not_a_form = token_request(refresh_form(&org, token));
    let json = HeaderValue::from_static("application/json");
    not_a_form.headers_mut().insert(CONTENT_TYPE, json);
    let response = send(&org, not_a_form).await;
    assert_refused(response, unknown_grant.0, unknown_grant.1).await;

    assert_eq!(org.counters().token_refusals, count + 2);
    // None of this has spent the token.
    assert_eq!(refresh(&org, token).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn revoked_grants_cannot_be_refreshed_and_their_sessions_go_on() {
    let org = Org::new();
    let grant = org.authorize();
    org.revoke_grants();
    let response = refresh(&org, grant.refresh_token()).await;
    assert_refused(response, "invalid_grant", "expired access/refresh token").await;
    assert_eq!(org.counters().refresh_token_reuses, 0);
    assert_eq!(get_limits(&org, grant.access_token()).await, StatusCode::OK);

    let response = refresh(&org, org.authorize().refresh_token()).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_moved_instance_is_named_in_the_next_token_answer() {
    let org = Org::new();
    let grant = org.authorize();
    assert_eq!(grant.instance_url(), "https://emulator.my.salesforce.com");
    let token_url = org.token_url();
    org.move_instance("https://moved.example.com");
    let body = json_of(refresh(&org, grant.refresh_token()).await).await;
    assert_eq!(body["instance_url"], "https://moved.example.com");
    assert_eq!(org.instance_url(), "https://moved.example.com");
    assert_eq!(org.authorize().instance_url(), "https://moved.example.com");
    assert_eq!(org.token_url(), token_url);
}

// === sessions ===

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
    // A refresh buys two more.
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

    // A good session is not answered early.
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

// === faults ===

#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_in_process_until_the_delayed_answer() {
    let org = Org::new();
    let grant = org.authorize();
    org.on_token(Fault::Delay(Duration::from_secs(3)));
    let begun = tokio::time::Instant::now();
    let mut first = task::spawn(refresh(&org, grant.refresh_token()));
    assert_pending!(first.poll());

    org.on_token(Fault::None);
    let second = refresh(&org, grant.refresh_token()).await;
    let description = "token request is already being processed";
    assert_refused(second, "invalid_grant", description).await;
    assert_eq!(org.counters().concurrent_refreshes, 1);
    assert_eq!(org.counters().refresh_token_reuses, 0);
    assert_eq!(begun.elapsed(), Duration::ZERO);

    let next = json_of(first.await).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
    let current = next["refresh_token"].as_str().unwrap();
    assert_eq!(refresh(&org, current).await.status(), StatusCode::OK);
    // Answered means rotated out.
    let reused = refresh(&org, grant.refresh_token()).await;
    assert_refused(reused, "invalid_grant", "expired access/refresh token").await;
    assert_eq!(org.counters().refresh_token_reuses, 1);
}

#[tokio::test]
async fn a_refresh_in_process_is_refused_if_its_grant_is_revoked() {
    let org = Org::new();
    let grant = org.authorize();
    org.on_token(Fault::Hang);
    let mut call = task::spawn(refresh(&org, grant.refresh_token()));
    assert_pending!(call.poll());
    org.revoke_grants();
    org.on_token(Fault::None);
    assert_refused(call.await, "invalid_grant", "expired access/refresh token").await;
}

#[tokio::test]
async fn hanging_calls_are_released_and_go_on() {
    let org = Org::new();
    let grant = org.authorize();
    org.on_token(Fault::Hang);
    org.on_data(Fault::Hang);
    let mut token_call = task::spawn(refresh(&org, grant.refresh_token()));
    let mut data_call = task::spawn(get_limits(&org, grant.access_token()));
    assert_pending!(token_call.poll());
    assert_pending!(data_call.poll());

    // Another fault is for the calls after these.
    org.on_data(Fault::Delay(Duration::from_secs(1)));
    assert_pending!(data_call.poll());

    // The release is seen although the next calls hang again.
    org.on_token(Fault::None);
    org.on_token(Fault::Hang);
    assert!(token_call.is_woken());
    assert_eq!(token_call.await.status(), StatusCode::OK);
    org.on_data(Fault::None);
    assert_eq!(data_call.await, StatusCode::OK);
}

#[tokio::test]
async fn a_hang_also_delays_refusals() {
    let org = Org::new();
    let grant = org.authorize();
    org.on_token(Fault::Hang);
    org.on_data(Fault::Hang);
    let mut first = task::spawn(refresh(&org, grant.refresh_token()));
    let mut second = task::spawn(refresh(&org, grant.refresh_token()));
    let mut data_call = task::spawn(get_limits(&org, "00Dxx0000001gEF!AQEAQunknown"));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    assert_pending!(data_call.poll());
    assert_eq!(org.counters().concurrent_refreshes, 1);
    assert_eq!(org.counters().data_rejected, 1);

    org.on_token(Fault::None);
    org.on_data(Fault::None);
    // What was decided on arrival holds, although the first is answered by now.
    assert_eq!(first.await.status(), StatusCode::OK);
    let description = "token request is already being processed";
    assert_refused(second.await, "invalid_grant", description).await;
    assert_eq!(data_call.await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_its_refresh_token_unspent() {
    let org = Org::new();
    let grant = org.authorize();
    org.on_token(Fault::Hang);
    let mut call = task::spawn(refresh(&org, grant.refresh_token()));
    assert_pending!(call.poll());
    drop(call);
    org.on_token(Fault::None);
    let response = refresh(&org, grant.refresh_token()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(org.counters().tokens_issued, 1);
}

#[tokio::test(start_paused = true)]
async fn the_session_is_checked_on_arrival_not_after_the_delay() {
    let org = Org::new();
    let grant = org.authorize();
    org.on_data(Fault::Delay(Duration::from_secs(1)));
    let mut early = task::spawn(get_limits(&org, grant.access_token()));
    assert_pending!(early.poll());
    org.expire_sessions();
    let late = get_limits(&org, grant.access_token()).await;
    assert_eq!(late, StatusCode::UNAUTHORIZED);
    assert_eq!(early.await, StatusCode::OK);
}

#[tokio::test]
async fn a_refusal_spends_nothing() {
    let org = Org::new();
    org.expire_after(1);
    let grant = org.authorize();
    let (status, error, description) = (
        StatusCode::FORBIDDEN,
        "rate_limit_exceeded",
        "too many logins",
    );
    org.on_token(Fault::refuse(status, error, description));
    org.on_data(Fault::refuse(status, "REQUEST_LIMIT_EXCEEDED", "too much"));
    let response = refresh(&org, grant.refresh_token()).await;
    assert_eq!(response.status(), status);
    let body = json!({ "error": error, "error_description": description });
    assert_eq!(json_of(response).await, body);
    let request = Request::get(LIMITS).header(AUTHORIZATION, bearer(grant.access_token()));
    let response = send(&org, request.body(empty()).unwrap()).await;
    assert_eq!(response.status(), status);
    let body = json!([{ "message": "too much", "errorCode": "REQUEST_LIMIT_EXCEEDED" }]);
    assert_eq!(json_of(response).await, body);
    assert_eq!(org.counters().token_refusals, 1);
    assert_eq!(org.counters().data_refused, 1);

    org.on_token(Fault::Maintenance);
    org.on_data(Fault::Maintenance);
    let response = refresh(&org, grant.refresh_token()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        response.headers()["content-type"],
        "text/html;charset=UTF-8"
    );
    let status = get_limits(&org, grant.access_token()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);

    org.on_token(Fault::None);
    org.on_data(Fault::None);
    assert_eq!(get_limits(&org, grant.access_token()).await, StatusCode::OK);
    let response = refresh(&org, grant.refresh_token()).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_lost_answer_has_spent_the_refresh_token() {
    let org = Org::new();
    let grant = org.authorize();
    org.on_token(Fault::LoseAnswer);
    let request = token_request(refresh_form(&org, grant.refresh_token()));
    let error = org.clone().oneshot(request).await.unwrap_err();
    assert!(error.is::<std::io::Error>());
    assert_eq!(org.counters().tokens_issued, 1);
    org.on_token(Fault::None);
    let response = refresh(&org, grant.refresh_token()).await;
    assert_refused(response, "invalid_grant", "expired access/refresh token").await;
    assert_eq!(org.counters().refresh_token_reuses, 1);
}

// === data ===

#[tokio::test]
async fn the_versions_need_no_session() {
    let org = Org::new();
    for path in ["/services/data", "/services/data/"] {
        let response = send(&org, Request::get(path).body(empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let versions = json_of(response).await;
        let spring = json!({
            "label": "Spring '26", "url": "/services/data/v66.0", "version": "66.0",
        });
        assert!(versions.as_array().unwrap().contains(&spring));
    }
    assert_eq!(org.counters().requests, 2);
    assert_eq!(org.counters().data_requests, 0);
}

#[tokio::test]
async fn the_limits_count_down() {
    let org = Org::new();
    let mut client = Caller::new(&org);
    let response = client.get(LIMITS).await;
    assert_eq!(response.headers()["sforce-limit-info"], "api-usage=1/15000");
    let body = json_of(response).await;
    let expected = json!({ "DailyApiRequests": { "Max": 15_000, "Remaining": 14_999 } });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_query_answers_with_records() {
    let mut client = Caller::new(&Org::new());
    let found = client
        .get_json("/services/data/v66.0/query?q=SELECT+Id%2C+name+FROM+Account+LIMIT+1")
        .await;
    let url = "/services/data/v66.0/sobjects/Account/001xx0000000001AAA";
    let expected = json!({
        "totalSize": 1,
        "done": true,
        "records": [{
            "attributes": { "type": "Account", "url": url },
            "Id": "001xx0000000001AAA",
            "Name": "Acme",
        }],
    });
    assert_eq!(found, expected);

    let found = client
        .get_json("/services/data/v66.0/query/?q=SELECT+LastName,AccountId+FROM+Contact")
        .await;
    assert_eq!(found["totalSize"], 2);
    let names = [
        &found["records"][0]["LastName"],
        &found["records"][1]["LastName"],
    ];
    assert_eq!(names, ["Example", "Sample"]);
    assert_eq!(found["records"][0]["AccountId"], "001xx0000000001AAA");
}

#[tokio::test]
async fn a_malformed_query_is_a_bad_request() {
    let mut client = Caller::new(&Org::new());
    for (query, code) in [
        ("", "MALFORMED_QUERY"),
        ("?q=SELECT", "MALFORMED_QUERY"),
        (
            "?q=SELECT+Id+FROM+Account+WHERE+Id+=+null",
            "MALFORMED_QUERY",
        ),
        ("?q=SELECT+Id+FROM+Spaceship", "INVALID_TYPE"),
        ("?q=SELECT+Crew+FROM+Account", "INVALID_FIELD"),
    ] {
        let path = format!("/services/data/v66.0/query{query}");
        let response = client.get(&path).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(json_of(response).await[0]["errorCode"], code, "{query}");
    }
}

#[tokio::test]
async fn a_created_record_can_be_read() {
    let mut client = Caller::new(&Org::new());
    let account = r#"{"Name":"Umbrella","Industry":"Biotechnology"}"#;
    let response = client
        .post("/services/data/v66.0/sobjects/Account", account)
        .await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let created = json_of(response).await;
    let id = created["id"].as_str().unwrap();
    assert_eq!(created, json!({ "id": id, "success": true, "errors": [] }));

    let path = format!("/services/data/v66.0/sobjects/Account/{id}");
    let record = client.get_json(&path).await;
    let expected = json!({
        "attributes": { "type": "Account", "url": path },
        "Id": id,
        "Name": "Umbrella",
        "Industry": "Biotechnology",
        "Website": null,
    });
    assert_eq!(record, expected);
    let all = client
        .get_json("/services/data/v66.0/query?q=SELECT+Name+FROM+Account")
        .await;
    assert_eq!(all["totalSize"], 4);
    assert_eq!(all["records"][3]["Name"], "Umbrella");
}

#[tokio::test]
async fn a_record_that_cannot_be_created_is_a_bad_request() {
    let mut client = Caller::new(&Org::new());
    for (body, code) in [
        ("", "JSON_PARSER_ERROR"),
        ("[]", "JSON_PARSER_ERROR"),
        ("{}", "REQUIRED_FIELD_MISSING"),
        (r#"{"Name":"a","Id":"001"}"#, "INVALID_FIELD"),
        (r#"{"Name":"a","Crew":7}"#, "INVALID_FIELD"),
    ] {
        let response = client
            .post("/services/data/v66.0/sobjects/Account", body)
            .await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(json_of(response).await[0]["errorCode"], code, "{body}");
    }
}

#[tokio::test]
async fn an_unknown_path_or_record_is_not_found() {
    let org = Org::new();
    let mut client = Caller::new(&org);
    for path in [
        "/",
        "/services/apexrest/echo",
        "/services/data/v66.0",
        "/services/data/v66.0/spaceships",
        "/services/data/66.0/limits",
        "/services/data/v66.0/sobjects/Account/001xx0000009999AAA",
        // A contact is not an account.
        "/services/data/v66.0/sobjects/Account/003xx0000000004AAA",
        "/services/data/v66.0/sobjects/Spaceship/001xx0000000001AAA",
    ] {
        let response = client.get(path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let expected = json!([{
            "message": "The requested resource does not exist", "errorCode": "NOT_FOUND",
        }]);
        assert_eq!(json_of(response).await, expected, "{path}");
    }
    let response = client.post(LIMITS, "").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET,HEAD");
}

#[tokio::test]
async fn the_echo_reports_what_arrived() {
    let org = Org::new();
    let grant = org.authorize();
    let trailers = HeaderMap::from_iter([(
        "checksum".parse().unwrap(),
        HeaderValue::from_static("900150983cd24fb0"),
    )]);
    let (mut sender, body) = Channel::<Bytes>::new(3);
    sender.send_data(Bytes::from("a")).await.unwrap();
    sender.send_data(Bytes::from("bc")).await.unwrap();
    sender.send(Frame::trailers(trailers)).await.unwrap();
    drop(sender);
    let request = Request::builder()
        .method("PROPFIND")
        .uri("https://emulator.my.salesforce.com/services/data/v66.0/echo?a=1&b=%20")
        .header("x-first", "1")
        .header(AUTHORIZATION, bearer(grant.access_token()))
        .header("x-second", "2")
        .header("x-second", "3")
        .body(body)
        .unwrap();
    let response = org.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let expected = json!({
        "method": "PROPFIND",
        "path": "/services/data/v66.0/echo?a=1&b=%20",
        "headers": [
            ["x-first", "1"],
            ["authorization", "[redacted]"],
            ["x-second", "2"],
            ["x-second", "3"],
        ],
        "authorization_count": 1,
        "body_length": 3,
        "body_sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "trailers": [["checksum", "900150983cd24fb0"]],
    });
    assert_eq!(json_of(response).await, expected);
}

// === loopback ===

#[tokio::test]
async fn a_served_org_speaks_both_protocols_on_one_port() {
    let org = Org::new();
    let before = org.authorize();
    let served = org.serve().await.unwrap();
    assert!(served.url().starts_with("http://127.0.0.1:"));
    assert_eq!(org.instance_url(), served.url());
    assert_eq!(org.login_url(), served.url());
    let token_url = format!("{}/services/oauth2/token", served.url());
    assert_eq!(org.token_url(), token_url);

    for http2 in [false, true] {
        let client = client(http2);
        let limits = || {
            Request::get(format!("{}{LIMITS}", served.url()))
                .header(AUTHORIZATION, bearer(before.access_token()))
                .body(empty())
                .unwrap()
        };
        let response = client.request(limits()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let version = if http2 {
            http::Version::HTTP_2
        } else {
            http::Version::HTTP_11
        };
        assert_eq!(response.version(), version);
        drop(response.into_body().collect().await.unwrap());

        let mut request = token_request(refresh_form(&org, org.authorize().refresh_token()));
        *request.uri_mut() = org.token_url().parse().unwrap();
        let response = client.request(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["instance_url"], served.url());
    }
    assert_eq!(org.counters().connections, 2);
    served.shutdown().await;
}

#[tokio::test]
async fn shutting_down_or_dropping_ends_every_connection() {
    let org = Org::new();
    org.on_data(Fault::Hang);
    for (http2, dropped) in [(false, false), (true, false), (false, true), (true, true)] {
        let served = org.serve().await.unwrap();
        let url = served.url().to_owned();
        let limits = Request::get(format!("{url}{LIMITS}"))
            .body(empty())
            .unwrap();
        let arrived = org.counters().data_requests + 1;
        let call = tokio::spawn(client(http2).request(limits));
        while org.counters().data_requests < arrived {
            tokio::task::yield_now().await;
        }
        if dropped {
            drop(served);
        } else {
            served.shutdown().await;
            // Nobody listens: said at once, without waiting for the task to notice.
            let versions = Request::get(format!("{url}/services/data/"));
            let result = client(http2).request(versions.body(empty()).unwrap()).await;
            assert!(result.unwrap_err().is_connect());
        }
        assert!(call.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_refresh_cut_off_by_shutdown_spends_no_refresh_token() {
    let org = Org::new();
    let grant = org.authorize();
    for http2 in [false, true] {
        let served = org.serve().await.unwrap();
        org.on_token(Fault::Hang);
        let arrived = org.counters().token_requests + 1;
        let mut request = token_request(refresh_form(&org, grant.refresh_token()));
        *request.uri_mut() = org.token_url().parse().unwrap();
        let call = tokio::spawn(client(http2).request(request));
        while org.counters().token_requests < arrived {
            tokio::task::yield_now().await;
        }
        served.shutdown().await;
        assert!(call.await.unwrap().is_err());
    }
    org.on_token(Fault::None);
    let response = refresh(&org, grant.refresh_token()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(org.counters().concurrent_refreshes, 0);
}

#[tokio::test]
async fn an_org_served_twice_can_be_moved_between_its_two_addresses() {
    let org = Org::new();
    let old = org.serve().await.unwrap();
    let new = org.serve().await.unwrap();
    assert_ne!(old.url(), new.url());
    assert_eq!(org.instance_url(), new.url());
    org.move_instance(old.url());
    let grant = org.authorize();
    assert_eq!(grant.instance_url(), old.url());
    for url in [old.url(), new.url()] {
        let request = Request::get(format!("{url}{LIMITS}"))
            .header(AUTHORIZATION, bearer(grant.access_token()));
        let response = client(false).request(request.body(empty()).unwrap()).await;
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_lost_answer_ends_the_connection_or_the_stream() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    for http2 in [false, true] {
        let grant = org.authorize();
        org.on_token(Fault::LoseAnswer);
        let mut request = token_request(refresh_form(&org, grant.refresh_token()));
        *request.uri_mut() = org.token_url().parse().unwrap();
        assert!(client(http2).request(request).await.is_err());
    }
    assert_eq!(org.counters().tokens_issued, 2);
}

#[tokio::test]
async fn an_early_401_reaches_the_client_while_it_is_still_sending() {
    let org = Org::new();
    org.answer_early(0);
    let served = org.serve().await.unwrap();
    for http2 in [false, true] {
        // A body that goes on: nothing is sent, and it does not end.
        let (sender, body) = Channel::<Bytes>::new(1);
        let request = Request::post(format!("{}{ECHO}", served.url()));
        let response = channel_client(http2)
            .request(request.body(body).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        drop(sender);
    }
}

#[tokio::test]
async fn the_echo_reports_trailers_from_a_connection() {
    let org = Org::new();
    let served = org.serve().await.unwrap();
    let grant = org.authorize();
    let (mut sender, body) = Channel::<Bytes>::new(2);
    sender.send_data(Bytes::from("abc")).await.unwrap();
    let trailers = HeaderMap::from_iter([(
        "checksum".parse().unwrap(),
        HeaderValue::from_static("900150983cd24fb0"),
    )]);
    sender.send(Frame::trailers(trailers)).await.unwrap();
    drop(sender);
    let request = Request::post(format!("{}{ECHO}", served.url()))
        .header(AUTHORIZATION, bearer(grant.access_token()))
        .body(body)
        .unwrap();
    let response = channel_client(true).request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let echo: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(echo["body_length"], 3);
    assert_eq!(echo["trailers"], json!([["checksum", "900150983cd24fb0"]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_carries_a_thousand_concurrent_calls() {
    const CALLS: u64 = 1_000;
    let org = Org::new();
    let served = org.serve().await.unwrap();
    let grant = org.authorize();
    org.on_data(Fault::Hang);

    let client = client(true);
    // A first call opens the connection that the others then share.
    let versions = Request::get(format!("{}/services/data/", served.url()));
    let response = client.request(versions.body(empty()).unwrap()).await;
    assert_eq!(response.unwrap().status(), StatusCode::OK);

    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let request = Request::post(format!("{}{ECHO}", served.url()))
            .header(AUTHORIZATION, bearer(grant.access_token()))
            .body(Full::from(vec![0; 4_096]))
            .unwrap();
        let client = client.clone();
        calls.spawn(async move {
            let response = client.request(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let echo: Value = serde_json::from_slice(&body).unwrap();
            (status, echo["body_length"].as_u64())
        });
    }
    // All of them are inside the org at once, or this never ends.
    while org.counters().data_accepted < CALLS {
        tokio::task::yield_now().await;
    }
    org.on_data(Fault::None);
    let answers = calls.join_all().await;
    assert!(
        answers
            .iter()
            .all(|answer| *answer == (StatusCode::OK, Some(4_096)))
    );
    assert_eq!(answers.len() as u64, CALLS);
    assert_eq!(org.counters().connections, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_calls_with_one_refresh_token_get_one_session() {
    const CALLS: u64 = 100;
    let org = Org::new();
    let served = org.serve().await.unwrap();
    let grant = org.authorize();
    org.on_token(Fault::Hang);
    let client = client(true);
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let mut request = token_request(refresh_form(&org, grant.refresh_token()));
        *request.uri_mut() = format!("{}/services/oauth2/token", served.url())
            .parse()
            .unwrap();
        calls.spawn(client.request(request));
    }
    while org.counters().concurrent_refreshes < CALLS - 1 {
        tokio::task::yield_now().await;
    }
    org.on_token(Fault::None);
    let answers = calls.join_all().await;
    let granted = answers
        .into_iter()
        .filter(|answer| answer.as_ref().unwrap().status() == StatusCode::OK);
    assert_eq!(granted.count(), 1);
    assert_eq!(org.counters().tokens_issued, 1);
    assert_eq!(org.counters().token_refusals, CALLS - 1);
    assert_eq!(org.counters().refresh_token_reuses, 0);
}

// === the types ===

#[test]
fn debug_prints_no_secrets() {
    let org = Org::new();
    let grant = org.authorize();
    let printed = format!("{org:?} {grant:?}");
    for secret in [
        org.client_secret(),
        grant.access_token(),
        grant.refresh_token(),
    ] {
        assert!(!printed.contains(secret));
    }
    assert!(printed.contains("https://emulator.my.salesforce.com"));
}

#[test]
fn orgs_and_their_futures_can_be_sent_and_shared() {
    fn send<T: Send>() {}
    fn send_and_sync<T: Send + Sync>() {}
    fn service<S, B>()
    where
        S: Service<Request<B>, Response = Response<Full<Bytes>>, Error = BoxError>,
    {
    }
    send_and_sync::<Org>();
    send_and_sync::<Grant>();
    send_and_sync::<Fault>();
    send::<ResponseFuture>();
    service::<Org, Empty<Bytes>>();
    service::<Org, hyper::body::Incoming>();
    service::<Org, http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>>();
}

#[tokio::test]
async fn clones_are_the_same_org() {
    let org = Org::new();
    let clone = org.clone();
    let grant = org.authorize();
    let status = get_limits(&clone, grant.access_token()).await;
    assert_eq!(status, StatusCode::OK);
    clone.expire_sessions();
    let status = get_limits(&org, grant.access_token()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(org.counters(), clone.counters());
}

// === the client's side ===

const LIMITS: &str = "/services/data/v66.0/limits";
const ECHO: &str = "/services/data/v66.0/echo";
const SESSION_EXPIRED: &str =
    r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#;

type Answer = Response<Full<Bytes>>;

/// Calls with the access token of a grant of its own.
struct Caller {
    org: Org,
    grant: Grant,
}

impl Caller {
    fn new(org: &Org) -> Self {
        Self {
            org: org.clone(),
            grant: org.authorize(),
        }
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.call(Method::GET, path, "").await
    }

    async fn get_json(&mut self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        json_of(response).await
    }

    async fn post(&mut self, path: &str, body: &'static str) -> Answer {
        self.call(Method::POST, path, body).await
    }

    async fn call(&mut self, method: Method, path: &str, body: &'static str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, bearer(self.grant.access_token()))
            .body(Full::from(body))
            .unwrap();
        send(&self.org, request).await
    }
}

fn send(org: &Org, request: Request<Full<Bytes>>) -> impl Future<Output = Answer> + use<> {
    let call = org.clone().oneshot(request);
    async { call.await.unwrap() }
}

fn refresh(org: &Org, token: &str) -> impl Future<Output = Answer> + use<> {
    send(org, token_request(refresh_form(org, token)))
}

/// A token request of `pairs`, with the app's id and secret.
async fn grant(org: &Org, pairs: &[(&str, &str)]) -> Answer {
    send(org, token_request(form(org, pairs))).await
}

/// The parameters `pairs`, encoded, with the app's id and secret.
fn form(org: &Org, pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("client_id", org.client_id())
        .append_pair("client_secret", org.client_secret())
        .extend_pairs(pairs)
        .finish()
}

fn encode(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// A form sent to `path`.
fn post_form(path: &str, form: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(form.into()))
        .unwrap()
}

fn set_time(org: &Org, seconds: u64) {
    org.set_clock(move || std::time::UNIX_EPOCH + Duration::from_secs(seconds));
}

fn fields(body: &Value) -> Vec<&str> {
    body.as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

async fn get_limits(org: &Org, token: &str) -> StatusCode {
    let request = Request::get(LIMITS).header(AUTHORIZATION, bearer(token));
    send(org, request.body(empty()).unwrap()).await.status()
}

fn refresh_form(org: &Org, token: &str) -> String {
    let (id, secret) = (org.client_id(), org.client_secret());
    format!("grant_type=refresh_token&refresh_token={token}&client_id={id}&client_secret={secret}")
}

fn token_request(form: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post("/services/oauth2/token")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(form.into()))
        .unwrap()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn empty() -> Full<Bytes> {
    Full::default()
}

async fn assert_refused(response: Answer, error: &str, description: &str) {
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let body = json!({ "error": error, "error_description": description });
    assert_eq!(json_of(response).await, body);
}

async fn bytes_of(response: Answer) -> Bytes {
    let collected: Result<_, Infallible> = response.into_body().collect().await;
    collected.unwrap().to_bytes()
}

async fn json_of(response: Answer) -> Value {
    serde_json::from_slice(&bytes_of(response).await).unwrap()
}

fn client(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

fn channel_client(http2: bool) -> Client<HttpConnector, Channel<Bytes>> {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}
