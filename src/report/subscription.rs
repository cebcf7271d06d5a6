//! The state of a session, for subscribers.

use std::sync::OnceLock;

use tokio::sync::watch;

use crate::{error::RefreshError, session::live::LiveSession};

/// The state of a [`SessionHandle`](crate::SessionHandle), as a [`Subscription`] shows it.
///
/// ```
/// use tower_salesforce_auth::handle::SessionState;
///
/// fn light(state: &SessionState) -> &'static str {
///     match state {
///         SessionState::Ready(_) => "green",
///         SessionState::ReauthenticationRequired(_) | SessionState::LoggedOut => "red",
///         _ => "yellow",
///     }
/// }
/// # assert_eq!(light(&SessionState::Empty), "yellow");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionState {
    /// There is no session to send with. The next request starts a refresh.
    Empty,
    /// There is no session to send with, and a refresh is running.
    Refreshing,
    /// The last attempt failed with a transient error, and the next one waits.
    BackingOff(RefreshError),
    /// The last refresh failed with a terminal error. Nothing is tried before a session is
    /// [set](crate::SessionHandle::set) or the handle is [reset](crate::SessionHandle::reset). Requests fail with the
    /// cause.
    ReauthenticationRequired(RefreshError),
    /// Requests are sent with this session.
    Ready(LiveSession),
    /// The session was ended by [`SessionHandle::logout`](crate::SessionHandle::logout). Requests fail.
    LoggedOut,
}

/// Shows the state of a session; made by [`SessionHandle::subscribe`](crate::SessionHandle::subscribe).
///
/// Shows the latest state only: states that ended before the subscriber looked are skipped.
///
/// ```
/// use tower_salesforce_auth::{Session, SessionHandle, handle::SessionState};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_salesforce_auth::Error> {
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// let handle = SessionHandle::fixed(session.clone());
/// let mut subscription = handle.subscribe();
/// assert!(matches!(subscription.state(), SessionState::Ready(_)));
///
/// handle.set(session.with_refresh_token("5Aep861"));
/// if let Some(SessionState::Ready(live)) = subscription.changed().await {
///     assert!(live.refresh_token().is_some());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Subscription {
    states: watch::Receiver<(u64, SessionState)>,
}

impl Subscription {
    /// The present state.
    pub fn state(&self) -> SessionState {
        self.states.borrow().1.clone()
    }

    /// Waits until the state differs from the one that was last returned, or from the first one, and returns it.
    ///
    /// Returns `None` when the last handle of the session is dropped. Cancel-safe: no state is missed if the future is
    /// dropped.
    pub async fn changed(&mut self) -> Option<SessionState> {
        self.states.changed().await.ok()?;
        Some(self.states.borrow_and_update().1.clone())
    }
}

/// The subscribers of a session.
pub(crate) struct States {
    /// Made for the first subscriber, since it is as large as half a session and few sessions have one.
    watched: OnceLock<watch::Sender<(u64, SessionState)>>,
}

impl States {
    pub(crate) fn new() -> Self {
        Self {
            watched: OnceLock::new(),
        }
    }

    /// Shows a state, unless a later version was shown already: two threads may come here out of order.
    pub(crate) fn show(&self, version: u64, state: SessionState) {
        let Some(watched) = self.watched.get() else {
            return;
        };
        // The state before is dropped after the channel is unlocked, since a value of the user's may be in it.
        let mut other = Some((version, state));
        watched.send_if_modified(|shown| {
            if shown.0 >= version {
                return false;
            }
            if let Some(other) = &mut other {
                std::mem::swap(shown, other);
            }
            true
        });
    }

    /// Subscribes, from the present state on.
    pub(crate) fn subscribe(&self, version: u64, state: &SessionState) -> Subscription {
        let watched = self
            .watched
            .get_or_init(|| watch::Sender::new((version, state.clone())));
        Subscription {
            states: watched.subscribe(),
        }
    }
}
