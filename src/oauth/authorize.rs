//! The authorization request, which sends the user to log in and consent (RFC 6749 §4.1.1).

use std::fmt;

use super::pkce::Pkce;
use crate::{
    app::{App, Dpop},
    error::{Error, ErrorKind},
    secret::Secret,
    session::{dpop_key::DpopKey, random::random},
    text::pasted::{self, Rule},
};

// === AuthorizationUrl ===

/// Builds the URL that a user logs in and consents at (RFC 6749 §4.1.1; Salesforce Help, "OAuth 2.0 Web Server Flow for
/// Web App Integration").
///
/// [`build`](Self::build) generates a `state` and a PKCE code verifier for each authorization. Keep both in the user's
/// browser session until the callback: see [`PendingAuthorization`].
///
/// ```
/// use tower_salesforce_auth::{LoginUrl, oauth::{App, AuthorizationUrl, Prompt}};
///
/// let app = App::new(LoginUrl::production(), "3MVG9");
/// let request = AuthorizationUrl::new(&app, "https://app.example.com/callback")
///     .scope("api refresh_token")
///     .prompt([Prompt::Login, Prompt::Consent])
///     .login_hint("user@example.com")
///     .build()?;
/// let endpoint = "https://login.salesforce.com/services/oauth2/authorize";
/// assert!(request.url().starts_with(endpoint));
/// assert!(request.url().contains("&code_challenge_method=S256"));
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "call `build` to make the URL"]
pub struct AuthorizationUrl<'a> {
    app: &'a App,
    redirect_uri: &'a str,
    state: Option<Secret>,
    pkce: Option<Pkce>,
    parameters: Vec<(String, String)>,
}

/// What the login page asks the user for (`prompt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Prompt {
    /// Asks the user to log in, even if the browser has a session.
    Login,
    /// Asks the user to consent, even if the user did so before.
    Consent,
    /// Asks the user which account to use.
    SelectAccount,
}

/// The layout of the login and consent pages (`display`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[doc(alias = "display")]
pub enum PageDisplay {
    /// A full page. The default.
    Page,
    /// A popup window.
    Popup,
    /// A phone with a touch screen.
    Touch,
    /// A phone without a touch screen.
    Mobile,
}

impl<'a> AuthorizationUrl<'a> {
    /// Makes an authorization URL for this app. `redirect_uri` receives the response and must equal one of the app's
    /// callback URLs exactly.
    pub fn new(app: &'a App, redirect_uri: &'a str) -> Self {
        Self {
            app,
            redirect_uri: pasted::credential(redirect_uri),
            state: None,
            pkce: None,
            parameters: Vec::new(),
        }
    }

    /// Sets the scopes, separated by spaces. Default: all scopes of the app.
    ///
    /// With the scope `refresh_token` or `offline_access`, the server issues a refresh token.
    pub fn scope(self, scope: impl Into<String>) -> Self {
        self.parameter("scope", pasted::text(scope))
    }

    /// Sets what the pages ask the user for. Default: only what the server does not know yet.
    pub fn prompt(self, prompts: impl IntoIterator<Item = Prompt>) -> Self {
        let names: Vec<_> = prompts
            .into_iter()
            .map(|prompt| match prompt {
                Prompt::Login => "login",
                Prompt::Consent => "consent",
                Prompt::SelectAccount => "select_account",
            })
            .collect();
        self.parameter("prompt", names.join(" "))
    }

    /// Sets the user name that the login page suggests.
    pub fn login_hint(self, username: impl Into<String>) -> Self {
        self.parameter("login_hint", pasted::text(username))
    }

    /// Sets the layout of the pages. Default: [`PageDisplay::Page`].
    pub fn display(self, display: PageDisplay) -> Self {
        let name = match display {
            PageDisplay::Page => "page",
            PageDisplay::Popup => "popup",
            PageDisplay::Touch => "touch",
            PageDisplay::Mobile => "mobile",
        };
        self.parameter("display", name)
    }

    /// Shows no page. If the user has to log in or consent, the response is the error `immediate_unsuccessful`.
    /// Default: `false`.
    ///
    /// Experience Cloud sites do not support this option.
    pub fn immediate(self, immediate: bool) -> Self {
        self.parameter("immediate", if immediate { "true" } else { "false" })
    }

    /// Sets a value that the ID token repeats (OpenID Connect Core 1.0 §3.1.2.1).
    pub fn nonce(self, nonce: impl Into<String>) -> Self {
        self.parameter("nonce", nonce)
    }

    /// Sets the developer name of the single sign-on provider that the user logs in with.
    pub fn sso_provider(self, developer_name: impl Into<String>) -> Self {
        self.parameter("sso_provider", developer_name)
    }

    /// Sets the id of a mobile device.
    pub fn device_id(self, device_id: impl Into<String>) -> Self {
        self.parameter("device_id", device_id)
    }

    /// Sets any other parameter. A later value replaces an earlier one of the same name.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.parameters.retain(|(known, _)| *known != name);
        self.parameters.push((name, value.into()));
        self
    }

    /// Sets the `state`, which must be unguessable. Default: a random one.
    pub fn state(mut self, state: impl Into<Secret>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Sets the code verifier, which must be new for each authorization. Default: a random one.
    pub fn pkce(mut self, pkce: Pkce) -> Self {
        self.pkce = Some(pkce);
        self
    }

    /// Builds the URL, and the values to keep until the callback.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidKey`] if the given `state` is empty.
    /// - [`ErrorKind::InvalidUrl`] if a [`parameter`](Self::parameter) has a name that this builder sets by itself.
    /// - [`ErrorKind::NoRandomness`] if the operating system has no random numbers.
    pub fn build(self) -> Result<AuthorizationRequest, Error> {
        const RESERVED: [&str; 7] = [
            "response_type",
            "client_id",
            "redirect_uri",
            "state",
            "code_challenge",
            "code_challenge_method",
            "dpop_jkt",
        ];
        let reserved = self
            .parameters
            .iter()
            .find(|(name, _)| RESERVED.contains(&&**name));
        if let Some((name, _)) = reserved {
            return Err(Error::new(
                ErrorKind::InvalidUrl,
                format!("the authorization URL already has a `{name}`: do not add another"),
            ));
        }
        let checks = [
            ("client id", self.app.client_id()),
            ("redirect URI", self.redirect_uri),
        ];
        for (what, text) in checks {
            pasted::check(what, text, Rule::Token)
                .map_err(|fault| Error::new(ErrorKind::InvalidUrl, fault))?;
        }
        let state = match self.state {
            Some(state) => state,
            None => random()?,
        };
        let pkce = match self.pkce {
            Some(pkce) => pkce,
            None => Pkce::generate()?,
        };
        let challenge = pkce.challenge();
        let pending = PendingAuthorization::new(state, pkce.verifier().clone())?;
        let key = self.app.binding().map(Dpop::new_key).transpose()?;
        let thumbprint = key
            .as_ref()
            .map(|key| ("dpop_jkt", key.thumbprint().to_owned()));
        let is_of_app = self.app.key_of(None).is_some();
        let pending = pending.bound_to(key.filter(|_| !is_of_app));
        let endpoint = self.app.login_url().authorization_endpoint()?;
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", self.app.client_id())
            .append_pair("redirect_uri", self.redirect_uri)
            .extend_pairs(&self.parameters)
            .append_pair("state", pending.state().expose())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(thumbprint)
            .finish();
        let separator = match endpoint.query() {
            None => "?",
            Some("") => "",
            Some(query) if query.ends_with('&') => "",
            Some(_) => "&",
        };
        Ok(AuthorizationRequest {
            url: format!("{endpoint}{separator}{query}"),
            pending,
        })
    }
}

// === AuthorizationRequest ===

/// One authorization request, made by [`AuthorizationUrl::build`].
#[derive(Clone)]
pub struct AuthorizationRequest {
    url: String,
    pending: PendingAuthorization,
}

impl AuthorizationRequest {
    /// The URL to send the user to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The values to keep until the callback.
    pub fn pending(&self) -> &PendingAuthorization {
        &self.pending
    }

    /// Returns the URL to send the user to, and the values to keep until the callback.
    pub fn into_parts(self) -> (String, PendingAuthorization) {
        (self.url, self.pending)
    }
}

/// Leaves out the URL, which contains the `state`.
impl fmt::Debug for AuthorizationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationRequest")
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

// === PendingAuthorization ===

/// The secrets of an authorization request, which the callback is checked against.
///
/// The `state` shows that a callback belongs to this authorization (RFC 6749 §10.12). The code verifier lets its code
/// be exchanged (RFC 7636). An app with a DPoP key for each grant has one more secret: the key.
///
/// Store them where only this user's browser session can read them, for example in a server-side session, or in an encrypted
/// cookie: `LoginCookie`, with the feature `encryption`. Use them once.
///
/// ```
/// use tower_salesforce_auth::oauth::PendingAuthorization;
///
/// # let (state, code_verifier) = ("xyzzy", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
/// let pending = PendingAuthorization::new(state, code_verifier)?;
/// assert_eq!(pending.state().expose(), state);
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingAuthorization {
    state: Secret,
    pkce: Pkce,
    /// The key that the code will be bound to. `None` if it will not be, or to the key of the app.
    dpop_key: Option<DpopKey>,
}

impl PendingAuthorization {
    /// Restores the values of an earlier [`AuthorizationRequest`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] if the state is empty, or if the code verifier is [invalid](Pkce::from_verifier).
    pub fn new(state: impl Into<Secret>, code_verifier: impl Into<Secret>) -> Result<Self, Error> {
        let state = state.into();
        if state.expose().is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidKey,
                "the state of the authorization is empty, so its callback could not be recognised: use an unguessable \
                 value",
            ));
        }
        let pkce = Pkce::from_verifier(code_verifier)?;
        Ok(Self {
            state,
            pkce,
            dpop_key: None,
        })
    }

    /// Adds the key of an earlier [`AuthorizationRequest`], which its code is bound to (RFC 9449 §10).
    #[cfg(feature = "dpop")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dpop")))]
    #[must_use]
    pub fn with_dpop_key(self, key: DpopKey) -> Self {
        self.bound_to(Some(key))
    }

    /// The key that the code is bound to (RFC 9449 §10): a new one, of an app with
    /// [`Dpop::per_grant`](crate::oauth::Dpop::per_grant). Keep it like the two other secrets: without it the code cannot be
    /// exchanged. `None` for any other app.
    #[cfg(feature = "dpop")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dpop")))]
    pub fn dpop_key(&self) -> Option<&DpopKey> {
        self.dpop_key.as_ref()
    }

    pub(crate) fn bound_to(mut self, key: Option<DpopKey>) -> Self {
        self.dpop_key = key;
        self
    }

    /// The key that the code is bound to. `None` if it is not, or to the key of the app.
    pub(crate) fn bound_key(&self) -> Option<&DpopKey> {
        self.dpop_key.as_ref()
    }

    /// The `state` that the callback must repeat.
    pub fn state(&self) -> &Secret {
        &self.state
    }

    /// The code verifier that is sent together with the code.
    pub fn code_verifier(&self) -> &Secret {
        self.pkce.verifier()
    }
}
