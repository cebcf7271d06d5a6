//! The authorization code flow: the URL, the callback, the exchange.

use std::collections::HashMap;

use tower_salesforce_auth::{
    ErrorKind, LoginUrl, RefreshErrorKind,
    emulator::Org,
    flow::AuthorizationCode,
    oauth::{App, AuthorizationUrl, Callback, PageDisplay, PendingAuthorization, Pkce, Prompt},
};

use crate::support::{app, form_of, public_app, recorded};

const CALLBACK: &str = "https://app.example.com/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

fn query(url: &str) -> HashMap<String, String> {
    let (_, query) = url.split_once('?').unwrap();
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let count = pairs.len();
    let query: HashMap<_, _> = pairs.into_iter().collect();
    assert_eq!(query.len(), count, "each parameter once");
    query
}

#[test]
fn an_authorization_url_carries_every_salesforce_parameter() {
    let app = App::new(LoginUrl::sandbox(), "3MVG9 &=?");
    let request = AuthorizationUrl::new(&app, CALLBACK)
        .scope("api refresh_token")
        .prompt([Prompt::Login, Prompt::Consent, Prompt::SelectAccount])
        .login_hint("user+a&b@example.com")
        .display(PageDisplay::Touch)
        .immediate(true)
        .nonce("n-0S6")
        .sso_provider("MyProvider")
        .device_id("phone 1")
        .parameter("custom", "ä")
        .state("xyzzy")
        .pkce(Pkce::from_verifier(VERIFIER).unwrap())
        .build()
        .unwrap();
    let expected = [
        ("response_type", "code"),
        ("client_id", "3MVG9 &=?"),
        ("redirect_uri", CALLBACK),
        ("scope", "api refresh_token"),
        ("prompt", "login consent select_account"),
        ("login_hint", "user+a&b@example.com"),
        ("display", "touch"),
        ("immediate", "true"),
        ("nonce", "n-0S6"),
        ("sso_provider", "MyProvider"),
        ("device_id", "phone 1"),
        ("custom", "ä"),
        ("state", "xyzzy"),
        // RFC 7636, Appendix B.
        (
            "code_challenge",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        ),
        ("code_challenge_method", "S256"),
    ];
    let expected: HashMap<_, _> = expected
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(query(request.url()), expected);
    assert!(
        request
            .url()
            .starts_with("https://test.salesforce.com/services/oauth2/authorize?")
    );
    assert_eq!(request.pending().code_verifier().expose(), VERIFIER);
}

#[test]
fn each_authorization_url_has_a_new_state_and_verifier() {
    let app = App::new(LoginUrl::production(), "3MVG9");
    let requests: Vec<_> = (0..100)
        .map(|_| AuthorizationUrl::new(&app, CALLBACK).build().unwrap())
        .collect();
    for (index, request) in requests.iter().enumerate() {
        let pending = request.pending();
        for text in [pending.state(), pending.code_verifier()] {
            let text = text.expose();
            assert!((43..=128).contains(&text.len()));
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            assert!(text.bytes().all(is_plain), "{text}");
        }
        assert_ne!(pending.state(), pending.code_verifier());
        for other in &requests[..index] {
            assert_ne!(pending.state(), other.pending().state());
            assert_ne!(pending.code_verifier(), other.pending().code_verifier());
        }
        // A pending authorization can be rebuilt from its parts.
        let kept =
            PendingAuthorization::new(pending.state().expose(), pending.code_verifier().expose());
        assert_eq!(kept.unwrap(), *pending);
    }
}

#[test]
fn an_authorization_endpoint_with_a_query_keeps_it() {
    for (endpoint, joint) in [
        (
            "https://sso.example.com/authorize",
            "authorize?response_type=",
        ),
        (
            "https://sso.example.com/authorize?",
            "authorize?response_type=",
        ),
        (
            "https://sso.example.com/authorize?org=1",
            "?org=1&response_type=",
        ),
        (
            "https://sso.example.com/authorize?org=1&",
            "?org=1&response_type=",
        ),
    ] {
        let login_url = LoginUrl::production()
            .with_authorization_endpoint(endpoint)
            .unwrap();
        let app = App::new(login_url, "3MVG9");
        let request = AuthorizationUrl::new(&app, CALLBACK).build().unwrap();
        assert!(request.url().contains(joint), "{}", request.url());
    }
    let site = "https://MyDomainName.my.site.com/partners/"
        .parse()
        .unwrap();
    let app = App::new(site, "3MVG9");
    let request = AuthorizationUrl::new(&app, CALLBACK).build().unwrap();
    let start = "https://mydomainname.my.site.com/partners/services/oauth2/authorize?";
    assert!(request.url().starts_with(start));
}

#[test]
fn an_unsafe_parameter_state_or_verifier_is_refused() {
    let app = App::new(LoginUrl::production(), "3MVG9");
    for name in [
        "state",
        "code_challenge",
        "code_challenge_method",
        "client_id",
        "redirect_uri",
    ] {
        let error = AuthorizationUrl::new(&app, CALLBACK)
            .parameter(name, "x")
            .build()
            .unwrap_err();
        assert!(error.to_string().contains(name));
    }
    let error = AuthorizationUrl::new(&app, CALLBACK)
        .state("")
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    for verifier in [
        "",
        &"a".repeat(42),
        &"a".repeat(129),
        &"~".repeat(64),
        &"ä".repeat(64),
        &"a b".repeat(20),
    ] {
        let error = Pkce::from_verifier(verifier).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        assert!(verifier.is_empty() || !error.to_string().contains(verifier));
    }
    for length in [43, 128] {
        Pkce::from_verifier("a".repeat(length)).unwrap();
    }
}

#[test]
fn a_callback_without_the_pending_state_is_refused() {
    let pending = PendingAuthorization::new("xyzzy", VERIFIER).unwrap();
    let login_url = LoginUrl::production();
    for url in [
        "https://app.example.com/callback?code=aPrx%3D%3D&state=xyzzy",
        "/callback?state=xyzzy&code=aPrx%3D%3D#_=_",
        "code=aPrx%3D%3D&state=xyzzy",
        "https://app.example.com/callback?tenant=1&code=aPrx%3D%3D&state=xyzzy&sfdc_community_url=x",
    ] {
        assert_eq!(
            Callback::parse(url)
                .unwrap()
                .code(&pending, &login_url)
                .unwrap()
                .expose(),
            "aPrx=="
        );
    }
    for forged in [
        "?code=aPrx&state=xyzzz",
        "?code=aPrx&state=xyzz",
        "?code=aPrx&state=xyzzyy",
        "?code=aPrx&state=",
        "?code=aPrx",
        "?error=access_denied",
        "?error=access_denied&state=other",
    ] {
        let error = Callback::parse(forged)
            .unwrap()
            .code(&pending, &login_url)
            .unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::InvalidCallback, "{forged}");
        assert!(error.to_string().contains("`state`"));
    }
    for broken in [
        "",
        "?",
        "https://app.example.com/callback",
        "?state=xyzzy",
        "?code=a&code=b&state=xyzzy",
        "?code=a&state=xyzzy&state=xyzzy",
        "?error=a&error=b",
    ] {
        let error = Callback::parse(broken).unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::InvalidCallback, "{broken}");
    }
    for (denied, code) in [
        (
            "?error=access_denied&error_description=end-user%20denied&state=xyzzy",
            "access_denied",
        ),
        ("?error=access-denied&state=xyzzy", "access_denied"),
        (
            "?error=immediate_unsuccessful&state=xyzzy",
            "immediate_unsuccessful",
        ),
        (
            "?error=access_denied&code=aPrx&state=xyzzy",
            "access_denied",
        ),
    ] {
        let error = Callback::parse(denied)
            .unwrap()
            .code(&pending, &login_url)
            .unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::Refused);
        assert_eq!(error.error_code(), Some(code));
        assert!(error.is_terminal());
    }
}

#[tokio::test]
async fn a_code_is_exchanged_for_a_session_with_identity() {
    let org = Org::new();
    org.require_pkce(true);
    let (client, requests) = recorded(org.clone());
    let flow =
        AuthorizationCode::new(client, app(&org), org.redirect_uri()).scope("api refresh_token");
    let request = flow.authorization_url().build().unwrap();
    let callback = org.approve(request.url()).unwrap();
    let session = flow.exchange(request.pending(), &callback).await.unwrap();
    assert_eq!(session.organization_id(), Some("00Dxx0000001gEFEAY"));
    assert_eq!(session.user_id(), Some("005xx000001SwiUAAS"));
    assert!(session.refresh_token().is_some());
    let form: HashMap<_, _> = form_of(&requests.take()).into_iter().collect();
    assert_eq!(
        form["code_verifier"],
        request.pending().code_verifier().expose()
    );
    assert_eq!(form["redirect_uri"], org.redirect_uri());
    assert!(
        form["code"].ends_with("=="),
        "decoded once: {}",
        form["code"]
    );

    // A code can be exchanged only once.
    let again = flow
        .exchange(request.pending(), &callback)
        .await
        .unwrap_err();
    assert_eq!(again.error_code(), Some("invalid_grant"));
    assert!(
        again.to_string().contains("begin a new authorization"),
        "{again}"
    );

    // An exchange with another verifier is refused.
    let request = flow.authorization_url().build().unwrap();
    let callback = org.approve(request.url()).unwrap();
    let state = request.pending().state().expose();
    let wrong = PendingAuthorization::new(state, VERIFIER).unwrap();
    let refused = flow.exchange(&wrong, &callback).await.unwrap_err();
    assert!(
        refused.to_string().contains("another verifier"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_callback_with_a_wrong_state_sends_no_code() {
    let org = Org::new();
    let flow = AuthorizationCode::new(org.clone(), app(&org), org.redirect_uri());
    let ours = flow.authorization_url().build().unwrap();
    let theirs = flow.authorization_url().build().unwrap();
    let callback = org.approve(theirs.url()).unwrap();
    let error = flow.exchange(ours.pending(), &callback).await.unwrap_err();
    assert_eq!(error.kind(), RefreshErrorKind::InvalidCallback);
    let denied = org.deny(ours.url()).unwrap();
    let error = flow.exchange(ours.pending(), &denied).await.unwrap_err();
    assert_eq!(error.error_code(), Some("access_denied"));
    assert_eq!(org.counters().token_requests, 0);
}

#[tokio::test]
async fn offline_access_requested_and_not_granted_is_an_error() {
    let org = Org::new();
    for (asked, sent, is_error) in [
        // The org grants the scope of the URL, which is less than the flow's.
        ("api refresh_token", "api", true),
        ("offline_access api", "api", true),
        ("api", "api", false),
        ("api refresh_token", "api refresh_token", false),
    ] {
        let flow = AuthorizationCode::new(org.clone(), app(&org), org.redirect_uri()).scope(asked);
        let request = flow.authorization_url().scope(sent).build().unwrap();
        let callback = org.approve(request.url()).unwrap();
        let exchanged = flow.exchange(request.pending(), &callback).await;
        match exchanged {
            Err(error) => {
                assert!(is_error, "{asked}, {sent}: {error}");
                assert_eq!(error.kind(), RefreshErrorKind::NoRefreshToken);
                assert!(error.is_terminal());
            }
            Ok(_) => assert!(!is_error, "{asked}, {sent}"),
        }
    }
}

#[tokio::test]
async fn an_app_without_a_secret_logs_in_where_none_is_required() {
    let org = Org::new();
    let flow = AuthorizationCode::new(org.clone(), public_app(&org), org.redirect_uri());
    let exchange = async || {
        let request = flow.authorization_url().build().unwrap();
        let callback = org.approve(request.url()).unwrap();
        flow.exchange(request.pending(), &callback).await
    };
    assert!(exchange().await.is_err());
    org.require_secret(false);
    assert!(exchange().await.is_ok());
}

#[test]
fn a_misleading_login_url_or_an_empty_code_is_refused() {
    let login_url: Result<LoginUrl, _> = "https://example.my.salesforce.com/services".parse();
    assert_eq!(login_url.unwrap_err().kind(), ErrorKind::InvalidUrl);
    assert!(
        "https://example.my.site.com/servicesite"
            .parse::<LoginUrl>()
            .is_ok()
    );
    for callback in ["?code=&state=x", "?state=x&code="] {
        let error = Callback::parse(callback).unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::InvalidCallback);
    }
}
