//! Extension grants (RFC 6749 §4.5).

use std::fmt;

use crate::{
    error::RefreshError,
    http::transport::HttpClient,
    oauth::{App, TokenRequest},
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::RefreshDescription,
    secret::Secret,
    session::session::Session,
};

/// Logs in with any grant type and its own parameters (RFC 6749 §4.5): what has no flow of its own here.
///
/// The same parameters are presented each time. To have new ones, make a new one of these in a
/// [`RefreshFn`] of your own, and call its [`refresh`](RefreshFn::refresh).
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{SalesforceAuthLayer, flow::ExtensionGrant, oauth::App};
///
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let app = App::new("https://MyDomainName.my.salesforce.com".parse()?, "3MVG9…");
/// // The SAML assertion flow, which needs no app.
/// let login = ExtensionGrant::new(client, app, "assertion")
///     .without_client_id()
///     .parameter("assertion_type", "urn:oasis:names:tc:SAML:2.0:profiles:SSO:browser")
///     .parameter("assertion", "PHNhbWxwOlJlc3BvbnNlLi4u");
/// let layer = SalesforceAuthLayer::new(login);
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until a layer or a handle is made with it"]
pub struct ExtensionGrant<C> {
    pub(super) client: C,
    pub(super) app: App,
    grant_type: String,
    parameters: Vec<(String, Secret)>,
    /// What is no secret by itself, and so may be told by a server.
    open_parameters: Vec<(&'static str, String)>,
    /// What is sent in another form.
    hidden: Option<Secret>,
    has_client_id: bool,
}

impl<C: HttpClient> ExtensionGrant<C> {
    /// Logs in to this app with `grant_type`, a URN as a rule.
    pub fn new(client: C, app: App, grant_type: impl Into<String>) -> Self {
        Self {
            client,
            app,
            grant_type: grant_type.into(),
            parameters: Vec::new(),
            open_parameters: Vec::new(),
            hidden: None,
            has_client_id: true,
        }
    }

    /// Adds a parameter. Its value is kept out of errors and debug output.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// Sets a parameter that is there once at most.
    pub(super) fn open_parameter(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.open_parameters.retain(|(known, _)| *known != name);
        self.open_parameters.push((name, value.into()));
        self
    }

    pub(super) fn hide(mut self, secret: Secret) -> Self {
        self.hidden = Some(secret);
        self
    }

    /// Leaves out the app's id and authentication, where what is presented says it all.
    pub fn without_client_id(mut self) -> Self {
        self.has_client_id = false;
        self
    }
}

impl<C: HttpClient> RefreshFn for ExtensionGrant<C> {
    async fn refresh(&self, _context: RefreshContext) -> Result<Session, RefreshError> {
        let mut grant = TokenRequest::new(&self.app, &self.grant_type).redact(&self.hidden);
        for (name, value) in &self.open_parameters {
            grant = grant.parameter(name, value);
        }
        if !self.has_client_id {
            grant = grant.unauthenticated();
        }
        for (name, value) in &self.parameters {
            grant = grant.secret(name, value);
        }
        grant
            .send(self.client.clone())
            .await?
            .into_session(self.app.login_url())
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        let host = self.app.login_url().host().to_owned();
        Some(RefreshDescription::new(self.grant_type.clone(), host))
    }
}

impl<C> fmt::Debug for ExtensionGrant<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtensionGrant")
            .field("app", &self.app)
            .field("grant_type", &self.grant_type)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}
