//! Calls of the module `oauth`, without a flow.

use std::time::{Duration, UNIX_EPOCH};

use http::{Method, StatusCode, header::AUTHORIZATION};
use serde_json::json;
use tower_salesforce_auth::{
    LoginUrl, RefreshErrorKind, RefreshFn, Secret, Session,
    emulator::{Fault, Org},
    flow::{JwtBearer, RefreshToken},
    oauth::{self, App, PrivateKey},
};

use crate::support::{answering, app, granted, public_app, recorded};

fn session_of(org: &Org) -> Session {
    granted(org).with_identity_url(format!(
        "{}/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS",
        org.login_url()
    ))
}

fn production() -> LoginUrl {
    LoginUrl::production()
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_by_hand() {
    let org = Org::new();
    let grant = org.authorize();
    let token = Secret::from(grant.refresh_token());
    let response = oauth::refresh_token(org.clone(), &app(&org), &token)
        .await
        .unwrap();
    assert_eq!(response.instance_url(), Some(&*org.instance_url()));
    assert_eq!(response.token_type(), Some("Bearer"));
    assert!(response.id().unwrap().contains("/id/00Dxx0000001gEFEAY/"));
    assert!(response.issued_at().is_some() && response.signature().is_some());
    assert_ne!(response.refresh_token(), Some(&token), "rotated");
    let login_url = org.login_url().parse().unwrap();
    let session = response.into_session(&login_url).unwrap();
    assert!(session.refresh_token().is_some());
}

#[tokio::test]
async fn a_token_response_exposes_every_salesforce_field() {
    let body = json!({
        "access_token": "00Dxx!AQ", "instance_url": "https://example.my.salesforce.com", "token_type": "Bearer",
        "id_token": "eyJ.e30.c2ln", "scope": "api openid", "expires_in": 7200, "token_format": "opaque",
        "api_instance_url": "https://api.salesforce.com", "sfdc_community_url": "https://example.my.site.com",
        "sfdc_community_id": "0DBxx", "issued_at": "1750000000123", "unknown": { "field": [1] },
    });
    let client = answering(200, &[], body.to_string());
    let app = App::new(production(), "3MVG9");
    let response = oauth::refresh_token(client, &app, &Secret::from("R"))
        .await
        .unwrap();
    assert_eq!(response.id_token().unwrap().expose(), "eyJ.e30.c2ln");
    assert_eq!(response.expires_in(), Some(Duration::from_secs(7200)));
    assert_eq!(response.token_format(), Some("opaque"));
    assert_eq!(
        response.api_instance_url(),
        Some("https://api.salesforce.com")
    );
    assert_eq!(
        response.sfdc_site_url(),
        Some("https://example.my.site.com")
    );
    assert_eq!(response.sfdc_site_id(), Some("0DBxx"));
    assert_eq!(response.access_token().unwrap().expose(), "00Dxx!AQ");
    let session = response.into_session(&production()).unwrap();
    let issued_at = UNIX_EPOCH + Duration::from_millis(1_750_000_000_123);
    assert_eq!(session.lifetime(), Some(Duration::from_secs(7200)));
    assert_eq!(
        session.expires_at(),
        Some(issued_at + Duration::from_secs(7200))
    );
}

/// The published example of Salesforce, in a complete answer.
#[tokio::test]
async fn a_signature_is_verified_if_the_secret_is_known() {
    let body = |signature: &str, issued_at: &str| {
        json!({
            "access_token": "00Dxx!AQ", "instance_url": "https://example.my.salesforce.com",
            "id": "https://login.salesforce.com/id/00Dd0000000dsWLEAY/005d0000000b8kWAAQ",
            "issued_at": issued_at, "signature": signature, "refresh_token": "R1-hush",
        })
        .to_string()
    };
    let good = "tDZZRHgqtJWXw1cEjyuazDNkonKuIYT2EYnJrC7zbc8=";
    let secret = "some consumer secret";
    let ask = async |body: String, app: &App| {
        oauth::refresh_token(answering(200, &[], body), app, &Secret::from("R0")).await
    };
    let public = App::new(production(), "3MVG9");
    let by_form = public.clone().client_secret(secret);
    let by_header = public
        .clone()
        .client_authentication(oauth::ClientAuthentication::secret_basic(secret));
    for app in [&public, &by_form, &by_header] {
        ask(body(good, "1332093834282"), app).await.unwrap();
    }
    for forged in [
        body(
            "tDZZRHgqtJWXw1cEjyuazDNkonKuIYT2EYnJrC7zbc9=",
            "1332093834282",
        ),
        body(good, "1332093834283"),
        body("not base64", "1332093834282"),
    ] {
        for app in [&by_form, &by_header] {
            let error = ask(forged.clone(), app).await.unwrap_err();
            assert_eq!(error.kind(), RefreshErrorKind::InvalidSignature);
            assert!(error.is_terminal());
            // The rotated token is kept: no older token may still work.
            assert_eq!(error.rotated_refresh_token().unwrap().expose(), "R1-hush");
            assert!(!format!("{error} {error:?}").contains("hush"));
        }
        ask(forged, &public).await.unwrap();
    }
    // Answers of the JWT bearer flow have no signature.
    let unsigned =
        r#"{"access_token":"00Dxx!AQ","instance_url":"https://example.my.salesforce.com"}"#;
    ask(unsigned.to_owned(), &by_form).await.unwrap();
}

#[tokio::test]
async fn r30_logout_revocation_posts_the_token_in_its_body() {
    let org = Org::new();
    let session = session_of(&org);
    let by_token = |at: LoginUrl| App::new(at, "");
    let login_url: LoginUrl = org.login_url().parse().unwrap();
    let (client, requests) = recorded(org.clone());
    oauth::revoke(
        client.clone(),
        &by_token(login_url.clone()),
        session.access_token(),
    )
    .await
    .unwrap();
    let [request] = requests.take().try_into().unwrap();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri().query(), None);
    let form: Vec<_> = form_urlencoded::parse(request.body())
        .into_owned()
        .collect();
    let token = session.access_token().expose().to_owned();
    assert_eq!(form, [("token".to_owned(), token)]);

    // Revoking an ended or unknown token is no error.
    oauth::revoke(
        client.clone(),
        &by_token(login_url.clone()),
        session.access_token(),
    )
    .await
    .unwrap();
    oauth::revoke(
        client.clone(),
        &by_token(login_url.clone()),
        &Secret::from("5Aep861"),
    )
    .await
    .unwrap();
    // The refresh token still works.
    let refresh_token = session.refresh_token().unwrap();
    oauth::refresh_token(client.clone(), &app(&org), refresh_token)
        .await
        .unwrap();
    let elsewhere = login_url
        .with_revocation_endpoint("https://gateway.example.com/revoke")
        .unwrap();
    requests.take();
    let _ = oauth::revoke(client, &by_token(elsewhere), refresh_token).await;
    assert_eq!(
        requests.take()[0].uri(),
        "https://gateway.example.com/revoke"
    );
}

#[tokio::test]
async fn a_failed_revocation_is_an_error_with_its_code() {
    let revoke = async |status, body: &'static str| {
        oauth::revoke(
            answering(status, &[], body),
            &App::new(production(), "3MVG9"),
            &Secret::from("T-hush"),
        )
        .await
    };
    for (status, body, code, terminal) in [
        (
            400,
            "error=unsupported_token_type&error_description=no%20T-hush",
            Some("unsupported_token_type"),
            true,
        ),
        (
            400,
            r#"{"error":"unsupported_token_type"}"#,
            Some("unsupported_token_type"),
            true,
        ),
        (
            503,
            "<html><a href='/?a&error=x'>We are down</a></html>",
            None,
            false,
        ),
        (500, "", None, false),
    ] {
        let error = revoke(status, body).await.unwrap_err();
        assert_eq!(error.error_code(), code, "{body}");
        assert_eq!(error.is_terminal(), terminal, "{body}");
        assert!(error.to_string().contains("login.salesforce.com"));
        assert!(!format!("{error} {error:?}").contains("hush"));
    }
    for done in [
        "error=invalid_token&error_description=invalid%20token",
        r#"{"error":"invalid_token"}"#,
    ] {
        revoke(400, done).await.unwrap();
    }
}

#[tokio::test]
async fn an_introspection_says_whether_a_token_is_active() {
    let org = Org::new();
    let session = session_of(&org);
    let introspection = oauth::introspect(org.clone(), &app(&org), session.access_token())
        .await
        .unwrap();
    assert!(introspection.active);
    assert_eq!(introspection.client_id.as_deref(), Some(org.client_id()));
    assert_eq!(introspection.username.as_deref(), Some(org.username()));
    assert!(introspection.sub.unwrap().contains("/id/"));
    assert!(introspection.exp > introspection.iat);
    let unknown = oauth::introspect(org.clone(), &app(&org), &Secret::from("x"))
        .await
        .unwrap();
    assert_eq!(unknown, oauth::Introspection::default());
    let refused = oauth::introspect(
        org.clone(),
        &app(&org).client_secret("hush"),
        session.access_token(),
    )
    .await
    .unwrap_err();
    assert_eq!(refused.error_code(), Some("invalid_client"));
}

#[tokio::test]
async fn identity_and_userinfo_name_the_same_user() {
    let org = Org::new();
    let session = session_of(&org);
    let (client, requests) = recorded(org.clone());
    let identity = oauth::identity(client.clone(), &session).await.unwrap();
    assert_eq!(identity.organization_id, "00Dxx0000001gEFEAY");
    assert_eq!(identity.user_id, "005xx000001SwiUAAS");
    assert_eq!(identity.username.as_deref(), Some(org.username()));
    assert!(identity.urls.contains_key("rest"));
    let userinfo = oauth::userinfo(client.clone(), &session).await.unwrap();
    assert_eq!(userinfo.organization_id, identity.organization_id);
    assert_eq!(userinfo.preferred_username, identity.username);
    for request in requests.take() {
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
    }

    org.expire_sessions();
    for refused in [
        oauth::identity(client.clone(), &session).await.map(drop),
        oauth::userinfo(client.clone(), &session).await.map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.error_code(), Some("Bad_OAuth_Token"));
        assert!(refused.to_string().contains("has expired"), "{refused}");
    }
    let bare = Session::new("00Dxx!AQ", "https://example.my.salesforce.com").unwrap();
    let error = oauth::identity(client, &bare).await.unwrap_err();
    assert_eq!(error.kind(), RefreshErrorKind::Configuration);
}

/// A server must not choose where the token is sent.
#[tokio::test]
async fn r16_a_foreign_identity_url_is_asked_at_the_instance() {
    let org = Org::new();
    let (client, requests) = recorded(org.clone());
    let session = session_of(&org)
        .with_identity_url("https://evil.example.com/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS");
    oauth::identity(client, &session).await.unwrap();
    let requests = requests.take();
    assert_eq!(
        requests[0].uri().host(),
        Some(session.instance_url().host())
    );
}

#[tokio::test]
async fn discovery_returns_a_login_url_that_works() {
    let org = Org::new();
    let login_url: LoginUrl = org.login_url().parse().unwrap();
    let discovery = oauth::discover(org.clone(), &login_url).await.unwrap();
    assert_eq!(discovery.issuer, org.login_url());
    assert_eq!(discovery.token_endpoint, org.token_url());
    assert!(discovery.jwks_uri.is_some());
    assert!(
        discovery
            .scopes_supported
            .iter()
            .any(|scope| scope == "refresh_token")
    );
    // A discovery document can be stored as JSON.
    let kept = serde_json::to_string(&discovery).unwrap();
    let discovery: oauth::Discovery = serde_json::from_str(&kept).unwrap();
    let discovered = discovery.login_url().unwrap();
    let grant = org.authorize();
    let app = App::new(discovered, org.client_id()).client_secret(org.client_secret());
    RefreshToken::new(org.clone(), app, grant.refresh_token())
        .log_in()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_discovery_document_of_another_host_is_refused() {
    let document = |issuer: &str, token_endpoint: &str| {
        json!({
            "issuer": issuer,
            "authorization_endpoint": "https://login.salesforce.com/services/oauth2/authorize",
            "token_endpoint": token_endpoint,
        })
        .to_string()
    };
    let good = "https://login.salesforce.com/services/oauth2/token";
    let discover =
        async |status, body| oauth::discover(answering(status, &[], body), &production()).await;
    discover(200, document("https://login.salesforce.com", good))
        .await
        .unwrap();
    for (status, body) in [
        (200, document("https://evil.example.com", good)),
        (200, document("not a URL", good)),
        (
            200,
            document(
                "https://login.salesforce.com",
                "https://evil.example.com/token",
            ),
        ),
        (
            200,
            document(
                "https://login.salesforce.com",
                "http://login.salesforce.com/token",
            ),
        ),
        (200, "{}".to_owned()),
        (200, "<html>".to_owned()),
        (404, document("https://login.salesforce.com", good)),
    ] {
        let error = discover(status, body.clone()).await.unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::InvalidResponse, "{body}");
    }
}

#[tokio::test]
async fn a_jwt_access_token_says_when_it_expires() {
    let org = Org::new();
    org.issue_jwt_access_tokens(true);
    let key = PrivateKey::from_pem(org.jwt_private_key()).unwrap();
    let flow = JwtBearer::new(org.clone(), public_app(&org), org.username(), key);
    let session = flow.log_in().await.unwrap();
    assert!(session.is_jwt());
    assert!(session.expires_at().is_some());
    for (token, is_jwt, exp) in [
        // {"exp":1750000000}
        (
            "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3NTAwMDAwMDB9.c2ln",
            true,
            Some(1_750_000_000),
        ),
        // {"exp":"soon"}
        ("eyJhbGciOiJSUzI1NiJ9.eyJleHAiOiJzb29uIn0.c2ln", true, None),
        // {"exp":1e300}
        ("eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjFlMzAwfQ.c2ln", true, None),
        // {"exp":-1}
        ("eyJhbGciOiJSUzI1NiJ9.eyJleHAiOi0xfQ.c2ln", true, None),
        ("eyJhbGciOiJSUzI1NiJ9.!!!.c2ln", true, None),
        ("eyJhbGciOiJSUzI1NiJ9..c2ln", true, None),
        ("eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3NTAwMDAwMDB9", false, None),
        ("eyJh.a.b.c", false, None),
        ("00Dxx0000001gEF!AQEAQ.abc.def", false, None),
    ] {
        let session = Session::new(token, "https://example.my.salesforce.com").unwrap();
        assert_eq!(session.is_jwt(), is_jwt, "{token}");
        let exp = exp.map(|exp| UNIX_EPOCH + Duration::from_secs(exp));
        assert_eq!(session.expires_at(), exp, "{token}");
    }
}

#[tokio::test]
async fn a_token_endpoint_fault_reaches_a_call_by_hand() {
    let org = Org::new();
    let token = Secret::from(org.authorize().refresh_token());
    org.on_token(Fault::refuse(
        StatusCode::BAD_REQUEST,
        "unknown_error",
        "retry your request",
    ));
    let error = oauth::refresh_token(org.clone(), &app(&org), &token)
        .await
        .unwrap_err();
    assert!(!error.is_terminal());
    org.on_token(Fault::Maintenance);
    let error = oauth::refresh_token(org.clone(), &app(&org), &token)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RefreshErrorKind::InvalidResponse);
    assert!(!error.is_terminal());
}

#[tokio::test]
async fn r30_logout_revocation_fails_on_a_server_error() {
    let body = r#"{"error":"invalid_token"}"#;
    let revoke = async |status| {
        let token = Secret::from("T");
        oauth::revoke(
            answering(status, &[], body),
            &App::new(production(), "3MVG9"),
            &token,
        )
        .await
    };
    assert!(revoke(400).await.is_ok());
    assert!(revoke(503).await.is_err());
}

#[tokio::test]
async fn a_discovery_document_of_another_issuer_is_refused() {
    let document = |issuer: &str| {
        serde_json::json!({
            "issuer": issuer,
            "authorization_endpoint": "https://example.my.site.com/a/services/oauth2/authorize",
            "token_endpoint": "https://example.my.site.com/a/services/oauth2/token",
        })
        .to_string()
    };
    let login_url: LoginUrl = "https://example.my.site.com/a".parse().unwrap();
    for (issuer, is_ours) in [
        ("https://example.my.site.com/a", true),
        ("https://example.my.site.com/b", false),
        ("https://example.my.site.com", false),
    ] {
        let discovered = oauth::discover(answering(200, &[], document(issuer)), &login_url).await;
        assert_eq!(discovered.is_ok(), is_ours, "{issuer}");
    }
}
