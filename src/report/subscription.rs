//! What a session is doing, for whoever watches it.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use crate::{error::RefreshError, session::live::LiveSession};

/// What a [`SessionHandle`](crate::SessionHandle) is doing, as a [`Subscription`] shows it.
///
/// ```
/// use tower_salesforce_auth::SessionState;
///
/// fn light(state: &SessionState) -> &'static str {
///     match state {
///         SessionState::Ready(_) => "green",
///         SessionState::Empty | SessionState::Refreshing | SessionState::BackingOff(_) => "yellow",
///         _ => "red",
///     }
/// }
/// # assert_eq!(light(&SessionState::Empty), "yellow");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionState {
    /// There is no session to send with. The next request asks for one.
    Empty,
    /// A session is being obtained.
    Refreshing,
    /// Obtaining one failed, in a way that may pass, and the next attempt waits.
    BackingOff(RefreshError),
    /// Obtaining one failed for good. Nothing is tried before a session is [set](crate::SessionHandle::set) or the handle
    /// is [reset](crate::SessionHandle::reset); requests fail with the cause.
    ReauthenticationRequired(RefreshError),
    /// Requests are sent with this session.
    Ready(LiveSession),
    /// The session was ended by [`SessionHandle::logout`](crate::SessionHandle::logout). Requests fail.
    LoggedOut,
}

/// Shows what becomes of a session; made by [`SessionHandle::subscribe`](crate::SessionHandle::subscribe).
///
/// It shows the latest state, and skips what was over before anybody looked.
///
/// ```
/// use tower_salesforce_auth::{Session, SessionHandle, SessionState};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_salesforce_auth::Error> {
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// let handle = SessionHandle::with_session(session.clone());
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

    /// Waits until the state is another than when this last completed, or than at the beginning, and returns it.
    ///
    /// None when the session is gone, with its last handle. Nothing is missed if the future is dropped.
    pub async fn changed(&mut self) -> Option<SessionState> {
        self.states.changed().await.ok()?;
        Some(self.states.borrow_and_update().clone())
    }
}

// === States ===

/// The state of a session, and who watches it.
pub(crate) struct States {
    latest: Mutex<SessionState>,
    /// Made when somebody watches: it is as large as half a session, and most of many sessions have nobody.
    watched: OnceLock<watch::Sender<SessionState>>,
}

impl States {
    pub(crate) fn new() -> Self {
        Self {
            latest: Mutex::new(SessionState::Empty),
            watched: OnceLock::new(),
        }
    }

    /// Tells a new state. To be called under the lock of the session's life, so that states are told in their order.
    pub(crate) fn tell(&self, state: SessionState) {
        self.tell_if(state, |_, _| true);
    }

    /// Tells a new state, to those who watch only if it `is_news` beside the last one.
    pub(crate) fn tell_if(
        &self,
        state: SessionState,
        is_news: impl FnOnce(&SessionState, &SessionState) -> bool,
    ) {
        let last = std::mem::replace(&mut *self.latest_mut(), state.clone());
        if let Some(watched) = self.watched.get() {
            let is_news = is_news(&last, &state);
            watched.send_if_modified(|watched| {
                *watched = state;
                is_news
            });
        }
    }

    /// To be called under the lock of the session's life, so that nothing is told meanwhile.
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
