//! The refresh token flow (RFC 6749 §6).

use std::fmt;

use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::transport::HttpClient,
    oauth::{self, App, SfdxAuthUrl},
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::RefreshDescription,
    secret::Secret,
    session::{grant_token::GrantToken, session::Session},
    text::pasted,
};

/// Refreshes a session with a refresh token (RFC 6749 §6; Salesforce Help, "OAuth 2.0 Refresh Token Flow for Renewed
/// Sessions").
///
/// # Rotation
///
/// If the app rotates refresh tokens, every response contains a new one, and the old one must never be presented again.
/// If it is, Salesforce revokes the whole grant.
///
/// The layer always presents the newest refresh token of its handle. It presents the token given here only while the
/// handle has no other. To continue after a restart, give the layer a [store](crate::handle::SessionHandleBuilder::store): the
/// stored token then takes precedence.
///
/// Use one refresh token in one handle only, or in several handles that share a store and key. Without a store, clones
/// of this flow in two handles would each present the same token.
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
#[must_use = "a flow does nothing until you give it to a layer or a handle"]
pub struct RefreshToken<C> {
    client: C,
    app: App,
    refresh_token: Secret,
}

impl<C: HttpClient> RefreshToken<C> {
    /// Makes a flow for this app that begins with this refresh token.
    ///
    /// The app must authenticate itself, unless "Require Secret for Refresh Token Flow" is off.
    pub fn new(client: C, app: App, refresh_token: impl Into<Secret>) -> Self {
        Self {
            client,
            app,
            refresh_token: pasted::secret(refresh_token),
        }
    }

    /// Makes a flow for the app and the refresh token of an SFDX auth URL.
    ///
    /// A URL of a login that a CLI still uses is [shared](SfdxAuthUrl#shared-with-the-cli) with it.
    ///
    /// ```
    /// use tower_salesforce_auth::{
    ///     Error, SalesforceAuthLayer,
    ///     flow::{HttpClient, RefreshToken},
    /// };
    ///
    /// fn layer(http: impl HttpClient, url: &str) -> Result<SalesforceAuthLayer, Error> {
    ///     let login = RefreshToken::from_sfdx_auth_url(http, &url.parse()?);
    ///     Ok(SalesforceAuthLayer::new(login))
    /// }
    /// ```
    pub fn from_sfdx_auth_url(client: C, url: &SfdxAuthUrl) -> Self {
        Self::new(client, url.app(), url.refresh_token().clone())
    }
}

impl<C: HttpClient> RefreshFn for RefreshToken<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        if context.refresh_token().is_none() && !context.has_spent_refresh_token() {
            let presented = GrantToken::unbound(self.refresh_token.clone());
            return exchange(self.client.clone(), &self.app, &presented).await;
        }
        refresh_session(self.client.clone(), &self.app, &context).await
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        Some(description(&self.app))
    }

    fn app(&self) -> Option<&App> {
        Some(&self.app)
    }
}

/// Describes a refresh with a refresh token of this app.
pub(super) fn description(app: &App) -> RefreshDescription {
    RefreshDescription::new("refresh_token", app.login_url().host().to_owned())
}

/// Refreshes a session with the refresh token of `context`, for flows that begin with a user's authorization.
pub(super) async fn refresh_session(
    client: impl HttpClient,
    app: &App,
    context: &RefreshContext,
) -> Result<Session, RefreshError> {
    let Some(presented) = context.grant_token() else {
        return Err(RefreshError::new(
            RefreshErrorKind::NoRefreshToken,
            true,
            "there is no refresh token to refresh the session with: have the user authorize the app, with the scope \
             refresh_token, and set the resulting session",
        ));
    };
    exchange(client, app, presented).await
}

async fn exchange(
    client: impl HttpClient,
    app: &App,
    presented: &GrantToken,
) -> Result<Session, RefreshError> {
    oauth::refresh_grant(client, app, presented)
        .await?
        // Without rotation, the response has no refresh token and the presented one stays valid.
        .into_session_after(app.login_url(), Some(&presented.token))
}

impl<C> fmt::Debug for RefreshToken<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshToken")
            .field("app", &self.app)
            .field("refresh_token", &self.refresh_token)
            .finish_non_exhaustive()
    }
}
