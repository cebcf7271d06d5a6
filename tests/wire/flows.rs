//! The flows, against the org's token endpoint.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    Error, RefreshContext, RefreshError, RefreshErrorKind, RefreshFn, SalesforceAuthLayer, Session,
    emulator::{Fault, Org},
    flow::ClientCredentials,
    https::{self, SalesforceClient},
};

use crate::support::{
    LIMITS, Protocol, app, assert_refused, client, get, layer, refresh_token, send, token_client,
};

#[tokio::test]
async fn r03_a_rotated_refresh_token_is_never_lost_or_used_twice() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    let layer = layer(&org, &grant);
    let client = client(&layer, Protocol::H2);
    let mut tokens = vec![grant.refresh_token().to_owned()];
    for _ in 0..50 {
        org.expire_sessions();
        let (status, ..) = send(&client, get(LIMITS)).await.unwrap();
        assert_eq!(status, StatusCode::OK);
        let live = layer.handle().try_session().unwrap();
        tokens.push(live.refresh_token().unwrap().expose().to_owned());
    }
    let counters = org.counters();
    assert_eq!((counters.token_requests, counters.tokens_issued), (50, 50));
    assert_eq!(counters.refresh_token_reuses, 0);
    tokens.dedup();
    assert_eq!(tokens.len(), 51, "each answer has a new one");

    // An answer without a refresh token keeps the previous one.
    org.rotate_refresh_tokens(false);
    for _ in 0..3 {
        org.expire_sessions();
        send(&client, get(LIMITS)).await.unwrap();
        let live = layer.handle().try_session().unwrap();
        assert_eq!(live.refresh_token().unwrap().expose(), tokens[50]);
    }
}

#[tokio::test]
async fn a_refusal_names_host_grant_code_and_remedy() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    let flow = refresh_token(&org, &grant);
    // The status, error and description, whether it is terminal, and a part of the message.
    for (status, error, description, terminal, text) in [
        (
            400,
            "invalid_grant",
            "expired access/refresh token",
            true,
            "a new authorization is needed",
        ),
        (
            400,
            "invalid_grant",
            "token request is already being processed",
            false,
            "already being processed",
        ),
        (
            400,
            "invalid_client_id",
            "client identifier invalid",
            true,
            "check the consumer key",
        ),
        (
            400,
            "invalid_client",
            "invalid client credentials",
            true,
            "check the consumer secret",
        ),
        (400, "inactive_user", "", true, "inactive_user"),
        (
            400,
            "something_new",
            "for unknown reasons",
            true,
            "something_new (for unknown reasons)",
        ),
        (
            400,
            "unknown_error",
            "retry your request",
            false,
            "retry your request",
        ),
        (503, "something_new", "", false, "something_new"),
        (
            503,
            "invalid_grant",
            "expired access/refresh token",
            true,
            "expired",
        ),
        (
            400,
            "rate_limit_exceeded",
            "number of logins exceeded",
            false,
            "rate_limit_exceeded",
        ),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        org.on_token(Fault::refuse(status, error, description));
        let refused = flow.log_in().await.unwrap_err();
        let refusal = "127.0.0.1 refused the refresh_token grant: ";
        assert_refused(&refused, error, terminal, refusal, text);
        let pause = (error == "rate_limit_exceeded").then_some(Duration::from_secs(3_600));
        assert_eq!(refused.retry_after(), pause);
    }
    org.on_token(Fault::refuse(
        StatusCode::BAD_REQUEST,
        "invalid_grant",
        "request not supported on this domain",
    ));
    let flow = ClientCredentials::new(token_client(), app(&org).client_secret("hush"));
    let refused = flow.log_in().await.unwrap_err();
    assert!(refused.to_string().contains("My Domain"), "{refused}");

    org.on_token(Fault::Maintenance);
    let refused = flow.log_in().await.unwrap_err();
    assert_eq!(refused.kind(), RefreshErrorKind::InvalidResponse);
    assert!(!refused.is_terminal());

    org.on_token(Fault::LoseAnswer);
    let lost = flow.log_in().await.unwrap_err();
    assert_eq!(lost.kind(), RefreshErrorKind::Transport);
    assert!(!lost.is_terminal());
}

#[tokio::test]
async fn a_wrong_secret_is_sent_once() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let flow = ClientCredentials::new(token_client(), app(&org).client_secret("hush"));
    let client = client(&SalesforceAuthLayer::new(flow), Protocol::H2);
    let error = send(&client, get(LIMITS)).await.unwrap_err();
    let error: &Error = error.downcast_ref().unwrap();
    assert_eq!(
        error.refresh_error().unwrap().error_code(),
        Some("invalid_client")
    );
    assert_eq!(org.counters().token_requests, 1);
    assert!(!format!("{error:?}").contains("hush"));
}

#[tokio::test]
async fn a_refresh_fn_may_wrap_a_flow() {
    // A wrapper can save the rotated token before a request uses the session.
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    let flow = Arc::new(refresh_token(&org, &grant));
    let saved = Arc::new(Mutex::new(Vec::new()));
    let layer = {
        let saved = saved.clone();
        SalesforceAuthLayer::new(move |context: RefreshContext| {
            let (flow, saved) = (flow.clone(), saved.clone());
            async move {
                let session = flow.refresh(context).await?;
                let token = session.refresh_token().cloned();
                saved.lock().unwrap().push(token);
                Ok::<Session, RefreshError>(session)
            }
        })
    };
    let (status, ..) = send(&client(&layer, Protocol::H2), get(LIMITS))
        .await
        .unwrap();
    assert_eq!(status, StatusCode::OK);
    let live = layer.handle().try_session().unwrap();
    assert_eq!(*saved.lock().unwrap(), [live.refresh_token().cloned()]);
    let _ = layer.layer(());
}

#[tokio::test]
async fn an_https_client_logs_in_over_a_connection_of_its_flow() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let client: SalesforceClient =
        https::client(|http| ClientCredentials::new(http, app(&org))).unwrap();
    assert!(client.handle().try_session().is_none());
    for calls in 1..=3 {
        org.expire_sessions();
        let request = Request::get(LIMITS).body(Full::default()).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
        assert_eq!(org.counters().token_requests, calls);
    }
    // One is for the logins, and one for the data.
    assert_eq!(org.counters().connections, 2);
}
