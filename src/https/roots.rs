//! Whom to trust: the root certificates, and the TLS that is made of them.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use crate::error::{Error, ErrorKind};

/// The root certificates that an [`HttpsClient`](super::HttpsClient) trusts, beside those that it was
/// [given](super::HttpsClientBuilder::root_certificates).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Roots {
    /// Those of the operating system, and on Windows and macOS its judgement too, so that what a company adds or
    /// revokes there counts here. On Linux they are read when the client is built: from `SSL_CERT_FILE` or
    /// `SSL_CERT_DIR`, if these are set.
    #[default]
    Platform,
    /// Mozilla's, as they were when the crate `webpki-roots` was released. They are for containers without any, and age
    /// with the program.
    #[cfg(feature = "webpki-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "webpki-roots")))]
    WebPki,
}

/// Reads certificates, all of which have to be good.
pub(super) fn from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        // Its error quotes the text, in which there may be a key.
        .map_err(|_| {
            invalid("the root certificates are not PEM: expected -----BEGIN CERTIFICATE-----")
        })?;
    if certificates.is_empty() {
        return Err(invalid(
            "there is no root certificate: expected -----BEGIN CERTIFICATE-----",
        ));
    }
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store.add(certificate.clone()).map_err(|error| {
            invalid("a root certificate cannot be read: expected an X.509 certificate in PEM")
                .with_source(error)
        })?;
    }
    Ok(certificates)
}

/// TLS without ALPN, which depends on whom it is spoken with.
pub(super) fn client_config(
    roots: Roots,
    extra: &[CertificateDer<'static>],
) -> Result<ClientConfig, Error> {
    // Not the process's: there may be none, or another one.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            Error::new(ErrorKind::Connect, "there is no TLS to speak").with_source(error)
        })?;
    let extra = extra.iter().cloned();
    let config = match roots {
        Roots::Platform => {
            let verifier = Verifier::new_with_extra_roots(extra, provider).map_err(|error| {
                invalid(
                    "the platform has no root certificates: install them (ca-certificates), point SSL_CERT_FILE to \
                     them, or use those of the feature `webpki-roots`",
                )
                .with_source(error)
            })?;
            // The word is rustls's, for every verifier that is not its own.
            config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
        }
        #[cfg(feature = "webpki-roots")]
        Roots::WebPki => {
            let mut store = RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            };
            store.add_parsable_certificates(extra);
            config.with_root_certificates(store)
        }
    };
    Ok(config.with_no_client_auth())
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidCertificate, message)
}
