//! Token introspection (RFC 7662).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};

use super::{app::App, token::post_authenticated};
use crate::{error::RefreshError, http::transport::HttpClient, secret::Secret};

/// A token, as the authorization server describes it (RFC 7662 §2.2).
///
/// The server only reports `active: false` for a token that is unknown, expired, revoked or of another app. It does the
/// same for a plain session id of the username-password flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Introspection {
    /// Whether the token is valid now. Tokens of other apps count as inactive.
    pub active: bool,
    /// The scopes, separated by spaces.
    pub scope: Option<String>,
    /// The client id of the app that the token was issued to.
    pub client_id: Option<String>,
    /// The user name.
    pub username: Option<String>,
    /// The user's identity URL.
    pub sub: Option<String>,
    /// The kind of token: `access_token` or `refresh_token`.
    pub token_type: Option<String>,
    /// When the token expires. No other call reports the expiry of an opaque access token.
    #[serde(default, deserialize_with = "seconds")]
    pub exp: Option<SystemTime>,
    /// When the token was issued.
    #[serde(default, deserialize_with = "seconds")]
    pub iat: Option<SystemTime>,
    /// When the token becomes valid.
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
/// Any error of a server that refuses, cannot be reached, or sends another response.
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
    post_authenticated(
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
