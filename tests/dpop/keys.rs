//! Keys: made, read, written, named, and not shown.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
};
use tower_salesforce_auth::{ErrorKind, Session, oauth::DpopKey, store::Record};

/// The PKCS #8 of a key in DER.
fn der(key: &DpopKey) -> Vec<u8> {
    let pem = key.to_pem();
    let body: String = pem
        .expose()
        .lines()
        .filter(|line| !line.contains("---"))
        .collect();
    STANDARD.decode(body).unwrap()
}

#[test]
fn r35_a_key_is_read_as_it_was_written() {
    let key = DpopKey::generate().unwrap();
    let pem = key.to_pem();
    assert!(pem.expose().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    let one_line = pem.expose().replace('\n', "\\n");
    let body = STANDARD.encode(der(&key));
    for text in [pem.expose(), &one_line, &body] {
        assert_eq!(DpopKey::from_pem(text).unwrap(), key);
    }
    assert_eq!(DpopKey::from_pem(der(&key)).unwrap(), key);
    assert_ne!(DpopKey::generate().unwrap(), key);
    assert_eq!(key.thumbprint().len(), 43);
}

#[test]
fn r35_a_key_in_sec_1_is_read() {
    let key = DpopKey::generate().unwrap();
    // The `ECPrivateKey` is the last element of the PKCS #8.
    let der = der(&key);
    let sec_1 = STANDARD.encode(&der[der.len() - 0x6d..]);
    let pem = format!("-----BEGIN EC PRIVATE KEY-----\n{sec_1}\n-----END EC PRIVATE KEY-----\n");
    assert_eq!(DpopKey::from_pem(pem).unwrap(), key);
}

#[test]
fn r35_debug_of_a_key_shows_its_thumbprint_only() {
    let key = DpopKey::generate().unwrap();
    let shown = format!("{key:?} {:?}", key.to_pem());
    assert!(shown.contains(key.thumbprint()), "{shown}");
    for line in key.to_pem().expose().lines().skip(1) {
        assert!(!shown.contains(line), "{shown}");
    }
}

#[test]
fn r35_another_kind_of_key_is_named() {
    for (kind, algorithm) in [
        ("P-384", &PKCS_ECDSA_P384_SHA384),
        ("P-521", &PKCS_ECDSA_P521_SHA512),
        ("RSA", &PKCS_RSA_SHA256),
        ("Ed25519", &PKCS_ED25519),
    ] {
        let pem = KeyPair::generate_for(algorithm).unwrap().serialize_pem();
        let error = DpopKey::from_pem(pem).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        let told = error.to_string();
        assert!(told.contains(kind) && told.contains("P-256"), "{told}");
        assert!(told.contains("openssl genpkey"), "{told}");
    }
}

#[test]
fn r35_what_is_no_private_key_is_named() {
    for (label, expected) in [
        ("PUBLIC KEY", "public key"),
        ("ENCRYPTED PRIVATE KEY", "encrypted"),
        ("PRIVATE KEY", "damaged"),
        ("RSA PRIVATE KEY", "RSA"),
    ] {
        let pem = format!("-----BEGIN {label}-----\nMFkwAAAA\n-----END {label}-----");
        let told = DpopKey::from_pem(pem).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }
    for (text, expected) in [("", "empty"), (r#"{"kty":"EC"}"#, "JSON Web Key")] {
        let told = DpopKey::from_pem(text).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }
}

fn encrypted(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/encrypted_keys");
    std::fs::read(format!("{folder}/{name}")).unwrap()
}

#[test]
fn r35_an_encrypted_key_is_read_with_its_pass_phrase() {
    let expected = DpopKey::from_pem(encrypted("pkcs8_ec_plain.der")).unwrap();
    for name in [
        "pkcs8_ec.pem",
        "pkcs8_ec.der",
        "pkcs12_ec.p12",
        "pkcs8_ec_plain.der",
    ] {
        let key = DpopKey::from_encrypted(encrypted(name), "hunter2\n");
        assert_eq!(key.unwrap(), expected, "{name}");
    }
    let pem = expected.to_pem();
    let key = DpopKey::from_encrypted(pem.expose(), "not needed");
    assert_eq!(key.unwrap(), expected);
}

#[test]
fn r35_an_encrypted_key_that_cannot_be_read_is_named() {
    for (name, pass_phrase, expected) in [
        ("pkcs8_ec.pem", "hunter3", "the pass phrase is not that of"),
        ("pkcs8_ec.der", "", "the pass phrase is not that of"),
        ("pkcs12_ec.p12", "hunter3", "the pass phrase is not that of"),
        ("old_ec_3des.pem", "hunter2", "openssl pkcs8 -topk8"),
        ("pkcs8_aes256_sha256.pem", "hunter2", "it is an RSA key"),
        ("pkcs12.p12", "hunter2", "it is an RSA key"),
        ("pkcs12_nokey.p12", "hunter2", "there is no PEM block"),
    ] {
        let error = DpopKey::from_encrypted(encrypted(name), pass_phrase).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        let told = format!("{error} {error:?}");
        assert!(told.contains(expected), "{name}: {told}");
        assert!(!told.contains("hunter"), "{told}");
    }
    for name in ["pkcs8_ec.pem", "pkcs8_ec.der", "pkcs12_ec.p12"] {
        let told = DpopKey::from_pem(encrypted(name)).unwrap_err().to_string();
        assert!(told.contains("key-formats"), "{name}: {told}");
    }
}

/// Other programs leave out the public key, or write the private key alone.
#[test]
fn r36_a_key_of_any_form_is_stored_whole() {
    let key = DpopKey::generate().unwrap();
    let whole = der(&key);
    let at = whole.windows(2).position(|pair| pair == [4, 0x20]).unwrap() + 2;
    let sequence = |tag: u8, parts: &[&[u8]]| {
        let content = parts.concat();
        let length = u8::try_from(content.len()).unwrap();
        [&[tag, length], &content[..]].concat()
    };
    let octets = sequence(4, &[&whole[at..at + 32]]);
    let p_256 = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    let ec = [6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    let sec_1 = sequence(0x30, &[&[2, 1, 1], &octets, &sequence(0xa0, &[&p_256])]);
    let bare = sequence(0x30, &[&[2, 1, 1], &octets]);
    let algorithm = sequence(0x30, &[&ec, &p_256]);
    let pkcs_8 = sequence(0x30, &[&[2, 1, 0], &algorithm, &sequence(4, &[&bare])]);
    for der in [sec_1, pkcs_8, whole.clone()] {
        let read = DpopKey::from_pem(der).unwrap();
        assert_eq!(read, key);
        let session = Session::new("T0", "https://a.my.salesforce.com").unwrap();
        let record = Record::new(session.with_dpop_key(read)).encode();
        let record = Record::decode(record.expose()).unwrap();
        assert_eq!(record.session().dpop_key(), Some(&key));
    }
    let with = |scalar: [u8; 32]| {
        let mut der = whole.clone();
        der[at..at + 32].copy_from_slice(&scalar);
        der
    };
    for damaged in [
        with([0; 32]),
        with([0xff; 32]),
        // Not the private key of the public one.
        with([1; 32]),
        whole[..whole.len() - 1].to_vec(),
        b"\xff\xfe\0".to_vec(),
        vec![0; 100_000],
    ] {
        let error = DpopKey::from_pem(damaged).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        assert!(error.to_string().contains("DPoP key"), "{error}");
    }
}
