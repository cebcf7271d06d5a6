//! The state of a session, for subscribers.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

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
    states: watch::Receiver<SessionState>,
}

impl Subscription {
    /// The present state.
    pub fn state(&self) -> SessionState {
        self.states.borrow().clone()
    }

    /// Waits until the state differs from the one that was last returned, or from the first one, and returns it.
    ///
    /// Returns `None` when the last handle of the session is dropped. Cancel-safe: no state is missed if the future is
    /// dropped.
    pub async fn changed(&mut self) -> Option<SessionState> {
        self.states.changed().await.ok()?;
        Some(self.states.borrow_and_update().clone())
    }
}

// === States ===

/// The state of a session, with its subscribers.
pub(crate) struct States {
    latest: Mutex<SessionState>,
    /// Made for the first subscriber, since it is as large as half a session and few sessions have one.
    watched: OnceLock<watch::Sender<SessionState>>,
}

impl States {
    pub(crate) fn new() -> Self {
        Self {
            latest: Mutex::new(SessionState::Empty),
            watched: OnceLock::new(),
        }
    }

    /// Shows a new state. Called under the lock of the session, so that states keep their order.
    pub(crate) fn show(&self, state: SessionState) {
        self.show_if(state, |_, _| true);
    }

    /// Shows a new state, and wakes subscribers only if it `is_change` from the last one.
    pub(crate) fn show_if(
        &self,
        state: SessionState,
        is_change: impl FnOnce(&SessionState, &SessionState) -> bool,
    ) {
        let last = std::mem::replace(&mut *self.latest_mut(), state.clone());
        if let Some(watched) = self.watched.get() {
            let is_change = is_change(&last, &state);
            watched.send_if_modified(|watched| {
                *watched = state;
                is_change
            });
        }
    }

    /// Subscribes. Called under the lock of the session, so that the subscriber misses no state.
    pub(crate) fn subscribe(&self) -> Subscription {
        let watched = self
            .watched
            .get_or_init(|| watch::Sender::new(self.latest()));
        Subscription {
            states: watched.subscribe(),
        }
    }

    pub(crate) fn latest(&self) -> SessionState {
        self.latest_mut().clone()
    }

    fn latest_mut(&self) -> MutexGuard<'_, SessionState> {
        // Nothing panics while it holds the lock.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
