//! The SOAP API's `login()`.

use std::fmt;

use super::username_password::Password;
use crate::{
    error::RefreshError,
    http::transport::{HttpClient, HttpRequest},
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::RefreshDescription,
    secret::Secret,
    session::{session::Session, url::LoginUrl},
    soap,
    text::pasted,
};

/// The last API version that has a `login()`.
const LAST_VERSION: u16 = 64;

/// Logs in with a user's name and password over SOAP, without an app (SOAP API Developer Guide, `login()`). jsforce's
/// `conn.login` does the same.
///
/// # Retirement
///
/// `login()` exists up to API version 64.0 and is retired in Summer '27. It is off by default in orgs created since
/// Winter '26 (Setup, User Interface, "Enable SOAP API `login()`"). Use [`JwtBearer`](super::JwtBearer) or
/// [`ClientCredentials`](super::ClientCredentials) for programs that must work longer.
///
/// # Login limits
///
/// There is no refresh token: each refresh is a new login and counts towards the user's login limit. The layer tries a
/// wrong password once, until [`SessionHandle::reset`](crate::SessionHandle::reset) or a new session. An expired
/// password is an error, although the server opens a session for changing it.
///
/// The session contains the org, the user and, as its [lifetime](Session::lifetime), the session timeout.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{LoginUrl, SalesforceAuthLayer, flow::SoapLogin};
///
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let login_url = LoginUrl::production();
/// let login = SoapLogin::new(client, login_url, "user@example.com", "the password")
///     .security_token("yl7jRXVTdAgzsjKPuV00N3Iu");
/// let layer = SalesforceAuthLayer::new(login);
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until you give it to a layer or a handle"]
pub struct SoapLogin<C> {
    client: C,
    login_url: LoginUrl,
    username: String,
    password: Password,
    organization_id: Option<String>,
    portal_id: Option<String>,
    client_name: String,
    api_version: u16,
}

impl<C: HttpClient> SoapLogin<C> {
    /// Logs in as this user at `login_url`.
    pub fn new(
        client: C,
        login_url: LoginUrl,
        username: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Self {
        Self {
            client,
            login_url,
            username: pasted::text(username),
            password: Password::new(password),
            organization_id: None,
            portal_id: None,
            client_name: concat!("tower-salesforce-auth/", env!("CARGO_PKG_VERSION")).to_owned(),
            api_version: LAST_VERSION,
        }
    }

    /// Adds the user's security token, which is appended to the password. Default: no security token.
    ///
    /// Salesforce requires it unless the login comes from a trusted IP address.
    pub fn security_token(mut self, security_token: impl Into<Secret>) -> Self {
        self.password.security_token = Some(pasted::secret(security_token));
        self
    }

    /// Adds the org of a portal or site user (`LoginScopeHeader`). Default: no org.
    pub fn organization_id(mut self, organization_id: impl Into<String>) -> Self {
        self.organization_id = Some(pasted::text(organization_id));
        self
    }

    /// Adds the portal of a portal user (`LoginScopeHeader`). Default: no portal.
    pub fn portal_id(mut self, portal_id: impl Into<String>) -> Self {
        self.portal_id = Some(pasted::text(portal_id));
        self
    }

    /// Sets the client's name in the org's logs (`CallOptions`). Default: this crate's name and version.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// Sets the API version, for example 58 for 58.0. Default: 64, the last version with a `login()`.
    pub fn api_version(mut self, major: u16) -> Self {
        self.api_version = major;
        self
    }
}

impl<C: HttpClient> RefreshFn for SoapLogin<C> {
    async fn refresh(&self, _context: RefreshContext) -> Result<Session, RefreshError> {
        let password = self.password.with_token()?;
        let login = soap::Login {
            username: &self.username,
            password: password.expose(),
            secrets: self.password.parts().map(Secret::expose).collect(),
            organization_id: self.organization_id.as_deref(),
            portal_id: self.portal_id.as_deref(),
            client: &self.client_name,
        };
        let endpoint = self
            .login_url
            .join(&format!("/services/Soap/u/{}.0", self.api_version))
            .map_err(RefreshError::configuration)?;
        let response = HttpRequest::post_soap(endpoint, login.envelope()?)
            .with_password()
            .send(self.client.clone(), &login.secrets)
            .await?;
        login.session(&self.login_url, response)
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        let host = self.login_url.host().to_owned();
        Some(RefreshDescription::new("soap_login", host))
    }
}

impl<C> fmt::Debug for SoapLogin<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoapLogin")
            .field("login_url", &self.login_url)
            .field("username", &self.username)
            .field("password", &self.password)
            .field("organization_id", &self.organization_id)
            .field("portal_id", &self.portal_id)
            .field("api_version", &self.api_version)
            .finish_non_exhaustive()
    }
}
