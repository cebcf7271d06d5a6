//! TLS (rustls) that trusts the platform's root certificates, and others that the user adds.

use std::{borrow::Cow, sync::Arc};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::CertificateDer,
};
use rustls_platform_verifier::Verifier;

use crate::{
    error::{Error, ErrorKind},
    text::pem::Pem,
};

/// Reads certificates in PEM or DER. An invalid one is an error.
pub(crate) fn root_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
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

/// The process may have installed no provider, or another one.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Begins a configuration with the versions of TLS that are safe.
pub(crate) fn config() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorKind::Connect, "TLS is not available").with_source(error))
}

/// Makes a configuration that trusts the platform's root certificates and `extra`, and has no ALPN protocols.
pub(crate) fn platform_config(extra: &[CertificateDer<'static>]) -> Result<ClientConfig, Error> {
    let extra = extra.iter().cloned();
    let verifier = Verifier::new_with_extra_roots(extra, provider()).map_err(|error| {
        invalid("the platform has no root certificates")
            .with_source(error)
            .with_remedy(Some(
                "install them (ca-certificates), point SSL_CERT_FILE to them, or use those of the feature `webpki-roots`",
            ))
    })?;
    // For rustls, every verifier that is not built in is `dangerous`.
    Ok(config()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidCertificate, message)
}
