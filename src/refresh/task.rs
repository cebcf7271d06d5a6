//! One run of an operation, shared by everybody who waits for it.
//!
//! # Who may go away
//!
//! A flight is driven by a task of its own, and owned by nobody who waits:
//!
//! - a waiter that is dropped is forgotten; the flight and the other waiters never learn of it;
//! - with all waiters gone the flight still flies on and lands, since what it brings may exist only once;
//! - an operation that takes too long is dropped, and lands as [`Outcome::TimedOut`];
//! - an operation that panics lands as [`Outcome::Panicked`];
//! - a runtime that is shut down drops the driver, and that lands the flight as [`Outcome::Cancelled`];
//! - a runtime that is kept but driven no longer stops the flight in mid-air. Whoever waits sees it overdue, and may land
//!   it in the driver's place.
//!
//! A flight lands once, and its landing procedure runs before anybody is woken.

use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    runtime,
    sync::{Notify, futures::OwnedNotified, watch},
    task::AbortHandle,
    time::{Instant, Sleep, sleep_until, timeout, timeout_at},
};

/// How long after its deadline a flight counts as stopped. A waiter that notices gives the driver as long again: after
/// the whole process stood still, the driver may be the next to run.
const OVERDUE_AFTER: Duration = Duration::from_secs(1);

// === Owner ===

/// Whose flight it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u64);

tokio::task_local! {
    /// The owners of the flights that the running task is part of, the innermost last.
    static ABOARD: Vec<Owner>;
}

impl Owner {
    /// An owner unlike any other of this process.
    pub(crate) fn new() -> Self {
        static OWNERS: AtomicU64 = AtomicU64::new(0);
        Self(OWNERS.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether the running task is part of a flight of this owner, and so would wait for itself.
    ///
    /// A flight that another flight started counts as part of that one. Work that an operation hands to a task that
    /// runs already, and which polls the circle's futures itself, cannot be seen here; the flight's limit ends such a circle.
    pub(crate) fn is_aboard(self) -> bool {
        ABOARD
            .try_with(|owners| owners.contains(&self))
            .unwrap_or(false)
    }

    /// Marks `task` as part of a flight of this owner, and of all that the running task is part of.
    pub(crate) fn take_aboard<F: Future>(
        self,
        task: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let mut owners = ABOARD.try_with(Vec::clone).unwrap_or_default();
        owners.push(self);
        ABOARD.scope(owners, task)
    }
}

// === Flight ===

/// How an operation ended.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    Completed(T),
    TimedOut,
    Panicked,
    Cancelled,
}

/// One flight, with the value that it lands with.
#[derive(Debug)]
pub(crate) struct Flight<T> {
    value: OnceLock<T>,
    landed: Arc<Notify>,
    /// How many wait for the landing.
    waiters: AtomicUsize,
    /// Closed when the driver is gone, which may be long after the landing.
    ended: watch::Receiver<()>,
    driver: OnceLock<AbortHandle>,
    /// The flight that it waits for, or did.
    predecessor: Weak<Self>,
    /// None: so far away that it never comes.
    deadline: Option<Instant>,
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Prepares a flight of `operation`, which gets `limit` to complete, and the task that drives it, which is to
    /// [depart](Self::depart).
    ///
    /// `land` turns the way it ended into the value that the waiters get. It is called exactly once, on the driver's
    /// task or, if that is dropped, on whichever thread drops it; it must neither block nor panic.
    ///
    /// The operation is told when that is over (never, if None), so that it can end in an orderly way just in time.
    ///
    /// A `predecessor` whose operation may still be running is waited for first, for `limit` at most.
    pub(crate) fn prepare<Op, Fut, Land>(
        owner: Owner,
        limit: Duration,
        predecessor: Option<Arc<Self>>,
        operation: Op,
        land: Land,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send + 'static)
    where
        Op: FnOnce(Option<Instant>) -> Fut + Send + 'static,
        Fut: Future + Send,
        Fut::Output: Send + 'static,
        Land: FnOnce(Outcome<Fut::Output>) -> T + Send + 'static,
    {
        let (end, ended) = watch::channel(());
        let time = if predecessor.is_some() {
            limit.saturating_mul(2)
        } else {
            limit
        };
        let flight = Arc::new(Self {
            value: OnceLock::new(),
            landed: Arc::new(Notify::new()),
            waiters: AtomicUsize::new(0),
            ended,
            driver: OnceLock::new(),
            predecessor: predecessor.as_ref().map_or_else(Weak::new, Arc::downgrade),
            deadline: Instant::now().checked_add(time),
        });
        let driver = Driver {
            flight: Arc::clone(&flight),
            land: Some(land),
            output: PhantomData,
            _end: end,
        };
        let task = owner.take_aboard(async move {
            if let Some(predecessor) = predecessor
                && timeout(limit, predecessor.ended()).await.is_err()
            {
                predecessor.abort();
            }
            // The operation is made here, not by the caller, so that a panic in the making is contained too.
            let deadline = Instant::now().checked_add(limit);
            let completed = match deadline {
                Some(deadline) => timeout_at(deadline, operation(Some(deadline))).await.ok(),
                None => Some(operation(None).await),
            };
            driver.land(completed.map_or(Outcome::TimedOut, Outcome::Completed));
        });
        (flight, task)
    }

    /// Starts the task that drives this flight.
    ///
    /// On a runtime that is being shut down the task is dropped, and the flight has landed, before this returns: call
    /// it without any lock that the landing procedure takes.
    pub(crate) fn depart(
        &self,
        runtime: &runtime::Handle,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        // It departs once.
        let _ = self.driver.set(runtime.spawn(task).abort_handle());
    }

    /// Lands the flight with `value` unless it has landed, and wakes everybody who waits.
    ///
    /// The operation goes on; what it brings reaches the landing procedure, but no waiter.
    pub(crate) fn land(&self, value: T) {
        // The second of two landings changes nothing.
        let _ = self.value.set(value);
        self.landed.notify_waiters();
    }

    /// The flight that it waits for, or did, if that has not ended.
    pub(crate) fn predecessor(&self) -> Option<Arc<Self>> {
        self.predecessor.upgrade()
    }

    /// How many wait for the landing now.
    pub(crate) fn waiters(&self) -> usize {
        self.waiters.load(Ordering::Relaxed)
    }

    /// Whether the flight should have landed a while ago, and may have nobody to drive it.
    pub(crate) fn is_overdue(&self) -> bool {
        self.deadline
            .and_then(|deadline| deadline.checked_add(OVERDUE_AFTER))
            .is_some_and(|overdue| overdue < Instant::now())
    }

    /// Drops the operation where it is, and with it whatever it was about to bring. On a runtime that is not driven this
    /// happens when that is driven again, before anything else.
    pub(crate) fn abort(&self) {
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
    }

    /// Waits until the operation has ended, however, and says whether it did before it was overdue.
    pub(crate) async fn ended_in_time(&self) -> bool {
        let overdue = self
            .deadline
            .and_then(|deadline| deadline.checked_add(OVERDUE_AFTER));
        match overdue {
            Some(overdue) => timeout_at(overdue, self.ended()).await.is_ok(),
            None => {
                self.ended().await;
                true
            }
        }
    }

    /// Waits until the operation has ended, however.
    async fn ended(&self) {
        let mut ended = self.ended.clone();
        // Nothing is ever sent: the sender goes with the driver.
        while ended.changed().await.is_ok() {}
    }

    /// Waits for the landing.
    ///
    /// # Panics
    ///
    /// Outside of a runtime with a time driver.
    pub(crate) fn landing(self: &Arc<Self>) -> Landing<T> {
        let overdue = self.deadline.and_then(|deadline| {
            // For one who comes late, it is not overdue before the driver could have run once more.
            let deadline = deadline.max(Instant::now());
            deadline.checked_add(OVERDUE_AFTER)
        });
        let overdue = overdue.map(sleep_until);
        self.waiters.fetch_add(1, Ordering::Relaxed);
        Landing {
            flight: Arc::clone(self),
            // It hears of every landing from here on, polled or not.
            landed: Arc::clone(&self.landed).notified_owned(),
            overdue,
            is_warned: false,
        }
    }
}

// === Driver ===

/// Lands its flight when it is dropped, if nothing else has.
struct Driver<T, Out, Land>
where
    T: Clone + Send + Sync + 'static,
    Land: FnOnce(Outcome<Out>) -> T,
{
    flight: Arc<Flight<T>>,
    land: Option<Land>,
    /// A function type, so that the driver can be sent wherever `Land` can.
    output: PhantomData<fn(Out)>,
    /// The last to be dropped.
    _end: watch::Sender<()>,
}

impl<T, Out, Land> Driver<T, Out, Land>
where
    T: Clone + Send + Sync + 'static,
    Land: FnOnce(Outcome<Out>) -> T,
{
    fn land(mut self, outcome: Outcome<Out>) {
        self.land_once(outcome);
    }

    fn land_once(&mut self, outcome: Outcome<Out>) {
        if let Some(land) = self.land.take() {
            self.flight.land(land(outcome));
        }
    }
}

impl<T, Out, Land> Drop for Driver<T, Out, Land>
where
    T: Clone + Send + Sync + 'static,
    Land: FnOnce(Outcome<Out>) -> T,
{
    fn drop(&mut self) {
        self.land_once(if std::thread::panicking() {
            Outcome::Panicked
        } else {
            Outcome::Cancelled
        });
    }
}

// === Landing ===

pin_project! {
    /// Waits for a flight to land. Can be dropped at any time.
    ///
    /// Completes with None, and may be polled again, when the flight is overdue.
    pub(crate) struct Landing<T> {
        flight: Arc<Flight<T>>,
        #[pin]
        landed: OwnedNotified,
        #[pin]
        overdue: Option<Sleep>,
        is_warned: bool,
    }

    impl<T> PinnedDrop for Landing<T> {
        fn drop(this: Pin<&mut Self>) {
            this.flight.waiters.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<T> Landing<T> {
    pub(crate) fn flight(&self) -> &Arc<Flight<T>> {
        &self.flight
    }
}

impl<T: Clone> Future for Landing<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut this = self.project();
        // The value is set before anybody is notified, and so it is there if the notification is.
        if this.flight.value.get().is_some() || this.landed.poll(cx).is_ready() {
            return Poll::Ready(this.flight.value.get().cloned());
        }
        while let Some(mut overdue) = this.overdue.as_mut().as_pin_mut() {
            if overdue.as_mut().poll(cx).is_pending() {
                break;
            }
            let is_stopped = std::mem::replace(this.is_warned, true);
            overdue.as_mut().reset(Instant::now() + OVERDUE_AFTER);
            if is_stopped {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    }
}
