//! Encryption with a pass phrase: PBES2 of PKCS #5 (RFC 8018 §6.2).

use std::num::NonZeroU32;

use aws_lc_rs::{
    cipher::{
        AES_128, AES_128_KEY_LEN, AES_192, AES_192_KEY_LEN, AES_256, AES_256_KEY_LEN,
        DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
    },
    iv::FixedLength,
    pbkdf2,
};
use zeroize::Zeroizing;

use crate::text::der::{OCTET_STRING, Reader};

/// Why something cannot be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is not DER, or not of the form that its format has.
    Damaged,
    WrongPassPhrase,
    /// It is encrypted in this way.
    Unsupported(&'static str),
}

/// More iterations than any program writes: a file must not keep the process busy for minutes.
pub(super) const MOST_ITERATIONS: u32 = 10_000_000;

const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
const SCRYPT: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x04, 0x0b];
/// The arcs of PBES1 in PKCS #5 and in PKCS #12.
const PBES1: [&[u8]; 2] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01],
];
/// The arc of AES, and in it CBC with each length of key.
const AES: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];
/// The arc of HMAC.
const HMAC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02];

/// Whether this is an `EncryptedPrivateKeyInfo` (RFC 5958 §3).
pub(super) fn is_encrypted_key(der: &[u8]) -> bool {
    let parsed = || {
        let mut info = Reader::of_sequence(der)?;
        info.algorithm()?;
        info.read(OCTET_STRING)?;
        info.is_empty().then_some(())
    };
    parsed().is_some()
}

/// Decrypts an `EncryptedPrivateKeyInfo` (RFC 5958 §3). Returns a `PrivateKeyInfo`.
pub(super) fn decrypt_key(der: &[u8], pass_phrase: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut info = Reader::of_sequence(der).ok_or(Failure::Damaged)?;
    let (algorithm, parameters) = info.algorithm().ok_or(Failure::Damaged)?;
    let ciphertext = info.read(OCTET_STRING).ok_or(Failure::Damaged)?;
    decrypt(algorithm, parameters, ciphertext, pass_phrase)
}

/// Decrypts with an encryption scheme of PKCS #5. What is decrypted is DER: one sequence.
pub(super) fn decrypt(
    algorithm: &[u8],
    parameters: Reader<'_>,
    ciphertext: &[u8],
    pass_phrase: &str,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if algorithm != PBES2 {
        let is_old = PBES1
            .iter()
            .any(|arc| algorithm.len() == arc.len() + 1 && algorithm.starts_with(arc));
        return Err(Failure::Unsupported(if is_old {
            "one of the old ciphers DES, 3DES, RC2 and RC4"
        } else {
            "an encryption that is not PBES2"
        }));
    }
    let mut parameters = parameters;
    let mut parameters = parameters.sequence().ok_or(Failure::Damaged)?;
    let derivation = parameters.algorithm().ok_or(Failure::Damaged)?;
    let (cipher, mut iv) = parameters.algorithm().ok_or(Failure::Damaged)?;
    let (algorithm, key_len) = match cipher.strip_prefix(AES) {
        Some([2]) => (&AES_128, AES_128_KEY_LEN),
        Some([22]) => (&AES_192, AES_192_KEY_LEN),
        Some([42]) => (&AES_256, AES_256_KEY_LEN),
        Some(_) => return Err(Failure::Unsupported("AES in another mode than CBC")),
        None => return Err(Failure::Unsupported("another cipher than AES")),
    };
    let iv = iv.read(OCTET_STRING).and_then(|iv| iv.try_into().ok());
    let iv: [u8; 16] = iv.ok_or(Failure::Damaged)?;
    let mut key = Zeroizing::new(vec![0; key_len]);
    derive(derivation, pass_phrase, &mut key)?;

    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    let key = UnboundCipherKey::new(algorithm, &key)
        .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
        .map_err(|_| Failure::Damaged)?;
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let length = key
        .decrypt(&mut plaintext, context)
        .map_err(|_| Failure::WrongPassPhrase)?
        .len();
    plaintext.truncate(length);
    // The padding is right by chance for one pass phrase of 256.
    if Reader::of_sequence(&plaintext).is_none() {
        return Err(Failure::WrongPassPhrase);
    }
    Ok(plaintext)
}

/// Derives a key from the pass phrase with PBKDF2 (RFC 8018 §5.2).
fn derive(
    (function, mut parameters): (&[u8], Reader<'_>),
    pass_phrase: &str,
    key: &mut [u8],
) -> Result<(), Failure> {
    if function == SCRYPT {
        return Err(Failure::Unsupported("a key that scrypt derives"));
    }
    if function != PBKDF2 {
        return Err(Failure::Unsupported("a key that PBKDF2 does not derive"));
    }
    let mut parameters = parameters.sequence().ok_or(Failure::Damaged)?;
    let salt = parameters.read(OCTET_STRING).ok_or(Failure::Damaged)?;
    let iterations = parameters.number().ok_or(Failure::Damaged)?;
    let _key_len = parameters.number();
    let algorithm = if parameters.is_empty() {
        pbkdf2::PBKDF2_HMAC_SHA1
    } else {
        let (hmac, _) = parameters.algorithm().ok_or(Failure::Damaged)?;
        match hmac.strip_prefix(HMAC) {
            Some([7]) => pbkdf2::PBKDF2_HMAC_SHA1,
            Some([9]) => pbkdf2::PBKDF2_HMAC_SHA256,
            Some([10]) => pbkdf2::PBKDF2_HMAC_SHA384,
            Some([11]) => pbkdf2::PBKDF2_HMAC_SHA512,
            _ => return Err(Failure::Unsupported("a key that an unusual hash derives")),
        }
    };
    let iterations = checked(iterations)?;
    pbkdf2::derive(algorithm, iterations, salt, pass_phrase.as_bytes(), key);
    Ok(())
}

pub(super) fn checked(iterations: u32) -> Result<NonZeroU32, Failure> {
    if iterations > MOST_ITERATIONS {
        return Err(Failure::Unsupported(
            "a key that more than 10,000,000 iterations derive",
        ));
    }
    NonZeroU32::new(iterations).ok_or(Failure::Damaged)
}
