//! What surrounds a credential that was copied: line breaks, blanks, quotes and invisible characters (R40).
//!
//! [`credential`] and [`password`] leave out what cannot belong to a value. [`check`] refuses, before anything is sent, what
//! may or may not belong to it.

use std::borrow::Cow;

use zeroize::Zeroizing;

use crate::secret::Secret;

/// An id, a secret, a token, a user name, an assertion or a code, without blanks and invisible characters at its ends.
///
/// None of these begins or ends with such a character.
pub(crate) fn credential(text: &str) -> &str {
    text.trim_matches(|char: char| is_edge(char) || char.is_whitespace())
}

/// The same for text that is no secret.
pub(crate) fn text(text: impl Into<String>) -> String {
    let text = text.into();
    match credential(&text) {
        trimmed if trimmed.len() == text.len() => text,
        trimmed => trimmed.to_owned(),
    }
}

/// The same for a secret.
pub(crate) fn secret(secret: impl Into<Secret>) -> Secret {
    trimmed(secret.into(), credential)
}

/// A password without the line breaks that files and commands end with, and without invisible characters at its ends.
/// Anything else stays: it may belong to the password.
pub(crate) fn password(password: impl Into<Secret>) -> Secret {
    trimmed(password.into(), password_itself)
}

fn password_itself(text: &str) -> &str {
    let mut text = text;
    loop {
        let before = text.len();
        for line_break in ["\r\n", "\n"] {
            text = text.strip_suffix(line_break).unwrap_or(text);
            text = text.strip_prefix(line_break).unwrap_or(text);
        }
        text = text.trim_matches(is_invisible);
        if text.len() == before {
            return text;
        }
    }
}

fn trimmed(secret: Secret, trim: fn(&str) -> &str) -> Secret {
    match trim(secret.expose()) {
        text if text.len() == secret.expose().len() => secret,
        text => Secret::from(Zeroizing::new(text.to_owned())),
    }
}

/// A URL without blanks, quotes and brackets around it.
pub(crate) fn unwrapped(text: &str) -> &str {
    const PAIRS: [(char, char); 10] = [
        ('"', '"'),
        ('\'', '\''),
        ('`', '`'),
        ('<', '>'),
        ('(', ')'),
        ('[', ']'),
        ('\u{201c}', '\u{201d}'),
        ('\u{201e}', '\u{201c}'),
        ('\u{2018}', '\u{2019}'),
        ('\u{ab}', '\u{bb}'),
    ];
    let mut text = credential(text);
    while let Some(inner) = PAIRS.iter().find_map(|(open, close)| {
        // A list or a statement goes on after it.
        let inner = text.strip_prefix(*open)?.trim_end_matches([',', ';']);
        inner.strip_suffix(*close)
    }) {
        text = credential(inner);
    }
    text
}

/// The same for a URL that may contain a password.
#[cfg(feature = "https-client")]
pub(crate) fn unwrapped_secret(url: Secret) -> Secret {
    trimmed(url, unwrapped)
}

/// What a value may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// An id, a secret, a token, an assertion or a code: characters of ASCII (`VSCHAR`, RFC 6749 Appendix A).
    Token,
    /// A user name: no blanks, no control characters and no invisible characters.
    Name,
    /// A password: any character but control characters, with blanks only between others.
    Password,
    /// Any text without control characters, also an empty one.
    Text,
}

/// Refuses a value with something in it that it cannot have. The error names the cause, and has no part of the value.
pub(crate) fn check(what: &str, text: &str, rule: Rule) -> Result<(), String> {
    match fault(text, rule) {
        Some(fault) => Err(format!("the {what} {fault}")),
        None => Ok(()),
    }
}

/// The rule for a parameter of a token request (RFC 6749), and what its value is called. `None` for any other parameter.
pub(crate) fn rule_of(parameter: &str) -> Option<(&'static str, Rule)> {
    Some(match parameter {
        "client_id" => ("client id", Rule::Token),
        "client_secret" => ("client secret", Rule::Token),
        "refresh_token" => ("refresh token", Rule::Token),
        "code" => ("code", Rule::Token),
        "code_verifier" => ("code verifier", Rule::Token),
        "assertion" | "client_assertion" => ("assertion", Rule::Token),
        "subject_token" => ("subject token", Rule::Token),
        "token" => ("token", Rule::Token),
        "username" => ("user name", Rule::Name),
        "password" => ("password", Rule::Password),
        _ => return None,
    })
}

fn fault(text: &str, rule: Rule) -> Option<Cow<'static, str>> {
    let has = |is: fn(char) -> bool| text.contains(is);
    let fault = match rule {
        Rule::Token | Rule::Name | Rule::Password if text.is_empty() => {
            "is empty: check where it comes from, for example a variable that is not set"
        }
        _ if has(|char| matches!(char, '\n' | '\r')) => {
            "has a line break in it: check how it was copied"
        }
        _ if has(char::is_control) => "has a control character in it: check how it was copied",
        Rule::Password if text != text.trim() => {
            "begins or ends with a blank, and it is unknown whether the blank belongs to it: leave the blank out, or set a \
             password without one"
        }
        Rule::Password | Rule::Text => return None,
        Rule::Name if has(char::is_whitespace) => "has a blank in it: check how it was copied",
        Rule::Token if text != text.trim() => {
            "begins or ends with a blank: check how it was copied"
        }
        _ if has(is_invisible) => "has an invisible character in it: check how it was copied",
        Rule::Token if !text.is_ascii() => {
            "has a character beyond ASCII in it, for example a typographic quote or blank: check how it was copied"
        }
        _ => return enclosure(text, rule).map(Cow::Borrowed),
    };
    Some(Cow::Borrowed(fault))
}

/// What another notation left at the ends of a value.
fn enclosure(text: &str, rule: Rule) -> Option<&'static str> {
    let is_between = |open: char, close: char| text.starts_with(open) && text.ends_with(close);
    if ['"', '\'', '`']
        .into_iter()
        .any(|quote| is_between(quote, quote))
    {
        Some("is in quotes: leave the quotes out")
    } else if rule == Rule::Name && is_between('<', '>') && text.contains('@') {
        Some("is in angle brackets, as a mail address may be: leave the brackets out")
    } else if rule == Rule::Token && is_between('<', '>')
        || text.starts_with("${")
        || text.starts_with("{{")
    {
        Some("is a placeholder in brackets: put the value in its place")
    } else if text.ends_with("\\n") || text.ends_with("\\r") {
        Some("ends with a backslash and a letter, an escaped line break: leave them out")
    } else {
        None
    }
}

/// Whether a character at an end belongs to no value: it was not typed, and is not seen.
fn is_edge(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') || is_invisible(char)
}

/// Whether a character takes no room: byte order marks, joiners, and marks for the direction of text.
pub(crate) fn is_invisible(char: char) -> bool {
    matches!(
        char,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Why a text is no access token of Salesforce, and in which notation one was copied. `None` if it may be one.
///
/// A session id is `00D…!…` of letters, digits, dots and underscores. A JWT has three parts in base64url (RFC 7519). The
/// tokens of other servers have the characters of RFC 6750 §2.1.
pub(crate) fn not_an_access_token(text: &str) -> Option<Cow<'static, str>> {
    let is_of_a_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!-._~+/".contains(&byte);
    let has_quote = text.contains(['"', '\'', '`']);
    Some(match text.trim_end_matches('=') {
        "" => "is empty: check where it comes from, for example a variable that is not set".into(),
        token if token.bytes().all(is_of_a_token) => return None,
        _ if text.starts_with("Bearer ") || text.starts_with("OAuth ") => {
            "begins with the scheme of an `Authorization` header, and a blank: leave both out".into()
        }
        _ if has_quote => "has quotes in it, as in JSON or a shell: leave the quotes out".into(),
        _ if text.contains('\\') => {
            "has a backslash in it, as a shell or JSON writes some characters: leave the backslash out".into()
        }
        _ if text.contains('%') => {
            "is percent-encoded, as in a cookie or URL: decode it first, for example `%21` is `!`".into()
        }
        _ if text.contains(['&', '#', ';']) => {
            "has the notation of HTML or of a cookie in it, for example `&#33;` for `!`, or `;` at its end".into()
        }
        _ if text.contains(['<', '>', '{', '}', '[', ']', '(', ')']) => {
            "has brackets in it, as a placeholder or a list has: leave the brackets out".into()
        }
        _ if text.contains(',') => "has a comma in it, as a list has: leave the comma out".into(),
        token if token.contains('=') => {
            "has an `=` in it, as the cookie `sid=…` has: give the part after it alone".into()
        }
        // The ends, too: a copied line break would add a header.
        _ if text.contains(' ') => "has a blank in it: check how it was copied".into(),
        _ => fault(text, Rule::Token).unwrap_or(Cow::Borrowed(
            "has a character in it that no access token has: check how it was copied",
        )),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_trimmed_value_is_clean_or_its_fault_is_told(text in any::<String>()) {
            let trimmed = credential(&text);
            prop_assert_eq!(credential(trimmed), trimmed);
            for rule in [Rule::Token, Rule::Name, Rule::Password, Rule::Text] {
                if check("value", trimmed, rule).is_ok() {
                    prop_assert!(!trimmed.contains(char::is_control));
                    prop_assert_eq!(trimmed.trim(), trimmed);
                }
            }
        }

        /// Any surroundings of a good value leave exactly that value.
        #[test]
        fn surroundings_of_a_value_are_left_out(
            before in "[ \t\r\n\u{feff}\u{200b}\u{a0}\u{2028}\0]{0,4}",
            value in "[!-~]{1,40}",
            after in "[ \t\r\n\u{feff}\u{200b}\u{a0}\u{3000}\0]{0,4}",
        ) {
            let text = format!("{before}{value}{after}");
            prop_assert_eq!(credential(&text), &value);
            prop_assert_eq!(super::text(text.as_str()), value.as_str());
            let password = password(text.as_str());
            let told = check("password", password.expose(), Rule::Password);
            // A password with blanks or control characters at its ends is refused, and never cut.
            prop_assert!(password.expose() == value || told.is_err(), "{:?}", text);
        }

        /// What is refused is not repeated.
        #[test]
        fn a_fault_repeats_nothing_of_the_value(value in "[A-Z]{8,20}", odd in "[\"'\\\\%&;,<>{}() \n\u{201c}]") {
            for text in [format!("{odd}{value}{odd}"), format!("{value}{odd}"), format!("{value}{odd}{value}")] {
                let told = not_an_access_token(&text).map(Cow::into_owned);
                prop_assert!(told.is_some_and(|told| !told.contains(&value)), "{}", text);
                if let Err(told) = check("token", &text, Rule::Token) {
                    prop_assert!(!told.contains(&value), "{}", told);
                }
            }
        }
    }
}
