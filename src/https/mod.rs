//! An HTTP client for the layer, and for the flows: TLS, HTTP/2, and the proxy that the environment names.
//!
//! The layer wraps any client, and this is one for who has none yet: hyper-util's, with the settings that a session calls
//! for. [`HttpsClient::new`] is all that it takes; [`HttpsClient::builder`] has what can be told otherwise.
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
//! let app = App::new("https://MyDomainName.my.salesforce.com".parse()?, "3MVG9…").client_secret("1955…");
//! // Two clients: the flow's requests must not wait for those that wait for the flow.
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
//! It is rustls, with aws-lc-rs, whatever else the process has installed. Which certificates are trusted is for the
//! operating system to say, [unless told otherwise](Roots); those of a company's proxy are
//! [added](HttpsClientBuilder::root_certificates). Whether a connection speaks HTTP/2 or HTTP/1.1 is agreed on by ALPN
//! (RFC 7301). Android is left out, where the verifier has to be handed the Java VM.
//!
//! # Plain HTTP
//!
//! It is for the machine itself, where the [emulator](crate) and tests listen: `http://` to any other host is refused, with
//! [`ErrorKind::InvalidUrl`](crate::ErrorKind::InvalidUrl), before anything is looked up or connected to.
//!
//! # Proxies
//!
//! | variable | what it says |
//! |---|---|
//! | `HTTPS_PROXY`, or `https_proxy` | the proxy |
//! | `ALL_PROXY`, or `all_proxy` | the proxy, if the others name none |
//! | `NO_PROXY`, or `no_proxy` | the [hosts](Proxy::except) that are reached without |
//! | `HTTP_PROXY`, or `http_proxy` | nothing: plain HTTP stays on the machine, and goes directly |
//!
//! They are read when the client is built; [`HttpsClientBuilder::proxy`] takes their place. A host on loopback that is
//! asked by `https` is one like any other: name it in `NO_PROXY`, if there is a proxy.
//!
//! The proxy gets a `CONNECT` (RFC 9110 §9.3.6) or a SOCKS5 request (RFC 1928), and what follows is between this client and
//! the host. It sees no token.
//!
//! # Connections
//!
//! They are kept for a while, and shared. One whose peer has gone without a word is found out: after a minute of quiet it is
//! asked for, and on Linux what was sent has to be acknowledged within 30 seconds. What waits on it fails then, and later
//! requests get another.
//!
//! # Redirects
//!
//! None is followed: where a token goes is not for a server to say.

mod builder;
mod client;
mod connector;
mod proxy;
mod roots;

pub use self::{
    builder::HttpsClientBuilder,
    client::{HttpsClient, ResponseFuture},
    proxy::Proxy,
    roots::Roots,
};
