//! SOQL: conditions, order, limits, counts and pages.

use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower_salesforce_auth::emulator::Org;

use crate::support::{Caller, bearer, empty, encode, json_of, send};

/// The names that a query over accounts finds, with the rest of it after `FROM Account`.
async fn names(caller: &mut Caller, rest: &str) -> Vec<String> {
    let response = caller
        .query(&format!("SELECT Name FROM Account {rest}"))
        .await;
    assert_eq!(response.status(), StatusCode::OK, "{rest}");
    let found = json_of(response).await;
    let records = found["records"].as_array().unwrap();
    assert_eq!(found["totalSize"], records.len(), "{rest}");
    let name = |record: &Value| record["Name"].as_str().unwrap().to_owned();
    records.iter().map(name).collect()
}

#[tokio::test]
async fn a_condition_selects_records() {
    let mut caller = Caller::new(&Org::new());
    for (rest, expected) in [
        ("WHERE Name = 'acme'", vec!["Acme"]),
        ("WHERE Name != 'Acme'", vec!["Globex", "Initech"]),
        ("WHERE Name <> 'Acme'", vec!["Globex", "Initech"]),
        ("WHERE Name > 'Acme' AND Name <= 'Globex'", vec!["Globex"]),
        (
            "WHERE Name IN ('Acme', 'Initech', 'Umbrella')",
            vec!["Acme", "Initech"],
        ),
        ("WHERE Name NOT IN ('Acme')", vec!["Globex", "Initech"]),
        ("WHERE Name LIKE '%e%'", vec!["Acme", "Globex", "Initech"]),
        ("WHERE Name LIKE '_c%'", vec!["Acme"]),
        ("WHERE NOT Name LIKE 'A%'", vec!["Globex", "Initech"]),
        ("WHERE NumberOfEmployees >= 80", vec!["Acme", "Globex"]),
        ("WHERE NumberOfEmployees < 80.5", vec!["Globex"]),
        ("WHERE NumberOfEmployees = null", vec!["Initech"]),
        ("WHERE NumberOfEmployees != 80", vec!["Acme", "Initech"]),
        (
            "WHERE (Name = 'Acme' OR Industry = 'Energy') AND Website = null",
            vec!["Globex"],
        ),
        ("WHERE Id = '001xx0000000002AAA'", vec!["Globex"]),
        ("WHERE Id = '001xx0000000002'", vec!["Globex"]),
        ("WHERE Name = '001xx0000000002'", vec![]),
    ] {
        assert_eq!(names(&mut caller, rest).await, expected, "{rest}");
    }
}

#[tokio::test]
async fn an_order_a_limit_and_an_offset_shape_the_result() {
    let mut caller = Caller::new(&Org::new());
    for (rest, expected) in [
        ("ORDER BY Name DESC", vec!["Initech", "Globex", "Acme"]),
        (
            "ORDER BY NumberOfEmployees",
            vec!["Initech", "Globex", "Acme"],
        ),
        (
            "ORDER BY NumberOfEmployees NULLS LAST",
            vec!["Globex", "Acme", "Initech"],
        ),
        (
            "ORDER BY Website DESC, Name ASC LIMIT 2",
            vec!["Globex", "Initech"],
        ),
        ("ORDER BY Name LIMIT 1 OFFSET 1", vec!["Globex"]),
        ("LIMIT 0", vec![]),
        ("OFFSET 5", vec![]),
    ] {
        assert_eq!(names(&mut caller, rest).await, expected, "{rest}");
    }
}

#[tokio::test]
async fn a_count_has_a_size_and_no_records() {
    let mut caller = Caller::new(&Org::new());
    let query = "SELECT COUNT() FROM Contact WHERE LastName LIKE 'S%'";
    let counted = json_of(caller.query(query).await).await;
    assert_eq!(
        counted,
        json!({ "totalSize": 1, "done": true, "records": [] })
    );
}

#[tokio::test]
async fn a_query_that_is_refused_says_what_is_unknown() {
    let mut caller = Caller::new(&Org::new());
    for (query, code, message) in [
        (
            "SELECT Id FROM Account WHERE Name = 1",
            "INVALID_FIELD",
            "field 'Name' must be of type string and should be enclosed in quotes",
        ),
        (
            "SELECT Id FROM User WHERE IsActive = 'true'",
            "INVALID_FIELD",
            "field 'IsActive' must be of type boolean and should not be enclosed in quotes",
        ),
        (
            "SELECT Id FROM Account WHERE Crew = 1",
            "INVALID_FIELD",
            "No such column 'Crew' on entity 'Account'",
        ),
        (
            "SELECT Id FROM Account ORDER BY Crew",
            "INVALID_FIELD",
            "No such column 'Crew' on entity 'Account'",
        ),
        (
            "SELECT Account.Name FROM Contact",
            "INVALID_FIELD",
            "Didn't understand relationship 'Account' in field path 'Account.Name'",
        ),
        (
            "SELECT Id FROM Account WHERE Id = 'x'",
            "INVALID_QUERY_FILTER_OPERATOR",
            "invalid ID field: x",
        ),
        (
            "SELECT Id FROM Account WHERE Id LIKE '001%'",
            "INVALID_QUERY_FILTER_OPERATOR",
            "field 'Id' does not support LIKE",
        ),
        (
            "SELECT Id FROM Account OFFSET 2001",
            "NUMBER_OUTSIDE_VALID_RANGE",
            "Maximum SOQL offset allowed is 2000",
        ),
        (
            "SELECT Id FROM Account\nGROUP BY Name",
            "MALFORMED_QUERY",
            "ERROR at Row:2:Column:1\nunexpected token: 'GROUP', which the emulated org does not know",
        ),
        (
            "SELECT Id FROM Account WHERE Name = 'a' AND Name = 'b' OR Name = 'c'",
            "MALFORMED_QUERY",
            "ERROR at Row:1:Column:56\nunexpected token: 'OR'",
        ),
    ] {
        let response = caller.query(query).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        let error = json_of(response).await;
        assert_eq!(error[0]["errorCode"], code, "{query}");
        let told = error[0]["message"].as_str().unwrap();
        assert!(told.contains(message), "{told}");
    }
}

#[tokio::test]
async fn the_columns_of_a_query_are_described_in_its_order() {
    let mut caller = Caller::new(&Org::new());
    let query = encode(&[
        ("q", "SELECT Name, Id, NumberOfEmployees FROM Account"),
        ("columns", "true"),
    ]);
    let described = caller
        .get_json(&format!("/services/data/v66.0/query?{query}"))
        .await;
    assert_eq!(described["entityName"], "Account");
    assert_eq!(described["keyPrefix"], "001");
    assert_eq!(described["idSelected"], true);
    let columns = described["columnMetadata"].as_array().unwrap();
    let told: Vec<_> = columns
        .iter()
        .map(|column| [&column["columnName"], &column["apexType"]])
        .collect();
    assert_eq!(
        told,
        [
            ["Name", "String"],
            ["Id", "Id"],
            ["NumberOfEmployees", "Integer"]
        ]
    );
}

#[tokio::test]
async fn a_long_result_comes_in_pages() {
    let org = Org::new();
    let mut caller = Caller::new(&org);
    let records: Vec<Value> = (0..200)
        .map(
            |number| json!({ "attributes": { "type": "Contact" }, "LastName": number.to_string() }),
        )
        .collect();
    let body = json!({ "records": records }).to_string();
    for _ in 0..2 {
        let path = "/services/data/v66.0/composite/sobjects";
        assert_eq!(
            caller.post(path, body.clone()).await.status(),
            StatusCode::OK
        );
    }

    // The org was asked for pages of 10 records, and sends no fewer than 200.
    let grant = org.authorize();
    let page = async |path: &str| {
        let request = Request::get(path)
            .header("authorization", bearer(grant.access_token()))
            .header("sforce-query-options", "batchSize=10")
            .body(empty());
        json_of(send(&org, request.unwrap()).await).await
    };
    let mut page_at = "/services/data/v66.0/query?q=SELECT+LastName+FROM+Contact".to_owned();
    let mut sizes = Vec::new();
    loop {
        let page = page(&page_at).await;
        assert_eq!(page["totalSize"], 402);
        sizes.push(page["records"].as_array().unwrap().len());
        match page["nextRecordsUrl"].as_str() {
            Some(next) => next.clone_into(&mut page_at),
            None => break,
        }
    }
    assert_eq!(sizes, [200, 200, 2]);

    // Without the header there is one page.
    let found = json_of(caller.query("SELECT Id FROM Contact").await).await;
    assert_eq!(
        (&found["done"], &found["totalSize"]),
        (&json!(true), &json!(402))
    );
    for locator in [
        "01gxx0000000009AAA-200",
        "01gxx0000000001AAA-402",
        "01gxx0000000001AAA",
        "x-1",
    ] {
        let path = format!("/services/data/v66.0/query/{locator}");
        let response = caller.get(&path).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{locator}");
        assert_eq!(
            json_of(response).await[0]["errorCode"],
            "INVALID_QUERY_LOCATOR"
        );
    }
}
