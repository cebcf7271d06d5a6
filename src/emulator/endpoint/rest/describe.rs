//! What the org says about its objects and their fields.

use serde_json::{Value, json};

use super::answer::RestAnswer;
use crate::emulator::state::schema::{Field, FieldKind, RecordType};

/// The list of the objects.
pub(super) fn objects(version: &str) -> RestAnswer {
    let summaries = RecordType::all().map(|object| summary(object, version));
    RestAnswer::ok(json!({ "encoding": "UTF-8", "maxBatchSize": 200, "sobjects": summaries }))
}

/// The summary of one object, as `GET sobjects/{type}` answers.
pub(super) fn object(object: &RecordType, version: &str) -> RestAnswer {
    let summary = summary(object, version);
    RestAnswer::ok(json!({ "objectDescribe": summary, "recentItems": [] }))
}

/// One object with its fields.
pub(super) fn fields(object: &RecordType, version: &str) -> RestAnswer {
    let mut body = summary(object, version);
    let fields = object.fields.iter().map(|field| describe(object, field));
    body["fields"] = fields.collect();
    body["childRelationships"] = json!([]);
    body["recordTypeInfos"] = json!([]);
    RestAnswer::ok(body)
}

fn summary(object: &RecordType, version: &str) -> Value {
    let RecordType { name, prefix, .. } = object;
    let is_open = object.required.is_some();
    let url = format!("/services/data/{version}/sobjects/{name}");
    json!({
        "name": name,
        "label": name,
        "labelPlural": object.plural,
        "keyPrefix": prefix,
        "createable": is_open,
        "updateable": is_open,
        "deletable": is_open,
        "queryable": true,
        "retrieveable": true,
        "searchable": false,
        "custom": false,
        "customSetting": false,
        "triggerable": false,
        "urls": {
            "sobject": url,
            "describe": format!("{url}/describe"),
            "rowTemplate": format!("{url}/{{ID}}"),
        },
    })
}

fn describe(object: &RecordType, field: &Field) -> Value {
    let (kind, soap_type, length) = match field.kind {
        FieldKind::Id => ("id", "tns:ID", 18),
        FieldKind::Reference(_) => ("reference", "tns:ID", 18),
        FieldKind::Text => ("string", "xsd:string", 255),
        FieldKind::Email => ("email", "xsd:string", 80),
        FieldKind::Url => ("url", "xsd:string", 255),
        FieldKind::Number => ("int", "xsd:int", 0),
        FieldKind::Flag => ("boolean", "xsd:boolean", 0),
        FieldKind::Time => ("datetime", "xsd:dateTime", 0),
    };
    let refers_to: &[&str] = match &field.kind {
        FieldKind::Reference(name) => &[name],
        _ => &[],
    };
    let is_open = object.required.is_some() && field.kind != FieldKind::Id;
    json!({
        "name": field.name,
        "label": field.name,
        "type": kind,
        "soapType": soap_type,
        "length": length,
        "nillable": field.kind != FieldKind::Id && object.required != Some(field.name),
        "createable": is_open,
        "updateable": is_open,
        "filterable": true,
        "sortable": true,
        "custom": false,
        "nameField": field.name == "Name",
        "referenceTo": refers_to,
        "relationshipName": null,
        "picklistValues": [],
    })
}
