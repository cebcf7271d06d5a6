//! The certificate that a client presents to servers on request, with its private key.

use std::{borrow::Cow, sync::Arc};

use rustls::{
    crypto::aws_lc_rs::sign,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::{CertifiedKey, SigningKey},
};

use crate::{
    error::{Error, ErrorKind},
    text::pem::{Block, Pem},
};
#[cfg(feature = "key-formats")]
use crate::{secret::Secret, text::key};

/// What is said of DER that is no private key.
const UNLABELLED: &str = "there is no RSA, ECDSA or Ed25519 key in it that TLS can use; `encrypted_client_certificate`, of the \
                          feature `key-formats`, reads encrypted keys and PKCS #12 archives";

/// Reads a chain of certificates and the private key of the first of them.
pub(super) fn from_pem(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, Error> {
    certified(&Pem::read(chain), &Pem::read(key))
}

/// Reads a chain of certificates and its private key from one file, decrypting what is encrypted in it.
#[cfg(feature = "key-formats")]
pub(super) fn from_encrypted(
    file: &[u8],
    pass_phrase: &Secret,
) -> Result<Arc<CertifiedKey>, Error> {
    let file = key::decrypted(file, pass_phrase);
    let file = file.map_err(unusable_key)?;
    certified(&file, &file)
}

fn certified(chain: &Pem, key: &Pem) -> Result<Arc<CertifiedKey>, Error> {
    let key = signing_key(key)?;
    let mut chain = certificates(chain)?;
    // An archive may have them in any order, and a server expects its client's first (RFC 8446 §4.4.2).
    let mut unreadable = None;
    let own = chain
        .iter()
        .position(|certificate| match is_of(certificate, &key) {
            Ok(is_own) => is_own,
            Err(error) => {
                unreadable.get_or_insert(error);
                false
            }
        });
    let Some(own) = own else {
        return Err(match unreadable {
            Some(error) => {
                invalid("a client certificate cannot be read: expected an X.509 certificate in PEM")
                    .with_source(error)
            }
            None => invalid(
                "the client certificate is not that of its private key: use the certificate that was made from this key; \
                 `openssl x509 -in <certificate> -noout -pubkey` and `openssl pkey -in <key> -pubout` print the same for a pair",
            ),
        });
    };
    chain[..=own].rotate_right(1);
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, Error> {
    let is_certificate = |block: &&Block| {
        matches!(&*block.label, "CERTIFICATE" | "X509 CERTIFICATE")
            || block.label.is_empty() && !is_key(block)
    };
    let certificates: Vec<_> = pem
        .blocks
        .iter()
        .filter(is_certificate)
        .map(|block| CertificateDer::from(block.der.to_vec()))
        .collect();
    if certificates.is_empty() || pem.is_damaged {
        let what = if !pem.is_damaged && pem.blocks.iter().any(is_key) {
            "there is no certificate in it, but a private key"
        } else {
            pem.what_it_is().unwrap_or("there is no certificate in it")
        };
        return Err(invalid(format!(
            "the client certificate cannot be used: {what}; expected -----BEGIN CERTIFICATE-----"
        )));
    }
    Ok(certificates)
}

fn is_key(block: &Block) -> bool {
    matches!(
        &*block.label,
        "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" | ""
    ) && PrivateKeyDer::try_from(&**block.der).is_ok()
}

fn signing_key(pem: &Pem) -> Result<Arc<dyn SigningKey>, Error> {
    let Some(block) = pem.blocks.iter().find(|block| is_key(block)) else {
        let has = |label: &str| pem.blocks.iter().any(|block| block.label == label);
        let is_unreadable = pem.is_damaged || has("ENCRYPTED PRIVATE KEY");
        let what = if has("CERTIFICATE") && !is_unreadable {
            "there are certificates in it alone: give the key file that was made together with them"
        } else {
            pem.what_it_is().unwrap_or(UNLABELLED)
        };
        return Err(unusable_key(format!(
            "{what}; expected -----BEGIN PRIVATE KEY-----"
        )));
    };
    let read = PrivateKeyDer::try_from(&**block.der)
        .map_err(|what| rustls::Error::General(what.to_owned()))
        .and_then(|key| sign::any_supported_type(&key));
    read.map_err(|error| {
        unusable_key(if block.label.is_empty() {
            UNLABELLED
        } else {
            "it is no RSA, ECDSA or Ed25519 key that TLS can use, or is damaged"
        })
        .with_source(error)
    })
}

/// Whether the certificate is that of the key. Fails for what rustls cannot parse.
fn is_of(
    certificate: &CertificateDer<'static>,
    key: &Arc<dyn SigningKey>,
) -> Result<bool, rustls::Error> {
    let pair = CertifiedKey::new(vec![certificate.clone()], Arc::clone(key));
    match pair.keys_match() {
        Ok(()) => Ok(true),
        Err(rustls::Error::InconsistentKeys(_)) => Ok(false),
        // `openssl x509 -req` makes certificates of version 1, which the server may take. They have the public key as it is.
        Err(error) => {
            let public = key.public_key();
            let is_in_it = public.is_some_and(|public| {
                certificate
                    .windows(public.len())
                    .any(|part| part == &*public)
            });
            if is_in_it { Ok(true) } else { Err(error) }
        }
    }
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidCertificate, message)
}

fn unusable_key(reason: impl AsRef<str>) -> Error {
    let reason = reason.as_ref();
    Error::new(
        ErrorKind::InvalidKey,
        format!("the private key of the client certificate cannot be used: {reason}"),
    )
}
