//! Good answers and refusals that were mutated in any way that leaves their tokens and codes readable (R39).

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use futures_util::FutureExt;
use proptest::{prelude::*, sample::select};
use tower_salesforce_auth::{
    RefreshError, RefreshFn, Secret, Session,
    flow::{RefreshToken, UsernamePassword},
    oauth::App,
};

use crate::support::answering;

/// How many answers of each kind are tried by their numbers, by which a failure can be repeated.
const NUMBERED: u64 = 50_000;

/// How many answers of each kind proptest tries, which shrinks what fails.
const CASES: u32 = 500;

/// The members of a good answer, with a rotated refresh token.
const TOKENS: [(&str, &str); 6] = [
    ("access_token", "\"00Dxx0000001gEF!AQEAQtoken\""),
    ("refresh_token", "\"5Aep862.rotated\""),
    ("instance_url", "\"https://acme.my.salesforce.com\""),
    (
        "id",
        "\"https://login.salesforce.com/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS\"",
    ),
    ("token_type", "\"Bearer\""),
    ("issued_at", "\"1700000000000\""),
];

const REFUSAL: [(&str, &str); 2] = [
    ("error", "\"invalid_grant\""),
    ("error_description", "\"expired access/refresh token\""),
];

/// What is done to an answer, in this order.
#[derive(Clone, Debug)]
struct Mutation {
    /// The members are rotated by this many places.
    rotated: usize,
    /// Odd members, each at a place among the others.
    added: Vec<(usize, String)>,
    /// What stands between the members, beside their commas.
    blanks: Vec<String>,
    /// Whether a comma is missing, there twice, or there after the last member.
    commas: Commas,
    has_end: bool,
    before: String,
    behind: String,
    escaped: bool,
    bytes: Form,
}

#[derive(Clone, Copy, Debug)]
enum Commas {
    Good,
    Missing,
    Double,
    Trailing,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Utf8,
    Marked,
    Latin1,
    Utf16Le,
    Utf16Be,
    Gzip,
}

const VALUES: &[&str] = &[
    "null",
    "true",
    "42",
    "-1.5e3",
    "1e999",
    "NaN",
    "undefined",
    "\"\"",
    "[]",
    "{}",
    "[null]",
    "[[[{\"a\":[1]}]]]",
    "{\"b\":{\"c\":\"d\"}}",
    "\"a \"quoted\" word\"",
    "\"\\u12\"",
    "\"\\ud800\"",
    "\"\\x\"",
    "\"{\"",
    "\"}\"",
    "\"a\u{1}b\nc\"",
    "'single'",
    "bare",
    "\"Zoë €\"",
    "[1,2",
    "{\"open\":1",
    "[[",
    "{",
];

/// Names that may be there twice, with values that cannot be used.
const NAMES: &[&str] = &[
    "access_token",
    "refresh_token",
    "instance_url",
    "error",
    "error_description",
    "scope",
    "id",
];

const ODD: &[&str] = &["null", "\"\"", "[]", "{}", "false", "[[]]", "\" \""];

const AROUND: &[&str] = &[
    "\u{feff}",
    "\u{feff}\u{feff}",
    ")]}',\n",
    "while(1);",
    "{}",
    "[]",
    "{\"a\":1}",
    "callback(",
    ");",
    "\0\0",
    "\r\n0\r\n\r\n",
    "<!-- proxy -->",
    "// served by node 7\n",
    "{",
    "}",
    "\"",
    "[",
];

const BLANKS: &[&str] = &[
    "",
    "",
    " ",
    "\r\n\t",
    "\u{b}",
    "\0",
    "\u{1}\u{2}",
    "\u{feff}",
    "\u{a0}",
    "\u{200b}",
];

const COMMAS: &[Commas] = &[
    Commas::Good,
    Commas::Missing,
    Commas::Double,
    Commas::Trailing,
];

const FORMS: &[Form] = &[
    Form::Utf8,
    Form::Utf8,
    Form::Utf8,
    Form::Marked,
    Form::Latin1,
    Form::Utf16Le,
    Form::Utf16Be,
    Form::Gzip,
];

const STATUSES: &[u16] = &[200, 400, 401, 403, 500];

// === By proptest ===

fn member() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        select(VALUES).prop_map(str::to_owned),
        // Any text without what ends a string.
        "[^\"\\\\]{0,40}".prop_map(|text| format!("\"{text}\"")),
        "[0-9]{1,30}",
    ];
    let unknown = ("[a-z_]{1,12}x", value).prop_map(|(name, value)| format!("\"{name}\":{value}"));
    let doubled =
        (select(NAMES), select(ODD)).prop_map(|(name, value)| format!("\"{name}\":{value}"));
    prop_oneof![unknown, doubled]
}

fn around() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        select(AROUND).prop_map(str::to_owned),
        "[\\x00-\\x7f]{0,30}",
        "\\PC{0,20}",
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let added = prop::collection::vec((0_usize..9, member()), 0..4);
    let blanks = prop::collection::vec(select(BLANKS).prop_map(str::to_owned), 1..6);
    let flags = (any::<bool>(), any::<bool>());
    let form = (select(COMMAS), select(FORMS));
    (0_usize..6, added, blanks, form, flags, around(), around()).prop_map(
        |(rotated, added, blanks, (commas, bytes), (has_end, escaped), before, behind)| Mutation {
            rotated,
            added,
            blanks,
            commas,
            has_end,
            before,
            behind,
            escaped,
            bytes,
        },
    )
}

// === By number ===

/// Random numbers (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((number ^ (number >> 31)) >> 33).unwrap() % bound
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// Any text of which no character is in `without`.
    fn text(&mut self, longest: usize, without: &str) -> String {
        let bounds = [0x20, 0x80, 0x80, 0x800, 0x1_0000];
        let mut text = String::new();
        for _ in 0..self.below(longest) {
            let bound = self.of(&bounds);
            let c = char::from_u32(u32::try_from(self.below(bound)).unwrap());
            text.extend(c.filter(|c| !without.contains(*c)));
        }
        text
    }

    fn member(&mut self) -> String {
        if self.below(2) == 0 {
            return format!("\"{}\":{}", self.of(NAMES), self.of(ODD));
        }
        let value = match self.below(3) {
            0 => format!("\"{}\"", self.text(40, "\"\\")),
            _ => self.of(VALUES).to_owned(),
        };
        format!("\"unknown{}\":{value}", self.below(9))
    }

    fn around(&mut self) -> String {
        match self.below(3) {
            0 => String::new(),
            1 => self.of(AROUND).to_owned(),
            _ => self.text(30, ""),
        }
    }

    fn mutation(&mut self) -> Mutation {
        let (added, blanks) = (self.below(4), 1 + self.below(5));
        Mutation {
            rotated: self.below(6),
            added: (0..added).map(|_| (self.below(9), self.member())).collect(),
            blanks: (0..blanks).map(|_| self.of(BLANKS).to_owned()).collect(),
            commas: self.of(COMMAS),
            has_end: self.below(4) > 0,
            before: self.around(),
            behind: self.around(),
            escaped: self.below(4) == 0,
            bytes: self.of(FORMS),
        }
    }
}

impl Mutation {
    fn apply(&self, members: &[(&str, &str)]) -> Vec<u8> {
        let mut members: Vec<String> = members
            .iter()
            .map(|(name, value)| {
                let value = if self.escaped {
                    escaped(value)
                } else {
                    (*value).to_owned()
                };
                format!("\"{name}\":{value}")
            })
            .collect();
        let places = members.len();
        members.rotate_left(self.rotated % places);
        for (at, member) in &self.added {
            members.insert(at % members.len(), member.clone());
        }
        let mut text = format!("{}{{", self.before);
        for (at, member) in members.iter().enumerate() {
            let blank = self.blanks[at % self.blanks.len()].as_str();
            let comma = match self.commas {
                _ if at == 0 => "",
                Commas::Missing if at == 1 => " ",
                Commas::Double => ",,",
                _ => ",",
            };
            text.extend([blank, comma, blank, member.as_str()]);
        }
        if let Commas::Trailing = self.commas {
            text.push(',');
        }
        if self.has_end {
            text.push('}');
        }
        text += &self.behind;
        self.encode(&text)
    }

    fn encode(&self, text: &str) -> Vec<u8> {
        let utf_16 = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect();
        match self.bytes {
            Form::Utf8 => text.as_bytes().to_vec(),
            Form::Marked => [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            Form::Latin1 => [text.as_bytes(), b"\xeb\xff"].concat(),
            Form::Utf16Le => utf_16(u16::to_le_bytes),
            Form::Utf16Be => utf_16(u16::to_be_bytes),
            Form::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(text.as_bytes()).unwrap();
                encoder.finish().unwrap()
            }
        }
    }
}

/// Writes the letters of a string as escapes.
fn escaped(value: &str) -> String {
    let letters = value.trim_matches('"').chars();
    let letters: String = letters
        .map(|c| match c {
            'a' | 'e' | '.' => format!("\\u{:04x}", u32::from(c)),
            '/' => "\\/".to_owned(),
            c => c.to_string(),
        })
        .collect();
    format!("\"{letters}\"")
}

fn app() -> App {
    App::new(
        "https://acme.my.salesforce.com".parse().unwrap(),
        "3MVG9key",
    )
}

fn refreshed(status: u16, body: Vec<u8>) -> Result<Session, RefreshError> {
    let flow = RefreshToken::new(answering(status, &[], body), app(), "5Aep861");
    flow.log_in().now_or_never().expect("an answer at once")
}

fn shown(body: &[u8]) -> String {
    body.escape_ascii().to_string()
}

/// Both tokens of a good answer are kept.
fn check_tokens(mutation: &Mutation) {
    let body = mutation.apply(&TOKENS);
    let (access_token, refresh_token) = match refreshed(200, body.clone()) {
        Ok(session) => (
            Some(session.access_token().clone()),
            session.refresh_token().cloned(),
        ),
        Err(error) => (None, error.rotated_refresh_token().cloned()),
    };
    let refresh_token = refresh_token.as_ref().map(Secret::expose);
    assert_eq!(refresh_token, Some("5Aep862.rotated"), "{}", shown(&body));
    // What follows an object without its end belongs to that object, if it is closed by what stands behind.
    let has_open = |(_, member): &(usize, String)| member.ends_with(['{', '[', '1', '2']);
    if access_token.is_none() && mutation.added.iter().any(has_open) {
        return;
    }
    let access_token = access_token.as_ref().map(Secret::expose);
    assert_eq!(
        access_token,
        Some("00Dxx0000001gEF!AQEAQtoken"),
        "{}",
        shown(&body)
    );
}

/// A refusal is understood, and not tried again.
fn check_refusal(mutation: &Mutation, status: u16) {
    let body = mutation.apply(&REFUSAL);
    let error = refreshed(status, body.clone()).unwrap_err();
    assert!(error.is_terminal(), "{error}: {}", shown(&body));
    assert_eq!(
        error.error_code(),
        Some("invalid_grant"),
        "{}",
        shown(&body)
    );
}

#[test]
fn r39_no_mutated_token_response_of_50_000_loses_a_token() {
    for number in 0..NUMBERED {
        check_tokens(&Random(number).mutation());
    }
}

#[test]
fn r39_no_mutated_refusal_of_50_000_is_tried_again() {
    for number in 0..NUMBERED {
        let mut random = Random(number);
        check_refusal(&random.mutation(), random.of(STATUSES));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r39_no_mutated_token_response_loses_a_token(mutation in mutation()) {
        check_tokens(&mutation);
    }

    #[test]
    fn r39_no_mutated_refusal_is_tried_again(mutation in mutation(), status in select(STATUSES)) {
        check_refusal(&mutation, status);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4 * CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes of any kind neither panic nor repeat a password.
    #[test]
    fn r39_any_bytes_are_an_error_and_repeat_no_password(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[\\[\\]{}\":,a-z\\\\]{0,80}".prop_map(String::into_bytes),
            "[<>/&;a-z!\\[\\]\"' ]{0,80}".prop_map(String::into_bytes),
        ],
        status in select(vec![400_u16, 401, 403]),
    ) {
        let flow = UsernamePassword::new(answering(status, &[], body.clone()), app(), "user", "password");
        let error = flow.log_in().now_or_never().expect("an answer at once").unwrap_err();
        prop_assert!(error.is_terminal(), "{}: {}", error, shown(&body));
        let _ = refreshed(200, body);
    }

    /// A cut token response gives its tokens as they were, or none.
    #[test]
    fn r39_a_cut_answer_gives_whole_tokens_or_none(mutation in mutation(), share in 0.0..1.0_f64) {
        let mutation = Mutation { bytes: Form::Utf8, before: String::new(), ..mutation };
        let mut body = mutation.apply(&TOKENS);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a short text")]
        body.truncate((body.len() as f64 * share) as usize);
        let result = refreshed(200, body.clone());
        let token = match &result {
            Ok(session) => session.refresh_token().filter(|token| token.expose() != "5Aep861"),
            Err(error) => error.rotated_refresh_token(),
        };
        prop_assert!(token.is_none_or(|token| token.expose() == "5Aep862.rotated"), "{token:?} {}", shown(&body));
        if let Ok(session) = &result {
            prop_assert_eq!(session.access_token().expose(), "00Dxx0000001gEF!AQEAQtoken", "{}", shown(&body));
        }
    }
}
