//! An in-process Salesforce org, for examples, tests and benches.
//!
//! An [`Org`] is a [`tower_service::Service`] that speaks the wire formats of a Salesforce org: its
//! OAuth endpoints with every login flow, a few REST resources, and the 401 of an ended session. It
//! needs no socket and no network. [`Org::serve`] puts it on loopback for clients and browsers.
//!
//! | request | answer |
//! |---|---|
//! | `GET /services/oauth2/authorize` | the web server and the user-agent flow: a login page, a consent page, and a redirect to the app |
//! | `POST /services/oauth2/token` | every grant: see [below](#the-grants) |
//! | `POST /services/oauth2/revoke`, or `GET` with `?token=` | ends a refresh token with its lineage, or an access token |
//! | `POST /services/oauth2/introspect` | whether a token is valid, and its scope |
//! | `GET /services/oauth2/userinfo`, `GET /id/{org}/{user}` | the user's identity; 403 `Bad_OAuth_Token` without a valid token |
//! | `GET /.well-known/openid-configuration`, `GET /id/keys` | the URLs of the endpoints, and the public keys of ID tokens |
//! | `GET /setup/connect` | the page where the user of a device enters its code |
//! | `GET /services/data/` | the API versions; needs no session |
//! | `GET /services/data/vNN.0` | the resources of the version |
//! | `GET …/limits` | `DailyApiRequests` |
//! | `GET …/query?q=`, `…/queryAll` | the records that a query finds: see [below](#queries); with `columns=true`, its columns |
//! | `GET …/query/{locator}` | the next page of a long result |
//! | `GET …/sobjects`, `…/sobjects/{type}`, `…/sobjects/{type}/describe` | the objects, a summary of one, and its fields |
//! | `POST …/sobjects/{type}` | creates a record |
//! | `GET`, `PATCH`, `DELETE …/sobjects/{type}/{id}` | one record, or its `fields`; changes it; deletes it |
//! | `POST …/composite`, `…/composite/batch`, `…/composite/sobjects` | up to 25 calls, with references; up to 25 calls; up to 200 new records |
//! | anything below `/services/apexrest/` | 404 `NOT_FOUND`, after the session check |
//! | `POST …/jobs/ingest`, and paths below it | Bulk API 2.0: see [below](#ingest-jobs) |
//! | `POST /services/async/NN.0/job`, `GET` and `POST` of `job/{id}` there | a job of Bulk API 1.0, its state and a new state, in XML or JSON. The session is in `X-SFDC-Session`, and an ended one yields 400 `InvalidSessionId` |
//! | any method, `…/echo` | the request that the org received: see [below](#the-echo) |
//! | `POST /services/Soap/u/NN.0` (partner), `/services/Soap/c/NN.0` (enterprise), with or without the org id | SOAP `login`, `logout`, `getUserInfo` |
//! | anything else | 404 `NOT_FOUND` |
//!
//! `…` is `/services/data/vNN.0`. `{type}` is `Account`, `Contact`, `User` or `Organization`. The
//! last two have one record each, which nothing changes but [`Org::deactivate_user`]. A new org has
//! three accounts and two contacts. The path alone selects the endpoint, so a relative and an
//! absolute URI are the same request. The endpoints below `/services/oauth2/` also exist below the
//! path of a site: `/mysite/services/oauth2/token`.
//!
//! The versions 31.0 to 68.0 are alike. An older one is retired: REST answers 410
//! `UNSUPPORTED_API_VERSION`, SOAP 500 with the same code, and Bulk API 1.0 400 `InvalidVersion`.
//!
//! # Queries
//!
//! ```text
//! SELECT Id, Name FROM Account
//!     WHERE (Name LIKE 'A%' OR Industry IN ('Energy', 'Media')) AND NumberOfEmployees >= 80
//!     ORDER BY Name DESC NULLS LAST LIMIT 10 OFFSET 5
//! SELECT COUNT() FROM Contact WHERE NOT Email = null
//! ```
//!
//! The org knows these clauses and `=`, `!=`, `<`, `<=`, `>`, `>=`, `NOT IN`. It knows no dates, no
//! relationships, no other functions and no `GROUP BY`. It refuses them with `MALFORMED_QUERY` or
//! `INVALID_FIELD`, and names the row, the column and the word. A page has 2,000 records, or from
//! 200 as `Sforce-Query-Options` says.
//!
//! # The grants
//!
//! | `grant_type` | the client presents | and |
//! |---|---|---|
//! | `refresh_token` | a valid refresh token | the user is active |
//! | `authorization_code` | a code, its callback and its PKCE verifier | the code is less than 15 minutes old and unused |
//! | `device` | a device code that the user allowed; the flow begins with `response_type=device_code` | the code is less than 10 minutes old |
//! | `password` | [name](Org::username), [password](Org::password) and [security token](Org::security_token) | the flow is [allowed](Org::block_password_flow) |
//! | `client_credentials` | the client secret | the host is the org's [own](Org::act_as_shared_login_host) |
//! | `urn:ietf:params:oauth:grant-type:jwt-bearer` | an assertion signed with the [app's key](Org::jwt_private_key) | the app is [approved](Org::preauthorize) |
//! | `urn:ietf:params:oauth:grant-type:token-exchange` | a token that the org [trusts](Org::trust_subject_token) | the app is approved, and the host is the org's own |
//! | `urn:ietf:params:oauth:grant-type:saml2-bearer`, `assertion` | a SAML assertion that names the user | the app is approved |
//!
//! The client authenticates with a form, HTTP Basic or a signed assertion. The pages need no user:
//! [`Org::approve`] and [`Org::approve_device`] do what a user does there, and [`Org::authorize`]
//! skips the protocol.
//!
//! A consent covers the requested scopes. Default: `refresh_token web openid api id`. The scopes
//! `refresh_token` and `offline_access` yield a refresh token, and `openid` yields an ID token.
//!
//! The org reads SAML assertions without verifying their signature, recipient or times.
//!
//! # Strict where Salesforce is strict
//!
//! - An ended session, an unknown token and a missing token all get the same 401, header for header.
//!   So does a request with two `Authorization` headers. A JWT that the org did not issue gets 401
//!   `INVALID_AUTH_HEADER`.
//! - Refresh tokens rotate. A refresh token presented after its rotation revokes its whole lineage:
//!   the newest refresh token and all sessions of the same consent.
//! - A refresh token presented while an earlier request with it has no answer yet is refused with
//!   `token request is already being processed`. The org revokes nothing then.
//! - The first exchange of an authorization code spends it, even if the callback or the verifier is
//!   wrong. A callback must equal the app's exactly. The org never redirects to another one.
//! - A PKCE challenge is SHA-256 with or without its method, and `plain` is refused. So are a
//!   missing verifier, a verifier with a `~`, and a verifier without a challenge.
//! - An assertion must be signed with RS256, end within five minutes, and name the login URL or
//!   `https://login.salesforce.com` as its audience. Its `jti` works once. An `exp` in milliseconds
//!   is accepted, as Salesforce's own CLI sends it.
//! - Wrong passwords [lock the user out](Org::lock_out_after). The answer then looks like that to
//!   another wrong password.
//! - Repeated parameters are refused.
//! - SOAP `login()` ends with API version 64.0. For an expired password, it answers with status 200
//!   and an unusable session. SOAP does not accept a JWT-based access token as a session.
//! - An ingest job takes its content in one upload and refuses a second one. A file with other line
//!   endings than the job declares makes the job fail.
//!
//! # DPoP
//!
//! A token request with a proof (RFC 9449) gets tokens that are bound to its key, with `token_type` `DPoP`, and one without a
//! proof gets bearer tokens. Each claim is checked: `typ`, `alg` (ES256 alone), `jwk`, `htm`, `htu`, `iat` (five minutes), `jti`
//! (once), `ath`, `nonce`, and the signature. A refused proof is answered with `invalid_dpop_proof`, and the description says why.
//!
//! A bound access token needs the scheme `DPoP` and a proof of its key, in SOAP in a `DpopProofHeader`. Any other use of it is
//! answered like an ended session. A bound refresh token, and a code of a request with `dpop_jkt`, need a proof of the same key. A
//! refresh token of a bearer grant stays one. Whether Bulk API 1.0 takes bound tokens is not documented: the org takes them with
//! a proof in the header `DPoP`.
//!
//! # Time and chance
//!
//! The org draws random numbers only for its RSA keys, which it makes on first use. Tokens, codes,
//! jobs and request ids are numbered. `issued_at` begins at 1750000000000 (milliseconds since the
//! Unix epoch) and grows by one second with every token.
//!
//! Lifetimes follow the clock of the machine, or [a clock of yours](Org::set_clock): those of
//! authorization codes, device codes, assertions, ID tokens and JWT-based access tokens. Opaque
//! sessions do not end by time, although introspection reports two hours from now.
//!
//! Only a [`Fault`] makes the org wait: [`Fault::Delay`] on tokio's clock, which a test can pause, and
//! [`Fault::Hang`] until the fault is cleared. All ingest jobs have the same creation time. Each
//! request for a job moves it one state further.
//!
//! # The echo
//!
//! The echo answers 200 with a JSON object:
//!
//! | member | content |
//! |---|---|
//! | `method`, `path` | the request line; `path` includes the query |
//! | `headers` | `[name, value]` pairs in the order of arrival, `authorization` as `[redacted]` |
//! | `authorization_count` | the number of `Authorization` headers |
//! | `body_length` | the number of bytes |
//! | `body_sha256` | the digest in lower-case hexadecimal digits |
//! | `trailers` | `[name, value]` pairs |
//!
//! # Ingest jobs
//!
//! | request, below `/services/data/vNN.0/` | answer |
//! |---|---|
//! | `POST jobs/ingest` | creates a job from `object` (`Account` or `Contact`), `operation`, and their options; 200 |
//! | `PUT jobs/ingest/{id}/batches` | takes the content, CSV; 201 |
//! | `PATCH jobs/ingest/{id}` | `{"state":"UploadComplete"}` or `{"state":"Aborted"}`; 200 |
//! | `GET jobs/ingest/{id}` | the job; 200. After `UploadComplete`, the first request finds it `InProgress`, the second `JobComplete` or `Failed` |
//! | `DELETE jobs/ingest/{id}` | 204 |
//!
//! The org does not keep the content, so its size does not matter, and makes no records of it. It
//! counts all rows as processed, and [`Org::upload`] returns length and digest. The limit is
//! 150,000,000 bytes in Base64. A larger upload gets 400 `CLIENTINPUTERROR`, and the org reads no
//! further. An upload that breaks off leaves the job as it was.
//!
//! # Controls
//!
//! With [`Org::expose_controls`], programs in any language can use the methods and counters of an
//! org. `POST /emulator/{control}` calls the method of [`Org`] of that name. Its parameters are a
//! JSON object, with `null` for `None`. The counters leave out these requests.
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
//! | `change-dpop-nonce-always` | `{"change": true}` |
//! | `deactivate-user` | `{"deactivate": true}` |
//! | `enforce-device-interval` | `{"enforce": true}` |
//! | `expire-after` | `{"calls": 3}` or `null` |
//! | `expire-password` | `{"expire": true}` |
//! | `expire-sessions`, `revoke-grants`, `unlock-user` | none |
//! | `fault` | `{"on": "token", "fault": "hang"}`: see below |
//! | `ignore-dpop` | `{"ignore": true}` |
//! | `issue-jwt-access-tokens` | `{"issue": true}` |
//! | `limit-approvals` | `{"approvals": 5}` or `null` |
//! | `limit-logins` | `{"logins": 3}` or `null` |
//! | `lock-out-after` | `{"wrong_passwords": 3}` or `null` |
//! | `move-instance` | `{"url": "https://moved.example.com"}` |
//! | `preauthorize` | `{"preauthorize": false}` |
//! | `refuse-sessions` | `{"message": "…"}` or `null` |
//! | `require-dpop`, `require-dpop-nonce`, `require-dpop-nonce-for-data`, `require-pkce`, `require-secret`, `require-security-token` | `{"required": false}` |
//! | `rotate-dpop-nonce` | none |
//! | `rotate-refresh-tokens` | `{"rotate": true}` |
//! | `trust-subject-token` | `{"subject_token": "…"}` |
//!
//! `on` is `data`, `revoke`, `soap-login` or `token`. `fault` is `"none"`, `"hang"`,
//! `"maintenance"`, `"lose-answer"`, `{"delay": {"milliseconds": 50}}` or
//! `{"refuse": {"status": 503, "error": "SERVER_UNAVAILABLE", "description": "busy"}}`. The answer is
//! 200 with a JSON object, or 400 with a `message` that explains the problem.
//!
//! # Example
//!
//! A session ends, and a refresh starts the next one:
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
