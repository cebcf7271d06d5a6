//! The controls of an emulated org.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tower_salesforce_auth::emulator::Org;

use crate::support::{encode, get_limits, text_answer};

// === controls ===

#[tokio::test]
async fn an_org_has_no_controls_by_default() {
    let org = Org::new();
    let (status, _) = post(&org, "expire-sessions", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    org.expose_controls(true);
    let (status, _) = post(&org, "expire-sessions", "").await;
    assert_eq!(status, StatusCode::OK);
    org.expose_controls(false);
    let (status, _) = post(&org, "expire-sessions", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_stats_are_the_counters_without_the_controls() {
    let org = controlled_org();
    get_limits(&org, "unknown").await;
    let (status, stats) = send(&org, get("stats")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(stats, serde_json::to_value(org.counters()).unwrap());
    assert_eq!(stats["requests"], 1);
    assert_eq!(stats["data_rejected"], 1);
}

#[tokio::test]
async fn a_control_changes_the_org_from_outside() {
    let org = controlled_org();
    let token = org.authorize().access_token().to_owned();
    assert_eq!(get_limits(&org, &token).await, StatusCode::OK);
    pull(&org, "expire-sessions", "").await;
    assert_eq!(get_limits(&org, &token).await, StatusCode::UNAUTHORIZED);

    pull(&org, "expire-after", r#"{"calls": 0}"#).await;
    let token = org.authorize().access_token().to_owned();
    assert_eq!(get_limits(&org, &token).await, StatusCode::UNAUTHORIZED);
    pull(&org, "expire-after", r#"{"calls": null}"#).await;
    let token = org.authorize().access_token().to_owned();
    assert_eq!(get_limits(&org, &token).await, StatusCode::OK);

    pull(
        &org,
        "move-instance",
        r#"{"url": "https://moved.example.com"}"#,
    )
    .await;
    assert_eq!(org.instance_url(), "https://moved.example.com");

    for (lever, parameters) in [
        ("act-as-shared-login-host", r#"{"shared": true}"#),
        ("add-redirect-uri", r#"{"uri": "https://app.example.com/"}"#),
        ("answer-early", r#"{"bytes": 0}"#),
        ("block-password-flow", r#"{"block": true}"#),
        ("deactivate-user", r#"{"deactivate": true}"#),
        ("enforce-device-interval", r#"{"enforce": true}"#),
        ("error-body-size", r#"{"bytes": 100}"#),
        ("expire-password", r#"{"expire": true}"#),
        ("issue-jwt-access-tokens", r#"{"issue": true}"#),
        ("limit-approvals", r#"{"approvals": 5}"#),
        ("limit-logins", r#"{"logins": 3}"#),
        ("lock-out-after", r#"{"wrong_passwords": 3}"#),
        ("name-issuer-in-callbacks", r#"{"named": true}"#),
        ("preauthorize", r#"{"preauthorize": false}"#),
        ("refuse-sessions", r#"{"message": null}"#),
        ("require-authentication-to-revoke", r#"{"required": true}"#),
        ("require-pkce", r#"{"required": true}"#),
        ("require-secret", r#"{"required": false}"#),
        ("require-security-token", r#"{"required": false}"#),
        ("revoke-grants", "{}"),
        ("rotate-refresh-tokens", r#"{"rotate": false}"#),
        ("trust-subject-token", r#"{"subject_token": "x"}"#),
        ("unlock-user", "{}"),
    ] {
        pull(&org, lever, parameters).await;
    }
}

#[tokio::test]
async fn a_control_approves_or_denies_for_the_user() {
    let org = controlled_org();
    let query = encode(&[
        ("response_type", "code"),
        ("client_id", org.client_id()),
        ("redirect_uri", &org.redirect_uri()),
    ]);
    let authorize_url = format!("{}/services/oauth2/authorize?{query}", org.login_url());
    let parameters = json!({ "authorize_url": authorize_url }).to_string();
    for (lever, expected) in [("approve", "code=aPrx"), ("deny", "error=access_denied")] {
        let answer = pull(&org, lever, &parameters).await;
        let redirect = answer["redirect"].as_str().unwrap();
        let expected = format!("{}?{expected}", org.redirect_uri());
        assert!(redirect.starts_with(&expected), "{redirect}");
    }
    pull(
        &org,
        "set-redirect-uri",
        r#"{"uri": "https://app.example.com/"}"#,
    )
    .await;
    let (status, answer) = post(&org, "approve", &parameters).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = "redirect_uri_mismatch: redirect_uri must match configuration";
    assert_eq!(answer["message"], message);
}

#[tokio::test]
async fn a_control_sets_faults_from_outside() {
    let org = controlled_org();
    let token = org.authorize().access_token().to_owned();
    let refuse =
        r#"{"on": "data", "fault": {"refuse": {"status": 503, "error": "E", "description": "d"}}}"#;
    pull(&org, "fault", refuse).await;
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(get_limits(&org, &token).await, unavailable);
    pull(&org, "fault", r#"{"on": "data", "fault": "maintenance"}"#).await;
    assert_eq!(get_limits(&org, &token).await, unavailable);
    let delay = r#"{"on": "data", "fault": {"delay": {"milliseconds": 0}}}"#;
    pull(&org, "fault", delay).await;
    assert_eq!(get_limits(&org, &token).await, StatusCode::OK);
    for side in ["revoke", "soap-login", "token"] {
        for fault in ["hang", "lose-answer", "none"] {
            let parameters = json!({ "on": side, "fault": fault }).to_string();
            pull(&org, "fault", &parameters).await;
        }
    }
}

#[tokio::test]
async fn a_control_says_what_is_wrong_with_its_parameters() {
    let org = controlled_org();
    for (lever, parameters, problem) in [
        ("rotate-refresh-tokens", "", "missing field `rotate`"),
        (
            "rotate-refresh-tokens",
            r#"{"rotate": 1}"#,
            "expected a boolean",
        ),
        ("expire-after", r#"{"call": 1}"#, "unknown field `call`"),
        ("expire-sessions", r#"{"now": true}"#, "unknown field `now`"),
        ("expire-sessions", "[]", "expected a map"),
        ("expire-sessions", "{", "EOF"),
        ("explode", "{}", "unknown variant `explode`"),
        ("approve", r#"{"authorize_url": "\u0000"}"#, "not a URL"),
        (
            "approve-device",
            r#"{"user_code": "none"}"#,
            "no device waits",
        ),
        ("deny-device", r#"{"user_code": "none"}"#, "no device waits"),
        (
            "fault",
            r#"{"on": "moon", "fault": "hang"}"#,
            "unknown variant `moon`",
        ),
        (
            "fault",
            r#"{"on": "data", "fault": {"refuse": {"status": 1, "error": "", "description": ""}}}"#,
            "invalid status code",
        ),
    ] {
        let (status, answer) = post(&org, lever, parameters).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{lever} {parameters}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(problem), "{lever} {parameters}: {message}");
    }
    let (status, _) = send(&org, get("expire-sessions")).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

// === support ===

fn controlled_org() -> Org {
    let org = Org::new();
    org.expose_controls(true);
    org
}

fn get(control: &str) -> Request<Full<Bytes>> {
    Request::get(format!("/emulator/{control}"))
        .body(Full::default())
        .unwrap()
}

async fn pull(org: &Org, lever: &str, parameters: &str) -> Value {
    let (status, answer) = post(org, lever, parameters).await;
    assert_eq!(status, StatusCode::OK, "{lever} {parameters}: {answer}");
    answer
}

async fn post(org: &Org, lever: &str, parameters: &str) -> (StatusCode, Value) {
    let request = Request::post(format!("/emulator/{lever}"))
        .body(Full::from(parameters.to_owned()))
        .unwrap();
    send(org, request).await
}

async fn send(org: &Org, request: Request<Full<Bytes>>) -> (StatusCode, Value) {
    let (status, text) = text_answer(org, request).await;
    (status, serde_json::from_str(&text).unwrap())
}
