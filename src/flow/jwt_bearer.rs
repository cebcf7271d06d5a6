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
};
#[cfg(feature = "jwt")]
use {
    crate::{
        oauth::clock::WallClock,
        oauth::{PrivateKey, assertion},
    },
    std::time::{Duration, SystemTime},
};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Logs in with an assertion that is signed with the app's private key (RFC 7523 §2.1; Salesforce Help, "OAuth 2.0 JWT
/// Bearer Flow for Server-to-Server Integration").
///
/// The key's certificate is uploaded to the app, and the user has to be pre-authorized for it (or to have approved it
/// once, with the scope `refresh_token`). There is no refresh token: a new session is a new login, with a new assertion.
///
/// Signing takes the feature `jwt`; [`from_assertion`](Self::from_assertion) works without.
#[cfg_attr(feature = "jwt", doc = "```no_run")]
#[cfg_attr(not(feature = "jwt"), doc = "```ignore")]
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{LoginUrl, SalesforceAuthLayer, flow::JwtBearer, oauth::{App, PrivateKey}};
///
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let app = App::new(LoginUrl::production(), "3MVG9…");
/// let key = PrivateKey::from_pem(std::fs::read("server.key")?)?;
/// let layer = SalesforceAuthLayer::new(JwtBearer::new(client, app, "user@example.com", key));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until a layer or a handle is made with it"]
pub struct JwtBearer<C> {
    client: C,
    app: App,
    assertion: Assertion,
}

#[derive(Clone)]
enum Assertion {
    Given(Secret),
    #[cfg(feature = "jwt")]
    Signed(Signed),
}

#[cfg(feature = "jwt")]
#[derive(Clone)]
struct Signed {
    username: String,
    key: PrivateKey,
    audience: Option<String>,
    lifetime: Duration,
    clock: WallClock,
}

impl<C: HttpClient> JwtBearer<C> {
    /// Logs in at `login_url` with an assertion that was signed elsewhere.
    ///
    /// It is presented each time, and so is good for as long as it says: some minutes. The settings of assertions that are
    /// signed here do not concern it. For a signer of your own, in an
    /// HSM for one, make a new one of these in a [`RefreshFn`] of your own, and call its
    /// [`refresh`](RefreshFn::refresh):
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http_body_util::Full;
    /// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// use tower_salesforce_auth::{LoginUrl, RefreshContext, RefreshError, RefreshFn, SalesforceAuthLayer, flow::JwtBearer};
    ///
    /// # async fn sign_in_the_hsm() -> Result<String, std::io::Error> { Ok("eyJ…".to_owned()) }
    /// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// let layer = SalesforceAuthLayer::new(move |context: RefreshContext| {
    ///     let client = client.clone();
    ///     async move {
    ///         let assertion = sign_in_the_hsm().await.map_err(RefreshError::transient)?;
    ///         JwtBearer::from_assertion(client, LoginUrl::production(), assertion).refresh(context).await
    ///     }
    /// });
    /// ```
    pub fn from_assertion(client: C, login_url: LoginUrl, assertion: impl Into<Secret>) -> Self {
        Self {
            client,
            // The assertion names the app.
            app: App::new(login_url, ""),
            assertion: Assertion::Given(assertion.into()),
        }
    }
}

#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
impl<C: HttpClient> JwtBearer<C> {
    /// Logs in to this app as this user. The app's [authentication](App::client_authentication) is not used: the
    /// assertion is proof of the app too.
    pub fn new(client: C, app: App, username: impl Into<String>, key: PrivateKey) -> Self {
        Self {
            client,
            app,
            assertion: Assertion::Signed(Signed {
                username: username.into(),
                key,
                audience: None,
                lifetime: assertion::LIFETIME,
                clock: WallClock::system(),
            }),
        }
    }

    /// Who the assertion is for (`aud`), if not who the login URL says.
    ///
    /// That is `https://test.salesforce.com` for `test.salesforce.com` and the My Domains of sandboxes and scratch orgs,
    /// `https://login.salesforce.com` for `login.salesforce.com` and all other My Domains, and for a site or any other
    /// host the login URL itself.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.with(|signed| signed.audience = Some(audience.into()))
    }

    /// How long an assertion is good for (`exp`). 120 s by default; Salesforce accepts 180 s at most.
    pub fn assertion_lifetime(self, lifetime: Duration) -> Self {
        self.with(|signed| signed.lifetime = lifetime)
    }

    /// Reads the time from another clock than the machine's.
    pub fn clock(self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.with(|signed| signed.clock = WallClock::new(now))
    }

    fn with(mut self, change: impl FnOnce(&mut Signed)) -> Self {
        if let Assertion::Signed(signed) = &mut self.assertion {
            change(signed);
        }
        self
    }
}

#[cfg(feature = "jwt")]
impl Signed {
    fn sign(&self, app: &App) -> Result<Secret, RefreshError> {
        let audience = self
            .audience
            .clone()
            .unwrap_or_else(|| app.login_url().audience());
        assertion::AssertionClaims {
            issuer: app.client_id(),
            subject: &self.username,
            audience: &audience,
        }
        .sign(&self.key, &self.clock, self.lifetime)
        .map_err(RefreshError::configuration)
    }
}

impl<C: HttpClient> RefreshFn for JwtBearer<C> {
    async fn refresh(&self, _context: RefreshContext) -> Result<Session, RefreshError> {
        let assertion = match &self.assertion {
            Assertion::Given(assertion) => assertion.clone(),
            #[cfg(feature = "jwt")]
            Assertion::Signed(signed) => signed.sign(&self.app)?,
        };
        TokenRequest::new(&self.app, GRANT_TYPE)
            .unauthenticated()
            .secret("assertion", &assertion)
            .send(self.client.clone())
            .await?
            .into_session(self.app.login_url())
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        let host = self.app.login_url().host().to_owned();
        Some(RefreshDescription::new(GRANT_TYPE, host))
    }
}

impl<C> fmt::Debug for JwtBearer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("JwtBearer");
        shown.field("login_url", self.app.login_url());
        #[cfg(feature = "jwt")]
        if let Assertion::Signed(signed) = &self.assertion {
            shown
                .field("client_id", &self.app.client_id())
                .field("username", &signed.username)
                .field("audience", &signed.audience);
        }
        shown.finish_non_exhaustive()
    }
}
