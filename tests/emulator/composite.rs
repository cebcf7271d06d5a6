//! Several calls in one request.

use http::StatusCode;
use serde_json::{Value, json};
use tower_salesforce_auth::emulator::Org;

use crate::support::{Caller, json_of};

const COMPOSITE: &str = "/services/data/v66.0/composite";

async fn post(caller: &mut Caller, path: &str, body: &Value) -> Value {
    let response = caller.post(path, body.to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    json_of(response).await
}

fn account(reference: &str, body: &Value) -> Value {
    json!({
        "method": "POST",
        "url": "/services/data/v66.0/sobjects/Account",
        "referenceId": reference,
        "body": body,
    })
}

#[tokio::test]
async fn a_call_refers_to_the_answer_of_an_earlier_one() {
    let org = Org::new();
    let mut caller = Caller::new(&org);
    let order = json!({ "compositeRequest": [
        account("made", &json!({ "Name": "Umbrella" })),
        {
            "method": "POST",
            "url": "/services/data/v66.0/sobjects/Contact",
            "referenceId": "contact",
            "body": { "LastName": "Rain", "AccountId": "@{made.id}" },
        },
        {
            "method": "GET",
            "url": "/services/data/v66.0/query?q=SELECT LastName FROM Contact WHERE AccountId = '@{made.id}'",
            "referenceId": "found",
        },
        { "method": "GET", "url": "/services/data/v66.0/sobjects/Account/@{no.id}", "referenceId": "lost" },
    ]});
    let answer = post(&mut caller, COMPOSITE, &order).await;
    let answers = answer["compositeResponse"].as_array().unwrap();
    let statuses: Vec<_> = answers
        .iter()
        .map(|one| one["httpStatusCode"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [201, 201, 200, 400]);
    assert_eq!(answers[2]["body"]["records"][0]["LastName"], "Rain");
    assert_eq!(answers[2]["referenceId"], "found");
    assert_eq!(answers[3]["body"][0]["errorCode"], "PROCESSING_HALTED");
    // All of them are one call.
    assert_eq!(org.counters().data_requests, 1);
}

#[tokio::test]
async fn all_or_none_undoes_what_was_done() {
    let mut caller = Caller::new(&Org::new());
    for (all_or_none, accounts) in [(true, 3), (false, 4)] {
        let order = json!({ "allOrNone": all_or_none, "compositeRequest": [
            account("good", &json!({ "Name": "Umbrella" })),
            account("bad", &json!({})),
        ]});
        let answer = post(&mut caller, COMPOSITE, &order).await;
        let good = &answer["compositeResponse"][0];
        assert_eq!(good["httpStatusCode"] == 201, !all_or_none, "{good}");
        let bad = &answer["compositeResponse"][1]["body"][0];
        assert_eq!(bad["errorCode"], "REQUIRED_FIELD_MISSING");
        let counted = json_of(caller.query("SELECT COUNT() FROM Account").await).await;
        assert_eq!(counted["totalSize"], accounts);
    }
}

#[tokio::test]
async fn a_batch_answers_each_of_its_calls() {
    let mut caller = Caller::new(&Org::new());
    let path = format!("{COMPOSITE}/batch");
    for (halt, last) in [(false, 200), (true, 412)] {
        let order = json!({ "haltOnError": halt, "batchRequests": [
            { "method": "POST", "url": "v66.0/sobjects/Account", "richInput": { "Name": "Umbrella" } },
            { "method": "GET", "url": "v66.0/sobjects/Account/001xx0000009999AAA" },
            { "method": "GET", "url": "v66.0/limits" },
        ]});
        let answer = post(&mut caller, &path, &order).await;
        assert_eq!(answer["hasErrors"], true);
        let results = answer["results"].as_array().unwrap();
        let statuses: Vec<_> = results
            .iter()
            .map(|one| one["statusCode"].as_u64().unwrap())
            .collect();
        assert_eq!(statuses, [201, 404, last]);
        assert_eq!(results[0]["result"]["success"], true);
    }
}

#[tokio::test]
async fn a_collection_creates_each_record_or_says_why_not() {
    let mut caller = Caller::new(&Org::new());
    let path = format!("{COMPOSITE}/sobjects");
    let records = json!([
        { "attributes": { "type": "Account" }, "Name": "Umbrella" },
        { "attributes": { "type": "Contact" } },
        { "attributes": { "type": "User" }, "Username": "a@example.com" },
        { "Name": "No type" },
    ]);
    let answer = post(&mut caller, &path, &json!({ "records": records })).await;
    assert_eq!(answer[0]["success"], true);
    let codes =
        [&answer[1], &answer[2], &answer[3]].map(|result| &result["errors"][0]["statusCode"]);
    assert_eq!(
        codes,
        ["REQUIRED_FIELD_MISSING", "INVALID_TYPE", "INVALID_TYPE"]
    );

    let order = json!({ "allOrNone": true, "records": records });
    let answer = post(&mut caller, &path, &order).await;
    let error = &answer[0]["errors"][0];
    assert_eq!(error["statusCode"], "ALL_OR_NONE_OPERATION_ROLLED_BACK");
    let counted = json_of(caller.query("SELECT COUNT() FROM Account").await).await;
    assert_eq!(counted["totalSize"], 4);
}

#[tokio::test]
async fn what_is_no_composite_request_is_refused() {
    let mut caller = Caller::new(&Org::new());
    let call = json!({ "method": "GET", "url": "v66.0/limits", "referenceId": "a" });
    let nested =
        json!({ "method": "POST", "url": "v66.0/composite", "referenceId": "a", "body": {} });
    let many: Vec<_> = std::iter::repeat_n(&call, 26).collect();
    for (path, body, code) in [
        ("", json!({}), "JSON_PARSER_ERROR"),
        ("", json!({ "compositeRequest": many }), "LIMIT_EXCEEDED"),
        ("/batch", json!({ "batchRequests": many }), "LIMIT_EXCEEDED"),
        (
            "/sobjects",
            json!({ "records": vec![json!({}); 201] }),
            "LIMIT_EXCEEDED",
        ),
    ] {
        let response = caller
            .post(&format!("{COMPOSITE}{path}"), body.to_string())
            .await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(json_of(response).await[0]["errorCode"], code, "{path}");
        let response = caller.get(&format!("{COMPOSITE}{path}")).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    let order = json!({ "compositeRequest": [nested] });
    let answer = post(&mut caller, COMPOSITE, &order).await;
    assert_eq!(answer["compositeResponse"][0]["httpStatusCode"], 404);
}
