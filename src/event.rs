//! What a session is doing, for whoever watches it.

use tokio::sync::watch;

use crate::{error::RefreshError, session::LiveSession};

/// What a [`SessionHandle`](crate::SessionHandle) is doing, as a [`Subscription`] shows it.
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
    pub(crate) fn new(states: watch::Receiver<SessionState>) -> Self {
        Self { states }
    }

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
