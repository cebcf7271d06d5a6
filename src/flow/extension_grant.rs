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
    text::pasted,
};

/// Logs in with any grant type and parameters (RFC 6749 §4.5). Use this type for grants that have no flow in this
/// crate.
///
/// Each login sends the same parameters. For parameters that change, write a [`RefreshFn`] that makes a new
/// `ExtensionGrant` and calls [`refresh`](RefreshFn::refresh).
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
#[must_use = "a flow does nothing until you give it to a layer or a handle"]
pub struct ExtensionGrant<C> {
    pub(super) client: C,
    pub(super) app: App,
    grant_type: String,
    parameters: Vec<(String, Secret)>,
    /// Parameters whose values are not secret, and which errors may therefore show.
    unredacted_parameters: Vec<(&'static str, String)>,
    /// A secret that the parameters contain in another encoding.
    redacted: Option<Secret>,
    has_client_id: bool,
}

impl<C: HttpClient> ExtensionGrant<C> {
    /// Makes a flow for this app. `grant_type` is usually a URN.
    pub fn new(client: C, app: App, grant_type: impl Into<String>) -> Self {
        Self {
            client,
            app,
            grant_type: grant_type.into(),
            parameters: Vec::new(),
            unredacted_parameters: Vec::new(),
            redacted: None,
            has_client_id: true,
        }
    }

    /// Adds a parameter. Errors and debug output do not show its value.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        // What the value means is unknown: blanks may belong to it.
        self.parameters.push((name.into(), pasted::password(value)));
        self
    }

    /// Sets a parameter that errors may show. A later value replaces an earlier one of the same name.
    pub(super) fn unredacted_parameter(
        mut self,
        name: &'static str,
        value: impl Into<String>,
    ) -> Self {
        self.unredacted_parameters
            .retain(|(known, _)| *known != name);
        self.unredacted_parameters.push((name, value.into()));
        self
    }

    /// Keeps one more secret out of errors.
    pub(super) fn redact(mut self, secret: Secret) -> Self {
        self.redacted = Some(secret);
        self
    }

    /// Leaves out the app's id and authentication, for grants that do not need them.
    pub fn without_client_id(mut self) -> Self {
        self.has_client_id = false;
        self
    }
}

impl<C: HttpClient> RefreshFn for ExtensionGrant<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        let mut request = TokenRequest::new(&self.app, &self.grant_type).redact(&self.redacted);
        for (name, value) in &self.unredacted_parameters {
            request = request.parameter(name, value);
        }
        if !self.has_client_id {
            request = request.unauthenticated();
        }
        for (name, value) in &self.parameters {
            request = request.secret(name, value);
        }
        request
            .proven_with(self.app.key_of_login(context.previous())?)
            .obtain_session(self.client.clone())
            .await
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        let host = self.app.login_url().host().to_owned();
        Some(RefreshDescription::new(self.grant_type.clone(), host))
    }

    fn app(&self) -> Option<&App> {
        Some(&self.app)
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
