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
    text::pasted,
};

/// Exchanges a token of another identity provider for a session (RFC 8693; Salesforce Help, "OAuth 2.0 Token Exchange
/// Flow").
///
/// The flow works on the org's My Domain or a site. An Apex token exchange handler there decides which user the session
/// acts for.
///
/// If the session has a refresh token, the flow refreshes it with that token. Otherwise it presents the same subject
/// token again. When the refresh token is no longer valid, make a new flow.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{
///     SalesforceAuthLayer,
///     flow::{SubjectTokenType, TokenExchange},
///     oauth::App,
/// };
///
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let login_url = "https://MyDomainName.my.salesforce.com".parse()?;
/// let app = App::new(login_url, "3MVG9…").client_secret("1955…");
/// let login = TokenExchange::new(client, app, "eyJraWQi…", SubjectTokenType::IdToken)
///     .token_handler("MyTokenExchangeHandler");
/// let layer = SalesforceAuthLayer::new(login);
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until you give it to a layer or a handle"]
pub struct TokenExchange<C>(ExtensionGrant<C>);

/// The kind of the exchanged token (RFC 8693 §3).
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
    /// Any other JWT.
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
    /// Exchanges this subject token for a session of this app. The token may have at most 10,000 characters.
    pub fn new(
        client: C,
        app: App,
        subject_token: impl Into<Secret>,
        subject_token_type: SubjectTokenType,
    ) -> Self {
        const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
        Self(
            ExtensionGrant::new(client, app, GRANT_TYPE)
                .parameter("subject_token", pasted::secret(subject_token))
                .unredacted_parameter("subject_token_type", subject_token_type.urn()),
        )
    }

    /// Sets the scopes to request, separated by spaces. Default: all scopes of the app.
    pub fn scope(self, scope: impl Into<String>) -> Self {
        Self(self.0.unredacted_parameter("scope", pasted::text(scope)))
    }

    /// Sets the name of the Apex handler. Default: the app's default handler.
    pub fn token_handler(self, name: impl Into<String>) -> Self {
        Self(
            self.0
                .unredacted_parameter("token_handler", pasted::text(name)),
        )
    }
}

impl<C: HttpClient> RefreshFn for TokenExchange<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        if context.refresh_token().is_some() {
            refresh_token::refresh_session(self.0.client.clone(), &self.0.app, &context).await
        } else {
            self.0.refresh(context).await
        }
    }

    fn describe(&self, context: &RefreshContext) -> Option<RefreshDescription> {
        if context.refresh_token().is_some() {
            Some(refresh_token::description(&self.0.app))
        } else {
            self.0.describe(context)
        }
    }

    fn app(&self) -> Option<&App> {
        Some(&self.0.app)
    }
}

impl<C> fmt::Debug for TokenExchange<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenExchange").field(&self.0).finish()
    }
}
