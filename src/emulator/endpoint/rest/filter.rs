//! Checks the names and literals of a query, and applies it to records.

use std::cmp::Ordering;

use serde_json::Value;

use crate::emulator::state::records::Record;
use crate::emulator::state::schema::{Field, FieldKind, RecordType};
use crate::emulator::wire::soql::{
    Comparison, Condition, Joint, Literal, Pattern, PatternPart, Sorting,
};

/// The code and the message of a query that names what the org does not have.
pub(super) type Problem = (&'static str, String);

/// The field of `object`. An error if there is none of this name.
pub(super) fn field(object: &RecordType, name: &str) -> Result<&'static Field, Problem> {
    if let Some(field) = object.field(name) {
        return Ok(field);
    }
    let message = if let Some((relationship, _)) = name.split_once('.') {
        format!(
            "Didn't understand relationship '{relationship}' in field path '{name}'. \
             The emulated org has none."
        )
    } else {
        no_such_column(object, name)
    };
    Err(("INVALID_FIELD", message))
}

/// The message for a field that `object` does not have.
pub(super) fn no_such_column(object: &RecordType, name: &str) -> String {
    let object = object.name;
    format!("No such column '{name}' on entity '{object}'")
}

/// Whether all fields exist, and all literals are of their types.
pub(super) fn check(object: &RecordType, condition: &Condition) -> Result<(), Problem> {
    match condition {
        Condition::Compare(name, _, literal) => check_literal(field(object, name)?, literal),
        Condition::Like(name, _) => {
            let field = field(object, name)?;
            if field.kind.is_text() {
                return Ok(());
            }
            let message = format!("field '{}' does not support LIKE", field.name);
            Err(("INVALID_QUERY_FILTER_OPERATOR", message))
        }
        Condition::In(name, _, literals) => {
            let field = field(object, name)?;
            literals
                .iter()
                .try_for_each(|literal| check_literal(field, literal))
        }
        Condition::Not(condition) => check(object, condition),
        Condition::Join(_, conditions) => conditions.iter().try_for_each(|one| check(object, one)),
    }
}

fn check_literal(field: &Field, literal: &Literal) -> Result<(), Problem> {
    let expected = match (field.kind, literal) {
        (_, Literal::Null)
        | (FieldKind::Number, Literal::Number(_))
        | (FieldKind::Flag, Literal::Flag(_)) => return Ok(()),
        (kind, Literal::Text(id)) if kind.is_id() => {
            if [15, 18].contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Ok(());
            }
            let message = format!("invalid ID field: {id}");
            return Err(("INVALID_QUERY_FILTER_OPERATOR", message));
        }
        (kind, Literal::Text(_)) if kind.is_text() => return Ok(()),
        (FieldKind::Number, _) => "of type int and should not be enclosed in quotes",
        (FieldKind::Flag, _) => "of type boolean and should not be enclosed in quotes",
        (FieldKind::Time, _) => "null: the emulated org knows no dates",
        _ => "of type string and should be enclosed in quotes",
    };
    let name = field.name;
    let message = format!("value of filter criterion for field '{name}' must be {expected}");
    Err(("INVALID_FIELD", message))
}

/// Whether a checked condition holds for a record.
pub(super) fn holds(object: &RecordType, condition: &Condition, record: &Record) -> bool {
    match condition {
        Condition::Compare(name, comparison, literal) => match comparison {
            Comparison::Equal => is_equal(object, name, record, literal),
            Comparison::NotEqual => !is_equal(object, name, record, literal),
            _ => is_beyond(value(object, name, record), *comparison, literal),
        },
        Condition::Like(name, pattern) => {
            let value = value(object, name, record).as_str();
            value.is_some_and(|text| is_like(text, pattern))
        }
        Condition::In(name, inside, literals) => {
            let mut literals = literals.iter();
            literals.any(|literal| is_equal(object, name, record, literal)) == *inside
        }
        Condition::Not(condition) => !holds(object, condition, record),
        Condition::Join(Joint::And, conditions) => {
            conditions.iter().all(|one| holds(object, one, record))
        }
        Condition::Join(Joint::Or, conditions) => {
            conditions.iter().any(|one| holds(object, one, record))
        }
    }
}

/// The order of two records. `fields` exist in `object`.
pub(super) fn order(object: &RecordType, sorting: &[Sorting], a: &Record, b: &Record) -> Ordering {
    let by_field = |sorting: &Sorting| {
        let (a, b) = (
            value(object, &sorting.field, a),
            value(object, &sorting.field, b),
        );
        match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) if sorting.nulls_last => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, true) if sorting.nulls_last => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) if sorting.descending => compare(b, a),
            (false, false) => compare(a, b),
        }
    };
    let orders = sorting.iter().map(by_field);
    orders.fold(Ordering::Equal, Ordering::then)
}

fn value<'a>(object: &RecordType, name: &str, record: &'a Record) -> &'a Value {
    let field = object.field(name);
    let value = field.and_then(|field| record.get(field.name));
    value.unwrap_or(&Value::Null)
}

/// Whether the value is less or greater than the literal, as `comparison` says.
fn is_beyond(value: &Value, comparison: Comparison, literal: &Literal) -> bool {
    if value.is_null() || *literal == Literal::Null {
        return false;
    }
    let order = compare(value, &as_value(literal));
    match comparison {
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn is_equal(object: &RecordType, name: &str, record: &Record, literal: &Literal) -> bool {
    let value = value(object, name, record);
    let is_id = object.field(name).is_some_and(|field| field.kind.is_id());
    match (value, literal) {
        (Value::Null, literal) => *literal == Literal::Null,
        (_, Literal::Null) => false,
        // Ids have case. One of 15 characters means the one of 18 that begins with it.
        (Value::String(id), Literal::Text(wanted)) if is_id => {
            id == wanted || wanted.len() == 15 && id.starts_with(wanted)
        }
        (value, literal) => compare(value, &as_value(literal)).is_eq(),
    }
}

fn as_value(literal: &Literal) -> Value {
    match literal {
        Literal::Text(text) => text.as_str().into(),
        Literal::Number(number) => (*number).into(),
        Literal::Flag(flag) => (*flag).into(),
        Literal::Null => Value::Null,
    }
}

/// Compares two values of one type, texts without regard to case.
fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.to_lowercase().cmp(&b.to_lowercase()),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (a, b) => {
            let (a, b) = (a.as_f64(), b.as_f64());
            a.partial_cmp(&b).unwrap_or(Ordering::Equal)
        }
    }
}

/// Whether the whole text fits the pattern, without regard to case.
fn is_like(text: &str, pattern: &Pattern) -> bool {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    // After each part of the pattern: for each length, whether so many characters fit.
    let mut fits = vec![false; text.len() + 1];
    fits[0] = true;
    for part in &pattern.0 {
        let mut next = vec![false; fits.len()];
        for (at, &fit) in fits.iter().enumerate() {
            match part {
                PatternPart::Any => next[at] = fit || at > 0 && next[at - 1],
                PatternPart::One => {
                    if fit && at < text.len() {
                        next[at + 1] = true;
                    }
                }
                PatternPart::Character(c) => {
                    if fit && at < text.len() && c.to_lowercase().eq([text[at]]) {
                        next[at + 1] = true;
                    }
                }
            }
        }
        fits = next;
    }
    fits.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::wire::soql::parse;

    #[test]
    fn a_pattern_fits_the_whole_text() {
        let fits = |text: &str, pattern: &str| {
            let query = parse(&format!("SELECT Id FROM A WHERE B LIKE '{pattern}'")).unwrap();
            match query.condition {
                Some(Condition::Like(_, pattern)) => is_like(text, &pattern),
                other => panic!("{other:?}"),
            }
        };
        for (text, pattern) in [
            ("Acme", "acme"),
            ("Acme", "A%"),
            ("Acme", "%c%"),
            ("Acme", "_c_e"),
            ("Acme", "%%e"),
            ("", "%"),
            ("", ""),
            ("100%", r"100\%"),
            ("Äöü", "äÖ_"),
        ] {
            assert!(fits(text, pattern), "{text} {pattern}");
        }
        for (text, pattern) in [
            ("Acme", "A"),
            ("Acme", "%x%"),
            ("Acme", "_____"),
            ("Acme", ""),
            ("", "_"),
            ("1000", r"100\%"),
        ] {
            assert!(!fits(text, pattern), "{text} {pattern}");
        }
    }
}
