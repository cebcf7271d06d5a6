//! The client credentials flow (RFC 6749 §4.4).

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

/// Logs in as the app itself (RFC 6749 §4.4; Salesforce Help, "OAuth 2.0 Client Credentials Flow for Server-to-Server
/// Integration").
///
/// It works on the org's My Domain only, and acts as the Run As user that the app's policies name. There is no refresh
/// token: a new session is a new login.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{SalesforceAuthLayer, flow::ClientCredentials};
///
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let my_domain = "https://MyDomainName.my.salesforce.com".parse()?;
/// let layer = SalesforceAuthLayer::new(ClientCredentials::new(client, my_domain, "3MVG9…", "1955…"));
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until a layer or a handle is made with it"]
pub struct ClientCredentials<C> {
    client: C,
    login_url: LoginUrl,
    client_id: String,
    client_secret: Secret,
}

impl<C: HttpClient> ClientCredentials<C> {
    /// Logs in at `login_url`, the org's My Domain, with the credentials of the app.
    #[doc(alias = "consumer key")]
    #[doc(alias = "consumer secret")]
    pub fn new(
        client: C,
        login_url: LoginUrl,
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
    ) -> Self {
        Self {
            client,
            login_url,
            client_id: client_id.into(),
            client_secret: client_secret.into(),
        }
    }
}

impl<C: HttpClient> RefreshFn for ClientCredentials<C> {
    async fn refresh(&self, _context: RefreshContext) -> Result<Session, RefreshError> {
        let client_secret = self.client_secret.expose();
        GrantRequest {
            login_url: &self.login_url,
            grant_type: "client_credentials",
            parameters: &[
                ("client_id", &self.client_id),
                ("client_secret", client_secret),
            ],
            secrets: &[client_secret],
        }
        .send(self.client.clone())
        .await?
        .into_session(&self.login_url, None)
    }
}

impl<C> fmt::Debug for ClientCredentials<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("login_url", &self.login_url)
            .field("client_id", &self.client_id)
            .field("client_secret", &self.client_secret)
            .finish_non_exhaustive()
    }
}
