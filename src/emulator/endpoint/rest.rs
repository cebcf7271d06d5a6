//! The REST resources. The session check is in `data.rs`.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde_json::{Map, Value, json};

use crate::emulator::state::records::{RecordType, Records};
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::soql;

/// `DailyApiRequests.Max`, and the second number of `Sforce-Limit-Info`.
const DAILY_API_REQUESTS: u64 = 15_000;

const VERSIONS: [(&str, &str); 4] = [
    ("Summer '25", "64.0"),
    ("Winter '26", "65.0"),
    ("Spring '26", "66.0"),
    ("Summer '26", "67.0"),
];

/// The resource of a path below `/services/data/`.
#[derive(Clone, Copy)]
pub(crate) enum Resource<'a> {
    Limits,
    Query,
    Records {
        object: &'a str,
    },
    Record {
        object: &'a str,
        id: &'a str,
    },
    /// The rest of the path after `jobs/ingest`.
    Ingest {
        path: &'a str,
    },
    Echo,
    Unknown,
}

/// The version and the resource of `path`, which begins after `/services/data/`.
pub(crate) fn resource(path: &str) -> (&str, Resource<'_>) {
    let (version, rest) = path.split_once('/').unwrap_or((path, ""));
    if !is_version(version) {
        return (version, Resource::Unknown);
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(path) = rest.strip_prefix("jobs/ingest") {
        return (version, Resource::Ingest { path });
    }
    let mut segments = rest.split('/');
    let resource = match (
        segments.next(),
        segments.next(),
        segments.next(),
        segments.next(),
    ) {
        (Some("limits"), None, ..) => Resource::Limits,
        (Some("query"), None, ..) => Resource::Query,
        (Some("echo"), None, ..) => Resource::Echo,
        (Some("sobjects"), Some(object), None, _) => Resource::Records { object },
        (Some("sobjects"), Some(object), Some(id), None) => Resource::Record { object, id },
        _ => Resource::Unknown,
    };
    (version, resource)
}

/// Whether the segment is a version such as `v66.0`. The org treats all versions alike.
fn is_version(segment: &str) -> bool {
    segment
        .strip_prefix('v')
        .and_then(|version| version.strip_suffix(".0"))
        .is_some_and(|number| {
            (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// The list of API versions. It needs no session.
pub(crate) fn versions(method: &Method) -> HttpAnswer {
    if !reads(method) {
        return answer::method_not_allowed(method, "GET,HEAD");
    }
    let versions: Value = VERSIONS
        .iter()
        .map(|(label, version)| {
            let url = format!("/services/data/v{version}");
            json!({ "label": label, "url": url, "version": version })
        })
        .collect();
    answer::json(StatusCode::OK, &versions)
}

/// The `limits` resource: `DailyApiRequests`, after `used` calls.
pub(crate) fn limits(method: &Method, used: u64) -> HttpAnswer {
    if !reads(method) {
        return answer::method_not_allowed(method, "GET,HEAD");
    }
    let requests = json!({
        "Max": DAILY_API_REQUESTS,
        "Remaining": DAILY_API_REQUESTS.saturating_sub(used),
    });
    answer::json(StatusCode::OK, &json!({ "DailyApiRequests": requests }))
}

/// Reports the number of calls used, as the REST API does with every answer.
pub(crate) fn report_usage(headers: &mut HeaderMap, used: u64) {
    if let Ok(usage) = HeaderValue::try_from(format!("api-usage={used}/{DAILY_API_REQUESTS}")) {
        headers.insert("sforce-limit-info", usage);
    }
}

/// Runs the query in the parameter `q`.
pub(crate) fn query(method: &Method, uri: &Uri, version: &str, records: &Records) -> HttpAnswer {
    if !reads(method) {
        return answer::method_not_allowed(method, "GET,HEAD");
    }
    let text = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .find_map(|(name, value)| (name == "q").then_some(value))
        .unwrap_or_default();
    let Some(query) = soql::parse(&text) else {
        let message = format!("unexpected or unsupported SOQL: '{text}'");
        return bad_request("MALFORMED_QUERY", &message);
    };
    let Some(object) = RecordType::named(query.object) else {
        let message = format!("sObject type '{}' is not supported.", query.object);
        return bad_request("INVALID_TYPE", &message);
    };
    let mut fields = Vec::with_capacity(query.fields.len());
    for name in &query.fields {
        match object.field(name) {
            Some(field) => fields.push(field),
            None => return no_such_column(name, object),
        }
    }
    let found: Vec<Value> = records
        .all(object)
        .take(query.limit.unwrap_or(usize::MAX))
        .map(|(id, record)| represent(object, version, id, record, &fields))
        .collect();
    let body = json!({ "totalSize": found.len(), "done": true, "records": found });
    answer::json(StatusCode::OK, &body)
}

/// Creates a record from a JSON object of its fields.
pub(crate) fn create(
    method: &Method,
    object: &str,
    body: &[u8],
    records: &mut Records,
) -> HttpAnswer {
    let Some(object) = RecordType::named(object) else {
        return answer::not_found();
    };
    if method != Method::POST {
        return answer::method_not_allowed(method, "POST");
    }
    let values: Map<String, Value> = match serde_json::from_slice(body) {
        Ok(values) => values,
        Err(error) => return bad_request("JSON_PARSER_ERROR", &error.to_string()),
    };
    let mut record = Map::new();
    for (name, value) in values {
        match object.field(&name) {
            Some("Id") | None => return no_such_column(&name, object),
            Some(field) => record.insert(field.to_owned(), value),
        };
    }
    let required = object.required;
    if record
        .get(required)
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        let error = json!([{
            "message": format!("Required fields are missing: [{required}]"),
            "errorCode": "REQUIRED_FIELD_MISSING",
            "fields": [required],
        }]);
        return answer::json(StatusCode::BAD_REQUEST, &error);
    }
    let id = records.create(object, record);
    let body = json!({ "id": id, "success": true, "errors": [] });
    answer::json(StatusCode::CREATED, &body)
}

/// Returns one record with all its fields.
pub(crate) fn record(
    method: &Method,
    version: &str,
    object: &str,
    id: &str,
    records: &Records,
) -> HttpAnswer {
    let Some(object) = RecordType::named(object) else {
        return answer::not_found();
    };
    if !reads(method) {
        return answer::method_not_allowed(method, "GET,HEAD");
    }
    match records.get(object, id) {
        Some(record) => {
            let body = represent(object, version, id, record, object.fields);
            answer::json(StatusCode::OK, &body)
        }
        None => answer::not_found(),
    }
}

fn represent(
    object: &RecordType,
    version: &str,
    id: &str,
    record: &Map<String, Value>,
    fields: &[&str],
) -> Value {
    let name = object.name;
    let url = format!("/services/data/{version}/sobjects/{name}/{id}");
    let mut body = Map::new();
    body.insert("attributes".to_owned(), json!({ "type": name, "url": url }));
    for field in fields {
        let value = record.get(*field).cloned().unwrap_or(Value::Null);
        body.insert((*field).to_owned(), value);
    }
    Value::Object(body)
}

fn no_such_column(name: &str, object: &RecordType) -> HttpAnswer {
    let message = format!("No such column '{name}' on sobject of type {}", object.name);
    bad_request("INVALID_FIELD", &message)
}

pub(crate) fn bad_request(code: &str, message: &str) -> HttpAnswer {
    answer::error(StatusCode::BAD_REQUEST, code, message)
}

fn reads(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}
