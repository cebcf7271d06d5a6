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
//! - a runtime that is kept but driven no longer stops the flight in mid-air: it becomes [overdue](Flight::is_overdue),
//!   and whoever looks next may land it in the driver's place.
//!
//! A flight lands once, and its landing procedure runs before anybody is woken.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    runtime,
    sync::{Notify, futures::OwnedNotified},
    task::{JoinHandle, futures::TaskLocalFuture},
    time::{Instant, timeout},
};

tokio::task_local! {
    /// The owners of the flights that the running task is part of, the innermost last.
    static ABOARD: Vec<usize>;
}

/// How late a flight has to be before it counts as stopped: a driver that is alive is never this late.
const OVERDUE_AFTER: Duration = Duration::from_secs(1);

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
    deadline: Option<Instant>,
}

/// The task that drives a flight. It ends after the landing.
pub(crate) type DriverHandle = JoinHandle<()>;

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Starts `operation` on `runtime`, and gives it `limit` to complete.
    ///
    /// `land` turns the way it ended into the value that the waiters get. It is called exactly once, on the driver's
    /// task or, if that is dropped, on whichever thread drops it; it must neither block nor panic.
    ///
    /// `owner` marks the operation, for [`is_aboard`] to know it by: the address of whatever owns the flight.
    pub(crate) fn depart<Op, Fut, Land>(
        runtime: &runtime::Handle,
        owner: usize,
        limit: Duration,
        operation: Op,
        land: Land,
    ) -> (Arc<Self>, DriverHandle)
    where
        Op: FnOnce() -> Fut + Send + 'static,
        Fut: Future + Send,
        Fut::Output: Send + 'static,
        Land: FnOnce(Outcome<Fut::Output>) -> T + Send + 'static,
    {
        let flight = Arc::new(Self {
            value: OnceLock::new(),
            landed: Arc::new(Notify::new()),
            // None: so far away that it never comes.
            deadline: Instant::now().checked_add(limit),
        });
        let driver = Driver {
            flight: Arc::clone(&flight),
            land: Some(land),
            output: std::marker::PhantomData,
        };
        let task = aboard(owner, async move {
            // The operation is made here, not by the caller, so that a panic in the making is contained too.
            let outcome = match timeout(limit, operation()).await {
                Ok(output) => Outcome::Completed(output),
                Err(_elapsed) => Outcome::TimedOut,
            };
            driver.land(outcome);
        });
        (flight, runtime.spawn(task))
    }

    /// Lands the flight with `value` unless it has landed, and wakes everybody who waits.
    ///
    /// The operation goes on; what it brings reaches the landing procedure, but no waiter.
    pub(crate) fn land(&self, value: T) {
        // The second of two landings changes nothing.
        let _ = self.value.set(value);
        self.landed.notify_waiters();
    }

    /// Whether the flight should have landed a while ago, and so has nobody to drive it.
    pub(crate) fn is_overdue(&self) -> bool {
        self.deadline
            .and_then(|deadline| deadline.checked_add(OVERDUE_AFTER))
            .is_some_and(|overdue| overdue < Instant::now())
    }

    /// Waits for the landing.
    pub(crate) fn landing(self: &Arc<Self>) -> Landing<T> {
        Landing {
            flight: Arc::clone(self),
            // It hears of every landing from here on, polled or not.
            landed: Arc::clone(&self.landed).notified_owned(),
        }
    }
}

/// Whether the running task is part of a flight of this owner, and so would wait for itself.
///
/// A flight that another flight started counts as part of that one. Work that an operation hands to a task that runs
/// already, a `tower::buffer::Buffer` for one, cannot be seen here; the flight's limit ends such a circle.
pub(crate) fn is_aboard(owner: usize) -> bool {
    ABOARD
        .try_with(|owners| owners.contains(&owner))
        .unwrap_or(false)
}

/// Marks `task` as part of a flight of `owner`, and of all that the running task is part of.
fn aboard<F: Future>(owner: usize, task: F) -> TaskLocalFuture<Vec<usize>, F> {
    let mut owners = ABOARD.try_with(Vec::clone).unwrap_or_default();
    owners.push(owner);
    ABOARD.scope(owners, task)
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
    output: std::marker::PhantomData<fn(Out)>,
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
    pub(crate) struct Landing<T> {
        flight: Arc<Flight<T>>,
        #[pin]
        landed: OwnedNotified,
    }
}

impl<T: Clone> Future for Landing<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = self.project();
        if let Some(value) = this.flight.value.get() {
            return Poll::Ready(value.clone());
        }
        ready!(this.landed.poll(cx));
        match this.flight.value.get() {
            Some(value) => Poll::Ready(value.clone()),
            // The value is set before anybody is notified.
            None => unreachable!("a flight has a value once it has landed"),
        }
    }
}
