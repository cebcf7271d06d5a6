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
    task::{Context, Poll, ready},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::Uri;
use pin_project_lite::pin_project;
use tokio::{runtime, sync::watch};

use crate::{
    endpoint::Origin,
    error::{Error, ErrorKind, RefreshError, RefreshErrorKind},
    refresh::{
        RefreshContext, RefreshFn, RefreshReason, SharedRefreshFn,
        single_flight::{Flight, Landing, Outcome, Owner},
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
/// driven, a current-thread runtime whose `block_on` has returned for one, the refresh stands still with it; whoever
/// waits gets an error shortly after the refresh timeout, and whoever comes later starts another.
///
/// # Panics
///
/// Waiting for a refresh panics on a tokio runtime without a time driver.
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
    owner: Owner,
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
    /// A flight that nobody waits for any more, since a session was set, and whose exchange may not have ended.
    superseded: Option<Arc<Flight<Landed>>>,
    /// Grows with every flight and every session that is set by hand. What a flight of another epoch brings is not
    /// published.
    epoch: u64,
    /// Refreshes since the last success.
    attempts: u32,
    /// The refresh that failed to replace the latest session, for those who were rejected before it failed.
    failure: Option<RefreshError>,
    /// The instances of the sessions so far, the latest last: where a straggler may have been sent.
    #[cfg(feature = "follow-redirect")]
    instances: Vec<Origin>,
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
                owner: Owner::new(),
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
                    superseded: None,
                    epoch: 0,
                    attempts: 0,
                    failure: None,
                    #[cfg(feature = "follow-redirect")]
                    instances: Vec::new(),
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
        self.join(self.shared.lock(), RefreshReason::Manual)?.await
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
    /// A session without a refresh token leaves the newest one known in place. If it is of another org, as its identity
    /// URL tells, requests that were meant for the one before are not sent to it.
    pub fn set(&self, session: Session) -> Generation {
        let mut life = self.shared.lock();
        life.epoch += 1;
        let live = self.shared.publish(&mut life, session);
        let generation = live.generation();
        if let Some(superseded) = life.flight.take() {
            superseded.land(Ok(live));
            // One that was superseded earlier is waited for by this one.
            life.superseded = Some(superseded);
        }
        generation
    }

    /// The newest refresh token that any session came with: the one to keep for the next start of the program.
    ///
    /// It may be newer than that of the [current](Self::current) session, if a refresh brought a session that could not
    /// be used.
    pub fn refresh_token(&self) -> Option<Secret> {
        self.shared.lock().refresh_token.clone()
    }

    /// Shows what becomes of the session, from its present state on.
    pub fn subscribe(&self) -> Subscription {
        Subscription {
            states: self.shared.state.subscribe(),
        }
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

    /// Whether a request that was sent to where `uri` goes may have had the token with it.
    #[cfg(feature = "follow-redirect")]
    pub(crate) fn has_trusted(&self, uri: &Uri) -> bool {
        let instances = &self.shared.lock().instances;
        instances.iter().any(|origin| origin.is_of(uri)) || self.allows(uri)
    }

    /// The session that was published last, even if it was rejected since.
    pub(crate) fn latest(&self) -> Option<LiveSession> {
        self.shared.lock().latest.clone()
    }

    /// The session to send with, or the flight that is bringing one.
    pub(crate) fn acquire(&self) -> Result<Acquired, Error> {
        if let Some(live) = self.current() {
            return Ok(Acquired::Ready(live));
        }
        self.check_renewable()?;
        let life = self.shared.lock();
        // A flight may have landed since.
        if let Some(live) = self.current() {
            return Ok(Acquired::Ready(live));
        }
        let reason = match life.latest {
            None => RefreshReason::FirstLogin,
            Some(_) => RefreshReason::Rejected,
        };
        self.join(life, reason).map(Acquired::Wait)
    }

    /// Reports that a request was rejected which was sent with this generation.
    ///
    /// A newer session answers at once; whether it is worth another try, [`LiveSession::cures`] tells.
    pub(crate) fn reject(&self, generation: Generation) -> Result<Acquired, Error> {
        self.check_renewable()?;
        let life = self.shared.lock();
        self.shared.take_out(generation);
        if let Some(live) = self.current() {
            return Ok(Acquired::Ready(live));
        }
        // A straggler: the refresh that its rejection asks for has been tried. Trying again is for the next request,
        // or a dead grant would cost a login for each request that was in the air.
        if let (None, Some(failure)) = (&life.flight, &life.failure) {
            return Err(failure.clone().into());
        }
        self.join(life, RefreshReason::Rejected).map(Acquired::Wait)
    }

    fn check_renewable(&self) -> Result<(), Error> {
        if !self.is_renewable() {
            return Err(Error::new(
                ErrorKind::NoSession,
                "there is no Salesforce session and no way to log in: set a session, or give the layer a RefreshFn",
            ));
        }
        if self.shared.owner.is_aboard() {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "the refresh sent a request through the layer that it refreshes, and would wait for itself: give it a \
                 client of its own, or mark the request with SkipAuth",
            ));
        }
        Ok(())
    }

    /// Waits for the flight under way, or starts one.
    fn join(&self, life: MutexGuard<'_, Life>, reason: RefreshReason) -> Result<Waiting, Error> {
        // To wait with a deadline needs a runtime, and so does a flight.
        let runtime = runtime()?;
        let flight = match &life.flight {
            Some(flight) => Arc::clone(flight),
            None => self.depart(life, &runtime, reason),
        };
        Ok(Waiting {
            landing: flight.landing(),
            handle: self.clone(),
            late: flight.is_overdue().then_some(reason),
        })
    }

    /// Waits anew, for one who had joined a flight that had stopped long before.
    fn rejoin(&self, reason: RefreshReason) -> Result<Acquired, Error> {
        let life = self.shared.lock();
        match self.current() {
            Some(live) if reason != RefreshReason::Manual => Ok(Acquired::Ready(live)),
            _ => self.join(life, reason).map(Acquired::Wait),
        }
    }

    fn depart(
        &self,
        mut life: MutexGuard<'_, Life>,
        runtime: &runtime::Handle,
        reason: RefreshReason,
    ) -> Arc<Flight<Landed>> {
        life.epoch += 1;
        let epoch = life.epoch;
        let operation = {
            let shared = Arc::clone(&self.shared);
            move || async move { shared.call_refresh_fn(reason).await }
        };
        let land = {
            let shared = Arc::clone(&self.shared);
            move |outcome| shared.land(epoch, outcome)
        };
        let (flight, task) = Flight::prepare(
            self.shared.owner,
            self.shared.settings.load().refresh_timeout,
            // One exchange at a time: a flight that was superseded may be about to use up the refresh token that this
            // one would present.
            life.superseded.take(),
            operation,
            land,
        );
        life.flight = Some(Arc::clone(&flight));
        self.shared.state.send_replace(SessionState::Refreshing);
        // A runtime that is being shut down lands it at once, and that takes the lock.
        drop(life);
        flight.depart(runtime, task);
        flight
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
        let rotated = match &result {
            Ok(session) => session.refresh_token(),
            Err(error) => error.rotated_refresh_token(),
        }
        .cloned();
        let mut life = self.lock();
        let is_superseded = life.epoch != epoch;
        let result = if is_superseded {
            // Nobody hears this: whoever waited was sent on when the flight was superseded.
            Err(RefreshError::new(
                RefreshErrorKind::Cancelled,
                false,
                "the refresh was superseded",
            ))
        } else {
            life.flight = None;
            result
        };
        let result = result
            .and_then(|session| self.check_instance(&life, session))
            .map(|session| self.publish(&mut life, session));
        if let Err(error) = &result {
            if let Some(rotated) = rotated {
                self.keep_rotated(&mut life, rotated);
            }
            if !is_superseded {
                self.fail(&mut life, error);
            }
        }
        result
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
    fn abandon(&self, flight: &Arc<Flight<Landed>>) {
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
    /// Unless the token that it replaces is not the newest any more: then it is of a grant that was replaced.
    ///
    /// To be called under the lock.
    fn keep_rotated(&self, life: &mut Life, rotated: Secret) {
        if life.refresh_token != life.presented {
            return;
        }
        life.refresh_token = Some(rotated.clone());
        // The latest session gets it too, so that whoever keeps sessions for the next start keeps this.
        if let Some(latest) = life.latest.take() {
            let amended = LiveSession(Arc::new(latest.0.with_refresh_token(rotated)));
            if self.current.load().is_some() {
                self.current.store(Some(Arc::clone(&amended.0)));
                self.state
                    .send_replace(SessionState::Ready(amended.clone()));
            }
            life.latest = Some(amended);
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
        let live = LiveSession(Arc::new(match &life.latest {
            None => Published::first(session),
            Some(latest) => latest.0.next(session),
        }));
        life.latest = Some(live.clone());
        life.attempts = 0;
        life.failure = None;
        #[cfg(feature = "follow-redirect")]
        life.note_instance(live.instance_url().origin());
        self.current.store(Some(Arc::clone(&live.0)));
        self.state.send_replace(SessionState::Ready(live.clone()));
        live
    }
}

#[cfg(feature = "follow-redirect")]
impl Life {
    /// Remembers an instance. Orgs move now and then; what is older than a few moves has nobody under way to it.
    fn note_instance(&mut self, instance: &Origin) {
        const REMEMBERED: usize = 4;
        self.instances.retain(|known| known != instance);
        self.instances.push(instance.clone());
        let forgotten = self.instances.len().saturating_sub(REMEMBERED);
        self.instances.drain(..forgotten);
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
        handle: SessionHandle,
        // Why a session is wanted, if the flight was overdue when it was joined.
        late: Option<RefreshReason>,
    }
}

impl Future for Waiting {
    type Output = Result<LiveSession, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self;
        loop {
            let mut waiting = this.as_mut().project();
            if let Some(landed) = ready!(waiting.landing.as_mut().poll(cx)) {
                return Poll::Ready(landed.map_err(Error::from));
            }
            // It has landed afterwards, one way or the other.
            waiting.handle.shared.abandon(waiting.landing.flight());
            if let Some(reason) = waiting.late.take() {
                match waiting.handle.rejoin(reason)? {
                    Acquired::Ready(live) => return Poll::Ready(Ok(live)),
                    Acquired::Wait(anew) => this.set(anew),
                }
            }
        }
    }
}

// === Subscription ===

/// Shows what becomes of a session; made by [`SessionHandle::subscribe`].
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
