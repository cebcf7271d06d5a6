//! Text that a program wrote for a terminal.

use std::borrow::Cow;

const ESCAPE: char = '\u{1b}';

/// The text without escape sequences: colours, cursor movements and links (ECMA-48 §5.4, §5.6).
pub(crate) fn without_escapes(text: &str) -> Cow<'_, str> {
    if !text.contains(is_start) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_start) {
        plain.push_str(&rest[..start]);
        rest = after_sequence(&rest[start..]);
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// Whether a sequence begins with this character: an escape, or the control of 8 bits that stands for two.
fn is_start(char: char) -> bool {
    matches!(char, ESCAPE | '\u{9b}')
}

/// What follows the sequence at the beginning of `text`.
fn after_sequence(text: &str) -> &str {
    let mut chars = text.chars();
    match chars.next() {
        Some(ESCAPE) => {}
        _ => return after_control(chars.as_str()),
    }
    match chars.next() {
        Some('[') => after_control(chars.as_str()),
        // A link or a title, up to a bell or the string terminator.
        Some(']') => {
            let rest = chars.as_str();
            let end = rest.find(['\u{7}', ESCAPE]);
            match end.map(|end| &rest[end..]) {
                Some(end) => end
                    .strip_prefix("\u{1b}\\")
                    .or_else(|| end.strip_prefix('\u{7}'))
                    .unwrap_or(end),
                None => "",
            }
        }
        _ => chars.as_str(),
    }
}

/// What follows the parameters and the final character of a control sequence.
fn after_control(text: &str) -> &str {
    let rest = text.trim_start_matches(|char| matches!(char, ' '..='?'));
    let mut chars = rest.chars();
    match chars.next() {
        Some('@'..='~') => chars.as_str(),
        // It was cut off.
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_and_links_are_left_out() {
        for (text, plain) in [
            (
                "\u{1b}[34m\"status\"\u{1b}[39m: \u{1b}[1;31m0\u{1b}[0m",
                "\"status\": 0",
            ),
            ("\u{9b}1mbold\u{9b}m", "bold"),
            (
                "\u{1b}]8;;https://example.com\u{7}link\u{1b}]8;;\u{1b}\\ end",
                "link end",
            ),
            ("\u{1b}[2K\u{1b}Mone", "one"),
            ("cut \u{1b}[3", "cut "),
            ("cut \u{1b}", "cut "),
        ] {
            assert_eq!(without_escapes(text), plain, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_escape_is_left_in_any_text(text in "([a-z]|\u{1b}|\u{9b}|\\[|\\]|[0-9;]|\u{7}|\\\\|m|é){0,40}") {
            let plain = without_escapes(&text);
            prop_assert!(!plain.contains(is_start), "{:?}", plain);
        }
    }
}
