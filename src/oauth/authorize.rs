//! The authorization request: where the user is sent to log in and consent (RFC 6749 §4.1.1).

use std::fmt;

use super::{
    app::App,
    pkce::{self, Pkce},
};
use crate::{
    error::{Error, ErrorKind},
    secret::Secret,
};

// === AuthorizationUrl ===

/// Builds the URL that a user is sent to (RFC 6749 §4.1.1; Salesforce Help, "OAuth 2.0 Web Server Flow for Web App
/// Integration").
///
/// A `state` and a PKCE code verifier are generated for each authorization, and have to be kept, by the user's browser
/// session, until the callback comes: [`PendingAuthorization`].
///
/// ```
/// use tower_salesforce_auth::{LoginUrl, oauth::{App, AuthorizationUrl, Prompt}};
///
/// let app = App::new(LoginUrl::production(), "3MVG9…");
/// let request = AuthorizationUrl::new(&app, "https://app.example.com/callback")
///     .scope("api refresh_token")
///     .prompt([Prompt::Login, Prompt::Consent])
///     .login_hint("user@example.com")
///     .build()?;
/// assert!(request.url().starts_with("https://login.salesforce.com/services/oauth2/authorize?response_type=code&"));
/// assert!(request.url().contains("&code_challenge_method=S256"));
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is generated before `build`"]
pub struct AuthorizationUrl<'a> {
    app: &'a App,
    redirect_uri: &'a str,
    state: Option<Secret>,
    pkce: Option<Pkce>,
    parameters: Vec<(String, String)>,
}

/// What the user is asked (`prompt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Prompt {
    /// To log in, even if there is a session.
    Login,
    /// To consent, even if that was done.
    Consent,
    /// Which account to use.
    SelectAccount,
}

/// How the login and consent pages are laid out (`display`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[doc(alias = "display")]
pub enum PageDisplay {
    /// For a whole page. The default.
    Page,
    /// For a small window.
    Popup,
    /// For a phone with a touch screen.
    Touch,
    /// For a phone without.
    Mobile,
}

impl<'a> AuthorizationUrl<'a> {
    /// An authorization of this app, whose answer is sent to `redirect_uri`: one of the app's callback URLs, to the
    /// letter.
    pub fn new(app: &'a App, redirect_uri: &'a str) -> Self {
        Self {
            app,
            redirect_uri,
            state: None,
            pkce: None,
            parameters: Vec::new(),
        }
    }

    /// The scopes, space-separated. All that the app has, by default. With `refresh_token`, or `offline_access`, there
    /// will be a refresh token.
    pub fn scope(self, scope: impl Into<String>) -> Self {
        self.parameter("scope", scope)
    }

    /// What to ask the user for, even if it is known already. By default, what is not.
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

    /// The user name to begin with on the login page.
    pub fn login_hint(self, username: impl Into<String>) -> Self {
        self.parameter("login_hint", username)
    }

    /// How the pages are laid out. [`PageDisplay::Page`] by default.
    pub fn display(self, display: PageDisplay) -> Self {
        let name = match display {
            PageDisplay::Page => "page",
            PageDisplay::Popup => "popup",
            PageDisplay::Touch => "touch",
            PageDisplay::Mobile => "mobile",
        };
        self.parameter("display", name)
    }

    /// Shows no page at all: if one were needed, the answer is the error `immediate_unsuccessful`. Off by default, and
    /// not for Experience Cloud sites.
    pub fn immediate(self, immediate: bool) -> Self {
        self.parameter("immediate", if immediate { "true" } else { "false" })
    }

    /// A value to find again in the ID token (OpenID Connect Core 1.0 §3.1.2.1).
    pub fn nonce(self, nonce: impl Into<String>) -> Self {
        self.parameter("nonce", nonce)
    }

    /// The developer name of the single sign-on provider to log in with.
    pub fn sso_provider(self, developer_name: impl Into<String>) -> Self {
        self.parameter("sso_provider", developer_name)
    }

    /// The id of a mobile device.
    pub fn device_id(self, device_id: impl Into<String>) -> Self {
        self.parameter("device_id", device_id)
    }

    /// Any other parameter. One that was set before is replaced.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.parameters.retain(|(known, _)| *known != name);
        self.parameters.push((name, value.into()));
        self
    }

    /// A `state` of one's own, which has to be unguessable. Generated by default.
    pub fn state(mut self, state: impl Into<Secret>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// A code verifier of one's own, which must not be used for any other authorization. Generated by default.
    pub fn pkce(mut self, pkce: Pkce) -> Self {
        self.pkce = Some(pkce);
        self
    }

    /// The URL, and what to keep until its answer comes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] if the given `state` is empty, [`ErrorKind::InvalidUrl`] if a parameter was given that
    /// is this builder's own, and [`ErrorKind::NoRandomness`] if the operating system has no randomness to give.
    pub fn build(self) -> Result<AuthorizationRequest, Error> {
        const OWN: [&str; 6] = [
            "response_type",
            "client_id",
            "redirect_uri",
            "state",
            "code_challenge",
            "code_challenge_method",
        ];
        let given = self
            .parameters
            .iter()
            .find(|(name, _)| OWN.contains(&&**name));
        if let Some((name, _)) = given {
            return Err(Error::new(
                ErrorKind::InvalidUrl,
                format!("the authorization URL has a `{name}` of its own: do not add another"),
            ));
        }
        let state = match self.state {
            Some(state) => state,
            None => pkce::random()?,
        };
        let pkce = match self.pkce {
            Some(pkce) => pkce,
            None => Pkce::generate()?,
        };
        let challenge = pkce.challenge();
        let pending = PendingAuthorization::new(state, pkce.verifier().clone())?;
        let endpoint = self.app.login_url().authorization_endpoint()?;
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", self.app.client_id())
            .append_pair("redirect_uri", self.redirect_uri)
            .extend_pairs(&self.parameters)
            .append_pair("state", pending.state().expose())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
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

/// One authorization that a user is asked for; made by [`AuthorizationUrl::build`].
#[derive(Clone)]
pub struct AuthorizationRequest {
    url: String,
    pending: PendingAuthorization,
}

impl AuthorizationRequest {
    /// Where to send the user.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What to keep for the callback.
    pub fn pending(&self) -> &PendingAuthorization {
        &self.pending
    }

    /// Where to send the user, and what to keep for the callback.
    pub fn into_parts(self) -> (String, PendingAuthorization) {
        (self.url, self.pending)
    }
}

/// The URL has the `state` in it.
impl fmt::Debug for AuthorizationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationRequest")
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

// === PendingAuthorization ===

/// What has to be known again when the user comes back: the `state` that tells that the answer is to this authorization
/// (RFC 6749 §10.12), and the code verifier that its code can be exchanged with (RFC 7636).
///
/// Keep both where only this user's browser session can get at them, a server-side session or a signed and encrypted
/// cookie for one, and use them once.
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
}

impl PendingAuthorization {
    /// What was kept of an [`AuthorizationRequest`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] if the state is empty, or the code verifier is [none](Pkce::from_verifier).
    pub fn new(state: impl Into<Secret>, code_verifier: impl Into<Secret>) -> Result<Self, Error> {
        let state = state.into();
        if state.expose().is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidKey,
                "the state of an authorization is empty, and could tell nobody's callback from another's",
            ));
        }
        let pkce = Pkce::from_verifier(code_verifier)?;
        Ok(Self { state, pkce })
    }

    /// The `state` that the callback has to bring back.
    pub fn state(&self) -> &Secret {
        &self.state
    }

    /// The code verifier that goes with the code.
    pub fn code_verifier(&self) -> &Secret {
        self.pkce.verifier()
    }
}
