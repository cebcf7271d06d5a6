//! The web server flow: the authorization endpoint, its pages, and the exchange of codes.

use std::collections::HashMap;

use http::header::LOCATION;
use http::{Request, StatusCode};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use tower_salesforce_auth::emulator::Org;

use crate::support::{
    Answer, assert_refused, bytes_of, empty, encode, get_limits, grant, json_of, post_form,
    refresh, send, set_time,
};

const CALLBACK: &str = "https://app.example.com/callback";
const AUTHORIZE: &str = "/services/oauth2/authorize";
// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

type Pairs<'a> = &'a [(&'a str, &'a str)];

// === the code and its exchange ===

#[tokio::test]
async fn a_code_is_exchanged_for_the_requested_scope() {
    let org = org();
    let scope = ("scope", "api refresh_token openid");
    let url = authorize_url(&org, &[scope, ("state", "x&y=z"), ("nonce", "n")]);
    let redirect = org.approve(&url).unwrap();
    // The padding of the code is escaped.
    assert!(redirect.contains("%3D%3D&state=x%26y%3Dz"), "{redirect}");
    let sent_back = query(&redirect);
    assert_eq!(sent_back["state"], "x&y=z");
    let code = &sent_back["code"];
    assert!(code.starts_with("aPrx") && code.ends_with("=="));

    let body = json_of(exchange(&org, code, &[]).await).await;
    assert_eq!(body["scope"], "api refresh_token openid");
    assert_eq!(body.as_object().unwrap().len(), 9);
    let access_token = body["access_token"].as_str().unwrap();
    assert_eq!(get_limits(&org, access_token).await, StatusCode::OK);
    let claims = verified(&org, body["id_token"].as_str().unwrap()).await;
    assert_eq!(claims["nonce"], "n");
    assert_eq!(claims["sub"], body["id"]);
    assert_eq!(claims["iss"], org.login_url());

    let next = json_of(refresh(&org, body["refresh_token"].as_str().unwrap()).await).await;
    assert_eq!(next["scope"], "api refresh_token openid");
    assert!(next["id_token"].is_string());
    assert_eq!(org.counters().codes_issued, 1);
}

#[tokio::test]
async fn a_refresh_token_comes_only_with_the_scope_for_it() {
    let org = org();
    for (scope, refreshes) in [("api full", false), ("api offline_access", true)] {
        let code = code(&org, &[("scope", scope)]);
        let body = json_of(exchange(&org, &code, &[]).await).await;
        assert_eq!(body.get("refresh_token").is_some(), refreshes, "{scope}");
        assert_eq!(body.get("id_token"), None);
    }
}

#[tokio::test]
async fn a_code_works_once_and_for_fifteen_minutes() {
    let org = org();
    set_time(&org, 1_000);
    let first = code(&org, &[]);
    assert_eq!(exchange(&org, &first, &[]).await.status(), StatusCode::OK);
    let again = exchange(&org, &first, &[]).await;
    assert_refused(again, "invalid_grant", "expired authorization code").await;

    let second = code(&org, &[]);
    set_time(&org, 1_900);
    let late = exchange(&org, &second, &[]).await;
    assert_refused(late, "invalid_grant", "expired authorization code").await;
    let unknown = exchange(&org, "aPrxunknown==", &[]).await;
    assert_refused(unknown, "invalid_grant", "invalid authorization code").await;
    let (other, here) = (self::org(), code(&org, &[]));
    code(&other, &[]);
    let elsewhere = exchange(&other, &here, &[]).await;
    assert_refused(elsewhere, "invalid_grant", "invalid authorization code").await;
}

#[tokio::test]
async fn an_exchange_with_another_callback_is_refused() {
    let org = org();
    org.add_redirect_uri("https://app.example.com/other");
    let code = code(&org, &[]);
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", "https://app.example.com/other"),
    ];
    let response = grant(&org, &form).await;
    let description = "redirect_uri must match configuration";
    assert_refused(response, "redirect_uri_mismatch", description).await;
}

#[tokio::test]
async fn a_code_with_a_challenge_needs_its_verifier() {
    let org = org();
    let challenged = [("code_challenge", CHALLENGE)];
    // The default method is S256.
    let good = code(&org, &challenged);
    let response = exchange(&org, &good, &[("code_verifier", VERIFIER)]).await;
    assert_eq!(response.status(), StatusCode::OK);
    let with_tilde = VERIFIER.replace('-', "~");
    let wrong: [(Pairs<'_>, Pairs<'_>); 4] = [
        (&challenged, &[]),
        (&challenged, &[("code_verifier", CHALLENGE)]),
        (&challenged, &[("code_verifier", &with_tilde)]),
        (&[], &[("code_verifier", VERIFIER)]),
    ];
    for (request, proof) in wrong {
        let response = exchange(&org, &code(&org, request), proof).await;
        assert_refused(response, "invalid_grant", "invalid code verifier").await;
    }

    org.require_pkce(true);
    let page = org.approve(&authorize_url(&org, &[])).unwrap_err();
    assert_eq!(page.error(), "OAUTH_APPROVAL_ERROR_GENERIC");
    let method = ("code_challenge_method", "S256");
    code(&org, &[challenged[0], method]);
}

#[tokio::test]
async fn the_user_agent_flow_sends_tokens_in_the_fragment() {
    let org = org();
    let more = [("scope", "api"), ("state", "xyz")];
    let url = authorize_url(&org, &more).replace("=code&", "=token&");
    let redirect = org.approve(&url).unwrap();
    let fragment = redirect.strip_prefix(&format!("{CALLBACK}#")).unwrap();
    let sent_back = query(&format!("?{fragment}"));
    assert_eq!(sent_back["state"], "xyz");
    let access_token = &sent_back["access_token"];
    assert_eq!(get_limits(&org, access_token).await, StatusCode::OK);
    assert!(org.deny(&url).unwrap().contains("#error=access_denied"));
}

#[tokio::test]
async fn the_token_answer_echoes_a_state() {
    let org = org();
    let code = code(&org, &[("scope", "sfap_api")]);
    let body = json_of(exchange(&org, &code, &[("state", "xyz")]).await).await;
    assert_eq!(body["state"], "xyz");
    assert_eq!(body["api_instance_url"], "https://api.salesforce.com");
}

// === what is sent back, and what is shown ===

#[tokio::test]
async fn a_callback_without_a_code_says_why() {
    let org = org();
    let url = authorize_url(&org, &[("state", "xyz")]);
    let denied = query(&org.deny(&url).unwrap());
    assert_eq!(denied["error"], "access_denied");
    assert_eq!(denied["error_description"], "end-user denied authorization");
    assert_eq!(denied["state"], "xyz");

    let cases = [
        (
            url.replace("=code&", "=magic&"),
            "unsupported_response_type",
        ),
        (
            authorize_url(&org, &[("scope", "api magic")]),
            "invalid_scope",
        ),
        (
            authorize_url(
                &org,
                &[("code_challenge", "x"), ("code_challenge_method", "plain")],
            ),
            "invalid_request",
        ),
        (
            authorize_url(&org, &[("immediate", "true")]),
            "immediate_unsuccessful",
        ),
    ];
    for (url, error) in cases {
        let response = get(&org, &url).await;
        assert_eq!(response.status(), StatusCode::FOUND);
        let location = response.headers()[LOCATION].to_str().unwrap();
        assert!(location.starts_with(&format!("{CALLBACK}?error={error}&")));
    }
}

#[tokio::test]
async fn an_unregistered_callback_gets_no_redirect() {
    let org = org();
    let elsewhere = |uri: &str| {
        let query = encode(&[
            ("response_type", "code"),
            ("client_id", org.client_id()),
            ("redirect_uri", uri),
        ]);
        format!("{AUTHORIZE}?{query}")
    };
    let unknown_app = authorize_url(&org, &[]).replace(org.client_id(), "unknown");
    let cases = [
        (
            elsewhere("https://app.example.com/callback/"),
            "redirect_uri_mismatch",
        ),
        (
            elsewhere("https://evil.example.com"),
            "redirect_uri_mismatch",
        ),
        (unknown_app, "invalid_client_id"),
        (
            format!("{}&state=1&state=2", elsewhere(CALLBACK)),
            "invalid_request",
        ),
    ];
    for (url, error) in cases {
        let response = get(&org, &url).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers().get(LOCATION), None);
        let page = text(response).await;
        assert!(page.contains(&format!("error={error}&amp;")), "{page}");
        assert_eq!(org.approve(&url).unwrap_err().error(), error);
    }
}

#[tokio::test]
async fn a_callback_with_a_query_keeps_it() {
    let org = org();
    org.set_redirect_uri("http://localhost:1717/?app=1");
    assert_eq!(org.redirect_uri(), "http://localhost:1717/?app=1");
    let query = encode(&[
        ("response_type", "code"),
        ("client_id", org.client_id()),
        ("redirect_uri", &org.redirect_uri()),
    ]);
    let redirect = org.approve(&format!("{AUTHORIZE}?{query}")).unwrap();
    assert!(redirect.starts_with("http://localhost:1717/?app=1&code=aPrx"));
}

// === the pages ===

#[tokio::test]
async fn a_user_logs_in_and_allows() {
    let org = org();
    let url = authorize_url(
        &org,
        &[
            ("state", "\"><script>&"),
            ("login_hint", "<hint>"),
            ("prompt", "login consent"),
            ("display", "popup"),
        ],
    );
    let page = text(get(&org, &url).await).await;
    assert!(!page.contains("<script>") && !page.contains("<hint>"));
    let mut form = inputs(&page);
    assert_eq!(form["username"], "<hint>");
    assert_eq!(form["state"], "\"><script>&");

    form.insert("username".into(), org.username().into());
    form.insert("password".into(), "wrong".into());
    let page = text(post(&org, &form).await).await;
    assert!(page.contains("Please check your username and password."));
    form = inputs(&page);
    form.insert("password".into(), org.password().into());
    let page = text(post(&org, &form).await).await;
    assert!(!page.contains(org.password()), "the password stays out");
    form = inputs(&page);
    form.insert("decision".into(), "allow".into());
    let response = post(&org, &form).await;
    assert_eq!(response.status(), StatusCode::FOUND);
    let sent_back = query(response.headers()[LOCATION].to_str().unwrap());
    assert_eq!(sent_back["state"], "\"><script>&");
    let response = exchange(&org, &sent_back["code"], &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(org.counters().logins, 1);
    assert_eq!(org.counters().failed_logins, 1);

    // The consent page works once, and only after a login.
    let page = text(post(&org, &form).await).await;
    assert!(inputs(&page).contains_key("username"));
    form.insert("login".into(), "login-0".into());
    let page = text(post(&org, &form).await).await;
    assert!(inputs(&page).contains_key("username"));
}

#[tokio::test]
async fn a_user_logs_in_and_denies() {
    let org = org();
    let page = text(get(&org, &authorize_url(&org, &[])).await).await;
    let mut form = inputs(&page);
    form.insert("username".into(), org.username().into());
    form.insert("password".into(), org.password().into());
    let mut form = inputs(&text(post(&org, &form).await).await);
    form.insert("decision".into(), "deny".into());
    let response = post(&org, &form).await;
    let location = response.headers()[LOCATION].to_str().unwrap();
    assert_eq!(query(location)["error"], "access_denied");
}

#[tokio::test]
async fn the_pages_say_what_they_are_and_whom_to_type() {
    let org = Org::with_password("<easy> & short");
    org.set_redirect_uri(CALLBACK);
    let page = text(get(&org, &authorize_url(&org, &[])).await).await;
    for expected in [
        "Emulated Salesforce org",
        "<code>user@example.com</code>",
        "<code>&lt;easy&gt; &amp; short</code>",
        "prefers-color-scheme:dark",
        "name=\"viewport\"",
    ] {
        assert!(page.contains(expected), "{expected}\n{page}");
    }
    let mut form = inputs(&page);
    form.insert("username".to_owned(), org.username().to_owned());
    form.insert("password".to_owned(), "correct & horse+<staple>".to_owned());
    let again = text(post(&org, &form).await).await;
    assert!(again.contains("Please check your username and password."));
    form.insert("password".to_owned(), org.password().to_owned());
    let consent = text(post(&org, &form).await).await;
    for expected in [
        "Emulated Salesforce org",
        "<li>Manage your data via APIs <code>api</code></li>",
        "<code>user@example.com</code>",
        &format!("<code>{CALLBACK}</code>"),
    ] {
        assert!(consent.contains(expected), "{expected}\n{consent}");
    }
}

#[tokio::test]
async fn a_link_can_neither_log_in_nor_allow() {
    let org = org();
    let credentials = [("username", org.username()), ("password", org.password())];
    let page = text(get(&org, &authorize_url(&org, &credentials)).await).await;
    assert!(inputs(&page).contains_key("username"));
    assert_eq!(org.counters().logins, 0);
}

fn org() -> Org {
    let org = Org::new();
    org.set_redirect_uri(CALLBACK);
    org
}

fn authorize_url(org: &Org, more: &[(&str, &str)]) -> String {
    let mut parameters = vec![
        ("response_type", "code"),
        ("client_id", org.client_id()),
        ("redirect_uri", CALLBACK),
    ];
    parameters.extend(more);
    format!("{AUTHORIZE}?{}", encode(&parameters))
}

fn code(org: &Org, more: &[(&str, &str)]) -> String {
    let redirect = org.approve(&authorize_url(org, more)).unwrap();
    query(&redirect).remove("code").unwrap()
}

async fn exchange(org: &Org, code: &str, more: &[(&str, &str)]) -> Answer {
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", CALLBACK),
    ];
    form.extend(more);
    grant(org, &form).await
}

fn query(url: &str) -> HashMap<String, String> {
    let (_, query) = url.split_once('?').unwrap();
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

/// The names and values of the inputs, as a browser posts them.
fn inputs(page: &str) -> HashMap<String, String> {
    let attribute = |input: &str, name: &str| {
        let (_, rest) = input.split_once(&format!("{name}=\""))?;
        let (value, _) = rest.split_once('"')?;
        let value = value.replace("&lt;", "<").replace("&gt;", ">");
        Some(value.replace("&quot;", "\"").replace("&amp;", "&"))
    };
    page.split("<input ")
        .skip(1)
        .filter_map(|input| {
            let (input, _) = input.split_once('>')?;
            let value = attribute(input, "value").unwrap_or_default();
            Some((attribute(input, "name")?, value))
        })
        .collect()
}

async fn get(org: &Org, url: &str) -> Answer {
    send(org, Request::get(url).body(empty()).unwrap()).await
}

async fn post(org: &Org, form: &HashMap<String, String>) -> Answer {
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    send(org, post_form(AUTHORIZE, form)).await
}

async fn text(response: Answer) -> String {
    String::from_utf8(bytes_of(response).await.to_vec()).unwrap()
}

/// The claims of an ID token, verified as a client does.
async fn verified(org: &Org, token: &str) -> Value {
    let document = json_of(get(org, "/.well-known/openid-configuration").await).await;
    assert_eq!(document["issuer"], org.login_url());
    let keys = json_of(get(org, document["jwks_uri"].as_str().unwrap()).await).await;
    let keys: JwkSet = serde_json::from_value(keys).unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let key = keys.find(&header.kid.unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[org.client_id()]);
    let key = DecodingKey::from_jwk(key).unwrap();
    jsonwebtoken::decode(token, &key, &validation)
        .unwrap()
        .claims
}
