//! The refresh token flow (RFC 6749 §6).

use std::fmt;

use crate::{
    endpoint::LoginUrl,
    error::RefreshError,
    oauth::GrantRequest,
    refresh::{RefreshContext, RefreshFn},
    secret::Secret,
    session::Session,
    transport::HttpClient,
};

/// Renews a session with a refresh token (RFC 6749 §6; Salesforce Help, "OAuth 2.0 Refresh Token Flow for Renewed
/// Sessions").
///
/// # Rotation
///
/// If the app rotates refresh tokens, every answer brings a new one, and the one before it must never be used again:
/// Salesforce revokes the whole grant of whoever does. The layer presents the newest one that any session of its handle
/// came with; the one that is given here is for the beginning. To go on after a restart, keep the refresh token of each
/// session that [`SessionHandle::subscribe`](crate::SessionHandle::subscribe) shows, and begin with the last.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{LoginUrl, SalesforceAuthLayer, flow::RefreshToken};
///
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let layer = SalesforceAuthLayer::new(
///     RefreshToken::new(client, LoginUrl::production(), "3MVG9…", "5Aep861…").client_secret("1955…"),
/// );
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until a layer or a handle is made with it"]
pub struct RefreshToken<C> {
    client: C,
    login_url: LoginUrl,
    client_id: String,
    client_secret: Option<Secret>,
    refresh_token: Secret,
}

impl<C: HttpClient> RefreshToken<C> {
    /// Renews sessions at `login_url` for the app with this client id, beginning with this refresh token.
    #[doc(alias = "consumer key")]
    pub fn new(
        client: C,
        login_url: LoginUrl,
        client_id: impl Into<String>,
        refresh_token: impl Into<Secret>,
    ) -> Self {
        Self {
            client,
            login_url,
            client_id: client_id.into(),
            client_secret: None,
            refresh_token: refresh_token.into(),
        }
    }

    /// Adds the client secret, which the app asks for unless "Require Secret for Refresh Token Flow" is off. None by
    /// default.
    #[doc(alias = "consumer secret")]
    pub fn client_secret(mut self, client_secret: impl Into<Secret>) -> Self {
        self.client_secret = Some(client_secret.into());
        self
    }
}

impl<C: HttpClient> RefreshFn for RefreshToken<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        let presented = context.refresh_token().unwrap_or(&self.refresh_token);
        let mut parameters = vec![
            ("refresh_token", presented.expose()),
            ("client_id", &self.client_id),
        ];
        let mut secrets = vec![presented.expose()];
        if let Some(client_secret) = &self.client_secret {
            parameters.push(("client_secret", client_secret.expose()));
            secrets.push(client_secret.expose());
        }
        GrantRequest {
            login_url: &self.login_url,
            grant_type: "refresh_token",
            parameters: &parameters,
            secrets: &secrets,
        }
        .send(self.client.clone())
        .await?
        // Without rotation the answer brings none, and the old one stays good.
        .into_session(&self.login_url, Some(presented))
    }
}

impl<C> fmt::Debug for RefreshToken<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshToken")
            .field("login_url", &self.login_url)
            .field("client_id", &self.client_id)
            .field("client_secret", &self.client_secret)
            .field("refresh_token", &self.refresh_token)
            .finish_non_exhaustive()
    }
}
