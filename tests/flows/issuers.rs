//! The issuer that a callback names (RFC 9207).

use tower_salesforce_auth::{
    LoginUrl, RefreshErrorKind,
    emulator::Org,
    flow::AuthorizationCode,
    oauth::{self, Callback, PendingAuthorization},
};

use crate::support::app;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

fn pending() -> PendingAuthorization {
    PendingAuthorization::new("xyzzy", VERIFIER).unwrap()
}

fn callback(parameters: &str, issuer: &str) -> Callback {
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("iss", issuer)
        .finish();
    Callback::parse(&format!("/callback?{parameters}&state=xyzzy&{query}")).unwrap()
}

#[test]
fn a_callback_of_the_right_issuer_has_a_code() {
    for (login_url, issuer) in [
        (
            "https://login.salesforce.com",
            "https://login.salesforce.com",
        ),
        (
            "https://LOGIN.salesforce.com/",
            "https://login.salesforce.com:443",
        ),
        (
            "https://login.salesforce.com",
            "https://acme.my.salesforce.com",
        ),
        (
            "https://test.salesforce.com",
            "https://acme--uat.sandbox.my.salesforce.com",
        ),
        (
            "https://acme.my.salesforce.com",
            "https://acme.my.salesforce.com",
        ),
        (
            "https://acme.my.salesforce.com",
            "https://login.salesforce.com",
        ),
        (
            "https://acme.my.site.com/partners",
            "https://acme.my.site.com/partners",
        ),
        (
            "https://acme.my.site.com/partners",
            "https://acme.my.salesforce.com",
        ),
        (
            "https://id.example.com/tenant",
            "https://id.example.com/tenant",
        ),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
    ] {
        let login_url: LoginUrl = login_url.parse().unwrap();
        let callback = callback("code=aPrx", issuer);
        let code = callback.code(&pending(), &login_url).unwrap();
        assert_eq!(code.expose(), "aPrx", "{issuer}");
    }
}

#[test]
fn a_callback_of_another_issuer_is_refused_and_told_why() {
    for (login_url, issuer) in [
        ("https://login.salesforce.com", "https://id.example.com"),
        (
            "https://login.salesforce.com",
            "https://login.salesforce.com.example.com",
        ),
        (
            "https://acme.my.salesforce.com",
            "https://evil.my.salesforce.com",
        ),
        (
            "https://acme.my.salesforce.com",
            "https://acme.my.salesforce.com.example.com",
        ),
        (
            "https://acme.my.site.com/partners",
            "https://evil.my.site.com/partners",
        ),
        (
            "https://id.example.com/tenant",
            "https://id.example.com/another",
        ),
        ("https://id.example.com", "https://login.salesforce.com"),
        ("https://id.example.com", "http://id.example.com"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8081"),
        ("https://login.salesforce.com", ""),
        ("https://login.salesforce.com", "hush no URL"),
    ] {
        let login_url: LoginUrl = login_url.parse().unwrap();
        for parameters in ["code=aPrx-hush", "error=access_denied"] {
            let callback = callback(parameters, issuer);
            let error = callback.code(&pending(), &login_url).unwrap_err();
            assert_eq!(error.kind(), RefreshErrorKind::InvalidCallback, "{issuer}");
            assert!(error.to_string().contains("`iss`"), "{error}");
            assert!(error.to_string().contains(login_url.host()), "{error}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
    }
    let twice = "?code=a&state=xyzzy&iss=https://a.example.com&iss=https://b.example.com";
    let error = Callback::parse(twice).unwrap_err();
    assert!(error.to_string().contains("`iss`"), "{error}");
}

#[tokio::test]
async fn a_wrong_issuer_sends_no_code_and_loses_no_login() {
    let org = Org::new();
    org.name_issuer_in_callbacks(true);
    let flow = AuthorizationCode::new(org.clone(), app(&org), org.redirect_uri());
    let request = flow.authorization_url().build().unwrap();
    let callback = org.approve(request.url()).unwrap();
    let (before, _) = callback.split_once("&iss=").unwrap();
    let forged = format!("{before}&iss=https%3A%2F%2Fid.example.com");
    let error = flow.exchange(request.pending(), &forged).await.unwrap_err();
    assert_eq!(error.kind(), RefreshErrorKind::InvalidCallback);
    assert_eq!(org.counters().token_requests, 0);
    // The right callback still works.
    flow.exchange(request.pending(), &callback).await.unwrap();
    // Salesforce names no issuer, and needs none.
    org.name_issuer_in_callbacks(false);
    let request = flow.authorization_url().build().unwrap();
    let callback = org.approve(request.url()).unwrap();
    assert!(!callback.contains("iss="));
    flow.exchange(request.pending(), &callback).await.unwrap();
}

#[tokio::test]
async fn a_login_url_of_discovery_knows_its_issuer() {
    let org = Org::new();
    org.name_issuer_in_callbacks(true);
    let discovery = oauth::discover(org.clone(), &org.login_url().parse().unwrap()).await;
    let login_url = discovery.unwrap().login_url().unwrap();
    let app = oauth::App::new(login_url, org.client_id()).client_secret(org.client_secret());
    let flow = AuthorizationCode::new(org.clone(), app, org.redirect_uri());
    let request = flow.authorization_url().build().unwrap();
    let callback = org.approve(request.url()).unwrap();
    flow.exchange(request.pending(), &callback).await.unwrap();
}
