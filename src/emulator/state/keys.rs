//! The RSA keys of the connected app and of the org.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::emulator::wire::jwt;

/// The `kid` of the org's key.
pub(crate) const KID: &str = "248";

/// All orgs of the process share the keys. Making one takes a while, so it happens on first use.
static APP: LazyLock<Key> = LazyLock::new(Key::generate);
static ORG: LazyLock<Key> = LazyLock::new(Key::generate);

/// A key pair and its encodings.
pub(crate) struct Key {
    pair: KeyPair,
    /// `PrivateKeyInfo` (RFC 5208).
    pkcs8: Vec<u8>,
    /// `SubjectPublicKeyInfo` (RFC 5280 §4.1).
    spki: Vec<u8>,
}

impl Key {
    /// The key of the connected app. Its public half is the app's certificate.
    pub(crate) fn of_app() -> &'static Self {
        &APP
    }

    /// The key of the org, published at `/id/keys`.
    pub(crate) fn of_org() -> &'static Self {
        &ORG
    }

    fn generate() -> Self {
        let made = || {
            let pair = KeyPair::generate(KeySize::Rsa2048)?;
            let pkcs8 = pair.as_der()?.as_ref().to_vec();
            let spki = pair.public_key().as_der()?.as_ref().to_vec();
            Ok::<_, aws_lc_rs::error::Unspecified>(Self { pair, pkcs8, spki })
        };
        #[expect(clippy::expect_used, reason = "depends on no input")]
        made().expect("a machine with memory and entropy can make an RSA key")
    }

    /// Signs `claims` as a JWT. `header` must contain `"alg": "RS256"`.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        jwt::sign(&self.pair, header, claims)
    }

    /// The claims of `token`. `None` if this key did not sign it with RS256.
    pub(crate) fn verify(&self, token: &str) -> Option<Value> {
        jwt::verify(&self.pair, token)
    }

    /// Modulus and exponent, big-endian without leading zeros.
    pub(crate) fn public_numbers(&self) -> Option<(&[u8], &[u8])> {
        // RSAPublicKey (RFC 8017 A.1.1).
        let (fields, _) = der_content(self.pair.public_key().as_ref())?;
        let (modulus, rest) = der_content(fields)?;
        let (exponent, _) = der_content(rest)?;
        // A DER integer whose first bit is set has a zero byte before it.
        let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
        Some((modulus, exponent))
    }

    /// The private key as PKCS#8.
    pub(crate) fn pkcs8_pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8)
    }

    /// The private key as PKCS#1.
    pub(crate) fn pkcs1_pem(&self) -> String {
        pem("RSA PRIVATE KEY", self.pkcs1().unwrap_or_default())
    }

    /// The public key.
    pub(crate) fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki)
    }

    /// The `RSAPrivateKey` (RFC 8017 A.1.2) in the `PrivateKeyInfo`.
    fn pkcs1(&self) -> Option<&[u8]> {
        let (fields, _) = der_content(&self.pkcs8)?;
        let (_version, rest) = der_content(fields)?;
        let (_algorithm, rest) = der_content(rest)?;
        let (private_key, _) = der_content(rest)?;
        Some(private_key)
    }
}

/// The content of the first DER element, and the bytes after the element.
fn der_content(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let [_tag, length, rest @ ..] = input else {
        return None;
    };
    let (length, rest) = if *length < 0x80 {
        (usize::from(*length), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(*length & 0x7f))?;
        let length = bytes.iter().try_fold(0_usize, |length, byte| {
            length.checked_mul(256)?.checked_add(usize::from(*byte))
        })?;
        (length, rest)
    };
    rest.split_at_checked(length)
}

/// Encodes DER as PEM (RFC 7468 §2).
fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_der_key_are_the_key() {
        let key = Key::of_app();
        assert!(KeyPair::from_pkcs8(&key.pkcs8).is_ok());
        assert!(KeyPair::from_der(key.pkcs1().unwrap()).is_ok());
        let (modulus, exponent) = key.public_numbers().unwrap();
        assert_eq!(modulus.len(), 256);
        assert_ne!(modulus[0], 0);
        assert_eq!(exponent, [1, 0, 1]);
    }

    #[test]
    fn truncated_der_has_no_element() {
        for broken in [
            &[][..],
            &[0x30],
            &[0x30, 1],
            &[0x30, 0x82, 1],
            &[0x30, 0xff, 1],
        ] {
            assert_eq!(der_content(broken), None, "{broken:?}");
        }
        assert_eq!(der_content(&[4, 1, 7, 5]), Some((&[7][..], &[5][..])));
    }

    #[test]
    fn pem_lines_have_64_characters() {
        let text = pem("PUBLIC KEY", &[0; 60]);
        let lines: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lines, [26, 64, 16, 24]);
    }
}
