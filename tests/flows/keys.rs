//! Private keys as they come out of environments, secret managers, editors and other tools (R40).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use tower_salesforce_auth::{ErrorKind, emulator::Org, oauth::PrivateKey};

fn pem() -> String {
    Org::new().jwt_private_key().clone()
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).unwrap()
}

fn relabelled(pem: &str) -> String {
    if pem.contains("BEGIN PRIVATE KEY") {
        pem.replace("PRIVATE KEY", "RSA PRIVATE KEY")
    } else {
        pem.replace("RSA PRIVATE KEY", "PRIVATE KEY")
    }
}

/// octokit/app.js#40, auth0/node-jsonwebtoken#191, grafana/grafana-infinity-datasource#954.
#[test]
fn r40_a_private_key_in_another_dress_is_used() {
    let pem = pem();
    let lines: Vec<_> = pem.trim().lines().collect();
    let utf_16 = |order: fn(u16) -> [u8; 2]| {
        format!("\u{feff}{pem}")
            .encode_utf16()
            .flat_map(order)
            .collect::<Vec<u8>>()
    };
    for (name, dressed) in [
        ("escaped line breaks", lines.join("\\n").into_bytes()),
        ("escaped CRLF", lines.join("\\r\\n").into_bytes()),
        ("escaped twice", lines.join("\\\\n").into_bytes()),
        ("continued lines", lines.join("\\\n").into_bytes()),
        (
            "in quotes",
            format!("\"{}\"", lines.join("\\n")).into_bytes(),
        ),
        ("in single quotes", format!("'{pem}'").into_bytes()),
        ("in one line", lines.join(" ").into_bytes()),
        ("without line breaks", lines.concat().into_bytes()),
        ("CRLF", lines.join("\r\n").into_bytes()),
        ("CR", lines.join("\r").into_bytes()),
        ("byte order mark", format!("\u{feff}{pem}").into_bytes()),
        ("UTF-16LE", utf_16(u16::to_le_bytes)),
        ("UTF-16BE", utf_16(u16::to_be_bytes)),
        ("indented", format!("  {}", lines.join("\n  ")).into_bytes()),
        ("tabs", format!("\t{}", lines.join("\n\t")).into_bytes()),
        (
            "blanks that do not break",
            lines.join("\n\u{a0}").into_bytes(),
        ),
        ("trailing blanks", lines.join("  \n").into_bytes()),
        ("empty lines", lines.join("\n\n").into_bytes()),
        ("in Base64", STANDARD.encode(&pem).into_bytes()),
        (
            "in Base64 twice dressed",
            format!("\"{}\"\n", STANDARD.encode(lines.join("\\n"))).into_bytes(),
        ),
        ("Base64 of the DER", STANDARD.encode(der(&pem)).into_bytes()),
        ("DER", der(&pem)),
        ("the label of the other kind", relabelled(&pem).into_bytes()),
        (
            "among other text",
            format!("# my key\n{pem}\n# end\n").into_bytes(),
        ),
    ] {
        if let Err(error) = PrivateKey::from_pem(dressed) {
            panic!("{name}: {error}");
        }
    }
}

#[test]
fn r40_what_is_no_private_key_is_named_with_a_remedy() {
    let pem = pem();
    let block =
        |label: &str| format!("-----BEGIN {label}-----\nb3BlbnNzaA==\n-----END {label}-----\n");
    let cut = &pem[..pem.len() / 2];
    for (text, words) in [
        (
            "certificates/server.key".to_owned(),
            ["path", "text of the file"],
        ),
        (
            "/run/secrets/salesforce.pem\n".to_owned(),
            ["path", "text of the file"],
        ),
        ("C:\\keys\\new.pem".to_owned(), ["path", "text of the file"]),
        ("~/.ssh/id_rsa".to_owned(), ["path", "text of the file"]),
        (block("OPENSSH PRIVATE KEY"), ["OpenSSH", "ssh-keygen"]),
        (
            "PuTTY-User-Key-File-3: ssh-rsa\nEncryption: none\n".to_owned(),
            ["PuTTY", "puttygen"],
        ),
        (
            "ssh-rsa AAAAB3NzaC1yc2E user@host".to_owned(),
            ["SSH", "private key"],
        ),
        (block("PGP PRIVATE KEY BLOCK"), ["PGP", "PEM"]),
        (block("ENCRYPTED PRIVATE KEY"), ["encrypted", "openssl"]),
        (
            pem.replace(
                "KEY-----\nMII",
                "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMII",
            ),
            ["encrypted", "openssl"],
        ),
        (
            block("CERTIFICATE REQUEST"),
            ["certificate request", "use what"],
        ),
        (block("EC PRIVATE KEY"), ["elliptic curve", "RS256"]),
        (
            "{\"kty\":\"RSA\",\"n\":\"AQAB\"}".to_owned(),
            ["JSON Web Key", "PEM"],
        ),
        ("{\"private\":\"x\"}".to_owned(), ["JSON", "field"]),
        (
            "<RSAKeyValue><Modulus>AQAB</Modulus></RSAKeyValue>".to_owned(),
            ["XML", "PEM"],
        ),
        (
            pem.replace("-----", "\u{2014}\u{2014}-"),
            ["hyphens", "plain text"],
        ),
        (pem.replace("-----", "----"), ["hyphens", "plain text"]),
        (cut.to_owned(), ["cut off", "PEM block"]),
        ("\n".to_owned(), ["empty", "PEM block"]),
    ] {
        let error = PrivateKey::from_pem(&*text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        let told = error.to_string();
        assert!(
            words.iter().all(|word| told.contains(word)),
            "{text}: {told}"
        );
        assert!(!format!("{error:?}").contains(&pem[80..120]), "{error:?}");
    }
    let jks = [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2];
    let told = PrivateKey::from_pem(jks).unwrap_err().to_string();
    assert!(
        told.contains("Java keystore") && told.contains("keytool"),
        "{told}"
    );
    let pkcs12 = [0x30, 0x82, 1, 0, 2, 1, 3];
    let told = PrivateKey::from_pem(pkcs12).unwrap_err().to_string();
    assert!(
        told.contains("PKCS #12") && told.contains("openssl"),
        "{told}"
    );
}

proptest! {
    /// Any bytes are an error that says what was expected, and none of the key.
    #[test]
    fn r40_any_bytes_for_a_key_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let error = PrivateKey::from_pem(bytes).unwrap_err();
        prop_assert_eq!(error.kind(), ErrorKind::InvalidKey);
    }

    /// White space anywhere between the Base64 of a key changes nothing.
    #[test]
    fn r40_a_key_may_be_broken_into_lines_anywhere(
        breaks in prop::collection::vec((40_usize..1500, prop::sample::select(vec!["\n", "\r\n", " ", "\\n", "\t", "\u{a0}"])), 0..8),
    ) {
        let mut key = PEM.lines().collect::<Vec<_>>().concat();
        let (start, end) = (key.find("KEY-----").unwrap() + 8, key.find("-----END").unwrap());
        let mut breaks: Vec<_> = breaks.into_iter().filter(|(at, _)| (start..end).contains(at)).collect();
        breaks.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        for (at, text) in breaks {
            key.insert_str(at, text);
        }
        prop_assert!(PrivateKey::from_pem(key).is_ok());
    }
}

static PEM: std::sync::LazyLock<String> = std::sync::LazyLock::new(pem);
