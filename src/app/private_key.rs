//! The private key that signs assertions.

use std::{borrow::Cow, fmt, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{self, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

#[cfg(feature = "key-formats")]
use crate::text::key;
use crate::{
    error::{Error, ErrorKind},
    secret::Secret,
    text::pem::Pem,
};

/// An RSA key that signs assertions. The app in Salesforce has its certificate.
///
/// The key is wiped from memory when its last clone is dropped. [`Debug`] does not show it.
///
/// ```no_run
/// use tower_salesforce_auth::oauth::PrivateKey;
///
/// let key = PrivateKey::from_pem(std::fs::read("server.key")?)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PrivateKey(Arc<RsaKeyPair>);

impl PrivateKey {
    /// Reads an unencrypted RSA key of at least 2048 bits from PEM: PKCS #1 (`BEGIN RSA PRIVATE KEY`, RFC 8017) or PKCS
    /// #8 (`BEGIN PRIVATE KEY`, RFC 5208). Other content of the file is skipped.
    ///
    /// The PEM may have escaped line breaks (`\n`), none at all, an indent, a byte order mark, or a label of the other
    /// kind. It may be encoded in Base64 as a whole. A key in DER works too. `from_encrypted`, of the feature `key-formats`,
    /// reads what is encrypted.
    ///
    /// A `Vec` or `String` is wiped from memory after reading. Borrowed text is not: it stays with the caller.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] with a message that says what the text contains instead.
    pub fn from_pem(pem: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let input = Zeroizing::new(pem.into());
        Self::read(&Pem::read(&input))
    }

    /// Reads a key that is encrypted with a pass phrase: PKCS #8 (`BEGIN ENCRYPTED PRIVATE KEY`, RFC 5958) in PEM or DER, or a
    /// PKCS #12 archive (`.p12` or `.pfx`, RFC 7292).
    ///
    /// The key has to be encrypted with AES, by PBES2 with PBKDF2 (RFC 8018 §6.2), as OpenSSL 3 and Java from version 16 on do.
    /// Other ciphers get an error that says how to convert the file. The certificates of an archive are skipped. A key that is
    /// not encrypted is read as by [`from_pem`](Self::from_pem). A line break at the end of the pass phrase is left out.
    ///
    /// The decrypted key is wiped from memory after reading.
    ///
    /// ```no_run
    /// use tower_salesforce_auth::oauth::PrivateKey;
    ///
    /// let pass_phrase = std::fs::read_to_string("/run/secrets/server.pass")?;
    /// let key = PrivateKey::from_encrypted(std::fs::read("server.p12")?, pass_phrase)?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] if the pass phrase is wrong, the file is damaged, or its cipher is not read. Otherwise as for
    /// [`from_pem`](Self::from_pem).
    #[cfg(feature = "key-formats")]
    #[cfg_attr(docsrs, doc(cfg(feature = "key-formats")))]
    pub fn from_encrypted(
        file: impl Into<Vec<u8>>,
        pass_phrase: impl Into<Secret>,
    ) -> Result<Self, Error> {
        let input = Zeroizing::new(file.into());
        let pem = key::decrypted(&input, &pass_phrase.into());
        Self::read(&pem.map_err(|reason| unusable(&reason))?)
    }

    fn read(pem: &Pem) -> Result<Self, Error> {
        // Without a label it may be of any kind.
        let is_key = |label: &str| matches!(label, "RSA PRIVATE KEY" | "PRIVATE KEY" | "");
        let Some(key) = pem.blocks.iter().find(|block| is_key(&block.label)) else {
            return Err(unusable(&reason_for_missing_key(pem)));
        };
        // The label may be that of the other kind.
        let read = RsaKeyPair::from_pkcs8(&key.der).or_else(|error| {
            RsaKeyPair::from_der(&key.der).map_err(|of_der| match &*key.label {
                "RSA PRIVATE KEY" => of_der,
                _ => error,
            })
        });
        read.map(|key| Self(Arc::new(key))).map_err(|error| {
            let is_archive = key.label.is_empty();
            unusable(if is_archive {
                "it has no PEM, and is no RSA key of 2048 to 8192 bits in DER: a certificate is a DER file too, and so are \
                 encrypted keys and PKCS #12 archives, which `PrivateKey::from_encrypted` of the feature `key-formats` reads, \
                 and `openssl pkcs12 -in <file>` converts"
            } else {
                "it is no RSA key of 2048 to 8192 bits, or is damaged"
            })
            .with_source(error)
        })
    }

    /// Signs these claims as a compact JWS (RFC 7515 §7.1) with RS256.
    pub(crate) fn sign(&self, claims: &serde_json::Value) -> Result<Secret, Error> {
        const HEADER: &str = r#"{"alg":"RS256"}"#;
        let mut jws = Zeroizing::new(String::with_capacity(2048));
        URL_SAFE_NO_PAD.encode_string(HEADER, &mut jws);
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut jws);
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(
                &signature::RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                jws.as_bytes(),
                &mut signature,
            )
            .map_err(|error| unusable("signing failed").with_source(error))?;
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
        Ok(Secret::from(jws))
    }
}

/// The reason why `pem` contains no usable key.
fn reason_for_missing_key(pem: &Pem) -> Cow<'static, str> {
    const NO_KEY: &str =
        "there is no PEM block `BEGIN RSA PRIVATE KEY` or `BEGIN PRIVATE KEY` in it";
    let has = |label: &str| pem.blocks.iter().any(|block| block.label == label);
    let reason = if has("EC PRIVATE KEY") {
        "it is an elliptic curve key, and Salesforce accepts RS256 only"
    } else if has("CERTIFICATE") {
        "it is a certificate, which belongs in the app's settings: use the key file that was made together with it"
    } else if has("PUBLIC KEY") || has("RSA PUBLIC KEY") {
        "it is a public key: use the private key"
    } else {
        return match pem.what_it_is() {
            Some(what) => format!("{NO_KEY}: {what}").into(),
            None => NO_KEY.into(),
        };
    };
    reason.into()
}

fn unusable(reason: &str) -> Error {
    Error::new(
        ErrorKind::InvalidKey,
        format!("the private key cannot be used: {reason}"),
    )
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey([redacted])")
    }
}
