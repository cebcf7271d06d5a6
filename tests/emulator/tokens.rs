//! Revocation, introspection, identity and userinfo.

use http::header::{ACCEPT, AUTHORIZATION};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_salesforce_auth::emulator::{Fault, Org};

use crate::support::{
    Answer, LIMITS, assert_refused, bearer, bytes_of, empty, encode, form, get_limits, grant,
    json_of, post_form, refresh, send, set_time,
};

const REVOKE: &str = "/services/oauth2/revoke";
const NOW: u64 = 1_750_000_000;

// === revoke ===

#[tokio::test]
async fn revoking_a_refresh_token_ends_its_sessions() {
    let org = Org::new();
    let (consent, bystander) = (org.authorize(), org.authorize());
    let next = json_of(refresh(&org, consent.refresh_token()).await).await;
    let response = revoke(&org, next["refresh_token"].as_str().unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(bytes_of(response).await.is_empty());

    let ended = StatusCode::UNAUTHORIZED;
    assert_eq!(get_limits(&org, consent.access_token()).await, ended);
    let access_token = next["access_token"].as_str().unwrap();
    assert_eq!(get_limits(&org, access_token).await, ended);
    let response = refresh(&org, next["refresh_token"].as_str().unwrap()).await;
    assert_refused(response, "invalid_grant", "expired access/refresh token").await;
    let status = get_limits(&org, bystander.access_token()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(org.counters().tokens_revoked, 1);
}

#[tokio::test]
async fn revoking_an_access_token_ends_only_that_token() {
    let org = Org::new();
    let consent = org.authorize();
    let uri = format!("{REVOKE}?{}", encode(&[("token", consent.access_token())]));
    let response = send(&org, Request::get(uri).body(empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let status = get_limits(&org, consent.access_token()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let response = refresh(&org, consent.refresh_token()).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_approval_beyond_the_limit_revokes_the_oldest() {
    let org = Org::new();
    org.limit_approvals(5);
    let grants: Vec<_> = (0..6).map(|_| org.authorize()).collect();
    let status = get_limits(&org, grants[0].access_token()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let response = refresh(&org, grants[0].refresh_token()).await;
    assert_refused(response, "invalid_grant", "expired access/refresh token").await;
    for grant in &grants[1..] {
        let response = refresh(&org, grant.refresh_token()).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_revoked_or_unknown_token_cannot_be_revoked() {
    let org = Org::new();
    let consent = org.authorize();
    revoke(&org, consent.refresh_token()).await;
    for token in [
        consent.refresh_token(),
        consent.access_token(),
        "unknown",
        "",
    ] {
        let response = revoke(&org, token).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let body = bytes_of(response).await;
        assert!(body.starts_with(b"error=invalid_token&error_description="));
    }
    let mut request = post_form(REVOKE, "token=unknown");
    let json = "application/json".parse().unwrap();
    request.headers_mut().insert(ACCEPT, json);
    let response = send(&org, request).await;
    let description = "invalid token: unknown or revoked";
    assert_refused(response, "invalid_token", description).await;
    assert_eq!(org.counters().revoke_requests, 6);
    assert_eq!(org.counters().tokens_revoked, 1);
}

#[tokio::test]
async fn the_revocation_endpoint_has_its_own_faults() {
    let org = Org::new();
    let consent = org.authorize();
    org.on_revoke(Fault::refuse(
        StatusCode::INTERNAL_SERVER_ERROR,
        "server_error",
        "try again",
    ));
    let response = revoke(&org, consent.refresh_token()).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body = bytes_of(response).await;
    assert_eq!(body, "error=server_error&error_description=try+again");
    org.on_revoke(Fault::Maintenance);
    let response = revoke(&org, consent.refresh_token()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let response = refresh(&org, consent.refresh_token()).await;
    assert_eq!(response.status(), StatusCode::OK);

    // A lost answer comes after the revocation.
    org.on_revoke(Fault::LoseAnswer);
    let request = post_form(REVOKE, encode(&[("token", consent.access_token())]));
    org.clone().oneshot(request).await.unwrap_err();
    let status = get_limits(&org, consent.access_token()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_strict_revocation_wants_the_app_authenticated() {
    let org = Org::new();
    org.require_authentication_to_revoke(true);
    let token = org.authorize().refresh_token().to_owned();
    let revoke = async |pairs: &[(&str, &str)]| {
        let form = encode(&[&[("token", &*token)], pairs].concat());
        send(&org, post_form(REVOKE, form)).await
    };
    let id = ("client_id", org.client_id());
    for (pairs, error, description) in [
        (&[][..], "invalid_client_id", "client identifier invalid"),
        (&[id], "invalid_client", "invalid client credentials"),
        (
            &[id, ("client_secret", "x")],
            "invalid_client",
            "invalid client credentials",
        ),
    ] {
        assert_refused(revoke(pairs).await, error, description).await;
    }
    org.require_secret(false);
    assert_eq!(revoke(&[id]).await.status(), StatusCode::OK);
    assert_eq!(org.counters().tokens_revoked, 1);
}

// === introspect ===

#[tokio::test]
async fn introspection_reports_valid_tokens_as_active() {
    let org = Org::new();
    set_time(&org, NOW);
    let consent = org.authorize();
    let known = introspect(&org, consent.access_token()).await;
    let expected = json!({
        "active": true,
        "scope": "refresh_token api",
        "client_id": org.client_id(),
        "username": org.username(),
        "sub": format!("{}/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS", org.login_url()),
        "token_type": "access_token",
        "exp": NOW + 7_200,
        "iat": NOW,
        "nbf": NOW - 5,
    });
    assert_eq!(known, expected);
    let known = introspect(&org, consent.refresh_token()).await;
    assert_eq!(known["token_type"], "refresh_token");
    assert_eq!(org.counters().introspections, 2);

    org.expire_sessions();
    let inactive = json!({ "active": false });
    assert_eq!(introspect(&org, consent.access_token()).await, inactive);
    assert_eq!(introspect(&org, "unknown").await, inactive);
    let request = post_form("/services/oauth2/introspect", "token=x");
    let response = send(&org, request).await;
    assert_refused(response, "invalid_client_id", "client identifier invalid").await;
}

#[tokio::test]
async fn a_session_id_of_the_password_grant_cannot_be_introspected() {
    let org = Org::new();
    let password = format!("{}{}", org.password(), org.security_token());
    let body = json_of(
        grant(
            &org,
            &[
                ("grant_type", "password"),
                ("username", org.username()),
                ("password", &password),
            ],
        )
        .await,
    )
    .await;
    let token = body["access_token"].as_str().unwrap();
    let known = introspect(&org, token).await;
    assert_eq!(known, json!({ "active": false }));
    assert_eq!(get_limits(&org, token).await, StatusCode::OK);
}

// === JWT-based access tokens ===

#[tokio::test]
async fn a_jwt_access_token_expires_when_it_says() {
    let org = Org::new();
    org.issue_jwt_access_tokens(true);
    set_time(&org, NOW);
    let consent = org.authorize();
    let body = json_of(refresh(&org, consent.refresh_token()).await).await;
    assert_eq!(body["token_format"], "jwt");
    let token = body["access_token"].as_str().unwrap();
    assert!(token.starts_with("eyJ"));
    assert_ne!(token, consent.access_token());
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(token)
        .unwrap()
        .claims;
    assert_eq!(claims["exp"], NOW + 1_800);
    assert_eq!(claims["scp"], "refresh_token api");
    assert_eq!(claims["sub"], "uid:005xx000001SwiUAAS");
    assert_eq!(introspect(&org, token).await["exp"], NOW + 1_800);

    set_time(&org, NOW + 1_799);
    assert_eq!(get_limits(&org, token).await, StatusCode::OK);
    set_time(&org, NOW + 1_800);
    assert_eq!(get_limits(&org, token).await, StatusCode::UNAUTHORIZED);
    let known = introspect(&org, token).await;
    assert_eq!(known, json!({ "active": false }));
}

#[tokio::test]
async fn a_jwt_of_another_issuer_is_rejected() {
    let org = Org::new();
    let unsigned = bearer("eyJhbGciOiJub25lIn0.e30.");
    let request = Request::get(LIMITS).header(AUTHORIZATION, unsigned);
    let response = send(&org, request.body(empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["www-authenticate"], "Token");
    let expected = json!([{
        "message": "INVALID_JWT_FORMAT",
        "errorCode": "INVALID_AUTH_HEADER",
    }]);
    assert_eq!(json_of(response).await, expected);
    assert_eq!(org.counters().data_rejected, 1);
}

// === who the user is ===

#[tokio::test]
async fn userinfo_and_the_identity_url_name_the_user() {
    let org = Org::new();
    let body = json_of(refresh(&org, org.authorize().refresh_token()).await).await;
    let token = body["access_token"].as_str().unwrap();
    let id = body["id"].as_str().unwrap();
    let identity = json_of(ask(&org, id, Some(token)).await).await;
    assert_eq!(identity["id"], id);
    assert_eq!(identity["username"], org.username());
    let partner = format!(
        "{}/services/Soap/u/{{version}}/00Dxx0000001gEF",
        org.instance_url()
    );
    assert_eq!(identity["urls"]["partner"], partner);

    let userinfo = json_of(ask(&org, USERINFO, Some(token)).await).await;
    assert_eq!(userinfo["sub"], id);
    assert_eq!(userinfo["preferred_username"], org.username());
    assert_eq!(org.counters().identity_requests, 2);
    assert_eq!(org.counters().data_requests, 0);
}

#[tokio::test]
async fn userinfo_and_identity_refuse_a_bad_token_with_403() {
    let org = Org::new();
    let consent = org.authorize();
    let path = "/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS";
    for uri in [path, USERINFO] {
        for (token, word) in [
            (Some("unknown"), "Bad_OAuth_Token"),
            (None, "Missing_OAuth_Token"),
        ] {
            let response = ask(&org, uri, token).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN);
            let content_type = &response.headers()["content-type"];
            assert_eq!(content_type, "text/html;charset=UTF-8");
            assert_eq!(bytes_of(response).await, word);
        }
    }
    let token = Some(consent.access_token());
    let other = ask(&org, "/id/00Dxx0000009ZZZEAY/005xx000001SwiUAAS", token).await;
    assert_eq!(other.status(), StatusCode::FORBIDDEN);
    assert_eq!(bytes_of(other).await, "Wrong_Org");
}

const USERINFO: &str = "/services/oauth2/userinfo";

async fn revoke(org: &Org, token: &str) -> Answer {
    send(org, post_form(REVOKE, encode(&[("token", token)]))).await
}

async fn introspect(org: &Org, token: &str) -> Value {
    let form = form(org, &[("token", token)]);
    let response = send(org, post_form("/services/oauth2/introspect", form)).await;
    assert_eq!(response.status(), StatusCode::OK);
    json_of(response).await
}

async fn ask(org: &Org, uri: &str, token: Option<&str>) -> Answer {
    let mut request = Request::get(uri);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, bearer(token));
    }
    send(org, request.body(empty()).unwrap()).await
}
