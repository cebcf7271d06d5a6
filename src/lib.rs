//! Wrap any tower HTTP client with one layer, and every request to Salesforce carries a live session. When the session
//! dies, it is renewed exactly once, for everybody, and no caller notices.
//!
//! # In five minutes
//!
//! ## Send a request
//!
//! A [flow] logs in, a layer is made with it, and wraps the client that sends your requests:
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::{BodyExt, Full};
//! use tower::{Layer, Service, ServiceExt};
//! use tower_salesforce_auth::{
//!     BoxError, SalesforceAuthLayer, flow::ClientCredentials, https::HttpsClient, oauth::App,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! # let org = tower_salesforce_auth::emulator::Org::new();
//! # let served = org.serve().await?;
//! # let (my_domain, client_id, client_secret) = (org.login_url(), org.client_id(), org.client_secret());
//! // `my_domain` is "https://MyDomainName.my.salesforce.com".
//! let app = App::new(my_domain.parse()?, client_id).client_secret(client_secret);
//! // Each has connections of its own: a login must not wait for the requests that wait for it.
//! let login = ClientCredentials::new(HttpsClient::new()?, app);
//! let mut client = SalesforceAuthLayer::new(login).layer(HttpsClient::new()?);
//!
//! let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
//! let response = client.ready().await?.call(request).await?;
//! assert_eq!(response.status(), 200);
//! let body = response.into_body().collect().await?.to_bytes();
//! # assert!(body.starts_with(b"{"));
//! # Ok(())
//! # }
//! ```
//!
//! Nothing was done before the first request. It found no session, waited for the login, and went to the instance that
//! this brought: a relative URI is all that a request needs. Clones of the client share the session.
//!
//! If tower is new to you: a `Service` answers requests, as an HTTP client does, and a `Layer` makes another service of
//! one, by putting something around it. `ready` waits until the service can take a request, and `call` sends it; `oneshot`,
//! below, does both, and takes the service, so that it is given a clone.
//!
//! `HttpsClient`, of the feature `https-client`, speaks TLS. Any other tower client does as well. Beside this crate it takes
//! `bytes`, `http`, `http-body-util`, `tower` with its feature `util`, and `tokio`.
//!
//! ## Choose how to log in
//!
//! | who uses it | flow |
//! |---|---|
//! | a program, as a user of its own | [`JwtBearer`](flow::JwtBearer), with a certificate, or [`ClientCredentials`](flow::ClientCredentials), with a secret |
//! | users, in a browser | [`AuthorizationCode`](flow::AuthorizationCode) |
//! | a user, without a browser | [`DeviceAuthorization`](flow::DeviceAuthorization) |
//! | somebody who has a refresh token | [`RefreshToken`](flow::RefreshToken) |
//! | you, with a way of your own | a function from a [`RefreshContext`] to a future of a [`Session`]: see [`RefreshFn`] |
//!
//! [`docs::choosing_a_flow`] has all of them, and says what to set up in Salesforce for each.
//!
//! ## Let the session end
//!
//! Sessions end at any time: by a timeout, a logout elsewhere, a policy. The [`emulator`], a feature of its own, is a
//! Salesforce org to try that on:
//!
//! ```
//! # use bytes::Bytes;
//! # use http::Request;
//! # use http_body_util::Full;
//! # use tower::{Layer, ServiceExt};
//! # use tower_salesforce_auth::{BoxError, SalesforceAuthLayer, flow::ClientCredentials, oauth::App};
//! use tokio::task::JoinSet;
//! use tower_salesforce_auth::{emulator::Org, request::AuthOutcome};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), BoxError> {
//! // It is a tower service, and takes the place of both clients.
//! let org = Org::new();
//! let app = App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
//! let client = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), app)).layer(org.clone());
//!
//! let limits = || Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default());
//! client.clone().oneshot(limits()?).await?;
//! org.expire_sessions();
//!
//! let mut callers = JoinSet::new();
//! for _ in 0..100 {
//!     let (client, request) = (client.clone(), limits()?);
//!     callers.spawn(async move { client.oneshot(request).await });
//! }
//! for response in callers.join_all().await {
//!     let response = response?;
//!     assert_eq!(response.status(), 200);
//!     // Only a request that was rejected has anything to tell.
//!     if let Some(outcome) = response.extensions().get::<AuthOutcome>() {
//!         assert_eq!(outcome.attempts(), 2);
//!     }
//! }
//! // The first login, and one more for all hundred.
//! assert_eq!(org.counters().token_requests, 2);
//! # Ok(())
//! # }
//! ```
//!
//! Callers may give up, all of them: the refresh goes on, once, and what it brings is kept.
//!
//! ## Keep the session, and share it
//!
//! A [`store`](mod@store) keeps it beyond the process, and lets several processes use one refresh token without ever presenting
//! it twice:
//!
//! ```
//! use tower_salesforce_auth::{SalesforceAuthLayer, store::MemoryStore};
//!
//! # fn keep(login: impl tower_salesforce_auth::RefreshFn, store: MemoryStore) -> SalesforceAuthLayer {
//! // `store::FileStore`, or one of your own.
//! let layer = SalesforceAuthLayer::from(SessionHandle::builder(login).store(store, "integration-user").build());
//! # layer
//! # }
//! ```
//!
//! ## Watch it
//!
//! What comes and goes unnoticed by callers is told to an [`Observer`]. One event is to wake somebody up:
//!
//! ```
//! use tower_salesforce_auth::{RefreshError, SalesforceAuthLayer, observer::Observer};
//!
//! struct Pager;
//!
//! impl Observer for Pager {
//!     fn reauthentication_required(&self, failure: &RefreshError) {
//!         eprintln!("Salesforce lets us in no more: {failure}");
//!     }
//! }
//!
//! # fn watch(login: impl tower_salesforce_auth::RefreshFn) -> SalesforceAuthLayer {
//! let layer = SalesforceAuthLayer::from(SessionHandle::builder(login).observer(Pager).build());
//! # layer
//! # }
//! ```
//!
//! ## End it
//!
//! [`SessionHandle::logout`] ends the session, [`logout_and_revoke`](SessionHandle::logout_and_revoke) the grant as well:
//!
//! ```
//! # use tower_salesforce_auth::{Error, SalesforceAuthLayer, flow::HttpClient};
//! # async fn end(layer: SalesforceAuthLayer, http: impl HttpClient) -> Result<(), Error> {
//! layer.handle().logout_and_revoke(http).await?;
//! # Ok(())
//! # }
//! ```
//!
//! ## Go on
//!
//! The guides in [`docs`] are on [choosing a flow](docs::choosing_a_flow), on
//! [the order of a tower stack](docs::stack_order), [testing](docs::testing) your application, [running it](docs::production)
//! and [what is promised](docs::security); two are for those who come [from jsforce](docs::from_jsforce) and
//! [from salesforce-oauth2](docs::from_salesforce_oauth2). [`oauth`] has the calls that the flows are made of.
//!
//! # What it does
//!
//! - A request with a relative URI goes to the session's instance. One with an absolute URI gets the token if it goes
//!   to the instance or to an origin that was [allowed](SalesforceAuthLayer::allow_origin), and passes untouched if not.
//!   Before the first login nobody knows the instance, and whatever goes to a Salesforce or a loopback host waits.
//! - Before the first request there is no session: it logs in, once for all that come meanwhile.
//! - What ends a session differs from API to API: mostly a 401, and a 400, 403 or 500 of some; [`verdict`] has the table.
//!   A 401 that no refresh cures is returned as it is.
//! - On such an answer the layer names the [generation](Generation) of the session that was turned down. Unless a newer one is
//!   there already, the [`RefreshFn`] is called, once, on a task of its own, and whoever comes meanwhile waits for it.
//!   Then the request is sent again with the new session, [once](SalesforceAuthLayer::max_refreshes).
//! - A good answer is returned as it is. The response to a request that was rejected, at first or for good, carries an
//!   [`AuthOutcome`].
//!
//! # What can be sent again
//!
//! | body | replay |
//! |---|---|
//! | in memory, whatever its size | the very same bytes, not copied |
//! | a stream of up to 64 KiB ([`replay_limit`]) | recorded while it is sent |
//! | a longer stream | none: the session is renewed, and the rejection is returned, [`BodyNotReplayable`] |
//! | whatever a [`BodyFactory`] makes | another of the same, of which nothing is kept |
//!
//! # Where the session is
//!
//! In the `Authorization` header, but for Bulk API 1.0 (`X-SFDC-Session`), the Pub/Sub API (`accesstoken`, `instanceurl`
//! and `tenantid`; its origin has to be [allowed](SalesforceAuthLayer::allow_origin)) and SOAP. [`verdict::Api`] says what
//! they are known by. A request that brings the header for its API is left alone.
//!
//! A SOAP call carries it in its body too: in the `sessionId` of the `SessionHeader`, if the caller put one there. The
//! layer writes the session of the attempt into it, whatever was there, empty included, and corrects the
//! `Content-Length`. It does so for every attempt if the body is in memory, and for a replay if it is a stream. A call
//! with another session than the layer's, a `logout()` of another for one, is marked [`SkipAuth`]. A body without such an
//! element is sent as it is.
//!
//! Salesforce turns a dead session down before it does anything, so requests are replayed whatever their method;
//! [`NoReplay`], [`NoRefresh`] and [`SkipAuth`] opt single requests out.
//!
//! # Many processes
//!
//! With a [`store`](SalesforceAuthLayer::store) a session outlives the process, and several processes share it: what one
//! obtained, the others adopt, and a refresh token is presented by one of them, once. [`store`](mod@store) tells how, and what
//! happens when the store fails.
//!
//! # Many orgs
//!
//! A [`SessionHandle`] among the extensions of a request takes the place of the layer's for that request, so that one
//! client, with one pool of connections, serves many orgs. [`Sessions`] keeps the handles, as many as it may.
//!
//! # How to order a stack
//!
//! Inside of the layer there are attempts, outside there are requests and their waits: retry and timeout go outside, tracing
//! and decompression inside. The client of a flow shares no concurrency limit with the one that is wrapped. If `tower_http`'s
//! `FollowRedirect` is inside, the feature `follow-redirect` lets the layer see whose 401 it is; leave Bulk API 1.0, SOAP and
//! gRPC to a client that follows no redirects. [`docs::stack_order`] has the other layers, and what breaks in the other place.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `conformance` | no | [`store::conformance`](store): tries a store of yours on the contract of [`SessionStore`](store::SessionStore) |
//! | `emulator` | no | [`emulator`]: an in-process Salesforce org to test against |
//! | `encryption` | no | `store::EncryptionKey`: records that nobody can read without it |
//! | `file-store` | no | `store::FileStore`: sessions in a directory |
//! | `follow-redirect` | no | 401s of foreign hosts that `FollowRedirect`, inside the layer, was led to cost no refresh |
//! | `https-client` | no | `https::HttpsClient`: a ready client, with TLS, HTTP/2, and the proxy that the environment names |
//! | `jwt` | no | assertions that are signed with a private key, by aws-lc-rs: [`JwtBearer`](flow::JwtBearer)`::new`, `ClientAuthentication::private_key_jwt` |
//! | `tracing` | no | each refresh in a span `salesforce.refresh`, within that of the request that caused it, and an event for whatever an [`Observer`] is told |
//! | `webpki-roots` | no | `https::Roots::WebPki`: Mozilla's root certificates, for where the machine has none; with `https-client` |
//!
//! # Requirements
//!
//! A tokio runtime, current-thread or multi-thread, with its time driver. Only what needs a refresh needs it.
//!
//! [`replay_limit`]: SalesforceAuthLayer::replay_limit
//! [`BodyNotReplayable`]: ReplaySkipped::BodyNotReplayable
#![cfg_attr(
    not(feature = "emulator"),
    doc = "[`emulator`]: https://docs.rs/tower-salesforce-auth"
)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used, clippy::expect_used)]

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
            RefreshFailed, RefreshStarted, RefreshSucceeded, Replayed, SessionAdopted, StoreFailed,
            StoreOperation,
        },
        observer::Observer,
        reason::{RefreshDescription, RefreshReason},
    };
}

/// Compiles what the README shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
