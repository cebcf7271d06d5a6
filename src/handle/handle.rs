//! The shared, living session: the handle on it, and the wait for it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Uri;
use pin_project_lite::pin_project;
use tokio::{
    runtime,
    time::{Instant, Sleep, sleep_until, timeout_at},
};

use crate::{
    error::{self, Error, ErrorKind, RefreshError},
    handle::builder::SessionHandleBuilder,
    refresh::{
        core::{
            callers::{Caller, Due, Rejection, Reply},
            run::RefreshId,
        },
        driver, follow,
        hook::RefreshFn,
        shared::{Answer, RefreshResult, Running, SessionCore, SessionTurn, Shared},
        task::Waiter,
    },
    report::{observer::Event, subscription::Subscription},
    secret::Secret,
    session::{
        live::{Extras, Generation, LiveSession, Published},
        session::Session,
    },
};

/// How much longer than its time a waiter waits for the driver of a refresh, which may be the next to run. After as long
/// again the driver counts as not running.
const OVERDUE_AFTER: Duration = Duration::from_secs(1);

/// The shared session of one org and user. A [`SalesforceAuthLayer`](crate::SalesforceAuthLayer) sends requests with it;
/// clients without the layer use it directly.
///
/// Clones share the session. Dropping them neither logs out nor stops a refresh.
///
/// # Many orgs, one client
///
/// One client serves many orgs: a request with a handle among its extensions is sent with the session of that handle, to its
/// instance, in place of the layer's. The handle's [`RefreshFn`] and settings apply; the layer's settings of replays stay.
/// The layer takes the handle out of the request before it sends it. [`Sessions`](crate::Sessions) keeps the handles of many
/// orgs.
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
/// A refresh runs as a task on the tokio runtime of the request that caused it, current-thread or multi-thread, with its time
/// driver enabled. If that runtime is shut down, callers who wait get an error. A current-thread runtime whose `block_on` has
/// returned runs no tasks: callers on other runtimes get an error shortly after the refresh timeout, and later callers start
/// another refresh.
///
/// # How long it takes
///
/// Callers wait for a refresh for at most the
/// [refresh timeout](crate::handle::SessionHandleBuilder::refresh_timeout). A token call that has begun is never cut off with
/// them, since it may have used up a rotating refresh token. It gets the whole refresh timeout from its own beginning, and so
/// does a save. The session that it returns is published when it arrives. [`quiesce`](Self::quiesce) waits for it.
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
///     Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")
///         .map_err(RefreshError::terminal)
/// });
///
/// // A client without the layer: log in if needed, use the token, and report a rejection.
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

    /// The session to send with: the present one, or the one that a refresh obtains first.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::NoSession`] if there is none and nothing refreshes it.
    /// - [`ErrorKind::NoRuntime`] if a refresh has to start, and the call is made outside of a tokio runtime.
    /// - [`ErrorKind::Reentrant`] if the call is made by the refresh that it would wait for.
    /// - [`ErrorKind::LoggedOut`] after a logout.
    /// - [`ErrorKind::Refresh`] if the refresh fails, or has failed before with a terminal error.
    pub async fn session(&self) -> Result<LiveSession, Error> {
        match self.acquire()? {
            Acquired::Ready(live) => {
                if live.0.is_due() {
                    self.refresh_due(&live.0);
                }
                Ok(live)
            }
            Acquired::Wait(waiting) => self.unless_logged_out(waiting.await?),
        }
    }

    /// Refuses a session that was logged out before its waiter was polled.
    fn unless_logged_out(&self, live: LiveSession) -> Result<LiveSession, Error> {
        if self.shared.read(SessionCore::is_logged_out) {
            return Err(error::logged_out());
        }
        Ok(live)
    }

    /// Obtains a new session now, or waits for the token call that is under way.
    ///
    /// Requests are sent with the old session meanwhile, and go on with it if the refresh fails. An earlier failure or a
    /// back-off does not keep the call from trying. If another process has [stored](crate::store) a newer session, that
    /// session is the result.
    ///
    /// # Errors
    ///
    /// As for [`session`](Self::session).
    pub async fn refresh(&self) -> Result<LiveSession, Error> {
        match self.ask_for_refresh()? {
            Acquired::Ready(live) => Ok(live),
            Acquired::Wait(mut waiting) => {
                waiting.is_manual = true;
                self.unless_logged_out(waiting.await?)
            }
        }
    }

    /// Reports that the session of this generation was rejected. Requests are no longer sent with it.
    ///
    /// The next request or call of [`session`](Self::session) starts a refresh. Does nothing if a newer session is in use.
    /// Does nothing, for a while, if the last refreshes returned sessions that were rejected at once.
    pub fn invalidate(&self, generation: Generation) {
        self.shared
            .apply(|core, turn| core.invalidate(generation, turn));
    }

    /// Replaces the session, for example after a login by other means.
    ///
    /// Callers who wait for a refresh get this session. A session that the refresh returns afterwards is dropped. A rotated
    /// refresh token is kept for the next refresh, if this session is of the same user and came without one.
    ///
    /// The session is not stored: [`save`](Self::save) stores it. Without a save, a [stored](crate::store) session may be
    /// taken for the newer one at the next refresh.
    ///
    /// A session without a refresh token leaves the newest one in place. A session of another org or user replaces the
    /// refresh token too, and requests that were meant for the user before are not sent with it. Identity URLs tell the user,
    /// or else the instance.
    pub fn set(&self, session: Session) -> Generation {
        let generation = self.shared.apply(|core, turn| core.set(session, turn));
        if let Some(live) = self.shared.latest() {
            self.shared.announce(&[Event::SessionChanged(live)]);
        }
        generation
    }

    /// Forgets that the last refresh failed with a terminal error, or that the session was logged out. The next request
    /// starts a refresh.
    ///
    /// Call it once the cause is gone: the user is unlocked, the password is corrected where the [`RefreshFn`] reads it, the
    /// app is approved. A session in use stays in use. What was seen in the [store](crate::store) is forgotten too: a record
    /// that was restored from a backup counts from then on. A refresh token that only this process has stays.
    pub fn reset(&self) {
        self.shared.apply(SessionCore::reset);
    }

    /// The newest refresh token of any session of this handle: the one to keep for the next start of the program.
    ///
    /// It may be newer than that of the [present](Self::try_session) session, if a refresh returned a session that could not
    /// be used. `None` if no session had one, and after a logout.
    pub fn refresh_token(&self) -> Option<Secret> {
        self.shared
            .read(|core| core.refresh_token().map(|grant| grant.token.clone()))
    }

    /// Shows the state of the session, from the present one on.
    pub fn subscribe(&self) -> Subscription {
        self.shared.subscribe()
    }

    /// Waits until no refresh and no save is under way. Starts neither.
    ///
    /// Call it before a program ends: a token call that is cut off by the end of the program may have used up a rotating
    /// refresh token. Stop sending requests first, since each may start a refresh.
    ///
    /// Waits for at most three times the refresh timeout: for the callers of a refresh, its token call, and its save.
    ///
    /// ```
    /// use tower_salesforce_auth::{RefreshFn, SessionHandle};
    ///
    /// async fn run(login: impl RefreshFn) {
    ///     let handle = SessionHandle::new(login);
    ///     // … serve, until the program is asked to stop.
    ///     if let Err(error) = handle.quiesce().await {
    ///         eprintln!("{error}");
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] if the newest refresh token is in this process only: it was not saved, and not
    /// [marked as saved](Self::mark_saved). [`ErrorKind::Refresh`] if a refresh has not ended in that time.
    pub async fn quiesce(&self) -> Result<(), Error> {
        let until =
            Instant::now().checked_add(self.shared.settings.refresh_timeout.saturating_mul(3));
        let idle = async {
            loop {
                let mut ended = std::pin::pin!(self.shared.ended.notified());
                ended.as_mut().enable();
                if self.shared.is_idle() {
                    return;
                }
                ended.await;
            }
        };
        match until {
            Some(until) => {
                if timeout_at(until, idle).await.is_err() {
                    return Err(error::not_ended().into());
                }
            }
            None => idle.await,
        }
        if self.has_unsaved_refresh_token() {
            return Err(Error::new(
                ErrorKind::Store,
                "the newest refresh token of the Salesforce session was not saved: save it with SessionHandle::save, or write \
                 down SessionHandle::refresh_token and call SessionHandle::mark_saved",
            ));
        }
        Ok(())
    }

    // === For the layer ===

    /// Starts a proactive refresh, unless one runs or has to wait. The present session stays in use.
    pub(crate) fn refresh_due(&self, published: &Published) {
        let Some(due) = published.extras.as_deref().and_then(Extras::due) else {
            return;
        };
        let caller = self.caller();
        if !caller.has_runtime {
            return;
        }
        let again = self
            .shared
            .apply(|core, turn| core.refresh_due(published.generation, caller, turn));
        match again {
            Due::Unchanged => {}
            Due::At(until) => due.postpone(Some(until)),
            Due::Never => due.postpone(None),
        }
    }

    /// The present session, borrowed while a request is prepared. Not to be held across an `await`.
    pub(crate) fn load(&self) -> arc_swap::Guard<Option<Arc<Published>>> {
        self.shared.current.load()
    }

    /// Whether the session can be refreshed.
    pub(crate) fn is_refreshable(&self) -> bool {
        self.shared.refresh_fn.is_some()
    }

    /// Whether the user allows the token to be sent to where `uri` goes.
    pub(crate) fn allows(&self, uri: &Uri) -> bool {
        self.shared
            .settings
            .allowed_origins
            .iter()
            .any(|origin| origin.is_of(uri))
    }

    /// The session that was published last, rejected or not.
    pub(crate) fn latest(&self) -> Option<LiveSession> {
        self.shared.latest()
    }

    /// The session to send with, or the refresh to wait for.
    pub(crate) fn acquire(&self) -> Result<Acquired, Error> {
        if let Some(live) = self.try_session() {
            return Ok(Acquired::Ready(live));
        }
        self.ask(SessionCore::acquire)
    }

    fn ask_for_refresh(&self) -> Result<Acquired, Error> {
        self.ask(SessionCore::refresh)
    }

    /// Reports that a request was rejected that was sent with this generation. `is_first` unless it was a replay.
    ///
    /// A newer session is returned at once; [`LiveSession::cures`] says whether it is worth a replay. The rejected session
    /// itself is returned if the breaker is open (R12).
    pub(crate) fn reject(&self, generation: Generation, is_first: bool) -> Result<Acquired, Error> {
        let rejection = self.rejection(generation, is_first);
        self.ask(|core, caller, turn| core.reject(rejection, caller, turn))
    }

    /// Reports that a replay was rejected that is not followed by another one.
    pub(crate) fn reject_last(&self, generation: Generation) {
        let was_accepted = self.rejection(generation, false).was_accepted;
        self.shared
            .apply(|core, turn| core.reject_last(generation, was_accepted, turn));
    }

    fn rejection(&self, generation: Generation, is_first: bool) -> Rejection {
        let current = self.shared.current.load();
        let rejected = current
            .as_ref()
            .filter(|current| current.generation == generation);
        Rejection {
            generation,
            is_first,
            was_accepted: rejected.is_some_and(|rejected| rejected.was_accepted()),
            has_served: rejected.is_some_and(|rejected| rejected.has_served()),
        }
    }

    /// Reports that a replay was accepted with this generation.
    pub(crate) fn confirm(&self, generation: Generation) {
        self.shared.confirm(generation);
    }

    fn caller(&self) -> Caller {
        Caller {
            has_runtime: runtime::Handle::try_current().is_ok(),
            is_inside: self.shared.owner.is_inside(),
        }
    }

    fn ask(
        &self,
        transition: impl FnOnce(&mut SessionCore, Caller, &mut SessionTurn) -> Reply<RefreshError>,
    ) -> Result<Acquired, Error> {
        let caller = self.caller();
        let answer = self.shared.ask(|core, turn| transition(core, caller, turn));
        match answer {
            Answer::Serve(live) => Ok(Acquired::Ready(live)),
            Answer::Wait(waiter, refresh) => {
                Ok(Acquired::Wait(Waiting::new(self.clone(), waiter, refresh)))
            }
            Answer::Refuse(reply) => Err(refused(reply)),
        }
    }
}

fn refused(reply: Reply<RefreshError>) -> Error {
    match reply {
        Reply::Fail(failure) => failure.into(),
        Reply::LoggedOut => error::logged_out(),
        Reply::Reentrant => Error::new(
            ErrorKind::Reentrant,
            "the refresh sent a request through the layer that it refreshes, and would wait for itself: give it a \
             client of its own, or mark the request with SkipAuth",
        ),
        Reply::NoRuntime => match runtime() {
            Err(error) => error,
            Ok(_) => error::not_ended().into(),
        },
        Reply::NoSession | Reply::Serve | Reply::Wait(_) => Error::new(
            ErrorKind::NoSession,
            "there is no Salesforce session and no way to log in: set a session, or give the layer a RefreshFn",
        ),
    }
}

impl SessionHandleBuilder {
    /// Builds the handle.
    #[must_use = "the session is dropped with its last handle"]
    pub fn build(self) -> SessionHandle {
        let handle = SessionHandle {
            shared: Arc::new(Shared::new(self.refresh_fn, self.settings, driver::spawn)),
        };
        if let Some(session) = self.initial_session {
            handle.shared.apply(|core, turn| core.set(session, turn));
        }
        follow::start(&handle.shared);
        handle
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle")
            .field("state", &self.shared.state())
            .field("is_refreshable", &self.is_refreshable())
            .finish_non_exhaustive()
    }
}

/// The runtime that a refresh can run on.
pub(crate) fn runtime() -> Result<runtime::Handle, Error> {
    runtime::Handle::try_current().map_err(|error| {
        Error::new(
            ErrorKind::NoRuntime,
            "a refresh has to start, and there is no tokio runtime here to run it",
        )
        .with_source(error)
        .with_remedy(Some(
            "send the request from within a runtime, for example from `#[tokio::main]`",
        ))
    })
}

/// A session at once, or after a wait.
pub(crate) enum Acquired {
    Ready(LiveSession),
    Wait(Waiting),
}

pin_project! {
    /// Waits for a refresh. Can be dropped at any time.
    pub(crate) struct Waiting {
        #[pin]
        waiter: Waiter<RefreshResult>,
        #[pin]
        overdue: Option<Sleep>,
        // Whether the refresh was overdue once: its driver may be the next to run.
        is_warned: bool,
        // Whether the refresh was overdue already when this caller joined it: then the caller joins another one.
        is_late: bool,
        // Whether the caller asked for a refresh, and not only for a session.
        is_manual: bool,
        id: RefreshId,
        handle: SessionHandle,
    }
}

impl Waiting {
    fn new(handle: SessionHandle, waiter: Waiter<RefreshResult>, refresh: Running) -> Self {
        let now = Instant::now();
        let overdue = |from: Instant| from.checked_add(OVERDUE_AFTER);
        let until = refresh.callers_until;
        Self {
            waiter,
            overdue: until
                .map(|until| until.max(now))
                .and_then(overdue)
                .map(sleep_until),
            is_warned: false,
            is_late: until.and_then(overdue).is_some_and(|overdue| overdue < now),
            is_manual: false,
            id: refresh.id,
            handle,
        }
    }

    /// Joins another refresh, or gets the session of it, in place of one whose driver did not run.
    fn join_again(&self) -> Result<Acquired, Error> {
        if self.is_manual {
            self.handle.ask_for_refresh()
        } else {
            self.handle.acquire()
        }
    }
}

impl Future for Waiting {
    type Output = Result<LiveSession, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            if let Poll::Ready(result) = this.waiter.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(Error::from));
            }
            let Some(mut overdue) = this.overdue.as_mut().as_pin_mut() else {
                return Poll::Pending;
            };
            ready!(overdue.as_mut().poll(cx));
            overdue.as_mut().reset(Instant::now() + OVERDUE_AFTER);
            if !std::mem::replace(this.is_warned, true) {
                continue;
            }
            this.handle.shared.overdue(*this.id);
            if *this.is_late {
                match self.join_again()? {
                    Acquired::Ready(live) => return Poll::Ready(Ok(live)),
                    Acquired::Wait(again) => self.set(again),
                }
            }
        }
    }
}
