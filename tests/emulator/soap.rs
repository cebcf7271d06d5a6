//! The SOAP API.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use tokio_test::{assert_pending, assert_ready, task};
use tower::ServiceExt;
use tower_salesforce_auth::emulator::{Fault, Org};

use crate::support::{get_limits, text_answer};

const PARTNER: &str = "/services/Soap/u/64.0";
const ENTERPRISE: &str = "/services/Soap/c/64.0";

// === login ===

#[tokio::test]
async fn a_login_answer_has_every_element_in_salesforces_order() {
    let org = Org::new();
    let (status, xml) = send(&org, PARTNER, &login(&org)).await;
    assert_eq!(status, StatusCode::OK, "{xml}");
    let session_id = element(&xml, "sessionId").to_owned();
    assert!(session_id.starts_with("00Dxx0000001gEF!"));
    let expected = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns="urn:partner.soap.sforce.com" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><loginResponse><result><metadataServerUrl>https://emulator.my.salesforce.com/services/Soap/m/64.0/00Dxx0000001gEF</metadataServerUrl><passwordExpired>false</passwordExpired><sandbox>false</sandbox><serverUrl>https://emulator.my.salesforce.com/services/Soap/u/64.0/00Dxx0000001gEF</serverUrl><sessionId>{session_id}</sessionId><userId>005xx000001SwiUAAS</userId><userInfo>{USER_INFO}</userInfo></result></loginResponse></soapenv:Body></soapenv:Envelope>"#
    );
    assert_eq!(xml, expected);
    assert_eq!(get_limits(&org, &session_id).await, StatusCode::OK);
    let counters = org.counters();
    assert_eq!((counters.logins, counters.failed_logins), (1, 0));
    assert_eq!(counters.soap_requests, 1);
    assert_eq!(counters.tokens_issued, 0);
}

#[tokio::test]
async fn the_enterprise_api_has_its_own_namespaces() {
    let org = Org::new();
    let enterprise = login(&org).replace("partner", "enterprise");
    let (status, xml) = send(&org, ENTERPRISE, &enterprise).await;
    assert_eq!(status, StatusCode::OK, "{xml}");
    assert!(xml.contains(r#"xmlns="urn:enterprise.soap.sforce.com""#));
    let server_url = "https://emulator.my.salesforce.com/services/Soap/c/64.0/00Dxx0000001gEF";
    assert_eq!(element(&xml, "serverUrl"), server_url);

    let wrong = login_as(org.username(), "wrong").replace("partner", "enterprise");
    let (_, xml) = send(&org, ENTERPRISE, &wrong).await;
    assert!(xml.contains(r#"xmlns:sf="urn:fault.enterprise.soap.sforce.com""#));

    for (path, envelope, namespace) in [
        (PARTNER, enterprise, "enterprise"),
        (ENTERPRISE, login(&org), "partner"),
    ] {
        let (status, xml) = send(&org, path, &envelope).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(element(&xml, "faultcode"), "soapenv:Client");
        let string = format!(
            "No operation available for request {{urn:{namespace}.soap.sforce.com}}login, \
             please check the WSDL for the service."
        );
        assert_eq!(element(&xml, "faultstring"), string);
    }
}

#[tokio::test]
async fn a_server_url_is_an_endpoint_too_and_follows_the_instance() {
    let org = Org::new();
    org.move_instance("https://moved.example.com");
    for id in ["00Dxx0000001gEF", "00Dxx0000001gEFEAY"] {
        let (status, xml) = send(&org, &format!("{PARTNER}/{id}"), &login(&org)).await;
        assert_eq!(status, StatusCode::OK, "{xml}");
        let server_url = "https://moved.example.com/services/Soap/u/64.0/00Dxx0000001gEF";
        assert_eq!(element(&xml, "serverUrl"), server_url);
    }
    for path in [
        "/services/Soap/u/64.0/00Dxx0000009999",
        "/services/Soap/u/64.0/00Dxx0000001gEF/more",
        "/services/Soap/x/64.0",
        "/services/Soap/u",
        "/services/Soap/",
    ] {
        let (status, _) = send(&org, path, &login(&org)).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_refused_login_meets_the_soap_fault_of_salesforce() {
    let org = Org::new();
    let (status, xml) = send(&org, PARTNER, &login_as(org.username(), org.password())).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        xml,
        r#"<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:sf="urn:fault.partner.soap.sforce.com" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><soapenv:Fault><faultcode>sf:INVALID_LOGIN</faultcode><faultstring>INVALID_LOGIN: Invalid username, password, security token; or user locked out.</faultstring><detail><sf:LoginFault xsi:type="sf:LoginFault"><sf:exceptionCode>INVALID_LOGIN</sf:exceptionCode><sf:exceptionMessage>Invalid username, password, security token; or user locked out.</sf:exceptionMessage></sf:LoginFault></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>"#
    );
    assert_eq!(org.counters().failed_logins, 1);

    org.require_security_token(false);
    let (status, _) = send(&org, PARTNER, &login_as(org.username(), org.password())).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn lockout_deactivation_and_the_login_limit_hold_for_soap() {
    let org = Org::new();
    org.lock_out_after(1);
    send(&org, PARTNER, &login_as(org.username(), "wrong")).await;
    assert_fault(&org, &login(&org), "INVALID_LOGIN").await;
    org.unlock_user();
    org.deactivate_user(true);
    assert_fault(&org, &login(&org), "INVALID_LOGIN").await;
    org.deactivate_user(false);
    org.limit_logins(1);
    assert_eq!(send(&org, PARTNER, &login(&org)).await.0, StatusCode::OK);
    assert_fault(&org, &login(&org), "LOGIN_RATE_EXCEEDED").await;
}

#[tokio::test]
async fn an_expired_password_gives_a_200_and_an_unusable_session() {
    let org = Org::new();
    org.expire_password(true);
    let (status, xml) = send(&org, PARTNER, &login(&org)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(element(&xml, "passwordExpired"), "true");
    let session_id = element(&xml, "sessionId");
    let unauthorized = StatusCode::UNAUTHORIZED;
    assert_eq!(get_limits(&org, session_id).await, unauthorized);
    assert_fault(&org, &call("getUserInfo", session_id), "INVALID_SESSION_ID").await;
}

#[tokio::test]
async fn login_exists_in_versions_31_to_64() {
    let org = Org::new();
    for version in ["31.0", "64.0"] {
        let path = format!("/services/Soap/u/{version}");
        let (status, _) = send(&org, &path, &login(&org)).await;
        assert_eq!(status, StatusCode::OK, "{version}");
    }
    for version in ["65.0", "66.0"] {
        let path = format!("/services/Soap/u/{version}");
        let (status, xml) = send(&org, &path, &login(&org)).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(element(&xml, "faultcode"), "sf:INVALID_OPERATION");
        let message = format!(
            "The SOAP Login operation is not available in the API version specified ({version}). \
             Refer to the documentation for supported versions."
        );
        assert_eq!(element(&xml, "sf:exceptionMessage"), message);
    }
    for version in ["30.0", "7.0", "64", "v64.0", ""] {
        let path = format!("/services/Soap/u/{version}");
        let (status, xml) = send(&org, &path, &login(&org)).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(element(&xml, "faultcode"), "sf:UNSUPPORTED_API_VERSION");
        let string = "UNSUPPORTED_API_VERSION: Invalid Api version specified on URL";
        assert_eq!(element(&xml, "faultstring"), string);
    }
    assert_eq!(org.counters().logins, 2);
}

#[tokio::test]
async fn the_headers_of_a_login_are_accepted() {
    let org = Org::new();
    let header = "<e:Header><u:LoginScopeHeader xmlns:u=\"urn:partner.soap.sforce.com\">\
                  <u:organizationId>00Dxx0000001gEF</u:organizationId></u:LoginScopeHeader>\
                  <u:CallOptions xmlns:u=\"urn:partner.soap.sforce.com\">\
                  <u:client>Client/1.0</u:client></u:CallOptions></e:Header><e:Body>";
    let envelope = login(&org).replace("<e:Body>", header);
    let (status, xml) = send(&org, PARTNER, &envelope).await;
    assert_eq!(status, StatusCode::OK, "{xml}");
}

// === sessions ===

#[tokio::test]
async fn logout_ends_the_session() {
    let org = Org::new();
    let (_, xml) = send(&org, PARTNER, &login(&org)).await;
    let session_id = element(&xml, "sessionId");
    let (status, xml) = send(&org, PARTNER, &call("logout", session_id)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(xml.contains("<soapenv:Body><logoutResponse/></soapenv:Body>"));
    assert_eq!(org.counters().soap_logouts, 1);

    let unauthorized = StatusCode::UNAUTHORIZED;
    assert_eq!(get_limits(&org, session_id).await, unauthorized);
    assert_fault(&org, &call("logout", session_id), "INVALID_SESSION_ID").await;
    assert_eq!(org.counters().soap_logouts, 1);
    assert_eq!(org.counters().soap_rejected, 1);
}

#[tokio::test]
async fn an_oauth_session_works_for_soap() {
    let org = Org::new();
    let grant = org.authorize();
    let get_user_info = call("getUserInfo", grant.access_token());
    // Versions without `login()` have the other calls.
    let (status, xml) = send(&org, "/services/Soap/u/66.0", &get_user_info).await;
    assert_eq!(status, StatusCode::OK);
    let result = format!("<getUserInfoResponse><result>{USER_INFO}</result></getUserInfoResponse>");
    assert!(xml.contains(&result), "{xml}");
}

#[tokio::test]
async fn an_invalid_session_meets_the_soap_fault_of_salesforce() {
    let org = Org::new();
    let grant = org.authorize();
    org.expire_sessions();
    let (status, xml) = send(&org, PARTNER, &call("getUserInfo", grant.access_token())).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(element(&xml, "faultcode"), "sf:INVALID_SESSION_ID");
    let message = "Invalid Session ID found in SessionHeader: Illegal Session. \
                   Session not found, missing session hash: ";
    assert!(element(&xml, "sf:exceptionMessage").starts_with(message));
    let string = element(&xml, "faultstring");
    assert!(string.starts_with(&format!("INVALID_SESSION_ID: {message}")));
    let explanation = "\nThis error usually occurs after a session expires or a user logs out.";
    assert!(string.ends_with(explanation));
    assert!(xml.contains(r#"<sf:UnexpectedErrorFault xsi:type="sf:UnexpectedErrorFault">"#));
    assert!(!xml.contains(grant.access_token()));

    org.issue_jwt_access_tokens(true);
    let jwt = org.authorize();
    assert_eq!(get_limits(&org, jwt.access_token()).await, StatusCode::OK);
    let get_user_info = call("getUserInfo", jwt.access_token());
    assert_fault(&org, &get_user_info, "INVALID_SESSION_ID").await;
    let without_header = envelope("<getUserInfo xmlns=\"urn:partner.soap.sforce.com\"/>");
    assert_fault(&org, &without_header, "INVALID_SESSION_ID").await;
    assert_eq!(org.counters().soap_rejected, 3);
}

#[tokio::test]
async fn calls_over_soap_and_rest_use_up_the_same_session() {
    let org = Org::new();
    org.expire_after(2);
    let grant = org.authorize();
    let get_user_info = call("getUserInfo", grant.access_token());
    assert_eq!(send(&org, PARTNER, &get_user_info).await.0, StatusCode::OK);
    assert_eq!(get_limits(&org, grant.access_token()).await, StatusCode::OK);
    assert_fault(&org, &get_user_info, "INVALID_SESSION_ID").await;
}

// === requests that reach no operation ===

#[tokio::test]
async fn an_envelope_without_a_call_is_refused() {
    let org = Org::new();
    let (status, xml) = send(&org, PARTNER, &call("undelete", "x")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(element(&xml, "faultcode"), "soapenv:Client");
    for envelope in [
        "",
        "<login/>",
        "{}",
        "<!DOCTYPE e><e:Envelope xmlns:e=\"e\"><e:Body><login/></e:Body></e:Envelope>",
    ] {
        assert_fault(&org, envelope, "UNKNOWN_EXCEPTION").await;
    }

    // The fault repeats the name, escaped.
    let (_, xml) = send(&org, PARTNER, &envelope("<x xmlns=\"&lt;a&gt;\"/>")).await;
    assert!(!xml.contains("<a>"), "{xml}");
}

#[tokio::test]
async fn a_call_without_post_or_soap_action_is_refused() {
    let org = Org::new();
    let mut get = request(PARTNER, "");
    *get.method_mut() = Method::GET;
    let (status, body) = text_answer(&org, get).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(body, "Only POST allowed");

    let mut without_action = request(PARTNER, &login(&org));
    without_action.headers_mut().remove("soapaction");
    let (status, xml) = text_answer(&org, without_action).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let string = "SOAPAction HTTP header missing";
    assert_eq!(element(&xml, "faultstring"), string);
}

// === faults ===

#[tokio::test]
async fn a_login_meets_the_fault_that_is_set() {
    let org = Org::new();
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    org.on_soap_login(Fault::refuse(unavailable, "SERVER_UNAVAILABLE", "<busy>"));
    let (status, xml) = send(&org, PARTNER, &login(&org)).await;
    assert_eq!(status, unavailable);
    assert_eq!(element(&xml, "faultcode"), "sf:SERVER_UNAVAILABLE");
    assert_eq!(element(&xml, "sf:exceptionMessage"), "&lt;busy&gt;");

    org.on_soap_login(Fault::Maintenance);
    let (status, body) = send(&org, PARTNER, &login(&org)).await;
    assert_eq!(status, unavailable);
    assert!(body.contains("We are down for maintenance."));
    assert_eq!(org.counters().logins, 0);

    // The fault affects logins only.
    let get_user_info = call("getUserInfo", org.authorize().access_token());
    assert_eq!(send(&org, PARTNER, &get_user_info).await.0, StatusCode::OK);

    org.on_soap_login(Fault::LoseAnswer);
    assert!(
        org.clone()
            .oneshot(request(PARTNER, &login(&org)))
            .await
            .is_err()
    );
    assert_eq!(org.counters().logins, 1);
}

#[tokio::test]
async fn a_hanging_login_is_released_and_goes_on() {
    let org = Org::new();
    org.on_soap_login(Fault::Hang);
    let envelope = login(&org);
    let mut login = task::spawn(send(&org, PARTNER, &envelope));
    assert_pending!(login.poll());
    org.on_soap_login(Fault::None);
    assert!(login.is_woken());
    let (status, _) = assert_ready!(login.poll());
    assert_eq!(status, StatusCode::OK);
}

// === support ===

const USER_INFO: &str = "<accessibilityMode>false</accessibilityMode><chatterExternal>false</chatterExternal><currencySymbol>$</currencySymbol><orgAttachmentFileSizeLimit>26214400</orgAttachmentFileSizeLimit><orgDefaultCurrencyIsoCode>USD</orgDefaultCurrencyIsoCode><orgDefaultCurrencyLocale>en_US</orgDefaultCurrencyLocale><orgDisallowHtmlAttachments>false</orgDisallowHtmlAttachments><orgHasPersonAccounts>false</orgHasPersonAccounts><organizationId>00Dxx0000001gEFEAY</organizationId><organizationMultiCurrency>false</organizationMultiCurrency><organizationName>Example</organizationName><profileId>00exx0000000001AAA</profileId><roleId xsi:nil=\"true\"/><sessionSecondsValid>7200</sessionSecondsValid><userDefaultCurrencyIsoCode xsi:nil=\"true\"/><userEmail>user@example.com</userEmail><userFullName>Ann Example</userFullName><userId>005xx000001SwiUAAS</userId><userLanguage>en_US</userLanguage><userLocale>en_US</userLocale><userName>user@example.com</userName><userTimeZone>America/Los_Angeles</userTimeZone><userType>Standard</userType><userUiSkin>Theme3</userUiSkin>";

fn login(org: &Org) -> String {
    let password = format!("{}{}", org.password(), org.security_token());
    login_as(org.username(), &password)
}

fn login_as(username: &str, password: &str) -> String {
    let password = password
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    envelope(&format!(
        "<login xmlns=\"urn:partner.soap.sforce.com\">\
         <username>{username}</username><password>{password}</password></login>"
    ))
}

fn call(operation: &str, session_id: &str) -> String {
    format!(
        "<e:Envelope xmlns:e=\"http://schemas.xmlsoap.org/soap/envelope/\"><e:Header>\
         <SessionHeader xmlns=\"urn:partner.soap.sforce.com\"><sessionId>{session_id}</sessionId>\
         </SessionHeader></e:Header><e:Body>\
         <{operation} xmlns=\"urn:partner.soap.sforce.com\"/></e:Body></e:Envelope>"
    )
}

fn envelope(body: &str) -> String {
    format!(
        "<e:Envelope xmlns:e=\"http://schemas.xmlsoap.org/soap/envelope/\">\
         <e:Body>{body}</e:Body></e:Envelope>"
    )
}

fn request(path: &str, envelope: &str) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("content-type", "text/xml; charset=UTF-8")
        .header("soapaction", "\"\"")
        .body(Full::from(envelope.to_owned()))
        .unwrap()
}

async fn send(org: &Org, path: &str, envelope: &str) -> (StatusCode, String) {
    text_answer(org, request(path, envelope)).await
}

#[track_caller]
fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    xml.split_once(&format!("<{name}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{name}>")))
        .map_or_else(|| panic!("no {name} in {xml}"), |(text, _)| text)
}

async fn assert_fault(org: &Org, envelope: &str, code: &str) {
    let (status, xml) = send(org, PARTNER, envelope).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{xml}");
    assert_eq!(element(&xml, "faultcode"), format!("sf:{code}"));
    assert_eq!(element(&xml, "sf:exceptionCode"), code);
}
