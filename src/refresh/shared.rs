//! The shell of the core: one lock, and the effects of each transition.
//!
//! Requests read the session from an [`ArcSwapOption`] without the lock. Every change that has an effect goes through
//! [`Shared::apply`]: lock, one transition of the core, publish or withdraw, unlock. Everything that runs foreign code follows after that, as
//! [`Afterwards`]: events, wakers, and the drop of the user's values.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwapOption;
use tokio::{sync::Notify, task::AbortHandle, time::Instant};

use crate::{
    error::RefreshError,
    refresh::{
        attempt::Attempt,
        background::Background,
        binding::Binding,
        core::{
            callers::Reply,
            effect::{Effect, Turn},
            rules::{Cause, Failure},
            run::RefreshId,
            state::{Core, Shown},
        },
        driver_handle::{DriverHandle, DriverStart, HeldLock},
        hook::SharedRefreshFn,
        owner::Owner,
        settings::Settings,
        task::{Task, Waiter},
    },
    report::{
        event::SessionAdopted,
        observer::Event,
        reason::RefreshReason,
        subscription::{SessionState, States, Subscription},
        trace::{self, RefreshSpan},
    },
    session::{
        jitter::jitter,
        live::{Generation, Live, LiveSession, Published},
        session::Session,
    },
};

/// How a refresh ends for its waiters.
pub(crate) type RefreshResult = Result<LiveSession, RefreshError>;

/// The core of a session, with the types of this crate.
pub(crate) type SessionCore = Core<Arc<Settings>>;

pub(crate) type SessionTurn = Turn<Arc<Settings>>;

/// What all handles of a session share.
///
/// In this order, so that what every request reads has cache lines of its own: see [`FAR`].
#[repr(C)]
pub(crate) struct Shared {
    locked: Mutex<Locked>,
    states: States,
    /// Notified whenever the driver of a refresh, or a save by the user, has ended.
    pub(crate) ended: Notify,
    pub(crate) owner: Owner,
    /// Follows the store.
    pub(crate) follower: Background,
    /// Saves a refresh token that a refresh could not save.
    pub(crate) saver: Background,
    /// Starts the task of a refresh. `None` without a runtime.
    spawn_driver: fn(&Arc<Self>, DriverStart) -> Option<AbortHandle>,
    /// The session to send with. `None` while none is usable: callers then lock the core and join a refresh.
    pub(crate) current: ArcSwapOption<Published>,
    /// `None` for a fixed session.
    pub(crate) refresh_fn: Option<SharedRefreshFn>,
    pub(crate) settings: Arc<Settings>,
    binding: Binding,
}

/// How far apart in memory two values have to be, so that threads that write one do not slow down those that read the other.
/// Some processors fetch two lines of 64 bytes at once.
const FAR: usize = 128;

// The reference count is in front of the struct, and each clone of a handle writes it. The lock is at its beginning.
const _: () = assert!(std::mem::offset_of!(Shared, current) >= FAR);

/// Everything about the session that changes.
struct Locked {
    core: SessionCore,
    /// The session that was published last. `None` before the first login and after a logout.
    latest: Option<LiveSession>,
    /// The running refresh, and what its waiters wait for.
    running: Option<(Running, Arc<Task<RefreshResult>>)>,
    drivers: Vec<DriverHandle>,
    attempts: Vec<Attempt>,
    shown: SessionState,
    /// Counts changes of `shown`, since subscribers hear of them after the lock is released.
    shown_version: u64,
    /// Saves by the user that have not ended.
    saves: usize,
}

/// A refresh that callers wait for.
#[derive(Clone, Copy)]
pub(crate) struct Running {
    pub(crate) id: RefreshId,
    /// Until when its callers wait. `None`: without end.
    pub(crate) callers_until: Option<Instant>,
}

/// What is done after the lock is released: everything that runs foreign code.
#[derive(Default)]
struct Afterwards {
    state: Option<(u64, SessionState)>,
    /// The span of the attempt that the events are about.
    span: Option<RefreshSpan>,
    events: Vec<Event>,
    start: Option<DriverStart>,
    others: Vec<Box<dyn FnOnce()>>,
}

impl Afterwards {
    fn push(&mut self, other: impl FnOnce() + 'static) {
        self.others.push(Box::new(other));
    }
}

/// What a caller gets that needs a session.
pub(crate) enum Answer {
    Serve(LiveSession),
    Wait(Waiter<RefreshResult>, Running),
    Refuse(Reply<RefreshError>),
}

impl Shared {
    pub(crate) fn new(
        refresh_fn: Option<SharedRefreshFn>,
        settings: Settings,
        spawn_driver: fn(&Arc<Self>, DriverStart) -> Option<AbortHandle>,
    ) -> Self {
        let settings = Arc::new(settings);
        Self {
            binding: Binding::of(refresh_fn.as_ref()),
            owner: Owner::new(),
            follower: Background::default(),
            saver: Background::default(),
            refresh_fn,
            current: ArcSwapOption::empty(),
            locked: Mutex::new(Locked {
                core: Core::new(Arc::clone(&settings)),
                latest: None,
                running: None,
                drivers: Vec::new(),
                attempts: Vec::new(),
                shown: SessionState::Empty,
                shown_version: 0,
                saves: 0,
            }),
            settings,
            states: States::new(),
            spawn_driver,
            ended: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        // Nothing panics while it is held.
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads something of the core.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&SessionCore) -> T) -> T {
        read(&self.lock().core)
    }

    /// The session that was published last, rejected or not.
    pub(crate) fn latest(&self) -> Option<LiveSession> {
        self.lock().latest.clone()
    }

    pub(crate) fn subscribe(&self) -> Subscription {
        let (version, state) = {
            let locked = self.lock();
            (locked.shown_version, locked.shown.clone())
        };
        let subscription = self.states.subscribe(version, &state);
        // Another thread may have changed the state, and not shown it yet.
        self.states.show(version, state);
        subscription
    }

    pub(crate) fn state(&self) -> SessionState {
        self.lock().shown.clone()
    }

    /// Records that a replay was accepted with this generation. The one transition without effects, for every replay.
    pub(crate) fn confirm(&self, generation: Generation) {
        self.lock().core.confirm(generation);
    }

    /// Makes one transition of the core.
    pub(crate) fn apply<T>(
        self: &Arc<Self>,
        transition: impl FnOnce(&mut SessionCore, &mut SessionTurn) -> T,
    ) -> T {
        self.apply_and(transition, |_, result| result)
    }

    /// Makes a transition for a caller that needs a session.
    pub(crate) fn ask(
        self: &Arc<Self>,
        transition: impl FnOnce(&mut SessionCore, &mut SessionTurn) -> Reply<RefreshError>,
    ) -> Answer {
        self.apply_and(transition, |locked, reply| {
            match (reply, &locked.latest, &locked.running) {
                (Reply::Serve, Some(latest), _) => Answer::Serve(latest.clone()),
                (Reply::Wait(id), _, Some((running, task))) if running.id == id => {
                    Answer::Wait(task.wait(), *running)
                }
                (refused, ..) => Answer::Refuse(refused),
            }
        })
    }

    fn apply_and<T, U>(
        self: &Arc<Self>,
        transition: impl FnOnce(&mut SessionCore, &mut SessionTurn) -> T,
        and: impl FnOnce(&mut Locked, T) -> U,
    ) -> U {
        let mut turn = Turn::new(Instant::now(), jitter());
        let mut afterwards = Afterwards::default();
        let result = {
            let mut locked = self.lock();
            let result = transition(&mut locked.core, &mut turn);
            for effect in turn.effects.drain(..) {
                self.perform(&mut locked, effect, turn.now, &mut afterwards);
            }
            locked.show(&mut afterwards);
            and(&mut locked, result)
        };
        self.finish(afterwards);
        result
    }

    fn perform(
        self: &Arc<Self>,
        locked: &mut Locked,
        effect: Effect<Arc<Settings>>,
        now: Instant,
        afterwards: &mut Afterwards,
    ) {
        match effect {
            Effect::Publish { live, is_watched } => {
                let published = locked.publish(live, is_watched, self);
                self.current.store(Some(published));
            }
            Effect::Amend(session) => self.amend(locked, session),
            Effect::Withdraw => {
                self.current.store(None);
                if locked.core.is_logged_out() {
                    locked.latest = None;
                }
            }
            Effect::Spawn {
                id,
                reason,
                callers_until,
            } => {
                let running = Running { id, callers_until };
                afterwards.start = Some(locked.spawn(running, reason));
            }
            Effect::Nudge(id) => {
                if let Some(driver) = locked.drivers.iter().find(|driver| driver.id == id) {
                    let nudge = Arc::clone(&driver.nudge);
                    afterwards.push(move || nudge.notify_one());
                }
            }
            Effect::Abort(id) => {
                if let Some(driver) = DriverHandle::take(&mut locked.drivers, id) {
                    afterwards.push(move || driver.stop());
                }
            }
            Effect::Finish(id, result) => {
                let task = locked.running.take_if(|(running, _)| running.id == id);
                let latest = locked.latest.clone();
                afterwards.push(move || finish(task, result, latest));
            }
            event => {
                let is_new = matches!(event, Effect::Succeeded { .. } | Effect::Adopted { .. });
                locked.complete(event, now, afterwards);
                let new = locked.latest.as_ref().filter(|_| is_new);
                afterwards.events.extend(self.binding.notice(new));
            }
        }
    }

    /// Puts a refresh token that was rotated into the latest session.
    fn amend(&self, locked: &mut Locked, session: Session) {
        let Some(latest) = &mut locked.latest else {
            return;
        };
        let session = self.binding.apply(session);
        *latest = LiveSession(Arc::new(latest.0.with_session(session)));
        if self.current.load().is_some() {
            self.current.store(Some(Arc::clone(&latest.0)));
        }
    }

    fn finish(self: &Arc<Self>, afterwards: Afterwards) {
        if let Some((version, state)) = afterwards.state {
            self.states.show(version, state);
        }
        match &afterwards.span {
            Some(span) => self.announce_in(span, &afterwards.events),
            None => self.announce(&afterwards.events),
        }
        if let Some(start) = afterwards.start {
            self.start(start);
        }
        for other in afterwards.others {
            other();
        }
    }

    fn start(self: &Arc<Self>, start: DriverStart) {
        let id = start.id;
        // A runtime that is being shut down drops the task at once, which locks the core.
        let abort = (self.spawn_driver)(self, start);
        let mut locked = self.lock();
        match locked.drivers.iter_mut().find(|driver| driver.id == id) {
            Some(driver) => driver.abort = abort,
            // The driver has ended, or was to be stopped before it was spawned.
            None => {
                drop(locked);
                abort.iter().for_each(AbortHandle::abort);
            }
        }
    }

    /// The driver of a refresh is gone.
    pub(crate) fn driver_ended(self: &Arc<Self>, id: RefreshId) {
        self.apply_and(
            |core, turn| core.ended(id, turn),
            |locked, ()| drop(DriverHandle::take(&mut locked.drivers, id)),
        );
        self.ended.notify_waiters();
    }

    /// A refresh should have ended long ago, and its driver does not run.
    pub(crate) fn overdue(self: &Arc<Self>, id: RefreshId) {
        self.apply(|core, turn| core.overdue(id, turn));
    }

    /// Starts an attempt, and emits the event for it.
    pub(crate) fn begin_attempt(&self, attempt: Attempt) {
        let (span, event) = (attempt.span.clone(), attempt.started());
        self.lock().attempts.push(attempt);
        self.announce_in(&span, &[event]);
    }

    /// Counts a save by the user, which [`quiesce`](crate::SessionHandle::quiesce) waits for.
    pub(crate) fn begin_save(self: &Arc<Self>) -> Saving {
        self.lock().saves += 1;
        Saving(Arc::clone(self))
    }

    /// Whether no refresh runs or drains, and no save by the user is under way.
    pub(crate) fn is_idle(&self) -> bool {
        let locked = self.lock();
        locked.core.is_idle() && locked.drivers.is_empty() && locked.saves == 0
    }

    /// Emits events, to the observer and to `tracing`.
    pub(crate) fn announce(&self, events: &[Event]) {
        for event in events {
            trace::event(event);
            if let Some(observer) = &self.settings.observer {
                // A panic of the observer's changes nothing. Its message went to the panic hook.
                let _ = catch_unwind(AssertUnwindSafe(|| event.emit(&**observer)));
            }
        }
    }

    /// Emits events of a refresh.
    fn announce_in(&self, span: &RefreshSpan, events: &[Event]) {
        span.record(events);
        span.in_scope(|| self.announce(events));
    }
}

/// A save by the user that has not ended.
pub(crate) struct Saving(Arc<Shared>);

impl Drop for Saving {
    fn drop(&mut self) {
        self.0.lock().saves -= 1;
        self.0.ended.notify_waiters();
    }
}

impl Locked {
    /// Makes what the driver of a refresh starts with, and what its callers wait for.
    fn spawn(&mut self, running: Running, reason: RefreshReason) -> DriverStart {
        let start = DriverStart {
            id: running.id,
            reason,
            nudge: Arc::default(),
            lock: HeldLock::default(),
        };
        self.running = Some((running, Task::new()));
        self.drivers.push(DriverHandle::of(&start));
        start
    }

    fn publish(
        &mut self,
        mut live: Live<Session>,
        is_watched: bool,
        shared: &Shared,
    ) -> Arc<Published> {
        live.session = shared.binding.apply(live.session);
        let before = self.latest.as_ref().map(|before| &*before.0);
        let settings = &shared.settings;
        let published = Published::new(&live, before, settings.instance_port);
        let published = published.with_extras(settings.proactive_refresh, jitter(), is_watched);
        let published = Arc::new(published);
        self.latest = Some(LiveSession(Arc::clone(&published)));
        published
    }

    /// Derives the state to show, and keeps it if it is another than before (R42).
    fn show(&mut self, afterwards: &mut Afterwards) {
        let state = match (self.core.state(), &self.shown) {
            (Shown::Empty, SessionState::Empty)
            | (Shown::Refreshing, SessionState::Refreshing)
            | (Shown::LoggedOut, SessionState::LoggedOut)
            | (Shown::ReauthenticationRequired(_), SessionState::ReauthenticationRequired(_)) => {
                return;
            }
            (Shown::BackingOff(failure), SessionState::BackingOff(shown))
                if failure.is_same(shown) =>
            {
                return;
            }
            (Shown::Ready, SessionState::Ready(shown))
                if self
                    .latest
                    .as_ref()
                    .is_some_and(|latest| Arc::ptr_eq(&latest.0, &shown.0)) =>
            {
                return;
            }
            (Shown::Empty, _) => SessionState::Empty,
            (Shown::Refreshing, _) => SessionState::Refreshing,
            (Shown::LoggedOut, _) => SessionState::LoggedOut,
            (Shown::BackingOff(failure), _) => SessionState::BackingOff(failure.clone()),
            (Shown::ReauthenticationRequired(failure), _) => {
                SessionState::ReauthenticationRequired(failure.clone())
            }
            (Shown::Ready, _) => match &self.latest {
                Some(latest) => SessionState::Ready(latest.clone()),
                None => SessionState::Empty,
            },
        };
        let before = std::mem::replace(&mut self.shown, state.clone());
        afterwards.push(move || drop(before));
        self.shown_version += 1;
        afterwards.state = Some((self.shown_version, state));
    }

    /// Completes an event of the core with what only the shell knows.
    fn complete(
        &mut self,
        event: Effect<Arc<Settings>>,
        now: Instant,
        afterwards: &mut Afterwards,
    ) {
        let waiters = |id| match &self.running {
            Some((running, task)) if running.id == id => task.waiters(),
            _ => 0,
        };
        let event = match event {
            Effect::SessionChanged => self.latest.clone().map(Event::SessionChanged),
            Effect::Succeeded { id, generation } => {
                let waiters = waiters(id);
                let attempt = self.take_attempt(id, afterwards);
                attempt.map(|attempt| attempt.succeeded(waiters, generation, now))
            }
            Effect::Failed {
                id,
                failure,
                will_retry,
            } => {
                let attempt = self.take_attempt(id, afterwards);
                let retired = failure.clone();
                afterwards.push(move || drop(retired));
                attempt.map(|attempt| attempt.failed(failure, will_retry, now))
            }
            Effect::Adopted {
                id,
                reason,
                generation,
            } => Some(Event::SessionAdopted(SessionAdopted {
                reason,
                waiters: waiters(id),
                generation,
            })),
            Effect::RefreshTokenChanged(grant) => Some(Event::RefreshTokenChanged(grant.token)),
            Effect::ReauthenticationRequired(failure) => {
                Some(Event::ReauthenticationRequired(failure))
            }
            Effect::LoggedOut => Some(Event::LoggedOut),
            // Carried out by `Shared::perform`.
            _ => None,
        };
        afterwards.events.extend(event);
    }

    fn take_attempt(&mut self, id: RefreshId, afterwards: &mut Afterwards) -> Option<Attempt> {
        let index = self
            .attempts
            .iter()
            .position(|attempt| attempt.refresh == id)?;
        let attempt = self.attempts.swap_remove(index);
        if self.attempts.is_empty() {
            // An idle session keeps no room for attempts.
            self.attempts = Vec::new();
        }
        afterwards.span = Some(attempt.span.clone());
        Some(attempt)
    }
}

/// Wakes the waiters of a refresh, if there are any.
fn finish(
    task: Option<(Running, Arc<Task<RefreshResult>>)>,
    result: Result<(), RefreshError>,
    latest: Option<LiveSession>,
) {
    if let Some((_, task)) = task {
        let missing = || RefreshError::of(Cause::Superseded);
        task.finish(result.and_then(|()| latest.ok_or_else(missing)));
    }
}
