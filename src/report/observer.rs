//! The observer of a session, and how events reach it.

use std::sync::Arc;

use crate::{
    error::RefreshError,
    report::{
        event::{
            DpopNotice, RefreshFailed, RefreshStarted, RefreshSucceeded, Replayed, SessionAdopted,
            StoreFailed,
        },
        outcome::AuthOutcome,
    },
    secret::Secret,
    session::live::LiveSession,
};

/// Receives session and request events. All methods have empty defaults.
///
/// Set with [`SessionHandleBuilder::observer`](crate::handle::SessionHandleBuilder::observer). Methods run on the task
/// or thread where the event happens. Events of a refresh run on its task, before its waiters go on. Events of a
/// request run while its response future is polled. Methods must not block. A panic is caught and changes nothing.
///
/// A request that is accepted at once emits no event and costs nothing. Only
/// [`session_changed`](Self::session_changed) and [`refresh_token_changed`](Self::refresh_token_changed) carry secrets.
///
/// # Keep the session
///
/// ```
/// use tower_salesforce_auth::{
///     LiveSession, Session, handle::SessionHandleBuilder, observer::Observer,
/// };
///
/// struct Keeper(std::sync::mpsc::Sender<LiveSession>);
///
/// impl Observer for Keeper {
///     fn session_changed(&self, session: &LiveSession) {
///         // The receiver writes the session down, with its refresh token.
///         let _ = self.0.send(session.clone());
///     }
/// }
///
/// let (keeper, kept) = std::sync::mpsc::channel();
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// let builder = SessionHandleBuilder::fixed(session.clone());
/// let handle = builder.observer(Keeper(keeper)).build();
///
/// handle.set(session.with_refresh_token("5Aep861"));
/// assert!(kept.try_recv().is_ok_and(|live| live.refresh_token().is_some()));
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
///
/// # Count
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use tower_salesforce_auth::{
///     RefreshFn, SessionHandle, observer::{Observer, RefreshFailed, RefreshSucceeded},
/// };
///
/// #[derive(Default)]
/// struct Counters {
///     succeeded: AtomicU64,
///     failed: AtomicU64,
/// }
///
/// impl Observer for Counters {
///     fn refresh_succeeded(&self, _event: &RefreshSucceeded) {
///         self.succeeded.fetch_add(1, Ordering::Relaxed);
///     }
///
///     fn refresh_failed(&self, _event: &RefreshFailed) {
///         self.failed.fetch_add(1, Ordering::Relaxed);
///     }
/// }
///
/// # fn count(login: impl RefreshFn) -> SessionHandle {
/// let counters = Arc::new(Counters::default());
/// let handle = SessionHandle::builder(login).observer(counters.clone()).build();
/// println!("{} refreshes", counters.succeeded.load(Ordering::Relaxed));
/// # handle
/// # }
/// ```
///
/// The example `metrics` does the same with the `metrics` crate.
pub trait Observer: Send + Sync + 'static {
    /// A [`RefreshFn`](crate::RefreshFn) is about to be called. [`refresh_succeeded`](Self::refresh_succeeded) or
    /// [`refresh_failed`](Self::refresh_failed) follows, once.
    fn refresh_started(&self, event: &RefreshStarted) {
        let _ = event;
    }

    /// A refresh returned a session, which is published.
    fn refresh_succeeded(&self, event: &RefreshSucceeded) {
        let _ = event;
    }

    /// An attempt failed, returned no usable session, or was superseded.
    fn refresh_failed(&self, event: &RefreshFailed) {
        let _ = event;
    }

    /// A session that another process saved was adopted. No token call was made.
    fn session_adopted(&self, event: &SessionAdopted) {
        let _ = event;
    }

    /// The [store](crate::store) failed.
    ///
    /// A failed [`StoreOperation::Save`](crate::observer::StoreOperation::Save) needs attention: a refreshed session,
    /// or a rotated refresh token, is not saved. It is emitted once, after the last try. Until a later
    /// try in the background, a refresh or [`SessionHandle::save`](crate::SessionHandle::save) succeeds, the store has the
    /// previous record. Under rotation, another process that presents its refresh token ends the grant for all. The later tries
    /// emit nothing.
    fn store_failed(&self, event: &StoreFailed) {
        let _ = event;
    }

    /// A session is bound to another key than the app is set up for, or to none (RFC 9449). It is used all the same. Emitted once
    /// for each kind of notice.
    fn dpop_notice(&self, notice: &DpopNotice) {
        let _ = notice;
    }

    /// A rejected request is sent again.
    fn replayed(&self, event: &Replayed) {
        let _ = event;
    }

    /// A rejected request is not sent again, and the rejection is returned with this `outcome`.
    ///
    /// Not emitted for a request that fails with an error instead.
    fn replay_skipped(&self, outcome: &AuthOutcome) {
        let _ = outcome;
    }

    /// A new session was published, or the present one has a new refresh token. `session` has all that is known of it.
    ///
    /// Two changes at the same moment may be emitted in either order. The session with the higher
    /// [generation](LiveSession::generation) is the newer one. A new refresh token alone keeps the generation: of two
    /// sessions with the same one, the session of the handle ([`try_session`](crate::SessionHandle::try_session)) is the
    /// newer one.
    #[doc(alias = "on_refresh")]
    fn session_changed(&self, session: &LiveSession) {
        let _ = session;
    }

    /// A refresh returned a new refresh token, and nothing else that is usable. Keep it in place of the one before,
    /// which must not be presented again.
    ///
    /// Also emitted if the session was logged out during the refresh: the token may still be valid at the server.
    fn refresh_token_changed(&self, refresh_token: &Secret) {
        let _ = refresh_token;
    }

    /// A refresh failed with a terminal error. Emitted once.
    ///
    /// Nothing is tried before a session is [set](crate::SessionHandle::set) or the handle is
    /// [reset](crate::SessionHandle::reset).
    fn reauthentication_required(&self, failure: &RefreshError) {
        let _ = failure;
    }

    /// The session was [logged out](crate::SessionHandle::logout) here. The server has not answered yet.
    fn logged_out(&self) {}
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn refresh_started(&self, event: &RefreshStarted) {
        O::refresh_started(self, event);
    }

    fn refresh_succeeded(&self, event: &RefreshSucceeded) {
        O::refresh_succeeded(self, event);
    }

    fn refresh_failed(&self, event: &RefreshFailed) {
        O::refresh_failed(self, event);
    }

    fn session_adopted(&self, event: &SessionAdopted) {
        O::session_adopted(self, event);
    }

    fn store_failed(&self, event: &StoreFailed) {
        O::store_failed(self, event);
    }

    fn dpop_notice(&self, notice: &DpopNotice) {
        O::dpop_notice(self, notice);
    }

    fn replayed(&self, event: &Replayed) {
        O::replayed(self, event);
    }

    fn replay_skipped(&self, outcome: &AuthOutcome) {
        O::replay_skipped(self, outcome);
    }

    fn session_changed(&self, session: &LiveSession) {
        O::session_changed(self, session);
    }

    fn refresh_token_changed(&self, refresh_token: &Secret) {
        O::refresh_token_changed(self, refresh_token);
    }

    fn reauthentication_required(&self, failure: &RefreshError) {
        O::reauthentication_required(self, failure);
    }

    fn logged_out(&self) {
        O::logged_out(self);
    }
}

pub(crate) type SharedObserver = Arc<dyn Observer>;

/// An event with its data.
pub(crate) enum Event {
    RefreshStarted(RefreshStarted),
    RefreshSucceeded(RefreshSucceeded),
    RefreshFailed(RefreshFailed),
    SessionAdopted(SessionAdopted),
    StoreFailed(StoreFailed),
    DpopNotice(DpopNotice),
    Replayed(Replayed),
    ReplaySkipped(AuthOutcome),
    SessionChanged(LiveSession),
    RefreshTokenChanged(Secret),
    ReauthenticationRequired(RefreshError),
    LoggedOut,
}

impl Event {
    pub(crate) fn emit(&self, observer: &dyn Observer) {
        match self {
            Self::RefreshStarted(event) => observer.refresh_started(event),
            Self::RefreshSucceeded(event) => observer.refresh_succeeded(event),
            Self::RefreshFailed(event) => observer.refresh_failed(event),
            Self::SessionAdopted(event) => observer.session_adopted(event),
            Self::StoreFailed(event) => observer.store_failed(event),
            Self::DpopNotice(notice) => observer.dpop_notice(notice),
            Self::Replayed(event) => observer.replayed(event),
            Self::ReplaySkipped(outcome) => observer.replay_skipped(outcome),
            Self::SessionChanged(session) => observer.session_changed(session),
            Self::RefreshTokenChanged(refresh_token) => {
                observer.refresh_token_changed(refresh_token);
            }
            Self::ReauthenticationRequired(failure) => observer.reauthentication_required(failure),
            Self::LoggedOut => observer.logged_out(),
        }
    }
}
