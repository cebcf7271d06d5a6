//! Bulk API 1.0, and sessions that are refused.

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use tower_salesforce_auth::emulator::{Fault, Org};

use crate::support::{get_limits, text_answer};

const XML: &str = "application/xml; charset=UTF-8";
const JSON: &str = "application/json";
const XML_JOB: &str = r#"<?xml version="1.0" encoding="UTF-8"?><jobInfo xmlns="http://www.force.com/2009/06/asyncapi/dataload"><operation>insert</operation><object>Account</object><contentType>CSV</contentType></jobInfo>"#;
const JSON_JOB: &str = r#"{"operation":"insert","object":"Account","contentType":"CSV"}"#;

async fn create(org: &Org, session: &str, form: &str, job: &str) -> (StatusCode, String) {
    let request = Request::post("/services/async/64.0/job")
        .header("x-sfdc-session", session)
        .header("content-type", form);
    text_answer(org, request.body(Full::from(job.to_owned())).unwrap()).await
}

#[tokio::test]
async fn a_bulk_job_is_created_in_the_format_of_the_request() {
    let org = Org::new();
    let grant = org.authorize();
    let (status, job) = create(&org, grant.access_token(), XML, XML_JOB).await;
    assert_eq!(status, StatusCode::CREATED, "{job}");
    assert!(job.contains("<operation>insert</operation><object>Account</object>"));
    let (status, job) = create(&org, grant.access_token(), JSON, JSON_JOB).await;
    assert_eq!(status, StatusCode::CREATED, "{job}");
    let job: serde_json::Value = serde_json::from_str(&job).unwrap();
    assert_eq!(job["operation"], "insert");
    assert_eq!(job["state"], "Open");
    assert_eq!(org.counters().data_accepted, 2);

    for (form, broken) in [(XML, "<jobInfo/>"), (XML, "<jobInfo>"), (JSON, "{}")] {
        let (status, error) = create(&org, grant.access_token(), form, broken).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(error.contains("InvalidJob"), "{error}");
    }
    let elsewhere = Request::builder()
        .method(Method::GET)
        .uri("/services/async/64.0/job/750/batch")
        .header("x-sfdc-session", grant.access_token());
    let (status, error) = text_answer(&org, elsewhere.body(Full::default()).unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error.contains("<exceptionCode>InvalidUrl</exceptionCode>"));
}

#[tokio::test]
async fn a_bulk_job_is_read_closed_and_aborted() {
    let org = Org::new();
    let grant = org.authorize();
    let ask = async |method: Method, id: &str, form: &str, body: &str| {
        let request = Request::builder()
            .method(method)
            .uri(format!("/services/async/66.0/job/{id}"))
            .header("x-sfdc-session", grant.access_token())
            .header("content-type", form);
        text_answer(&org, request.body(Full::from(body.to_owned())).unwrap()).await
    };
    for _ in 0..2 {
        create(&org, grant.access_token(), XML, XML_JOB).await;
    }
    let (first, second) = ("750xx0000000001AAA", "750xx0000000002AAA");
    let (status, job) = ask(Method::GET, first, XML, "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(job.contains("<state>Open</state><apiVersion>66.0</apiVersion>"));
    let closed = r#"<jobInfo xmlns="http://www.force.com/2009/06/asyncapi/dataload"><state>Closed</state></jobInfo>"#;
    let (status, job) = ask(Method::POST, first, XML, closed).await;
    assert_eq!(status, StatusCode::OK);
    assert!(job.contains("<state>Closed</state>"));
    let (_, job) = ask(Method::POST, second, JSON, r#"{"state":"Aborted"}"#).await;
    assert!(job.contains(r#""state":"Aborted""#));

    for (method, id, body, code) in [
        (
            Method::POST,
            first,
            r#"{"state":"Aborted"}"#,
            "InvalidJobState",
        ),
        (
            Method::POST,
            second,
            r#"{"state":"Open"}"#,
            "InvalidJobState",
        ),
        (
            Method::POST,
            "750",
            r#"{"state":"Closed"}"#,
            "InvalidJobState",
        ),
        (Method::GET, "750", "", "InvalidJob"),
    ] {
        let (status, error) = ask(method, id, JSON, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(
            error.contains(&format!(r#""exceptionCode":"{code}""#)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_retired_version_of_bulk_is_invalid() {
    let org = Org::new();
    let grant = org.authorize();
    for version in ["30.0", "99.0"] {
        let request = Request::post(format!("/services/async/{version}/job"))
            .header("x-sfdc-session", grant.access_token())
            .header("content-type", XML);
        let request = request.body(Full::from(XML_JOB)).unwrap();
        let (status, error) = text_answer(&org, request).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let code = "<exceptionCode>InvalidVersion</exceptionCode>";
        assert!(error.contains(code), "{error}");
    }
}

#[tokio::test]
async fn an_expired_session_meets_the_400_of_bulk() {
    let org = Org::new();
    let grant = org.authorize();
    org.expire_sessions();
    let (status, error) = create(&org, grant.access_token(), XML, XML_JOB).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        error.contains("<exceptionCode>InvalidSessionId</exceptionCode>"),
        "{error}"
    );
    let (status, error) = create(&org, grant.access_token(), JSON, JSON_JOB).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        error,
        r#"{"exceptionCode":"InvalidSessionId","exceptionMessage":"Invalid session id"}"#
    );
    // Bulk ignores `Authorization`.
    let good = org.authorize();
    let request = Request::post("/services/async/64.0/job")
        .header("authorization", format!("Bearer {}", good.access_token()));
    let (status, _) = text_answer(&org, request.body(Full::default()).unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(org.counters().data_rejected, 3);

    org.on_data(Fault::refuse(StatusCode::BAD_REQUEST, "ExceededQuota", "x"));
    let (_, error) = create(&org, good.access_token(), XML, XML_JOB).await;
    assert!(error.contains("ExceededQuota"));
    org.on_data(Fault::Maintenance);
    let (status, _) = create(&org, good.access_token(), XML, XML_JOB).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(org.counters().data_refused, 2);
}

#[tokio::test]
async fn a_refused_session_is_refused_by_every_api_until_reset() {
    let message = "This session is not valid for use with the API \"<&\"";
    let org = Org::new();
    let grant = org.authorize();
    org.refuse_sessions(message);
    let rest = |accept: &str| {
        Request::get("/services/data/v66.0/limits")
            .header("authorization", format!("Bearer {}", grant.access_token()))
            .header("accept", accept)
            .body(Full::default())
            .unwrap()
    };
    let (status, body) = text_answer(&org, rest("application/json")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let error: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(error[0]["message"], message);
    assert_eq!(error[0]["errorCode"], "INVALID_SESSION_ID");
    let (_, body) = text_answer(&org, rest("application/xml")).await;
    assert!(body.contains("use with the API &quot;&lt;&amp;&quot;</message>"));

    let envelope = format!(
        "<Envelope><Header><SessionHeader><sessionId>{}</sessionId></SessionHeader></Header>\
         <Body><getUserInfo xmlns=\"urn:partner.soap.sforce.com\"/></Body></Envelope>",
        grant.access_token()
    );
    let soap = Request::post("/services/Soap/u/64.0").header("soapaction", "\"\"");
    let (status, body) = text_answer(&org, soap.body(Full::from(envelope)).unwrap()).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body.contains("<faultcode>sf:INVALID_SESSION_ID</faultcode>"));
    assert!(body.contains("use with the API"), "{body}");

    let (status, body) = create(&org, grant.access_token(), JSON, JSON_JOB).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("InvalidSessionId") && body.contains("use with the API"));

    org.refuse_sessions(None);
    let status = get_limits(&org, grant.access_token()).await;
    assert_eq!(status, StatusCode::OK, "the session had not ended");
}

#[tokio::test]
async fn apex_rest_checks_the_session_first() {
    let org = Org::new();
    let grant = org.authorize();
    for (token, expected) in [
        (grant.access_token(), StatusCode::NOT_FOUND),
        ("unknown", StatusCode::UNAUTHORIZED),
    ] {
        let request = Request::get("/services/apexrest/mine")
            .header("authorization", format!("Bearer {token}"));
        let (status, _) = text_answer(&org, request.body(Full::default()).unwrap()).await;
        assert_eq!(status, expected);
    }
}
