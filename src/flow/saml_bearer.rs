//! The SAML bearer assertion flow (RFC 7522).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::extension_grant::ExtensionGrant;
#[cfg(feature = "dpop")]
use crate::oauth::Dpop;
use crate::{
    error::RefreshError,
    http::transport::HttpClient,
    oauth::App,
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::RefreshDescription,
    secret::Secret,
    session::{session::Session, url::LoginUrl},
    text::pasted,
};

/// Logs in with a SAML 2.0 assertion that an identity provider signed (RFC 7522; Salesforce Help, "OAuth 2.0 SAML
/// Bearer Assertion Flow for Previously Authorized Apps").
///
/// The assertion names the app as its issuer and the user as its subject. The user must have approved the app, or an
/// administrator for the user. There is no refresh token: each refresh presents the same assertion. When the assertion
/// has expired, make a new flow.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{LoginUrl, SalesforceAuthLayer, flow::SamlBearer};
///
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let assertion = r#"<Assertion xmlns="urn:oasis:names:tc:SAML:2.0:assertion">…</Assertion>"#;
/// let login = SamlBearer::new(client, LoginUrl::production(), assertion);
/// let layer = SalesforceAuthLayer::new(login);
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until you give it to a layer or a handle"]
pub struct SamlBearer<C>(ExtensionGrant<C>);

impl<C: HttpClient> SamlBearer<C> {
    /// Logs in at `login_url` with this assertion, as XML or Base64.
    pub fn new(client: C, login_url: LoginUrl, assertion: impl Into<Secret>) -> Self {
        const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:saml2-bearer";
        let assertion = pasted::secret(assertion);
        let encoded = if assertion.expose().starts_with('<') {
            Secret::from(URL_SAFE_NO_PAD.encode(assertion.expose()))
        } else {
            base64url(assertion.expose())
        };
        // The app's client id is empty, because the assertion names the app.
        let app = App::new(login_url, "");
        Self(
            ExtensionGrant::new(client, app, GRANT_TYPE)
                .without_client_id()
                .parameter("assertion", encoded)
                .redact(assertion),
        )
    }

    /// Binds the sessions to a key, as [`App::dpop`](crate::oauth::App::dpop) does for the flows with an app. Default: they are
    /// bearer sessions.
    ///
    /// ```
    /// use tower_salesforce_auth::{LoginUrl, flow::{HttpClient, SamlBearer}, oauth::DpopKey};
    ///
    /// fn bound<C: HttpClient>(http: C, assertion: &str, key: DpopKey) -> SamlBearer<C> {
    ///     SamlBearer::new(http, LoginUrl::production(), assertion).dpop(key)
    /// }
    /// ```
    #[cfg(feature = "dpop")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dpop")))]
    pub fn dpop(mut self, dpop: impl Into<Dpop>) -> Self {
        self.0.app = self.0.app.dpop(dpop);
        self
    }
}

/// Base64 of any variant as base64url without line breaks and padding, as RFC 7522 §2.1 asks for.
fn base64url(text: &str) -> Secret {
    let mut encoded = Zeroizing::new(String::with_capacity(text.len()));
    encoded.extend(
        text.trim_end_matches('=')
            .chars()
            .filter_map(|char| match char {
                char if char.is_ascii_whitespace() => None,
                '+' => Some('-'),
                '/' => Some('_'),
                char => Some(char),
            }),
    );
    Secret::from(encoded)
}

impl<C: HttpClient> RefreshFn for SamlBearer<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        self.0.refresh(context).await
    }

    fn describe(&self, context: &RefreshContext) -> Option<RefreshDescription> {
        self.0.describe(context)
    }

    fn app(&self) -> Option<&App> {
        Some(&self.0.app)
    }
}

impl<C> fmt::Debug for SamlBearer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SamlBearer").field(&self.0).finish()
    }
}
