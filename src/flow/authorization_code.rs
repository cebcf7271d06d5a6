//! The authorization code flow (RFC 6749 §4.1), with PKCE.

use std::fmt;

use super::refresh_token;
use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::transport::HttpClient,
    oauth::{App, AuthorizationUrl, Callback, PendingAuthorization, TokenRequest},
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::RefreshDescription,
    session::session::Session,
    text::pasted,
};

/// Logs a user in through the browser (RFC 6749 §4.1, RFC 7636; Salesforce Help, "OAuth 2.0 Web Server Flow for Web App
/// Integration").
///
/// 1. Send the user to an [`authorization_url`](Self::authorization_url), and keep its pending authorization.
/// 2. When the browser requests the redirect URI, [`exchange`](Self::exchange) the URL of that request for a session.
/// 3. Give the session to a layer or handle with this flow. The flow then refreshes the session with its refresh token.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{
///     BoxError, SalesforceAuthLayer, SessionHandle, flow::AuthorizationCode, oauth::App,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// # let org = tower_salesforce_auth::emulator::Org::new();
/// # let served = org.serve().await?;
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// # let (login_url, redirect_uri) = (org.login_url().parse()?, org.redirect_uri());
/// # let (client_id, client_secret) = (org.client_id(), org.client_secret());
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// // For example `LoginUrl::production()` and "https://app.example.com/callback".
/// let app = App::new(login_url, client_id).client_secret(client_secret);
/// let flow = AuthorizationCode::new(client, app, redirect_uri).scope("api refresh_token");
///
/// let (url, pending) = flow.authorization_url().build()?.into_parts();
/// // Redirect the browser to `url`. The browser then requests the redirect URI:
/// // "https://app.example.com/callback?code=aPrx…&state=…".
/// # let callback_url = org.approve(&url)?;
/// let session = flow.exchange(&pending, &callback_url).await?;
/// println!("user {:?} of org {:?}", session.user_id(), session.organization_id());
///
/// let handle = SessionHandle::builder(flow).initial_session(session).build();
/// let layer = SalesforceAuthLayer::from(handle);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until you send a user to its authorization URL"]
pub struct AuthorizationCode<C> {
    client: C,
    app: App,
    redirect_uri: String,
    scope: Option<String>,
}

impl<C: HttpClient> AuthorizationCode<C> {
    /// Makes a flow for this app. `redirect_uri` receives the responses and must equal one of the app's callback URLs
    /// exactly.
    ///
    /// The app must authenticate itself, unless "Require Secret for Web Server Flow" is off.
    pub fn new(client: C, app: App, redirect_uri: impl Into<String>) -> Self {
        Self {
            client,
            app,
            redirect_uri: pasted::text(redirect_uri),
            scope: None,
        }
    }

    /// Sets the scopes to request, separated by spaces. Default: all scopes of the app.
    ///
    /// With `refresh_token` or `offline_access` here, a session without a refresh token is an error. Scopes that are
    /// set on a single [`authorization_url`](Self::authorization_url) do not have this effect.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(pasted::text(scope));
        self
    }

    /// The URL to send the user to. Call [`build`](AuthorizationUrl::build) for each authorization.
    pub fn authorization_url(&self) -> AuthorizationUrl<'_> {
        let url = AuthorizationUrl::new(&self.app, &self.redirect_uri);
        match &self.scope {
            Some(scope) => url.scope(scope),
            None => url,
        }
    }

    /// Exchanges the code of the callback for a session. A code can be exchanged once.
    ///
    /// `callback` is the URL that the browser requested, or its path and query.
    ///
    /// # Errors
    ///
    /// - [`RefreshErrorKind::InvalidCallback`] if the callback does not belong to the `pending` authorization, or names
    ///   another issuer than the app's login URL (RFC 9207). No code is sent then, and the right callback may still come.
    /// - [`RefreshErrorKind::Refused`] if the user or the server refused.
    /// - [`RefreshErrorKind::NoRefreshToken`] if the flow requested offline access and the response has no refresh
    ///   token.
    /// - Any error of a server that cannot be reached or sends another response.
    pub async fn exchange(
        &self,
        pending: &PendingAuthorization,
        callback: &str,
    ) -> Result<Session, RefreshError> {
        let callback = Callback::parse(callback)?;
        let key = self.app.key_of_exchange(pending.bound_key())?;
        let session = TokenRequest::new(&self.app, "authorization_code")
            .secret("code", callback.code(pending, self.app.login_url())?)
            .secret("code_verifier", pending.code_verifier())
            .parameter("redirect_uri", &self.redirect_uri)
            .proven_with(key)
            .obtain_session(self.client.clone())
            .await?;
        if self.requests_offline_access() && session.refresh_token().is_none() {
            return Err(RefreshError::new(
                RefreshErrorKind::NoRefreshToken,
                true,
                format!(
                    "{} granted no offline access, although the scope requests it: add the scope refresh_token to the \
                     app, and check its refresh token policy",
                    self.app.login_url().host()
                ),
            ));
        }
        Ok(session)
    }

    fn requests_offline_access(&self) -> bool {
        let mut scopes = self.scope.as_deref().unwrap_or_default().split_whitespace();
        scopes.any(|scope| matches!(scope, "refresh_token" | "offline_access"))
    }
}

/// Refreshes the session with its refresh token.
impl<C: HttpClient> RefreshFn for AuthorizationCode<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        refresh_token::refresh_session(self.client.clone(), &self.app, &context).await
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        Some(refresh_token::description(&self.app))
    }

    fn app(&self) -> Option<&App> {
        Some(&self.app)
    }
}

impl<C> fmt::Debug for AuthorizationCode<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationCode")
            .field("app", &self.app)
            .field("redirect_uri", &self.redirect_uri)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
