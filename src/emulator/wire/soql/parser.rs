//! The parser.

use super::lexer::{self, Token, TokenKind};
use super::query::{Comparison, Condition, Joint, Literal, Query, Selection, Sorting};

/// How deep conditions may be nested. Salesforce has a limit too, on the length of a query.
const DEEPEST: usize = 50;

/// Words that are never the name of a field or an object.
const KEYWORDS: [&str; 12] = [
    "AND", "ASC", "DESC", "FROM", "IN", "LIKE", "LIMIT", "NOT", "OFFSET", "OR", "SELECT", "WHERE",
];

/// Parses `text`. The error is the message of `MALFORMED_QUERY`: the row, the column and the word.
pub(crate) fn parse(text: &str) -> Result<Query, String> {
    let mut parser = Parser {
        text,
        tokens: lexer::tokens(text),
        at: 0,
    };
    parser.query()
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    /// The index of the next token.
    at: usize,
}

impl<'a> Parser<'a> {
    fn query(&mut self) -> Result<Query, String> {
        self.expect_keyword("SELECT")?;
        let selection = self.selection()?;
        self.expect_keyword("FROM")?;
        let object = self.name()?;
        let condition = if self.take_keyword("WHERE") {
            Some(self.conditions(0)?)
        } else {
            None
        };
        let sorting = if self.take_keyword("ORDER") {
            self.expect_keyword("BY")?;
            self.list(Self::sorting)?
        } else {
            Vec::new()
        };
        let limit = self.count_after("LIMIT")?;
        let offset = self.count_after("OFFSET")?;
        let rest = self.peek();
        if rest.kind != TokenKind::End {
            return Err(self.unexpected(rest));
        }
        Ok(Query {
            selection,
            object,
            condition,
            sorting,
            limit,
            offset,
        })
    }

    fn selection(&mut self) -> Result<Selection, String> {
        if self.peek().is_keyword("COUNT") && self.peek_second().is_sign("(") {
            self.at += 2;
            self.expect_sign(")")?;
            return Ok(Selection::Count);
        }
        let fields = self.list(Self::name)?;
        let next = self.peek();
        if next.is_sign("(") {
            let problem = "the emulated org knows no function but COUNT()";
            return Err(self.error(next, problem));
        }
        Ok(Selection::Fields(fields))
    }

    /// Conditions joined by one kind of joint: SOQL wants parentheses around the other kind.
    fn conditions(&mut self, depth: usize) -> Result<Condition, String> {
        let first = self.condition(depth)?;
        let joint = match self.peek() {
            token if token.is_keyword("AND") => ("AND", Joint::And),
            token if token.is_keyword("OR") => ("OR", Joint::Or),
            _ => return Ok(first),
        };
        let mut joined = vec![first];
        while self.take_keyword(joint.0) {
            joined.push(self.condition(depth)?);
        }
        Ok(Condition::Join(joint.1, joined))
    }

    fn condition(&mut self, depth: usize) -> Result<Condition, String> {
        if depth == DEEPEST {
            let problem = format!("conditions are nested deeper than {DEEPEST} levels");
            return Err(self.error(self.peek(), &problem));
        }
        if self.take_keyword("NOT") {
            let condition = self.condition(depth + 1)?;
            return Ok(Condition::Not(Box::new(condition)));
        }
        if self.take_sign("(") {
            let condition = self.conditions(depth + 1)?;
            self.expect_sign(")")?;
            return Ok(condition);
        }
        let field = self.name()?;
        if self.take_keyword("LIKE") {
            let token = self.take();
            let pattern = match token.kind {
                TokenKind::Text => lexer::pattern(token.text),
                _ => return Err(self.unexpected(token)),
            };
            let pattern = pattern.ok_or_else(|| self.bad_escape(token))?;
            return Ok(Condition::Like(field, pattern));
        }
        let outside = self.peek().is_keyword("NOT") && self.peek_second().is_keyword("IN");
        self.at += usize::from(outside);
        if self.take_keyword("IN") {
            self.expect_sign("(")?;
            let literals = self.list(Self::literal)?;
            self.expect_sign(")")?;
            return Ok(Condition::In(field, !outside, literals));
        }
        let comparison = self.comparison()?;
        Ok(Condition::Compare(field, comparison, self.literal()?))
    }

    fn comparison(&mut self) -> Result<Comparison, String> {
        let token = self.take();
        match (token.kind, token.text) {
            (TokenKind::Sign, "=") => Ok(Comparison::Equal),
            (TokenKind::Sign, "!=" | "<>") => Ok(Comparison::NotEqual),
            (TokenKind::Sign, "<") => Ok(Comparison::Less),
            (TokenKind::Sign, "<=") => Ok(Comparison::LessOrEqual),
            (TokenKind::Sign, ">") => Ok(Comparison::Greater),
            (TokenKind::Sign, ">=") => Ok(Comparison::GreaterOrEqual),
            _ => Err(self.unexpected(token)),
        }
    }

    fn literal(&mut self) -> Result<Literal, String> {
        let token = self.take();
        match token.kind {
            TokenKind::Text => {
                let text = lexer::unescape(token.text).ok_or_else(|| self.bad_escape(token))?;
                Ok(Literal::Text(text))
            }
            TokenKind::Number => self.number(token),
            TokenKind::Word if token.is_keyword("NULL") => Ok(Literal::Null),
            TokenKind::Word if token.is_keyword("TRUE") => Ok(Literal::Flag(true)),
            TokenKind::Word if token.is_keyword("FALSE") => Ok(Literal::Flag(false)),
            _ => Err(self.unexpected(token)),
        }
    }

    fn number(&self, token: Token<'_>) -> Result<Literal, String> {
        let digits = token.text.strip_prefix(['+', '-']).unwrap_or(token.text);
        let is_decimal = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match token.text.parse::<f64>() {
            Ok(number) if is_decimal && number.is_finite() => Ok(Literal::Number(number)),
            _ => {
                let problem = format!(
                    "'{}' is not a number, and the emulated org knows no dates",
                    token.text
                );
                Err(self.error(token, &problem))
            }
        }
    }

    fn sorting(&mut self) -> Result<Sorting, String> {
        let field = self.name()?;
        let descending = self.take_keyword("DESC");
        if !descending {
            self.take_keyword("ASC");
        }
        let mut nulls_last = false;
        if self.take_keyword("NULLS") {
            nulls_last = self.take_keyword("LAST");
            if !nulls_last {
                self.expect_keyword("FIRST")?;
            }
        }
        Ok(Sorting {
            field,
            descending,
            nulls_last,
        })
    }

    /// The number after `keyword`. `None` without the keyword.
    fn count_after(&mut self, keyword: &str) -> Result<Option<usize>, String> {
        if !self.take_keyword(keyword) {
            return Ok(None);
        }
        let token = self.take();
        let is_count = token.text.bytes().all(|b| b.is_ascii_digit());
        match token.text.parse() {
            Ok(count) if is_count => Ok(Some(count)),
            _ => Err(self.unexpected(token)),
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let token = self.take();
        let is_keyword = KEYWORDS.iter().any(|keyword| token.is_keyword(keyword));
        if token.kind != TokenKind::Word || is_keyword {
            return Err(self.unexpected(token));
        }
        Ok(token.text.to_owned())
    }

    /// One item, and more of them after commas.
    fn list<T>(&mut self, item: fn(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let mut items = vec![item(self)?];
        while self.take_sign(",") {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.peek().is_keyword(keyword);
        self.at += usize::from(found);
        found
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = self.peek().is_sign(sign);
        self.at += usize::from(found);
        found
    }

    fn expect_keyword(&mut self, keyword: &str) -> Result<(), String> {
        if self.take_keyword(keyword) {
            return Ok(());
        }
        Err(self.expected(keyword))
    }

    fn expect_sign(&mut self, sign: &str) -> Result<(), String> {
        if self.take_sign(sign) {
            return Ok(());
        }
        Err(self.expected(sign))
    }

    /// The next token, which is [`TokenKind::End`] at the end however often it is taken.
    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn peek(&self) -> Token<'a> {
        self.token(self.at)
    }

    fn peek_second(&self) -> Token<'a> {
        self.token(self.at + 1)
    }

    fn token(&self, at: usize) -> Token<'a> {
        let end = Token {
            kind: TokenKind::End,
            text: "<EOF>",
            at: self.text.len(),
        };
        let token = self.tokens.get(at).or(self.tokens.last());
        token.copied().unwrap_or(end)
    }

    fn expected(&self, what: &str) -> String {
        let token = self.peek();
        let problem = format!("unexpected token: '{}', expecting '{what}'", token.text);
        self.error(token, &problem)
    }

    fn unexpected(&self, token: Token<'_>) -> String {
        let unknown = [
            "GROUP", "HAVING", "USING", "WITH", "FOR", "INCLUDES", "EXCLUDES", "TYPEOF", "ALL",
        ];
        let problem = if token.kind == TokenKind::OpenText {
            "line breaks or the end of the query inside of a text in quotes".to_owned()
        } else if unknown.iter().any(|word| token.is_keyword(word)) {
            format!(
                "unexpected token: '{}', which the emulated org does not know",
                token.text
            )
        } else {
            format!("unexpected token: '{}'", token.text)
        };
        self.error(token, &problem)
    }

    fn bad_escape(&self, token: Token<'_>) -> String {
        let problem = format!(
            "Invalid string literal '{}'. Illegal character sequence after '\\' in string literal.",
            token.text
        );
        self.error(token, &problem)
    }

    /// The message, with the position as Salesforce writes it.
    fn error(&self, token: Token<'_>, problem: &str) -> String {
        let before = self.text.get(..token.at).unwrap_or_default();
        let row = before.matches('\n').count() + 1;
        let line = before.rsplit('\n').next().unwrap_or_default();
        let column = line.chars().count() + 1;
        format!("ERROR at Row:{row}:Column:{column}\n{problem}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::emulator::wire::soql::{Pattern, PatternPart};

    fn name() -> impl Strategy<Value = String> {
        let keyword = |name: &String| KEYWORDS.iter().any(|word| name.eq_ignore_ascii_case(word));
        "[A-Za-z][A-Za-z0-9_]{0,8}(__c)?(\\.Name)?"
            .prop_filter("a keyword", move |name| !keyword(name))
    }

    fn literal() -> impl Strategy<Value = Literal> {
        prop_oneof![
            any::<String>().prop_map(Literal::Text),
            "[a-z'%_\\\\\n]{0,6}".prop_map(Literal::Text),
            (-1e12..1e12).prop_map(Literal::Number),
            any::<i32>().prop_map(|number| Literal::Number(number.into())),
            any::<bool>().prop_map(Literal::Flag),
            Just(Literal::Null),
        ]
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        let part = prop_oneof![
            Just(PatternPart::Any),
            Just(PatternPart::One),
            any::<char>().prop_map(PatternPart::Character),
            "[%_'\\\\]".prop_map(|text| PatternPart::Character(text.chars().next().unwrap_or('%'))),
        ];
        vec(part, 0..6).prop_map(Pattern)
    }

    fn condition() -> impl Strategy<Value = Condition> {
        let comparison = prop_oneof![
            Just(Comparison::Equal),
            Just(Comparison::NotEqual),
            Just(Comparison::Less),
            Just(Comparison::LessOrEqual),
            Just(Comparison::Greater),
            Just(Comparison::GreaterOrEqual),
        ];
        let leaf = prop_oneof![
            (name(), comparison, literal())
                .prop_map(|(field, comparison, to)| Condition::Compare(field, comparison, to)),
            (name(), pattern()).prop_map(|(field, pattern)| Condition::Like(field, pattern)),
            (name(), any::<bool>(), vec(literal(), 1..4))
                .prop_map(|(field, inside, items)| Condition::In(field, inside, items)),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            let joint = prop_oneof![Just(Joint::And), Just(Joint::Or)];
            prop_oneof![
                inner
                    .clone()
                    .prop_map(|inner| Condition::Not(Box::new(inner))),
                (joint, vec(inner, 2..4)).prop_map(|(joint, inner)| Condition::Join(joint, inner)),
            ]
        })
    }

    fn query() -> impl Strategy<Value = Query> {
        let selection = prop_oneof![
            Just(Selection::Count),
            vec(name(), 1..4).prop_map(Selection::Fields),
        ];
        let sorting =
            (name(), any::<bool>(), any::<bool>()).prop_map(|(field, descending, nulls_last)| {
                Sorting {
                    field,
                    descending,
                    nulls_last,
                }
            });
        (
            selection,
            name(),
            option::of(condition()),
            vec(sorting, 0..3),
            option::of(any::<usize>()),
            option::of(0..3000_usize),
        )
            .prop_map(
                |(selection, object, condition, sorting, limit, offset)| Query {
                    selection,
                    object,
                    condition,
                    sorting,
                    limit,
                    offset,
                },
            )
    }

    proptest! {
        #[test]
        fn any_query_that_is_printed_parses_back(query in query()) {
            let text = query.to_string();
            prop_assert_eq!(parse(&text), Ok(query), "{}", text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn no_piece_of_a_query_makes_the_parser_panic(
            query in query(),
            cut in any::<prop::sample::Index>(),
            put in "[ '\\\\()<>=!,.a-z0-9-]{0,3}",
        ) {
            let text: Vec<char> = query.to_string().chars().collect();
            let (before, after) = text.split_at(cut.index(text.len()));
            let before: String = before.iter().collect();
            let after: String = after.iter().skip(1).collect();
            let _ = parse(&before);
            let _ = parse(&format!("{before}{put}{after}"));
        }
    }

    #[test]
    fn keywords_have_no_case_and_spaces_do_not_matter() {
        let text = "  select Id,Name\nfrom Account where(Name like'A%')order by Name desc limit 2 ";
        let query = parse(text).unwrap();
        let plain = "SELECT Id, Name FROM Account WHERE Name LIKE 'A%' \
                     ORDER BY Name DESC NULLS FIRST LIMIT 2";
        assert_eq!(query.to_string(), plain);
    }

    #[test]
    fn escapes_stand_for_their_characters() {
        let compared = |text: &str| match parse(&format!("SELECT Id FROM A WHERE B = '{text}'")) {
            Ok(Query {
                condition: Some(Condition::Compare(_, _, Literal::Text(text))),
                ..
            }) => Some(text),
            _ => None,
        };
        assert_eq!(
            compared(r#"\'\"\\\n\t\u00e9"#).as_deref(),
            Some("'\"\\\n\té")
        );
        for wrong in [r"\x", r"\u12", r"\uzzzz", r"\ud800", r"\%", r"\"] {
            assert_eq!(compared(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_error_names_the_position_and_the_word() {
        let select = "SELECT Id FROM Account";
        for (rest, expected) in [
            ("", None),
            (" WHERE", Some("1:29\nunexpected token: '<EOF>'")),
            ("\nWHERE Name == 'a'", Some("2:13\nunexpected token: '='")),
            (" WHERE Name = 'a", Some("1:37\nline breaks or the end")),
            (
                " WHERE A = 1 AND B = 2 OR C = 3",
                Some("1:46\nunexpected token: 'OR'"),
            ),
            (" WHERE A IN ()", Some("1:36\nunexpected token: ')'")),
            (
                " WHERE A = 2026-01-02",
                Some("1:34\n'2026-01-02' is not a number"),
            ),
            (
                " GROUP BY Name",
                Some("1:24\nunexpected token: 'GROUP', which the emulated org"),
            ),
            (" LIMIT -1", Some("1:30\nunexpected token: '-1'")),
            (" OFFSET 1 LIMIT 1", Some("1:33\nunexpected token: 'LIMIT'")),
            (" ;", Some("1:24\nunexpected token: ';'")),
        ] {
            let parsed = parse(&format!("{select}{rest}")).map(|_| ());
            match expected {
                None => assert_eq!(parsed, Ok(())),
                Some(expected) => {
                    let error = parsed.unwrap_err();
                    let (row, rest) = expected.split_once(':').unwrap();
                    let expected = format!("ERROR at Row:{row}:Column:{rest}");
                    assert!(error.starts_with(&expected), "{error}\n{expected}");
                }
            }
        }
        for text in [
            "",
            "SELECT",
            "SELECT FROM A",
            "SELECT Id",
            "SELECT Id, FROM A",
            "Id FROM A",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(
            parse("SELECT MAX(Id) FROM A")
                .unwrap_err()
                .contains("no function but COUNT()")
        );
    }

    #[test]
    fn conditions_nest_to_a_limit() {
        let nested = |depth: usize| {
            let (open, close) = ("(".repeat(depth), ")".repeat(depth));
            parse(&format!("SELECT Id FROM A WHERE {open}B = 1{close}"))
        };
        assert!(nested(DEEPEST - 1).is_ok());
        assert!(
            nested(100_000)
                .unwrap_err()
                .contains("deeper than 50 levels")
        );
        let not = "NOT ".repeat(100_000);
        assert!(parse(&format!("SELECT Id FROM A WHERE {not}B = 1")).is_err());
    }
}
