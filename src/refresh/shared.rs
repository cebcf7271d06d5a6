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

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use crate::{
    error::{RefreshError, RefreshErrorKind},
    refresh::{
        attempt::Attempt,
        hook::SharedRefreshFn,
        policy::{Permit, Policy},
        task::{Flight, Outcome, Owner},
    },
    report::{
        event::SessionAdopted,
        observer::{Event, SharedObserver},
        reason::RefreshReason,
        subscription::{SessionState, States},
        trace::{self, RefreshSpan},
    },
    secret::Secret,
    session::{
        lifetime::ProactiveRefresh,
        live::{Generation, LiveSession, Published},
        session::Session,
        url::Origin,
    },
    store::{OnSaveFailure, Revision, StoreKey, StoreLock},
    text::redact::redact,
};

const DEFAULT_REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

/// How soon a new session has to be rejected for the refresh that brought it to count as fruitless. Later than that, it
/// has expired.
const YOUNG: Duration = Duration::from_secs(10);

/// What a flight lands with: the session that it brought, or the failure that all its waiters share.
pub(crate) type Landed = Result<LiveSession, RefreshError>;

/// What all handles of a session share.
pub(crate) struct Shared {
    pub(crate) owner: Owner,
    /// None: nothing can renew the session.
    pub(crate) refresh_fn: Option<SharedRefreshFn>,
    /// Some: send with this. None: come to the cold path and wait.
    pub(crate) current: ArcSwapOption<Published>,
    pub(crate) settings: Settings,
    life: Mutex<Life>,
    pub(crate) state: States,
}

/// The settings of a session, fixed when its handle is built.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) refresh_timeout: Duration,
    /// Origins that may receive the token beside the instance.
    pub(crate) allowed_origins: Vec<Origin>,
    /// `None` if sessions are refreshed only when they are rejected.
    pub(crate) proactive_refresh: Option<ProactiveRefresh>,
    pub(crate) observer: Option<SharedObserver>,
    /// Where the session is stored. `None` without a store.
    pub(crate) place: Option<StoreKey>,
    pub(crate) on_save_failure: OnSaveFailure,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            refresh_timeout: DEFAULT_REFRESH_TIMEOUT,
            allowed_origins: Vec::new(),
            proactive_refresh: None,
            observer: None,
            place: None,
            on_save_failure: OnSaveFailure::Continue,
        }
    }
}

/// A session that may not have been worth its refresh.
#[derive(Clone, Copy)]
struct Unproven {
    generation: Generation,
    since: Instant,
    /// Whether it was rejected, too.
    is_judged: bool,
}

/// What the operation of a flight brought.
pub(crate) enum Brought {
    /// A session that was refreshed, and saved if there is a store.
    Obtained(Session),
    /// One that another process had saved.
    Adopted(Session),
}

/// Where a session that is published came from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionOrigin {
    /// The user's hand.
    Set,
    Refresh,
    /// Another process, by way of the store.
    Store,
}

/// A flight, as it departs.
#[derive(Clone, Copy)]
pub(crate) struct Departure {
    pub(crate) epoch: u64,
    /// The grant that it exchanges. Whoever changes the grant begins another epoch.
    pub(crate) grant: u64,
    pub(crate) reason: RefreshReason,
    /// How long its operation may take.
    pub(crate) limit: Duration,
}

/// What is looked at and changed under the lock.
pub(crate) struct Life {
    /// The session that was published last, whether it is still current or was rejected since. None after a logout.
    pub(crate) latest: Option<LiveSession>,
    /// The generation that was published last, of all. It only grows, so that nothing that was said of a session is ever
    /// held against a later one.
    last_generation: Option<Generation>,
    /// The newest refresh token that any session came with. It outlives a session that came without one, because
    /// under rotation every older token is poison.
    pub(crate) refresh_token: Option<Secret>,
    /// The newest refresh token that is known to be kept elsewhere too.
    pub(crate) saved_refresh_token: Option<Secret>,
    /// Grows when the refresh token is replaced by one that did not come of it: with another login, or another org.
    pub(crate) grant: u64,
    /// What the store held when it was looked at last.
    pub(crate) seen: Option<Revision>,
    /// When to look again whether somebody stored another session, after a failure for good.
    pub(crate) next_look: Option<Instant>,
    /// What the latest session has to do with the store.
    pub(crate) standing: Standing,
    /// The lock of the store, while the flight of this epoch has nothing to do with it: for whoever has to release it
    /// although nobody drives the flight.
    pub(crate) parked_lock: Option<(u64, Box<dyn StoreLock>)>,
    /// The flight of this epoch has begun an exchange.
    pub(crate) exchanging: Option<u64>,
    /// A refresh token that the flight of this epoch brought, and that nobody was told of.
    pub(crate) noted_refresh_token: Option<(u64, Secret)>,
    /// The epoch of the last logout. What departed before is not to be stored.
    pub(crate) logged_out: u64,
    /// Whether a refresh token was rotated out, or revoked, since the beginning. One that was known before is not to be
    /// presented then, for want of another.
    pub(crate) has_spent_refresh_token: bool,
    /// The flight to wait for.
    pub(crate) flight: Option<Arc<Flight<Landed>>>,
    /// A flight that nobody waits for any more, since a session was set, and whose exchange may not have ended.
    pub(crate) superseded: Option<Arc<Flight<Landed>>>,
    /// Grows with every flight and every session that is set by hand. What a flight of another epoch brings is not
    /// published.
    pub(crate) epoch: u64,
    /// Refreshes since the last success.
    pub(crate) attempts: u32,
    /// Those that have not ended. More than one only if one does not stop in time.
    pub(crate) under_way: Vec<Attempt>,
    /// The refresh that failed to replace the latest session, for those who were rejected before it failed.
    pub(crate) failure: Option<RefreshError>,
    /// Whether and when to try again.
    pub(crate) policy: Policy<RefreshError>,
    /// The session that replaced the last rejected one, until a request that was rejected before it is accepted with it.
    unproven: Option<Unproven>,
    /// Whether the session was logged out. Nothing is obtained until a session is set, or the handle is reset.
    pub(crate) is_logged_out: bool,
    /// What was logged out here and has not been ended at the server.
    pub(crate) logouts: Vec<Logout>,
}

/// A flight that nobody waits for any more.
pub(crate) struct Superseded {
    pub(crate) flight: Arc<Flight<Landed>>,
    is_exchanging: bool,
}

impl Superseded {
    /// Sends those on who waited. Not to be called under the lock.
    pub(crate) fn land(self, landed: Landed) {
        self.flight.land(landed);
        if !self.is_exchanging {
            // It has nothing to lose, and may wait for a store that does not answer.
            self.flight.abort();
        }
    }
}

/// What a logout has to end at the server: what was known, and what the flights bring that were under way.
pub(crate) struct Logout {
    /// Flights that departed in an earlier epoch concern it.
    pub(crate) epoch: u64,
    /// The grant that was logged out.
    pub(crate) grant: u64,
    /// The newest last.
    pub(crate) sessions: Vec<Session>,
    /// The newest last.
    pub(crate) refresh_tokens: Vec<Secret>,
    /// Where it is still stored.
    pub(crate) place: Option<StoreKey>,
    /// What was seen there.
    pub(crate) seen: Option<Revision>,
    pub(crate) standing: Standing,
}

/// What a session has to do with the store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is stored, or was, or there is no store.
    Stored,
    /// A refresh brought it, and it could not be saved.
    Unsaved,
    /// It was set by hand, in this epoch, and not stored since.
    ByHand { since: u64 },
}

impl Standing {
    pub(crate) fn is_by_hand(self) -> bool {
        matches!(self, Self::ByHand { .. })
    }

    /// What becomes of it by a save, of something that was brought in this epoch.
    pub(crate) fn saved_in(&mut self, epoch: u64, saved: Self) {
        match *self {
            // It was set since.
            Self::ByHand { since } if epoch < since => {}
            _ => *self = saved,
        }
    }
}

impl Life {
    /// Takes note that a session was rejected: one that replaced a rejected one, just now, was not worth its refresh.
    pub(crate) fn judge(&mut self, generation: Generation) {
        let now = Instant::now();
        if let Some(unproven) = &mut self.unproven
            && unproven.generation == generation
            && !std::mem::replace(&mut unproven.is_judged, true)
            && now.saturating_duration_since(unproven.since) < YOUNG
        {
            self.policy.find_fruitless(now);
        }
    }

    /// Takes out the flight under way, which departed in this epoch, for whoever lands it. Whatever comes next waits for the
    /// exchange, if it has begun.
    pub(crate) fn supersede(&mut self, departed: u64) -> Option<Superseded> {
        let flight = self.flight.take()?;
        let is_exchanging = self.exchanging == Some(departed);
        // One that was superseded earlier is waited for by this one.
        self.superseded = if is_exchanging {
            Some(Arc::clone(&flight))
        } else {
            flight.predecessor()
        };
        Some(Superseded {
            flight,
            is_exchanging,
        })
    }

    /// Takes note that a request was accepted with this session after it was rejected with another.
    pub(crate) fn prove(&mut self, generation: Generation) {
        let proven = self
            .unproven
            .take_if(|unproven| unproven.generation == generation);
        if proven.is_some() {
            // Whatever one endpoint made of it.
            self.policy.find_fruitful();
        }
    }
}

impl Shared {
    pub(crate) fn new(refresh_fn: Option<SharedRefreshFn>, settings: Settings) -> Self {
        Self {
            owner: Owner::new(),
            refresh_fn,
            current: ArcSwapOption::empty(),
            settings,
            life: Mutex::new(Life {
                latest: None,
                last_generation: None,
                refresh_token: None,
                saved_refresh_token: None,
                grant: 0,
                seen: None,
                next_look: None,
                standing: Standing::Stored,
                parked_lock: None,
                exchanging: None,
                noted_refresh_token: None,
                logged_out: 0,
                has_spent_refresh_token: false,
                flight: None,
                superseded: None,
                epoch: 0,
                attempts: 0,
                under_way: Vec::new(),
                failure: None,
                policy: Policy::new(),
                unproven: None,
                is_logged_out: false,
                logouts: Vec::new(),
            }),
            state: States::new(),
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

    /// The landing procedure of a flight.
    pub(crate) fn land(
        &self,
        departure: Departure,
        outcome: Outcome<Result<Brought, RefreshError>>,
    ) -> Landed {
        let (result, origin) = settle(outcome);
        let rotated = match &result {
            Ok(session) => session.refresh_token(),
            Err(error) => error.rotated_refresh_token(),
        }
        .cloned();
        let mut life = self.lock();
        let noted = life
            .noted_refresh_token
            .take_if(|(epoch, _)| *epoch == departure.epoch);
        // It was cut off after the exchange, for one.
        let rotated = rotated.or(noted.map(|(_, refresh_token)| refresh_token));
        life.has_spent_refresh_token |= match &result {
            Ok(session) => session.is_rotated(),
            Err(error) => error.rotated_refresh_token().is_some(),
        };
        if let Ok(session) = &result
            && session.keeps_refresh_token()
            && life.refresh_token.is_none()
        {
            // The flow was made with it.
            life.saved_refresh_token = session.refresh_token().cloned();
        }
        let is_superseded = life.epoch != departure.epoch;
        let attempt = Attempt::take(&mut life.under_way, departure.epoch);
        let mut waiters = 0;
        let mut news = Vec::new();
        let result = if is_superseded {
            let concerns = |logout: &&mut Logout| {
                departure.epoch < logout.epoch && departure.grant == logout.grant
            };
            if let Some(logout) = life.logouts.iter_mut().find(concerns) {
                if let Some(rotated) = &rotated {
                    // It replaces the one that was presented.
                    logout.refresh_tokens.pop();
                    logout.refresh_tokens.push(rotated.clone());
                }
                logout.sessions.extend(result.ok());
            }
            // Nobody hears this: whoever waited was sent on when the flight was superseded.
            Err(superseded())
        } else {
            waiters = life.flight.take().map_or(0, |flight| flight.waiters());
            result
        };
        let result = result
            .and_then(|session| self.check_instance(&life, session))
            .map(|session| self.publish(&mut life, session, origin));
        match &result {
            Ok(live) => {
                life.policy.succeed();
                life.unproven = None;
                if origin == SessionOrigin::Store {
                    // It cost nothing to find out.
                } else if live.is_unchanged() {
                    life.policy.find_fruitless(Instant::now());
                } else if departure.reason == RefreshReason::Rejected {
                    life.unproven = Some(Unproven {
                        generation: live.generation(),
                        since: Instant::now(),
                        is_judged: false,
                    });
                }
                news.push(Event::SessionChanged(live.clone()));
                news.extend(
                    attempt
                        .as_ref()
                        .map(|attempt| attempt.succeeded(waiters, live.generation())),
                );
                if origin == SessionOrigin::Store {
                    news.push(Event::SessionAdopted(SessionAdopted {
                        reason: departure.reason,
                        waiters,
                        generation: live.generation(),
                    }));
                }
            }
            Err(error) => {
                if let Some(rotated) = rotated {
                    let amended = self.keep_rotated(&mut life, departure, &rotated);
                    news.push(Event::RefreshTokenChanged(rotated));
                    news.extend(amended.map(Event::SessionChanged));
                }
                news.extend(attempt.as_ref().map(|attempt| attempt.failed(error, false)));
                if !is_superseded {
                    let latched = self.fail(&mut life, error);
                    news.extend(latched.map(Event::ReauthenticationRequired));
                }
            }
        }
        drop(life);
        match &attempt {
            Some(attempt) => self.announce_in(&attempt.span, &news),
            None => self.announce(&news),
        }
        result
    }

    /// Tells the observer what happened. Not to be called under the lock, which the observer may take.
    pub(crate) fn announce(&self, news: &[Event]) {
        for event in news {
            trace::event(event);
            if let Some(observer) = &self.settings.observer {
                // Whoever waits for the session is not to suffer for it. The message went to the panic hook.
                let _ = catch_unwind(AssertUnwindSafe(|| event.emit(&**observer)));
            }
        }
    }

    /// Tells what happened in a refresh.
    pub(crate) fn announce_in(&self, span: &RefreshSpan, news: &[Event]) {
        span.record(news);
        span.in_scope(|| self.announce(news));
    }

    /// Notes that the flight under way failed, and returns the failure if it is news that nothing more will be tried. To be
    /// called under the lock.
    fn fail(&self, life: &mut Life, error: &RefreshError) -> Option<RefreshError> {
        let mut latched = None;
        if error.is_terminal() {
            if !matches!(life.policy.permit(Instant::now()), Permit::Never(_)) {
                latched = Some(error.clone());
            }
            life.policy.latch(error.clone());
        } else if matches!(
            error.kind(),
            RefreshErrorKind::TimedOut | RefreshErrorKind::Panicked
        ) {
            // It ended the attempt from outside. What the attempt itself reported is noted already.
            back_off(life, error.clone());
        }
        let failed = match self.current.load_full() {
            // Nobody was waiting for it: the session that it would have replaced is as good as before.
            Some(current) => SessionState::Ready(LiveSession(current)),
            None => {
                life.failure = Some(error.clone());
                if error.is_terminal() {
                    SessionState::ReauthenticationRequired(error.clone())
                } else {
                    SessionState::BackingOff(error.clone())
                }
            }
        };
        self.state.show_if(failed, |last, failed| {
            // A renewal leaves no trace, nor does a look at the store that found nothing.
            !matches!(
                (last, failed),
                (SessionState::Ready(_), SessionState::Ready(_))
                    | (
                        SessionState::ReauthenticationRequired(_),
                        SessionState::ReauthenticationRequired(_)
                    )
            )
        });
        latched
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
            let departed = life.epoch;
            life.epoch += 1;
            // Should its runtime be driven again, it must not exchange anything beside its successor.
            flight.abort();
            let parked = life.parked_lock.take();
            let error = timed_out();
            let attempt = Attempt::take(&mut life.under_way, departed);
            // It is not terminal, and so nobody has to authenticate.
            self.fail(&mut life, &error);
            // Whoever is woken may take the lock.
            drop(life);
            // Other processes wait for it.
            drop(parked);
            flight.land(Err(error.clone()));
            if let Some(attempt) = attempt {
                self.announce_in(&attempt.span, &[attempt.failed(&error, false)]);
            }
        }
    }

    /// Keeps a rotated refresh token of a session that is not going to be used: there may be no other that still works.
    /// Unless it is of a grant that was replaced meanwhile.
    ///
    /// The latest session gets it too, so that whoever keeps sessions for the next start keeps this. To be called under
    /// the lock.
    pub(crate) fn keep_rotated(
        &self,
        life: &mut Life,
        departure: Departure,
        rotated: &Secret,
    ) -> Option<LiveSession> {
        if departure.grant != life.grant {
            return None;
        }
        life.refresh_token = Some(rotated.clone());
        self.amend(life, |latest| latest.with_refresh_token(rotated.clone()))
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
            self.state.show(SessionState::Ready(amended.clone()));
        }
        life.latest = Some(amended.clone());
        Some(amended)
    }

    /// A server that was taken over, or a typing error, must not get to choose where the token is sent.
    pub(crate) fn check_instance(
        &self,
        life: &Life,
        session: Session,
    ) -> Result<Session, RefreshError> {
        let origin = session.instance_url().origin();
        let is_latest = |live: &LiveSession| live.instance_url().origin() == origin;
        if origin.is_salesforce_or_loopback()
            || life.latest.as_ref().is_some_and(is_latest)
            || self.settings.allowed_origins.contains(origin)
        {
            return Ok(session);
        }
        let rotated = session.refresh_token().cloned();
        // A host that somebody else chose.
        let secrets: Vec<_> = std::iter::once(session.access_token())
            .chain(&rotated)
            .map(Secret::expose)
            .collect();
        let origin = redact(&origin.to_string(), &secrets);
        Err(RefreshError::new(
            RefreshErrorKind::UntrustedInstance,
            true,
            format!(
                "the refresh brought a session for {origin}, which is neither a Salesforce host nor allowed: if it \
                 is the org's, allow it with SessionHandleBuilder::allow_origin"
            ),
        )
        .with_rotated_refresh_token(rotated))
    }

    /// Makes `session` the current one. To be called under the lock.
    pub(crate) fn publish(
        &self,
        life: &mut Life,
        session: Session,
        origin: SessionOrigin,
    ) -> LiveSession {
        let refresh_token = session.refresh_token().cloned();
        let published = match &life.latest {
            None => Published::first(session, life.last_generation),
            Some(latest) if origin == SessionOrigin::Refresh => latest.0.refreshed(session),
            Some(latest) => latest.0.replaced(session),
        };
        let published = if origin == SessionOrigin::Store {
            published.adopted()
        } else {
            published
        };
        let published = published.with_proactive_refresh(self.settings.proactive_refresh, jitter());
        let published = if life.policy.has_been_fruitless() {
            published.on_probation()
        } else {
            published
        };
        let live = LiveSession(Arc::new(published));
        let is_other_user = life.latest.is_some() && live.0.is_first_of_its_user();
        if is_other_user || refresh_token.is_some() {
            life.refresh_token = refresh_token;
        }
        life.latest = Some(live.clone());
        life.last_generation = Some(live.generation());
        life.attempts = 0;
        life.failure = None;
        life.is_logged_out = false;
        if origin == SessionOrigin::Set {
            life.standing = Standing::ByHand { since: life.epoch };
        }
        self.current.store(Some(Arc::clone(&live.0)));
        self.state.show(SessionState::Ready(live.clone()));
        live
    }
}

/// How the operation of a flight ended, for those who wait for it.
fn settle(
    outcome: Outcome<Result<Brought, RefreshError>>,
) -> (Result<Session, RefreshError>, SessionOrigin) {
    let failure = match outcome {
        Outcome::Completed(Ok(Brought::Obtained(session))) => {
            return (Ok(session), SessionOrigin::Refresh);
        }
        Outcome::Completed(Ok(Brought::Adopted(session))) => {
            return (Ok(session), SessionOrigin::Store);
        }
        Outcome::Completed(Err(error)) => error,
        Outcome::TimedOut => timed_out(),
        Outcome::Panicked => RefreshError::new(
            RefreshErrorKind::Panicked,
            false,
            "the refresh panicked; the panic message went to the panic hook",
        ),
        Outcome::Cancelled => RefreshError::new(
            RefreshErrorKind::Cancelled,
            false,
            "the runtime that the refresh ran on was shut down",
        ),
    };
    (Err(failure), SessionOrigin::Refresh)
}

/// Keeps the next attempt waiting.
pub(crate) fn back_off(life: &mut Life, error: RefreshError) {
    let retry_after = error.retry_after();
    life.policy
        .back_off(error, retry_after, jitter(), Instant::now());
}

/// A random number from 0 to 1. Without randomness, what began together happens together, and no worse.
pub(crate) fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

pub(crate) fn superseded() -> RefreshError {
    RefreshError::new(
        RefreshErrorKind::Cancelled,
        false,
        "the refresh was superseded, by a session that was set or by a logout",
    )
}

fn timed_out() -> RefreshError {
    RefreshError::new(
        RefreshErrorKind::TimedOut,
        false,
        "the refresh did not complete within the refresh timeout",
    )
}
