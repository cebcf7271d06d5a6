//! Credentials and callbacks as they come out of files, secret managers, prompts, shells and browsers (R40).

use std::error::Error as StdError;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Request;
use proptest::prelude::*;
use tower_salesforce_auth::{
    ErrorKind, LoginUrl, RefreshError, RefreshErrorKind, RefreshFn, Secret, Session,
    emulator::Org,
    flow::{
        AuthorizationCode, ClientCredentials, ExtensionGrant, JwtBearer, RefreshToken, SamlBearer,
        SoapLogin, SubjectTokenType, TokenExchange, UsernamePassword,
    },
    oauth::{
        self, App, AuthorizationUrl, Callback, ClientAuthentication, PendingAuthorization,
        PrivateKey,
    },
};

use crate::support::{answering, first_login, form_of, recorded};

const MY_DOMAIN: &str = "https://acme.my.salesforce.com";
const TOKENS: &str = r#"{"access_token":"00Dxx0000001gEF!AQEAQtoken",
    "instance_url":"https://acme.my.salesforce.com","token_type":"Bearer"}"#;

/// What is put around a value that has none of it: none of it is sent.
const SURROUNDINGS: [(&str, &str); 9] = [
    ("", "\n"),
    ("", "\r\n"),
    ("  ", "  "),
    ("\t", ""),
    ("\u{feff}", ""),
    ("\u{200b}", "\u{200b}"),
    ("", "\u{a0}"),
    ("", "\0"),
    ("\u{feff} \n", "\n\u{2060} \r\n"),
];

/// What is put around a value, and is refused with this word.
const ENCLOSURES: [(&str, &str, &str); 7] = [
    ("\"", "\"", "quotes"),
    ("'", "'", "quotes"),
    ("\u{201c}", "\u{201d}", "typographic quote"),
    ("<", ">", "placeholder"),
    ("${", "}", "placeholder"),
    ("", "\\n", "escaped line break"),
    ("", "\nand more", "line break"),
];

fn login_url() -> LoginUrl {
    MY_DOMAIN.parse().unwrap()
}

fn app() -> App {
    App::new(login_url(), "3MVG9key").client_secret("1955secret")
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += " <- ";
        text += &error.to_string();
        cause = error.source();
    }
    text
}

/// Logs in with the flow that `flow` makes. Returns the requests that it sent.
async fn requests_of<F: RefreshFn>(
    flow: impl FnOnce(Client) -> F,
) -> (Vec<Request<Bytes>>, Result<Session, RefreshError>) {
    let (client, requests) = recorded(answering(200, &[], TOKENS));
    let result = flow(Client::new(client)).refresh(first_login()).await;
    (requests.take(), result)
}

/// Any client, as one type.
type Client = tower::util::BoxCloneSyncService<
    Request<http_body_util::Full<Bytes>>,
    http::Response<http_body_util::Full<Bytes>>,
    tower_salesforce_auth::BoxError,
>;

type Form = Vec<(String, String)>;

/// The login of each flow with `value` for one of its parameters, which is named.
async fn login_with(
    parameter: &str,
    value: &str,
) -> (Vec<Request<Bytes>>, Result<Session, RefreshError>) {
    let public = || App::new(login_url(), "3MVG9key");
    let saml = SubjectTokenType::Jwt;
    match parameter {
        "client_id" => {
            requests_of(|c| {
                ClientCredentials::new(c, App::new(login_url(), value).client_secret("1955"))
            })
            .await
        }
        "client_secret" => {
            requests_of(|c| ClientCredentials::new(c, public().client_secret(value))).await
        }
        "refresh_token" => requests_of(|c| RefreshToken::new(c, app(), value)).await,
        "assertion" => requests_of(|c| JwtBearer::from_assertion(c, login_url(), value)).await,
        "subject_token" => requests_of(|c| TokenExchange::new(c, app(), value, saml)).await,
        "username" => requests_of(|c| UsernamePassword::new(c, app(), value, "password")).await,
        "code" => {
            let grant = |c| ExtensionGrant::new(c, app(), "other").parameter("code", value);
            requests_of(grant).await
        }
        other => panic!("{other}"),
    }
}

const PARAMETERS: [&str; 6] = [
    "client_id",
    "client_secret",
    "refresh_token",
    "assertion",
    "subject_token",
    "username",
];

fn field(form: &Form, name: &str) -> Option<String> {
    let mut fields = form.iter().filter(|(known, _)| known == name);
    fields.next().map(|(_, value)| value.clone())
}

// === Credentials ===

/// kubernetes-sigs/aws-load-balancer-controller#3936, strimzi/strimzi-kafka-oauth#70, flyteorg/flytekit#1163.
#[tokio::test]
async fn r40_surroundings_of_a_credential_are_not_sent() {
    for parameter in PARAMETERS {
        for (before, after) in SURROUNDINGS {
            let value = format!("{before}va.lue{after}");
            let (requests, result) = login_with(parameter, &value).await;
            result.unwrap_or_else(|error| panic!("{parameter} {value:?}: {}", chain(&error)));
            let sent = field(&form_of(&requests), parameter);
            assert_eq!(sent.as_deref(), Some("va.lue"), "{parameter} {value:?}");
        }
    }
}

#[tokio::test]
async fn r40_an_enclosed_credential_is_refused_unsent() {
    for parameter in PARAMETERS.into_iter().chain(["code"]) {
        for (before, after, word) in ENCLOSURES {
            let value = format!("{before}SECRETvalue{after}");
            // A user name may have characters beyond ASCII, and brackets.
            if parameter == "username" && (!value.is_ascii() || before == "<") {
                continue;
            }
            let (requests, result) = login_with(parameter, &value).await;
            let error = result.unwrap_err();
            assert_eq!(error.kind(), RefreshErrorKind::Configuration);
            assert!(error.is_terminal());
            let told = error.to_string();
            assert!(told.contains(word), "{parameter} {value:?}: {told}");
            assert!(!format!("{error:?}{told}").contains("SECRET"), "{told}");
            assert_eq!(requests.len(), 0, "{parameter} {value:?}");
        }
    }
}

/// A variable that was not set.
#[tokio::test]
async fn r40_an_empty_credential_is_named_unsent() {
    for parameter in PARAMETERS {
        for value in ["", " ", "\n", "\u{feff}"] {
            let (requests, result) = login_with(parameter, value).await;
            let told = result.unwrap_err().to_string();
            let name = parameter.replace('_', " ").replace("username", "user name");
            assert!(told.contains(&name) && told.contains("empty"), "{told}");
            assert_eq!(requests.len(), 0, "{parameter}");
        }
    }
}

#[tokio::test]
async fn r40_a_secret_in_a_header_has_no_surroundings() {
    for (before, after) in SURROUNDINGS {
        let secret = ClientAuthentication::secret_basic(format!("{before}1955secret{after}"));
        let app = App::new(login_url(), "3MVG9key").client_authentication(secret);
        let (requests, result) = requests_of(|client| ClientCredentials::new(client, app)).await;
        result.unwrap();
        let basic = requests[0].headers()["authorization"].to_str().unwrap();
        let pair = STANDARD
            .decode(basic.strip_prefix("Basic ").unwrap())
            .unwrap();
        assert_eq!(String::from_utf8(pair).unwrap(), "3MVG9key:1955secret");
    }
    for secret in ["", "19\t55", "'1955'", "1955\\n"] {
        let secret = ClientAuthentication::secret_basic(secret);
        let app = App::new(login_url(), "3MVG9key").client_authentication(secret);
        let (requests, result) = requests_of(|client| ClientCredentials::new(client, app)).await;
        assert_eq!(result.unwrap_err().kind(), RefreshErrorKind::Configuration);
        assert_eq!(requests.len(), 0);
    }
}

#[tokio::test]
async fn r40_a_password_keeps_all_that_may_belong_to_it() {
    for (password, sent) in [
        ("password\n", "passwordtoken"),
        ("password\r\n", "passwordtoken"),
        ("\n\u{feff}password\u{200b}\n\r\n", "passwordtoken"),
        ("pass word", "pass wordtoken"),
        ("p\u{e4}ss\u{a0}word", "p\u{e4}ss\u{a0}wordtoken"),
        ("\"password\"", "\"password\"token"),
        ("<pass\\n>\n", "<pass\\n>token"),
    ] {
        let (requests, result) = requests_of(|client| {
            let flow = UsernamePassword::new(client, app(), "user@example.com ", password);
            flow.security_token("\ttoken\n")
        })
        .await;
        result.unwrap();
        let form = form_of(&requests);
        assert_eq!(
            field(&form, "password").as_deref(),
            Some(sent),
            "{password:?}"
        );
        assert_eq!(
            field(&form, "username").as_deref(),
            Some("user@example.com")
        );
    }
}

#[tokio::test]
async fn r40_a_doubtful_password_is_refused_unsent() {
    for (password, token, word) in [
        ("SECRET ", Some("token"), "begins or ends with a blank"),
        (" SECRET", None, "begins or ends with a blank"),
        ("SECRET \n", None, "begins or ends with a blank"),
        ("SECRET\u{a0}", None, "begins or ends with a blank"),
        ("SEC\nRET", None, "line break"),
        ("SECRET\r", None, "line break"),
        ("SECRET\0\n", None, "control"),
        ("\tSECRET", None, "control"),
        ("SEC\u{1b}RET", None, "control"),
        ("", Some("token"), "password is empty"),
        ("\n", None, "password is empty"),
        ("SECRET", Some(""), "security token is empty"),
        ("SECRET", Some("to\tken"), "security token has a control"),
        ("SECRET", Some("'token'"), "security token is in quotes"),
    ] {
        let case = format!("{password:?} {token:?}");
        let oauth = requests_of(|client| {
            let flow = UsernamePassword::new(client, app(), "user@example.com", password);
            match token {
                Some(token) => flow.security_token(token),
                None => flow,
            }
        })
        .await;
        let soap = requests_of(|client| {
            let flow = SoapLogin::new(client, login_url(), "user@example.com", password);
            match token {
                Some(token) => flow.security_token(token),
                None => flow,
            }
        })
        .await;
        for (requests, result) in [oauth, soap] {
            let error = result.unwrap_err();
            assert!(error.to_string().contains(word), "{case}: {error}");
            assert!(
                !format!("{error} {error:?}").contains("SECRET"),
                "{error:?}"
            );
            assert!(error.is_terminal());
            assert_eq!(requests.len(), 0, "{case}");
        }
    }
}

#[tokio::test]
async fn r40_a_soap_login_has_no_surroundings() {
    for (before, after) in SURROUNDINGS {
        let around = |value: &str| format!("{before}{value}{after}");
        let (requests, _) = requests_of(|client| {
            SoapLogin::new(
                client,
                login_url(),
                around("user@example.com"),
                "password\n",
            )
            .security_token(around("token"))
            .organization_id(around("00Dxx0000001gEF"))
            .portal_id(around("060xx0000001gEF"))
        })
        .await;
        let body = String::from_utf8(requests[0].body().to_vec()).unwrap();
        for text in [
            ">user@example.com<",
            ">passwordtoken<",
            ">00Dxx0000001gEF<",
            ">060xx0000001gEF<",
        ] {
            assert!(body.contains(text), "{text}: {body}");
        }
    }
}

#[tokio::test]
async fn r40_a_saml_assertion_of_any_dress_is_sent_alike() {
    let xml = "<Assertion>\u{e4}>?\n</Assertion>";
    let (requests, _) = requests_of(|client| SamlBearer::new(client, login_url(), xml)).await;
    let expected = field(&form_of(&requests), "assertion").unwrap();
    let padded = STANDARD.encode(xml);
    let lines: Vec<_> = padded
        .as_bytes()
        .chunks(8)
        .map(String::from_utf8_lossy)
        .collect();
    for dressed in [
        format!("\u{feff}{xml}\n"),
        format!("  {xml}  "),
        padded.clone(),
        format!("{padded}\n"),
        lines.join("\r\n"),
        lines.join("\n  "),
        expected.clone(),
    ] {
        let (requests, result) = requests_of(|c| SamlBearer::new(c, login_url(), &*dressed)).await;
        result.unwrap();
        let sent = field(&form_of(&requests), "assertion");
        assert_eq!(sent.as_ref(), Some(&expected), "{dressed:?}");
    }
    let (requests, result) = requests_of(|c| SamlBearer::new(c, login_url(), "\n")).await;
    assert!(result.unwrap_err().to_string().contains("empty"));
    assert_eq!(requests.len(), 0);
}

#[tokio::test]
async fn r40_a_signed_assertion_names_a_clean_app_and_user() {
    let key = || PrivateKey::from_pem(Org::new().jwt_private_key()).unwrap();
    for (before, after) in SURROUNDINGS {
        let around = |value: &str| format!("{before}{value}{after}");
        let app = App::new(login_url(), around("3MVG9key"));
        let user = around("user@example.com");
        let (requests, result) = requests_of(|c| JwtBearer::new(c, app, user, key())).await;
        result.unwrap();
        let assertion = field(&form_of(&requests), "assertion").unwrap();
        let claims = assertion.split('.').nth(1).unwrap();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(claims)
            .unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["iss"], "3MVG9key");
        assert_eq!(claims["sub"], "user@example.com");
    }
    for (id, user, word) in [
        ("", "user@example.com", "client id is empty"),
        ("3MVG9key", "", "user name is empty"),
        ("3MVG9key", "user @example.com", "user name has a blank"),
        (
            "3MVG9key",
            "<user@example.com>",
            "user name is in angle brackets",
        ),
    ] {
        let app = App::new(login_url(), id);
        let (requests, result) = requests_of(|c| JwtBearer::new(c, app, user, key())).await;
        let told = result.unwrap_err().to_string();
        assert!(told.contains(word), "{told}");
        assert_eq!(requests.len(), 0);
    }
}

#[tokio::test]
async fn r40_calls_with_a_token_send_it_clean_or_not_at_all() {
    let secret = |text: &str| Secret::from(text);
    for (before, after) in SURROUNDINGS {
        let token = secret(&format!("{before}5Aep861{after}"));
        let (client, requests) = recorded(answering(200, &[], TOKENS));
        oauth::revoke(client.clone(), &app(), &token).await.unwrap();
        assert_eq!(
            field(&form_of(&requests.take()), "token").as_deref(),
            Some("5Aep861")
        );
        oauth::refresh_token(client.clone(), &app(), &token)
            .await
            .unwrap();
        assert_eq!(
            field(&form_of(&requests.take()), "refresh_token").as_deref(),
            Some("5Aep861")
        );
        let _ = oauth::introspect(client, &app(), &token).await;
        assert_eq!(
            field(&form_of(&requests.take()), "token").as_deref(),
            Some("5Aep861")
        );
    }
    for token in ["", "\n", "\"5Aep861\"", "5Aep\n861", "5Aep\u{200b}861"].map(secret) {
        let (client, requests) = recorded(answering(200, &[], TOKENS));
        assert!(oauth::revoke(client.clone(), &app(), &token).await.is_err());
        assert!(
            oauth::refresh_token(client.clone(), &app(), &token)
                .await
                .is_err()
        );
        assert!(oauth::introspect(client, &app(), &token).await.is_err());
        assert_eq!(requests.take().len(), 0);
    }
}

/// A token that was set on a session has what was around it, too.
#[tokio::test]
async fn r40_a_sessions_refresh_token_and_ids_are_clean() {
    for (before, after) in SURROUNDINGS {
        let around = |value: &str| format!("{before}{value}{after}");
        let session = Session::new("00Dxx!AQ", MY_DOMAIN)
            .unwrap()
            .with_refresh_token(around("5Aep861"))
            .with_ids(around("00Dxx0000001gEF"), around("005xx000001Swi"));
        assert_eq!(session.refresh_token().unwrap().expose(), "5Aep861");
        assert_eq!(session.organization_id(), Some("00Dxx0000001gEF"));
        assert_eq!(session.user_id(), Some("005xx000001Swi"));
    }
}

#[test]
fn r40_an_authorization_url_needs_a_client_id() {
    for (id, redirect_uri, word) in [
        ("", "https://app.example.com/cb", "client id is empty"),
        (
            "'3MVG9'",
            "https://app.example.com/cb",
            "client id is in quotes",
        ),
        ("3MVG9", "", "redirect URI is empty"),
        (
            "3MVG9",
            "https://app.example.com/c\nb",
            "redirect URI has a line break",
        ),
    ] {
        let app = App::new(login_url(), id);
        let error = AuthorizationUrl::new(&app, redirect_uri)
            .build()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUrl);
        assert!(error.to_string().contains(word), "{error}");
    }
    let app = App::new(login_url(), " 3MVG9\n");
    let url = AuthorizationUrl::new(&app, "https://app.example.com/cb\n")
        .build()
        .unwrap();
    assert!(url.url().contains("client_id=3MVG9&"), "{}", url.url());
    assert!(url.url().contains("%2Fcb&"), "{}", url.url());
}

// === Access tokens ===

/// Quotes of JSON or a shell, the backslash before the exclamation mark, the percent encoding of a cookie or URL.
#[test]
fn r40_an_access_token_in_another_notation_is_refused() {
    for (token, word) in [
        ("\"00Dxx0000001gEF!SECRETQ\"", "quotes"),
        ("'00Dxx0000001gEF!SECRETQ'", "quotes"),
        ("\"00Dxx0000001gEF!SECRETQ", "quotes"),
        ("00Dxx0000001gEF\\!SECRETQ", "backslash"),
        ("00Dxx0000001gEF\\u0021SECRETQ", "backslash"),
        ("00Dxx0000001gEF%21SECRETQ", "percent-encoded"),
        ("00Dxx0000001gEF&#33;SECRETQ", "HTML"),
        ("00Dxx0000001gEF!SECRETQ;", "cookie"),
        ("00Dxx0000001gEF!SECRETQ,", "comma"),
        ("<00Dxx0000001gEF!SECRETQ>", "brackets"),
        ("[00Dxx0000001gEF!SECRETQ]", "brackets"),
        ("sid=00Dxx0000001gEF!SECRETQ", "cookie"),
        ("Bearer 00Dxx0000001gEF!SECRETQ", "scheme"),
        ("00Dxx0000001gEF!SECRETQ\n", "line break"),
        ("00Dxx0000001gEF!SECRETQ ", "blank"),
        ("\u{feff}00Dxx0000001gEF!SECRETQ", "invisible"),
        ("00Dxx0000001gEF!SECRETQ\u{2026}", "ASCII"),
        ("00Dxx0000001gEF!SECRET|Q", "no access token has"),
        ("", "empty"),
        ("===", "empty"),
    ] {
        let server_url = "https://acme.my.salesforce.com/services/Soap/u/64.0/00Dxx";
        for result in [
            Session::new(token, MY_DOMAIN),
            Session::from_session_id(token, server_url),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidToken);
            assert!(error.to_string().contains(word), "{token:?}: {error}");
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
        }
    }
    // Session ids, JWTs, and the opaque tokens of RFC 6750.
    for token in [
        "00Dxx0000001gEF!AQEAQ.a_b",
        "eyJhbGciOiJub25lIn0.e30.c2ln-_",
        "abc~+/d==",
    ] {
        Session::new(token, MY_DOMAIN).unwrap();
    }
}

/// What a server issues is not judged by its notation.
#[tokio::test]
async fn r40_an_odd_token_of_a_server_is_used() {
    let answer =
        r#"{"access_token":"of|another,kind;","instance_url":"https://acme.my.salesforce.com"}"#;
    let client = answering(200, &[], answer);
    let session = ClientCredentials::new(client, app())
        .refresh(first_login())
        .await
        .unwrap();
    assert_eq!(session.access_token().expose(), "of|another,kind;");
}

// === Callbacks ===

fn pending() -> PendingAuthorization {
    PendingAuthorization::new("state-1", "verifier-verifier-verifier-verifier-verifier").unwrap()
}

/// `knowsuchagency/mcp2cli#71`, `mpfaffenberger/code_puppy#618`: a URL that was pasted into a prompt.
#[test]
fn r40_a_pasted_callback_is_understood() {
    for callback in [
        "https://app.example.com/callback?code=aPrx%3D%3D&state=state-1\n",
        "https://app.example.com/callback?code=aPrx%3D%3D&state=state-1\r\n",
        "  https://app.example.com/callback?code=aPrx%3D%3D&state=state-1  ",
        "https://app.example.com/callback?state=state-1&code=aPrx%3D%3D\n",
        "\"https://app.example.com/callback?state=state-1&code=aPrx%3D%3D\"",
        "<https://app.example.com/callback?code=aPrx%3D%3D&state=state-1>",
        "https://app.example.com/callback?code=aPrx%3D%3D&amp;state=state-1",
        "?code=aPrx%3D%3D&state=state-1",
        "code=aPrx%3D%3D&state=state-1",
        "/callback?code=aPrx%3D%3D&state=state-1#",
        "https://app.example.com/callback?tenant=a?b&code=aPrx%3D%3D&state=state-1",
        "https://app.example.com/callback?code=aPrx%3D%3D&state=state-1#_=_",
        // Others of the same kinds.
        "'https://app.example.com/callback?code=aPrx%3D%3D&state=state-1'\n",
        "`https://app.example.com/callback?state=state-1&code=aPrx==`",
        "(<https://app.example.com/callback?state=state-1&code=aPrx%3D%3D>)",
        "\u{201c}https://app.example.com/callback?state=state-1&code=aPrx%3D%3D\u{201d}",
        "\u{feff}https://app.example.com/callback?state=state-1&code=aPrx%3D%3D\u{200b}",
        "https://app.example.com/callback?sta\nte=state-1&co\r\n   de=aPrx%3D%3D",
        "https://app.example.com/callback?state=state-1\\u0026code=aPrx%3D%3D",
        "https://app.example.com/callback?state=state-1&#38;code=aPrx%3D%3D",
        "\"https://app.example.com/callback?state=state-1&code=aPrx%3D%3D\",",
        "GET /callback?state=state-1&code=aPrx%3D%3D HTTP/1.1",
        "\"https://app.example.com/callback?state=state-1&amp;code=aPrx%3D%3D\"\r\n",
    ] {
        let read = Callback::parse(callback);
        let read = read.unwrap_or_else(|error| panic!("{callback:?}: {}", chain(&error)));
        let code = read.code(&pending(), &login_url());
        let code = code.unwrap_or_else(|error| panic!("{callback:?}: {}", chain(&error)));
        assert_eq!(code.expose(), "aPrx==", "{callback:?}");
    }
}

proptest! {
    /// Nothing that is put around a callback changes its code and its state.
    #[test]
    fn r40_a_callback_survives_any_wrapping(
        code in "[A-Za-z0-9._=]{1,30}",
        before in "[ \t\r\n\u{feff}\u{200b}]{0,3}",
        quotes in prop::sample::select(vec![("", ""), ("\"", "\""), ("'", "'"), ("<", ">"), ("(", ")"), ("\u{201c}", "\u{201d}")]),
        after in "[ \t\r\n\u{feff}\u{a0}]{0,3}",
        wrap in 0_usize..60,
        ampersand in prop::sample::select(vec!["&", "&amp;", "&#38;", "\\u0026"]),
    ) {
        let encoded: String = form_urlencoded::byte_serialize(code.as_bytes()).collect();
        let mut url = format!("https://app.example.com/cb?state=state-1{ampersand}code={encoded}");
        // A terminal breaks lines anywhere but within an entity, which no terminal makes.
        if ampersand == "&" && wrap < url.len() && wrap > 0 {
            url.insert(wrap, '\n');
        }
        let (open, close) = quotes;
        let pasted = format!("{before}{open}{url}{close}{after}");
        let callback = Callback::parse(&pasted).unwrap();
        prop_assert_eq!(callback.code(&pending(), &login_url()).unwrap().expose(), code);
    }
}

/// A refusal may leave out the state: some come before the server knows the app.
#[test]
fn r40_a_refusal_without_a_state_is_shown() {
    for (query, word) in [
        (
            "error=redirect_uri_mismatch&error_description=redirect_uri+must+match+configuration",
            "redirect_uri",
        ),
        (
            "error=invalid_client_id&error_description=client+identifier+invalid",
            "client identifier invalid",
        ),
        (
            "error=invalid_scope&error_description=the+requested+scope+is+not+allowed",
            "scope",
        ),
        (
            "error=unsupported_response_type",
            "unsupported_response_type",
        ),
        (
            "error=OAUTH_APP_BLOCKED&error_description=this+app+is+blocked+by+admin",
            "blocked by admin",
        ),
    ] {
        let url = format!("https://app.example.com/cb?{query}");
        let error = Callback::parse(&url)
            .unwrap()
            .code(&pending(), &login_url())
            .unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::InvalidCallback);
        let told = chain(&error);
        assert!(told.contains(word) && told.contains("state"), "{told}");
    }
    // With the state of another attempt it is forged, or late.
    let forged = "https://app.example.com/cb?error=access_denied&state=other";
    let error = Callback::parse(forged)
        .unwrap()
        .code(&pending(), &login_url())
        .unwrap_err();
    assert!(!chain(&error).contains("access_denied"), "{error}");
}

/// Codes of an app that an org does not let in: what an administrator has to do.
#[test]
fn a_callback_of_a_blocked_app_has_advice() {
    for (code, description, word) in [
        (
            "OAUTH_APP_BLOCKED",
            "this+app+is+blocked+by+admin",
            "Connected Apps",
        ),
        (
            "OAUTH_EC_APP_NOT_FOUND",
            "The+app+is+not+installed",
            "install",
        ),
        (
            "OAUTH_APP_ACCESS_DENIED",
            "user+is+not+admin+approved+to+access+this+app",
            "permission set",
        ),
        (
            "OAUTH_APPROVAL_ERROR_GENERIC",
            "An+unexpected+error+has+occured+during+authentication.+Please+try+again",
            "administrator",
        ),
        ("app_not_found", "", "install"),
        ("oauth_flow_disabled", "", "enable the flow"),
        ("OAuth-Inactive-User", "", "activate the user"),
    ] {
        let state = pending().state().expose().to_owned();
        let url = format!(
            "https://app.example.com/cb?error={code}&error_description={description}&state={state}"
        );
        let error = Callback::parse(&url)
            .unwrap()
            .code(&pending(), &login_url())
            .unwrap_err();
        assert!(chain(&error).contains(word), "{code}: {}", chain(&error));
    }
}

/// What a code cannot have is found before it is used up.
#[tokio::test]
async fn r40_a_code_in_another_notation_is_refused_unsent() {
    for code in [
        "aPrx%09SECRET",
        "%3CaPrxSECRET%3E",
        "aPrx%0ASECRET",
        "%22aPrxSECRET%22",
        "aPrx%E2%80%8BSECRET",
    ] {
        let (client, requests) = recorded(answering(200, &[], TOKENS));
        let flow = AuthorizationCode::new(client, app(), "https://app.example.com/cb");
        let callback = format!("https://app.example.com/cb?state=state-1&code={code}");
        let error = flow.exchange(&pending(), &callback).await.unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::Configuration, "{code}");
        assert!(
            !format!("{error} {error:?}").contains("SECRET"),
            "{error:?}"
        );
        assert_eq!(requests.take().len(), 0);
    }
}
