//! The life of a session: everything that changes it.
//!
//! Readers take the current session from an [`ArcSwapOption`] and never wait for a lock. Whatever changes it (a
//! rejection, a flight's landing, a session that the user sets) goes through one short critical section, in which two
//! generations are compared. No lock is held while anything is awaited.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use crate::{
    endpoint::Origin,
    error::{RefreshError, RefreshErrorKind},
    event::{SessionState, SharedObserver},
    refresh::{
        RefreshContext, RefreshReason, SharedRefreshFn,
        single_flight::{Flight, Outcome, Owner},
    },
    secret::Secret,
    session::{AuthorizationScheme, Generation, LiveSession, Published, Session},
};

const DEFAULT_REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

/// What a flight lands with: the session that it brought, or the failure that all its waiters share.
pub(crate) type Landed = Result<LiveSession, RefreshError>;

/// What all handles of a session share.
pub(crate) struct Shared {
    pub(crate) owner: Owner,
    /// None: nothing can renew the session.
    pub(crate) refresh_fn: Option<SharedRefreshFn>,
    /// Some: send with this. None: come to the cold path and wait.
    pub(crate) current: ArcSwapOption<Published>,
    pub(crate) settings: ArcSwap<Settings>,
    life: Mutex<Life>,
    pub(crate) state: watch::Sender<SessionState>,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) refresh_timeout: Duration,
    pub(crate) allowed_origins: Vec<Origin>,
    pub(crate) authorization_scheme: AuthorizationScheme,
    pub(crate) observer: Option<SharedObserver>,
}

/// What is looked at and changed under the lock.
pub(crate) struct Life {
    /// The session that was published last, whether it is still current or was rejected since.
    pub(crate) latest: Option<LiveSession>,
    /// The newest refresh token that any session came with. It outlives a session that came without one, because
    /// under rotation every older token is poison.
    pub(crate) refresh_token: Option<Secret>,
    /// Grows when the refresh token is replaced by one that did not come of it: with another login, or another org.
    pub(crate) grant: u64,
    /// The grant that the last exchange was made with.
    exchanged: u64,
    /// The flight to wait for.
    pub(crate) flight: Option<Arc<Flight<Landed>>>,
    /// A flight that nobody waits for any more, since a session was set, and whose exchange may not have ended.
    pub(crate) superseded: Option<Arc<Flight<Landed>>>,
    /// Grows with every flight and every session that is set by hand. What a flight of another epoch brings is not
    /// published.
    pub(crate) epoch: u64,
    /// Refreshes since the last success.
    pub(crate) attempts: u32,
    /// The refresh that failed to replace the latest session: for those who were rejected before it failed, and, if
    /// trying again cannot help, for everybody.
    pub(crate) failure: Option<RefreshError>,
    /// Whether the session was logged out. Nothing is obtained until a session is set, or the handle is reset.
    pub(crate) is_logged_out: bool,
    /// The logouts that wait for flights to end.
    pub(crate) logouts: Vec<Logout>,
}

/// A logout while flights were under way. What they bring has to be ended at the server too.
pub(crate) struct Logout {
    /// Flights that departed in an earlier epoch concern it.
    pub(crate) epoch: u64,
    /// The grant that was logged out.
    pub(crate) grant: u64,
    pub(crate) sessions: Vec<Session>,
    pub(crate) refresh_token: Option<Secret>,
}

impl Shared {
    pub(crate) fn new(refresh_fn: Option<SharedRefreshFn>) -> Self {
        Self {
            owner: Owner::new(),
            refresh_fn,
            current: ArcSwapOption::empty(),
            settings: ArcSwap::from_pointee(Settings {
                refresh_timeout: DEFAULT_REFRESH_TIMEOUT,
                allowed_origins: Vec::new(),
                authorization_scheme: AuthorizationScheme::default(),
                observer: None,
            }),
            life: Mutex::new(Life {
                latest: None,
                refresh_token: None,
                grant: 0,
                exchanged: 0,
                flight: None,
                superseded: None,
                epoch: 0,
                attempts: 0,
                failure: None,
                is_logged_out: false,
                logouts: Vec::new(),
            }),
            state: watch::Sender::new(SessionState::Empty),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Life> {
        // Nothing panics while it holds the lock.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops using the session of this generation, and says whether it was in use. To be called under the lock.
    pub(crate) fn take_out(&self, generation: Generation) -> bool {
        let rejected = self
            .current
            .load()
            .as_ref()
            .is_some_and(|current| current.generation == generation);
        if rejected {
            self.current.store(None);
        }
        rejected
    }

    /// The operation of the flight that departed in `epoch`.
    pub(crate) async fn call_refresh_fn(
        &self,
        epoch: u64,
        reason: RefreshReason,
    ) -> Result<Session, RefreshError> {
        let Some(refresh_fn) = &self.refresh_fn else {
            // Nothing departs without one.
            return Err(RefreshError::new(
                RefreshErrorKind::Configuration,
                true,
                "there is no RefreshFn",
            ));
        };
        let context = {
            let mut life = self.lock();
            if life.epoch != epoch {
                // Nobody would hear of the session, and its exchange could use up the token of the one that was set.
                return Err(superseded());
            }
            life.attempts = life.attempts.saturating_add(1);
            life.exchanged = life.grant;
            RefreshContext::new(reason)
                .with_previous(life.latest.clone())
                .with_refresh_token(life.refresh_token.clone())
                .with_attempt(life.attempts)
        };
        refresh_fn.refresh_boxed(context).await
    }

    /// The landing procedure of the flight that departed in `epoch`.
    pub(crate) fn land(
        &self,
        epoch: u64,
        outcome: Outcome<Result<Session, RefreshError>>,
    ) -> Landed {
        let result = match outcome {
            Outcome::Completed(result) => result,
            Outcome::TimedOut => Err(timed_out()),
            Outcome::Panicked => Err(RefreshError::new(
                RefreshErrorKind::Panicked,
                false,
                "the refresh panicked; the panic message went to the panic hook",
            )),
            Outcome::Cancelled => Err(RefreshError::new(
                RefreshErrorKind::Cancelled,
                false,
                "the runtime that the refresh ran on was shut down",
            )),
        };
        let rotated = match &result {
            Ok(session) => session.refresh_token(),
            Err(error) => error.rotated_refresh_token(),
        }
        .cloned();
        let mut life = self.lock();
        let is_superseded = life.epoch != epoch;
        let result = if is_superseded {
            let exchanged = life.exchanged;
            let concerns = |logout: &&mut Logout| epoch < logout.epoch && exchanged == logout.grant;
            if let Some(logout) = life.logouts.iter_mut().find(concerns) {
                logout.refresh_token = rotated.clone().or(logout.refresh_token.take());
                logout.sessions.extend(result.ok());
            }
            // Nobody hears this: whoever waited was sent on when the flight was superseded.
            Err(superseded())
        } else {
            life.flight = None;
            result
        };
        let result = result
            .and_then(|session| self.check_instance(&life, session))
            .map(|session| self.publish(&mut life, session, Published::renewed));
        let news = match &result {
            Ok(live) => Some(live.clone()),
            Err(error) => {
                let amended = rotated.and_then(|rotated| self.keep_rotated(&mut life, rotated));
                if !is_superseded {
                    self.fail(&mut life, error);
                }
                amended
            }
        };
        drop(life);
        if let Some(live) = news {
            self.announce(&live);
        }
        result
    }

    /// Tells the observer of a session. Not to be called under the lock, which the observer may take.
    pub(crate) fn announce(&self, live: &LiveSession) {
        if let Some(observer) = &self.settings.load_full().observer {
            // Whoever waits for the session is not to suffer for it. The message went to the panic hook.
            let _ = catch_unwind(AssertUnwindSafe(|| observer.session_changed(live)));
        }
    }

    /// Notes that the flight under way failed. To be called under the lock.
    fn fail(&self, life: &mut Life, error: &RefreshError) {
        let state = match self.current.load_full() {
            // A refresh by hand: the session that it would have replaced is as good as before.
            Some(current) => SessionState::Ready(LiveSession(current)),
            None => {
                life.failure = Some(error.clone());
                SessionState::Empty
            }
        };
        self.state.send_replace(state);
    }

    /// Lands a flight that nobody drives any more.
    pub(crate) fn abandon(&self, flight: &Arc<Flight<Landed>>) {
        let mut life = self.lock();
        let is_under_way = life
            .flight
            .as_ref()
            .is_some_and(|under_way| Arc::ptr_eq(under_way, flight));
        if is_under_way {
            life.flight = None;
            life.epoch += 1;
            // Should its runtime be driven again, it must not exchange anything beside its successor.
            flight.abort();
            let error = timed_out();
            self.fail(&mut life, &error);
            flight.land(Err(error));
        }
    }

    /// Keeps a rotated refresh token of a session that is not going to be used: there may be no other that still works.
    /// Unless it is of a grant that was replaced meanwhile.
    ///
    /// The latest session gets it too, so that whoever keeps sessions for the next start keeps this. To be called under
    /// the lock.
    fn keep_rotated(&self, life: &mut Life, rotated: Secret) -> Option<LiveSession> {
        if life.exchanged != life.grant {
            return None;
        }
        life.refresh_token = Some(rotated.clone());
        self.amend(life, |latest| latest.with_refresh_token(rotated))
    }

    /// Changes the latest session, which stays the same session. To be called under the lock.
    pub(crate) fn amend(
        &self,
        life: &mut Life,
        change: impl FnOnce(&Published) -> Published,
    ) -> Option<LiveSession> {
        let latest = life.latest.take()?;
        let amended = LiveSession(Arc::new(change(&latest.0)));
        if self.current.load().is_some() {
            self.current.store(Some(Arc::clone(&amended.0)));
            self.state
                .send_replace(SessionState::Ready(amended.clone()));
        }
        life.latest = Some(amended.clone());
        Some(amended)
    }

    /// A server that was taken over, or a typing error, must not get to choose where the token is sent.
    fn check_instance(&self, life: &Life, session: Session) -> Result<Session, RefreshError> {
        let origin = session.instance_url().origin();
        let is_latest = |live: &LiveSession| live.instance_url().origin() == origin;
        if origin.is_salesforce_or_loopback()
            || life.latest.as_ref().is_some_and(is_latest)
            || self.settings.load().allowed_origins.contains(origin)
        {
            return Ok(session);
        }
        Err(RefreshError::new(
            RefreshErrorKind::UntrustedInstance,
            true,
            format!(
                "the refresh brought a session for {origin}, which is neither a Salesforce host nor allowed: if it \
                 is the org's, allow it with SalesforceAuthLayer::allow_origin"
            ),
        ))
    }

    /// Makes `session` the current one; `follow` says how it follows the one before. To be called under the lock.
    pub(crate) fn publish(
        &self,
        life: &mut Life,
        session: Session,
        follow: fn(&Published, Session) -> Published,
    ) -> LiveSession {
        let refresh_token = session.refresh_token().cloned();
        let published = match &life.latest {
            None => Published::first(session),
            Some(latest) => follow(&latest.0, session),
        };
        let scheme = self.settings.load().authorization_scheme;
        let live = LiveSession(Arc::new(published.with_scheme(scheme)));
        let is_other_org = life.latest.is_some() && live.0.is_first_of_its_org();
        if is_other_org || refresh_token.is_some() {
            life.refresh_token = refresh_token;
        }
        life.latest = Some(live.clone());
        life.attempts = 0;
        life.failure = None;
        life.is_logged_out = false;
        self.current.store(Some(Arc::clone(&live.0)));
        self.state.send_replace(SessionState::Ready(live.clone()));
        live
    }
}

fn superseded() -> RefreshError {
    RefreshError::new(
        RefreshErrorKind::Cancelled,
        false,
        "the refresh was superseded by a session that was set",
    )
}

fn timed_out() -> RefreshError {
    RefreshError::new(
        RefreshErrorKind::TimedOut,
        false,
        "the refresh did not complete within the refresh timeout",
    )
}
