//! The REST API: versions, limits, queries, records and the echo.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body::Frame;
use http_body_util::channel::Channel;
use serde_json::json;
use tower::ServiceExt;
use tower_salesforce_auth::emulator::Org;

use crate::support::{Caller, LIMITS, bearer, empty, json_of, send};

#[tokio::test]
async fn the_versions_need_no_session() {
    let org = Org::new();
    for path in ["/services/data", "/services/data/"] {
        let response = send(&org, Request::get(path).body(empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let versions = json_of(response).await;
        let spring = json!({
            "label": "Spring '26", "url": "/services/data/v66.0", "version": "66.0",
        });
        assert!(versions.as_array().unwrap().contains(&spring));
    }
    assert_eq!(org.counters().requests, 2);
    assert_eq!(org.counters().data_requests, 0);
}

#[tokio::test]
async fn the_limits_count_down() {
    let org = Org::new();
    let mut client = Caller::new(&org);
    let response = client.get(LIMITS).await;
    assert_eq!(response.headers()["sforce-limit-info"], "api-usage=1/15000");
    let body = json_of(response).await;
    let expected = json!({ "DailyApiRequests": { "Max": 15_000, "Remaining": 14_999 } });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_query_answers_with_records() {
    let mut client = Caller::new(&Org::new());
    let found = client
        .get_json("/services/data/v66.0/query?q=SELECT+Id%2C+name+FROM+Account+LIMIT+1")
        .await;
    let url = "/services/data/v66.0/sobjects/Account/001xx0000000001AAA";
    let expected = json!({
        "totalSize": 1,
        "done": true,
        "records": [{
            "attributes": { "type": "Account", "url": url },
            "Id": "001xx0000000001AAA",
            "Name": "Acme",
        }],
    });
    assert_eq!(found, expected);

    let found = client
        .get_json("/services/data/v66.0/query/?q=SELECT+LastName,AccountId+FROM+Contact")
        .await;
    assert_eq!(found["totalSize"], 2);
    let names = [
        &found["records"][0]["LastName"],
        &found["records"][1]["LastName"],
    ];
    assert_eq!(names, ["Example", "Sample"]);
    assert_eq!(found["records"][0]["AccountId"], "001xx0000000001AAA");
}

#[tokio::test]
async fn a_malformed_query_is_a_bad_request() {
    let mut client = Caller::new(&Org::new());
    for (query, code) in [
        ("", "MALFORMED_QUERY"),
        ("?q=SELECT", "MALFORMED_QUERY"),
        ("?q=SELECT+Id+FROM+Account+GROUP+BY+Id", "MALFORMED_QUERY"),
        ("?q=SELECT+Id+FROM+Spaceship", "INVALID_TYPE"),
        ("?q=SELECT+Crew+FROM+Account", "INVALID_FIELD"),
    ] {
        let path = format!("/services/data/v66.0/query{query}");
        let response = client.get(&path).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(json_of(response).await[0]["errorCode"], code, "{query}");
    }
}

#[tokio::test]
async fn a_created_record_can_be_read() {
    let mut client = Caller::new(&Org::new());
    let account = r#"{"Name":"Umbrella","Industry":"Biotechnology"}"#;
    let response = client
        .post("/services/data/v66.0/sobjects/Account", account)
        .await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let created = json_of(response).await;
    let id = created["id"].as_str().unwrap();
    assert_eq!(created, json!({ "id": id, "success": true, "errors": [] }));

    let path = format!("/services/data/v66.0/sobjects/Account/{id}");
    let record = client.get_json(&path).await;
    let expected = json!({
        "attributes": { "type": "Account", "url": path },
        "Id": id,
        "Name": "Umbrella",
        "Industry": "Biotechnology",
        "NumberOfEmployees": null,
        "Website": null,
    });
    assert_eq!(record, expected);
    let all = client
        .get_json("/services/data/v66.0/query?q=SELECT+Name+FROM+Account")
        .await;
    assert_eq!(all["totalSize"], 4);
    assert_eq!(all["records"][3]["Name"], "Umbrella");
}

#[tokio::test]
async fn a_record_that_cannot_be_created_is_a_bad_request() {
    let mut client = Caller::new(&Org::new());
    for (body, code) in [
        ("", "JSON_PARSER_ERROR"),
        ("[]", "JSON_PARSER_ERROR"),
        ("{}", "REQUIRED_FIELD_MISSING"),
        (r#"{"Name":"a","Id":"001"}"#, "INVALID_FIELD"),
        (r#"{"Name":"a","Crew":7}"#, "INVALID_FIELD"),
    ] {
        let response = client
            .post("/services/data/v66.0/sobjects/Account", body)
            .await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(json_of(response).await[0]["errorCode"], code, "{body}");
    }
}

#[tokio::test]
async fn an_unknown_path_or_record_is_not_found() {
    let org = Org::new();
    let mut client = Caller::new(&org);
    for path in [
        "/",
        "/services/apexrest/echo",
        "/services/data/v66.0/spaceships",
        "/services/data/v99.0/limits",
        "/services/data/66.0/limits",
        "/services/data/v66.0/sobjects/Account/001xx0000009999AAA",
        // A contact is not an account.
        "/services/data/v66.0/sobjects/Account/003xx0000000004AAA",
        "/services/data/v66.0/sobjects/Spaceship/001xx0000000001AAA",
    ] {
        let response = client.get(path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let expected = json!([{
            "message": "The requested resource does not exist", "errorCode": "NOT_FOUND",
        }]);
        assert_eq!(json_of(response).await, expected, "{path}");
    }
    let response = client.post(LIMITS, "").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET,HEAD");
}

#[tokio::test]
async fn the_echo_reports_what_arrived() {
    let org = Org::new();
    let grant = org.authorize();
    let trailers = HeaderMap::from_iter([(
        "checksum".parse().unwrap(),
        HeaderValue::from_static("900150983cd24fb0"),
    )]);
    let (mut sender, body) = Channel::<Bytes>::new(3);
    sender.send_data(Bytes::from("a")).await.unwrap();
    sender.send_data(Bytes::from("bc")).await.unwrap();
    sender.send(Frame::trailers(trailers)).await.unwrap();
    drop(sender);
    let request = Request::builder()
        .method("PROPFIND")
        .uri("https://emulator.my.salesforce.com/services/data/v66.0/echo?a=1&b=%20")
        .header("x-first", "1")
        .header(AUTHORIZATION, bearer(grant.access_token()))
        .header("x-second", "2")
        .header("x-second", "3")
        .body(body)
        .unwrap();
    let response = org.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let expected = json!({
        "method": "PROPFIND",
        "path": "/services/data/v66.0/echo?a=1&b=%20",
        "headers": [
            ["x-first", "1"],
            ["authorization", "[redacted]"],
            ["x-second", "2"],
            ["x-second", "3"],
        ],
        "authorization_count": 1,
        "body_length": 3,
        "body_sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "trailers": [["checksum", "900150983cd24fb0"]],
    });
    assert_eq!(json_of(response).await, expected);
}
