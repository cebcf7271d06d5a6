//! Bytes of a server as text, whichever charset they are in. Never an error.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// How many bytes show whether a character takes one, two or four of them.
const SAMPLE: usize = 256;

/// How many bytes of an XML document are searched for its declaration.
const DECLARATION: usize = 128;

/// Decodes text: UTF-8, UTF-16 and UTF-32 by their bytes, else the charset of `content_type` or of an XML declaration.
///
/// In a text without a known charset, bytes that are not UTF-8 count as windows-1252, one by one. So one such byte changes
/// no other character. Byte order marks at the beginning are left out.
pub(crate) fn decode<'a>(bytes: &'a [u8], content_type: Option<&str>) -> Cow<'a, str> {
    let text = match width(bytes) {
        Width::One => narrow(bytes, content_type),
        Width::Two(encoding) => encoding.decode_without_bom_handling(bytes).0,
        Width::Four(character) => bytes
            .chunks_exact(4)
            .filter_map(|bytes| bytes.try_into().ok())
            .map(|bytes| char::from_u32(character(bytes)).unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect::<String>()
            .into(),
    };
    let marks = text.len() - text.trim_start_matches('\u{feff}').len();
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(marks..).unwrap_or(text)),
        Cow::Owned(mut text) => {
            text.drain(..marks);
            Cow::Owned(text)
        }
    }
}

/// The bytes that a character takes.
enum Width {
    One,
    Two(&'static Encoding),
    Four(fn([u8; 4]) -> u32),
}

/// Finds the width by the zero bytes of ASCII characters, since JSON and XML consist of them. A byte order mark may be
/// missing or wrong.
fn width(bytes: &[u8]) -> Width {
    let sample = bytes.get(..SAMPLE).unwrap_or(bytes);
    let mut zeros = [0_usize; 4];
    for (byte, at) in sample.iter().zip((0..4).cycle()) {
        zeros[at] += usize::from(*byte == 0);
    }
    let [first, second, third, fourth] = zeros.map(|zeros| zeros > sample.len() / 8);
    match (first, second, third, fourth) {
        (false, true, true, true) => Width::Four(u32::from_le_bytes),
        (true, true, true, false) => Width::Four(u32::from_be_bytes),
        (false, true, false, true) => Width::Two(UTF_16LE),
        (true, false, true, false) => Width::Two(UTF_16BE),
        _ => Width::One,
    }
}

fn narrow<'a>(bytes: &'a [u8], content_type: Option<&str>) -> Cow<'a, str> {
    let error = match str::from_utf8(bytes) {
        Ok(text) => return Cow::Borrowed(text),
        Err(error) => error,
    };
    // A text that was cut off may end inside a character.
    let is_cut = error.error_len().is_none();
    let declared = content_type
        .and_then(charset_parameter)
        .or_else(|| xml_declaration(bytes));
    match declared.and_then(|label| Encoding::for_label(label.as_bytes())) {
        Some(encoding) if encoding != UTF_8 && encoding.is_ascii_compatible() && !is_cut => {
            encoding.decode_without_bom_handling(bytes).0
        }
        _ => {
            let mut text = String::with_capacity(bytes.len());
            for chunk in bytes.utf8_chunks() {
                text += chunk.valid();
                text += &WINDOWS_1252.decode_without_bom_handling(chunk.invalid()).0;
            }
            text.into()
        }
    }
}

/// The `charset` of a media type (RFC 9110 §8.3.2).
fn charset_parameter(content_type: &str) -> Option<&str> {
    parameter(content_type, "charset")
}

/// The `encoding` of an XML declaration.
fn xml_declaration(bytes: &[u8]) -> Option<&str> {
    let start = bytes.get(..DECLARATION).unwrap_or(bytes);
    let (declaration, _) = start.split_at(start.iter().position(|byte| *byte == b'>')?);
    let declaration = str::from_utf8(declaration).ok()?;
    declaration
        .trim_start()
        .starts_with("<?xml")
        .then(|| parameter(declaration, "encoding"))?
}

/// The value after `name=`, without its quotes.
fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let at = text.to_ascii_lowercase().find(name)? + name.len();
    let value = text.get(at..)?.trim_start().strip_prefix('=')?;
    let value = value.trim_start().trim_start_matches(['"', '\'']);
    value
        .split(|c: char| matches!(c, '"' | '\'' | ';' | '?' | ',') || c.is_whitespace())
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{\"name\":\"Zoë\"}";

    fn wide<const N: usize>(unit: impl Fn(char) -> [u8; N]) -> Vec<u8> {
        TEXT.chars().flat_map(unit).collect()
    }

    #[test]
    fn a_text_is_read_in_any_width_with_or_without_a_mark() {
        let utf_16 = |c| u16::try_from(u32::from(c)).unwrap();
        for (mark, bytes) in [
            (&b"\xef\xbb\xbf"[..], TEXT.as_bytes().to_vec()),
            (b"\xff\xfe", wide(|c| utf_16(c).to_le_bytes())),
            (b"\xfe\xff", wide(|c| utf_16(c).to_be_bytes())),
            (b"\xff\xfe\0\0", wide(|c| u32::from(c).to_le_bytes())),
            (b"\0\0\xfe\xff", wide(|c| u32::from(c).to_be_bytes())),
        ] {
            assert_eq!(decode(&bytes, None), TEXT);
            for marks in 1..3 {
                let marked = [mark.repeat(marks), bytes.clone()].concat();
                assert_eq!(decode(&marked, Some("application/json")), TEXT, "{mark:?}");
            }
        }
    }

    #[test]
    fn a_declared_charset_counts_where_the_text_is_not_utf_8() {
        for (bytes, content_type, text) in [
            (&b"Zo\xeb"[..], None, "Zoë"),
            (b"Zo\xeb \xe2\x82\xac", None, "Zoë €"),
            (b"Zo\xeb", Some("text/plain;charset=utf-8"), "Zoë"),
            (b"Zo\xeb", Some("text/plain; charset=\"ISO-8859-1\""), "Zoë"),
            (b"Zo\xeb", Some("text/plain; charset=no-such"), "Zoë"),
            (b"Zo\xeb", Some("text/plain; charset=utf-16"), "Zoë"),
            (b"\x80 5", None, "€ 5"),
            (b"\x82\xa0!", Some("text/plain; Charset = Shift_JIS"), "あ!"),
            (b"\xc5\xbc!\xf3!", Some("a/b; charset=iso-8859-2"), "Ĺź!ó!"),
            (b"\xc5\xbc", Some("text/plain; charset=iso-8859-2"), "ż"),
            (
                b"<?xml version='1.0' encoding='iso-8859-2'?><a>\xf3\xb1</a>",
                Some("text/xml"),
                "<?xml version='1.0' encoding='iso-8859-2'?><a>óą</a>",
            ),
            // Cut inside a character.
            (
                b"Zo\xc3\xab \xe2\x82",
                Some("a/b; charset=iso-8859-2"),
                "Zoë â‚",
            ),
            (b"\0{}", None, "\0{}"),
            (b"{\0}", None, "{\0}"),
            (b"", None, ""),
        ] {
            assert_eq!(decode(bytes, content_type), text, "{bytes:?}");
        }
    }
}
