//! Token answers and refusals of the token endpoint.

use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http::header::CONTENT_TYPE;
use tower_salesforce_auth::emulator::Org;

use crate::support::{
    assert_refused, get_limits, json_of, refresh, refresh_form, send, token_request,
};

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
    // The grant has the first token, and every token is a second later than the one before.
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

    // The other grant still works.
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
    // The refresh token is not spent by a refusal.
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
