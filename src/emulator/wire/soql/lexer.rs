//! The words and signs of a query.

use super::query::{Pattern, PatternPart};

/// A word or sign, and where it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: TokenKind,
    pub(super) text: &'a str,
    /// The index of its first byte in the query.
    pub(super) at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A keyword or a name. A name may have dots.
    Word,
    /// A number, or a date.
    Number,
    /// A text in quotes. The token's text is what is between them, with its escapes.
    Text,
    /// A text without its closing quote.
    OpenText,
    Sign,
    /// A character that SOQL does not use.
    Unknown,
    End,
}

impl Token<'_> {
    pub(super) fn is_keyword(&self, keyword: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    pub(super) fn is_sign(&self, sign: &str) -> bool {
        self.kind == TokenKind::Sign && self.text == sign
    }
}

/// The tokens of `text`. The last one is [`TokenKind::End`].
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let at = text.len() - rest.len();
        let (kind, length) = first(rest);
        let (whole, after) = rest.split_at(length);
        let text = match kind {
            TokenKind::Text => inside_quotes(whole),
            _ => whole,
        };
        tokens.push(Token { kind, text, at });
        rest = after.trim_start();
    }
    let at = text.trim_end().len();
    tokens.push(Token {
        kind: TokenKind::End,
        text: "<EOF>",
        at,
    });
    tokens
}

fn inside_quotes(text: &str) -> &str {
    let text = text.strip_prefix('\'').unwrap_or(text);
    text.strip_suffix('\'').unwrap_or(text)
}

/// The kind and the length in bytes of the token that `text` begins with.
fn first(text: &str) -> (TokenKind, usize) {
    let while_true = |is_part: fn(char) -> bool| text.find(|c| !is_part(c)).unwrap_or(text.len());
    let mut characters = text.chars();
    let begin = characters.next().unwrap_or_default();
    let next = characters.next().unwrap_or_default();
    match (begin, next) {
        ('a'..='z' | 'A'..='Z', _) => (TokenKind::Word, while_true(is_of_word)),
        ('0'..='9', _) => (TokenKind::Number, while_true(is_of_number)),
        ('-' | '+', '0'..='9') => {
            let length = text[1..].find(|c| !is_of_number(c));
            (TokenKind::Number, length.map_or(text.len(), |end| end + 1))
        }
        ('\'', _) => match closing_quote(text) {
            Some(end) => (TokenKind::Text, end),
            None => (TokenKind::OpenText, text.len()),
        },
        ('!' | '<' | '>', '=') | ('<', '>') => (TokenKind::Sign, 2),
        ('=' | '<' | '>' | '(' | ')' | ',', _) => (TokenKind::Sign, 1),
        (other, _) => (TokenKind::Unknown, other.len_utf8()),
    }
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.')
}

/// Dates are numbers too: the parser refuses them with their whole text.
fn is_of_number(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '+')
}

/// The length of the text in quotes, both quotes included.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The characters of a text with its escapes resolved. `None` for an unknown escape.
pub(super) fn unescape(text: &str) -> Option<String> {
    let parts = parts(text)?;
    let characters = parts.into_iter().map(|(character, escaped)| {
        let only_in_patterns = escaped && matches!(character, '%' | '_');
        (!only_in_patterns).then_some(character)
    });
    characters.collect()
}

/// The pattern that a text stands for. `None` for an unknown escape.
pub(super) fn pattern(text: &str) -> Option<Pattern> {
    let parts = parts(text)?.into_iter().map(|part| match part {
        ('%', false) => PatternPart::Any,
        ('_', false) => PatternPart::One,
        (character, _) => PatternPart::Character(character),
    });
    Some(Pattern(parts.collect()))
}

/// The characters, and whether an escape yields them.
fn parts(text: &str) -> Option<Vec<(char, bool)>> {
    let mut parts = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            parts.push((character, false));
            continue;
        }
        let meant = match characters.next()? {
            'n' | 'N' => '\n',
            'r' | 'R' => '\r',
            't' | 'T' => '\t',
            'b' | 'B' => '\u{8}',
            'f' | 'F' => '\u{c}',
            'u' => {
                let digits: String = characters.by_ref().take(4).collect();
                let is_hex = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                is_hex
                    .then(|| u32::from_str_radix(&digits, 16).ok())
                    .flatten()
                    .and_then(char::from_u32)?
            }
            other @ ('"' | '\'' | '\\' | '%' | '_') => other,
            _ => return None,
        };
        parts.push((meant, true));
    }
    Some(parts)
}
