//! Token exchange (RFC 8693).

use std::fmt;

use super::{extension_grant::ExtensionGrant, refresh_token};
use crate::{
    error::RefreshError,
    http::transport::HttpClient,
    oauth::App,
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::RefreshDescription,
    secret::Secret,
    session::session::Session,
};

/// Exchanges a token of another identity provider for a session (RFC 8693; Salesforce Help, "OAuth 2.0 Token Exchange
/// Flow").
///
/// It works on the org's My Domain, or a site, and needs an Apex token exchange handler there, which says whose session
/// it is to be. If the answer brings a refresh token, or a session with one is set, the session is renewed with that; if
/// not, the same subject token is presented again. Once the refresh token is dead, make a new one of these.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{SalesforceAuthLayer, flow::{SubjectTokenType, TokenExchange}, oauth::App};
///
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let app = App::new("https://MyDomainName.my.salesforce.com".parse()?, "3MVG9…").client_secret("1955…");
/// let login = TokenExchange::new(client, app, "eyJraWQi…", SubjectTokenType::IdToken)
///     .token_handler("MyTokenExchangeHandler");
/// let layer = SalesforceAuthLayer::new(login);
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until a layer or a handle is made with it"]
pub struct TokenExchange<C>(ExtensionGrant<C>);

/// What kind of token is exchanged (RFC 8693 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubjectTokenType {
    /// An OAuth 2.0 access token.
    AccessToken,
    /// An OAuth 2.0 refresh token.
    RefreshToken,
    /// An OpenID Connect ID token.
    IdToken,
    /// A SAML 2.0 assertion, in base64url.
    Saml2,
    /// A JWT of any other kind.
    Jwt,
}

impl SubjectTokenType {
    fn urn(self) -> &'static str {
        match self {
            Self::AccessToken => "urn:ietf:params:oauth:token-type:access_token",
            Self::RefreshToken => "urn:ietf:params:oauth:token-type:refresh_token",
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
            Self::Saml2 => "urn:ietf:params:oauth:token-type:saml2",
            Self::Jwt => "urn:ietf:params:oauth:token-type:jwt",
        }
    }
}

impl<C: HttpClient> TokenExchange<C> {
    /// Exchanges this subject token, of 10,000 characters at most, in the name of this app.
    pub fn new(
        client: C,
        app: App,
        subject_token: impl Into<Secret>,
        subject_token_type: SubjectTokenType,
    ) -> Self {
        const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
        Self(
            ExtensionGrant::new(client, app, GRANT_TYPE)
                .parameter("subject_token", subject_token)
                .open_parameter("subject_token_type", subject_token_type.urn()),
        )
    }

    /// The scopes to ask for, space-separated. All that the app has, by default.
    pub fn scope(self, scope: impl Into<String>) -> Self {
        Self(self.0.open_parameter("scope", scope))
    }

    /// The name of the Apex handler to use. The app's default one, by default.
    pub fn token_handler(self, name: impl Into<String>) -> Self {
        Self(self.0.open_parameter("token_handler", name))
    }
}

impl<C: HttpClient> RefreshFn for TokenExchange<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        if context.refresh_token().is_some() {
            refresh_token::renew(self.0.client.clone(), &self.0.app, &context).await
        } else {
            self.0.refresh(context).await
        }
    }

    fn describe(&self, context: &RefreshContext) -> Option<RefreshDescription> {
        if context.refresh_token().is_some() {
            let host = self.0.app.login_url().host().to_owned();
            Some(RefreshDescription::new("refresh_token", host))
        } else {
            self.0.describe(context)
        }
    }
}

impl<C> fmt::Debug for TokenExchange<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenExchange").field(&self.0).finish()
    }
}
