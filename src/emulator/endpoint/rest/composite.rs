//! Requests that are several calls, and the rest of the calls.

use http::{HeaderMap, Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::RestAnswer;
use super::call::call;
use super::resource::{Resource, resource};
use super::sobjects;
use crate::emulator::state::OrgState;
use crate::emulator::state::schema::RecordType;

/// The most calls of a composite request and of a batch.
const MOST_CALLS: usize = 25;

/// The most records of a collection.
const MOST_RECORDS: usize = 200;

/// Carries out a call to `resource` of this version.
pub(in crate::emulator::endpoint) fn carry_out(
    state: &mut OrgState,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    (version, resource): (&str, Resource<'_>),
    body: &[u8],
) -> RestAnswer {
    let read = match resource {
        Resource::Composite => read(method, body).map(|order| composite(state, headers, order)),
        Resource::Batch => read(method, body).map(|order| batch(state, headers, &order)),
        Resource::Collection => read(method, body).map(|order| create_all(state, order)),
        resource => {
            return call(state, (method, uri, headers), (version, resource), body);
        }
    };
    read.unwrap_or_else(|refusal| refusal)
}

fn read<T: for<'a> Deserialize<'a>>(method: &Method, body: &[u8]) -> Result<T, RestAnswer> {
    if method != Method::POST {
        return Err(RestAnswer::method_not_allowed(method, "POST"));
    }
    let read = serde_json::from_slice(body);
    read.map_err(|error| RestAnswer::bad_request("JSON_PARSER_ERROR", &error.to_string()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CompositeOrder {
    #[serde(default)]
    all_or_none: bool,
    composite_request: Vec<CompositeCall>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CompositeCall {
    method: String,
    url: String,
    reference_id: String,
    #[serde(default)]
    body: Value,
}

fn composite(state: &mut OrgState, headers: &HeaderMap, order: CompositeOrder) -> RestAnswer {
    if order.composite_request.len() > MOST_CALLS {
        return too_many("The maximum number of composite requests", MOST_CALLS);
    }
    let before = order.all_or_none.then(|| state.records.clone());
    let mut done: Map<String, Value> = Map::new();
    let mut answers = Vec::new();
    for call in order.composite_request {
        let referred = refer(&call.url, &done).zip(refer_in(call.body, &done));
        let answer = match referred {
            Some((url, body)) => call_at(state, headers, &call.method, &url, &body),
            None => halted("Invalid reference specified."),
        };
        if let (true, Some(body)) = (answer.status.is_success(), &answer.body) {
            done.insert(call.reference_id.clone(), body.clone());
        }
        answers.push((call.reference_id, answer));
    }
    let failed = answers
        .iter()
        .any(|(_, answer)| !answer.status.is_success());
    if let (true, Some(before)) = (failed, before) {
        state.records = before;
        let message = "The transaction was rolled back since another operation in the same \
                       transaction failed.";
        for (_, answer) in &mut answers {
            if answer.status.is_success() {
                *answer = halted(message);
            }
        }
    }
    let answers: Vec<Value> = answers
        .into_iter()
        .map(|(reference_id, answer)| {
            json!({
                "body": answer.body,
                "httpHeaders": {},
                "httpStatusCode": answer.status.as_u16(),
                "referenceId": reference_id,
            })
        })
        .collect();
    RestAnswer::ok(json!({ "compositeResponse": answers }))
}

/// Replaces each `@{reference.field}` in `text`. `None` if one of them does not exist.
fn refer(text: &str, done: &Map<String, Value>) -> Option<String> {
    let mut referred = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("@{") {
        let (path, after) = after.split_once('}')?;
        let mut segments = path.split('.');
        let answer = done.get(segments.next()?)?;
        let value = segments.try_fold(answer, |value, name| value.get(name))?;
        referred.push_str(before);
        match value {
            Value::String(text) => referred.push_str(text),
            other => referred.push_str(&other.to_string()),
        }
        rest = after;
    }
    referred.push_str(rest);
    Some(referred)
}

/// Replaces the references in the texts of a body.
fn refer_in(body: Value, done: &Map<String, Value>) -> Option<Value> {
    match body {
        Value::String(text) => refer(&text, done).map(Value::String),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| Some((name, refer_in(value, done)?)))
            .collect::<Option<Map<_, _>>>()
            .map(Value::Object),
        other => Some(other),
    }
}

fn call_at(
    state: &mut OrgState,
    headers: &HeaderMap,
    method: &str,
    url: &str,
    body: &Value,
) -> RestAnswer {
    let url = url.trim_start_matches('/');
    let path = url.strip_prefix("services/data/").unwrap_or(url);
    // A query may come without escapes.
    let escaped: String = url.replace(' ', "%20");
    let (Ok(method), Ok(uri)) = (method.parse(), format!("/{escaped}").parse::<Uri>()) else {
        return RestAnswer::bad_request("INVALID_INPUT", "method or url is malformed");
    };
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let body = body.to_string();
    let to = resource(path);
    call(state, (&method, &uri, headers), to, body.as_bytes())
}

fn halted(message: &str) -> RestAnswer {
    RestAnswer::bad_request("PROCESSING_HALTED", message)
}

fn too_many(what: &str, most: usize) -> RestAnswer {
    let message = format!("{what} exceeds {most}");
    RestAnswer::bad_request("LIMIT_EXCEEDED", &message)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchOrder {
    #[serde(default)]
    halt_on_error: bool,
    batch_requests: Vec<BatchCall>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchCall {
    method: String,
    url: String,
    #[serde(default)]
    rich_input: Value,
}

fn batch(state: &mut OrgState, headers: &HeaderMap, order: &BatchOrder) -> RestAnswer {
    if order.batch_requests.len() > MOST_CALLS {
        return too_many("The maximum number of batch requests", MOST_CALLS);
    }
    let mut has_errors = false;
    let mut results = Vec::new();
    for call in &order.batch_requests {
        let answer = if has_errors && order.halt_on_error {
            let message = "The batch processing was halted by an earlier error.";
            RestAnswer::error(
                StatusCode::PRECONDITION_FAILED,
                "BATCH_PROCESSING_HALTED",
                message,
            )
        } else {
            call_at(state, headers, &call.method, &call.url, &call.rich_input)
        };
        has_errors |= !answer.status.is_success();
        let status = answer.status.as_u16();
        results.push(json!({ "statusCode": status, "result": answer.body }));
    }
    RestAnswer::ok(json!({ "hasErrors": has_errors, "results": results }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CollectionOrder {
    #[serde(default)]
    all_or_none: bool,
    records: Vec<Map<String, Value>>,
}

/// Creates several records. Each has its type in its `attributes`.
fn create_all(state: &mut OrgState, order: CollectionOrder) -> RestAnswer {
    if order.records.len() > MOST_RECORDS {
        return too_many("The number of records", MOST_RECORDS);
    }
    let before = order.all_or_none.then(|| state.records.clone());
    let mut failed = false;
    let results: Vec<Value> = order
        .records
        .into_iter()
        .map(|values| {
            let object = values
                .get("attributes")
                .and_then(|of| of.get("type")?.as_str());
            let object = object.and_then(RecordType::named);
            let answer = match object.filter(|object| object.required.is_some()) {
                Some(object) => sobjects::create(object, values, &mut state.records),
                None => RestAnswer::bad_request("INVALID_TYPE", "sObject type is not supported."),
            };
            failed |= !answer.status.is_success();
            result_of(answer)
        })
        .collect();
    match (failed, before) {
        (true, Some(before)) => {
            state.records = before;
            let code = "ALL_OR_NONE_OPERATION_ROLLED_BACK";
            let message = "Record rolled back because not all records were valid";
            let rolled_back = |result: Value| match result["success"] {
                Value::Bool(true) => failure(&json!([{ "errorCode": code, "message": message }])),
                _ => result,
            };
            RestAnswer::ok(results.into_iter().map(rolled_back).collect())
        }
        _ => RestAnswer::ok(results.into()),
    }
}

fn result_of(answer: RestAnswer) -> Value {
    match answer.body {
        Some(body) if answer.status.is_success() => body,
        body => failure(&body.unwrap_or_default()),
    }
}

/// The result of a record with these errors, which has other names for their members.
fn failure(errors: &Value) -> Value {
    let errors: Vec<Value> = errors
        .as_array()
        .into_iter()
        .flatten()
        .map(|error| {
            let fields = error.get("fields").cloned().unwrap_or(json!([]));
            json!({ "statusCode": error["errorCode"], "message": error["message"], "fields": fields })
        })
        .collect();
    json!({ "success": false, "errors": errors })
}
