//! The columns of a query: what `columns=true` answers with in place of records.

use serde_json::{Value, json};

use crate::emulator::state::schema::{Field, FieldKind, RecordType};

pub(super) fn describe(object: &RecordType, fields: &[&Field]) -> Value {
    let columns: Vec<Value> = fields.iter().map(|field| column(field)).collect();
    json!({
        "columnMetadata": columns,
        "entityName": object.name,
        "groupBy": false,
        "idSelected": fields.iter().any(|field| field.kind == FieldKind::Id),
        "keyPrefix": object.prefix,
    })
}

fn column(field: &Field) -> Value {
    let apex_type = match field.kind {
        FieldKind::Id | FieldKind::Reference(_) => "Id",
        FieldKind::Text | FieldKind::Email | FieldKind::Url => "String",
        FieldKind::Number => "Integer",
        FieldKind::Flag => "Boolean",
        FieldKind::Time => "Datetime",
    };
    json!({
        "aggregate": false,
        "apexType": apex_type,
        "booleanType": field.kind == FieldKind::Flag,
        "columnName": field.name,
        "custom": false,
        "displayName": field.name,
        "foreignKeyName": null,
        "insertable": field.kind != FieldKind::Id,
        "joinColumns": [],
        "numberType": field.kind == FieldKind::Number,
        "textType": field.kind.is_text(),
        "updatable": field.kind != FieldKind::Id,
    })
}
