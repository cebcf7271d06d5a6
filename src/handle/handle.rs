//! The shared, living session: the handle on it, and the wait for it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, MutexGuard},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Uri;
use pin_project_lite::pin_project;
use tokio::{runtime, time::Instant};

use crate::{
    error::{self, Error, ErrorKind},
    handle::builder::SessionHandleBuilder,
    refresh::{
        hook::RefreshFn,
        policy::Permit,
        shared::{Departure, Landed, Life, SessionOrigin, Shared, Standing},
        task::{Flight, Landing},
    },
    report::{
        observer::Event,
        reason::RefreshReason,
        subscription::{SessionState, Subscription},
        trace,
    },
    secret::Secret,
    session::{
        live::{Generation, LiveSession, Published},
        session::Session,
    },
};

/// How often to look whether another session was stored, after a failure for good. It costs a read, and nothing at the
/// server.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

// === SessionHandle ===

/// The shared, living session of one org and user: what a [`SalesforceAuthLayer`](crate::SalesforceAuthLayer) keeps
/// alive, and what drives clients that do not go through the layer.
///
/// Clones share the session. Dropping them neither logs out nor stops a refresh that is under way.
///
/// # Many orgs, one client
///
/// A request with a handle among its extensions is sent with the session of that handle, to its instance, renewed by
/// its [`RefreshFn`] and with its settings, in place of the layer's; so one client serves many orgs. What a layer sets
/// of replays and answers stays. The layer takes the handle out of the request before it is sent on.
/// [`Sessions`](crate::Sessions) keeps the handles of many orgs.
///
/// ```
/// use tower_salesforce_auth::{Session, SessionHandle};
///
/// let session = Session::new("00Dyy!AQEAQ", "https://OtherDomainName.my.salesforce.com")?;
/// let other_org = SessionHandle::fixed(session);
/// let request = http::Request::get("/services/data/v66.0/limits").extension(other_org).body(())?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
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
/// use tower_salesforce_auth::{RefreshContext, RefreshError, Session, SessionHandle};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_salesforce_auth::Error> {
/// let handle = SessionHandle::new(|_: RefreshContext| async {
///     Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com").map_err(RefreshError::terminal)
/// });
///
/// // A client of its own making: log in if needed, use the token, and say so when it is rejected.
/// let live = handle.session().await?;
/// assert_eq!(live.access_token().expose(), "00Dxx!AQEAQ");
/// handle.invalidate(live.generation());
/// assert!(handle.try_session().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SessionHandle {
    pub(crate) shared: Arc<Shared>,
}

impl SessionHandle {
    /// Makes a handle without a session, with default settings. `refresh_fn` logs in and refreshes.
    ///
    /// The first request or call of [`session`](Self::session) logs in.
    pub fn new(refresh_fn: impl RefreshFn) -> Self {
        Self::builder(refresh_fn).build()
    }

    /// Collects the settings of a handle. `refresh_fn` logs in and refreshes: a [flow](crate::flow), or a function.
    pub fn builder(refresh_fn: impl RefreshFn) -> SessionHandleBuilder {
        SessionHandleBuilder::new(refresh_fn)
    }

    /// Makes a handle of a session that is never refreshed.
    pub fn fixed(session: Session) -> Self {
        SessionHandleBuilder::fixed(session).build()
    }

    /// The session that requests are sent with now. `None` if there is none. Never waits.
    pub fn try_session(&self) -> Option<LiveSession> {
        self.shared.current.load_full().map(LiveSession)
    }

    /// The session to send with: the current one, or the one that is obtained first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSession`] if there is none and nothing renews it, [`ErrorKind::NoRuntime`] if a refresh has to
    /// start outside of a tokio runtime, [`ErrorKind::Reentrant`] if it is called by the very refresh that it would
    /// wait for, [`ErrorKind::LoggedOut`] after a logout, and [`ErrorKind::Refresh`] if the refresh fails, or failed
    /// before for good.
    pub async fn session(&self) -> Result<LiveSession, Error> {
        match self.acquire()? {
            Acquired::Ready(live) => {
                if live.0.is_due() {
                    self.renew(&live.0);
                }
                Ok(live)
            }
            Acquired::Wait(waiting) => self.unless_logged_out(waiting.await?),
        }
    }

    /// The session, unless it was over before whoever waited for it came to see it.
    fn unless_logged_out(&self, live: LiveSession) -> Result<LiveSession, Error> {
        if self.shared.lock().is_logged_out {
            return Err(error::logged_out());
        }
        Ok(live)
    }

    /// Obtains a new session now, or waits for the one that is being obtained.
    ///
    /// Requests go on with the old session meanwhile. It is not given up if the refresh fails. An earlier failure does not
    /// keep it from trying. If another process has [stored](crate::store) a newer session meanwhile, that is it.
    ///
    /// # Errors
    ///
    /// As for [`session`](Self::session).
    pub async fn refresh(&self) -> Result<LiveSession, Error> {
        let waiting = {
            let life = self.shared.lock();
            self.check_obtainable(&life)?;
            self.join(life, RefreshReason::Manual)?
        };
        self.unless_logged_out(waiting.await?)
    }

    /// Reports that the session of this generation was rejected: nothing is sent with it any more.
    ///
    /// The next request, or [`session`](Self::session), obtains a new one. Does nothing if a newer session is there already,
    /// or if the last refreshes brought sessions that were rejected at once: then it stays for a while.
    pub fn invalidate(&self, generation: Generation) {
        let mut life = self.shared.lock();
        life.judge(generation);
        if life.policy.is_broken(Instant::now()) {
            return;
        }
        if self.shared.take_out(generation) && life.flight.is_none() {
            self.shared.state.show(SessionState::Empty);
        }
    }

    /// Replaces the session, after a login by other means for one.
    ///
    /// Whoever waits for a refresh goes on with this session. What such a refresh brings afterwards is dropped, except
    /// for a rotated refresh token, which is kept for the next refresh.
    ///
    /// It is not stored, if there is a [store](crate::store): [`save`](Self::save) does that, and should, or what is stored
    /// may be taken for the newer one.
    ///
    /// A session without a refresh token leaves the newest one known in place. If it is of another org or user, as the
    /// identity URLs tell, or else the instances, requests that were meant for the one before are not sent with it, and
    /// the refresh token of the one before is forgotten.
    pub fn set(&self, session: Session) -> Generation {
        let live = self.publish_set(session);
        let generation = live.generation();
        self.shared.announce(&[Event::SessionChanged(live)]);
        generation
    }

    fn publish_set(&self, session: Session) -> LiveSession {
        let mut life = self.shared.lock();
        let departed = life.epoch;
        life.epoch += 1;
        let known = life.refresh_token.clone();
        if let Some(refresh_token) = session.refresh_token() {
            // Whoever sets it has it.
            life.saved_refresh_token = Some(refresh_token.clone());
        }
        let live = self.shared.publish(&mut life, session, SessionOrigin::Set);
        if life.refresh_token != known || live.0.is_first_of_its_user() {
            life.grant += 1;
        }
        life.policy.reset();
        let superseded = life.supersede(departed);
        drop(life);
        if let Some(superseded) = superseded {
            superseded.land(Ok(live.clone()));
        }
        live
    }

    /// Forgets that the last refresh failed for good, or that the session was logged out: the next request logs in again.
    /// Forgets, too, what was seen in the [store](crate::store): what is there now counts, restored from a backup or not.
    ///
    /// To be called once the reason is gone: the user unlocked, the password corrected where the [`RefreshFn`] reads it,
    /// the app approved. A session that is in use stays in use.
    pub fn reset(&self) {
        let mut life = self.shared.lock();
        life.failure = None;
        life.policy.reset();
        life.is_logged_out = false;
        if life.standing == Standing::Stored {
            // Whatever is stored counts, or whatever is here if there is nothing.
            life.seen = None;
        }
        if life.flight.is_none() && self.shared.current.load().is_none() {
            self.shared.state.show(SessionState::Empty);
        }
    }

    /// The newest refresh token that any session came with: the one to keep for the next start of the program.
    ///
    /// It may be newer than that of the [current](Self::try_session) session, if a refresh brought a session that could not
    /// be used.
    pub fn refresh_token(&self) -> Option<Secret> {
        self.shared.lock().refresh_token.clone()
    }

    /// Shows what becomes of the session, from its present state on.
    pub fn subscribe(&self) -> Subscription {
        let _life = self.shared.lock();
        self.shared.state.subscribe()
    }

    // === For the layer ===

    /// Starts to renew a session that is due, unless that is under way, or has to wait. It goes on serving, and nothing
    /// that comes of it harms whoever sends with it.
    pub(crate) fn renew(&self, published: &Published) {
        // Whoever is aboard a refresh renews nothing.
        let (Ok(runtime), Some(due), false) =
            (runtime(), &published.due, self.shared.owner.is_aboard())
        else {
            return;
        };
        let life = self.shared.lock();
        let current = self.shared.current.load();
        let is_current = current
            .as_ref()
            .is_some_and(|current| current.generation == published.generation);
        if !is_current || life.flight.is_some() || !self.is_renewable() {
            return;
        }
        let now = Instant::now();
        match life.policy.permit(now) {
            Permit::Never(_) => due.postpone(None),
            Permit::NotBefore(until, _) => due.postpone(Some(until)),
            Permit::Now => {
                // Should it fail, another request tries again.
                due.postpone(now.checked_add(self.shared.settings.refresh_timeout));
                self.depart(life, &runtime, RefreshReason::Proactive);
            }
        }
    }

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
            .allowed_origins
            .iter()
            .any(|origin| origin.is_of(uri))
    }

    /// The session that was published last, even if it was rejected since.
    pub(crate) fn latest(&self) -> Option<LiveSession> {
        self.shared.lock().latest.clone()
    }

    /// The session to send with, or the flight that is bringing one.
    pub(crate) fn acquire(&self) -> Result<Acquired, Error> {
        if let Some(live) = self.try_session() {
            return Ok(Acquired::Ready(live));
        }
        let mut life = self.shared.lock();
        // A flight may have landed since.
        if let Some(live) = self.try_session() {
            return Ok(Acquired::Ready(live));
        }
        self.check_obtainable(&life)?;
        if life.flight.is_none() {
            self.check_permitted(&mut life)?;
        }
        let reason = match life.latest {
            None => RefreshReason::FirstLogin,
            Some(_) => RefreshReason::Rejected,
        };
        self.join(life, reason).map(Acquired::Wait)
    }

    /// Reports that a request was rejected which was sent with this generation.
    ///
    /// A newer session answers at once; whether it is worth another try, [`LiveSession::cures`] tells. So does the very
    /// session that was rejected, if the last refreshes were fruitless and `is_first` of its request's attempts: one that
    /// was let through has all the refreshes that it may have.
    pub(crate) fn reject(&self, generation: Generation, is_first: bool) -> Result<Acquired, Error> {
        let mut life = self.shared.lock();
        if is_first {
            life.judge(generation);
        }
        // One that served others for a while has ended, whatever an endpoint made of those before it.
        let has_served = || {
            let current = self.shared.current.load();
            current.as_ref().is_some_and(|current| current.has_served())
        };
        if !is_first || !life.policy.is_broken(Instant::now()) || has_served() {
            self.shared.take_out(generation);
        }
        if let Some(live) = self.try_session() {
            return Ok(Acquired::Ready(live));
        }
        self.check_obtainable(&life)?;
        // A straggler: the refresh that its rejection asks for has been tried. Trying again is for the next request,
        // or a dead grant would cost a login for each request that was in the air.
        if let (None, Some(failure)) = (&life.flight, &life.failure) {
            return Err(failure.clone().into());
        }
        self.join(life, RefreshReason::Rejected).map(Acquired::Wait)
    }

    /// Reports that a request was rejected for the last time with this generation.
    pub(crate) fn judge(&self, generation: Generation) {
        self.shared.lock().judge(generation);
    }

    /// Reports that a request that had been rejected before was accepted with this generation.
    pub(crate) fn prove(&self, generation: Generation) {
        self.shared.lock().prove(generation);
    }

    /// Fails at once where nobody would wait for long enough, or nothing can help.
    fn check_permitted(&self, life: &mut Life) -> Result<(), Error> {
        let now = Instant::now();
        let settings = &self.shared.settings;
        let limit = settings.refresh_timeout;
        match life.policy.permit(now) {
            // Somebody may have logged in elsewhere, and stored that.
            Permit::Never(_)
                if settings.place.is_some()
                    && life.next_look.is_none_or(|next_look| next_look <= now) =>
            {
                life.next_look = Some(now + LOOK_AGAIN);
                Ok(())
            }
            // Each try may count towards a lockout.
            Permit::Never(failure) => Err(failure.clone().into()),
            Permit::NotBefore(until, failure) if until - now > limit => Err(failure.clone().into()),
            _ => Ok(()),
        }
    }

    fn check_obtainable(&self, life: &Life) -> Result<(), Error> {
        if life.is_logged_out {
            return Err(error::logged_out());
        }
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
        let landing = match &life.flight {
            Some(flight) => flight.landing(),
            None => self.depart(life, &runtime, reason),
        };
        Ok(Waiting {
            late: landing.flight().is_overdue().then_some(reason),
            landing,
            handle: self.clone(),
        })
    }

    /// Waits anew, for one who had joined a flight that had stopped long before.
    fn rejoin(&self, reason: RefreshReason) -> Result<Acquired, Error> {
        let life = self.shared.lock();
        self.check_obtainable(&life)?;
        match self.try_session() {
            Some(live) if reason != RefreshReason::Manual => Ok(Acquired::Ready(live)),
            _ => self.join(life, reason).map(Acquired::Wait),
        }
    }

    fn depart(
        &self,
        mut life: MutexGuard<'_, Life>,
        runtime: &runtime::Handle,
        reason: RefreshReason,
    ) -> Landing<Landed> {
        life.epoch += 1;
        let departure = Departure {
            epoch: life.epoch,
            grant: life.grant,
            reason,
            limit: self.shared.settings.refresh_timeout,
        };
        let operation = {
            let shared = Arc::clone(&self.shared);
            move |deadline| async move { shared.obtain(departure, deadline).await }
        };
        let land = {
            let shared = Arc::clone(&self.shared);
            move |outcome| shared.land(departure, outcome)
        };
        let (flight, task) = Flight::prepare(
            self.shared.owner,
            departure.limit,
            // One exchange at a time: a flight that was superseded may be about to use up the refresh token that this
            // one would present.
            life.superseded.take(),
            operation,
            land,
        );
        life.flight = Some(Arc::clone(&flight));
        let is_refresh = match life.policy.permit(Instant::now()) {
            // It is a look at the store.
            Permit::Never(_) => reason == RefreshReason::Manual,
            _ => reason != RefreshReason::Proactive,
        };
        if is_refresh {
            self.shared.state.show(SessionState::Refreshing);
        }
        // A runtime that is being shut down lands it at once, and that takes the lock.
        drop(life);
        // Whoever asked for it is the first to wait for it, however soon it lands.
        let landing = flight.landing();
        flight.depart(runtime, trace::in_refresh_span(reason, task));
        landing
    }
}

impl SessionHandleBuilder {
    /// Builds the handle.
    #[must_use = "the session is dropped with its last handle"]
    pub fn build(self) -> SessionHandle {
        let handle = SessionHandle {
            shared: Arc::new(Shared::new(self.refresh_fn, self.settings)),
        };
        if let Some(session) = self.initial_session {
            handle.publish_set(session);
        }
        handle
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle")
            .field("state", &self.shared.state.latest())
            .field("is_renewable", &self.is_renewable())
            .finish_non_exhaustive()
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
