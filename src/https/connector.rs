//! Makes connections: directly or through a proxy, with TLS or over loopback.

use std::{
    future::{Future, ready},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::SocksV5},
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use rustls::{
    ClientConfig,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::net::TcpStream;
use tower_service::Service;

use super::{bypass::Bypass, proxy::Proxy, tunnel};
use crate::{
    error::{BoxError, Error, ErrorKind, Unreachable},
    session::{
        host::is_loopback_host,
        url::{has_port_or_none, host_and_port},
    },
};

/// A connection to the server or its proxy, with TLS only to an `https` proxy. TLS to the server runs inside it.
type ProxyStream = MaybeHttpsStream<TokioIo<TcpStream>>;

type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// How long a connection is idle before the kernel checks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// How long sent data may stay unacknowledged before the connection fails (RFC 9293 §3.9.1).
#[cfg(target_os = "linux")]
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to the host of a URI.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<ProxyConnector>,
    timeout: Duration,
}

impl Connector {
    /// Makes a connector. `tls` must have no ALPN protocols yet. Servers get the certificate of `identity`, and proxies none.
    pub(super) fn new(
        mut tls: ClientConfig,
        identity: Option<Arc<CertifiedKey>>,
        proxy: Proxy,
        timeout: Duration,
    ) -> Self {
        let (matcher, bypass) = proxy.into_parts();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // hyper-util divides this timeout among the addresses of a host, so an address that does not respond leaves
        // time for the next one.
        tcp.set_connect_timeout(Some(timeout));
        // Finds connections whose peer has vanished. Without these options, an HTTP/2 connection would accept requests
        // until the kernel closes it, about 15 minutes later.
        tcp.set_keepalive(Some(KEEPALIVE_IDLE));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
        // hyper-util's tunnels speak HTTP/1.1 only.
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let proxy_connector = ProxyConnector {
            to_proxy: HttpsConnector::from((tcp.clone(), tls.clone())),
            tcp,
            matcher: Arc::new(matcher),
            bypass: Arc::new(bypass),
        };
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if let Some(identity) = identity {
            tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity));
        }
        Self {
            https: HttpsConnector::from((proxy_connector, tls)),
            timeout,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<ProxyStream>;
    type Error = Error;
    type Future = Connecting<Self::Response, Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // The inner connectors are always ready: they connect in `call`.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let host = destination.host().unwrap_or_default().to_owned();
        let is_plain = destination.scheme() != Some(&Scheme::HTTPS);
        if is_plain && !is_loopback_host(&host) {
            return Box::pin(ready(Err(not_https(&destination, &host))));
        }
        if !destination.authority().is_some_and(has_port_or_none) {
            return Box::pin(ready(Err(Error::new(
                ErrorKind::InvalidUrl,
                format!(
                    "a request to {host} has a port that is none: expected a number up to 65535"
                ),
            ))));
        }
        let timeout = self.timeout;
        let host = host_and_port(&destination);
        let connecting = self.https.call(destination);
        Box::pin(async move {
            let error = match tokio::time::timeout(timeout, connecting).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error,
                Err(_) => {
                    let text = format!("there was no connection within {timeout:?}");
                    io::Error::new(io::ErrorKind::TimedOut, text).into()
                }
            };
            let failed = connect_error(format!("{host} could not be reached")).with_source(error);
            let remedy = match Unreachable::of(&failed) {
                Some(reason) => reason.remedy(),
                // The time was over.
                None => Some("check the network of this machine, and whether it needs a proxy"),
            };
            Err(failed.with_remedy(remedy))
        })
    }
}

/// Connects to a server directly, or through the proxy for its host.
#[derive(Clone)]
struct ProxyConnector {
    tcp: HttpConnector,
    to_proxy: HttpsConnector<HttpConnector>,
    /// Finds the proxy.
    matcher: Arc<Matcher>,
    /// The hosts that are reached directly.
    bypass: Arc<Bypass>,
}

impl Service<Uri> for ProxyConnector {
    type Response = ProxyStream;
    type Error = BoxError;
    type Future = Connecting<ProxyStream, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The inner connectors are always ready: they connect in `call`.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let found = self.matcher.intercept(&destination);
        let Some(proxy) = found.filter(|_| !self.bypass.has(&destination)) else {
            let connecting = self.tcp.call(destination);
            return Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) });
        };
        let connecting = self.connect_through(&proxy, destination);
        Box::pin(async move {
            connecting.await.map_err(|error| {
                // The proxy's URI here does not contain the user and password.
                connect_error(format!("no way through the proxy {}", proxy.uri()))
                    .with_source(error)
                    .into()
            })
        })
    }
}

impl ProxyConnector {
    fn connect_through(
        &mut self,
        proxy: &Intercept,
        destination: Uri,
    ) -> Connecting<ProxyStream, BoxError> {
        if matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
            let authorization = proxy.basic_auth().cloned();
            let connecting = self.to_proxy.call(proxy.uri().clone());
            return Box::pin(async move {
                let connection = connecting.await?;
                Ok(tunnel::open(connection, &destination, authorization.as_ref()).await?)
            });
        }
        // The other schemes that `Proxy` accepts are SOCKS5's.
        let mut socks = SocksV5::new(proxy.uri().clone(), self.tcp.clone());
        if let Some((user, password)) = proxy.raw_auth() {
            socks = socks.with_auth(user.to_owned(), password.to_owned());
        }
        let connecting = socks.call(destination);
        Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
    }
}

fn not_https(destination: &Uri, host: &str) -> Error {
    let scheme = destination.scheme_str().unwrap_or("no scheme");
    Error::new(
        ErrorKind::InvalidUrl,
        format!(
            "a request to {host} is {scheme}: a token is sent over https only (http is accepted for loopback)"
        ),
    )
}

fn connect_error(message: String) -> Error {
    Error::new(ErrorKind::Connect, message)
}
