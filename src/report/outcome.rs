//! What the layer did to one exchange beyond adding a header.

use crate::session::live::Generation;

/// What the layer did for a response beyond adding a header: an extension of the response.
///
/// There for a request that was rejected, at first or for good. Absent from a response that simply came back, after
/// however long a wait for a session, and from one to a request that was none of the layer's business.
///
/// ```
/// use tower_salesforce_auth::{AuthOutcome, ReplaySkipped};
///
/// fn explain<B>(response: &http::Response<B>) -> &'static str {
///     match response.extensions().get::<AuthOutcome>() {
///         None => "nothing to tell",
///         Some(outcome) if outcome.replay_skipped() == Some(ReplaySkipped::BodyNotReplayable) => {
///             "the session is fresh by now: send the upload again"
///         }
///         Some(outcome) if outcome.attempts() > 1 => "the session was renewed on the way",
///         Some(_) => "rejected",
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

/// Why a rejected request was not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplaySkipped {
    /// The request has been replayed as often as [`max_refreshes`] allows, and was rejected again.
    ///
    /// [`max_refreshes`]: crate::SalesforceAuthLayer::max_refreshes
    RefreshesExhausted,
    /// The body is a stream that outgrew the [`replay_limit`](crate::SalesforceAuthLayer::replay_limit), broke off, or
    /// was not given back by the transport.
    BodyNotReplayable,
    /// The request is marked [`NoReplay`](crate::NoReplay).
    NotWanted,
    /// The refresh brought the very token that was rejected.
    Unchanged,
    /// The last refreshes brought sessions that were rejected at once, as this one was. There is none for a while, since
    /// each is a login.
    Fruitless,
    /// The refresh failed, and [`OnRefreshFailure::Respond`](crate::OnRefreshFailure::Respond) is set.
    RefreshFailed,
    /// A session of another org or user was [set](crate::SessionHandle::set) meanwhile.
    OtherOrg,
    /// Nothing can renew the session: the layer was made [with a session](crate::SalesforceAuthLayer::with_session)
    /// alone. Its answers are not looked into, so that only those that are rejections by their heads are known: all 401s.
    NotConfigured,
    /// The answer says that another session would be of no use either: an
    /// [`Incurable`](crate::verdict::Verdict::Incurable) one. Nothing was refreshed for it.
    Incurable,
}

impl AuthOutcome {
    /// How often the request was sent.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The generation of the session that the response was answered with.
    ///
    /// A query locator that came with another generation may be gone: with refresh-token rotation a refresh ends the
    /// session before it.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether the session was renewed, by this request or by another, since the request was first sent.
    pub fn refreshed(&self) -> bool {
        self.refreshed
    }

    /// Why the request was not sent again after its last rejection. None if it was not rejected.
    pub fn replay_skipped(&self) -> Option<ReplaySkipped> {
        self.replay_skipped
    }
}

/// What a request gets that was rejected, if its session cannot be renewed.
///
/// A request that waited for a session before it was ever sent gets the error in any case.
///
/// ```
/// use tower_salesforce_auth::{OnRefreshFailure, SalesforceAuthLayer};
///
/// /// For callers who know what to make of a 401.
/// fn with_rejections(layer: SalesforceAuthLayer) -> SalesforceAuthLayer {
///     layer.on_refresh_failure(OnRefreshFailure::Respond)
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnRefreshFailure {
    /// The [`Error`](crate::Error), whose source says why.
    #[default]
    Fail,
    /// The answer that rejected it, with the outcome [`ReplaySkipped::RefreshFailed`].
    Respond,
}
