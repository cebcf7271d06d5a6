//! What a service shares with its clones, and with the futures of its responses.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::{
    handle::handle::SessionHandle, report::outcome::OnRefreshFailure, verdict::Classifier,
};

/// The layer's settings for replays.
#[derive(Clone, Debug)]
pub(crate) struct ReplayPolicy {
    /// How many refreshes one request may use up. With 0 the layer only adds the session.
    pub(crate) max_refreshes: u32,
    /// How many bytes of a streaming body are kept.
    pub(crate) replay_limit: usize,
    pub(crate) on_refresh_failure: OnRefreshFailure,
    pub(crate) classifier: Classifier,
}

impl Default for ReplayPolicy {
    fn default() -> Self {
        Self {
            max_refreshes: 1,
            replay_limit: 64 * 1024,
            on_refresh_failure: OnRefreshFailure::Fail,
            classifier: Classifier::default(),
        }
    }
}

/// What a service, its clones and the futures of its responses share. Each future has one reference to it.
///
/// The alignment keeps it off the cache lines of its reference count: all threads write the count, and every request reads
/// the handle and the policy. Some processors fetch two lines of 64 bytes at once.
#[repr(align(128))]
pub(crate) struct Common<S> {
    pub(crate) handle: SessionHandle,
    pub(crate) policy: ReplayPolicy,
    /// The service that [`clone_inner`](Self::clone_inner) clones. It is never polled or called. Empty until the first
    /// request that may need a clone.
    spare: OnceLock<Mutex<S>>,
}

impl<S> Common<S> {
    pub(crate) fn new(handle: SessionHandle, policy: ReplayPolicy) -> Arc<Self> {
        Arc::new(Self {
            handle,
            policy,
            spare: OnceLock::new(),
        })
    }

    /// The same session and settings, for a service that was changed.
    pub(crate) fn without_spare(&self) -> Arc<Self> {
        Self::new(self.handle.clone(), self.policy.clone())
    }
}

impl<S: Clone> Common<S> {
    /// Keeps a clone of the wrapped service, unless there is one already.
    ///
    /// Few requests are rejected. Without the spare, each request would have to clone the service for its replay.
    #[inline]
    pub(crate) fn keep_spare(&self, inner: &S) {
        if self.spare.get().is_none() {
            self.keep_first_spare(inner);
        }
    }

    #[cold]
    fn keep_first_spare(&self, inner: &S) {
        self.spare.get_or_init(|| Mutex::new(inner.clone()));
    }

    /// Makes a service to send a request with. It has not been polled to readiness yet.
    ///
    /// [`keep_spare`](Self::keep_spare) has run: a request calls it before it waits for a session or for its response.
    #[expect(
        clippy::expect_used,
        reason = "no request needs a clone that did not keep a spare"
    )]
    pub(crate) fn clone_inner(&self) -> S {
        let spare = self.spare.get().expect("a spare service");
        // A clone that panicked changed nothing: `Clone` takes the spare by reference.
        spare.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
