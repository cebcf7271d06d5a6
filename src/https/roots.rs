//! The trusted root certificates, and the TLS configuration that uses them.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use crate::error::{Error, ErrorKind};

/// The root certificates that an [`HttpsClient`](super::HttpsClient) trusts, in addition to the
/// [added](super::HttpsClientBuilder::root_certificates) ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Roots {
    /// The certificates of the operating system. On Windows and macOS its own verifier decides, so certificates that a
    /// company adds or revokes count.
    ///
    /// On Linux, [`build`](super::HttpsClientBuilder::build) reads them from `SSL_CERT_FILE` or `SSL_CERT_DIR`, or from
    /// the system's default location.
    #[default]
    Platform,
    /// Mozilla's certificates, as of the release of the crate `webpki-roots`. Use them in containers without
    /// certificates. They age with the program.
    #[cfg(feature = "webpki-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "webpki-roots")))]
    WebPki,
}

/// Reads PEM certificates. An invalid one is an error.
pub(super) fn from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        // The parser's error quotes the text, which may contain a private key.
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

/// Makes a TLS configuration without ALPN protocols: they differ for proxies and servers.
pub(super) fn client_config(
    roots: Roots,
    extra: &[CertificateDer<'static>],
) -> Result<ClientConfig, Error> {
    // The process may have installed no provider, or another one.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            Error::new(ErrorKind::Connect, "TLS is not available").with_source(error)
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
            // For rustls, every verifier that is not built in is `dangerous`.
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
