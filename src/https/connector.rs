//! How a connection comes about: directly or by a proxy, with TLS or within the machine.

use std::{
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{
            HttpConnector,
            proxy::{SocksV5, Tunnel},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::proxy::Proxy;
use crate::{
    error::{BoxError, Error, ErrorKind},
    session::url::is_loopback_host,
};

/// Whether TLS is spoken with a proxy, below that with the server.
type Wire = MaybeHttpsStream<TokioIo<TcpStream>>;

type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// How long a connection may be quiet until the peer is asked whether it is still there.
const QUIET: Duration = Duration::from_secs(60);

/// How long what was sent may go without an acknowledgement (RFC 9293 §3.9.1).
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Connects to where a URI points, or says why not.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<Route>,
    timeout: Duration,
}

impl Connector {
    /// `tls` has no ALPN yet.
    pub(super) fn new(mut tls: ClientConfig, proxy: &Proxy, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // A share of it for each address of a host, so that one that does not answer leaves time for the next.
        tcp.set_connect_timeout(Some(timeout));
        // A connection whose peer is gone without a word takes no more requests, and says so to those that wait on it. Over
        // HTTP/2 it would go on taking them until the kernel gives it up, a quarter of an hour later.
        tcp.set_keepalive(Some(QUIET));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        // Tunnels are asked for in HTTP/1.1.
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let route = Route {
            to_proxy: HttpsConnector::from((tcp.clone(), tls.clone())),
            tcp,
            matcher: Arc::new(proxy.matcher()),
        };
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self {
            https: HttpsConnector::from((route, tls)),
            timeout,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Wire>;
    type Error = Error;
    type Future = Connecting<Self::Response, Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // So are those below: they make each connection when they are called.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let host = destination.host().unwrap_or_default().to_owned();
        let is_plain = destination.scheme() != Some(&Scheme::HTTPS);
        if is_plain && !is_loopback_host(&host) {
            return Box::pin(ready(Err(not_https(&destination, &host))));
        }
        let timeout = self.timeout;
        let connecting = self.https.call(destination);
        Box::pin(async move {
            match tokio::time::timeout(timeout, connecting).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => {
                    Err(no_connection(format!("there is no connection to {host}"))
                        .with_source(error))
                }
                Err(_) => Err(no_connection(format!(
                    "there is no connection to {host} after {timeout:?}"
                ))),
            }
        })
    }
}

/// The way to a server: straight, or by the proxy that is meant for it.
#[derive(Clone)]
struct Route {
    tcp: HttpConnector,
    to_proxy: HttpsConnector<HttpConnector>,
    matcher: Arc<Matcher>,
}

impl Service<Uri> for Route {
    type Response = Wire;
    type Error = BoxError;
    type Future = Connecting<Wire, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let Some(proxy) = self.matcher.intercept(&destination) else {
            let connecting = self.tcp.call(destination);
            return Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) });
        };
        let connecting = self.connect_by(&proxy, destination);
        Box::pin(async move {
            connecting.await.map_err(|error| {
                // Without the user and the password.
                no_connection(format!("no way through the proxy {}", proxy.uri()))
                    .with_source(error)
                    .into()
            })
        })
    }
}

impl Route {
    fn connect_by(&self, proxy: &Intercept, destination: Uri) -> Connecting<Wire, BoxError> {
        if matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
            if let Some(authorization) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(authorization.clone());
            }
            let connecting = tunnel.call(destination);
            return Box::pin(async move { Ok(connecting.await?) });
        }
        // No other scheme gets here.
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

fn no_connection(message: String) -> Error {
    Error::new(ErrorKind::Connect, message)
}
