//! The client credentials flow (RFC 6749 §4.4).

use std::fmt;

use crate::{
    error::RefreshError,
    http::transport::HttpClient,
    oauth::{App, TokenRequest},
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::RefreshDescription,
    session::session::Session,
};

/// Logs in as the app itself (RFC 6749 §4.4; Salesforce Help, "OAuth 2.0 Client Credentials Flow for Server-to-Server
/// Integration").
///
/// The flow works on the org's My Domain only. The session acts as the Run As user of the app's policies. The app
/// authenticates itself with its secret or with an assertion: see [`ClientAuthentication`]. There is no refresh token:
/// each refresh is a new login.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{SalesforceAuthLayer, flow::ClientCredentials, oauth::App};
///
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let login_url = "https://MyDomainName.my.salesforce.com".parse()?;
/// let app = App::new(login_url, "3MVG9…").client_secret("1955…");
/// let layer = SalesforceAuthLayer::new(ClientCredentials::new(client, app));
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
///
/// [`ClientAuthentication`]: crate::oauth::ClientAuthentication
#[derive(Clone)]
#[must_use = "a flow does nothing until you give it to a layer or a handle"]
pub struct ClientCredentials<C> {
    client: C,
    app: App,
}

impl<C: HttpClient> ClientCredentials<C> {
    /// Makes a flow for this app, whose login URL is the org's My Domain.
    pub fn new(client: C, app: App) -> Self {
        Self { client, app }
    }
}

impl<C: HttpClient> RefreshFn for ClientCredentials<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        TokenRequest::new(&self.app, "client_credentials")
            .proven_with(self.app.key_of_login(context.previous())?)
            .obtain_session(self.client.clone())
            .await
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        let host = self.app.login_url().host().to_owned();
        Some(RefreshDescription::new("client_credentials", host))
    }

    fn app(&self) -> Option<&App> {
        Some(&self.app)
    }
}

impl<C> fmt::Debug for ClientCredentials<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}
