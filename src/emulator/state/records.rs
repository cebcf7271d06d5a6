//! The records of the org.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A type of record.
pub(crate) struct RecordType {
    pub(crate) name: &'static str,
    /// The first three characters of the ids.
    prefix: &'static str,
    pub(crate) fields: &'static [&'static str],
    pub(crate) required: &'static str,
}

static OBJECTS: [RecordType; 2] = [
    RecordType {
        name: "Account",
        prefix: "001",
        fields: &["Id", "Name", "Industry", "Website"],
        required: "Name",
    },
    RecordType {
        name: "Contact",
        prefix: "003",
        fields: &["Id", "FirstName", "LastName", "Email", "AccountId"],
        required: "LastName",
    },
];

impl RecordType {
    /// The type of this name. Case does not matter, as in Salesforce.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        OBJECTS
            .iter()
            .find(|object| object.name.eq_ignore_ascii_case(name))
    }

    /// The field of this name. Case does not matter.
    pub(crate) fn field(&self, name: &str) -> Option<&'static str> {
        let mut fields = self.fields.iter().copied();
        fields.find(|field| field.eq_ignore_ascii_case(name))
    }
}

/// The records of one org, by id.
pub(crate) struct Records {
    /// Ids of one type share a prefix and are numbered, so their order is that of creation.
    by_id: BTreeMap<String, Map<String, Value>>,
    created: u64,
}

impl Records {
    /// The records of a new org: three accounts and two contacts.
    pub(crate) fn new() -> Self {
        let mut records = Self {
            by_id: BTreeMap::new(),
            created: 0,
        };
        let [account, contact] = &OBJECTS;
        let acme = records.create_from(
            account,
            &[
                ("Name", "Acme"),
                ("Industry", "Manufacturing"),
                ("Website", "https://acme.example.com"),
            ],
        );
        let globex = records.create_from(account, &[("Name", "Globex"), ("Industry", "Energy")]);
        records.create_from(account, &[("Name", "Initech"), ("Industry", "Technology")]);
        records.create_from(
            contact,
            &[
                ("FirstName", "Ann"),
                ("LastName", "Example"),
                ("Email", "ann@acme.example.com"),
                ("AccountId", &acme),
            ],
        );
        records.create_from(
            contact,
            &[
                ("FirstName", "Ben"),
                ("LastName", "Sample"),
                ("Email", "ben@globex.example.com"),
                ("AccountId", &globex),
            ],
        );
        records
    }

    /// Creates a record and returns its id. All `values` are fields of `object`.
    pub(crate) fn create(&mut self, object: &RecordType, values: Map<String, Value>) -> String {
        self.created += 1;
        // The last three characters encode the case of the first fifteen. `AAA` is the correct
        // encoding, because none of the fifteen is an upper-case letter.
        let id = format!("{}xx{:0>10}AAA", object.prefix, self.created);
        let mut record: Map<String, Value> = object
            .fields
            .iter()
            .map(|field| ((*field).to_owned(), Value::Null))
            .collect();
        record.extend(values);
        record.insert("Id".to_owned(), Value::from(id.clone()));
        self.by_id.insert(id.clone(), record);
        id
    }

    /// The record with this type and id.
    pub(crate) fn get(&self, object: &RecordType, id: &str) -> Option<&Map<String, Value>> {
        let record = self.by_id.get(id)?;
        id.starts_with(object.prefix).then_some(record)
    }

    /// All records of this type, with their ids.
    pub(crate) fn all(
        &self,
        object: &RecordType,
    ) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.by_id
            .range(object.prefix.to_owned()..)
            .map(|(id, record)| (id.as_str(), record))
            .take_while(|(id, _)| id.starts_with(object.prefix))
    }

    fn create_from(&mut self, object: &RecordType, values: &[(&str, &str)]) -> String {
        let values = values
            .iter()
            .map(|(field, value)| ((*field).to_owned(), Value::from(*value)))
            .collect();
        self.create(object, values)
    }
}
