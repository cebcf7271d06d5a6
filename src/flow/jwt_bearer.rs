//! The JWT bearer flow (RFC 7523 §2.1).

use std::fmt;

use crate::{
    error::RefreshError,
    http::transport::HttpClient,
    oauth::{App, TokenRequest},
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::RefreshDescription,
    secret::Secret,
    session::{session::Session, url::LoginUrl},
    text::pasted,
};
#[cfg(feature = "jwt")]
use {
    crate::{app::assertion, oauth::PrivateKey, session::clock::WallClock, text::pasted::Rule},
    std::time::{Duration, SystemTime},
};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Logs in with an assertion that the app's private key signs (RFC 7523 §2.1; Salesforce Help, "OAuth 2.0 JWT Bearer
/// Flow for Server-to-Server Integration").
///
/// The app in Salesforce has the key's certificate. The user must be pre-authorized for the app, or must have approved
/// it once with the scope `refresh_token`. There is no refresh token: each refresh is a new login with a new assertion.
///
/// Signing needs the feature `jwt`. [`from_assertion`](Self::from_assertion) works without it.
#[cfg_attr(feature = "jwt", doc = "```no_run")]
#[cfg_attr(not(feature = "jwt"), doc = "```ignore")]
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{
///     LoginUrl, SalesforceAuthLayer,
///     flow::JwtBearer,
///     oauth::{App, PrivateKey},
/// };
///
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let app = App::new(LoginUrl::production(), "3MVG9…");
/// let key = PrivateKey::from_pem(std::fs::read("server.key")?)?;
/// let login = JwtBearer::new(client, app, "user@example.com", key);
/// let layer = SalesforceAuthLayer::new(login);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until you give it to a layer or a handle"]
pub struct JwtBearer<C> {
    client: C,
    app: App,
    assertion: AssertionSource,
}

#[derive(Clone)]
enum AssertionSource {
    SignedElsewhere(Secret),
    #[cfg(feature = "jwt")]
    Signer(AssertionSigner),
}

#[cfg(feature = "jwt")]
#[derive(Clone)]
struct AssertionSigner {
    username: String,
    key: PrivateKey,
    /// The audience that the user set. `None` for the one of the login URL.
    audience: Option<String>,
    lifetime: Duration,
    clock: WallClock,
}

impl<C: HttpClient> JwtBearer<C> {
    /// Logs in at `login_url` with an assertion that was signed elsewhere.
    ///
    /// Each login sends the same assertion until it expires, usually after a few minutes. The settings for signed
    /// assertions do not apply. To sign with an HSM, for example, write a [`RefreshFn`] that makes a new `JwtBearer`
    /// and calls [`refresh`](RefreshFn::refresh):
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http_body_util::Full;
    /// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// use tower_salesforce_auth::{
    ///     LoginUrl, RefreshContext, RefreshError, RefreshFn, SalesforceAuthLayer, flow::JwtBearer,
    /// };
    ///
    /// # async fn sign_in_the_hsm() -> Result<String, std::io::Error> { Ok("eyJ…".to_owned()) }
    /// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// let layer = SalesforceAuthLayer::new(move |context: RefreshContext| {
    ///     let client = client.clone();
    ///     async move {
    ///         let assertion = sign_in_the_hsm().await.map_err(RefreshError::transient)?;
    ///         let login = JwtBearer::from_assertion(client, LoginUrl::production(), assertion);
    ///         login.refresh(context).await
    ///     }
    /// });
    /// ```
    pub fn from_assertion(client: C, login_url: LoginUrl, assertion: impl Into<Secret>) -> Self {
        Self {
            client,
            // The app's client id is empty, because the assertion names the app.
            app: App::new(login_url, ""),
            assertion: AssertionSource::SignedElsewhere(pasted::secret(assertion)),
        }
    }
}

#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
impl<C: HttpClient> JwtBearer<C> {
    /// Logs in to this app as this user. The flow does not use the app's [authentication](App::client_authentication),
    /// because the assertion also identifies the app.
    pub fn new(client: C, app: App, username: impl Into<String>, key: PrivateKey) -> Self {
        Self {
            client,
            app,
            assertion: AssertionSource::Signer(AssertionSigner {
                username: pasted::text(username),
                key,
                audience: None,
                lifetime: assertion::LIFETIME,
                clock: WallClock::system(),
            }),
        }
    }

    /// Sets the audience of the assertion (`aud`). Default: the value for the login URL.
    ///
    /// | login URL | audience |
    /// |---|---|
    /// | `test.salesforce.com`, or the My Domain of a sandbox or scratch org | `https://test.salesforce.com` |
    /// | `login.salesforce.com`, or any other My Domain | `https://login.salesforce.com` |
    /// | a site or any other host | the login URL |
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.with_signer(|signer| signer.audience = Some(pasted::text(audience)))
    }

    /// Sets the lifetime of an assertion (`exp`). Default: 120 s. Salesforce accepts at most 180 s.
    pub fn assertion_lifetime(self, lifetime: Duration) -> Self {
        self.with_signer(|signer| signer.lifetime = lifetime)
    }

    /// Replaces the system clock.
    pub fn clock(self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.with_signer(|signer| signer.clock = WallClock::new(now))
    }

    fn with_signer(mut self, change: impl FnOnce(&mut AssertionSigner)) -> Self {
        if let AssertionSource::Signer(signer) = &mut self.assertion {
            change(signer);
        }
        self
    }
}

#[cfg(feature = "jwt")]
impl AssertionSigner {
    fn sign(&self, app: &App) -> Result<Secret, RefreshError> {
        let audience = self
            .audience
            .clone()
            .unwrap_or_else(|| app.login_url().audience());
        let checks = [
            ("client id", app.client_id(), Rule::Token),
            ("user name", &self.username, Rule::Name),
            ("audience", &audience, Rule::Token),
        ];
        for (what, text, rule) in checks {
            pasted::check(what, text, rule).map_err(RefreshError::unusable_setting)?;
        }
        assertion::AssertionClaims {
            issuer: app.client_id(),
            subject: &self.username,
            audience: &audience,
            id: None,
        }
        .sign(&self.key, &self.clock, self.lifetime)
        .map_err(RefreshError::configuration)
    }
}

impl<C: HttpClient> RefreshFn for JwtBearer<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        let assertion = match &self.assertion {
            AssertionSource::SignedElsewhere(assertion) => assertion.clone(),
            #[cfg(feature = "jwt")]
            AssertionSource::Signer(signer) => signer.sign(&self.app)?,
        };
        TokenRequest::new(&self.app, GRANT_TYPE)
            .unauthenticated()
            .secret("assertion", &assertion)
            .proven_with(self.app.key_of_login(context.previous())?)
            .obtain_session(self.client.clone())
            .await
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        let host = self.app.login_url().host().to_owned();
        Some(RefreshDescription::new(GRANT_TYPE, host))
    }

    fn app(&self) -> Option<&App> {
        Some(&self.app)
    }
}

impl<C> fmt::Debug for JwtBearer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("JwtBearer");
        shown.field("login_url", self.app.login_url());
        #[cfg(feature = "jwt")]
        if let AssertionSource::Signer(signer) = &self.assertion {
            shown
                .field("client_id", &self.app.client_id())
                .field("username", &signer.username)
                .field("audience", &signer.audience);
        }
        shown.finish_non_exhaustive()
    }
}
