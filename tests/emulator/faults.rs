//! Faults of the token endpoint and of the data API.

use http::Request;
use http::StatusCode;
use http::header::AUTHORIZATION;
use serde_json::json;
use std::time::Duration;
use tokio_test::assert_pending;
use tokio_test::task;
use tower::ServiceExt;
use tower_salesforce_auth::emulator::Fault;
use tower_salesforce_auth::emulator::Org;

use crate::support::{
    LIMITS, assert_refused, bearer, empty, get_limits, json_of, refresh, refresh_form, send,
    token_request,
};

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
    // After the answer the old token is rotated out.
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

    // A new fault applies to later calls only.
    org.on_data(Fault::Delay(Duration::from_secs(1)));
    assert_pending!(data_call.poll());

    // The release wakes the call although later calls hang again.
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
    // The refusal was decided on arrival, and holds although the first call is answered by now.
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
