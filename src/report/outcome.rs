//! What the layer did for one request beyond adding the session.

use crate::session::live::Generation;

/// What the layer did for a response beyond adding the session: an extension of the response.
///
/// Present if the request was rejected at least once. Absent if the first answer was accepted, even after a wait for a
/// session, and from answers to requests that the layer passed on untouched.
///
/// ```
/// use tower_salesforce_auth::request::{AuthOutcome, ReplaySkipped};
///
/// fn explain<B>(response: &http::Response<B>) -> &'static str {
///     match response.extensions().get::<AuthOutcome>() {
///         None => "accepted at once",
///         Some(outcome) => match outcome.replay_skipped() {
///             None => "accepted with a refreshed session",
///             Some(ReplaySkipped::BodyNotReplayable) => "send the upload again",
///             Some(_) => "rejected",
///         },
///     }
/// }
/// # explain(&http::Response::new(()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthOutcome {
    pub(crate) attempts: u32,
    pub(crate) generation: Generation,
    pub(crate) refreshed: bool,
    pub(crate) replay_skipped: Option<ReplaySkipped>,
}

impl AuthOutcome {
    /// How often the request was sent.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The generation of the session that the response answers.
    ///
    /// A query locator of another generation may be invalid: with refresh-token rotation a refresh ends the session
    /// before it.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether the session was refreshed, for this request or for another, after the request was first sent.
    pub fn refreshed(&self) -> bool {
        self.refreshed
    }

    /// Why the request was not sent again after its last rejection. `None` if its last answer was accepted.
    pub fn replay_skipped(&self) -> Option<ReplaySkipped> {
        self.replay_skipped
    }
}

/// Why a rejected request was not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplaySkipped {
    /// The request was replayed as often as [`max_refreshes`] allows, and was rejected again.
    ///
    /// [`max_refreshes`]: crate::SalesforceAuthLayer::max_refreshes
    RefreshesExhausted,
    /// The body is a stream that exceeds the [`replay_limit`](crate::SalesforceAuthLayer::replay_limit), broke off, or
    /// was not released by the transport.
    BodyNotReplayable,
    /// The request is marked [`NoReplay`](crate::request::NoReplay). With a session that is bound to a DPoP key this is also the
    /// reason for [`NoRefresh`](crate::request::NoRefresh), and for a [`max_refreshes`] of 0.
    ///
    /// [`max_refreshes`]: crate::SalesforceAuthLayer::max_refreshes
    NotWanted,
    /// The refresh returned the token that was rejected.
    Unchanged,
    /// The last refreshes returned sessions that were rejected at once. The layer makes no refresh for a while, since
    /// each is a login.
    Fruitless,
    /// The refresh failed, and [`OnRefreshFailure::Respond`](crate::layer::OnRefreshFailure::Respond) is set.
    RefreshFailed,
    /// A session of another org or user was [set](crate::SessionHandle::set) during the wait.
    OtherOrg,
    /// The session is [fixed](crate::SalesforceAuthLayer::fixed): nothing refreshes it. Bodies of its answers are not
    /// read, so only a status of 401 counts as a rejection.
    NotConfigured,
    /// The request was sent again with the nonce that the server demanded in its proof (RFC 9449 §9), and the server demands
    /// another one. The session is not the cause.
    NonceRefused,
    /// The answer says that a new session would be rejected too:
    /// [`Verdict::Incurable`](crate::verdict::Verdict::Incurable). No refresh was made.
    Incurable,
}

/// What a rejected request gets if its session cannot be refreshed.
///
/// A request that waited for a session before it was first sent gets the error in any case.
///
/// ```
/// use tower_salesforce_auth::{SalesforceAuthLayer, layer::OnRefreshFailure};
///
/// /// For callers who handle a 401 themselves.
/// fn with_rejections(layer: SalesforceAuthLayer) -> SalesforceAuthLayer {
///     layer.on_refresh_failure(OnRefreshFailure::Respond)
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnRefreshFailure {
    /// The [`Error`](crate::Error), which says the cause.
    #[default]
    Fail,
    /// The rejection, with the outcome [`ReplaySkipped::RefreshFailed`].
    Respond,
}
