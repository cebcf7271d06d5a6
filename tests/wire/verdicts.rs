//! Sessions that end without a 401, over sockets.

use http::{HeaderValue, Request, StatusCode};
use tower_salesforce_auth::{AuthOutcome, ReplaySkipped, emulator::Org};

use crate::support::{AnyBody, ECHO, LIMITS, Protocol, client, get, in_memory, layer, post, send};

const JOB: &str = "/services/async/64.0/job";
const SOAP: &str = "/services/Soap/u/64.0";

fn bulk(form: &'static str, job: &'static str) -> Request<AnyBody> {
    let mut request = post(JOB, in_memory(job));
    let form = HeaderValue::from_static(form);
    request.headers_mut().insert("content-type", form);
    request
}

fn soap(session_id: &str) -> Request<AnyBody> {
    let envelope = format!(
        "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Header>\
         <SessionHeader xmlns=\"urn:partner.soap.sforce.com\"><sessionId>{session_id}</sessionId></SessionHeader>\
         </s:Header><s:Body><getUserInfo xmlns=\"urn:partner.soap.sforce.com\"/></s:Body></s:Envelope>"
    );
    let length = envelope.len();
    let mut request = post(SOAP, in_memory(envelope));
    let headers = request.headers_mut();
    headers.insert("soapaction", HeaderValue::from_static("\"\""));
    headers.insert("content-type", HeaderValue::from_static("text/xml"));
    headers.insert("content-length", length.into());
    request
}

fn identity() -> Request<AnyBody> {
    get("/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS")
}

fn userinfo() -> Request<AnyBody> {
    get("/services/oauth2/userinfo")
}

fn xml_job() -> Request<AnyBody> {
    bulk(
        "application/xml",
        "<jobInfo><operation>insert</operation><object>Account</object></jobInfo>",
    )
}

fn json_job() -> Request<AnyBody> {
    bulk(
        "application/json",
        r#"{"operation":"insert","object":"Account"}"#,
    )
}

#[tokio::test]
async fn r22_every_api_gets_a_session_back_with_one_refresh() {
    for protocol in [Protocol::Http1, Protocol::H2] {
        let org = Org::new();
        let _served = org.serve().await.unwrap();
        let grant = org.authorize();
        let client = client(&layer(&org, &grant), protocol);
        let requests: [fn() -> Request<AnyBody>; 5] = [
            xml_job,
            json_job,
            || soap("00Dxx0000001gEF!stale"),
            identity,
            userinfo,
        ];
        for (n, request) in (1..).zip(requests) {
            let (status, extensions, body) = send(&client, request()).await.unwrap();
            assert!(status.is_success(), "{n}: {status} {body:?}");
            assert!(extensions.get::<AuthOutcome>().is_none());
            org.expire_sessions();
            let (status, extensions, body) = send(&client, request()).await.unwrap();
            assert!(status.is_success(), "{n}: {status} {body:?}");
            let outcome: &AuthOutcome = extensions.get().expect("an outcome");
            assert_eq!((outcome.attempts(), outcome.replay_skipped()), (2, None));
            assert_eq!(org.counters().token_requests, n);
        }
        let counters = org.counters();
        assert_eq!((counters.data_rejected, counters.data_accepted), (2, 4));
        assert_eq!(counters.soap_rejected, 1);
        // One for the data, and one for the tokens: rejections give theirs back.
        assert_eq!(counters.connections, 2, "{protocol:?}");
    }
}

#[tokio::test]
async fn r22_other_refusals_cost_no_refresh() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    let client = client(&layer(&org, &grant), Protocol::Http1);
    let mut no_operation = soap("x");
    *no_operation.body_mut() = in_memory("<Envelope><Body/></Envelope>");
    no_operation.headers_mut().remove("content-length");
    for (request, expected) in [
        (bulk("application/json", "{}"), StatusCode::BAD_REQUEST),
        (
            bulk("application/xml", "<jobInfo/>"),
            StatusCode::BAD_REQUEST,
        ),
        (no_operation, StatusCode::INTERNAL_SERVER_ERROR),
        (get("/id/00Dxx0000001gEFEAZ/x"), StatusCode::FORBIDDEN),
    ] {
        let (status, extensions, body) = send(&client, request).await.unwrap();
        assert_eq!(status, expected, "{body:?}");
        assert!(!body.is_empty());
        assert!(extensions.get::<AuthOutcome>().is_none());
    }
    assert_eq!(org.counters().token_requests, 0);
}

#[tokio::test]
async fn r21_a_refused_session_costs_no_refresh() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    let client = client(&layer(&org, &grant), Protocol::Http1);
    for message in [
        "This session is not valid for use with the REST API",
        "Connected app is not attached to Agent",
        "BlackTab users",
    ] {
        for size in [0, 200 * 1024] {
            org.refuse_sessions(message.to_owned());
            org.error_body_size(size);
            let (status, extensions, body) = send(&client, get(LIMITS)).await.unwrap();
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            let outcome: &AuthOutcome = extensions.get().expect("an outcome");
            assert_eq!(outcome.attempts(), 1);
            assert_eq!(outcome.replay_skipped(), Some(ReplaySkipped::Incurable));
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(text.contains(message) && text.len() >= size);
        }
    }
    assert_eq!(org.counters().token_requests, 0);
    org.refuse_sessions(None);
    let (status, ..) = send(&client, post(ECHO, in_memory("x"))).await.unwrap();
    assert_eq!(status, StatusCode::OK, "the session is in use still");
}
