//! The device flow.

use http::{Request, StatusCode};
use serde_json::Value;
use tower_salesforce_auth::emulator::Org;

use crate::support::{
    Answer, assert_refused, bytes_of, empty, encode, get_limits, grant, json_of, post_form,
    refresh, send, set_time, token_request,
};

#[tokio::test]
async fn a_device_gets_its_tokens_once_the_user_approves() {
    let org = Org::new();
    let codes = begin(&org).await;
    let verification_uri = format!("{}/setup/connect", org.login_url());
    assert_eq!(codes["verification_uri"], verification_uri);
    assert_eq!(codes["interval"], 5);
    assert_eq!(codes.as_object().unwrap().len(), 4);
    let user_code = codes["user_code"].as_str().unwrap();
    assert_eq!(user_code.len(), 8);

    assert_refused(poll(&org, &codes).await, "authorization_pending", WAITING).await;
    assert!(!org.approve_device("UNKNOWN1"));
    assert!(org.approve_device(user_code));
    let body = json_of(poll(&org, &codes).await).await;
    assert_eq!(body["scope"], "api refresh_token");
    let access_token = body["access_token"].as_str().unwrap();
    assert_eq!(get_limits(&org, access_token).await, StatusCode::OK);
    let refresh_token = body["refresh_token"].as_str().unwrap();
    assert_eq!(refresh(&org, refresh_token).await.status(), StatusCode::OK);

    let again = poll(&org, &codes).await;
    assert_refused(again, "invalid_grant", "invalid authorization code").await;
    assert_eq!(org.counters().device_codes_issued, 1);
    assert_eq!(org.counters().tokens_issued, 2);
}

#[tokio::test]
async fn a_device_that_is_denied_gets_access_denied() {
    let org = Org::new();
    let codes = begin(&org).await;
    assert!(org.deny_device(codes["user_code"].as_str().unwrap()));
    let response = poll(&org, &codes).await;
    assert_refused(response, "access_denied", "end-user denied authorization").await;
}

#[tokio::test]
async fn device_codes_end_after_ten_minutes() {
    let org = Org::new();
    set_time(&org, 1_000);
    let codes = begin(&org).await;
    set_time(&org, 1_599);
    assert_refused(poll(&org, &codes).await, "authorization_pending", WAITING).await;
    set_time(&org, 1_600);
    assert!(!org.approve_device(codes["user_code"].as_str().unwrap()));
    let response = poll(&org, &codes).await;
    assert_refused(response, "invalid_grant", "expired authorization code").await;
}

#[tokio::test]
async fn a_device_that_polls_too_fast_is_slowed_down_if_enforced() {
    let org = Org::new();
    set_time(&org, 1_000);
    let codes = begin(&org).await;
    for _ in 0..2 {
        assert_refused(poll(&org, &codes).await, "authorization_pending", WAITING).await;
    }
    org.enforce_device_interval(true);
    let response = poll(&org, &codes).await;
    assert_refused(response, "slow_down", "polling too frequently").await;
    set_time(&org, 1_010);
    assert_refused(poll(&org, &codes).await, "authorization_pending", WAITING).await;
}

#[tokio::test]
async fn the_verification_page_approves_the_device() {
    let org = Org::new();
    let codes = begin(&org).await;
    let user_code = codes["user_code"].as_str().unwrap();
    let request = Request::get(format!("/setup/connect?user_code={user_code}%22%3E"));
    let response = send(&org, request.body(empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let page = String::from_utf8(bytes_of(response).await.to_vec()).unwrap();
    assert!(page.contains(&format!("value=\"{user_code}&quot;&gt;\"")));

    let connect = |password: &str, decision: &str| {
        let form = encode(&[
            ("user_code", user_code),
            ("username", org.username()),
            ("password", password),
            ("decision", decision),
        ]);
        send(&org, post_form("/setup/connect", form))
    };
    connect("wrong", "allow").await;
    assert_refused(poll(&org, &codes).await, "authorization_pending", WAITING).await;
    connect(org.password(), "allow").await;
    assert_eq!(poll(&org, &codes).await.status(), StatusCode::OK);
}

const WAITING: &str = "waiting for the user to authorize";

async fn begin(org: &Org) -> Value {
    let form = encode(&[
        ("response_type", "device_code"),
        ("client_id", org.client_id()),
        ("scope", "api refresh_token"),
    ]);
    json_of(send(org, token_request(form)).await).await
}

async fn poll(org: &Org, codes: &Value) -> Answer {
    let device_code = codes["device_code"].as_str().unwrap();
    grant(org, &[("grant_type", "device"), ("code", device_code)]).await
}
