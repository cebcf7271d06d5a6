//! Odd answers of the calls beside the token endpoint, redirects, and times to wait.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::service_fn;
use tower_salesforce_auth::{
    BoxError, LoginUrl, RefreshError, RefreshErrorKind, RefreshFn, Secret, Session, SessionHandle,
    flow::{DeviceAuthorization, RefreshToken, SoapLogin},
    oauth::{self, App},
};

use crate::support::{Ending, answering, answering_in_pieces};

const MY_DOMAIN: &str = "https://acme.my.salesforce.com";
const ID: &str = "https://login.salesforce.com/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS";

fn app() -> App {
    App::new(MY_DOMAIN.parse().unwrap(), "3MVG9key")
}

fn session(identity_url: &str) -> Session {
    let session = Session::new("00Dxx!AQEAQ", MY_DOMAIN).unwrap();
    session.with_identity_url(identity_url)
}

/// An object in the forms of odd answers.
fn dressed(object: &str) -> Vec<Vec<u8>> {
    let utf_16 = object.encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        object.as_bytes().to_vec(),
        format!("\u{feff}{object}").into_bytes(),
        format!("{object}\n<!-- proxy -->").into_bytes(),
        object
            .replacen('{', "{\"a\":\"b\u{1}\nc\",", 1)
            .into_bytes(),
        object.replacen('{', "{\"a\":NaN,", 1).into_bytes(),
        [object.as_bytes(), b"\xeb"].concat(),
        utf_16,
    ]
}

// === Types of fields ===

#[tokio::test]
async fn the_times_of_a_device_code_may_be_written_in_many_ways() {
    for time in ["5", "\"5\"", "5.0", "\" 5 \"", "\"5.0\"", "5e0"] {
        let body = format!(
            r#"{{"user_code":"ABCD","device_code":"d","verification_uri":"https://login.salesforce.com/connect","interval":{time},"expires_in":{time}}}"#
        );
        for body in dressed(&body) {
            let flow = DeviceAuthorization::new(answering(200, &[], body), app());
            let code = flow.begin().await.unwrap();
            assert_eq!(code.interval(), Duration::from_secs(5), "{time}");
            assert_eq!(code.expires_in(), Duration::from_secs(5), "{time}");
        }
    }
    for time in [
        "null",
        "\"soon\"",
        "{}",
        "[]",
        "-1",
        "0",
        "18446744073709551616",
    ] {
        let body = format!(
            r#"{{"user_code":1234,"device_code":"d","verification_uri":"https://login.salesforce.com/connect","interval":{time},"expires_in":{time}}}"#
        );
        let code = DeviceAuthorization::new(answering(200, &[], body), app())
            .begin()
            .await
            .unwrap();
        assert_eq!(code.user_code(), "1234");
        assert_eq!(code.interval(), Duration::from_secs(5), "{time}");
        assert_eq!(code.expires_in(), Duration::from_secs(600), "{time}");
    }
    for (body, part) in [
        (
            r#"{"user_code":"A","verification_uri":"u"}"#,
            "`device_code`",
        ),
        (
            r#"{"user_code":null,"device_code":"hush","verification_uri":"u"}"#,
            "`user_code`",
        ),
        (
            r#"{"user_code":"A","device_code":"hush"}"#,
            "`verification_uri`",
        ),
        ("<html>", "HTML"),
    ] {
        let flow = DeviceAuthorization::new(answering(200, &[], body), app());
        let error = flow.begin().await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}

#[tokio::test]
async fn r39_an_identity_with_a_field_of_another_type_is_not_lost() {
    for field in [
        r#""email_verified":"true""#,
        r#""email_verified":null"#,
        r#""active":"true""#,
        r#""display_name":null"#,
        r#""urls":null"#,
        r#""urls":[]"#,
        r#""urls":{"rest":null}"#,
        r#""id":null"#,
        r#""first_name":42"#,
        r#""nick_name":{}"#,
        r#""timezone":false"#,
        r#""username":null"#,
        r#""user_id":[],"locale":1e999"#,
    ] {
        for object in [
            format!(
                r#"{{"user_id":"005xx","organization_id":"00Dxx","username":"user@example.com",{field}}}"#
            ),
            format!(
                r#"{{{field},"username":"user@example.com","user_id":"005xx","organization_id":"00Dxx"}}"#
            ),
        ] {
            for body in dressed(&object) {
                let identity = oauth::identity(answering(200, &[], body), &session(ID)).await;
                let identity = identity.unwrap_or_else(|error| panic!("{field}: {error}"));
                assert_eq!(
                    identity.username.as_deref(),
                    Some("user@example.com"),
                    "{field}"
                );
                assert_eq!(identity.user_id, "005xx");
                assert_eq!(
                    identity.email_verified,
                    field
                        .contains(":\"true\"")
                        .then_some(true)
                        .filter(|_| field.contains("email"))
                );
            }
            let object = object.replace("username", "preferred_username");
            for body in dressed(&object) {
                let user = oauth::userinfo(answering(200, &[], body), &session(ID))
                    .await
                    .unwrap();
                assert_eq!(
                    user.preferred_username.as_deref(),
                    Some("user@example.com"),
                    "{field}"
                );
            }
        }
    }
    let identity: oauth::Identity =
        serde_json::from_str(r#"{"active":"1","urls":{"rest":"u"}}"#).unwrap();
    assert_eq!((identity.active, identity.urls.len()), (Some(true), 1));
}

#[tokio::test]
async fn r39_a_token_with_a_field_of_another_type_is_described() {
    let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
    for (object, active, exp) in [
        (
            r#"{"active":true,"exp":1750007200}"#,
            true,
            at(1_750_007_200),
        ),
        (
            r#"{"active":"true","exp":"1750007200"}"#,
            true,
            at(1_750_007_200),
        ),
        (
            r#"{"active":1,"exp":1750007200.0,"scope":null}"#,
            true,
            at(1_750_007_200),
        ),
        (r#"{"active":true,"exp":null,"username":42}"#, true, None),
        (r#"{"active":true,"active":null,"exp":{}}"#, true, None),
        (
            r#"{"active":null,"exp":1750007200}"#,
            false,
            at(1_750_007_200),
        ),
        (r#"{"active":{},"exp":18446744073709551615}"#, false, None),
        (r#"{"active":"false"}"#, false, None),
    ] {
        for body in dressed(object) {
            let described =
                oauth::introspect(answering(200, &[], body), &app(), &Secret::from("T")).await;
            let described = described.unwrap_or_else(|error| panic!("{object}: {error}"));
            assert_eq!((described.active, described.exp), (active, exp), "{object}");
        }
    }
    for body in ["{}", "[]", "", "<html>", r#"{"exp":1}"#] {
        let error = oauth::introspect(answering(200, &[], body), &app(), &Secret::from("T")).await;
        assert_eq!(
            error.unwrap_err().kind(),
            RefreshErrorKind::InvalidResponse,
            "{body}"
        );
    }
}

#[tokio::test]
async fn r39_metadata_with_a_field_of_another_type_is_read() {
    const REQUIRED: &str = r#""issuer":"https://acme.my.salesforce.com","authorization_endpoint":"https://acme.my.salesforce.com/services/oauth2/authorize","token_endpoint":"https://acme.my.salesforce.com/services/oauth2/token""#;
    let login_url: LoginUrl = MY_DOMAIN.parse().unwrap();
    for field in [
        r#""scopes_supported":null"#,
        r#""scopes_supported":"api web""#,
        r#""scopes_supported":["api",null,7,"web"]"#,
        r#""revocation_endpoint":null"#,
        r#""jwks_uri":[]"#,
        r#""token_endpoint":null"#,
        r#""userinfo_endpoint":{}"#,
    ] {
        for body in dressed(&format!("{{{REQUIRED},{field}}}")) {
            let found = oauth::discover(answering(200, &[], body), &login_url).await;
            let found = found.unwrap_or_else(|error| panic!("{field}: {error}"));
            assert!(found.login_url().is_ok());
            let scopes = found.scopes_supported;
            assert!(scopes.is_empty() || scopes == ["api", "web"], "{scopes:?}");
        }
    }
    let body = r#"{"issuer":"https://acme.my.salesforce.com","token_endpoint":7}"#;
    let error = oauth::discover(answering(200, &[], body), &login_url)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("`authorization_endpoint`"),
        "{error}"
    );
    let error = oauth::discover(answering(404, &[], "<title>Gone</title>"), &login_url).await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("an HTML page, \"Gone\"")
    );
}

// === Refusals of other calls ===

#[tokio::test]
async fn r39_a_refusal_of_a_revocation_is_read_in_any_dress() {
    let revoke = async |status, body: Vec<u8>| {
        let client = answering(status, &[], body);
        oauth::revoke(client, &app(), &Secret::from("5Aep861-hush")).await
    };
    for body in dressed(r#"{"error":"invalid_token","error_description":"5Aep861-hush"}"#) {
        assert!(revoke(400, body.clone()).await.is_ok());
        assert!(revoke(503, body).await.is_err());
    }
    for body in dressed(r#"{"error":"unsupported_token_type","error_description":null}"#) {
        for status in [400, 200] {
            let error = revoke(status, body.clone()).await.unwrap_err();
            assert_eq!(
                error.error_code(),
                Some("unsupported_token_type"),
                "{error}"
            );
        }
    }
    for body in ["", "OK", "{}", "\u{feff}"] {
        assert!(revoke(200, body.into()).await.is_ok(), "{body}");
    }
    // Nothing was revoked.
    let error = revoke(200, "<html>Log in to the Wi-Fi</html>".into())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("HTML"), "{error}");
}

#[tokio::test]
async fn r39_a_refusal_of_an_identity_is_read_in_any_dress() {
    let identity = async |status, body: &str| {
        oauth::identity(answering(status, &[], body.to_owned()), &session(ID))
            .await
            .unwrap_err()
    };
    for body in [
        "Bad_OAuth_Token",
        "\u{feff}Bad_OAuth_Token\r\n",
        "\"Bad_OAuth_Token\"",
        "\0Bad_OAuth_Token",
    ] {
        let error = identity(403, body).await;
        assert_eq!(error.error_code(), Some("Bad_OAuth_Token"), "{body}");
        assert!(error.is_terminal());
    }
    let error = identity(
        401,
        r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#,
    )
    .await;
    assert_eq!(error.error_code(), Some("INVALID_SESSION_ID"));
    assert_eq!(error.kind(), RefreshErrorKind::Refused);
    let error = identity(404, "No_Site_Endpoint").await;
    assert!(
        error.to_string().contains("administrator activate it"),
        "{error}"
    );
    // A success that is none.
    for body in ["<html>", "[]", "", r#"[{"errorCode":"X"}]"#] {
        let error = identity(200, body).await;
        assert_eq!(error.kind(), RefreshErrorKind::InvalidResponse, "{body}");
    }
}

/// A site's user has an identity URL with the site's path, and a My Domain knows no such path.
#[tokio::test]
async fn an_identity_url_of_a_site_is_asked_where_it_is() {
    const IDS: &str = "/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS";
    let client = service_fn(|request: Request<Full<Bytes>>| async move {
        let path = request.uri().path().to_owned();
        let body = format!(r#"{{"user_id":"005xx","username":"{path}"}}"#);
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::from(body)))
    });
    for (url, instance, path) in [
        ("https://login.salesforce.com", MY_DOMAIN, IDS.to_owned()),
        (
            "https://acme.my.site.com/partners",
            MY_DOMAIN,
            IDS.to_owned(),
        ),
        ("https://acme.my.site.com", MY_DOMAIN, IDS.to_owned()),
        ("https://acme.my.site.com/id", MY_DOMAIN, IDS.to_owned()),
        ("https://acme.my.site.com/a/b", MY_DOMAIN, IDS.to_owned()),
        // The site itself has the path.
        (
            "https://acme.my.site.com/partners",
            "https://acme.my.site.com",
            format!("/partners{IDS}"),
        ),
    ] {
        let session = Session::new("00Dxx!AQEAQ", instance).unwrap();
        let session = session.with_identity_url(format!("{url}{IDS}"));
        let identity = oauth::identity(client, &session).await.unwrap();
        assert_eq!(identity.username, Some(path), "{url}");
        assert_eq!(
            session.organization_id(),
            Some("00Dxx0000001gEFEAY"),
            "{url}"
        );
        assert_eq!(session.user_id(), Some("005xx000001SwiUAAS"), "{url}");
    }
}

// === SOAP ===

fn envelope(content: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><e:Envelope xmlns:e=\"http://schemas.xmlsoap.org/soap/envelope/\"><e:Body>{content}</e:Body></e:Envelope>"
    )
}

fn xml_dressed(document: &str) -> Vec<Vec<u8>> {
    let latin_1 = document.replace("UTF-8", "ISO-8859-1");
    vec![
        document.as_bytes().to_vec(),
        format!("\u{feff}{document}").into_bytes(),
        format!("\r\n\0{document}\n\0garbage").into_bytes(),
        document.replace("</e:Body></e:Envelope>", "").into_bytes(),
        document
            .replace("<e:Body>", "<e:Body><x>AT&T &nbsp; \u{1} </y>")
            .into_bytes(),
        document.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        [
            latin_1.replace("<e:Body>", "<e:Body><n>Zo").into_bytes(),
            b"\xeb".to_vec(),
        ]
        .concat(),
    ]
}

async fn soap(status: u16, body: impl Into<Bytes>) -> Result<Session, RefreshError> {
    let login_url = MY_DOMAIN.parse().unwrap();
    let flow = SoapLogin::new(answering(status, &[], body), login_url, "user", "password");
    flow.log_in().await
}

#[tokio::test]
async fn r39_a_soap_login_in_any_dress_is_read() {
    let result = "<loginResponse><result><passwordExpired>false</passwordExpired><serverUrl>https://acme.my.salesforce.com/services/Soap/u/64.0/00Dxx</serverUrl><sessionId/><sessionId>00Dxx!AQEAQ</sessionId><userInfo><sessionSecondsValid>7200.0</sessionSecondsValid></userInfo></result></loginResponse>";
    for body in xml_dressed(&envelope(result)) {
        let shown = body.escape_ascii().to_string();
        let session = soap(200, body)
            .await
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(session.access_token().expose(), "00Dxx!AQEAQ");
        assert_eq!(
            session.lifetime(),
            Some(Duration::from_secs(7_200)),
            "{shown}"
        );
    }
    // What came before the connection broke.
    let document = envelope(result);
    let cut = &document[..document.find("<userInfo").unwrap()];
    let client = answering_in_pieces(200, [cut.to_owned()], Ending::BreaksOff);
    let login = SoapLogin::new(client, MY_DOMAIN.parse().unwrap(), "user", "password");
    assert!(login.log_in().await.is_ok());
    let cut = &document[..document.find("<sessionId>").unwrap()];
    let client = answering_in_pieces(200, [cut.to_owned()], Ending::BreaksOff);
    let login = SoapLogin::new(client, MY_DOMAIN.parse().unwrap(), "user", "password");
    let error = login.log_in().await.unwrap_err();
    assert!(!error.is_terminal(), "{error}");
    assert!(error.retry_after() >= Some(Duration::from_secs(300)));
}

#[tokio::test]
async fn r39_a_soap_fault_in_any_dress_is_a_refusal() {
    let fault = "<e:Fault><faultcode>sf:INVALID_LOGIN</faultcode><faultstring>INVALID_LOGIN: Invalid username</faultstring><detail><f><exceptionCode>INVALID_LOGIN</exceptionCode></f></detail></e:Fault>";
    for body in xml_dressed(&envelope(fault)) {
        for status in [500, 200, 400] {
            let shown = body.escape_ascii().to_string();
            let error = soap(status, body.clone()).await.unwrap_err();
            assert!(error.is_terminal(), "{shown}: {error}");
            assert_eq!(error.error_code(), Some("INVALID_LOGIN"), "{shown}");
        }
    }
    // Not understood: as little is repeated.
    for body in [
        "\u{b}\u{2}\0",
        "<e:Envelope><e:Body><e:Fault><faultcode>sf:INV",
        "not now",
    ] {
        let error = soap(500, body).await.unwrap_err();
        assert!(error.is_terminal(), "{body}: {error}");
        assert!(error.to_string().contains("lockout"), "{error}");
    }
    let error = soap(503, "<html>Down for maintenance</html>")
        .await
        .unwrap_err();
    assert!(!error.is_terminal());
}

// === Redirects ===

async fn redirected(status: u16, location: Option<&'static str>) -> RefreshError {
    let client = service_fn(move |_: Request<Full<Bytes>>| async move {
        let mut response = Response::builder().status(status);
        if let Some(location) = location {
            response = response.header("location", location);
        }
        let response = response
            .header("retry-after", "77")
            .body(Full::<Bytes>::default());
        response.map_err(BoxError::from)
    });
    RefreshToken::new(client, app(), "5Aep861-hush")
        .log_in()
        .await
        .unwrap_err()
}

#[tokio::test]
async fn a_redirect_to_a_place_that_is_no_login_host_passes() {
    for (status, location) in [
        (
            302,
            Some(
                "https://gateway.zscaler.net:443/auD?origurl=https%3A%2F%2Facme.my.salesforce.com",
            ),
        ),
        (307, Some("https://portal.example.com/login")),
        (302, Some("http://192.168.1.1/captive")),
        (302, Some("https://sorry.example.com/maintenance.html")),
        (302, Some("http://[fe80::1]/portal")),
        (302, Some("https://acme.my.salesforce.com.evil.example/")),
        (302, Some("https://evil-salesforce.com/")),
        (302, Some("https://status.salesforce.com/")),
        (302, Some("/maintenance")),
        (302, Some("https://acme.my.salesforce.com/maintenance")),
        (302, Some("\u{e9}t\u{e9}")),
        (303, Some("")),
        (302, None),
        (304, None),
    ] {
        let error = redirected(status, location).await;
        assert!(!error.is_terminal(), "{location:?}: {error}");
        assert!(
            !error.to_string().contains("use it as the login URL"),
            "{error}"
        );
        assert_eq!(error.retry_after(), Some(Duration::from_secs(77)));
        assert!(!format!("{error:?}").contains("hush"));
    }
}

#[tokio::test]
async fn a_redirect_to_a_login_host_is_recommended() {
    for (location, host) in [
        (
            "https://new.my.salesforce.com/services/oauth2/token",
            "new.my.salesforce.com",
        ),
        ("http://new.my.salesforce.com/", "new.my.salesforce.com"),
        ("https://LOGIN.salesforce.com/", "login.salesforce.com"),
        ("https://test.salesforce.com/", "test.salesforce.com"),
        ("https://acme.my.site.com/partners", "acme.my.site.com"),
        (
            "https://acme--dev.sandbox.my.salesforce.com/",
            "acme--dev.sandbox.my.salesforce.com",
        ),
    ] {
        let error = redirected(307, Some(location)).await;
        assert!(error.is_terminal(), "{location}");
        let advice = format!("if {host} belongs to the org, use it as the login URL");
        assert!(error.to_string().contains(&advice), "{error}");
    }
    let error = redirected(302, Some("https://acme.lightning.force.com/")).await;
    assert!(error.is_terminal());
    assert!(
        error
            .to_string()
            .contains("use the org's My Domain as the login URL"),
        "{error}"
    );
}

// === Times to wait ===

fn imf_fixdate(seconds_from_now: u64) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "the server's date is a time of today"
    )]
    let now = SystemTime::now();
    httpdate::fmt_http_date(now + Duration::from_secs(seconds_from_now))
}

#[tokio::test]
async fn a_pause_may_be_given_as_a_date() {
    for (status, body) in [
        (503, "Down"),
        (429, ""),
        (400, r#"{"error":"server_error"}"#),
        (302, ""),
    ] {
        let client = service_fn(move |_: Request<Full<Bytes>>| async move {
            let response = Response::builder().status(status);
            let response = response.header("retry-after", imf_fixdate(120));
            response
                .body(Full::<Bytes>::from(body))
                .map_err(BoxError::from)
        });
        let error = RefreshToken::new(client, app(), "R0")
            .log_in()
            .await
            .unwrap_err();
        let pause = error.retry_after().unwrap_or_default().as_secs();
        assert!((100..=121).contains(&pause), "{status}: {pause}");
    }
}

/// The server's clock counts, and no attempt is made before the time.
#[tokio::test(start_paused = true)]
async fn a_refresh_waits_until_the_date_of_the_server() {
    let began = tokio::time::Instant::now();
    let client = service_fn(move |_: Request<Full<Bytes>>| async move {
        let response = if began.elapsed() < Duration::from_secs(20) {
            Response::builder()
                .status(503)
                .header("date", "Sun, 06 Nov 1994 08:49:17 GMT")
                .header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")
                .body(Full::<Bytes>::default())
        } else {
            let tokens =
                r#"{"access_token":"00Dxx!A","instance_url":"https://acme.my.salesforce.com"}"#;
            Response::builder().body(Full::from(tokens))
        };
        response.map_err(BoxError::from)
    });
    let handle = SessionHandle::new(RefreshToken::new(client, app(), "R0"));
    handle.session().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(20));
    assert!(began.elapsed() < Duration::from_secs(21));
}
