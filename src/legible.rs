//! What a server wrote, fit to be shown: short, on one line, and without the secrets that it was sent.

use std::borrow::Cow;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// Longer texts are cut: an error is read by people.
const LONGEST: usize = 200;

/// What is looked at of a longer text.
const LONGEST_READ: usize = 1_000;

/// As much of a secret in one piece gives it away.
const TELLING: usize = 8;

const REDACTED: &str = "[redacted]";

/// A text that a server wrote, in which nothing of the `secrets` is left.
///
/// Where they stand as they are, or as they were sent, they alone are taken out. If something of them is left in any other
/// form, nothing of the text is shown.
pub(crate) fn legible(text: &str, secrets: &[&str]) -> String {
    let text: String = text.chars().take(LONGEST_READ).collect();
    let mut forms: Vec<String> = secrets
        .iter()
        .flat_map(|secret| [(*secret).to_owned(), form_encoded(secret)])
        .filter(|secret| !secret.is_empty())
        .collect();
    // The longest first: one may be the beginning of another.
    forms.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let shown = forms
        .iter()
        .fold(text, |text, secret| text.replace(secret, REDACTED));
    if secrets.iter().any(|secret| tells(&shown, secret)) {
        return REDACTED.to_owned();
    }
    shown
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST)
        .collect()
}

/// The same for an error code: one that has the form of one is shown as it is, unless it is a secret.
pub(crate) fn legible_code(code: &str, secrets: &[&str]) -> String {
    let is_part = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let is_code = code.len() <= 64 && code.bytes().all(is_part);
    let is_secret = |secret: &&str| secret.len() >= code.len() && tells(code, secret);
    if is_code && !secrets.iter().any(is_secret) {
        code.to_owned()
    } else {
        legible(code, secrets)
    }
}

/// Whether something of the secret can be read in the text, in whatever form.
fn tells(text: &str, secret: &str) -> bool {
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
        let secret: Vec<char> = secret.chars().collect();
        let length = TELLING.min(secret.len());
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
    // As the name of a parameter, which nothing ends but these two.
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
