//! The refresh token flow (RFC 6749 §6).

use std::fmt;

use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::transport::HttpClient,
    oauth::{self, App},
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::RefreshDescription,
    secret::Secret,
    session::session::Session,
};

/// Renews a session with a refresh token (RFC 6749 §6; Salesforce Help, "OAuth 2.0 Refresh Token Flow for Renewed
/// Sessions").
///
/// # Rotation
///
/// If the app rotates refresh tokens, every answer brings a new one, and the one before it must never be used again:
/// Salesforce revokes the whole grant of whoever does. The layer presents the newest one that any session of its handle
/// came with; the one that is given here is for the beginning. To go on after a restart, give the layer a
/// [store](crate::SalesforceAuthLayer::store): then what is given here is presented only if nothing is stored yet.
///
/// So one refresh token belongs into one handle, or into several that share a store under the same key: without one, clones
/// of this flow in two handles would each present it.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{LoginUrl, SalesforceAuthLayer, flow::RefreshToken, oauth::App};
///
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let app = App::new(LoginUrl::production(), "3MVG9…").client_secret("1955…");
/// let layer = SalesforceAuthLayer::new(RefreshToken::new(client, app, "5Aep861…"));
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until a layer or a handle is made with it"]
pub struct RefreshToken<C> {
    client: C,
    app: App,
    refresh_token: Secret,
}

impl<C: HttpClient> RefreshToken<C> {
    /// Renews sessions of this app, beginning with this refresh token.
    ///
    /// The app has to authenticate itself, unless "Require Secret for Refresh Token Flow" is off.
    pub fn new(client: C, app: App, refresh_token: impl Into<Secret>) -> Self {
        Self {
            client,
            app,
            refresh_token: refresh_token.into(),
        }
    }
}

impl<C: HttpClient> RefreshFn for RefreshToken<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        if context.refresh_token().is_none() && !context.has_spent_refresh_token() {
            return exchange(self.client.clone(), &self.app, &self.refresh_token).await;
        }
        renew(self.client.clone(), &self.app, &context).await
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        let host = self.app.login_url().host().to_owned();
        Some(RefreshDescription::new("refresh_token", host))
    }
}

/// Renews the session of a user who authorized the app, for the flows that begin with that.
pub(super) async fn renew(
    client: impl HttpClient,
    app: &App,
    context: &RefreshContext,
) -> Result<Session, RefreshError> {
    let Some(presented) = context.refresh_token() else {
        return Err(RefreshError::new(
            RefreshErrorKind::NoRefreshToken,
            true,
            "there is no refresh token to renew the session with: have the user authorize the app, with the scope \
             refresh_token, and set the session that comes of it",
        ));
    };
    exchange(client, app, presented).await
}

async fn exchange(
    client: impl HttpClient,
    app: &App,
    presented: &Secret,
) -> Result<Session, RefreshError> {
    oauth::refresh_token(client, app, presented)
        .await?
        // Without rotation the answer brings none, and the old one stays good.
        .into_session_after(app.login_url(), Some(presented))
}

impl<C> fmt::Debug for RefreshToken<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshToken")
            .field("app", &self.app)
            .field("refresh_token", &self.refresh_token)
            .finish_non_exhaustive()
    }
}
