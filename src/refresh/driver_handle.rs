//! The driver of a refresh as its session sees it: what it starts with, and how it is stopped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{sync::Notify, task::AbortHandle};

use crate::{refresh::core::run::RefreshId, report::reason::RefreshReason, store::StoreLock};

/// What can be done to a driver from outside.
pub(super) struct DriverHandle {
    pub(super) id: RefreshId,
    pub(super) nudge: Arc<Notify>,
    lock: HeldLock,
    /// `None` until the task was spawned.
    pub(super) abort: Option<AbortHandle>,
}

/// What the driver of a refresh starts with.
pub(crate) struct DriverStart {
    pub(crate) id: RefreshId,
    pub(crate) reason: RefreshReason,
    pub(crate) nudge: Arc<Notify>,
    pub(crate) lock: HeldLock,
}

impl DriverHandle {
    pub(super) fn of(start: &DriverStart) -> Self {
        Self {
            id: start.id,
            nudge: Arc::clone(&start.nudge),
            lock: Arc::clone(&start.lock),
            abort: None,
        }
    }

    /// Takes the driver of this refresh out of those of its session.
    pub(super) fn take(drivers: &mut Vec<Self>, id: RefreshId) -> Option<Self> {
        let index = drivers.iter().position(|driver| driver.id == id)?;
        let driver = drivers.swap_remove(index);
        if drivers.is_empty() {
            // An idle session keeps no room for drivers.
            *drivers = Vec::new();
        }
        Some(driver)
    }

    pub(super) fn stop(self) {
        if let Some(abort) = self.abort {
            abort.abort();
        }
        // Other processes wait for the store lock.
        drop(held(&self.lock).take());
    }
}

/// The store lock of a driver, while the driver makes a token call: an overdue refresh releases it, since its task is not
/// polled.
pub(crate) type HeldLock = Arc<Mutex<Option<Box<dyn StoreLock>>>>;

pub(crate) fn held(lock: &HeldLock) -> MutexGuard<'_, Option<Box<dyn StoreLock>>> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
