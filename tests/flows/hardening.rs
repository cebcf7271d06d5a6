//! What was found by attacking the flows, the calls and the logout, each mended.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_salesforce_auth::{
    ErrorKind, LiveSession, LoginUrl, Observer, RefreshContext, RefreshError, RefreshErrorKind,
    RefreshFn, ReplayBody, SalesforceAuthLayer, Secret, Session, SessionHandle,
    emulator::{Fault, Org},
    flow::{
        AuthorizationCode, ClientCredentials, DeviceAuthorization, RefreshToken, SamlBearer,
        SoapLogin, SubjectTokenType, TokenExchange, UsernamePassword,
    },
    oauth::{self, App, Callback, PendingAuthorization},
};

use crate::support::{answering, app, first_login, get_limits, granted, recorded};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

fn production() -> App {
    App::new(LoginUrl::production(), "3MVG9")
}

async fn is_good(org: &Org, session: &Session) -> bool {
    let layer = SalesforceAuthLayer::with_session(session.clone());
    get_limits(&layer, org).await.unwrap().0 == StatusCode::OK
}

// === Generations and users ===

#[tokio::test]
async fn r16_a_request_before_a_logout_is_not_replayed_after_it() {
    let alice = "005xx0000000001";
    let session = |user: &str, token| {
        let session = Session::new(token, "https://example.my.salesforce.com");
        session.unwrap().with_ids("00Dxx0000000001", user)
    };
    for second_user in [alice, "005xx0000000002"] {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        let answered = answered.shared();
        let inner = {
            let sent = Arc::clone(&sent);
            service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
                let token = request.headers()["authorization"].to_str().unwrap();
                sent.lock().unwrap().push(token.to_owned());
                let answered = answered.clone();
                async move {
                    let _ = answered.await;
                    let response = Response::builder().status(StatusCode::UNAUTHORIZED);
                    response.body(Full::<Bytes>::default())
                }
            })
        };
        let layer = SalesforceAuthLayer::new(async |_: RefreshContext| {
            Err::<Session, _>(RefreshError::terminal("none"))
        });
        let handle = layer.handle();
        handle.set(session(alice, "FIRST"));
        let before = handle.current().unwrap().generation();
        let request = Request::post("/")
            .body(Full::<Bytes>::from("alice's"))
            .unwrap();
        let mut asked = std::pin::pin!(layer.layer(inner).oneshot(request));
        assert!(asked.as_mut().now_or_never().is_none());

        handle.logout(answering(200, &[], "")).await.unwrap();
        handle.set(session(second_user, "SECOND"));
        assert!(handle.current().unwrap().generation() > before);
        answer.send(()).unwrap();

        assert_eq!(asked.await.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(*sent.lock().unwrap(), ["Bearer FIRST"]);
        // What was said of a session before is not held against this one.
        handle.invalidate(before);
        assert!(handle.current().is_some());
    }
}

#[tokio::test]
async fn r03_a_session_of_another_user_keeps_no_refresh_token() {
    let org = Org::new();
    let handle = SessionHandle::new(AuthorizationCode::new(
        org.clone(),
        app(&org),
        org.redirect_uri(),
    ));
    handle.set(granted(&org).with_ids("00Dxx0000000001", "005xx0000000001"));
    let bob = Session::new("BOB", &org.instance_url()).unwrap();
    handle.set(bob.with_ids("00Dxx0000000001AAA", "005xx0000000002AAA"));
    assert!(handle.refresh_token().is_none());
    let error = handle.refresh().await.unwrap_err();
    assert_eq!(
        error.refresh_error().unwrap().kind(),
        RefreshErrorKind::NoRefreshToken
    );
    assert_eq!(org.counters().token_requests, 0);
}

// === Refresh tokens ===

#[tokio::test]
async fn r03_a_rotated_out_refresh_token_is_never_presented() {
    let org = Org::new();
    let grant = org.authorize();
    let flow = RefreshToken::new(org.clone(), app(&org), grant.refresh_token());
    let handle = SessionHandle::new(flow);
    handle.token().await.unwrap();
    handle.logout(org.clone()).await.unwrap();
    handle.reset();
    let error = handle.token().await.unwrap_err();
    assert_eq!(
        error.refresh_error().unwrap().kind(),
        RefreshErrorKind::NoRefreshToken
    );
    handle.set(Session::new("OTHER", "https://other.my.salesforce.com").unwrap());
    handle.refresh().await.unwrap_err();
    assert_eq!(org.counters().refresh_token_reuses, 0);

    // One that was never rotated is as good after a logout as before.
    org.rotate_refresh_tokens(false);
    let grant = org.authorize();
    let handle = SessionHandle::new(RefreshToken::new(
        org.clone(),
        app(&org),
        grant.refresh_token(),
    ));
    handle.token().await.unwrap();
    handle.logout(org.clone()).await.unwrap();
    handle.reset();
    handle.token().await.unwrap();
    // But not after it was revoked.
    handle.logout_and_revoke(org.clone()).await.unwrap();
    handle.reset();
    let error = handle.token().await.unwrap_err();
    assert_eq!(
        error.refresh_error().unwrap().kind(),
        RefreshErrorKind::NoRefreshToken
    );
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<String>>>);

impl Observer for Kept {
    fn refresh_token_changed(&self, refresh_token: &Secret) {
        self.0
            .lock()
            .unwrap()
            .push(refresh_token.expose().to_owned());
    }
}

#[tokio::test]
async fn r03_a_rotated_token_without_a_session_is_reported() {
    // A first login whose answer cannot be used.
    for body in [
        r#"{"access_token":"A","refresh_token":"R1","instance_url":"https://example.com"}"#,
        r#"{"access_token":"A","refresh_token":"R1"}"#,
        r#"{"access_token":["A"],"scope":["api"],"refresh_token":"R1","instance_url":"https://example.my.salesforce.com"}"#,
        r#"{"refresh_token":"R1","token_type":"DPoP","token_type":"DPoP"} trailing"#,
    ] {
        let kept = Kept::default();
        let flow = RefreshToken::new(answering(200, &[], body), production(), "R0");
        let layer = SalesforceAuthLayer::new(flow).observer(Arc::new(kept.clone()));
        layer.handle().token().await.unwrap_err();
        assert_eq!(*kept.0.lock().unwrap(), ["R1"], "{body}");
        assert_eq!(layer.handle().refresh_token(), Some(Secret::from("R1")));
    }
    // A logout in the middle of a refresh.
    let org = Org::new();
    let kept = Kept::default();
    let flow = AuthorizationCode::new(org.clone(), app(&org), org.redirect_uri());
    let layer = SalesforceAuthLayer::new(flow)
        .session(granted(&org))
        .observer(Arc::new(kept.clone()));
    org.on_token(Fault::Hang);
    let handle = layer.handle();
    let refreshing = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await }
    });
    while org.counters().token_requests == 0 {
        tokio::task::yield_now().await;
    }
    let logout = tokio::spawn({
        let (handle, org) = (handle.clone(), org.clone());
        async move { handle.logout(org).await }
    });
    refreshing.await.unwrap().unwrap_err();
    org.on_token(Fault::None);
    logout.await.unwrap().unwrap();
    let token = Secret::from(kept.0.lock().unwrap().pop().unwrap());
    oauth::refresh_token(org.clone(), &app(&org), &token)
        .await
        .unwrap();
    assert_eq!(org.counters().refresh_token_reuses, 0);
}

// === Logout ===

#[tokio::test]
async fn r30_logout_and_revoke_ends_another_logins_session_too() {
    let org = Org::new();
    let handle = SessionHandle::new(ClientCredentials::new(org.clone(), app(&org)));
    handle.set(granted(&org));
    let lone = granted(&org);
    let lone = Session::new(lone.access_token().clone(), &org.instance_url()).unwrap();
    handle.set(lone.clone());
    handle.logout_and_revoke(org.clone()).await.unwrap();
    assert!(!is_good(&org, &lone).await);
}

#[tokio::test]
async fn r30_logout_can_be_repeated_after_a_failure() {
    for revoke in [false, true] {
        let org = Org::new();
        let handle = SessionHandle::with_session(granted(&org));
        let session = (*handle.current().unwrap()).clone();
        org.on_revoke(Fault::Maintenance);
        let log_out = async || {
            if revoke {
                handle.logout_and_revoke(org.clone()).await
            } else {
                handle.logout(org.clone()).await
            }
        };
        assert_eq!(log_out().await.unwrap_err().kind(), ErrorKind::Logout);
        assert!(is_good(&org, &session).await);
        assert_eq!(log_out().await.unwrap_err().kind(), ErrorKind::Logout);
        org.on_revoke(Fault::None);
        log_out().await.unwrap();
        assert!(!is_good(&org, &session).await);
        let refresh_token = session.refresh_token().unwrap();
        let refreshed = oauth::refresh_token(org.clone(), &app(&org), refresh_token).await;
        assert_eq!(refreshed.is_err(), revoke);
        let before = org.counters().revoke_requests;
        log_out().await.unwrap();
        assert_eq!(org.counters().revoke_requests, before, "nothing is left");
    }
}

#[tokio::test(start_paused = true)]
async fn r30_logout_at_a_silent_server_times_out() {
    let org = Org::new();
    org.on_revoke(Fault::Hang);
    let session = granted(&org);
    let handle = SessionHandle::with_session(session.clone());
    let started = tokio::time::Instant::now();
    let error = handle.logout(org.clone()).await.unwrap_err();
    assert_eq!(
        error.refresh_error().unwrap().kind(),
        RefreshErrorKind::TimedOut
    );
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    // What was cut off is still there to be ended.
    org.on_revoke(Fault::None);
    assert!(is_good(&org, &session).await);
    handle.logout(org.clone()).await.unwrap();
    assert!(!is_good(&org, &session).await);
}

#[tokio::test]
async fn r30_logout_revocation_fails_on_a_server_error() {
    let body = r#"{"error":"invalid_token"}"#;
    let revoke = async |status| {
        let token = Secret::from("T");
        oauth::revoke(
            answering(status, &[], body),
            &LoginUrl::production(),
            &token,
        )
        .await
    };
    assert!(revoke(400).await.is_ok());
    assert!(revoke(503).await.is_err());
}

#[tokio::test]
async fn r30_logout_by_an_observer_discards_the_new_session() {
    #[derive(Clone, Default)]
    struct Leaver(Arc<OnceLock<(SessionHandle, Org)>>);

    impl Observer for Leaver {
        fn session_changed(&self, _: &LiveSession) {
            if let Some((handle, org)) = self.0.get() {
                let _ = handle.logout(org.clone()).now_or_never();
            }
        }
    }

    let org = Org::new();
    let leaver = Leaver::default();
    let flow = ClientCredentials::new(org.clone(), app(&org));
    let layer = SalesforceAuthLayer::new(flow).observer(leaver.clone());
    assert!(leaver.0.set((layer.handle(), org.clone())).is_ok());
    let error = layer.handle().token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoggedOut);
}

// === Servers ===

/// What a refusal means does not depend on what of it may be shown.
#[tokio::test]
async fn a_refusal_that_contains_a_secret_keeps_its_meaning() {
    let body = r#"{"error":"server_error","error_description":"retry"}"#;
    let flow = UsernamePassword::new(answering(400, &[], body), production(), "user", "error");
    let refused = flow.refresh(first_login()).await.unwrap_err();
    assert_eq!(refused.error_code(), Some("server_error"));
    assert!(!refused.is_terminal());
    let body = r#"{"error":"invalid_request","error_description":"add refresh_token to the app"}"#;
    let flow = TokenExchange::new(
        answering(400, &[], body),
        production(),
        "T",
        SubjectTokenType::Jwt,
    );
    let refused = flow
        .scope("refresh_token")
        .refresh(first_login())
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("add the scope refresh_token"),
        "{refused}"
    );
}

#[tokio::test]
async fn r17_a_secret_in_another_form_redacts_the_description() {
    let secret = "p@ss/word hush'ed<1>";
    for repeated in [
        "p%40ss%2Fword%20hush%27ed%3C1%3E",
        "p%40ss%2fword%20hush%27ed%3c1%3e",
        "p@ss/word hush&apos;ed&lt;1&gt;",
        "P@SS/WORD HUSH'ED<1>",
        "p@ss/word hu",
        "cEBzcy93b3JkIGh1c2gnZWQ8MT4=",
        r"p@ss\/word \u0068ush",
    ] {
        let description = serde_json::to_string(&format!("bad: {repeated}")).unwrap();
        let body = format!(r#"{{"error":"invalid_grant","error_description":{description}}}"#);
        let flow = UsernamePassword::new(answering(400, &[], body), production(), "user", secret);
        let refused = flow.refresh(first_login()).await.unwrap_err();
        assert!(
            refused.to_string().contains("[redacted]"),
            "{repeated}: {refused}"
        );
        assert!(!refused.to_string().contains("hu"), "{refused}");
        let body = format!(
            "<Fault><faultcode>X</faultcode><faultstring><![CDATA[bad: {repeated}]]></faultstring></Fault>"
        );
        let flow = SoapLogin::new(
            answering(500, &[], body),
            LoginUrl::production(),
            "user",
            secret,
        );
        let refused = flow.refresh(first_login()).await.unwrap_err();
        assert!(!refused.to_string().contains("hu"), "{refused}");
    }
    let xml = "<saml:Assertion>hush-hush</saml:Assertion>";
    let body =
        serde_json::json!({ "error": "invalid_grant", "error_description": xml }).to_string();
    let flow = SamlBearer::new(answering(400, &[], body), LoginUrl::production(), xml);
    let refused = flow.refresh(first_login()).await.unwrap_err();
    assert!(!refused.to_string().contains("hush"), "{refused}");
    let callback = "/?error=access_denied&error_description=STATE-hush+CODE-hush&state=STATE-hush&code=CODE-hush";
    let pending = PendingAuthorization::new("STATE-hush", VERIFIER).unwrap();
    let denied = Callback::parse(callback).unwrap();
    let denied = denied.code(&pending).unwrap_err();
    assert!(!denied.to_string().contains("hush"), "{denied}");
}

#[tokio::test]
async fn an_error_body_with_status_200_is_an_error() {
    let body = r#"{"error":"server_error","error_description":"retry"}"#;
    let flow = ClientCredentials::new(answering(200, &[], body), production());
    let refused = flow.refresh(first_login()).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.is_terminal()),
        (RefreshErrorKind::Refused, false)
    );
    // It may repeat the app's own secret, too.
    let body = r#"{"error":"invalid_client","error_description":"SECRET-hush is wrong"}"#;
    let app = production().client_secret("SECRET-hush");
    let flow = ClientCredentials::new(answering(200, &[], body), app);
    let refused = flow.refresh(first_login()).await.unwrap_err();
    assert!(refused.to_string().contains("[redacted]"), "{refused}");
    assert!(!refused.to_string().contains("hush"), "{refused}");
    // A token that comes with it is not lost.
    let body = r#"{"error":"server_error","refresh_token":"R1"}"#;
    let flow = RefreshToken::new(answering(200, &[], body), production(), "R0");
    let error = flow.refresh(first_login()).await.unwrap_err();
    assert_eq!(error.rotated_refresh_token(), Some(&Secret::from("R1")));
    let body =
        "<Fault><faultcode>soapenv:Server</faultcode><faultstring>try later</faultstring></Fault>";
    let flow = SoapLogin::new(
        answering(500, &[], body),
        LoginUrl::production(),
        "user",
        "password",
    );
    assert!(!flow.refresh(first_login()).await.unwrap_err().is_terminal());
}

#[tokio::test(start_paused = true)]
async fn r14_extreme_server_numbers_do_not_break_the_device_flow() {
    let begin = |numbers: &str| {
        let body = format!(
            r#"{{"device_code":"d","user_code":"U","verification_uri":"https://example.com"{numbers}}}"#
        );
        let client = answering(200, &[], body);
        async move {
            DeviceAuthorization::new(client, production())
                .begin()
                .await
                .unwrap()
        }
    };
    let five = Duration::from_secs(5);
    assert_eq!(begin(r#","interval":0"#).await.interval(), five);
    assert_eq!(begin(r#","interval":"5""#).await.interval(), five);
    assert_eq!(begin(r#","interval":null"#).await.interval(), five);
    for numbers in [
        r#","interval":18446744073709551615,"expires_in":600"#,
        r#","interval":1,"expires_in":600"#,
    ] {
        let code = begin(numbers).await;
        let (client, requests) = recorded(answering(
            503,
            &[("retry-after", "18446744073709551615")],
            "",
        ));
        let error = DeviceAuthorization::new(client, production())
            .wait(&code)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::TimedOut);
        assert!(requests.take().len() <= 1);
    }
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
