//! The shared, living session.
//!
//! Readers take the current session from an [`ArcSwapOption`] and never wait for a lock. Everything that changes it
//! (a rejection, a flight's landing, a session that the user sets) goes through one short critical section, in which
//! two generations are compared. No lock is held while anything is awaited.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::Uri;
use pin_project_lite::pin_project;
use tokio::{runtime, sync::watch};

use crate::{
    endpoint::{self, Origin},
    error::{Error, ErrorKind, RefreshError, RefreshErrorKind},
    refresh::{
        RefreshContext, RefreshFn, RefreshReason, SharedRefreshFn,
        single_flight::{self, DriverHandle, Flight, Landing, Outcome},
    },
    secret::Secret,
    session::{Generation, LiveSession, Published, Session},
};

const DEFAULT_REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

/// What a flight lands with: the session that it brought, or the failure that all its waiters share.
type Landed = Result<LiveSession, RefreshError>;

// === SessionHandle ===

/// The shared, living session of one org and user: what a [`SalesforceAuthLayer`](crate::SalesforceAuthLayer) keeps
/// alive, and what drives clients that do not go through the layer.
///
/// Clones share the session. Dropping them neither logs out nor stops a refresh that is under way.
///
/// # The runtime
///
/// A refresh runs as a task on the tokio runtime, current-thread or multi-thread, of the request that caused it, with
/// its time driver enabled. If that runtime is shut down, whoever waits gets an error. If it is kept without being
/// driven, a current-thread runtime whose `block_on` has returned for one, the refresh stands still with it; the first
/// request after the refresh timeout then starts another.
///
/// ```
/// use tower_salesforce_auth::{RefreshContext, Session, SessionHandle};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_salesforce_auth::Error> {
/// let handle = SessionHandle::new(async |_: RefreshContext| {
///     Ok(Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com").expect("a valid session"))
/// });
///
/// // A client of its own making: log in if needed, use the token, and say so when it is rejected.
/// let live = handle.token().await?;
/// assert_eq!(live.access_token().expose(), "00Dxx!AQEAQ");
/// handle.invalidate(live.generation());
/// assert!(handle.current().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SessionHandle {
    shared: Arc<Shared>,
}

struct Shared {
    /// None: nothing can renew the session.
    refresh_fn: Option<SharedRefreshFn>,
    /// Some: send with this. None: come to the cold path and wait.
    current: ArcSwapOption<Published>,
    settings: ArcSwap<Settings>,
    life: Mutex<Life>,
    state: watch::Sender<SessionState>,
}

#[derive(Clone)]
struct Settings {
    refresh_timeout: Duration,
    allowed_origins: Vec<Origin>,
}

/// What is looked at and changed under the lock.
struct Life {
    /// The session that was published last, whether it is still current or was rejected since.
    latest: Option<LiveSession>,
    /// The newest refresh token that any session came with. It outlives a session that came without one, because
    /// under rotation every older token is poison.
    refresh_token: Option<Secret>,
    /// The refresh token that the last exchange started with.
    presented: Option<Secret>,
    /// The flight to wait for.
    flight: Option<Arc<Flight<Landed>>>,
    /// The task of the last flight, which may go on after it was superseded.
    driver: Option<DriverHandle>,
    /// Grows when a session is set by hand, so that what a flight brings afterwards is not published.
    epoch: u64,
    /// Refreshes since the last success.
    attempts: u32,
    /// The refresh that failed to replace the latest session, for those who were rejected before it failed.
    failure: Option<RefreshError>,
}

/// What a [`SessionHandle`] is doing, as [`SessionHandle::subscribe`] shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionState {
    /// There is no session to send with. The next request asks for one.
    Empty,
    /// A session is being obtained.
    Refreshing,
    /// Requests are sent with this session.
    Ready(LiveSession),
}

impl SessionHandle {
    /// A handle without a session yet, which `refresh_fn` logs in and renews.
    ///
    /// The first request or [`token`](Self::token) logs in.
    pub fn new(refresh_fn: impl RefreshFn) -> Self {
        Self::with_refresh_fn(Some(Arc::new(refresh_fn)))
    }

    /// A handle of a session that nothing renews.
    pub fn with_session(session: Session) -> Self {
        let handle = Self::with_refresh_fn(None);
        handle.set(session);
        handle
    }

    fn with_refresh_fn(refresh_fn: Option<SharedRefreshFn>) -> Self {
        Self {
            shared: Arc::new(Shared {
                refresh_fn,
                current: ArcSwapOption::empty(),
                settings: ArcSwap::from_pointee(Settings {
                    refresh_timeout: DEFAULT_REFRESH_TIMEOUT,
                    allowed_origins: Vec::new(),
                }),
                life: Mutex::new(Life {
                    latest: None,
                    refresh_token: None,
                    presented: None,
                    flight: None,
                    driver: None,
                    epoch: 0,
                    attempts: 0,
                    failure: None,
                }),
                state: watch::Sender::new(SessionState::Empty),
            }),
        }
    }

    /// The session that requests are sent with now, if there is one. Never waits.
    pub fn current(&self) -> Option<LiveSession> {
        self.shared.current.load_full().map(LiveSession)
    }

    /// The session to send with: the current one, or the one that is obtained first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSession`] if there is none and nothing renews it, [`ErrorKind::NoRuntime`] if a refresh has to
    /// start outside of a tokio runtime, [`ErrorKind::Reentrant`] if it is called by the very refresh that it would
    /// wait for, and [`ErrorKind::Refresh`] if the refresh fails.
    pub async fn token(&self) -> Result<LiveSession, Error> {
        match self.acquire()? {
            Acquired::Ready(live) => Ok(live),
            Acquired::Wait(waiting) => waiting.await,
        }
    }

    /// Obtains a new session now, or waits for the one that is being obtained.
    ///
    /// Requests go on with the old session meanwhile. It is not given up if the refresh fails.
    ///
    /// # Errors
    ///
    /// As for [`token`](Self::token).
    pub async fn refresh(&self) -> Result<LiveSession, Error> {
        self.check_renewable()?;
        let waiting = self.join(&mut self.shared.lock(), RefreshReason::Manual)?;
        waiting.await
    }

    /// Reports that the session of this generation was rejected: nothing is sent with it any more.
    ///
    /// The next request, or [`token`](Self::token), obtains a new one. Does nothing if a newer session is there
    /// already.
    pub fn invalidate(&self, generation: Generation) {
        let life = self.shared.lock();
        if self.shared.take_out(generation) && life.flight.is_none() {
            self.shared.state.send_replace(SessionState::Empty);
        }
    }

    /// Replaces the session, after a login by other means for one.
    ///
    /// Whoever waits for a refresh goes on with this session. What such a refresh brings afterwards is dropped, except
    /// for a rotated refresh token, which is kept for the next refresh.
    ///
    /// A session without a refresh token leaves the newest one known in place.
    pub fn set(&self, session: Session) -> Generation {
        let mut life = self.shared.lock();
        life.epoch += 1;
        let live = self.shared.publish(&mut life, session);
        let generation = live.generation();
        if let Some(superseded) = life.flight.take() {
            superseded.land(Ok(live));
        }
        generation
    }

    /// Shows what becomes of the session, from its present state on.
    ///
    /// A receiver sees the latest state, and may miss one that was short-lived.
    pub fn subscribe(&self) -> watch::Receiver<SessionState> {
        self.shared.state.subscribe()
    }

    // === Settings ===

    /// How long a refresh may take, 30 s by default.
    pub(crate) fn set_refresh_timeout(&self, refresh_timeout: Duration) {
        self.change_settings(|settings| settings.refresh_timeout = refresh_timeout);
    }

    /// Trusts another origin with the token, beside the instance.
    pub(crate) fn allow_origin(&self, origin: &Origin) {
        self.change_settings(|settings| settings.allowed_origins.push(origin.clone()));
    }

    fn change_settings(&self, change: impl Fn(&mut Settings)) {
        self.shared.settings.rcu(|settings| {
            let mut settings = Settings::clone(settings);
            change(&mut settings);
            settings
        });
    }

    // === For the layer ===

    /// The current session, borrowed for as long as a request is prepared. Not to be held across an `await`.
    pub(crate) fn load(&self) -> arc_swap::Guard<Option<Arc<Published>>> {
        self.shared.current.load()
    }

    /// Whether anything can bring another session.
    pub(crate) fn is_renewable(&self) -> bool {
        self.shared.refresh_fn.is_some()
    }

    /// Whether the user allowed the token to be sent to where `uri` goes.
    pub(crate) fn allows(&self, uri: &Uri) -> bool {
        self.shared
            .settings
            .load()
            .allowed_origins
            .iter()
            .any(|origin| origin.is_of(uri))
    }

    /// Whether the token may be sent to where `uri` goes: the instance, or an origin that the user allowed.
    #[cfg(feature = "follow-redirect")]
    pub(crate) fn trusts(&self, uri: &Uri) -> bool {
        let life = self.shared.lock();
        let is_instance = |live: &LiveSession| live.instance_url().origin().is_of(uri);
        life.latest.as_ref().is_some_and(is_instance) || self.allows(uri)
    }

    /// Whether `uri` could turn out to be the instance's, once there is a session.
    pub(crate) fn may_trust(&self, uri: &Uri) -> bool {
        endpoint::may_be_an_instance(uri) || self.allows(uri)
    }

    /// The session to send with, or the flight that is bringing one.
    pub(crate) fn acquire(&self) -> Result<Acquired, Error> {
        if let Some(live) = self.current() {
            return Ok(Acquired::Ready(live));
        }
        self.check_renewable()?;
        let mut life = self.shared.lock();
        // A flight may have landed since.
        if let Some(live) = self.current() {
            return Ok(Acquired::Ready(live));
        }
        let reason = match life.latest {
            None => RefreshReason::FirstLogin,
            Some(_) => RefreshReason::Rejected,
        };
        self.join(&mut life, reason).map(Acquired::Wait)
    }

    /// Reports that a request was rejected which was sent with this generation.
    ///
    /// A newer session answers at once; whether it is worth another try, [`LiveSession::cures`] tells.
    pub(crate) fn reject(&self, generation: Generation) -> Result<Acquired, Error> {
        self.check_renewable()?;
        let mut life = self.shared.lock();
        self.shared.take_out(generation);
        if let Some(live) = self.current() {
            return Ok(Acquired::Ready(live));
        }
        // A straggler: the refresh that its rejection asks for has been tried. Trying again is for the next request,
        // or a dead grant would cost a login for each request that was in the air.
        if let (None, Some(failure)) = (&life.flight, &life.failure) {
            return Err(failure.clone().into());
        }
        self.join(&mut life, RefreshReason::Rejected)
            .map(Acquired::Wait)
    }

    fn check_renewable(&self) -> Result<(), Error> {
        if !self.is_renewable() {
            return Err(Error::new(
                ErrorKind::NoSession,
                "there is no Salesforce session and no way to log in: set a session, or give the layer a RefreshFn",
            ));
        }
        if single_flight::is_aboard(self.shared.address()) {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "the refresh sent a request through the layer that it refreshes, and would wait for itself: give it a \
                 client of its own, or mark the request with SkipAuth",
            ));
        }
        Ok(())
    }

    /// Waits for the flight under way, or starts one.
    fn join(
        &self,
        life: &mut MutexGuard<'_, Life>,
        reason: RefreshReason,
    ) -> Result<Waiting, Error> {
        let flight = match &life.flight {
            Some(flight) if !flight.is_overdue() => Arc::clone(flight),
            stopped => {
                if let Some(stopped) = stopped {
                    stopped.land(Err(timed_out()));
                }
                self.depart(life, reason)?
            }
        };
        Ok(Waiting {
            landing: flight.landing(),
        })
    }

    fn depart(
        &self,
        life: &mut MutexGuard<'_, Life>,
        reason: RefreshReason,
    ) -> Result<Arc<Flight<Landed>>, Error> {
        let runtime = runtime()?;
        life.epoch += 1;
        let epoch = life.epoch;
        // One exchange at a time, even if the flight before this one was superseded: it may be about to use up the
        // refresh token that this one would present.
        let predecessor = life.driver.take();
        let shared = Arc::clone(&self.shared);
        let operation = {
            let shared = Arc::clone(&shared);
            move || async move {
                if let Some(predecessor) = predecessor {
                    // However it ended, it has ended.
                    let _ = predecessor.await;
                }
                shared.call_refresh_fn(reason).await
            }
        };
        let limit = shared.settings.load().refresh_timeout;
        let (flight, driver) = Flight::depart(
            &runtime,
            shared.address(),
            limit,
            operation,
            move |outcome| shared.land(epoch, outcome),
        );
        life.flight = Some(Arc::clone(&flight));
        life.driver = Some(driver);
        self.shared.state.send_replace(SessionState::Refreshing);
        Ok(flight)
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle")
            .field("state", &*self.shared.state.borrow())
            .field("is_renewable", &self.is_renewable())
            .finish_non_exhaustive()
    }
}

// === Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Life> {
        // Nothing panics while it holds the lock.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a flight of this session is marked with.
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Stops using the session of this generation, and says whether it was in use. To be called under the lock.
    fn take_out(&self, generation: Generation) -> bool {
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

    async fn call_refresh_fn(&self, reason: RefreshReason) -> Result<Session, RefreshError> {
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
            life.attempts = life.attempts.saturating_add(1);
            let newest = life.refresh_token.clone();
            life.presented.clone_from(&newest);
            RefreshContext::new(reason)
                .with_previous(life.latest.clone())
                .with_refresh_token(newest)
                .with_attempt(life.attempts)
        };
        refresh_fn.refresh_boxed(context).await
    }

    /// The landing procedure of the flight that departed in `epoch`.
    fn land(&self, epoch: u64, outcome: Outcome<Result<Session, RefreshError>>) -> Landed {
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
        let mut life = self.lock();
        if let Ok(session) = &result {
            life.keep_rotated(session);
        }
        if life.epoch != epoch {
            // Nobody hears this: whoever waited was sent on when the flight was superseded.
            return Err(RefreshError::new(
                RefreshErrorKind::Cancelled,
                false,
                "the refresh was superseded",
            ));
        }
        life.flight = None;
        life.driver = None;
        match result.and_then(|session| self.check_instance(&life, session)) {
            Ok(session) => Ok(self.publish(&mut life, session)),
            Err(error) => {
                let state = match self.current.load_full() {
                    // A refresh by hand: the session that it would have replaced is as good as before.
                    Some(current) => SessionState::Ready(LiveSession(current)),
                    None => {
                        life.failure = Some(error.clone());
                        SessionState::Empty
                    }
                };
                self.state.send_replace(state);
                Err(error)
            }
        }
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

    /// Makes `session` the current one. To be called under the lock.
    fn publish(&self, life: &mut Life, session: Session) -> LiveSession {
        if let Some(refresh_token) = session.refresh_token() {
            life.refresh_token = Some(refresh_token.clone());
        }
        let (generation, since) = match &life.latest {
            None => {
                let first = Generation::NONE.next();
                (first, first)
            }
            Some(latest) => {
                let next = latest.0.generation.next();
                let is_unchanged = latest.access_token() == session.access_token();
                (next, if is_unchanged { latest.0.since } else { next })
            }
        };
        let live = LiveSession(Arc::new(Published {
            session,
            generation,
            since,
        }));
        life.latest = Some(live.clone());
        life.attempts = 0;
        life.failure = None;
        self.current.store(Some(Arc::clone(&live.0)));
        self.state.send_replace(SessionState::Ready(live.clone()));
        live
    }
}

impl Life {
    /// Keeps a rotated refresh token, even of a session that is not going to be used: there may be no other that still
    /// works. Unless the token that it replaces is not the newest any more: then it is of a grant that was replaced.
    fn keep_rotated(&mut self, session: &Session) {
        if let Some(rotated) = session.refresh_token()
            && self.refresh_token == self.presented
        {
            self.refresh_token = Some(rotated.clone());
        }
    }
}

/// The runtime that a refresh can run on.
pub(crate) fn runtime() -> Result<runtime::Handle, Error> {
    runtime::Handle::try_current().map_err(|error| {
        Error::new(
            ErrorKind::NoRuntime,
            "a refresh has to start, and there is no tokio runtime here to run it: send the request from within one, \
             `#[tokio::main]` for one",
        )
        .with_source(error)
    })
}

fn timed_out() -> RefreshError {
    RefreshError::new(
        RefreshErrorKind::TimedOut,
        false,
        "the refresh did not complete within the refresh timeout",
    )
}

// === Waiting ===

/// A session at once, or in a while.
pub(crate) enum Acquired {
    Ready(LiveSession),
    Wait(Waiting),
}

pin_project! {
    /// Waits for the flight that is bringing a session. Can be dropped at any time.
    pub(crate) struct Waiting {
        #[pin]
        landing: Landing<Landed>,
    }
}

impl Future for Waiting {
    type Output = Result<LiveSession, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project()
            .landing
            .poll(cx)
            .map(|landed| landed.map_err(Error::from))
    }
}
