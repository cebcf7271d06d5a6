//! A tolerant reader of JSON objects: one odd member costs that member only.

use serde_json::{Map, Number, Value};

/// How many objects of a text are tried.
const OBJECTS: usize = 16;

/// How many objects and arrays may be inside one another. A deeper one counts as `null`.
const DEPTH: usize = 16;

/// The longest name of a member, in bytes.
const LONGEST_NAME: usize = 64;

/// A member of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) value: Value,
    /// Whether something unreadable came before it. It may then belong to another object.
    pub(crate) is_doubtful: bool,
}

/// Finds the members of the first object that has one of the names in `wanted`, in any text.
///
/// An object that may be a repeated request counts only if there is no other: see [`is_request`].
///
/// Members that were wanted and are elsewhere in the text are added as doubtful, unless the object was read to its end
/// without any doubt.
pub(crate) fn find(text: &str, wanted: &[&str]) -> Vec<Member> {
    let is_wanted =
        |member: &Member| wanted.contains(&member.name.as_str()) && has_content(&member.value);
    let mut request = None;
    let starts = text.match_indices('{').map(|(start, _)| start + 1);
    // An object inside of one that is odd may not be inside of it.
    let mut is_clean = true;
    for start in starts.take(OBJECTS) {
        let mut reader = Reader::new(text, start);
        let members = reader.object(0);
        is_clean &= reader.is_closed && !reader.is_odd;
        if !members.iter().any(is_wanted) {
            continue;
        }
        let may_be_request = is_request(&members, wanted);
        let found = if is_clean {
            members
        } else {
            [scan(text, wanted), members].concat()
        };
        if !may_be_request {
            return found;
        }
        request.get_or_insert(found);
    }
    request.unwrap_or_else(|| scan(text, wanted))
}

/// Whether a refresh token is the only member that was wanted. A server that repeats the request names the old one.
pub(crate) fn is_request(members: &[Member], wanted: &[&str]) -> bool {
    let mut named = members
        .iter()
        .filter(|member| wanted.contains(&member.name.as_str()) && has_content(&member.value));
    wanted.len() > 1 && named.all(|member| member.name == "refresh_token")
}

/// Removes one level of escapes, for JSON inside of a JSON string.
pub(crate) fn unescaped(text: &str) -> String {
    let mut unescaped = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n' | 'r' | 't')) => unescaped.push(' '),
            ('\\', Some('u')) => unescaped.push_str("\\u"),
            ('\\', Some(escaped)) => unescaped.push(escaped),
            (c, _) => unescaped.push(c),
        }
    }
    unescaped
}

/// Whether there is any text, number or boolean in a value.
pub(crate) fn has_content(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => !text.trim_matches(is_blank).is_empty(),
        Value::Array(values) => values.iter().any(has_content),
        Value::Object(members) => members.values().any(has_content),
    }
}

/// Finds the wanted members wherever they are.
pub(crate) fn scan(text: &str, wanted: &[&str]) -> Vec<Member> {
    let mut members = Vec::new();
    for name in wanted {
        for quote in ['"', '\''] {
            let quoted = format!("{quote}{name}{quote}");
            for (at, _) in text.match_indices(&quoted).take(OBJECTS) {
                let mut reader = Reader::new(text, at + quoted.len());
                if let Some(value) = reader.skip(':').then(|| reader.value(DEPTH)).flatten() {
                    members.push(Member {
                        name: (*name).to_owned(),
                        value,
                        is_doubtful: true,
                    });
                }
            }
        }
    }
    members
}

/// Reads from a position on, and steps over what it does not understand.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Whether the end of the object was found.
    is_closed: bool,
    /// Whether something was unreadable, or was read in a way that may be wrong.
    is_odd: bool,
}

/// A string, and whether its end was found.
struct Text {
    text: String,
    is_closed: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, at: usize) -> Self {
        Self {
            text,
            at,
            is_closed: false,
            is_odd: false,
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next character that is neither white space nor a control or invisible character.
    fn peek(&mut self) -> Option<char> {
        self.at = self.text.len() - self.rest().trim_start_matches(is_blank).len();
        self.rest().chars().next()
    }

    /// Steps over `expected`, if it is next.
    fn skip(&mut self, expected: char) -> bool {
        let is_next = self.peek() == Some(expected);
        if is_next {
            self.at += expected.len_utf8();
        }
        is_next
    }

    /// Reads members up to the end of the object, or of the text.
    fn object(&mut self, depth: usize) -> Vec<Member> {
        let mut members = Vec::new();
        loop {
            let next = self.peek();
            let start = self.at;
            match next {
                None => return members,
                Some('}') => {
                    self.at += 1;
                    if !self.is_odd {
                        self.is_closed = true;
                        return members;
                    }
                }
                Some(',') => self.at += 1,
                Some(c) => match self.member(depth) {
                    Some(member) => members.push(member),
                    None => {
                        self.is_odd = true;
                        // A member whose value is unreadable ends where reading can go on. Anything else is skipped
                        // character by character.
                        if self.at == start {
                            self.at += c.len_utf8();
                        }
                    }
                },
            }
        }
    }

    /// Reads `"name": value`. After `None` the position is the same, or after what was unreadable.
    fn member(&mut self, depth: usize) -> Option<Member> {
        let start = self.at;
        let is_doubtful = self.is_odd;
        let name = self.name(is_doubtful);
        if name.is_none() || !(self.skip(':') || self.rest().starts_with('"')) {
            self.at = start;
            return None;
        }
        let after_colon = self.at;
        let Some(value) = self.value(depth) else {
            // At least the name was understood.
            self.at = self.at.max(after_colon);
            return None;
        };
        Some(Member {
            name: name?,
            value,
            is_doubtful,
        })
    }

    /// Reads a name. Amid unreadable text it has to be in quotes.
    fn name(&mut self, is_doubtful: bool) -> Option<String> {
        let name = match self.peek()? {
            // Looks for no end beyond a name: a text may consist of quotes.
            quote @ ('"' | '\'') if is_doubtful && !self.is_short(quote) => return None,
            quote @ ('"' | '\'') => {
                let Text { text, is_closed } = self.string(quote);
                let is_name =
                    |c: char| !is_doubtful || c.is_ascii_alphanumeric() || "_-.".contains(c);
                let text: String = text.chars().filter(|c| !is_blank(*c)).collect();
                match text.strip_suffix(':') {
                    // The closing quote is missing: the one that was found opens the value.
                    Some(name) if is_closed => {
                        self.at -= 1;
                        self.is_odd = true;
                        return Some(name.to_owned());
                    }
                    _ => (is_closed && !text.is_empty() && text.chars().all(is_name))
                        .then_some(text)?,
                }
            }
            _ if is_doubtful => return None,
            _ => {
                let rest = self.rest();
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                self.at += length;
                // The opening quote may be missing.
                if self.rest().starts_with('"') {
                    self.at += 1;
                }
                rest.get(..length)
                    .filter(|name| !name.is_empty())?
                    .to_owned()
            }
        };
        (name.len() <= LONGEST_NAME).then_some(name)
    }

    /// Whether a string that begins here has its end within the length of a name.
    fn is_short(&self, quote: char) -> bool {
        let mut is_escaped = false;
        let mut bytes = self.rest().bytes().skip(1).take(LONGEST_NAME + 1);
        bytes.any(|byte| {
            let is_end = !is_escaped && char::from(byte) == quote;
            is_escaped = !is_escaped && byte == b'\\';
            is_end
        })
    }

    /// Reads a value. `None` if it is unreadable or incomplete.
    fn value(&mut self, depth: usize) -> Option<Value> {
        match self.peek()? {
            quote @ ('"' | '\'') => self.string_value(quote).map(Value::String),
            '{' => self.nested(depth, |reader| {
                let members = reader.object(depth + 1).into_iter();
                let members: Map<_, _> =
                    members.map(|member| (member.name, member.value)).collect();
                Value::Object(members)
            }),
            '[' => self.nested(depth, |reader| Value::Array(reader.array(depth + 1))),
            _ => self.bare(),
        }
    }

    fn string_value(&mut self, quote: char) -> Option<String> {
        let Text { text, is_closed } = self.string(quote);
        if !is_closed {
            return None;
        }
        let end = self.at;
        let is_followed = matches!(self.peek(), None | Some(',' | '}' | ']'));
        match text.trim_end_matches(is_blank).strip_suffix(',') {
            // The closing quote is missing: the one that was found opens the next name.
            Some(value) if !is_followed => {
                self.at = end - 1;
                self.is_odd = true;
                Some(value.to_owned())
            }
            // The opening quote is there twice.
            _ if !is_followed && text.is_empty() => {
                self.at = end - 1;
                self.is_odd = true;
                let again = self.string(quote);
                again.is_closed.then_some(again.text)
            }
            _ => Some(text),
        }
    }

    /// Reads the object or array that is next, as far as its end.
    fn nested(&mut self, depth: usize, read: impl FnOnce(&mut Self) -> Value) -> Option<Value> {
        let length = balanced(self.rest());
        let end = self.at + length.unwrap_or(self.rest().len());
        let mut reader = Reader::new(self.text.get(..end)?, self.at + 1);
        self.at = end;
        if depth >= DEPTH {
            return Some(Value::Null);
        }
        let value = read(&mut reader);
        self.is_odd |= reader.is_odd || length.is_none();
        Some(value)
    }

    fn array(&mut self, depth: usize) -> Vec<Value> {
        let mut values = Vec::new();
        loop {
            match self.peek() {
                None | Some(']') => return values,
                Some(',') => self.at += 1,
                Some(c) => {
                    let start = self.at;
                    values.extend(self.value(depth));
                    // The array has no end of its own, if members follow.
                    self.is_odd |= self.peek() == Some(':');
                    if self.at == start {
                        self.is_odd = true;
                        self.at += c.len_utf8();
                    }
                }
            }
        }
    }

    /// Reads a number, `true`, `false`, `null`, or a string without quotes.
    fn bare(&mut self) -> Option<Value> {
        let rest = self.rest();
        let is_end = |c: char| matches!(c, ',' | '}' | ']' | '{' | '[' | ':' | '"') || is_blank(c);
        // A value at the end of the text may be a part of one. Its length is looked for once.
        let Some(length) = rest.find(is_end) else {
            self.at = self.text.len();
            return None;
        };
        let word = rest.get(..length).filter(|word| !word.is_empty())?;
        self.at += length;
        if self.rest().starts_with('"') {
            self.at += 1;
            return Some(Value::String(word.to_owned()));
        }
        Some(match &*word.to_ascii_lowercase() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" | "none" | "nil" | "undefined" | "nan" => Value::Null,
            _ => match word.parse::<Number>() {
                Ok(number) => Value::Number(number),
                Err(_) => Value::String(word.to_owned()),
            },
        })
    }

    /// Reads a string that begins with a quote, with any control characters in it.
    fn string(&mut self, quote: char) -> Text {
        let mut text = String::new();
        self.at += quote.len_utf8();
        loop {
            let rest = self.rest();
            let end = rest.find([quote, '\\']).unwrap_or(rest.len());
            text.push_str(rest.get(..end).unwrap_or_default());
            self.at += end;
            let mut found = self.rest().chars();
            match found.next() {
                Some('\\') => {
                    self.at += 1;
                    self.escape(&mut text);
                }
                Some(_) => {
                    self.at += quote.len_utf8();
                    return Text {
                        text,
                        is_closed: true,
                    };
                }
                None => {
                    return Text {
                        text,
                        is_closed: false,
                    };
                }
            }
        }
    }

    /// Reads what follows a backslash (RFC 8259 §7). An unknown escape is the character itself.
    fn escape(&mut self, text: &mut String) {
        let Some(c) = self.rest().chars().next() else {
            return;
        };
        self.at += c.len_utf8();
        text.push(match c {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => self.unicode(),
            c => c,
        });
    }

    /// Reads the digits of `\uXXXX`, or of a surrogate pair.
    fn unicode(&mut self) -> char {
        let Some(first) = self.unit() else {
            return char::REPLACEMENT_CHARACTER;
        };
        let second = || self.rest().strip_prefix("\\u").and_then(hexadecimal);
        let units = match first {
            0xd800..0xdc00 => second().map(|second| [first, second]),
            _ => None,
        };
        if let Some(units) = units
            && let Some(Ok(c)) = char::decode_utf16(units).next()
        {
            self.at += 6;
            return c;
        }
        char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    fn unit(&mut self) -> Option<u16> {
        let unit = hexadecimal(self.rest())?;
        self.at += 4;
        Some(unit)
    }
}

fn hexadecimal(text: &str) -> Option<u16> {
    let digits = text.get(..4)?;
    let is_hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hexadecimal.then(|| u16::from_str_radix(digits, 16).ok())?
}

/// Whether a character between the members of an object means nothing: white space, control and invisible characters.
pub(crate) fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Whether the object at the beginning of `text` has an end.
pub(crate) fn is_closed(text: &str) -> bool {
    balanced(text).is_some()
}

/// The length of the object or array at the beginning of `text`. `None` if it has no end.
fn balanced(text: &str) -> Option<usize> {
    let (mut depth, mut is_string, mut is_escaped) = (0_usize, false, false);
    for (byte, at) in text.bytes().zip(1..) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            b'{' | b'[' if !is_string => depth += 1,
            b'}' | b']' if !is_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}
