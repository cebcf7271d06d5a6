//! The records of the org.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::ids::{ORG_ID, PROFILE_ID, USER_ID};
use super::schema::{ACCOUNT, CONTACT, ORGANIZATION, RecordType, USER};
use super::user::USERNAME;

/// The fields of one record. Fields without a value are `null`.
pub(crate) type Record = Map<String, Value>;

/// The records of one org, by id.
#[derive(Clone)]
pub(crate) struct Records {
    /// Ids of one type share a prefix and are numbered, so their order is that of creation.
    by_id: BTreeMap<String, Record>,
    created: u64,
}

impl Records {
    /// The records of a new org: three accounts, two contacts, the user and the org itself.
    pub(crate) fn new() -> Self {
        let mut records = Self {
            by_id: BTreeMap::new(),
            created: 0,
        };
        let acme = records.create_from(
            &ACCOUNT,
            json!({
                "Name": "Acme",
                "Industry": "Manufacturing",
                "NumberOfEmployees": 1200,
                "Website": "https://acme.example.com",
            }),
        );
        let globex = records.create_from(
            &ACCOUNT,
            json!({ "Name": "Globex", "Industry": "Energy", "NumberOfEmployees": 80 }),
        );
        records.create_from(
            &ACCOUNT,
            json!({ "Name": "Initech", "Industry": "Technology" }),
        );
        records.create_from(
            &CONTACT,
            json!({
                "FirstName": "Ann",
                "LastName": "Example",
                "Email": "ann@acme.example.com",
                "AccountId": acme,
            }),
        );
        records.create_from(
            &CONTACT,
            json!({
                "FirstName": "Ben",
                "LastName": "Sample",
                "Email": "ben@globex.example.com",
                "AccountId": globex,
            }),
        );
        records.put(&USER, USER_ID, fields(user()));
        records.put(&ORGANIZATION, ORG_ID, fields(organization()));
        records
    }

    /// Creates a record and returns its id. All `values` are fields of `object`.
    pub(crate) fn create(&mut self, object: &RecordType, values: Record) -> String {
        self.created += 1;
        // The last three characters encode the case of the first fifteen. `AAA` is the correct
        // encoding, because none of the fifteen is an upper-case letter.
        let id = format!("{}xx{:0>10}AAA", object.prefix, self.created);
        self.put(object, &id, values);
        id
    }

    /// The id and the record of this type. `id` has 18 characters, or the first 15 of them.
    pub(crate) fn get(&self, object: &RecordType, id: &str) -> Option<(&str, &Record)> {
        let (found, record) = self.by_id.range(id.to_owned()..).next()?;
        let is_it = found == id || id.len() == 15 && found.starts_with(id);
        (is_it && id.starts_with(object.prefix)).then_some((found, record))
    }

    /// Changes the fields in `values` of a record. Returns whether the record exists.
    pub(crate) fn update(&mut self, object: &RecordType, id: &str, values: Record) -> bool {
        let Some(id) = self.get(object, id).map(|(id, _)| id.to_owned()) else {
            return false;
        };
        if let Some(record) = self.by_id.get_mut(&id) {
            record.extend(values);
        }
        true
    }

    /// Deletes a record. Returns whether it existed.
    pub(crate) fn delete(&mut self, object: &RecordType, id: &str) -> bool {
        let id = self.get(object, id).map(|(id, _)| id.to_owned());
        id.is_some_and(|id| self.by_id.remove(&id).is_some())
    }

    /// All records of this type, with their ids.
    pub(crate) fn all(&self, object: &RecordType) -> impl Iterator<Item = (&str, &Record)> {
        self.by_id
            .range(object.prefix.to_owned()..)
            .map(|(id, record)| (id.as_str(), record))
            .take_while(|(id, _)| id.starts_with(object.prefix))
    }

    fn create_from(&mut self, object: &RecordType, values: Value) -> String {
        self.create(object, fields(values))
    }

    fn put(&mut self, object: &RecordType, id: &str, values: Record) {
        let mut record: Record = object
            .fields
            .iter()
            .map(|field| (field.name.to_owned(), Value::Null))
            .collect();
        record.extend(values);
        record.insert("Id".to_owned(), id.into());
        self.by_id.insert(id.to_owned(), record);
    }
}

fn fields(values: Value) -> Record {
    match values {
        Value::Object(fields) => fields,
        _ => Record::new(),
    }
}

fn user() -> Value {
    json!({
        "Username": USERNAME,
        "Name": "Ann Example",
        "FirstName": "Ann",
        "LastName": "Example",
        "Alias": "aexam",
        "Email": USERNAME,
        "EmailEncodingKey": "UTF-8",
        "IsActive": true,
        "LanguageLocaleKey": "en_US",
        "LocaleSidKey": "en_US",
        "ProfileId": PROFILE_ID,
        "TimeZoneSidKey": "America/Los_Angeles",
        "UserType": "Standard",
    })
}

fn organization() -> Value {
    json!({
        "Name": "Example",
        "InstanceName": "EMU1",
        "IsSandbox": false,
        "LanguageLocaleKey": "en_US",
        "OrganizationType": "Developer Edition",
    })
}
