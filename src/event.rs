//! What becomes of a session, for whoever wants to know.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{error::RefreshError, secret::Secret, session::LiveSession};

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

// === Observer ===

/// Is told of what happens to a session, at once and of every time: what an event listener is in other languages.
///
/// Set by [`SalesforceAuthLayer::observer`](crate::SalesforceAuthLayer::observer). Its methods are called on whichever task
/// or thread changed the session, a new session's before anybody who waited for it goes on. They must not block; a panic
/// is caught, and changes nothing.
///
/// ```
/// use tower_salesforce_auth::{LiveSession, Observer, SalesforceAuthLayer, Session};
///
/// struct Keeper(std::sync::mpsc::Sender<LiveSession>);
///
/// impl Observer for Keeper {
///     fn session_changed(&self, session: &LiveSession) {
///         // Hand it to whoever writes it down, refresh token and all.
///         let _ = self.0.send(session.clone());
///     }
/// }
///
/// let (keeper, kept) = std::sync::mpsc::channel();
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// let layer = SalesforceAuthLayer::with_session(session.clone()).observer(Keeper(keeper));
///
/// layer.handle().set(session.with_refresh_token("5Aep861"));
/// assert!(kept.try_recv().is_ok_and(|live| live.refresh_token().is_some()));
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// There is a new session, or the same one with a new refresh token. It carries everything that is known of it.
    ///
    /// Two changes at the same moment may be told in either order: the session with the higher
    /// [generation](LiveSession::generation) is the newer one.
    #[doc(alias = "on_refresh")]
    fn session_changed(&self, session: &LiveSession) {
        let _ = session;
    }

    /// A refresh brought a new refresh token and nothing else that could be used. The one before must not be presented any
    /// more: keep this one in its place.
    ///
    /// It is told also if the session was logged out meanwhile, and lives on at the server.
    fn refresh_token_changed(&self, refresh_token: &Secret) {
        let _ = refresh_token;
    }

    /// A refresh failed for good: nothing is tried before a session is [set](crate::SessionHandle::set) or the handle is
    /// [reset](crate::SessionHandle::reset). Told once.
    fn reauthentication_required(&self, failure: &RefreshError) {
        let _ = failure;
    }
}

pub(crate) type SharedObserver = Arc<dyn Observer>;
