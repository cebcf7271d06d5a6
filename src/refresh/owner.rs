//! Recognises calls that come back to the session from inside its own refresh (R13).

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
};

/// Identifies a session for the task-local mark of its refreshes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u64);

tokio::task_local! {
    /// The owners of the refreshes that the running task is part of, the innermost last.
    static INSIDE: Vec<Owner>;
}

impl Owner {
    /// Makes an owner that differs from all others of this process.
    pub(crate) fn new() -> Self {
        static OWNERS: AtomicU64 = AtomicU64::new(0);
        Self(OWNERS.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether the running task is part of a refresh of this owner, and would wait for itself.
    ///
    /// A refresh that another refresh started counts as part of that one. A task that a `RefreshFn` spawns is not recognised;
    /// the refresh timeout ends such a circle.
    pub(crate) fn is_inside(self) -> bool {
        INSIDE
            .try_with(|owners| owners.contains(&self))
            .unwrap_or(false)
    }

    /// Marks `task` as part of a refresh of this owner, and of all that the running task is part of.
    pub(crate) fn mark<F: Future>(self, task: F) -> impl Future<Output = F::Output> + use<F> {
        let mut owners = INSIDE.try_with(Vec::clone).unwrap_or_default();
        owners.push(self);
        INSIDE.scope(owners, task)
    }
}
