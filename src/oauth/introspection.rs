//! Token introspection (RFC 7662).

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::token::Call;
use crate::{
    app::App,
    error::RefreshError,
    http::{server_error::unrecognized, transport::HttpClient},
    secret::Secret,
    text::{fields::Fields, pasted},
};

/// A token, as the authorization server describes it (RFC 7662 §2.2).
///
/// The server only reports `active: false` for a token that is unknown, expired, revoked or of another app. It does the
/// same for a plain session id of the username-password flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Fields")]
#[non_exhaustive]
pub struct Introspection {
    /// Whether the token is valid now. Tokens of other apps count as inactive, and so does a value that is no boolean.
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
    pub exp: Option<SystemTime>,
    /// When the token was issued.
    pub iat: Option<SystemTime>,
    /// When the token becomes valid.
    pub nbf: Option<SystemTime>,
}

impl From<Fields> for Introspection {
    fn from(fields: Fields) -> Self {
        let time = |name| UNIX_EPOCH.checked_add(fields.seconds(name)?);
        Self {
            active: fields.flag("active").unwrap_or_default(),
            scope: fields.text("scope"),
            client_id: fields.text("client_id"),
            username: fields.text("username"),
            sub: fields.text("sub"),
            token_type: fields.text("token_type"),
            exp: time("exp"),
            iat: time("iat"),
            nbf: time("nbf"),
        }
    }
}

/// Asks the server about an access token or refresh token of this app (RFC 7662; Salesforce Help, "OpenID Connect Token
/// Introspection").
///
/// The app authenticates itself as at the token endpoint (RFC 7662 §2.1). Salesforce refuses an app without authentication.
/// An app with a DPoP key proves the call.
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
        .introspection_endpoint()
        .map_err(RefreshError::configuration)?;
    let token = pasted::credential(token.expose());
    let parameters = [("token", token)];
    let request = "token introspection";
    let secrets = [token];
    let dpop_key = app.key_of(None);
    let call = Call {
        app: Some(app),
        endpoint,
        parameters: &parameters,
        secrets: &secrets,
        dpop_key: dpop_key.as_ref(),
    };
    let response = call.post_checked(client, request).await?;
    match response.fields(&["active", "exp", "username", "client_id", "token_type"]) {
        Some(fields) if fields.has("active") => Ok(fields.into()),
        _ => Err(unrecognized(
            request,
            response,
            "JSON with `active`",
            &secrets,
        )),
    }
}
