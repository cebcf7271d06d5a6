//! The public handle to an org, and its settings.

mod app;
mod clock;
mod devices;
mod dpop;
mod keys;
#[cfg(feature = "https-client")]
mod mutual_tls;
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
use crate::emulator::state::user::PASSWORD;

const URL: &str = "https://emulator.my.salesforce.com";

/// An in-process Salesforce org with one connected app and one user.
///
/// `Org` is a [`tower_service::Service`] for requests with any body, and always ready. All clones
/// are the same org. Different orgs share nothing: one does not accept the tokens of another.
/// `Debug` prints no token and no secret. The [module](super) lists the requests and their answers.
///
/// A change of the org affects the calls that arrive after it.
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
    /// Makes an org at `https://emulator.my.salesforce.com`. Refresh tokens rotate, sessions never
    /// end, and there are no faults and a few records. The user is active, and an administrator has
    /// approved the connected app.
    #[must_use]
    pub fn new() -> Self {
        Self::with_password(PASSWORD)
    }

    /// Makes the same org as [`new`](Self::new), with another [password](Self::password) of the
    /// user.
    ///
    /// ```
    /// use tower_salesforce_auth::emulator::Org;
    ///
    /// let org = Org::with_password("easy to type");
    /// assert_eq!(org.password(), "easy to type");
    /// ```
    #[must_use]
    pub fn with_password(password: &str) -> Self {
        Self {
            backend: Arc::new(Backend::new(URL, password)),
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

    /// The base URL of data calls, as token answers report it. Default:
    /// `https://emulator.my.salesforce.com`. [`serve`](Self::serve) and
    /// [`move_instance`](Self::move_instance) change it.
    pub fn instance_url(&self) -> String {
        self.state().instance_url.clone()
    }

    /// The base URL of the login. It equals the instance URL until
    /// [`move_instance`](Self::move_instance).
    pub fn login_url(&self) -> String {
        self.state().login_url.clone()
    }

    /// The token endpoint: `/services/oauth2/token` below the login URL.
    pub fn token_url(&self) -> String {
        format!("{}/services/oauth2/token", self.state().login_url)
    }

    /// Moves the org to another instance: token answers from now on report `url` as their
    /// `instance_url`. The login URL and all tokens stay.
    ///
    /// The org still answers every request that reaches it. To send a client to another address,
    /// [`serve`](Self::serve) the org twice and move it between the two.
    pub fn move_instance(&self, url: impl Into<String>) {
        self.state().instance_url = url.into();
    }

    /// Gives the user's consent: starts a session and a lineage of refresh tokens.
    #[must_use]
    pub fn authorize(&self) -> Grant {
        let now = self.backend.now();
        let mut state = self.state();
        let mint = state.mint(now);
        let tokens = state.sessions.authorize("refresh_token api", &mint);
        Grant {
            access_token: tokens.access_token,
            // The scope includes a refresh token, so there is one.
            refresh_token: tokens.refresh_token.unwrap_or_default(),
            instance_url: state.instance_url.clone(),
        }
    }

    /// Whether a refresh returns a new refresh token and ends the presented one. Default: `true`.
    /// With `false`, the answer has no `refresh_token` and the old one stays valid.
    pub fn rotate_refresh_tokens(&self, rotate: bool) {
        self.state().rotate_refresh_tokens = rotate;
    }

    /// Ends all current sessions. Refresh tokens stay valid.
    pub fn expire_sessions(&self) {
        self.state().sessions.expire_sessions();
    }

    /// Limits every new session to this many data calls, sessions of [`authorize`](Self::authorize)
    /// included. Default: `None`, no limit.
    pub fn expire_after(&self, calls: impl Into<Option<u64>>) {
        self.state().sessions.calls_per_session = calls.into();
    }

    /// Ends all current refresh tokens, as a token policy of the org does. Sessions stay valid. Add
    /// [`expire_sessions`](Self::expire_sessions) to imitate a revocation by the user.
    pub fn revoke_grants(&self) {
        self.state().sessions.revoke_grants();
    }

    /// How many approvals of the app the user may have at a time. Default: `None`, any number.
    ///
    /// Salesforce allows five per user and app. A sixth authorization revokes the oldest refresh
    /// token and its sessions.
    pub fn limit_approvals(&self, approvals: impl Into<Option<usize>>) {
        self.state().sessions.approval_limit = approvals.into();
    }

    /// Sets the fault of the token endpoint. Default: [`Fault::None`].
    pub fn on_token(&self, fault: Fault) {
        self.backend.token_fault.set(fault);
    }

    /// Sets the fault of data calls. Default: [`Fault::None`].
    pub fn on_data(&self, fault: Fault) {
        self.backend.data_fault.set(fault);
    }

    /// Sets the fault of token revocation. Default: [`Fault::None`].
    pub fn on_revoke(&self, fault: Fault) {
        self.backend.revoke_fault.set(fault);
    }

    /// Sets the fault of SOAP `login()`. Default: [`Fault::None`]. Other SOAP calls are not
    /// affected.
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

    /// How many bytes of its body a data call sends before the org rejects it with a 401 or a
    /// [`Fault`]. Default: `None`, all of them.
    ///
    /// With `n`, the answer comes as soon as `n` bytes have arrived. The org reads the piece with
    /// the `n`th byte as a whole, and nothing after it. With 0, it reads nothing.
    pub fn answer_early(&self, bytes: impl Into<Option<usize>>) {
        self.state().answer_early = bytes.into();
    }

    /// Pads the body of every 401 with white space to at least this many bytes. Default: `None`,
    /// which leaves the 75 bytes of the body.
    pub fn error_body_size(&self, bytes: impl Into<Option<usize>>) {
        self.state().error_body_size = bytes.into().unwrap_or(0);
    }

    /// Refuses every session with this message. Default: `None`.
    ///
    /// A data call gets 401 `INVALID_SESSION_ID`, a SOAP call the same as a fault, and Bulk API 1.0
    /// `InvalidSessionId`. Salesforce does so to a user whom a policy excludes from the API. A
    /// refresh does not help:
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

    /// Whether the org has [controls](super#controls): its methods and counters as JSON below
    /// `/emulator/`. Default: `false`, and those paths answer 404.
    ///
    /// The controls are for clients in other languages. Any client that reaches the org can use
    /// them without a session.
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

    /// The counters of what the org has seen.
    pub fn counters(&self) -> Counters {
        let state = self.state();
        Counters {
            dpop_proofs_accepted: state.dpop.accepted,
            dpop_proofs_refused: state.dpop.refused,
            dpop_nonces_demanded: state.dpop.nonces_demanded,
            ..state.counters
        }
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
