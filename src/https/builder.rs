//! The settings of an HTTPS client.

use std::{fmt, sync::Arc, time::Duration};

use http_body::Body;
use rustls::{pki_types::CertificateDer, sign::CertifiedKey};
use zeroize::Zeroizing;

use super::{
    client::HttpsClient,
    connector::Connector,
    identity,
    proxy::Proxy,
    roots::{self, Roots},
};
#[cfg(feature = "key-formats")]
use crate::secret::Secret;
use crate::{error::Error, tls};

/// Builds [`HttpsClient`]s. Each client has a separate connection pool.
///
/// ```no_run
/// use std::time::Duration;
/// use tower::Layer;
/// use tower_salesforce_auth::{
///     BoxError, SalesforceAuthLayer,
///     flow::ClientCredentials,
///     https::{HttpsClient, Proxy},
///     oauth::App,
/// };
/// # use {bytes::Bytes, http_body_util::Full, tower_salesforce_auth::{ReplayBody, SalesforceAuth}};
///
/// # fn client(app: App) -> Result<SalesforceAuth<HttpsClient<ReplayBody<Full<Bytes>>>>, BoxError> {
/// let https = HttpsClient::builder()
///     .root_certificates(std::fs::read("/etc/company/proxy-ca.pem")?)?
///     .proxy(Proxy::url("http://proxy.example.com:3128")?)
///     .connect_timeout(Duration::from_secs(5));
/// let layer = SalesforceAuthLayer::new(ClientCredentials::new(https.build()?, app));
/// let client = layer.layer(https.build()?);
/// # Ok(client)
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until a client is built with it"]
pub struct HttpsClientBuilder {
    roots: Roots,
    extra_roots: Vec<CertificateDer<'static>>,
    /// The client's certificate with its private key. `None` if the client has none to present.
    identity: Option<Arc<CertifiedKey>>,
    /// The proxy. `None` until [`build`](Self::build) reads it from the environment.
    proxy: Option<Proxy>,
    connect_timeout: Duration,
    pool_idle_timeout: Duration,
}

impl HttpsClientBuilder {
    pub(super) fn new() -> Self {
        Self {
            roots: Roots::default(),
            extra_roots: Vec::new(),
            identity: None,
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            pool_idle_timeout: Duration::from_secs(90),
        }
    }

    /// Sets which root certificates are trusted. Default: [`Roots::Platform`].
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = roots;
        self
    }

    /// Adds trusted root certificates: one or more in PEM (RFC 7468). Each call adds to the earlier ones. Default:
    /// none.
    ///
    /// Use this for proxies that inspect TLS, and for tests. Other PEM blocks, for example a key, are skipped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidCertificate`](crate::ErrorKind::InvalidCertificate) if the text contains no certificate, or
    /// an unreadable one.
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Result<Self, Error> {
        self.extra_roots
            .extend(tls::root_certificates(pem.as_ref())?);
        Ok(self)
    }

    /// Presents a certificate to servers that ask for one (RFC 8446 §4.4.2). Default: none.
    ///
    /// `chain` has the client's certificate, and those that signed it up to the root, without the root, in PEM (RFC 7468). `key`
    /// is the private key of the client's certificate: RSA, ECDSA or Ed25519, in PEM or DER. Both may be in one text, given
    /// twice. `encrypted_client_certificate`, of the feature `key-formats`, reads what is encrypted. Proxies get no certificate.
    ///
    /// Salesforce asks for it at port 8443: set the
    /// [port of the instance](crate::handle::SessionHandleBuilder::instance_port) too.
    ///
    /// ```
    /// use tower_salesforce_auth::{BoxError, https::HttpsClientBuilder, https::HttpsClient};
    ///
    /// fn https(directory: &str) -> Result<HttpsClientBuilder, BoxError> {
    ///     let chain = std::fs::read(format!("{directory}/client.pem"))?;
    ///     let key = std::fs::read(format!("{directory}/client.key"))?;
    ///     Ok(HttpsClient::builder().client_certificate(chain, key)?)
    /// }
    /// # assert!(https("/nonexistent").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidCertificate`](crate::ErrorKind::InvalidCertificate) if `chain` has no certificate, an unreadable one,
    ///   or none that belongs to the key.
    /// - [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if `key` has no private key, or one that is encrypted or that TLS
    ///   cannot use.
    pub fn client_certificate(
        mut self,
        chain: impl AsRef<[u8]>,
        key: impl Into<Vec<u8>>,
    ) -> Result<Self, Error> {
        let key = Zeroizing::new(key.into());
        self.identity = Some(identity::from_pem(chain.as_ref(), &key)?);
        Ok(self)
    }

    /// Presents a certificate from a file that has it and its private key, encrypted with a pass phrase: a PKCS #12 archive
    /// (`.p12` or `.pfx`), or PEM with `BEGIN ENCRYPTED PRIVATE KEY` and `BEGIN CERTIFICATE`. Otherwise as
    /// [`client_certificate`](Self::client_certificate).
    ///
    /// ```
    /// use tower_salesforce_auth::{BoxError, https::HttpsClientBuilder, https::HttpsClient};
    ///
    /// fn https(archive: &str, pass_phrase: String) -> Result<HttpsClientBuilder, BoxError> {
    ///     let archive = std::fs::read(archive)?;
    ///     Ok(HttpsClient::builder().encrypted_client_certificate(archive, pass_phrase)?)
    /// }
    /// # assert!(https("/nonexistent.p12", String::new()).is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`client_certificate`](Self::client_certificate), and [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if the
    /// pass phrase is wrong or the cipher is not read.
    #[cfg(feature = "key-formats")]
    #[cfg_attr(docsrs, doc(cfg(feature = "key-formats")))]
    pub fn encrypted_client_certificate(
        mut self,
        file: impl Into<Vec<u8>>,
        pass_phrase: impl Into<Secret>,
    ) -> Result<Self, Error> {
        let file = Zeroizing::new(file.into());
        self.identity = Some(identity::from_encrypted(&file, &pass_phrase.into())?);
        Ok(self)
    }

    /// Sets the proxy. Default: [`Proxy::from_env`], read by [`build`](Self::build).
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Sets how long connecting may take: name lookup, TCP, the proxy's response and TLS together. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long an idle connection is kept. Default: 90 s.
    pub fn pool_idle_timeout(mut self, timeout: Duration) -> Self {
        self.pool_idle_timeout = timeout;
        self
    }

    /// Builds a client for request bodies of type `B`.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidCertificate`](crate::ErrorKind::InvalidCertificate) if the platform has no root
    ///   certificates and none were added.
    /// - Any error of [`Proxy::from_env`], if no proxy was set.
    /// - [`ErrorKind::InvalidUrl`](crate::ErrorKind::InvalidUrl) if the [hosts without a proxy](Proxy::except) have an entry
    ///   that cannot be read.
    pub fn build<B>(&self) -> Result<HttpsClient<B>, Error>
    where
        B: Body + Send,
        B::Data: Send,
    {
        let tls = roots::client_config(self.roots, &self.extra_roots)?;
        let proxy = match &self.proxy {
            Some(proxy) => proxy.clone(),
            None => Proxy::from_env()?,
        };
        proxy.check()?;
        let connector = Connector::new(tls, self.identity.clone(), proxy, self.connect_timeout);
        Ok(HttpsClient::with_connector(
            connector,
            self.pool_idle_timeout,
        ))
    }
}

impl HttpsClient<()> {
    /// Returns a builder with the defaults.
    pub fn builder() -> HttpsClientBuilder {
        HttpsClientBuilder::new()
    }
}

impl<B> HttpsClient<B>
where
    B: Body + Send,
    B::Data: Send,
{
    /// Builds a client with the defaults: the platform's root certificates, and the proxy of the environment.
    ///
    /// # Errors
    ///
    /// Any error of [`HttpsClientBuilder::build`].
    pub fn new() -> Result<Self, Error> {
        HttpsClientBuilder::new().build()
    }
}

impl fmt::Debug for HttpsClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsClientBuilder")
            .field("roots", &self.roots)
            .field("extra_roots", &self.extra_roots.len())
            .field("client_certificate", &self.identity.is_some())
            .field("proxy", &self.proxy)
            .field("connect_timeout", &self.connect_timeout)
            .field("pool_idle_timeout", &self.pool_idle_timeout)
            .finish()
    }
}
