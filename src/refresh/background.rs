//! A task of a session that runs beside its refreshes.

use std::sync::{Mutex, PoisonError};

use tokio::task::AbortHandle;

/// A task of which a session has one at most. Dropping it stops the task. `None`: none was started.
#[derive(Default)]
pub(crate) struct Background(Mutex<Option<AbortHandle>>);

impl Background {
    /// Starts the task, unless one runs. The runtime of the last one may have been shut down.
    pub(super) fn start(&self, spawn: impl FnOnce() -> AbortHandle) {
        let mut task = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            *task = Some(spawn());
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let task = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        task.iter().for_each(AbortHandle::abort);
    }
}
