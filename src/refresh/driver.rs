//! Drives one refresh: awaits one step of the core at a time, and hands back how it ended.
//!
//! ```text
//! load ─▶ newer than what was seen? ─ yes ─▶ adopt
//!             │ no                ▲
//!             ▼                   │ saved while the lock was waited for
//! lock ───────┬───────────────────┘
//!             ▼
//!           load ─▶ newer? ─ yes ─▶ adopt
//!             │ no
//!             ▼
//!         RefreshFn ─▶ save ─▶ unlock ─▶ publish
//!             │ invalid_grant
//!             ▼
//!         load once more ─▶ another refresh token? ─ yes ─▶ adopt
//! ```
//!
//! The driver decides nothing. It runs as a task of its own, so that callers who give up change nothing. When the time of
//! the callers is over it says so, and goes on with a step that cannot be undone.

use std::{
    convert::Infallible,
    future::{Future, pending, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime,
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    error::{RefreshError, RefreshErrorKind},
    refresh::{
        another_record::unless_another_record,
        attempt::Attempt,
        core::{
            rules::{Cause, Failure},
            run::{Input, RefreshId, Step},
        },
        driver_handle::{DriverStart, HeldLock, held},
        follow,
        hook::RefreshContext,
        panic::{Panicked, catch_panic},
        save_again,
        settings::Settings,
        shared::Shared,
        store_calls::release,
    },
    report::{
        event::StoreOperation,
        trace::{self, RefreshSpan},
    },
    session::session::Session,
    store::{Lease, Record, StoreError, StoreKey, StoreLock, Version},
};

/// How long after a failure the lease is renewed again. Each further pause is twice as long.
const RENEW_PAUSE: Duration = Duration::from_millis(200);

/// How soon a lease is renewed again at the earliest, even one that is over at once.
const SOONEST_RENEW: Duration = Duration::from_millis(10);

type DriverInput = Input<Arc<Settings>>;
type DriverStep = Step<Arc<Settings>>;

struct Driver {
    shared: Arc<Shared>,
    id: RefreshId,
    nudge: Arc<Notify>,
    lock: HeldLock,
}

/// Starts the driver of a refresh as a task. `None` without a runtime: the refresh ends at once, with its driver.
pub(crate) fn spawn(shared: &Arc<Shared>, start: DriverStart) -> Option<AbortHandle> {
    let DriverStart {
        id,
        reason,
        nudge,
        lock,
    } = start;
    let driver = Driver {
        shared: Arc::clone(shared),
        id,
        nudge,
        lock,
    };
    let runtime = runtime::Handle::try_current().ok()?;
    follow::start(shared);
    let task = trace::in_refresh_span(reason, shared.owner.mark(driver.run()));
    Some(runtime.spawn(task).abort_handle())
}

impl Driver {
    async fn run(self) {
        let mut input = Input::Begin;
        loop {
            let id = self.id;
            let (step, callers_until) = self
                .shared
                .apply(|core, turn| (core.step(id, input, turn), core.callers_until(id)));
            if matches!(step, Step::Stop) {
                return;
            }
            input = self.until_late(step, callers_until).await;
        }
    }

    /// Carries out a step. If the callers' time is over meanwhile, says so and goes on.
    async fn until_late(&self, step: DriverStep, callers_until: Option<Instant>) -> DriverInput {
        let mut done = pin!(self.carry_out(step));
        if let Some(until) = callers_until {
            if let Ok(input) = timeout_at(until, &mut done).await {
                return input;
            }
            self.shared.apply(|core, turn| core.late(self.id, turn));
        }
        done.await
    }

    async fn carry_out(&self, step: DriverStep) -> DriverInput {
        let store = self.shared.settings.store.as_ref();
        match (step, store) {
            (Step::AwaitPredecessor(id, until), _) => {
                self.await_predecessor(id, until).await;
                Input::PredecessorEnded
            }
            (Step::Sleep(until), _) => {
                // A nudge ends the sleep early.
                drop(timeout_at(until, self.nudge.notified()).await);
                Input::Woken
            }
            (
                Step::Call {
                    reason,
                    attempt,
                    refresh_token,
                    has_spent_refresh_token,
                },
                _,
            ) => {
                let context = RefreshContext::new(reason)
                    .with_previous(self.shared.latest())
                    .with_newest_refresh_token(refresh_token)
                    .with_spent_refresh_token(has_spent_refresh_token)
                    .with_attempt(attempt);
                self.call_under_lease(store, context).await
            }
            (Step::Load { is_locked, until }, Some(store)) => {
                Input::Loaded(self.load(store, is_locked, until).await)
            }
            (Step::Lock(until), Some(store)) => Input::Locked(self.lock(store, until).await),
            (Step::LockOrLoad { seen, until }, Some(store)) => {
                self.lock_or_load(store, seen, until).await
            }
            (Step::Delete, Some(store)) => Input::Deleted(self.delete(store).await),
            (Step::Save { record, replaces }, Some(store)) => {
                Input::Saved(self.save(store, &record, replaces).await)
            }
            (Step::Unlock, _) => Input::Unlocked(self.unlock().await),
            // Without a store the core asks for none of these.
            _ => Input::Woken,
        }
    }

    async fn await_predecessor(&self, id: RefreshId, until: Option<Instant>) {
        let ended = async {
            loop {
                let mut ended = pin!(self.shared.ended.notified());
                ended.as_mut().enable();
                if !self.shared.read(|core| core.is_draining(id)) {
                    return;
                }
                ended.await;
            }
        };
        match until {
            Some(until) => drop(timeout_at(until, ended).await),
            None => ended.await,
        }
    }

    /// Calls the `RefreshFn`, which gets the whole refresh timeout from here on.
    async fn call(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        let Some(refresh_fn) = &self.shared.refresh_fn else {
            return Err(RefreshError::new(
                RefreshErrorKind::Configuration,
                true,
                "there is no RefreshFn",
            ));
        };
        let now = Instant::now();
        let calling = async {
            let description = refresh_fn.describe(&context);
            let span = RefreshSpan::current();
            let attempt = Attempt::new(self.id, &context, description, span, now);
            self.shared.begin_attempt(attempt);
            let refreshed = refresh_fn.refresh_boxed(context).await;
            refreshed.map_err(RefreshError::with_findings)
        };
        let called = catch_panic(calling);
        let called = match now.checked_add(self.shared.settings.refresh_timeout) {
            Some(until) => timeout_at(until, called)
                .await
                .unwrap_or_else(|_elapsed| Ok(Err(RefreshError::of(Cause::TimedOut)))),
            None => called.await,
        };
        called.unwrap_or_else(|Panicked| Err(panicked()))
    }

    // === The lease ===

    /// Calls the `RefreshFn`, and renews the lease of the store lock meanwhile.
    async fn call_under_lease(
        &self,
        store: Option<&StoreKey>,
        context: RefreshContext,
    ) -> DriverInput {
        let Some(store) = store else {
            return Input::Called(self.call(context).await);
        };
        // The record was compared while the lock was held. It has to be held still.
        if self.lease().is_some_and(|lease| lease.is_due()) {
            if let Err(failure) = self.renew(store).await {
                return Input::NotCalled(failure);
            }
            // Meanwhile the callers may have given up, or the session was logged out.
            let id = self.id;
            if !self.shared.apply(|core, turn| core.begin_call(id, turn)) {
                return Input::NotCalled(RefreshError::of(Cause::TimedOut));
            }
        }
        let mut calling = pin!(self.call(context));
        let mut renewing = pin!(self.keep_lease(store));
        Input::Called(
            poll_fn(|cx| {
                let called = calling.as_mut().poll(cx);
                if called.is_pending() {
                    let _: Poll<Infallible> = renewing.as_mut().poll(cx);
                }
                called
            })
            .await,
        )
    }

    /// Renews the lease whenever that is due. If it cannot be renewed, the save finds out what others did.
    async fn keep_lease(&self, store: &StoreKey) -> Infallible {
        let mut pause = RENEW_PAUSE;
        while let Some(at) = self.lease().and_then(|lease| lease.renewed_at()) {
            let soonest = Instant::now() + SOONEST_RENEW;
            sleep_until(at.max(soonest)).await;
            match self.renew(store).await {
                Ok(()) => pause = RENEW_PAUSE,
                Err(failure) if failure.is_lock_lost() => break,
                Err(_) if self.lease().is_none_or(|lease| lease.is_over()) => break,
                Err(_) => {
                    sleep(pause).await;
                    pause *= 2;
                }
            }
        }
        pending().await
    }

    /// The lease of the store lock. `None`: the lock has none, or is gone.
    fn lease(&self) -> Option<Lease> {
        let lease = || held(&self.lock).as_ref()?.lease();
        // A panic of the user's code must not end a token call.
        catch_unwind(AssertUnwindSafe(lease)).ok().flatten()
    }

    async fn renew(&self, store: &StoreKey) -> Result<(), RefreshError> {
        let until = self.lease().and_then(|lease| lease.until());
        let mut lock = self.borrow_lock()?;
        let lock = lock.get()?;
        let renewing = async { lock.renew().await };
        self.ask(store, StoreOperation::Renew, until, renewing)
            .await
    }

    // === The store ===

    /// Asks the store for something, until then, and emits an event if it fails. `answer` must call the store when it is
    /// polled, and not before, so that a panic is caught.
    async fn ask<T>(
        &self,
        store: &StoreKey,
        operation: StoreOperation,
        until: Option<Instant>,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, RefreshError> {
        match catch_panic(self.shared.ask_store(store, operation, until, answer)).await {
            Ok(answer) => answer.map_err(RefreshError::from),
            Err(Panicked) => Err(panicked()),
        }
    }

    async fn load(
        &self,
        store: &StoreKey,
        is_locked: bool,
        until: Option<Instant>,
    ) -> Result<Option<Record>, RefreshError> {
        if is_locked {
            let mut lock = self.borrow_lock()?;
            let lock = lock.get()?;
            let loading = async { lock.load().await };
            self.ask(store, StoreOperation::Load, until, loading).await
        } else {
            let loading = async { store.store.load(&store.key).await };
            self.ask(store, StoreOperation::Load, until, loading).await
        }
    }

    async fn lock(&self, store: &StoreKey, until: Option<Instant>) -> Result<(), RefreshError> {
        let locking = async { store.store.lock(&store.key).await };
        let lock = self
            .ask(store, StoreOperation::Lock, until, locking)
            .await?;
        *held(&self.lock) = Some(lock);
        Ok(())
    }

    /// Takes the store lock, or loads a record of another version than `seen`: what comes first.
    async fn lock_or_load(
        &self,
        store: &StoreKey,
        seen: Option<Version>,
        until: Option<Instant>,
    ) -> DriverInput {
        let locking = self.lock(store, until);
        let has_notices = self.shared.settings.follows_store;
        match unless_another_record(locking, store, seen, has_notices).await {
            Ok(locked) => Input::Locked(locked),
            Err(stored) => Input::Loaded(Ok(stored)),
        }
    }

    async fn delete(&self, store: &StoreKey) -> Result<(), RefreshError> {
        let mut lock = self.borrow_lock()?;
        let until = Instant::now().checked_add(self.shared.settings.refresh_timeout);
        let lock = lock.get()?;
        let deleting = async { lock.delete().await };
        self.ask(store, StoreOperation::Delete, until, deleting)
            .await
    }

    async fn save(
        &self,
        store: &StoreKey,
        record: &Record,
        replaces: Option<Version>,
    ) -> Result<(), RefreshError> {
        let mut lock = self.borrow_lock()?;
        let saving = self
            .shared
            .save_record(store, lock.get()?, record, replaces);
        saving.await.map_err(RefreshError::from)
    }

    /// Borrows the store lock for an operation. It is gone if the refresh was overdue, and another one may run.
    fn borrow_lock(&self) -> Result<BorrowedLock<'_>, RefreshError> {
        let mut borrowed = BorrowedLock {
            lock: held(&self.lock).take(),
            home: &self.lock,
        };
        borrowed.get()?;
        Ok(borrowed)
    }

    async fn unlock(&self) -> Result<(), RefreshError> {
        let lock = held(&self.lock).take();
        let Some(lock) = lock else {
            return Ok(());
        };
        let until = Instant::now().checked_add(self.shared.settings.refresh_timeout);
        match catch_panic(async { release(lock, until).await }).await {
            Ok(()) => Ok(()),
            Err(Panicked) => Err(panicked()),
        }
    }
}

/// The store lock during an operation. Afterwards it is held for the driver again.
struct BorrowedLock<'a> {
    lock: Option<Box<dyn StoreLock>>,
    home: &'a HeldLock,
}

impl BorrowedLock<'_> {
    fn get(&mut self) -> Result<&mut (dyn StoreLock + 'static), RefreshError> {
        match &mut self.lock {
            Some(lock) => Ok(&mut **lock),
            None => Err(RefreshError::of(Cause::Superseded)),
        }
    }
}

impl Drop for BorrowedLock<'_> {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            *held(self.home) = Some(lock);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let lock = held(&self.lock).take();
        drop(lock);
        self.shared.driver_ended(self.id);
        save_again::start(&self.shared);
    }
}

fn panicked() -> RefreshError {
    RefreshError::new(
        RefreshErrorKind::Panicked,
        false,
        "the refresh panicked; the panic message went to the panic hook",
    )
}
