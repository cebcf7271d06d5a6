//! The fields of an answer, read one by one from JSON, XML or a form. An odd field costs that field only (R39).

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

use crate::text::{
    json::{self, Member, is_blank},
    xml,
};

/// Fields that are looked for inside of others too.
const DEEP: [&str; 3] = ["access_token", "refresh_token", "instance_url"];

/// The fields of an answer in document order. A name may occur more than once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<Member>);

impl Fields {
    /// Reads the fields of a text of any shape. `None` if it is no JSON object and has none of the `wanted` fields.
    pub(crate) fn read(text: &str, wanted: &[&str]) -> Option<Self> {
        let has_wanted = |fields: &Self| {
            let mut members = fields.0.iter();
            members.any(|member| {
                wanted.contains(&member.name.as_str()) && json::has_content(&member.value)
            })
        };
        let is_answer = |fields: &Self| has_wanted(fields) && !json::is_request(&fields.0, wanted);
        let strict = serde_json::from_str::<Self>(text).ok();
        let mut fields = if strict.as_ref().is_some_and(is_answer) {
            strict
        } else {
            let wanted_of = |members| Some(Self(members)).filter(has_wanted);
            wanted_of(json::find(text, wanted))
                .or_else(|| wanted_of(inside_of_a_string(text, wanted)))
                .or_else(|| wanted_of(form(text)).filter(is_answer))
                .or_else(|| wanted_of(xml(text)))
                .or(strict)
        }?;
        // A token counts wherever it is.
        for name in DEEP.iter().filter(|name| wanted.contains(name)) {
            if fields.token(name).is_none() {
                fields.0.extend(json::scan(text, &[*name]));
            }
        }
        Some(fields)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|member| member.name == name)
    }

    /// The value of a field that `usable` accepts. The last of several fields counts, and a doubtful one only if there is
    /// no other.
    fn usable<'a, T>(&'a self, name: &str, usable: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        let find = |is_doubtful| {
            let members = self.0.iter().rev();
            members
                .filter(|member| member.name == name && member.is_doubtful == is_doubtful)
                .find_map(|member| usable(&member.value))
        };
        find(false).or_else(|| find(true))
    }

    /// Whether no field of this name is certain to belong to the answer.
    pub(crate) fn is_doubtful(&self, name: &str) -> bool {
        let mut members = self.0.iter().filter(|member| member.name == name);
        members.all(|member| member.is_doubtful)
    }

    /// A string, without white space and invisible characters at its ends. `None` if it is then empty.
    pub(crate) fn string(&self, name: &str) -> Option<String> {
        self.usable(name, string)
    }

    /// A string, or the text of a number.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.usable(name, text)
    }

    /// A token: a text without control characters, which no token has and a proxy may have added.
    pub(crate) fn token(&self, name: &str) -> Option<String> {
        let is_token = |token: &String| !is_placeholder(token);
        let token = self.usable(name, |value| text(value).filter(is_token))?;
        let token: String = token.chars().filter(|c| !c.is_control()).collect();
        Some(token).filter(|token| !token.is_empty())
    }

    /// A boolean, also one that is written as a text or number.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.usable(name, |value| match value {
            Value::Bool(flag) => Some(*flag),
            value => match &*text(value)?.to_ascii_lowercase() {
                "true" | "1" | "yes" => Some(true),
                "false" | "0" | "no" => Some(false),
                _ => None,
            },
        })
    }

    /// A time in seconds, also one with a fraction or as a text.
    pub(crate) fn seconds(&self, name: &str) -> Option<Duration> {
        self.usable(name, |value| seconds(&text(value)?))
    }

    /// A list of strings, or one text whose parts are separated by blanks or commas.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let list = self.usable(name, |value| match value {
            Value::Array(values) => Some(values.iter().filter_map(string).collect()),
            value => Some(words(&string(value)?)),
        });
        list.unwrap_or_default()
    }

    /// The members of an object, without those that are `null`.
    pub(crate) fn object(&self, name: &str) -> impl Iterator<Item = (String, Value)> {
        let object = self.usable(name, |value| value.as_object().cloned());
        let members = object.unwrap_or_default().into_iter();
        members.filter(|(_, value)| !value.is_null())
    }

    /// The fields of an object that is the value of a field.
    pub(crate) fn inner(&self, name: &str) -> Option<Self> {
        self.usable(name, |value| match value {
            Value::Object(members) => {
                let members = members.iter().map(|(name, value)| Member {
                    name: name.clone(),
                    value: value.clone(),
                    is_doubtful: false,
                });
                Some(Self(members.collect()))
            }
            _ => None,
        })
    }

    /// The first usable string of an array that is the value of a field.
    pub(crate) fn first_string(&self, name: &str) -> Option<String> {
        self.usable(name, |value| value.as_array()?.iter().find_map(string))
    }
}

/// A time in seconds, with or without a fraction. `None` if it is negative or too long.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Duration::try_from_secs_f64(text.parse().ok()?).ok(),
    }
}

/// Whether a text is what programs write for nothing.
pub(crate) fn is_placeholder(text: &str) -> bool {
    let nothing = ["null", "none", "nil", "undefined", "nan", "false", "0"];
    nothing.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn string(value: &Value) -> Option<String> {
    trimmed(value.as_str()?)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        value => string(value),
    }
}

fn trimmed(text: &str) -> Option<String> {
    let text = text.trim_matches(is_blank);
    (!text.is_empty()).then(|| text.to_owned())
}

fn words(text: &str) -> Vec<String> {
    text.split([' ', ',']).filter_map(trimmed).collect()
}

// === Shapes ===

/// The fields of JSON in a JSON string, as gateways wrap an answer of a token endpoint.
fn inside_of_a_string(text: &str, wanted: &[&str]) -> Vec<Member> {
    if wanted.contains(&"access_token") && text.contains("\\\"") {
        json::find(&json::unescaped(text), wanted)
    } else {
        Vec::new()
    }
}

/// The fields of `name=value&…`, the form in which Salesforce's revocation endpoint answers.
fn form(text: &str) -> Vec<Member> {
    let text = text.trim_matches(is_blank);
    // The links of an HTML page look like a form.
    if text.starts_with('<') || !text.contains('=') {
        return Vec::new();
    }
    form_urlencoded::parse(text.as_bytes())
        .map(|(name, value)| certain(name.into_owned(), value.into_owned()))
        .collect()
}

/// The elements of an XML document.
fn xml(text: &str) -> Vec<Member> {
    if !text.trim_start_matches(is_blank).starts_with('<') {
        return Vec::new();
    }
    let elements = xml::elements(text).into_iter();
    elements
        .map(|(name, text)| certain(name, text.to_string()))
        .collect()
}

fn certain(name: String, text: String) -> Member {
    Member {
        name,
        value: Value::String(text),
        is_doubtful: false,
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry()? {
                    members.push(Member {
                        name,
                        value,
                        is_doubtful: false,
                    });
                }
                Ok(Fields(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}
