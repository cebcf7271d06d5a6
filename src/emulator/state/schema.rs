//! The types of records, and their fields.

/// A type of record.
pub(crate) struct RecordType {
    pub(crate) name: &'static str,
    pub(crate) plural: &'static str,
    /// The first three characters of the ids.
    pub(crate) prefix: &'static str,
    pub(crate) fields: &'static [Field],
    /// The field that a new record must have. `None` for a type without new records.
    pub(crate) required: Option<&'static str>,
}

/// A field of a record.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: FieldKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldKind {
    Id,
    Text,
    Email,
    Url,
    /// A whole number.
    Number,
    Flag,
    Time,
    /// The id of a record of this type.
    Reference(&'static str),
}

impl FieldKind {
    /// Whether the values are ids.
    pub(crate) fn is_id(self) -> bool {
        matches!(self, Self::Id | Self::Reference(_))
    }

    /// Whether the values are texts, other than ids.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Email | Self::Url)
    }
}

const fn field(name: &'static str, kind: FieldKind) -> Field {
    Field { name, kind }
}

const fn text(name: &'static str) -> Field {
    field(name, FieldKind::Text)
}

const ID: Field = field("Id", FieldKind::Id);

pub(crate) static ACCOUNT: RecordType = RecordType {
    name: "Account",
    plural: "Accounts",
    prefix: "001",
    fields: &[
        ID,
        text("Name"),
        text("Industry"),
        field("NumberOfEmployees", FieldKind::Number),
        field("Website", FieldKind::Url),
    ],
    required: Some("Name"),
};

pub(crate) static CONTACT: RecordType = RecordType {
    name: "Contact",
    plural: "Contacts",
    prefix: "003",
    fields: &[
        ID,
        text("FirstName"),
        text("LastName"),
        field("Email", FieldKind::Email),
        field("AccountId", FieldKind::Reference("Account")),
    ],
    required: Some("LastName"),
};

pub(crate) static ORGANIZATION: RecordType = RecordType {
    name: "Organization",
    plural: "Organizations",
    prefix: "00D",
    fields: &[
        ID,
        text("Name"),
        text("InstanceName"),
        field("IsSandbox", FieldKind::Flag),
        text("LanguageLocaleKey"),
        text("NamespacePrefix"),
        text("OrganizationType"),
        field("TrialExpirationDate", FieldKind::Time),
    ],
    required: None,
};

pub(crate) static USER: RecordType = RecordType {
    name: "User",
    plural: "Users",
    prefix: "005",
    fields: &[
        ID,
        text("Username"),
        text("Name"),
        text("FirstName"),
        text("LastName"),
        text("Alias"),
        field("Email", FieldKind::Email),
        text("EmailEncodingKey"),
        field("IsActive", FieldKind::Flag),
        text("LanguageLocaleKey"),
        text("LocaleSidKey"),
        field("ProfileId", FieldKind::Reference("Profile")),
        text("TimeZoneSidKey"),
        text("UserType"),
    ],
    required: None,
};

impl RecordType {
    /// All types, in the order of their names.
    pub(crate) fn all() -> [&'static Self; 4] {
        [&ACCOUNT, &CONTACT, &ORGANIZATION, &USER]
    }

    /// The type of this name. Case does not matter, as in Salesforce.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        let mut all = Self::all().into_iter();
        all.find(|object| object.name.eq_ignore_ascii_case(name))
    }

    /// The field of this name. Case does not matter.
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        let mut fields = self.fields.iter();
        fields.find(|field| field.name.eq_ignore_ascii_case(name))
    }
}
