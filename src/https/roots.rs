//! The trusted root certificates, and the TLS configuration that uses them.

use rustls::{ClientConfig, pki_types::CertificateDer};

use crate::{error::Error, tls};

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

/// Makes a TLS configuration without ALPN protocols: they differ for proxies and servers.
pub(super) fn client_config(
    roots: Roots,
    extra: &[CertificateDer<'static>],
) -> Result<ClientConfig, Error> {
    match roots {
        Roots::Platform => tls::platform_config(extra),
        #[cfg(feature = "webpki-roots")]
        Roots::WebPki => {
            let mut store = rustls::RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            };
            store.add_parsable_certificates(extra.iter().cloned());
            Ok(tls::config()?
                .with_root_certificates(store)
                .with_no_client_auth())
        }
    }
}
