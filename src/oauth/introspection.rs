//! Token introspection (RFC 7662).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};

use super::{app::App, token::authenticated};
use crate::{error::RefreshError, http::transport::HttpClient, secret::Secret};

/// What the server knows of a token (RFC 7662 §2.2).
///
/// Of a token that is unknown, expired, revoked, of another app, or a plain session id of the username-password flow, it
/// says that it is not active, and no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Introspection {
    /// Whether the token is good now, for all that the server tells this app.
    pub active: bool,
    /// The scope, space-separated.
    pub scope: Option<String>,
    /// The app that the token was issued to.
    pub client_id: Option<String>,
    /// The user's name.
    pub username: Option<String>,
    /// The identity URL of the user.
    pub sub: Option<String>,
    /// `access_token` or `refresh_token`.
    pub token_type: Option<String>,
    /// When it ends: the one way to learn this of an opaque access token.
    #[serde(default, deserialize_with = "seconds")]
    pub exp: Option<SystemTime>,
    /// When it was issued.
    #[serde(default, deserialize_with = "seconds")]
    pub iat: Option<SystemTime>,
    /// When it becomes good.
    #[serde(default, deserialize_with = "seconds")]
    pub nbf: Option<SystemTime>,
}

/// Asks the server about an access token or refresh token of this app (RFC 7662; Salesforce Help, "OpenID Connect Token
/// Introspection").
///
/// ```no_run
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{LoginUrl, Secret, oauth::{self, App}};
///
/// # async fn example() -> Result<(), tower_salesforce_auth::RefreshError> {
/// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let app = App::new(LoginUrl::production(), "3MVG9…").client_secret("1955…");
/// let introspection = oauth::introspect(client, &app, &Secret::from("00Dxx…")).await?;
/// println!("{} until {:?}", introspection.active, introspection.exp);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If the server refuses, cannot be reached, or answers something else.
pub async fn introspect(
    client: impl HttpClient,
    app: &App,
    token: &Secret,
) -> Result<Introspection, RefreshError> {
    let endpoint = app
        .login_url()
        .join("/services/oauth2/introspect")
        .map_err(RefreshError::configuration)?;
    let parameters = [("token", token.expose())];
    authenticated(
        client,
        app,
        endpoint,
        &parameters,
        &[token.expose()],
        "token introspection",
    )
    .await?
    .json("JSON with `active`")
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    let seconds = serde_json::Value::deserialize(deserializer)?.as_u64();
    Ok(seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds))))
}
