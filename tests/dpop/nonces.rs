//! Nonces: kept for each server, and never the cause of a loop.

use http::StatusCode;
use tower_salesforce_auth::{
    RefreshErrorKind, RefreshFn, SalesforceAuthLayer, SessionHandle,
    emulator::Org,
    flow::{ClientCredentials, RefreshToken},
    oauth::{self, ClientAuthentication, PrivateKey},
    request::{AuthOutcome, ReplaySkipped},
};

use crate::support::{LIMITS, app, bound_app, get, recorded, requiring_org, whole};

#[tokio::test]
async fn r35_a_nonce_costs_one_more_call_once() {
    let org = requiring_org();
    org.require_dpop_nonce(true);
    let (app, key) = bound_app(&org);
    let login = ClientCredentials::new(org.clone(), app);
    let session = login.log_in().await.unwrap();
    assert_eq!(org.counters().token_requests, 2);
    login.log_in().await.unwrap();
    assert_eq!(org.counters().token_requests, 3);
    // The instance is the same server.
    oauth::identity(org.clone(), &session).await.unwrap();
    assert_eq!(org.counters().identity_requests, 1);
    org.rotate_dpop_nonce();
    oauth::userinfo(org.clone(), &session).await.unwrap();
    assert_eq!(org.counters().identity_requests, 3);
    login.log_in().await.unwrap();
    assert_eq!(org.counters().token_requests, 4);
    assert_eq!(session.dpop_key(), Some(&key));
}

#[tokio::test]
async fn r35_a_nonce_costs_no_refresh_token() {
    let org = requiring_org();
    let (app, _) = bound_app(&org);
    let first = crate::stores::authorized(&org, &app).await;
    org.require_dpop_nonce(true);
    let (client, requests) = recorded(org.clone());
    let flow = RefreshToken::new(client, app, "none");
    let handle = SessionHandle::builder(flow).initial_session(first).build();
    for _ in 0..5 {
        org.rotate_dpop_nonce();
        handle.refresh().await.unwrap();
    }
    let counters = org.counters();
    assert_eq!(
        (counters.refresh_token_reuses, counters.tokens_issued),
        (0, 6)
    );
    assert_eq!(requests.take().len(), 10);
}

#[tokio::test]
async fn r35_an_assertion_is_made_again_for_a_nonce() {
    let org = requiring_org();
    org.require_dpop_nonce(true);
    let key = PrivateKey::from_pem(org.jwt_private_key()).unwrap();
    let (app, _) = bound_app(&org);
    let app = app.client_authentication(ClientAuthentication::private_key_jwt(key));
    let (client, requests) = recorded(org.clone());
    ClientCredentials::new(client, app).log_in().await.unwrap();
    let bodies: Vec<_> = requests.take().iter().map(|it| it.body().clone()).collect();
    assert_eq!(bodies.len(), 2);
    assert_ne!(bodies[0], bodies[1]);
}

#[tokio::test]
async fn r35_a_nonce_that_always_changes_ends_with_an_error() {
    let org = requiring_org();
    org.require_dpop_nonce(true);
    org.change_dpop_nonce_always(true);
    let login = ClientCredentials::new(org.clone(), bound_app(&org).0);
    let error = login.log_in().await.unwrap_err();
    assert_eq!(error.kind(), RefreshErrorKind::Refused);
    assert_eq!(error.error_code(), Some("use_dpop_nonce"));
    assert!(
        error.to_string().contains("another nonce at every call"),
        "{error}"
    );
    assert!(!error.is_terminal());
    assert_eq!(org.counters().token_requests, 2);
}

#[tokio::test]
async fn r35_a_nonce_of_a_resource_costs_one_replay() {
    let org = requiring_org();
    org.require_dpop_nonce_for_data(true);
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), bound_app(&org).0));
    for _ in 0..3 {
        assert_eq!(get(&layer, whole(org.clone())).await, StatusCode::OK);
    }
    let counters = org.counters();
    assert_eq!((counters.data_requests, counters.token_requests), (4, 1));
    org.rotate_dpop_nonce();
    assert_eq!(get(&layer, whole(org.clone())).await, StatusCode::OK);
    let counters = org.counters();
    assert_eq!((counters.data_requests, counters.token_requests), (6, 1));
}

#[tokio::test]
async fn r35_a_nonce_and_an_expiry_cost_one_replay_each() {
    let org = requiring_org();
    org.require_dpop_nonce_for_data(true);
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), bound_app(&org).0));
    assert_eq!(get(&layer, whole(org.clone())).await, StatusCode::OK);
    org.expire_sessions();
    org.rotate_dpop_nonce();
    // The org looks at the session first: it has ended, and its key with it. Then the new session meets the new nonce.
    assert_eq!(get(&layer, whole(org.clone())).await, StatusCode::OK);
    let counters = org.counters();
    assert_eq!((counters.data_requests, counters.token_requests), (5, 2));
}

#[tokio::test]
async fn r35_a_resource_that_always_changes_its_nonce_is_told() {
    use bytes::Bytes;
    use http::Request;
    use http_body_util::Full;
    use tower::{Layer, ServiceExt};

    let org = requiring_org();
    org.require_dpop_nonce_for_data(true);
    org.change_dpop_nonce_always(true);
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), bound_app(&org).0));
    let request = Request::get(LIMITS).body(Full::<Bytes>::default()).unwrap();
    let response = layer.layer(org.clone()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let outcome = response.extensions().get::<AuthOutcome>().unwrap();
    assert_eq!(outcome.replay_skipped(), Some(ReplaySkipped::NonceRefused));
    assert_eq!((outcome.attempts(), outcome.refreshed()), (2, false));
    let counters = org.counters();
    assert_eq!((counters.data_requests, counters.token_requests), (2, 1));
}

#[tokio::test]
async fn r35_a_nonce_of_a_bearer_server_is_ignored() {
    let org = Org::new();
    org.require_dpop_nonce(true);
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), app(&org)));
    assert_eq!(get(&layer, whole(org.clone())).await, StatusCode::OK);
    assert_eq!(org.counters().token_requests, 1);
}
