//! The supported part of SOQL: `SELECT` fields `FROM` object, with an optional `LIMIT`.

/// A parsed query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    pub(crate) fields: Vec<String>,
    pub(crate) object: &'a str,
    pub(crate) limit: Option<usize>,
}

/// Parses `text`. `None` if it is malformed or not supported.
pub(crate) fn parse(text: &str) -> Option<Query<'_>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let from = words.iter().position(|word| is_keyword(word, "FROM"))?;
    let (object, limit) = match words[from + 1..] {
        [object] => (object, None),
        [object, limit, count] if is_keyword(limit, "LIMIT") => (object, Some(count.parse().ok()?)),
        _ => return None,
    };
    let [select, list @ ..] = &words[..from] else {
        return None;
    };
    let fields: Vec<String> = list
        .join(" ")
        .split(',')
        .map(|field| field.trim().to_owned())
        .collect();
    let understood = is_keyword(select, "SELECT")
        && is_name(object)
        && fields.iter().all(|field| is_name(field));
    understood.then_some(Query {
        fields,
        object,
        limit,
    })
}

fn is_keyword(word: &str, keyword: &str) -> bool {
    word.eq_ignore_ascii_case(keyword)
}

fn is_name(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_fields_an_object_and_a_limit() {
        let query = Query {
            fields: vec!["Id".to_owned(), "Name".to_owned()],
            object: "Account",
            limit: None,
        };
        assert_eq!(parse("SELECT Id, Name FROM Account"), Some(query));
        let query = Query {
            fields: vec!["Id".to_owned()],
            object: "Contact",
            limit: Some(2),
        };
        assert_eq!(parse("  select Id\nfrom Contact limit 2 "), Some(query));
    }

    #[test]
    fn other_soql_is_refused() {
        for text in [
            "",
            "SELECT",
            "SELECT FROM Account",
            "SELECT Id",
            "SELECT Id FROM",
            "SELECT Id Name FROM Account",
            "SELECT Id, FROM Account",
            "SELECT COUNT() FROM Account",
            "SELECT Id FROM Account WHERE Name = 'a'",
            "SELECT Id FROM Account LIMIT",
            "SELECT Id FROM Account LIMIT -1",
            "SELECT Id FROM Account LIMIT 1 OFFSET 1",
            "UPDATE Account",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
