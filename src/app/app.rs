//! An app that acts for its users: an OAuth client (RFC 6749 §2).

use crate::{
    app::client_authentication::ClientAuthentication, secret::Secret, session::url::LoginUrl,
    text::pasted,
};

/// An external client app or connected app: its client id, its login URL, and how it authenticates itself.
///
/// ```
/// use tower_salesforce_auth::{LoginUrl, oauth::App};
///
/// let app = App::new(LoginUrl::production(), "3MVG9…").client_secret("1955…");
/// assert_eq!(app.client_id(), "3MVG9…");
/// assert!(!format!("{app:?}").contains("1955"));
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "OAuth2")]
pub struct App {
    login_url: LoginUrl,
    client_id: String,
    authentication: ClientAuthentication,
}

impl App {
    /// Makes an app with this client id. By default it does not authenticate itself.
    ///
    /// Blanks and line breaks around ids, secrets, tokens and user names are left out, here and in all flows. A request
    /// with one that is empty, is in quotes, or has a line break inside fails before it is sent.
    #[doc(alias = "consumer key")]
    pub fn new(login_url: LoginUrl, client_id: impl Into<String>) -> Self {
        Self {
            login_url,
            client_id: pasted::text(client_id),
            authentication: ClientAuthentication::none(),
        }
    }

    /// Authenticates the app with its secret, as a form parameter: [`ClientAuthentication::secret`].
    #[doc(alias = "consumer secret")]
    #[must_use]
    pub fn client_secret(self, client_secret: impl Into<Secret>) -> Self {
        self.client_authentication(ClientAuthentication::secret(client_secret))
    }

    /// Sets how the app authenticates itself. Default: [`ClientAuthentication::none`].
    #[must_use]
    pub fn client_authentication(mut self, authentication: ClientAuthentication) -> Self {
        self.authentication = authentication;
        self
    }

    /// The URL of the server that the app logs in at.
    pub fn login_url(&self) -> &LoginUrl {
        &self.login_url
    }

    /// The client id: the "consumer key" in Salesforce's setup pages.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(crate) fn authentication(&self) -> &ClientAuthentication {
        &self.authentication
    }
}
