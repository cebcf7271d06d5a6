//! SOAP login: its requests and its answers.

use std::time::Duration;

use http::StatusCode;
use tower_salesforce_auth::{
    LoginUrl, RefreshErrorKind, RefreshFn,
    emulator::{Fault, Org},
    flow::SoapLogin,
};

use crate::support::{answering, assert_refused, recorded};

const NASTY: &str = "p<a>&\"s's]]>&amp;wörd";

fn login<C: tower_salesforce_auth::flow::HttpClient>(client: C) -> SoapLogin<C> {
    SoapLogin::new(
        client,
        LoginUrl::production(),
        "user@example.com",
        "PASSWORD-hush",
    )
    .security_token("TOKEN-hush")
}

#[tokio::test]
async fn a_soap_login_returns_user_instance_and_lifetime() {
    let org = Org::new();
    let (client, requests) = recorded(org.clone());
    let login_url: LoginUrl = org.login_url().parse().unwrap();
    let flow = SoapLogin::new(client, login_url, org.username(), org.password())
        .security_token(org.security_token())
        .organization_id("00Dxx0000001gEF")
        .portal_id("060xx0000000001")
        .client_name("Reports & Co");
    let session = flow.log_in().await.unwrap();
    assert_eq!(session.instance_url().to_string(), org.instance_url());
    assert_eq!(session.user_id(), Some("005xx000001SwiUAAS"));
    assert_eq!(session.organization_id(), Some("00Dxx0000001gEFEAY"));
    assert_eq!(session.lifetime(), Some(Duration::from_secs(7200)));
    let [request] = requests.take().try_into().unwrap();
    assert_eq!(request.uri().path(), "/services/Soap/u/64.0");
    assert_eq!(request.headers()["soapaction"], "\"\"");
    assert_eq!(request.headers()["content-type"], "text/xml; charset=UTF-8");
    let envelope = std::str::from_utf8(request.body()).unwrap();
    for part in [
        "<urn:LoginScopeHeader><urn:organizationId>00Dxx0000001gEF</urn:organizationId>\
         <urn:portalId>060xx0000000001</urn:portalId></urn:LoginScopeHeader>",
        "<urn:CallOptions><urn:client>Reports &amp; Co</urn:client></urn:CallOptions>",
    ] {
        assert!(envelope.contains(part), "{envelope}");
    }
}

#[tokio::test]
async fn a_soap_login_keeps_the_api_version_and_site_path() {
    let (client, requests) = recorded(answering(500, &[], ""));
    let site: LoginUrl = "https://MyDomainName.my.site.com/partners/"
        .parse()
        .unwrap();
    let flow = SoapLogin::new(client, site, "user@example.com", "password").api_version(58);
    let _ = flow.log_in().await;
    let uri = "https://mydomainname.my.site.com/partners/services/Soap/u/58.0";
    assert_eq!(requests.take()[0].uri(), uri);
}

#[tokio::test]
async fn a_soap_password_is_escaped_or_refused() {
    let (client, requests) = recorded(answering(500, &[], ""));
    let flow = SoapLogin::new(client, LoginUrl::production(), "<user>", NASTY);
    let _ = flow.log_in().await;
    let [request] = requests.take().try_into().unwrap();
    let mut reader = quick_xml::Reader::from_reader(&**request.body());
    let mut texts = String::new();
    let mut buffer = Vec::new();
    loop {
        use quick_xml::events::Event;
        match reader.read_event_into(&mut buffer).unwrap() {
            Event::Text(text) => texts += &text.xml10_content(),
            Event::GeneralRef(reference) => {
                let name = reference.into_inner();
                texts += quick_xml::escape::resolve_predefined_entity(&name).unwrap();
            }
            Event::Eof => break,
            _ => {}
        }
        buffer.clear();
    }
    assert!(texts.ends_with(&format!("<user>{NASTY}")), "{texts}");

    for control in ["pass\nword", "pass\0word", "password\r"] {
        let (client, requests) = recorded(answering(500, &[], ""));
        let flow = SoapLogin::new(client, LoginUrl::production(), "user@example.com", control);
        let error = flow.log_in().await.unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::Configuration);
        assert!(requests.take().is_empty(), "nothing was sent");
    }
}

#[tokio::test]
async fn a_soap_fault_is_an_error_with_code_and_remedy() {
    let org = Org::new();
    for (code, message, terminal, advice) in [
        (
            "INVALID_LOGIN",
            "Invalid username, password, security token; or user locked out.",
            true,
            "security token",
        ),
        (
            "LOGIN_MUST_USE_SECURITY_TOKEN",
            "",
            true,
            "trusted IP ranges",
        ),
        ("LOGIN_DURING_RESTRICTED_DOMAIN", "", true, "IP ranges"),
        ("LOGIN_DURING_RESTRICTED_TIME", "", true, "login hours"),
        ("PASSWORD_LOCKOUT", "", true, "lockout"),
        ("ORG_LOCKED", "The org is locked", true, "The org is locked"),
        ("INSUFFICIENT_ACCESS", "", true, "Use Any API Auth"),
        ("UNSUPPORTED_API_VERSION", "", true, "31.0 to 64.0"),
        ("SERVER_UNAVAILABLE", "busy", false, "busy"),
        ("ORG_IN_MAINTENANCE", "", false, "ORG_IN_MAINTENANCE"),
        ("UNKNOWN_EXCEPTION", "", false, "UNKNOWN_EXCEPTION"),
    ] {
        org.on_soap_login(Fault::refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            code,
            message,
        ));
        let error = login(org.clone()).log_in().await.unwrap_err();
        let refusal = "login.salesforce.com refused the SOAP login: ";
        assert_refused(&error, code, terminal, refusal, advice);
    }
    org.on_soap_login(Fault::LoseAnswer);
    let error = login(org.clone()).log_in().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_terminal()),
        (RefreshErrorKind::Transport, false)
    );
}

#[tokio::test]
async fn a_soap_version_without_login_is_explained() {
    let org = Org::new();
    let flow = SoapLogin::new(
        org.clone(),
        org.login_url().parse().unwrap(),
        org.username(),
        org.password(),
    );
    for version in [30, 65, 66] {
        let error = flow
            .clone()
            .api_version(version)
            .log_in()
            .await
            .unwrap_err();
        assert!(error.is_terminal());
        assert!(error.to_string().contains("64.0"), "{error}");
    }
}

#[tokio::test]
async fn a_soap_answer_without_a_session_is_invalid_and_unquoted() {
    let result = |inner: &str| {
        format!(
            "<e:Envelope xmlns:e=\"x\"><e:Body><loginResponse><result>{inner}</result></loginResponse></e:Body></e:Envelope>"
        )
    };
    let bomb = "<!DOCTYPE x [<!ENTITY a \"hush\"><!ENTITY b \"&a;&a;\">]>";
    let session = "<sessionId>S-hush</sessionId>";
    let server =
        "<serverUrl>https://example.my.salesforce.com/services/Soap/u/64.0/00D</serverUrl>";
    for (status, body) in [
        (200, String::new()),
        (200, "hush".to_owned()),
        (200, "<html><br>hush".to_owned()),
        (
            503,
            "<html>We are down for maintenance, hush.</html>".to_owned(),
        ),
        (200, result("")),
        (200, result(session)),
        (200, result(server)),
        (200, result(&format!("<sessionId/>{server}"))),
        (
            200,
            result(&format!(
                "{session}<serverUrl>http://example.com/hush</serverUrl>"
            )),
        ),
        (
            200,
            result(&format!("{session}<serverUrl>hush</serverUrl>")),
        ),
        (
            200,
            result(&format!("<sessionId>a b hush</sessionId>{server}")),
        ),
        (
            200,
            format!(
                "{bomb}{}",
                result(&format!("<sessionId>&b;</sessionId>{server}"))
            ),
        ),
        (
            200,
            result(&format!("<sessionId>&unknown;</sessionId>{server}")),
        ),
        (500, result(&format!("{session}{server}"))),
        (200, "<a>".repeat(10_000)),
    ] {
        let error = login(answering(status, &[], body.clone()))
            .log_in()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::InvalidResponse, "{body}");
        assert!(
            error.to_string().contains("login.salesforce.com"),
            "{error}"
        );
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    }
    // Namespaces, prefixes, unknown elements and references make no difference.
    let body = result(&format!(
        "<new>field</new><x:sessionId>00D&#33;<![CDATA[AQ]]>&amp;</x:sessionId>{server}<userInfo><sessionSecondsValid>soon\
         </sessionSecondsValid></userInfo>"
    ));
    let session = login(answering(200, &[], body)).log_in().await.unwrap();
    assert_eq!(session.access_token().expose(), "00D!AQ&");
    assert_eq!(session.lifetime(), None);
}

#[tokio::test]
async fn r17_a_soap_fault_that_repeats_the_password_is_redacted() {
    for repeated in ["PASSWORD-hush", "TOKEN-hush", "PASSWORD-hushTOKEN-hush"] {
        let body = format!(
            "<e:Envelope xmlns:e=\"x\"><e:Body><e:Fault><faultcode>sf:INVALID_LOGIN</faultcode>\
             <faultstring>INVALID_LOGIN: {repeated} is wrong</faultstring></e:Fault></e:Body></e:Envelope>"
        );
        let error = login(answering(500, &[("retry-after", "7")], body))
            .log_in()
            .await
            .unwrap_err();
        assert_eq!(error.error_code(), Some("INVALID_LOGIN"));
        assert!(error.to_string().contains("[redacted] is wrong"), "{error}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert!(!format!("{error} {error:?}").contains("hush"));
    }
}
