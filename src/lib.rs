//! A [tower](https://docs.rs/tower) layer that keeps every Salesforce request of an HTTP client authenticated. An expired
//! session is refreshed once for all callers, and the requests that were rejected with it are sent again.
//!
//! # Send a request
//!
//! A [flow] logs in, and a client that is made with it sends each request with a live session:
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower::ServiceExt;
//! use tower_salesforce_auth::{BoxError, flow::ClientCredentials, https, oauth::App};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! # let org = tower_salesforce_auth::emulator::Org::new();
//! # let served = org.serve().await?;
//! # let (my_domain, consumer_key, consumer_secret) = (org.login_url(), org.client_id(), org.client_secret());
//! // `my_domain` is "https://MyDomainName.my.salesforce.com".
//! let app = App::new(my_domain.parse()?, consumer_key).client_secret(consumer_secret);
//! let client = https::client(|http| ClientCredentials::new(http, app))?;
//!
//! let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
//! let response = client.clone().oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! The first request logs in, and goes to the instance that the login returned: a request needs only a path. `client` is a
//! tower `Service`, and `oneshot` sends one request with a clone of it. Clones share the session. The module `https` is a
//! [feature](#features). A [`SalesforceAuthLayer`] wraps any other tower client. A refresh needs tokio's time driver.
//!
//! # Choose how to log in
//!
//! | who uses the program | flow |
//! |---|---|
//! | no user: it acts for itself | [`JwtBearer`](flow::JwtBearer), with a certificate, or [`ClientCredentials`](flow::ClientCredentials), with a secret |
//! | users with a browser | [`AuthorizationCode`](flow::AuthorizationCode), then [`RefreshToken`](flow::RefreshToken) |
//! | users without a browser | [`DeviceAuthorization`](flow::DeviceAuthorization) |
//! | any | a function from a [`RefreshContext`] to a future of a [`Session`]: see [`RefreshFn`] |
//!
//! [`docs::choosing_a_flow`] has all flows, and says what to set up in Salesforce for each.
//!
//! # Let the session expire
//!
//! The [`emulator`] is a Salesforce org for your tests. Here it takes the place of both clients:
//!
//! ```
//! # use {bytes::Bytes, http::Request, http_body_util::Full, tower::{Layer, ServiceExt}};
//! # use tower_salesforce_auth::{BoxError, SalesforceAuthLayer, flow::ClientCredentials, oauth::App};
//! # #[tokio::main]
//! # async fn main() -> Result<(), BoxError> {
//! let org = tower_salesforce_auth::emulator::Org::new();
//! let app = App::new(org.login_url().parse()?, org.client_id());
//! let login = ClientCredentials::new(org.clone(), app.client_secret(org.client_secret()));
//! let client = SalesforceAuthLayer::new(login).layer(org.clone());
//! for _ in 0..2 {
//!     let limits = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default());
//!     assert_eq!(client.clone().oneshot(limits?).await?.status(), 200);
//!     org.expire_sessions();
//! }
//! // The second request was rejected, waited for a new session, and was sent again.
//! assert_eq!((org.counters().data_rejected, org.counters().token_requests), (1, 2));
//! # Ok(())
//! # }
//! ```
//!
//! # Keep, share and observe the session
//!
//! A [`SessionHandle`] has the settings of a session: a [store](mod@store) that keeps it beyond the process and shares it, an
//! [`Observer`](observer::Observer) for events, and [more](handle::SessionHandleBuilder). Make the layer from it:
//!
//! ```
//! # use tower_salesforce_auth::{RefreshFn, SalesforceAuthLayer, SessionHandle, observer::Observer, store::SessionStore};
//! # fn keep(login: impl RefreshFn, store: impl SessionStore, observer: impl Observer) {
//! let handle = SessionHandle::builder(login).store(store, "user").observer(observer).build();
//! let layer = SalesforceAuthLayer::from(handle);
//! # }
//! ```
//!
//! A request with another handle among its extensions gets that session: [`Sessions`] keeps the handles of many orgs. The
//! [guides](docs) go on from here, with [how it works](docs::how_it_works) and [production](docs::production).
//!
//! # Features
//!
//! | feature, off by default | adds |
//! |---|---|
//! | `cli` | `flow::SalesforceCli`: the session of the Salesforce CLI |
//! | `conformance` | [`store::conformance`](mod@store): checks of a store that you write |
//! | `dpop` | `oauth::DpopKey`: tokens that are bound to a key of the app (RFC 9449): [`docs::dpop`] |
//! | `emulator` | [`emulator`]: a Salesforce org in the process, to test against |
//! | `encryption` | `store::EncryptionKey`: records that are unreadable without a key; `oauth::LoginCookie` |
//! | `file-store` | `store::FileStore`: sessions in a directory |
//! | `follow-redirect` | answers of foreign hosts are recognised if `tower_http`'s `FollowRedirect` is inside the layer |
//! | `https-client` | `https`: a client with TLS, HTTP/2 and the environment's proxy |
//! | `jwt` | [`JwtBearer`](flow::JwtBearer)`::new` and `private_key_jwt`: assertions signed by aws-lc-rs |
//! | `key-formats` | keys and archives that are encrypted with a pass phrase (PKCS #8, PKCS #12), for `dpop`, `https-client` and `jwt` |
//! | `postgres-store` | `store::PostgresStore`: sessions in PostgreSQL, for the processes of many machines |
//! | `redis-store` | `store::RedisStore`: sessions in Redis or Valkey, for the processes of many machines |
//! | `tracing` | a span for each refresh, and an event for each one that an observer receives |
//! | `webpki-roots` | `https::Roots::WebPki`: Mozilla's root certificates |
//!
#![cfg_attr(
    not(feature = "emulator"),
    doc = "[`emulator`]: https://docs.rs/tower-salesforce-auth"
)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod app;
mod body;
#[cfg(any(doc, doctest))]
pub mod docs;
#[cfg(feature = "emulator")]
#[cfg_attr(docsrs, doc(cfg(feature = "emulator")))]
pub mod emulator;
mod error;
pub mod flow;
pub mod handle;
mod http;
#[cfg(feature = "https-client")]
#[cfg_attr(docsrs, doc(cfg(feature = "https-client")))]
pub mod https;
pub mod layer;
pub mod oauth;
pub mod refresh;
mod report;
pub mod request;
mod secret;
mod session;
mod soap;
pub mod store;
mod text;
#[cfg(any(
    feature = "https-client",
    feature = "postgres-store",
    feature = "redis-store"
))]
mod tls;
pub mod verdict;

pub use self::{
    body::ReplayBody,
    error::{BoxError, Error, ErrorKind, RefreshError, RefreshErrorKind},
    handle::{handle::SessionHandle, registry::Sessions},
    layer::{layer::SalesforceAuthLayer, service::SalesforceAuth},
    refresh::hook::{RefreshContext, RefreshFn},
    secret::Secret,
    session::{
        live::LiveSession,
        session::Session,
        url::{InstanceUrl, LoginUrl},
    },
};

/// Events: what the layer reports to an [`Observer`](observer::Observer).
pub mod observer {
    pub use crate::report::{
        event::{
            DpopNotice, RefreshFailed, RefreshStarted, RefreshSucceeded, Replayed, SessionAdopted,
            StoreFailed, StoreOperation,
        },
        observer::Observer,
        reason::{RefreshDescription, RefreshReason},
    };
}

/// Compiles what the README shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
