//! Makes server text safe to show: short, on one line, without the secrets of the request.

use std::borrow::Cow;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// Longest text that is shown, in characters. Longer texts are cut to keep errors readable.
const LONGEST: usize = 200;

/// How many characters of a longer text are searched.
const LONGEST_READ: usize = 1_000;

/// Shortest run of a secret's characters that counts as a leak.
const MIN_LEAK: usize = 8;

const REDACTED: &str = "[redacted]";

/// Removes the `secrets` from a text that a server wrote.
///
/// A plain or form-encoded secret is replaced on its own. If a piece of a secret remains in any other encoding, the whole
/// text is replaced. A short secret of letters is not looked for inside of words.
pub(crate) fn redact(text: &str, secrets: &[&str]) -> String {
    let text: String = text.chars().take(LONGEST_READ).collect();
    let mut forms: Vec<String> = secrets
        .iter()
        .flat_map(|secret| [(*secret).to_owned(), form_encoded(secret)])
        .filter(|secret| !secret.is_empty())
        .collect();
    // Longest first, because one secret may be the beginning of another.
    forms.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let shown = forms
        .iter()
        .fold(text, |text, secret| replace(&text, secret));
    if has_secret(&shown, secrets) {
        return REDACTED.to_owned();
    }
    shown
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST)
        .collect()
}

/// Whether a text has any of the `secrets` in it, or a piece of one.
pub(crate) fn has_secret(text: &str, secrets: &[&str]) -> bool {
    secrets.iter().any(|secret| leaks(text, secret))
}

/// Removes the `secrets` from an error code. A well-formed code is shown unchanged, unless it is a secret.
pub(crate) fn redact_code(code: &str, secrets: &[&str]) -> String {
    let is_part = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let is_code = code.len() <= 64 && code.bytes().all(is_part);
    let is_secret = |secret: &&str| secret.len() >= code.len() && leaks(code, secret);
    if is_code && !secrets.iter().any(is_secret) {
        code.to_owned()
    } else {
        redact(code, secrets)
    }
}

/// Removes what looks like a token, for text of a program whose secrets are unknown.
///
/// That is each word with an SFDX auth URL, with a session id (`00D…!…`), or with a long run of characters as tokens have.
#[cfg(feature = "cli")]
pub(crate) fn without_tokens(text: &str) -> String {
    let text: String = text.chars().take(LONGEST_READ).collect();
    let words = text.split_whitespace();
    let words = words.map(|word| if has_token(word) { REDACTED } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(feature = "cli")]
fn has_token(word: &str) -> bool {
    const LONGEST_WORD: usize = 24;
    let is_of_a_token = |char: char| char.is_ascii_alphanumeric() || "_-=+".contains(char);
    let is_long = |run: &str| {
        let has_digit = run.contains(|char: char| char.is_ascii_digit());
        run.len() >= LONGEST_WORD && has_digit
    };
    let is_session_id = |(before, _): (&str, &str)| {
        let id = before.rsplit(|char: char| !char.is_ascii_alphanumeric());
        id.take(1).any(|id| id.len() >= 12)
    };
    word.contains("force://")
        || word.split_once('!').is_some_and(is_session_id)
        || word.split(|char| !is_of_a_token(char)).any(is_long)
}

/// Whether a secret may be a part of any word: it is short and of letters.
fn is_like_a_word(secret: &str) -> bool {
    secret.len() < MIN_LEAK && secret.chars().all(char::is_alphabetic)
}

/// Where a secret begins. For one that is like a word, only where it is a word.
fn places(text: &str, secret: &str) -> Vec<usize> {
    let is_word = |at: usize| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text
            .get(at + secret.len()..)
            .and_then(|after| after.chars().next());
        ![before, after]
            .into_iter()
            .flatten()
            .any(char::is_alphabetic)
    };
    let places = text.match_indices(secret).map(|(at, _)| at);
    places
        .filter(|at| !secret.is_empty() && (!is_like_a_word(secret) || is_word(*at)))
        .collect()
}

/// Replaces a secret wherever it is.
fn replace(text: &str, secret: &str) -> String {
    let mut replaced = text.to_owned();
    for at in places(text, secret).into_iter().rev() {
        replaced.replace_range(at..at + secret.len(), REDACTED);
    }
    replaced
}

/// Whether a piece of the secret can be read in the text, in any of the known encodings.
fn leaks(text: &str, secret: &str) -> bool {
    let lower = |text: &str| text.to_ascii_lowercase();
    let texts = [
        lower(text),
        lower(&percent_decoded(text)),
        lower(&unescaped(text)),
        lower(&json_unescaped(text)),
    ];
    let secrets = [
        secret.to_owned(),
        STANDARD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        STANDARD_NO_PAD.encode(secret),
    ];
    secrets.iter().map(|secret| lower(secret)).any(|secret| {
        if is_like_a_word(&secret) {
            return texts.iter().any(|text| !places(text, &secret).is_empty());
        }
        let secret: Vec<char> = secret.chars().collect();
        let length = MIN_LEAK.min(secret.len());
        length > 0
            && secret.windows(length).any(|piece| {
                let piece: String = piece.iter().collect();
                texts.iter().any(|text| text.contains(&piece))
            })
    })
}

fn form_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn percent_decoded(text: &str) -> String {
    // Parsed as a parameter name, which only `&` and `=` end.
    let text = text.replace(['&', '='], " ");
    form_urlencoded::parse(text.as_bytes())
        .map(|(name, _)| name.into_owned())
        .collect()
}

fn unescaped(text: &str) -> String {
    quick_xml::escape::unescape(text)
        .map(Cow::into_owned)
        .unwrap_or_default()
}

fn json_unescaped(text: &str) -> String {
    serde_json::from_str(&format!("\"{}\"", text.replace('"', "\\\""))).unwrap_or_default()
}
