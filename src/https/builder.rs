//! What can be told to a client before it is one.

use std::{fmt, time::Duration};

use http_body::Body;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::pki_types::CertificateDer;

use super::{
    client::HttpsClient,
    connector::Connector,
    proxy::Proxy,
    roots::{self, Roots},
};
use crate::error::Error;

/// Makes [`HttpsClient`]s, as many as needed, each with connections of its own.
///
/// ```no_run
/// use std::time::Duration;
/// use tower_salesforce_auth::{
///     BoxError, SalesforceAuthLayer, flow::ClientCredentials, https::{HttpsClient, Proxy}, oauth::App,
/// };
/// use tower::Layer;
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
    /// The environment's, if there is none.
    proxy: Option<Proxy>,
    connect_timeout: Duration,
    pool_idle_timeout: Duration,
}

impl HttpsClientBuilder {
    pub(super) fn new() -> Self {
        Self {
            roots: Roots::default(),
            extra_roots: Vec::new(),
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            pool_idle_timeout: Duration::from_secs(90),
        }
    }

    /// Which root certificates are trusted. The default is [`Roots::Platform`].
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = roots;
        self
    }

    /// Trusts these root certificates too: one or more in PEM (RFC 7468). May be called more than once. The default is
    /// none.
    ///
    /// They are for proxies that look into TLS, and for tests. What else is in the text, a key for one, is passed over.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidCertificate`](crate::ErrorKind::InvalidCertificate) if there is no certificate in the text, or
    /// one that cannot be read.
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Result<Self, Error> {
        self.extra_roots.extend(roots::from_pem(pem.as_ref())?);
        Ok(self)
    }

    /// By which proxy servers are reached. The default is [`Proxy::from_env`], read by [`build`](Self::build).
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// How long a connection may take until a request can be sent on it: name lookup, TCP, the proxy's answer and TLS, all
    /// in all. The default is 10 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a connection is kept that nobody uses. The default is 90 seconds.
    pub fn pool_idle_timeout(mut self, timeout: Duration) -> Self {
        self.pool_idle_timeout = timeout;
        self
    }

    /// A client for requests with bodies of the type `B`, with a pool of connections of its own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidCertificate`](crate::ErrorKind::InvalidCertificate) if the platform has no root certificates,
    /// and none were given. Those of [`Proxy::from_env`], if no proxy was given.
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
        let connector = Connector::new(tls, &proxy, self.connect_timeout);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(self.pool_idle_timeout)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(HttpsClient::with_client(client))
    }
}

impl HttpsClient<()> {
    /// What there is to set, as it is by default.
    pub fn builder() -> HttpsClientBuilder {
        HttpsClientBuilder::new()
    }
}

impl<B> HttpsClient<B>
where
    B: Body + Send,
    B::Data: Send,
{
    /// A client with the defaults: the platform's root certificates, and the environment's proxy.
    ///
    /// # Errors
    ///
    /// Those of [`HttpsClientBuilder::build`].
    pub fn new() -> Result<Self, Error> {
        HttpsClientBuilder::new().build()
    }
}

impl fmt::Debug for HttpsClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsClientBuilder")
            .field("roots", &self.roots)
            .field("extra_roots", &self.extra_roots.len())
            .field("proxy", &self.proxy)
            .field("connect_timeout", &self.connect_timeout)
            .field("pool_idle_timeout", &self.pool_idle_timeout)
            .finish()
    }
}
