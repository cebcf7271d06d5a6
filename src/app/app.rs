//! An app that acts for its users: an OAuth client (RFC 6749 §2).

use crate::{
    app::{client_authentication::ClientAuthentication, dpop::Dpop},
    error::RefreshError,
    secret::Secret,
    session::{dpop_key::DpopKey, session::Session, url::LoginUrl},
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
    /// `None`: tokens are bearer tokens.
    dpop: Option<Dpop>,
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
            dpop: None,
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

    /// Binds the tokens of this app to a key (DPoP, RFC 9449), in every flow: to this [`DpopKey`](crate::oauth::DpopKey), or to
    /// one for each grant with [`Dpop::per_grant`]. Default: tokens are bearer tokens.
    ///
    /// Each token request has a proof then. What the server answers decides about the session: one that is bound sends each
    /// request with `Authorization: DPoP` and a new proof, and one with a bearer token is used as before.
    ///
    /// ```
    /// use tower_salesforce_auth::{LoginUrl, oauth::{App, DpopKey}};
    ///
    /// # let pem = DpopKey::generate()?.to_pem();
    /// # let pem = pem.expose();
    /// let key = DpopKey::from_pem(pem)?;
    /// let app = App::new(LoginUrl::production(), "3MVG9…").dpop(key);
    /// # Ok::<_, tower_salesforce_auth::Error>(())
    /// ```
    #[cfg(feature = "dpop")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dpop")))]
    #[must_use]
    pub fn dpop(mut self, dpop: impl Into<Dpop>) -> Self {
        self.dpop = Some(dpop.into());
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

    // === Keys ===

    /// How the app binds its tokens. `None`: they are bearer tokens.
    pub(crate) fn binding(&self) -> Option<&Dpop> {
        self.dpop.as_ref()
    }

    /// The key that proves a call with a token that is bound to `bound`. `None`: the call has no proof.
    pub(crate) fn key_of(&self, bound: Option<&DpopKey>) -> Option<DpopKey> {
        match (bound, &self.dpop) {
            (Some(bound), Some(dpop)) => Some(dpop.apply(bound.clone())),
            (Some(bound), None) => Some(bound.clone()),
            (None, Some(dpop)) => dpop.configured().cloned(),
            (None, None) => None,
        }
    }

    /// The key that proves the exchange of a token or code that is bound to `bound`. If it is not bound, the key that its tokens
    /// will be bound to. `None`: the exchange has no proof.
    pub(crate) fn key_of_exchange(
        &self,
        bound: Option<&DpopKey>,
    ) -> Result<Option<DpopKey>, RefreshError> {
        let known = self.key_of(bound);
        match (&self.dpop, known) {
            (Some(dpop), None) => dpop
                .new_key()
                .map(Some)
                .map_err(RefreshError::configuration),
            (_, known) => Ok(known),
        }
    }

    /// The key of a login that replaces `previous`, which keeps its key unless the app has one for all grants. `None`: the login
    /// has no proof.
    pub(crate) fn key_of_login(
        &self,
        previous: Option<&Session>,
    ) -> Result<Option<DpopKey>, RefreshError> {
        match &self.dpop {
            None => Ok(None),
            Some(dpop) if dpop.configured().is_some() => self.key_of_exchange(None),
            Some(_) => self.key_of_exchange(previous.and_then(Session::grant_key)),
        }
    }

    /// The same app, which proves its calls with this key.
    pub(crate) fn proving_with(mut self, key: Option<&DpopKey>) -> Self {
        if let Some(key) = self.key_of(key) {
            self.dpop = Some(Dpop::with_key(key));
        }
        self
    }
}
