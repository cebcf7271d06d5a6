//! An HTTP client for the layer and the flows, with TLS, HTTP/2 and proxies.
//!
//! The layer wraps any client. Use this one if your program has none yet: it is hyper-util's client with suitable
//! settings. [`HttpsClient::new`] uses the defaults, and [`HttpsClient::builder`] changes them.
//!
//! ```no_run
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower::{Layer, ServiceExt};
//! use tower_salesforce_auth::{
//!     BoxError, SalesforceAuthLayer, flow::ClientCredentials, https::HttpsClient, oauth::App,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let login_url = "https://MyDomainName.my.salesforce.com".parse()?;
//! let app = App::new(login_url, "3MVG9…").client_secret("1955…");
//! // Two clients: requests of the flow must not wait for requests that wait for the flow.
//! let login = ClientCredentials::new(HttpsClient::new()?, app);
//! let client = SalesforceAuthLayer::new(login).layer(HttpsClient::new()?);
//!
//! let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
//! println!("{}", client.oneshot(request).await?.status());
//! # Ok(())
//! # }
//! ```
//!
//! # TLS
//!
//! The client uses rustls with aws-lc-rs, independent of the provider that the process has installed. By default, the
//! operating system decides which certificates are trusted: see [`Roots`]. Add a company proxy's certificates with
//! [`root_certificates`](HttpsClientBuilder::root_certificates). ALPN (RFC 7301) selects HTTP/2 or HTTP/1.1. Android is
//! not supported, because its certificate verifier needs the Java VM.
//!
//! For mutual TLS give the client a [certificate](HttpsClientBuilder::client_certificate), and the session the
//! [port](crate::handle::SessionHandleBuilder::instance_port) where Salesforce asks for it. The guide has the
//! [set-up in Salesforce](crate::docs::security#mutual-tls).
//!
//! # Plain HTTP
//!
//! Plain HTTP is allowed for loopback hosts only, where the [emulator](crate) and tests listen. A request to any other
//! `http://` host fails with [`ErrorKind::InvalidUrl`](crate::ErrorKind::InvalidUrl), before any name lookup or
//! connection.
//!
//! # Proxies
//!
//! | variable | meaning |
//! |---|---|
//! | `HTTPS_PROXY`, or `https_proxy` | the proxy |
//! | `ALL_PROXY`, or `all_proxy` | the proxy, if `HTTPS_PROXY` names none |
//! | `NO_PROXY`, or `no_proxy` | the [hosts](Proxy::except) that are reached directly |
//! | `HTTP_PROXY`, or `http_proxy` | ignored: plain HTTP only goes to loopback hosts, directly |
//!
//! The client reads these variables when it is built, unless [`HttpsClientBuilder::proxy`] sets a proxy. The proxy also
//! applies to `https` requests to loopback hosts: list them in `NO_PROXY`.
//!
//! Blanks and line breaks around a value are left out.
//!
//! The proxy gets a `CONNECT` (RFC 9110 §9.3.6) or a SOCKS5 request (RFC 1928). TLS then runs between the client and
//! the host, so the proxy sees no token.
//!
//! # Connections
//!
//! The client keeps idle connections and shares them. It detects peers that have vanished. It probes a connection after
//! 60 s without traffic. On Linux, it also closes a connection whose data is not acknowledged within 30 s. Requests on
//! such a connection fail, and later ones use a new connection.
//!
//! A request that an HTTP/2 server says it has not processed is sent again, up to four times (RFC 9113 §8.7): with
//! `REFUSED_STREAM`, or a `GOAWAY` that names an earlier stream. So is one whose connection ended before it was written.
//! A body in one piece of [`Bytes`](bytes::Bytes), and any other one up to 64 KiB, can be sent again.
//!
//! # Redirects
//!
//! The client follows no redirects: a server must not choose where a token is sent.

mod builder;
mod bypass;
mod client;
mod connector;
mod identity;
mod pools;
mod proxy;
mod resend;
mod roots;
mod salesforce;
mod tunnel;

pub use self::{
    builder::HttpsClientBuilder,
    client::{HttpsClient, ResponseFuture},
    proxy::Proxy,
    roots::Roots,
    salesforce::{SalesforceClient, client},
};
