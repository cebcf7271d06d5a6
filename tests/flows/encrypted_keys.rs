//! Private keys that are encrypted with a pass phrase, as OpenSSL and Java write them.
//!
//! `encrypted_keys/README.md` has the commands that made the files. All of them have one RSA key, which only these tests use.

use std::{
    fs,
    time::{Duration, UNIX_EPOCH},
};

use proptest::prelude::*;
use tower_salesforce_auth::{
    ErrorKind, LoginUrl, RefreshFn,
    flow::JwtBearer,
    oauth::{App, PrivateKey},
};

use crate::support::{answering, first_login, form_of, recorded};

const PASS_PHRASE: &str = "hunter2";

fn file(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/encrypted_keys");
    fs::read(format!("{folder}/{name}")).unwrap()
}

/// What the key signs, always at the same time. RS256 signs alike each time.
async fn signature(key: PrivateKey) -> String {
    let (client, requests) = recorded(answering(400, &[], "{}"));
    let app = App::new(LoginUrl::production(), "3MVG9");
    let flow = JwtBearer::new(client, app, "user@example.com", key)
        .clock(|| UNIX_EPOCH + Duration::from_secs(1_750_000_000));
    let _ = flow.refresh(first_login()).await;
    form_of(&requests.take())[1].1.clone()
}

fn refusal(file: Vec<u8>, pass_phrase: &str) -> String {
    let error = PrivateKey::from_encrypted(file, pass_phrase).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    let told = format!("{error} {error:?} {error:#?}");
    assert!(
        !told.contains(PASS_PHRASE) && !told.contains("pässw"),
        "{told}"
    );
    error.to_string()
}

#[tokio::test]
async fn an_encrypted_key_of_any_current_form_is_read() {
    let expected = signature(PrivateKey::from_pem(file("pkcs8.der")).unwrap()).await;
    for (name, pass_phrase) in [
        ("pkcs8_aes256_sha256.pem", PASS_PHRASE),
        ("pkcs8_aes256_sha384.pem", PASS_PHRASE),
        ("pkcs8_aes128_sha1.pem", PASS_PHRASE),
        ("pkcs8_aes192_sha512.der", PASS_PHRASE),
        ("pkcs8_empty.pem", ""),
        ("pkcs12.p12", PASS_PHRASE),
        ("pkcs12.p12", "hunter2\n"),
        ("pkcs12.p12", "hunter2\r\n"),
        ("pkcs12_sha512.p12", PASS_PHRASE),
        ("pkcs12_nomac.p12", PASS_PHRASE),
        ("pkcs12_none.p12", PASS_PHRASE),
        ("pkcs12_empty.p12", ""),
        ("pkcs12_unicode.p12", "pässwörd ✓"),
        ("pkcs12_converted.pem", PASS_PHRASE),
        ("keytool.p12", PASS_PHRASE),
        // They are not encrypted.
        ("pkcs1.der", PASS_PHRASE),
        ("pkcs8.der", "not needed"),
    ] {
        let key = PrivateKey::from_encrypted(file(name), pass_phrase);
        let key = key.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(format!("{key:?}"), "PrivateKey([redacted])");
        assert_eq!(signature(key).await, expected, "{name}");
    }
    let plain = PrivateKey::from_pem(file("pkcs1.der")).unwrap();
    assert_eq!(signature(plain).await, expected);
}

/// As environments and secret managers hand it on.
#[tokio::test]
async fn r40_an_encrypted_key_in_another_dress_is_read() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let expected = signature(PrivateKey::from_pem(file("pkcs8.der")).unwrap()).await;
    let pem = String::from_utf8(file("pkcs8_aes256_sha256.pem")).unwrap();
    for dressed in [
        pem.replace('\n', "\\n").into_bytes(),
        pem.replace('\n', " ").into_bytes(),
        format!("\u{feff}\"{pem}\"").into_bytes(),
        STANDARD.encode(&pem).into_bytes(),
        STANDARD.encode(file("pkcs12.p12")).into_bytes(),
        STANDARD
            .encode(file("pkcs8_aes192_sha512.der"))
            .into_bytes(),
    ] {
        let key = PrivateKey::from_encrypted(dressed, PASS_PHRASE).unwrap();
        assert_eq!(signature(key).await, expected);
    }
}

#[test]
fn a_wrong_pass_phrase_is_named() {
    for name in [
        "pkcs8_aes256_sha256.pem",
        "pkcs8_aes128_sha1.pem",
        "pkcs8_aes192_sha512.der",
        "pkcs12.p12",
        "pkcs12_sha512.p12",
        "pkcs12_nomac.p12",
        "pkcs12_unicode.p12",
        "old_pkcs12.p12",
        "keytool.p12",
    ] {
        for pass_phrase in ["", "hunter3", "hunter2 ", "Hunter2"] {
            let told = refusal(file(name), pass_phrase);
            assert!(
                told.contains("the pass phrase is not that of"),
                "{name}: {told}"
            );
        }
    }
}

#[test]
fn an_old_cipher_is_refused_with_the_command_that_converts() {
    for (name, words) in [
        ("old_pbes1_3des.pem", ["3DES", "openssl pkcs8 -topk8"]),
        ("old_pbes1_des.pem", ["DES", "-provider legacy"]),
        (
            "old_pbes2_3des.pem",
            ["another cipher than AES", "openssl pkcs8 -topk8"],
        ),
        ("old_scrypt.pem", ["scrypt", "openssl pkcs8 -topk8"]),
        ("old_pkcs12.p12", ["RC2", "openssl pkcs12 -legacy"]),
        (
            "traditional.pem",
            ["traditional form", "openssl pkcs8 -topk8"],
        ),
        ("keytool.jks", ["Java keystore", "-deststoretype pkcs12"]),
        ("pkcs12_nokey.p12", ["it is a certificate", "key file"]),
        ("pkcs8_ec.pem", ["no RSA key", "2048"]),
    ] {
        let told = refusal(file(name), PASS_PHRASE);
        assert!(
            words.iter().all(|word| told.contains(word)),
            "{name}: {told}"
        );
    }
    // As BER, with an indefinite length.
    let told = refusal(vec![0x30, 0x80, 2, 1, 3, 0, 0], PASS_PHRASE);
    assert!(
        told.contains("no RSA key") && told.contains("PKCS #12"),
        "{told}"
    );
}

#[test]
fn an_encrypted_key_without_a_pass_phrase_says_how_to_read_it() {
    for name in [
        "pkcs8_aes256_sha256.pem",
        "pkcs12.p12",
        "pkcs8_aes192_sha512.der",
    ] {
        let error = PrivateKey::from_pem(file(name)).unwrap_err();
        let told = error.to_string();
        assert!(
            told.contains("encrypted") && told.contains("`key-formats`"),
            "{name}: {told}"
        );
    }
}

/// A key that takes minutes to derive would keep the process busy.
#[test]
fn a_key_of_countless_iterations_is_refused() {
    let mut der = file("pkcs8_aes192_sha512.der");
    let iterations = [0x02, 0x02, 0x08, 0x00];
    let at = der.windows(4).position(|part| part == iterations).unwrap();
    // As long as before: the octet string of the salt is shortened by two bytes.
    let salt = at - 8;
    assert_eq!(der[salt - 2..salt], [0x04, 0x08]);
    der[salt - 1] = 6;
    der.splice(salt + 6..at + 4, [0x02, 0x04, 0x7f, 0xff, 0xff, 0xff]);
    let told = refusal(der, PASS_PHRASE);
    assert!(told.contains("10,000,000 iterations"), "{told}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any change of any byte is an error or the same key, and never a panic.
    #[test]
    fn a_damaged_archive_is_an_error(
        name in prop::sample::select(vec!["pkcs12.p12", "pkcs12_nomac.p12", "pkcs8_aes192_sha512.der", "keytool.p12"]),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut damaged = file(name);
        let at = at.index(damaged.len());
        if cut {
            damaged.truncate(at);
        } else {
            damaged[at] = byte;
        }
        if let Err(error) = PrivateKey::from_encrypted(damaged, PASS_PHRASE) {
            prop_assert_eq!(error.kind(), ErrorKind::InvalidKey);
        }
    }
}
