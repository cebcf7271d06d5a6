//! An in-process Salesforce org, for examples, tests and benches.
//!
//! An [`Org`] is a [`tower_service::Service`] that speaks the wire formats of a Salesforce org: its
//! OAuth endpoints with every way to log in, a handful of REST resources, and the 401 that ends a
//! session. It needs no socket and no network; [`Org::serve`] puts it on loopback for clients, and
//! browsers, that want one.
//!
//! | request | answer |
//! |---|---|
//! | `GET /services/oauth2/authorize` | the web server and the user-agent flow: a login page, a consent page, and back to the app |
//! | `POST /services/oauth2/token` | every grant: see [below](#the-grants) |
//! | `POST /services/oauth2/revoke`, or `GET` with `?token=` | ends a refresh token and what came of it, or an access token |
//! | `POST /services/oauth2/introspect` | whether a token is good, and for what |
//! | `GET /services/oauth2/userinfo`, `GET /id/{org}/{user}` | who the user is; 403 `Bad_OAuth_Token` without a good token |
//! | `GET /.well-known/openid-configuration`, `GET /id/keys` | where the endpoints are, and what ID tokens are signed with |
//! | `GET /setup/connect` | where the user of a device enters its code |
//! | `GET /services/data/` | the API versions; needs no session |
//! | `GET /services/data/vNN.0/limits` | `DailyApiRequests` |
//! | `GET /services/data/vNN.0/query?q=` | `SELECT` fields `FROM` `Account` or `Contact`, with or without `LIMIT` |
//! | `POST /services/data/vNN.0/sobjects/{type}` | creates a record |
//! | `GET /services/data/vNN.0/sobjects/{type}/{id}` | one record |
//! | anything below `/services/apexrest/` | 404 `NOT_FOUND`, after a look at the session |
//! | `POST /services/data/vNN.0/jobs/ingest`, and what is below it | Bulk API 2.0: see [below](#ingest-jobs) |
//! | `POST /services/async/NN.0/job` | Bulk API 1.0, in XML or JSON: a job. Its session is in `X-SFDC-Session`, and one that has ended is told by 400 `InvalidSessionId` |
//! | any method, `/services/data/vNN.0/echo` | what the org received: see [below](#the-echo) |
//! | `POST /services/Soap/u/NN.0` (partner), `…/c/NN.0` (enterprise), with or without the org id | SOAP `login`, `logout`, `getUserInfo` |
//! | anything else | 404 `NOT_FOUND` |
//!
//! `{type}` is `Account` or `Contact`; a new org has three accounts and two contacts. Requests are
//! routed by their path alone, so a relative and an absolute URI are the same request. Whatever is
//! below `/services/oauth2/` is also there below the path of a site: `/mysite/services/oauth2/token`.
//!
//! # The grants
//!
//! | `grant_type` | yields a session to whom | refused unless |
//! |---|---|---|
//! | `refresh_token` | has a refresh token that is good | the user is active |
//! | `authorization_code` | brings a code, its callback and its PKCE verifier | the code is less than 15 minutes old, and new to the org |
//! | `device` | was let in by the user; begins with `response_type=device_code` | the code is less than 10 minutes old |
//! | `password` | knows [name](Org::username), [password](Org::password) and [security token](Org::security_token) | [allowed](Org::block_password_flow) |
//! | `client_credentials` | knows the client secret | at the org's [own host](Org::act_as_shared_login_host) |
//! | `urn:ietf:params:oauth:grant-type:jwt-bearer` | signs with the [app's key](Org::jwt_private_key) | [approved](Org::preauthorize) |
//! | `urn:ietf:params:oauth:grant-type:token-exchange` | brings a token the org [trusts](Org::trust_subject_token) | approved, and at the org's own host |
//! | `urn:ietf:params:oauth:grant-type:saml2-bearer`, `assertion` | brings a SAML assertion that names the user | approved |
//!
//! The client authenticates with a form, HTTP Basic or a signed assertion. Nobody need sit in front
//! of the pages: [`Org::approve`] and [`Org::approve_device`] do what a user does there, and
//! [`Org::authorize`] skips the protocol altogether.
//!
//! A consent is for the scopes that were asked for, or else for `refresh_token web openid api id`;
//! a refresh token comes with `refresh_token` or `offline_access`, an ID token with `openid`.
//!
//! SAML assertions are read and not verified: their signature, their recipient and their times are
//! not looked at.
//!
//! # Strict where Salesforce is strict
//!
//! - A session that has ended, a token nobody issued and a request without a token all meet the same
//!   401, header for header. So does a request with two `Authorization` headers. A JWT that is not
//!   of the org's making meets 401 `INVALID_AUTH_HEADER`.
//! - Refresh tokens rotate. A refresh token presented after it was rotated out revokes everything
//!   that came from the same consent, the newest refresh token and its sessions included.
//! - A refresh token presented while an earlier request with it is still being answered is refused
//!   with `token request is already being processed`, and nothing is revoked.
//! - An authorization code is spent by its first exchange, also by one that fails for its callback or
//!   its verifier. A callback must be the app's, character for character; nobody is ever redirected
//!   to another one.
//! - A PKCE challenge is SHA-256 with or without its method, and `plain` is refused. So are a
//!   missing verifier, one with a `~` in it, and one that no challenge came for.
//! - An assertion must be signed with RS256, end within five minutes, and name the login URL or
//!   `https://login.salesforce.com` as its audience. Its `jti` works once. (Production has been seen
//!   to let an `exp` in milliseconds pass. The org does not.)
//! - Wrong passwords [lock the user out](Org::lock_out_after), and that looks like one more wrong
//!   password.
//! - No parameter may come twice.
//! - SOAP `login()` ends with API version 64.0. An expired password is told with status 200 and a
//!   session that is good for nothing; a JWT-based access token is no session for SOAP at all.
//!
//! - The content of an ingest job comes in one upload, and a second one is refused. A file with other line endings than
//!   the job says makes it fail.
//!
//! # Time and chance
//!
//! The org draws no random numbers except for its RSA keys, which are made on first use. Tokens,
//! codes, jobs and request ids are numbered. `issued_at` begins at 1750000000000 (milliseconds since the
//! Unix epoch) and grows by one second with every token. What has a lifetime lives by the clock of
//! the machine, or by [one of your own](Org::set_clock): authorization codes, device codes,
//! assertions, ID tokens and JWT-based access tokens. Opaque sessions do not end by themselves;
//! introspection says two hours from now. Only a [`Fault`] makes the org wait: [`Fault::Delay`] on tokio's clock, which a
//! test can pause, and [`Fault::Hang`] until it is told to go on. Ingest jobs were all created at the same time, and come a
//! step further whenever one looks at them.
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
//! # Ingest jobs
//!
//! | request, below `/services/data/vNN.0/` | answer |
//! |---|---|
//! | `POST jobs/ingest` | creates a job from `object` (`Account` or `Contact`), `operation`, and what goes with them; 200 |
//! | `PUT jobs/ingest/{id}/batches` | takes the content, CSV; 201 |
//! | `PATCH jobs/ingest/{id}` | `{"state":"UploadComplete"}` or `{"state":"Aborted"}`; 200 |
//! | `GET jobs/ingest/{id}` | the job; 200. The first look at one whose upload is complete finds it `InProgress`, the second `JobComplete` or `Failed` |
//! | `DELETE jobs/ingest/{id}` | 204 |
//!
//! The content is not kept, so that its size does not matter, and becomes no records: its rows are counted, all as
//! processed, and [`Org::upload`] tells its length and its digest. It may have 150,000,000 bytes once it is in Base64, and
//! more is refused with 400 `CLIENTINPUTERROR`; whatever is left of it is not read. An upload that breaks off leaves the
//! job as it was.
//!
//! # Controls
//!
//! An org that is [told to](Org::expose_controls) has levers and counters for programs in any
//! language. Each `POST /emulator/{lever}` calls the method of [`Org`] of that name; the parameters
//! are a JSON object, and `null` stands for `None`. Requests to them count nowhere.
//!
//! | control | parameters |
//! |---|---|
//! | `GET /emulator/stats` | none; answers with the [`Counters`] |
//! | `act-as-shared-login-host` | `{"shared": true}` |
//! | `add-redirect-uri`, `set-redirect-uri` | `{"uri": "https://app.example.com/callback"}` |
//! | `answer-early`, `error-body-size` | `{"bytes": 1024}` or `null` |
//! | `approve`, `deny` | `{"authorize_url": "…"}`; answers with `{"redirect": "…"}` |
//! | `approve-device`, `deny-device` | `{"user_code": "…"}` |
//! | `block-password-flow` | `{"block": true}` |
//! | `deactivate-user` | `{"deactivate": true}` |
//! | `enforce-device-interval` | `{"enforce": true}` |
//! | `expire-after` | `{"calls": 3}` or `null` |
//! | `expire-password` | `{"expire": true}` |
//! | `expire-sessions`, `revoke-grants`, `unlock-user` | none |
//! | `fault` | `{"on": "token", "fault": "hang"}`: see below |
//! | `issue-jwt-access-tokens` | `{"issue": true}` |
//! | `limit-approvals` | `{"approvals": 5}` or `null` |
//! | `limit-logins` | `{"logins": 3}` or `null` |
//! | `lock-out-after` | `{"wrong_passwords": 3}` or `null` |
//! | `move-instance` | `{"url": "https://moved.example.com"}` |
//! | `preauthorize` | `{"preauthorize": false}` |
//! | `refuse-sessions` | `{"message": "…"}` or `null` |
//! | `require-pkce`, `require-secret`, `require-security-token` | `{"required": false}` |
//! | `rotate-refresh-tokens` | `{"rotate": true}` |
//! | `trust-subject-token` | `{"subject_token": "…"}` |
//!
//! `on` is `data`, `revoke`, `soap-login` or `token`. `fault` is `"none"`, `"hang"`,
//! `"maintenance"`, `"lose-answer"`, `{"delay": {"milliseconds": 50}}` or
//! `{"refuse": {"status": 503, "error": "SERVER_UNAVAILABLE", "description": "busy"}}`. The answer is
//! 200 with a JSON object, or 400 with a `message` that says what is wrong.
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

mod controls;
mod endpoint;
mod fault;
mod grant;
mod org;
mod server;
mod service;
mod state;
mod wire;

pub use endpoint::authorize::ErrorPage;
pub use fault::Fault;
pub use grant::Grant;
pub use org::Org;
pub use server::Served;
pub use service::ResponseFuture;
pub use state::counters::Counters;
pub use state::upload::Upload;
