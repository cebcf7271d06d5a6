//! The org: a handle to its state, and the levers on it.

mod app;
mod clock;
mod devices;
mod keys;
mod pages;
mod serve;
mod uploads;
mod user;

use std::fmt;
use std::sync::{Arc, MutexGuard};

use crate::emulator::fault::Fault;
use crate::emulator::grant::Grant;
use crate::emulator::state::OrgState;
use crate::emulator::state::app::{CLIENT_ID, CLIENT_SECRET};
use crate::emulator::state::backend::Backend;
use crate::emulator::state::counters::Counters;

const URL: &str = "https://emulator.my.salesforce.com";

/// An in-process Salesforce org with one connected app and one user.
///
/// A [`tower_service::Service`] for requests with any body, always ready. Every clone is the same
/// org. Orgs share nothing: a token of one is unknown to the other. `Debug` prints no token and no
/// secret. The [module](super) says which requests are answered, and how.
///
/// Everything that changes the org takes effect on the calls that arrive after it.
///
/// ```
/// use http::{Request, StatusCode};
/// use http_body_util::Empty;
/// use tower::ServiceExt;
/// use tower_salesforce_auth::emulator::Org;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let org = Org::new();
/// let grant = org.authorize();
/// let request = Request::get("/services/data/v66.0/query?q=SELECT+Name+FROM+Account")
///     .header("authorization", format!("Bearer {}", grant.access_token()))
///     .body(Empty::<bytes::Bytes>::new())?;
/// let response = org.oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::OK);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Org {
    backend: Arc<Backend>,
}

impl Org {
    /// A new org at `https://emulator.my.salesforce.com`, with refresh token rotation on, no
    /// faults, sessions without end, and a few records. Its user is active, and an administrator has
    /// approved its connected app.
    #[must_use]
    pub fn new() -> Self {
        Self {
            backend: Arc::new(Backend::new(URL)),
        }
    }

    /// The client id (consumer key) of the connected app.
    pub fn client_id(&self) -> &str {
        CLIENT_ID
    }

    /// The client secret (consumer secret) of the connected app.
    pub fn client_secret(&self) -> &str {
        CLIENT_SECRET
    }

    /// Where token answers send data calls. Starts as `https://emulator.my.salesforce.com`, and
    /// changes with [`serve`](Self::serve) and [`move_instance`](Self::move_instance).
    pub fn instance_url(&self) -> String {
        self.state().instance_url.clone()
    }

    /// Where to log in. The same as the instance URL until the instance is
    /// [moved](Self::move_instance) away from it.
    pub fn login_url(&self) -> String {
        self.state().login_url.clone()
    }

    /// The token endpoint: `/services/oauth2/token` below the login URL.
    pub fn token_url(&self) -> String {
        format!("{}/services/oauth2/token", self.state().login_url)
    }

    /// Moves the org to another instance: token answers from now on carry `url` as their
    /// `instance_url`. The login URL stays, and so do all tokens.
    ///
    /// The org still answers whatever reaches it. To have a client really arrive somewhere else,
    /// [`serve`](Self::serve) the org twice and move it between the two.
    pub fn move_instance(&self, url: impl Into<String>) {
        self.state().instance_url = url.into();
    }

    /// A user's consent: begins a session, and a family of refresh tokens that descends from it.
    #[must_use]
    pub fn authorize(&self) -> Grant {
        let now = self.backend.now();
        let mut state = self.state();
        let mint = state.mint(now);
        let tokens = state.sessions.authorize("refresh_token api", &mint);
        Grant {
            access_token: tokens.access_token,
            // There is one, because the scope asks for it.
            refresh_token: tokens.refresh_token.unwrap_or_default(),
            instance_url: state.instance_url.clone(),
        }
    }

    /// Whether a refresh yields a new refresh token and ends the one presented. The default is
    /// `true`; with `false` the answer has no `refresh_token` and the old one stays good.
    pub fn rotate_refresh_tokens(&self, rotate: bool) {
        self.state().rotate_refresh_tokens = rotate;
    }

    /// Ends every session begun until now. Refresh tokens stay good.
    pub fn expire_sessions(&self) {
        self.state().sessions.expire_sessions();
    }

    /// Makes every session begun from now on good for this many data calls, a session of
    /// [`authorize`](Self::authorize) included. The default is `None`: no end.
    pub fn expire_after(&self, calls: impl Into<Option<u64>>) {
        self.state().sessions.calls_per_session = calls.into();
    }

    /// Ends every refresh token issued until now, as a token policy of the org does. Sessions go
    /// on: add [`expire_sessions`](Self::expire_sessions) for what a user's revocation does.
    pub fn revoke_grants(&self) {
        self.state().sessions.revoke_grants();
    }

    /// How many approvals of the app the user may have at a time. The default is `None`: any number.
    ///
    /// Salesforce allows five per user and app: a sixth authorization revokes the oldest refresh
    /// token and the sessions that came of it.
    pub fn limit_approvals(&self, approvals: impl Into<Option<usize>>) {
        self.state().sessions.approval_limit = approvals.into();
    }

    /// What goes wrong at the token endpoint from now on. The default is [`Fault::None`].
    pub fn on_token(&self, fault: Fault) {
        self.backend.token_fault.set(fault);
    }

    /// What goes wrong with data calls from now on. The default is [`Fault::None`].
    pub fn on_data(&self, fault: Fault) {
        self.backend.data_fault.set(fault);
    }

    /// What goes wrong when tokens are revoked from now on. The default is [`Fault::None`].
    pub fn on_revoke(&self, fault: Fault) {
        self.backend.revoke_fault.set(fault);
    }

    /// What goes wrong with SOAP `login()` from now on. The default is [`Fault::None`]. Other SOAP
    /// calls go on as they are.
    ///
    /// ```
    /// use http::StatusCode;
    /// use tower_salesforce_auth::emulator::{Fault, Org};
    ///
    /// let org = Org::new();
    /// org.on_soap_login(Fault::refuse(
    ///     StatusCode::INTERNAL_SERVER_ERROR,
    ///     "LOGIN_DURING_RESTRICTED_DOMAIN",
    ///     "Cannot login from your current IP address.",
    /// ));
    /// ```
    pub fn on_soap_login(&self, fault: Fault) {
        self.backend.soap_login_fault.set(fault);
    }

    /// How much of its body a data call must have sent before it is turned away with a 401 (or by a
    /// [`Fault`]). The default is `None`: all of it.
    ///
    /// With `n`, the answer comes as soon as `n` bytes have arrived, and whatever follows is not
    /// read; the piece that brings the `n`th byte is read as a whole. With 0 nothing is read.
    pub fn answer_early(&self, bytes: impl Into<Option<usize>>) {
        self.state().answer_early = bytes.into();
    }

    /// Makes the body of every 401 at least this many bytes long, with white space after its end.
    /// The default is `None`: 75 bytes, and nothing added.
    pub fn error_body_size(&self, bytes: impl Into<Option<usize>>) {
        self.state().error_body_size = bytes.into().unwrap_or(0);
    }

    /// Refuses every session, however fresh, with this message: 401 `INVALID_SESSION_ID` of a data call, the same as a
    /// SOAP fault, and `InvalidSessionId` of Bulk API 1.0. The default is `None`: sessions are good until they end.
    ///
    /// Salesforce does so to a user whom a policy keeps from the API, and a refresh does not help:
    ///
    /// ```
    /// use tower_salesforce_auth::emulator::Org;
    ///
    /// let org = Org::new();
    /// org.refuse_sessions("This session is not valid for use with the REST API");
    /// org.refuse_sessions(None);
    /// ```
    pub fn refuse_sessions<'a>(&self, message: impl Into<Option<&'a str>>) {
        self.state().refusal_of_sessions = message.into().map(str::to_owned);
    }

    /// Whether the [controls](super#controls) are there: levers and counters of this org, as JSON
    /// below `/emulator/`. The default is `false`: those paths lead nowhere.
    ///
    /// They are for clients in other languages. Whoever reaches the org can then pull the levers,
    /// and needs no session for it.
    ///
    /// ```
    /// use http::{Request, StatusCode};
    /// use http_body_util::Empty;
    /// use tower::ServiceExt;
    /// use tower_salesforce_auth::emulator::Org;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let org = Org::new();
    /// org.expose_controls(true);
    /// let request = Request::post("/emulator/expire-sessions").body(Empty::<bytes::Bytes>::new())?;
    /// assert_eq!(org.oneshot(request).await?.status(), StatusCode::OK);
    /// # Ok(())
    /// # }
    /// ```
    pub fn expose_controls(&self, expose: bool) {
        self.state().controls_exposed = expose;
    }

    /// What the org has seen until now.
    pub fn counters(&self) -> Counters {
        self.state().counters
    }

    /// The part of the org that its endpoints work on.
    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    fn state(&self) -> MutexGuard<'_, OrgState> {
        self.backend.state()
    }
}

impl Default for Org {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Org {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Org")
            .field("instance_url", &state.instance_url)
            .field("login_url", &state.login_url)
            .field("counters", &state.counters)
            .finish_non_exhaustive()
    }
}
