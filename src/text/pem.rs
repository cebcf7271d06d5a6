//! PEM (RFC 7468) as environments, secret managers and editors hand it on.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use super::pasted;

/// Standard Base64, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whether the bytes begin as DER does, with a sequence of more than 127 bytes, or as BER, with one of any length. A shorter
/// sequence, such as an Ed25519 key, has to be whole, and to begin with a version.
fn is_der(bytes: &[u8]) -> bool {
    match bytes {
        [0x30, 0x80..=0x84, ..] => true,
        [0x30, length, content @ ..] => {
            content.len() == usize::from(*length) && content.starts_with(&[0x02, 0x01])
        }
        _ => false,
    }
}

/// The magic numbers of Java keystores: JKS and JCEKS.
fn is_java_keystore(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xfe, 0xed, 0xfe, 0xed]) || bytes.starts_with(&[0xce; 4])
}

/// What was found in a text, or in the bytes of a file.
pub(crate) struct Pem {
    pub(crate) blocks: Vec<Block>,
    /// Whether a block has no end, or is not Base64.
    pub(crate) is_damaged: bool,
    /// Whether it begins with the magic number of a Java keystore.
    pub(super) is_java_keystore: bool,
    pub(super) text: Zeroizing<String>,
}

/// One block of PEM, or one file in DER.
#[derive(Clone)]
pub(crate) struct Block {
    /// The label, for example `PRIVATE KEY`. Empty for content without a label.
    pub(crate) label: String,
    pub(crate) der: Zeroizing<Vec<u8>>,
}

impl Block {
    pub(super) fn new(label: &str, der: &[u8]) -> Self {
        Self {
            label: label.to_owned(),
            der: Zeroizing::new(der.to_vec()),
        }
    }
}

impl Pem {
    /// Reads all blocks: also with escaped or missing line breaks, an indent, in UTF-16, encoded in Base64 as a whole, and
    /// without labels.
    pub(crate) fn read(input: &[u8]) -> Self {
        let mut pem = Self::of_text(text_of(input));
        pem.is_java_keystore = is_java_keystore(input);
        if pem.blocks.is_empty() && is_der(input) {
            pem.push("", input);
        } else if pem.is_without_labels() {
            match decode(&pem.text) {
                Some(inner) if inner.starts_with(b"-----BEGIN") => {
                    return Self::of_text(text_of(&inner));
                }
                Some(inner) if is_der(&inner) => pem.push("", &inner),
                _ => {}
            }
        }
        pem
    }

    fn of_text(text: Zeroizing<String>) -> Self {
        let mut pem = Self {
            blocks: Vec::new(),
            is_damaged: false,
            is_java_keystore: false,
            text,
        };
        let text = pem.text.clone();
        let mut rest: &str = &text;
        while let Some((label, body, after)) = next_block(rest) {
            match body.and_then(decode) {
                Some(der) => pem.push(label, &der),
                None => pem.is_damaged = true,
            }
            rest = after;
        }
        pem
    }

    fn push(&mut self, label: &str, der: &[u8]) {
        self.blocks.push(Block::new(label, der));
    }

    fn is_without_labels(&self) -> bool {
        self.blocks.is_empty() && !self.is_damaged
    }

    /// What the content is, if it has no block that can be used, and what to do. `None` if it is unknown.
    pub(crate) fn what_it_is(&self) -> Option<&'static str> {
        let text = &*self.text;
        let has = |part: &str| text.contains(part);
        Some(match () {
            () if text.trim().is_empty() => "it is empty",
            () if has("ENCRYPTED PRIVATE KEY") => {
                "it is encrypted: read it with its pass phrase, which takes the feature `key-formats`, or decrypt it with \
                 `openssl pkey -in <file>` first"
            }
            () if has("Proc-Type: 4,ENCRYPTED") => {
                "it is encrypted in OpenSSL's traditional form: convert it with `openssl pkcs8 -topk8 -in <file> -out <new \
                 file>`, and read that with its pass phrase"
            }
            () if has("OPENSSH PRIVATE KEY") => {
                "it is a key of OpenSSH: convert a copy of the file with `ssh-keygen -p -m PEM -N '' -f <copy>`"
            }
            () if has("PuTTY-User-Key-File") => {
                "it is a key of PuTTY: export it as an OpenSSH key (`puttygen <file> -O private-openssh -o <new file>`)"
            }
            () if has("BEGIN SSH2") || text.starts_with("ssh-") => {
                "it is a public key of SSH, or a key in its format SSH2: use the private key in PEM"
            }
            () if has("BEGIN PGP") => "it is a key of PGP: use an RSA key in PEM",
            () if has("BEGIN PKCS7") || has("BEGIN CMS") => {
                "it is a PKCS #7 file: convert it with `openssl pkcs7 -print_certs -in <file>`"
            }
            () if has("TRUSTED CERTIFICATE") => {
                "it is a certificate in OpenSSL's own format: convert it with `openssl x509 -in <file>`, to one with \
                 -----BEGIN CERTIFICATE-----"
            }
            () if has("BEGIN CERTIFICATE REQUEST") || has("BEGIN NEW CERTIFICATE REQUEST") => {
                "it is a certificate request: use what was made from it, or together with it"
            }
            () if has("<RSAKeyValue") => "it is a key of .NET in XML: export it in PEM",
            () if has("\"kty\"") => "it is a JSON Web Key: convert it to PEM",
            () if text.trim_start().starts_with('{') => {
                "it is JSON: give the text of its field with the PEM"
            }
            () if self.is_java_keystore => {
                "it is a Java keystore: convert it with `keytool -importkeystore -srckeystore <file> -destkeystore <new file> \
                 -deststoretype pkcs12`, and read the new file with its pass phrase, which takes the feature `key-formats`"
            }
            () if self.is_damaged => "it is cut off, or has characters in it that are not Base64",
            () if has("----BEGIN")
                || has("BEGIN ") && text.contains(['\u{2010}', '\u{2013}', '\u{2014}']) =>
            {
                "its lines with BEGIN and END have other characters than five hyphens: copy it as plain text"
            }
            () if is_path(text) => "it is the path of a file: give the text of the file",
            () => return None,
        })
    }
}

/// The next block: its label, its body if it has an end, and what follows.
fn next_block(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (_, after) = text.split_once("-----BEGIN ")?;
    let (label, after) = after.split_once("-----")?;
    let end = after
        .split_once("-----END ")
        // Another block may begin before the end.
        .filter(|(body, _)| !body.contains("-----BEGIN "))
        .and_then(|(body, after)| Some((body, after.split_once("-----")?.1)));
    Some(match end {
        Some((body, after)) => (label, Some(body), after),
        None => (label, None, after),
    })
}

/// Decodes Base64 with white space anywhere in it.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut dense = Zeroizing::new(Vec::with_capacity(text.len()));
    dense.extend(text.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut decoded = Zeroizing::new(Vec::with_capacity(dense.len()));
    BASE64.decode_vec(&*dense, &mut decoded).ok()?;
    (!decoded.is_empty()).then_some(decoded)
}

/// The text of a file: from UTF-16 if a byte order mark says so, with line breaks in place of escaped ones.
fn text_of(input: &[u8]) -> Zeroizing<String> {
    let utf_16 = |read: fn([u8; 2]) -> u16| {
        let (pairs, _) = input.as_chunks::<2>();
        let mut text = String::with_capacity(2 * input.len());
        let chars = char::decode_utf16(pairs.iter().map(|pair| read(*pair)));
        text.extend(chars.map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)));
        text
    };
    let text = Zeroizing::new(match input {
        [0xff, 0xfe, ..] => utf_16(u16::from_le_bytes),
        [0xfe, 0xff, ..] => utf_16(u16::from_be_bytes),
        _ => String::from_utf8_lossy(input).into_owned(),
    });
    let is_quote = |char| matches!(char, '"' | '\'' | '`');
    unescaped(pasted::credential(&text).trim_matches(is_quote))
}

/// The text with line breaks in place of escaped ones, and without characters that take no room.
fn unescaped(text: &str) -> Zeroizing<String> {
    let is_pem = text.contains("-----");
    // Never longer than `text`, so that no copy of a key stays behind.
    let mut unescaped = Zeroizing::new(String::with_capacity(text.len()));
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' if is_pem => {
                if chars.next_if(|next| matches!(next, 'n' | 'r')).is_some() {
                    unescaped.push('\n');
                }
            }
            char if pasted::is_invisible(char) => {}
            '\n' => unescaped.push('\n'),
            char if char.is_whitespace() => unescaped.push(' '),
            char => unescaped.push(char),
        }
    }
    unescaped
}

fn is_path(text: &str) -> bool {
    const ENDINGS: [&str; 10] = [
        "pem", "key", "crt", "cer", "der", "p8", "pk8", "pfx", "p12", "jks",
    ];
    let text = text.trim();
    let ending = text.rsplit_once('.').map_or("", |(_, ending)| ending);
    !text.contains('\n')
        && text.len() < 4096
        && (ENDINGS
            .iter()
            .any(|known| ending.eq_ignore_ascii_case(known))
            || text.starts_with(['/', '~', '.'])
            || text.starts_with("file:"))
}
