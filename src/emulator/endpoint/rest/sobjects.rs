//! Objects and their records.

use http::{Method, StatusCode, Uri};
use serde_json::{Map, Value, json};

use super::answer::RestAnswer;
use super::describe;
use super::filter::{self, no_such_column};
use super::resource::reads;
use crate::emulator::state::records::{Record, Records};
use crate::emulator::state::schema::{Field, FieldKind, RecordType};

/// The list of the objects.
pub(super) fn list(method: &Method, version: &str) -> RestAnswer {
    if !reads(method) {
        return RestAnswer::method_not_allowed(method, "GET,HEAD");
    }
    describe::objects(version)
}

/// The description of one object.
pub(super) fn describe(method: &Method, version: &str, object: &str) -> RestAnswer {
    match RecordType::named(object) {
        None => RestAnswer::not_found(),
        Some(_) if !reads(method) => RestAnswer::method_not_allowed(method, "GET,HEAD"),
        Some(object) => describe::fields(object, version),
    }
}

/// Summarizes an object, or creates a record from a JSON object of its fields.
pub(super) fn object(
    method: &Method,
    version: &str,
    object: &str,
    body: &[u8],
    records: &mut Records,
) -> RestAnswer {
    let Some(object) = RecordType::named(object) else {
        return RestAnswer::not_found();
    };
    match (method, object.required) {
        (&Method::POST, Some(_)) => match read(body) {
            Ok(values) => create(object, values, records),
            Err(refusal) => refusal,
        },
        (method, _) if reads(method) => describe::object(object, version),
        (_, Some(_)) => RestAnswer::method_not_allowed(method, "GET,HEAD,POST"),
        (_, None) => RestAnswer::method_not_allowed(method, "GET,HEAD"),
    }
}

/// Creates a record.
pub(super) fn create(
    object: &RecordType,
    values: Map<String, Value>,
    records: &mut Records,
) -> RestAnswer {
    let record = match known(object, values) {
        Ok(record) => record,
        Err(refusal) => return refusal,
    };
    let required = object.required.unwrap_or("Id");
    let value = record.get(required).and_then(Value::as_str);
    if value.is_none_or(str::is_empty) {
        return missing(required);
    }
    let id = records.create(object, record);
    let body = json!({ "id": id, "success": true, "errors": [] });
    RestAnswer::new(StatusCode::CREATED, body)
}

/// Returns one record, with all its fields or those in the parameter `fields`, or changes it.
pub(super) fn record(
    method: &Method,
    uri: &Uri,
    version: &str,
    (object, id): (&str, &str),
    body: &[u8],
    records: &mut Records,
) -> RestAnswer {
    let Some(object) = RecordType::named(object) else {
        return RestAnswer::not_found();
    };
    match (method, object.required) {
        (method, _) if reads(method) => show(uri, version, object, id, records),
        (&Method::PATCH, Some(_)) => match read(body).and_then(|values| known(object, values)) {
            Ok(values) => changed(records.update(object, id, values)),
            Err(refusal) => refusal,
        },
        (&Method::DELETE, Some(_)) => changed(records.delete(object, id)),
        (_, Some(_)) => RestAnswer::method_not_allowed(method, "DELETE,GET,HEAD,PATCH"),
        (_, None) => RestAnswer::method_not_allowed(method, "GET,HEAD"),
    }
}

fn changed(was_there: bool) -> RestAnswer {
    if was_there {
        RestAnswer::no_content()
    } else {
        RestAnswer::not_found()
    }
}

fn show(uri: &Uri, version: &str, object: &RecordType, id: &str, records: &Records) -> RestAnswer {
    let Some((id, record)) = records.get(object, id) else {
        return RestAnswer::not_found();
    };
    let encoded = uri.query().unwrap_or_default().as_bytes();
    let names = form_urlencoded::parse(encoded).find(|(name, _)| name == "fields");
    let fields = match &names {
        None => Ok(object.fields.iter().collect()),
        Some((_, names)) => names
            .split(',')
            .map(|name| filter::field(object, name.trim()))
            .collect::<Result<Vec<_>, _>>(),
    };
    match fields {
        Ok(fields) => RestAnswer::ok(represent(object, version, id, record, &fields)),
        Err((code, message)) => RestAnswer::bad_request(code, &message),
    }
}

/// A record as JSON, with its type and path.
pub(super) fn represent(
    object: &RecordType,
    version: &str,
    id: &str,
    record: &Record,
    fields: &[&Field],
) -> Value {
    let name = object.name;
    let url = format!("/services/data/{version}/sobjects/{name}/{id}");
    let mut body = Map::new();
    body.insert("attributes".to_owned(), json!({ "type": name, "url": url }));
    for field in fields {
        let value = record.get(field.name).cloned().unwrap_or(Value::Null);
        body.insert(field.name.to_owned(), value);
    }
    Value::Object(body)
}

fn read(body: &[u8]) -> Result<Map<String, Value>, RestAnswer> {
    let read = serde_json::from_slice(body);
    read.map_err(|error| RestAnswer::bad_request("JSON_PARSER_ERROR", &error.to_string()))
}

/// The values under the names of the fields. An error if one of them cannot be set.
fn known(object: &RecordType, values: Map<String, Value>) -> Result<Record, RestAnswer> {
    let mut record = Record::new();
    for (name, value) in values {
        match object.field(&name) {
            Some(field) if field.kind != FieldKind::Id => {
                let value = converted(field.kind, &value)?;
                record.insert(field.name.to_owned(), value);
            }
            // `attributes` names the type again, as in the records that the org sends.
            None if name == "attributes" => {}
            _ => {
                let message = no_such_column(object, &name);
                return Err(RestAnswer::bad_request("INVALID_FIELD", &message));
            }
        }
    }
    Ok(record)
}

/// The value in the type of its field. A number or a flag may come as a text, as the Salesforce CLI
/// sends them.
fn converted(kind: FieldKind, value: &Value) -> Result<Value, RestAnswer> {
    let (converted, expected) = match (kind, value) {
        (_, Value::Null) => (Some(Value::Null), ""),
        (FieldKind::Number, Value::String(text)) => {
            (text.parse::<i64>().ok().map(Value::from), "int")
        }
        (FieldKind::Number, number) => (number.as_i64().map(Value::from), "int"),
        (FieldKind::Flag, Value::String(text)) => {
            (text.parse::<bool>().ok().map(Value::from), "boolean")
        }
        (FieldKind::Flag, flag) => (flag.as_bool().map(Value::from), "boolean"),
        (_, text) => (text.as_str().map(Value::from), "string"),
    };
    converted.ok_or_else(|| {
        let message = format!("Cannot deserialize instance of {expected} from value {value}");
        RestAnswer::bad_request("JSON_PARSER_ERROR", &message)
    })
}

fn missing(required: &str) -> RestAnswer {
    let error = json!([{
        "message": format!("Required fields are missing: [{required}]"),
        "errorCode": "REQUIRED_FIELD_MISSING",
        "fields": [required],
    }]);
    RestAnswer::new(StatusCode::BAD_REQUEST, error)
}
