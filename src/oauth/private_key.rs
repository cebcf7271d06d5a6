//! The key that assertions are signed with.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{self, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

use crate::{
    error::{Error, ErrorKind},
    secret::Secret,
};

/// An RSA key to sign assertions with, whose certificate was uploaded to the app.
///
/// It is wiped from memory when the last clone is dropped, and [`Debug`] does not show it.
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
    /// Reads an unencrypted RSA key of 2048 bits or more from PEM, in PKCS #1 (`BEGIN RSA PRIVATE KEY`, RFC 8017)
    /// or PKCS #8 (`BEGIN PRIVATE KEY`, RFC 5208). What else is in the file is skipped.
    ///
    /// A `Vec` or `String` that is given is wiped from memory; what is borrowed stays the caller's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`], which says what is there instead.
    pub fn from_pem(pem: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let pem = Zeroizing::new(pem.into());
        let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| unusable(absence(&pem)))?;
        let der = Zeroizing::new(der);
        let key = match &*der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => {
                return Err(unusable(
                    "it is an elliptic curve key, and Salesforce takes RS256 only",
                ));
            }
        };
        key.map(|key| Self(Arc::new(key))).map_err(|error| {
            unusable("it is no RSA key of 2048 to 8192 bits, or is damaged").with_source(error)
        })
    }

    /// A compact JWS (RFC 7515 §7.1) over these claims, signed with RS256.
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

/// Why no key was found in `pem`.
fn absence(pem: &[u8]) -> &'static str {
    let pem = String::from_utf8_lossy(pem);
    if pem.contains("ENCRYPTED") {
        "it is encrypted: decrypt it with `openssl rsa` first"
    } else if pem.contains("-----BEGIN CERTIFICATE") {
        "it is a certificate, which belongs into the app's settings: the key is in the file that was made with it"
    } else if pem.contains("-----BEGIN PUBLIC KEY") {
        "it is a public key: the private one is wanted"
    } else {
        "there is no PEM block `BEGIN RSA PRIVATE KEY` or `BEGIN PRIVATE KEY` in it"
    }
}

fn unusable(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidKey,
        format!("the private key cannot be used: {why}"),
    )
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey([redacted])")
    }
}
