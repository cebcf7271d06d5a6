//! What happens to a session, told to whoever wants to know.

use std::sync::Arc;

use crate::{
    error::RefreshError,
    report::{
        event::{
            RefreshFailed, RefreshStarted, RefreshSucceeded, Replayed, SessionAdopted, StoreFailed,
        },
        outcome::{AuthOutcome, ReplaySkipped},
    },
    secret::Secret,
    session::live::LiveSession,
};

/// Is told of what happens to a session, at once and of every time: what an event listener is in other languages.
///
/// Set by [`SalesforceAuthLayer::observer`](crate::SalesforceAuthLayer::observer). Each method does nothing by default. They
/// are called on whichever task or thread something happened: those of a refresh, and of the session that it brought, on
/// the refresh's task before anybody who waited for it goes on; those of a request while its response future is polled.
/// They must not block; a panic is caught, and changes nothing.
///
/// A request that is accepted at once is no event, and costs nothing. No event but
/// [`session_changed`](Self::session_changed) and [`refresh_token_changed`](Self::refresh_token_changed) has a secret in it.
///
/// # Keep the session
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
///
/// # Count
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use tower_salesforce_auth::{Observer, RefreshFailed, RefreshSucceeded};
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
/// # fn count(login: impl tower_salesforce_auth::RefreshFn) -> tower_salesforce_auth::SalesforceAuthLayer {
/// let counters = std::sync::Arc::new(Counters::default());
/// let layer = tower_salesforce_auth::SalesforceAuthLayer::new(login).observer(counters.clone());
/// println!("{} refreshes", counters.succeeded.load(Ordering::Relaxed));
/// # layer
/// # }
/// ```
///
/// The example `metrics` does so with the `metrics` crate.
pub trait Observer: Send + Sync + 'static {
    /// A [`RefreshFn`](crate::RefreshFn) is about to be called. [`refresh_succeeded`](Self::refresh_succeeded) or
    /// [`refresh_failed`](Self::refresh_failed) follows, once.
    fn refresh_started(&self, event: &RefreshStarted) {
        let _ = event;
    }

    /// A refresh brought a session, which is in use.
    fn refresh_succeeded(&self, event: &RefreshSucceeded) {
        let _ = event;
    }

    /// A refresh failed, or brought nothing that could be used, or what it brought was not wanted any more.
    fn refresh_failed(&self, event: &RefreshFailed) {
        let _ = event;
    }

    /// A session that another process saved is used from now on. Nothing was refreshed.
    fn session_adopted(&self, event: &SessionAdopted) {
        let _ = event;
    }

    /// The [store](crate::store) failed at something.
    ///
    /// What to be woken for is [`StoreOperation::Save`]: a session, or a rotated refresh token, that a refresh brought could
    /// not be saved. It is told once, after the last try. Until the next refresh, or
    /// [`SessionHandle::save`](crate::SessionHandle::save), the store has the one before, and under rotation another process
    /// that presents its refresh token ends the grant for all.
    fn store_failed(&self, event: &StoreFailed) {
        let _ = event;
    }

    /// A request that was rejected is sent again.
    fn replayed(&self, event: &Replayed) {
        let _ = event;
    }

    /// A request that was rejected is not sent again, and the rejection is returned. `outcome` is what the response carries.
    ///
    /// It is not told of a request that fails with an error instead.
    fn replay_skipped(&self, reason: ReplaySkipped, outcome: &AuthOutcome) {
        let _ = (reason, outcome);
    }

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

    /// The session was [logged out](crate::SessionHandle::logout) here. What becomes of it at the server is not known yet.
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

    fn replayed(&self, event: &Replayed) {
        O::replayed(self, event);
    }

    fn replay_skipped(&self, reason: ReplaySkipped, outcome: &AuthOutcome) {
        O::replay_skipped(self, reason, outcome);
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

/// What an observer has to be told.
pub(crate) enum News {
    RefreshStarted(RefreshStarted),
    RefreshSucceeded(RefreshSucceeded),
    RefreshFailed(RefreshFailed),
    SessionAdopted(SessionAdopted),
    StoreFailed(StoreFailed),
    Replayed(Replayed),
    ReplaySkipped(ReplaySkipped, AuthOutcome),
    SessionChanged(LiveSession),
    RefreshTokenChanged(Secret),
    ReauthenticationRequired(RefreshError),
    LoggedOut,
}

impl News {
    pub(crate) fn tell(&self, observer: &dyn Observer) {
        match self {
            Self::RefreshStarted(event) => observer.refresh_started(event),
            Self::RefreshSucceeded(event) => observer.refresh_succeeded(event),
            Self::RefreshFailed(event) => observer.refresh_failed(event),
            Self::SessionAdopted(event) => observer.session_adopted(event),
            Self::StoreFailed(event) => observer.store_failed(event),
            Self::Replayed(event) => observer.replayed(event),
            Self::ReplaySkipped(reason, outcome) => observer.replay_skipped(*reason, outcome),
            Self::SessionChanged(session) => observer.session_changed(session),
            Self::RefreshTokenChanged(refresh_token) => {
                observer.refresh_token_changed(refresh_token);
            }
            Self::ReauthenticationRequired(failure) => observer.reauthentication_required(failure),
            Self::LoggedOut => observer.logged_out(),
        }
    }
}
