//! The task that follows a store, as its session sees it.

use std::sync::{Mutex, PoisonError};

use tokio::task::AbortHandle;

/// The task that follows the store of a session. Dropping it stops the task. `None`: none was started.
#[derive(Default)]
pub(crate) struct Follower(Mutex<Option<AbortHandle>>);

impl Follower {
    /// Starts the task, unless one runs. The runtime of the last one may have been shut down.
    pub(super) fn start(&self, spawn: impl FnOnce() -> AbortHandle) {
        let mut task = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            *task = Some(spawn());
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let task = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        task.iter().for_each(AbortHandle::abort);
    }
}
