//! The grants that need no browser.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tower_salesforce_auth::emulator::Org;

use crate::support::{
    Answer, assert_refused, encode, fields, get_limits, grant, json_of, refresh, send, set_time,
    token_request,
};

const NOW: u64 = 1_750_000_000;
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const SAML_BEARER: &str = "urn:ietf:params:oauth:grant-type:saml2-bearer";
const NOT_APPROVED: &str = "user hasn't approved this consumer";

// === username and password ===

#[tokio::test]
async fn the_password_grant_answers_with_a_plain_session_id() {
    let org = Org::new();
    let body = json_of(log_in(&org, &org.username().to_uppercase(), &secret(&org)).await).await;
    let expected = [
        "access_token",
        "id",
        "instance_url",
        "issued_at",
        "signature",
        "token_type",
    ];
    assert_eq!(fields(&body), expected);
    let access_token = body["access_token"].as_str().unwrap();
    assert_eq!(get_limits(&org, access_token).await, StatusCode::OK);
    assert_eq!(org.counters().logins, 1);
    assert_eq!(org.counters().failed_logins, 0);
}

#[tokio::test]
async fn every_failed_login_looks_the_same() {
    let org = Org::new();
    let failure = ("invalid_grant", "authentication failure");
    let cases = [
        (org.username(), org.password().to_owned()),
        (org.username(), format!("wrong{}", org.security_token())),
        ("unknown@example.com", secret(&org)),
    ];
    for (username, password) in cases {
        let response = log_in(&org, username, &password).await;
        assert_refused(response, failure.0, failure.1).await;
    }
    assert_eq!(org.counters().failed_logins, 3);
    org.block_password_flow(true);
    let response = log_in(&org, org.username(), &secret(&org)).await;
    assert_refused(response, failure.0, failure.1).await;
    org.block_password_flow(false);
    org.expire_password(true);
    let response = log_in(&org, org.username(), &secret(&org)).await;
    assert_refused(response, failure.0, failure.1).await;

    org.expire_password(false);
    org.require_security_token(false);
    let response = log_in(&org, org.username(), org.password()).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_locked_out_user_gets_the_wrong_password_answer() {
    let org = Org::new();
    org.lock_out_after(3);
    for _ in 0..3 {
        let response = log_in(&org, org.username(), "wrong").await;
        assert_refused(response, "invalid_grant", "authentication failure").await;
    }
    let response = log_in(&org, org.username(), &secret(&org)).await;
    assert_refused(response, "invalid_grant", "authentication failure").await;
    org.unlock_user();
    let response = log_in(&org, org.username(), &secret(&org)).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_deactivated_user_can_neither_log_in_nor_refresh() {
    let org = org_at_now();
    let consent = org.authorize();
    org.deactivate_user(true);
    let response = log_in(&org, org.username(), &secret(&org)).await;
    assert_refused(response, "invalid_grant", "inactive user").await;
    let response = refresh(&org, consent.refresh_token()).await;
    assert_refused(response, "invalid_grant", "inactive user").await;
    let response = bear(&org, &sign(&org, &claims(&org))).await;
    assert_refused(response, "invalid_grant", NOT_APPROVED).await;

    org.deactivate_user(false);
    let response = refresh(&org, consent.refresh_token()).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn logins_by_password_and_by_assertion_share_one_limit() {
    let org = org_at_now();
    org.limit_logins(2);
    let response = log_in(&org, org.username(), &secret(&org)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let response = bear(&org, &sign(&org, &claims(&org))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let exceeded = ("rate_limit_exceeded", "login rate exceeded");
    let response = log_in(&org, org.username(), &secret(&org)).await;
    assert_refused(response, exceeded.0, exceeded.1).await;
    let response = bear(&org, &sign(&org, &claims(&org))).await;
    assert_refused(response, exceeded.0, exceeded.1).await;

    org.limit_logins(None);
    let response = bear(&org, &sign(&org, &claims(&org))).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(org.counters().logins, 3);
    assert_eq!(org.counters().failed_logins, 2);
}

// === client credentials ===

#[tokio::test]
async fn client_credentials_need_the_orgs_own_host() {
    let org = Org::new();
    let form = [("grant_type", "client_credentials")];
    let body = json_of(grant(&org, &form).await).await;
    assert_eq!(body["scope"], "api");
    assert_eq!(body["signature"].as_str().map(str::len), Some(44));

    org.act_as_shared_login_host(true);
    let response = grant(&org, &form).await;
    let description = "request not supported on this domain";
    assert_refused(response, "invalid_grant", description).await;
}

// === JWT bearer ===

#[tokio::test]
async fn a_signed_assertion_begins_a_session() {
    let org = org_at_now();
    let body = json_of(bear(&org, &sign(&org, &claims(&org))).await).await;
    let expected = ["access_token", "id", "instance_url", "scope", "token_type"];
    assert_eq!(fields(&body), expected);
    let access_token = body["access_token"].as_str().unwrap();
    assert_eq!(get_limits(&org, access_token).await, StatusCode::OK);
}

#[tokio::test]
async fn both_forms_of_the_private_key_sign() {
    let org = org_at_now();
    let pem = org.jwt_private_key_pkcs1();
    assert!(pem.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
    let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    let assertion =
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims(&org), &key).unwrap();
    assert_eq!(bear(&org, &assertion).await.status(), StatusCode::OK);

    let public = jsonwebtoken::DecodingKey::from_rsa_pem(org.jwt_public_key().as_bytes()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    validation.set_audience(&[org.login_url()]);
    jsonwebtoken::decode::<Value>(&assertion, &public, &validation).unwrap();
}

#[tokio::test]
async fn assertions_are_refused_in_the_words_of_salesforce() {
    let org = org_at_now();
    let invalid = ("invalid_grant", "invalid assertion");
    let audience = ("invalid_grant", "audience is invalid");
    let not_approved = ("invalid_grant", NOT_APPROVED);
    let cases = [
        (
            "iss",
            json!("unknown"),
            ("invalid_client_id", "client identifier invalid"),
        ),
        ("sub", json!("unknown@example.com"), not_approved),
        ("sub", Value::Null, not_approved),
        // The older claim `prn` overrides `sub`.
        ("prn", json!("unknown@example.com"), not_approved),
        ("aud", json!("https://test.salesforce.com"), audience),
        ("aud", json!(format!("{}/", org.login_url())), audience),
        ("aud", Value::Null, audience),
        ("exp", json!(NOW), invalid),
        ("exp", json!(NOW + 301), invalid),
        // Milliseconds are accepted, but not a stale time or a distant one.
        ("exp", json!((NOW - 301) * 1_000), invalid),
        ("exp", json!((NOW + 301) * 1_000), invalid),
        ("exp", Value::Null, invalid),
        ("exp", json!(NOW.to_string()), invalid),
        ("exp", json!("soon"), invalid),
        ("nbf", json!(NOW + 1), invalid),
    ];
    for (name, value, (error, description)) in cases {
        let mut claims = claims(&org);
        claims[name] = value;
        let response = bear(&org, &sign(&org, &claims)).await;
        assert_refused(response, error, description).await;
    }
    let unsigned = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(claims(&org).to_string())
    );
    let response = bear(&org, &unsigned).await;
    assert_refused(response, invalid.0, invalid.1).await;
    assert_eq!(org.counters().tokens_issued, 0);
}

#[tokio::test]
async fn the_seconds_of_an_assertion_may_be_a_string() {
    let org = org_at_now();
    let mut claims = claims(&org);
    claims["exp"] = (NOW + 180).to_string().into();
    let response = bear(&org, &sign(&org, &claims)).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_expiry_in_milliseconds_is_accepted() {
    let org = org_at_now();
    // Salesforce's own CLI signs `Date.now() + 300`.
    let mut claims = claims(&org);
    claims["exp"] = (NOW * 1_000 + 300).into();
    let response = bear(&org, &sign(&org, &claims)).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_audience_is_a_login_url() {
    let org = org_at_now();
    org.move_instance("https://moved.example.com");
    for audience in [
        org.login_url(),
        org.instance_url(),
        "https://login.salesforce.com".to_owned(),
    ] {
        let mut claims = claims(&org);
        claims["aud"] = audience.into();
        let response = bear(&org, &sign(&org, &claims)).await;
        assert_eq!(response.status(), StatusCode::OK, "{claims}");
    }
}

#[tokio::test]
async fn a_jti_works_once() {
    let org = org_at_now();
    let mut claims = claims(&org);
    claims["jti"] = "one".into();
    let response = bear(&org, &sign(&org, &claims)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let response = bear(&org, &sign(&org, &claims)).await;
    assert_refused(response, "bad_jti_claim", "jti was used before").await;
    claims["jti"] = "two".into();
    let response = bear(&org, &sign(&org, &claims)).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_assertion_without_preauthorization_needs_a_consent() {
    let org = org_at_now();
    org.preauthorize(false);
    let response = bear(&org, &sign(&org, &claims(&org))).await;
    assert_refused(response, "invalid_grant", NOT_APPROVED).await;
    let _consent = org.authorize();
    let response = bear(&org, &sign(&org, &claims(&org))).await;
    assert_eq!(response.status(), StatusCode::OK);
    org.revoke_grants();
    let response = bear(&org, &sign(&org, &claims(&org))).await;
    assert_refused(response, "invalid_grant", NOT_APPROVED).await;
}

// === token exchange ===

#[tokio::test]
async fn a_trusted_token_can_be_exchanged() {
    let org = Org::new();
    let jwt = "urn:ietf:params:oauth:token-type:jwt";
    let exchange = [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", "outside token"),
        ("subject_token_type", jwt),
        ("scope", "api offline_access"),
        ("token_handler", "MyHandler"),
    ];
    let response = grant(&org, &exchange).await;
    assert_refused(response, "invalid_grant", NOT_APPROVED).await;
    org.trust_subject_token("outside token");
    let body = json_of(grant(&org, &exchange).await).await;
    assert_eq!(body["scope"], "api offline_access");
    assert_eq!(body.get("issued_token_type"), None);
    let refresh_token = body["refresh_token"].as_str().unwrap();
    assert_eq!(refresh(&org, refresh_token).await.status(), StatusCode::OK);

    let mut unknown_type = exchange;
    unknown_type[2].1 = "urn:ietf:params:oauth:token-type:magic";
    let response = grant(&org, &unknown_type).await;
    let description = "subject_token_type not supported";
    assert_refused(response, "unsupported_token_type", description).await;
    let long = "x".repeat(10_001);
    let mut too_long = exchange;
    too_long[1].1 = &long;
    let response = grant(&org, &too_long).await;
    assert_refused(response, "invalid_request", "subject_token is too long").await;
    org.act_as_shared_login_host(true);
    let response = grant(&org, &exchange).await;
    let description = "request not supported on this domain";
    assert_refused(response, "invalid_grant", description).await;
}

// === SAML ===

#[tokio::test]
async fn saml_assertions_of_both_flows_begin_a_session() {
    let org = Org::new();
    let document = saml(org.username(), &org.login_url());
    let bearer = encode(&[
        ("grant_type", SAML_BEARER),
        ("assertion", &URL_SAFE_NO_PAD.encode(&document)),
    ]);
    let browser = encode(&[
        ("grant_type", "assertion"),
        (
            "assertion_type",
            "urn:oasis:names:tc:SAML:2.0:profiles:SSO:browser",
        ),
        ("assertion", &STANDARD.encode(&document)),
        ("format", "json"),
    ]);
    for form in [bearer, browser] {
        let body = json_of(send(&org, token_request(form)).await).await;
        assert_eq!(body.get("refresh_token"), None);
        let access_token = body["access_token"].as_str().unwrap();
        assert_eq!(get_limits(&org, access_token).await, StatusCode::OK);
    }
}

#[tokio::test]
async fn saml_assertions_are_refused_in_the_words_of_salesforce() {
    let org = Org::new();
    let encoded = |document: String| URL_SAFE_NO_PAD.encode(document);
    let login_url = org.login_url();
    let cases = [
        (
            encoded(saml("unknown@example.com", &login_url)),
            NOT_APPROVED,
        ),
        (
            encoded(saml(org.username(), "https://elsewhere.example.com")),
            "Audience validation failed",
        ),
        (encoded("<Assertion>".to_owned()), "invalid assertion"),
        ("not base64!".to_owned(), "invalid assertion"),
    ];
    for (assertion, description) in cases {
        let form = encode(&[("grant_type", SAML_BEARER), ("assertion", &assertion)]);
        let response = send(&org, token_request(form)).await;
        assert_refused(response, "invalid_grant", description).await;
    }
    let form = encode(&[("grant_type", "assertion"), ("assertion", "x")]);
    let response = send(&org, token_request(form)).await;
    let description = "assertion_type not supported";
    assert_refused(response, "invalid_assertion_type", description).await;
}

// === client authentication ===

#[tokio::test]
async fn a_client_assertion_replaces_the_secret() {
    let org = org_at_now();
    let good = json!({
        "iss": org.client_id(),
        "sub": org.client_id(),
        "aud": org.token_url(),
        "exp": NOW + 60,
    });
    let response = ask_with_assertion(&org, &good).await;
    assert_eq!(response.status(), StatusCode::OK);
    for (name, value) in [
        ("iss", "another"),
        ("sub", "another"),
        ("aud", "https://elsewhere.example.com/services/oauth2/token"),
    ] {
        let mut wrong = good.clone();
        wrong[name] = value.into();
        let response = ask_with_assertion(&org, &wrong).await;
        assert_refused(response, "invalid_client", "invalid client credentials").await;
    }
    set_time(&org, NOW + 60);
    let response = ask_with_assertion(&org, &good).await;
    assert_refused(response, "invalid_client", "invalid client credentials").await;
}

#[tokio::test]
async fn an_optional_secret_is_checked_when_it_is_sent() {
    let org = Org::new();
    org.rotate_refresh_tokens(false);
    org.require_secret(false);
    let consent = org.authorize();
    let mut form = vec![
        ("grant_type", "refresh_token"),
        ("refresh_token", consent.refresh_token()),
        ("client_id", org.client_id()),
    ];
    let response = send(&org, token_request(encode(&form))).await;
    assert_eq!(response.status(), StatusCode::OK);
    form.push(("client_secret", "wrong"));
    let response = send(&org, token_request(encode(&form))).await;
    assert_refused(response, "invalid_client", "invalid client credentials").await;

    // The client credentials flow always needs the secret.
    let form = encode(&[
        ("grant_type", "client_credentials"),
        ("client_id", org.client_id()),
    ]);
    let response = send(&org, token_request(form)).await;
    assert_refused(response, "invalid_client", "invalid client credentials").await;
}

#[tokio::test]
async fn a_site_has_its_own_token_endpoint() {
    let org = org_at_now();
    let mut claims = claims(&org);
    claims["aud"] = format!("{}/site", org.login_url()).into();
    let form = encode(&[
        ("grant_type", JWT_BEARER),
        ("assertion", &sign(&org, &claims)),
    ]);
    let mut request = token_request(form.clone());
    *request.uri_mut() = "/site/services/oauth2/token".parse().unwrap();
    assert_eq!(send(&org, request).await.status(), StatusCode::OK);
    // Another endpoint refuses this audience.
    let response = send(&org, token_request(form.clone())).await;
    assert_refused(response, "invalid_grant", "audience is invalid").await;
    let mut request = token_request(form);
    *request.uri_mut() = "/a/b/services/oauth2/token".parse().unwrap();
    assert_eq!(send(&org, request).await.status(), StatusCode::NOT_FOUND);
}

fn org_at_now() -> Org {
    let org = Org::new();
    set_time(&org, NOW);
    org
}

fn secret(org: &Org) -> String {
    format!("{}{}", org.password(), org.security_token())
}

async fn log_in(org: &Org, username: &str, password: &str) -> Answer {
    let form = [
        ("grant_type", "password"),
        ("username", username),
        ("password", password),
    ];
    grant(org, &form).await
}

fn claims(org: &Org) -> Value {
    json!({
        "iss": org.client_id(),
        "sub": org.username(),
        "aud": org.login_url(),
        "exp": NOW + 120,
    })
}

fn sign(org: &Org, claims: &Value) -> String {
    let key = EncodingKey::from_rsa_pem(org.jwt_private_key().as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), claims, &key).unwrap()
}

async fn bear(org: &Org, assertion: &str) -> Answer {
    // The request has no client id and no secret.
    let form = encode(&[("grant_type", JWT_BEARER), ("assertion", assertion)]);
    send(org, token_request(form)).await
}

async fn ask_with_assertion(org: &Org, claims: &Value) -> Answer {
    let form = encode(&[
        ("grant_type", "client_credentials"),
        ("client_id", org.client_id()),
        ("client_assertion", &sign(org, claims)),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
    ]);
    send(org, token_request(form)).await
}

fn saml(name_id: &str, audience: &str) -> String {
    format!(
        "<saml:Assertion xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\"><saml:Subject>\
         <saml:NameID>{name_id}</saml:NameID></saml:Subject><saml:Conditions>\
         <saml:AudienceRestriction><saml:Audience>{audience}</saml:Audience>\
         </saml:AudienceRestriction></saml:Conditions></saml:Assertion>"
    )
}
