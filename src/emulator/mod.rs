//! An in-process Salesforce org, for examples, tests and benches.
//!
//! An [`Org`] is a [`tower_service::Service`] that speaks the wire formats of a Salesforce org: the
//! token endpoint, a handful of REST resources, and the 401 that ends a session. It needs no socket
//! and no network; [`Org::serve`] puts it on loopback for clients that want one.
//!
//! | request | answer |
//! |---|---|
//! | `POST /services/oauth2/token` | grants `refresh_token` and `client_credentials` |
//! | `GET /services/data/` | the API versions; needs no session |
//! | `GET /services/data/vNN.0/limits` | `DailyApiRequests` |
//! | `GET /services/data/vNN.0/query?q=` | `SELECT` fields `FROM` `Account` or `Contact`, with or without `LIMIT` |
//! | `POST /services/data/vNN.0/sobjects/{type}` | creates a record |
//! | `GET /services/data/vNN.0/sobjects/{type}/{id}` | one record |
//! | any method, `/services/data/vNN.0/echo` | what the org received: see [below](#the-echo) |
//! | anything else | 404 `NOT_FOUND` |
//!
//! `{type}` is `Account` or `Contact`; a new org has three accounts and two contacts. Requests are
//! routed by their path alone, so a relative and an absolute URI are the same request.
//!
//! # Strict where Salesforce is strict
//!
//! - A session that has ended, a token nobody issued and a request without a token all meet the same
//!   401, header for header. So does a request with two `Authorization` headers.
//! - Refresh tokens rotate. A refresh token presented after it was rotated out revokes everything
//!   that came from the same consent, the newest refresh token and its sessions included.
//! - A refresh token presented while an earlier request with it is still being answered is refused
//!   with `token request is already being processed`, and nothing is revoked.
//!
//! # Time and chance
//!
//! The org never reads a clock and draws no random numbers. Tokens and request ids are numbered.
//! `issued_at` begins at 1750000000000 (milliseconds since the Unix epoch) and grows by one second
//! with every token. Only a [`Fault`] makes the org wait: [`Fault::Delay`] on tokio's clock, which a
//! test can pause, and [`Fault::Hang`] until it is told to go on.
//!
//! # The echo
//!
//! The echo answers 200 with a JSON object:
//!
//! | member | content |
//! |---|---|
//! | `method`, `path` | the request line; `path` includes the query |
//! | `headers` | `[name, value]` pairs in the order of arrival, `authorization` as `[redacted]` |
//! | `authorization_count` | how many `Authorization` headers came |
//! | `body_length` | bytes |
//! | `body_sha256` | lower-case hex |
//! | `trailers` | `[name, value]` pairs |
//!
//! # Example
//!
//! A session ends, and a refresh begins the next one:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, StatusCode};
//! use http_body_util::{BodyExt, Full};
//! use tower::ServiceExt;
//! use tower_salesforce_auth::emulator::Org;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let org = Org::new();
//! let grant = org.authorize();
//!
//! let limits = |token: &str| {
//!     Request::get("/services/data/v66.0/limits")
//!         .header("authorization", format!("Bearer {token}"))
//!         .body(Full::<Bytes>::default())
//! };
//! let response = org.clone().oneshot(limits(grant.access_token())?).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//!
//! org.expire_sessions();
//! let response = org.clone().oneshot(limits(grant.access_token())?).await?;
//! assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
//!
//! let form = format!(
//!     "grant_type=refresh_token&refresh_token={}&client_id={}&client_secret={}",
//!     grant.refresh_token(),
//!     org.client_id(),
//!     org.client_secret(),
//! );
//! let refresh = Request::post(org.token_url())
//!     .header("content-type", "application/x-www-form-urlencoded")
//!     .body(Full::<Bytes>::from(form))?;
//! let response = org.clone().oneshot(refresh).await?;
//! let body = response.into_body().collect().await?.to_bytes();
//! let tokens: serde_json::Value = serde_json::from_slice(&body)?;
//!
//! let token = tokens["access_token"].as_str().unwrap_or_default();
//! let response = org.clone().oneshot(limits(token)?).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(org.counters().tokens_issued, 1);
//! # Ok(())
//! # }
//! ```

mod answer;
mod app;
mod authorize;
mod clock;
mod codes;
mod connect;
mod counters;
mod data;
mod devices;
mod discovery;
mod echo;
mod fault;
mod form;
mod grant;
mod identity;
mod introspect;
mod jwt;
mod keys;
mod org;
mod page;
mod receive;
mod records;
mod rest;
mod revoke;
mod scope;
mod server;
mod service;
mod sessions;
mod signature;
mod soql;
mod state;
mod token;
mod user;

pub use authorize::ErrorPage;
pub use counters::Counters;
pub use fault::Fault;
pub use grant::Grant;
pub use org::Org;
pub use server::Served;
pub use service::ResponseFuture;
