//! The trusted root certificates, and the TLS configuration that uses them.

use std::{borrow::Cow, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer};
use rustls_platform_verifier::Verifier;

use crate::{
    error::{Error, ErrorKind},
    text::pem::Pem,
};

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

/// Reads certificates in PEM or DER. An invalid one is an error.
pub(super) fn from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    const EXPECTED: &str = "expected -----BEGIN CERTIFICATE-----";
    let pem = Pem::read(pem);
    if pem.is_damaged {
        return Err(invalid(
            "the root certificates are cut off, or are not PEM: expected -----BEGIN CERTIFICATE-----, Base64, and \
             -----END CERTIFICATE-----",
        ));
    }
    let is_certificate = |label: &str| matches!(label, "CERTIFICATE" | "X509 CERTIFICATE" | "");
    let certificates: Vec<_> = pem
        .blocks
        .iter()
        .filter(|block| is_certificate(&block.label))
        .map(|block| CertificateDer::from(block.der.to_vec()))
        .collect();
    if certificates.is_empty() {
        let what = pem.what_it_is().unwrap_or("it has no certificate in it");
        return Err(invalid(format!(
            "there is no root certificate: {what}; {EXPECTED}"
        )));
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
                invalid("the platform has no root certificates")
                    .with_source(error)
                    .with_remedy(Some(
                        "install them (ca-certificates), point SSL_CERT_FILE to them, or use those of the feature \
                         `webpki-roots`",
                    ))
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

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidCertificate, message)
}
