//! Archives with a private key and its certificates: PKCS #12 (RFC 7292).

use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

use super::pbes2::{self, Failure};
use crate::text::{
    der::{CONTEXT_0, IMPLICIT_0, OBJECT_ID, OCTET_STRING, Reader, SEQUENCE},
    pem::Block,
};

/// The content types of PKCS #7 (RFC 2315 §14).
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06];
/// The arc of the kinds of bags (RFC 7292 appendix D).
const BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01];
const X509: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];
const SHA_1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
/// The arc of SHA-2.
const SHA_2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// Whether this is an archive: version 3, and a content of PKCS #7.
pub(super) fn is_archive(der: &[u8]) -> bool {
    let parsed = || {
        let mut archive = Reader::of_sequence(der)?;
        let version = archive.number()?;
        let mut content = archive.sequence()?;
        content.read(OBJECT_ID)?;
        (version == 3).then_some(())
    };
    parsed().is_some()
}

/// Reads the private keys and certificates of an archive, in its order.
pub(super) fn read(der: &[u8], pass_phrase: &str) -> Result<Vec<Block>, Failure> {
    let (content, mac) = parts(der).ok_or(Failure::Damaged)?;
    // First: it tells a wrong pass phrase from a cipher that is not read.
    verify(mac, content, pass_phrase)?;
    let mut blocks = Vec::new();
    let mut safes = Reader::of_sequence(content).ok_or(Failure::Damaged)?;
    while !safes.is_empty() {
        let safe = Safe::next(&mut safes).ok_or(Failure::Damaged)?;
        safe.read(pass_phrase, &mut blocks)?;
    }
    Ok(blocks)
}

/// What is authenticated, and the elements of its MAC. The latter are empty if there is none.
fn parts(der: &[u8]) -> Option<(&[u8], Reader<'_>)> {
    let mut archive = Reader::of_sequence(der)?;
    archive.number()?;
    let mut content = archive.sequence()?;
    // The alternative is a signature with a key of its own, which no program writes.
    if content.read(OBJECT_ID)? != DATA {
        return None;
    }
    let content = Reader::new(content.read(CONTEXT_0)?).read(OCTET_STRING)?;
    let mac = match archive.tag() {
        Some(SEQUENCE) => archive.sequence()?,
        _ => Reader::new(&[]),
    };
    Some((content, mac))
}

/// A group of bags.
enum Safe<'a> {
    Plain(&'a [u8]),
    Encrypted {
        algorithm: &'a [u8],
        parameters: Reader<'a>,
        ciphertext: &'a [u8],
    },
}

impl<'a> Safe<'a> {
    fn next(safes: &mut Reader<'a>) -> Option<Self> {
        let mut safe = safes.sequence()?;
        let kind = safe.read(OBJECT_ID)?;
        let mut content = Reader::new(safe.read(CONTEXT_0)?);
        match kind {
            DATA => content.read(OCTET_STRING).map(Self::Plain),
            ENCRYPTED_DATA => {
                let mut data = content.sequence()?;
                data.number()?;
                let mut info = data.sequence()?;
                info.read(OBJECT_ID)?;
                let (algorithm, parameters) = info.algorithm()?;
                let ciphertext = info.read(IMPLICIT_0)?;
                Some(Self::Encrypted {
                    algorithm,
                    parameters,
                    ciphertext,
                })
            }
            _ => None,
        }
    }

    fn read(self, pass_phrase: &str, blocks: &mut Vec<Block>) -> Result<(), Failure> {
        match self {
            Self::Plain(bags) => read_bags(bags, pass_phrase, blocks),
            Self::Encrypted {
                algorithm,
                parameters,
                ciphertext,
            } => {
                let bags = pbes2::decrypt(algorithm, parameters, ciphertext, pass_phrase)?;
                read_bags(&bags, pass_phrase, blocks)
            }
        }
    }
}

/// Reads the keys and certificates among these bags. Other bags are skipped.
fn read_bags(bags: &[u8], pass_phrase: &str, blocks: &mut Vec<Block>) -> Result<(), Failure> {
    let mut bags = Reader::of_sequence(bags).ok_or(Failure::Damaged)?;
    while !bags.is_empty() {
        let (kind, value) = bag(&mut bags).ok_or(Failure::Damaged)?;
        match kind.strip_prefix(BAG) {
            Some([1]) => blocks.push(Block::new("PRIVATE KEY", value)),
            Some([2]) => {
                let key = pbes2::decrypt_key(value, pass_phrase)?;
                blocks.push(Block::new("PRIVATE KEY", &key));
            }
            Some([3]) => {
                let (kind, der) = certificate(value).ok_or(Failure::Damaged)?;
                if kind == X509 {
                    blocks.push(Block::new("CERTIFICATE", der));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The kind and the value of the next bag.
fn bag<'a>(bags: &mut Reader<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let mut bag = bags.sequence()?;
    let kind = bag.read(OBJECT_ID)?;
    let value = bag.read(CONTEXT_0)?;
    Some((kind, value))
}

/// The kind of the certificate in a bag, and the certificate.
fn certificate(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut bag = Reader::of_sequence(value)?;
    let kind = bag.read(OBJECT_ID)?;
    let der = Reader::new(bag.read(CONTEXT_0)?).read(OCTET_STRING)?;
    Some((kind, der))
}

// === The MAC ===

/// Verifies the MAC (RFC 7292 §4). An archive without one passes: it shows by its padding that the pass phrase is wrong.
fn verify(mac: Reader<'_>, content: &[u8], pass_phrase: &str) -> Result<(), Failure> {
    if mac.is_empty() {
        return Ok(());
    }
    let mut mac = mac;
    let mut parse = || {
        let mut info = mac.sequence()?;
        let (hash, _) = info.algorithm()?;
        let digest = info.read(OCTET_STRING)?;
        let salt = mac.read(OCTET_STRING)?;
        let iterations = if mac.is_empty() { 1 } else { mac.number()? };
        Some((hash, digest, salt, iterations))
    };
    let (hash, expected, salt, iterations) = parse().ok_or(Failure::Damaged)?;
    let (hash, hmac) = match (hash, hash.strip_prefix(SHA_2)) {
        (SHA_1, _) => (
            &digest::SHA1_FOR_LEGACY_USE_ONLY,
            hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        ),
        (_, Some([1])) => (&digest::SHA256, hmac::HMAC_SHA256),
        (_, Some([2])) => (&digest::SHA384, hmac::HMAC_SHA384),
        (_, Some([3])) => (&digest::SHA512, hmac::HMAC_SHA512),
        _ => return Err(Failure::Unsupported("a MAC that is not HMAC with SHA")),
    };
    let iterations = pbes2::checked(iterations)?.get();
    // Without a pass phrase some programs take the empty string, and some none.
    let mut pass_phrases = vec![bmp_string(pass_phrase)];
    if pass_phrase.is_empty() {
        pass_phrases.push(Zeroizing::default());
    }
    let is_right = pass_phrases.iter().any(|pass_phrase| {
        let key = mac_key(hash, salt, pass_phrase, iterations);
        let key = hmac::Key::new(hmac, &key);
        hmac::verify(&key, content, expected).is_ok()
    });
    if is_right {
        Ok(())
    } else {
        Err(Failure::WrongPassPhrase)
    }
}

/// The pass phrase in UTF-16, with a zero at its end (RFC 7292 appendix B.1).
fn bmp_string(pass_phrase: &str) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(2 * pass_phrase.len() + 2));
    for unit in pass_phrase.encode_utf16().chain([0]) {
        text.extend_from_slice(&unit.to_be_bytes());
    }
    text
}

/// Derives the key of the MAC (RFC 7292 appendix B.2): as long as the digest, so it takes one block.
fn mac_key(
    hash: &'static digest::Algorithm,
    salt: &[u8],
    pass_phrase: &[u8],
    iterations: u32,
) -> Zeroizing<Vec<u8>> {
    /// The purpose "MAC" (appendix B.3).
    const ID: u8 = 3;
    let block = hash.block_len();
    let repeated = |part: &[u8]| {
        let length = part.len().div_ceil(block) * block;
        part.iter()
            .copied()
            .cycle()
            .take(length)
            .collect::<Vec<u8>>()
    };
    let mut input = Zeroizing::new(vec![ID; block]);
    let pass_phrase = Zeroizing::new(repeated(pass_phrase));
    input.reserve_exact(salt.len() + block + pass_phrase.len());
    input.extend_from_slice(&repeated(salt));
    input.extend_from_slice(&pass_phrase);
    let mut key = Zeroizing::new(digest::digest(hash, &input).as_ref().to_vec());
    for _ in 1..iterations {
        let next = digest::digest(hash, &key);
        key.copy_from_slice(next.as_ref());
    }
    key
}
