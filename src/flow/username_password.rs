//! The username-password flow (RFC 6749 §4.3).

use std::fmt;

use zeroize::Zeroizing;

use crate::{
    error::RefreshError,
    http::transport::HttpClient,
    oauth::{App, TokenRequest},
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::RefreshDescription,
    secret::Secret,
    session::session::Session,
    text::pasted::{self, Rule},
};

/// Logs in with a user's name and password (RFC 6749 §4.3; Salesforce Help, "OAuth 2.0 Username-Password Flow for
/// Special Scenarios").
///
/// # Blocked by default
///
/// Salesforce blocks this flow in orgs created in Summer '23 or later (Setup > OAuth and OpenID Connect Settings >
/// Allow OAuth Username-Password Flows). Salesforce is withdrawing the flow: prefer [`JwtBearer`](super::JwtBearer) or
/// [`ClientCredentials`](super::ClientCredentials).
///
/// The flow does not support Experience Cloud users or multi-factor authentication. Salesforce sends the same error for
/// a blocked flow, a wrong password and a locked user.
///
/// # Login limits
///
/// There is no refresh token: each refresh is a new login and counts towards the user's login limit. The layer tries a
/// wrong password once, until [`SessionHandle::reset`](crate::SessionHandle::reset) or a new session.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{
///     LoginUrl, SalesforceAuthLayer, flow::UsernamePassword, oauth::App,
/// };
///
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let app = App::new(LoginUrl::production(), "3MVG9…").client_secret("1955…");
/// let login = UsernamePassword::new(client, app, "user@example.com", "the password")
///     .security_token("yl7jRXVTdAgzsjKPuV00N3Iu");
/// let layer = SalesforceAuthLayer::new(login);
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until you give it to a layer or a handle"]
pub struct UsernamePassword<C> {
    client: C,
    app: App,
    username: String,
    password: Password,
}

impl<C: HttpClient> UsernamePassword<C> {
    /// Logs in to this app as this user.
    ///
    /// Line breaks around the password are left out. With a blank at an end of the password, each login fails before
    /// anything is sent: the blank may belong to the password, or come from copying it.
    pub fn new(
        client: C,
        app: App,
        username: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Self {
        Self {
            client,
            app,
            username: pasted::text(username),
            password: Password::new(password),
        }
    }

    /// Adds the user's security token, which is appended to the password. Default: no security token.
    ///
    /// Salesforce requires it unless the login comes from a trusted IP address.
    pub fn security_token(mut self, security_token: impl Into<Secret>) -> Self {
        self.password.security_token = Some(pasted::secret(security_token));
        self
    }
}

impl<C: HttpClient> RefreshFn for UsernamePassword<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        let password = self.password.with_token()?;
        TokenRequest::new(&self.app, "password")
            .parameter("username", &self.username)
            .secret("password", &password)
            .redact(self.password.parts())
            .proven_with(self.app.key_of_login(context.previous())?)
            .obtain_session(self.client.clone())
            .await
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        let host = self.app.login_url().host().to_owned();
        Some(RefreshDescription::new("password", host))
    }

    fn app(&self) -> Option<&App> {
        Some(&self.app)
    }
}

impl<C> fmt::Debug for UsernamePassword<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsernamePassword")
            .field("app", &self.app)
            .field("username", &self.username)
            .field("password", &self.password)
            .finish_non_exhaustive()
    }
}

/// A password and its security token.
#[derive(Clone, Debug)]
pub(super) struct Password {
    password: Secret,
    pub(super) security_token: Option<Secret>,
}

impl Password {
    pub(super) fn new(password: impl Into<Secret>) -> Self {
        Self {
            password: pasted::password(password),
            security_token: None,
        }
    }

    /// The password with the security token appended, as Salesforce expects.
    pub(super) fn with_token(&self) -> Result<Secret, RefreshError> {
        let check = |what, secret: &Secret, rule| {
            pasted::check(what, secret.expose(), rule).map_err(RefreshError::unusable_setting)
        };
        check("password", &self.password, Rule::Password)?;
        if let Some(security_token) = &self.security_token {
            check("security token", security_token, Rule::Token)?;
        }
        let parts = || self.parts().map(Secret::expose);
        let mut whole = Zeroizing::new(String::with_capacity(parts().map(str::len).sum()));
        parts().for_each(|part| whole.push_str(part));
        Ok(Secret::from(whole))
    }

    /// The password, and the security token if there is one.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Secret> {
        [Some(&self.password), self.security_token.as_ref()]
            .into_iter()
            .flatten()
    }
}
