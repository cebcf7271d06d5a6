//! Versions, objects, descriptions and records.

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower_salesforce_auth::emulator::Org;

use crate::support::{Caller, empty, json_of, send};

const USER_ID: &str = "005xx000001SwiUAAS";

#[tokio::test]
async fn the_user_of_the_org_is_a_record() {
    let org = Org::new();
    let mut caller = Caller::new(&org);
    let path = format!("/services/data/v51.0/sobjects/User/{USER_ID}");
    let user = caller.get_json(&path).await;
    assert_eq!(user["Username"], org.username());
    assert_eq!(user["Name"], "Ann Example");
    assert_eq!(user["attributes"], json!({ "type": "User", "url": path }));

    let query = format!(
        "SELECT Id, IsActive FROM User WHERE Username = '{}'",
        org.username()
    );
    let found = json_of(caller.query(&query).await).await;
    assert_eq!(found["records"][0]["Id"], USER_ID);
    assert_eq!(found["records"][0]["IsActive"], true);
    org.deactivate_user(true);
    let found = json_of(caller.query(&query).await).await;
    assert_eq!(found["records"][0]["IsActive"], false);

    let found = json_of(
        caller
            .query("SELECT Name, IsSandbox FROM Organization")
            .await,
    )
    .await;
    assert_eq!(found["records"][0]["Name"], "Example");
    assert_eq!(found["records"][0]["IsSandbox"], false);
}

#[tokio::test]
async fn a_version_lists_its_resources() {
    let mut caller = Caller::new(&Org::new());
    let expected = json!({
        "composite": "/services/data/v66.0/composite",
        "jobs": "/services/data/v66.0/jobs",
        "limits": "/services/data/v66.0/limits",
        "query": "/services/data/v66.0/query",
        "queryAll": "/services/data/v66.0/queryAll",
        "sobjects": "/services/data/v66.0/sobjects",
    });
    for path in ["/services/data/v66.0", "/services/data/v66.0/"] {
        assert_eq!(caller.get_json(path).await, expected);
    }
}

#[tokio::test]
async fn a_retired_version_is_refused_by_each_api() {
    let org = Org::new();
    let mut caller = Caller::new(&org);
    for path in [
        "/services/data/v30.0",
        "/services/data/v20.0/query?q=SELECT+Id+FROM+User",
    ] {
        let response = caller.get(path).await;
        assert_eq!(response.status(), StatusCode::GONE, "{path}");
        let error = json_of(response).await;
        assert_eq!(error[0]["errorCode"], "UNSUPPORTED_API_VERSION");
    }
    // Bulk API 1.0 and SOAP are in `bulk` and `soap`. A version that is to come is not found.
    let response = caller.get("/services/data/v69.0/limits").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);

    let request = Request::get("/services/data").body(empty()).unwrap();
    let versions = json_of(send(&org, request).await).await;
    let versions = versions.as_array().unwrap();
    assert_eq!(versions.first().unwrap()["version"], "31.0");
    assert_eq!(versions.last().unwrap()["version"], "68.0");
}

#[tokio::test]
async fn the_objects_are_listed_and_described() {
    let mut caller = Caller::new(&Org::new());
    let listed = caller.get_json("/services/data/v66.0/sobjects").await;
    let objects = listed["sobjects"].as_array().unwrap();
    let names: Vec<_> = objects
        .iter()
        .map(|object| object["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Account", "Contact", "Organization", "User"]);

    for object in objects {
        let path = object["urls"]["describe"].as_str().unwrap();
        let described = caller.get_json(path).await;
        assert_eq!(described["keyPrefix"], object["keyPrefix"]);
        let fields = described["fields"].as_array().unwrap();
        assert_eq!(fields[0]["type"], "id", "{path}");
        // All fields that are described can be queried.
        let names: Vec<_> = fields
            .iter()
            .map(|field| field["name"].as_str().unwrap())
            .collect();
        let query = format!(
            "SELECT {} FROM {}",
            names.join(", "),
            object["name"].as_str().unwrap()
        );
        let found = json_of(caller.query(&query).await).await;
        assert!(found["totalSize"].as_u64().unwrap() > 0, "{found}");

        let path = object["urls"]["sobject"].as_str().unwrap();
        let summary = caller.get_json(path).await;
        assert_eq!(summary["objectDescribe"], *object);
    }
    let response = caller
        .get("/services/data/v66.0/sobjects/Spaceship/describe")
        .await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_record_is_changed_and_deleted() {
    let mut caller = Caller::new(&Org::new());
    let path = "/services/data/v66.0/sobjects/Account/001xx0000000001AAA";
    let changed = caller
        .call(Method::PATCH, path, r#"{"name":"Acme, Inc."}"#)
        .await;
    assert_eq!(changed.status(), StatusCode::NO_CONTENT);
    let record = caller
        .get_json(&format!("{path}?fields=Name,Industry"))
        .await;
    let attributes = &record["attributes"];
    let expected =
        json!({ "attributes": attributes, "Name": "Acme, Inc.", "Industry": "Manufacturing" });
    assert_eq!(record, expected);
    // The short form of the id.
    let record = caller
        .get_json("/services/data/v66.0/sobjects/Account/001xx0000000001")
        .await;
    assert_eq!(record["Id"], "001xx0000000001AAA");

    for (body, code) in [
        (r#"{"Id":"001xx0000000002AAA"}"#, "INVALID_FIELD"),
        (r#"{"Crew":7}"#, "INVALID_FIELD"),
        (r#"{"NumberOfEmployees":"many"}"#, "JSON_PARSER_ERROR"),
        (r#"{"NumberOfEmployees":1.5}"#, "JSON_PARSER_ERROR"),
        (r#"{"Name":7}"#, "JSON_PARSER_ERROR"),
        ("7", "JSON_PARSER_ERROR"),
    ] {
        let response = caller.call(Method::PATCH, path, body).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(json_of(response).await[0]["errorCode"], code, "{body}");
    }

    // The Salesforce CLI sends all values as texts.
    let number = r#"{"NumberOfEmployees":"7"}"#;
    let changed = caller.call(Method::PATCH, path, number).await;
    assert_eq!(changed.status(), StatusCode::NO_CONTENT);
    let record = caller.get_json(path).await;
    assert_eq!(record["NumberOfEmployees"], 7);

    let deleted = caller.call(Method::DELETE, path, "").await;
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        let response = caller.call(method.clone(), path, "{}").await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{method}");
    }
}

#[tokio::test]
async fn the_user_and_the_org_cannot_be_created_or_changed() {
    let mut caller = Caller::new(&Org::new());
    let user = format!("/services/data/v66.0/sobjects/User/{USER_ID}");
    for (method, path) in [
        (Method::POST, "/services/data/v66.0/sobjects/User"),
        (Method::POST, "/services/data/v66.0/sobjects/Organization"),
        (Method::PATCH, user.as_str()),
        (Method::DELETE, user.as_str()),
    ] {
        let response = caller
            .call(method, path, r#"{"Username":"a@example.com"}"#)
            .await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(response.headers()["allow"], "GET,HEAD");
    }
    let job = json!({ "object": "User", "operation": "insert" }).to_string();
    let response = caller.post("/services/data/v66.0/jobs/ingest", job).await;
    let error: Value = json_of(response).await;
    assert_eq!(error[0]["errorCode"], "INVALIDENTITY");
}
