//! What a transition asks of the shell.

use tokio::time::Instant;

use crate::{
    refresh::core::{
        rules::{Rules, TokenOf},
        run::RefreshId,
    },
    report::reason::RefreshReason,
    session::live::{Generation, Live},
};

/// One transition: its time, its random number, and its effects.
pub(crate) struct Turn<R: Rules> {
    pub(crate) now: Instant,
    /// From 0 to 1. Spreads clients that failed together.
    pub(crate) jitter: f64,
    /// What the shell does, in this order.
    pub(crate) effects: Vec<Effect<R>>,
    /// Failures that are no longer needed. They hold values of the user's, which are dropped after the lock is released.
    pub(crate) retired: Vec<R::Failure>,
}

impl<R: Rules> Turn<R> {
    pub(crate) fn new(now: Instant, jitter: f64) -> Self {
        Self {
            now,
            jitter,
            effects: Vec::new(),
            retired: Vec::new(),
        }
    }

    pub(super) fn emit(&mut self, effect: Effect<R>) {
        self.effects.push(effect);
    }

    /// An attempt of a refresh failed.
    pub(super) fn failed(&mut self, id: RefreshId, failure: R::Failure, will_retry: bool) {
        self.emit(Effect::Failed {
            id,
            failure,
            will_retry,
        });
    }
}

/// What the shell does after a transition. `Publish`, `Amend` and `Withdraw` are part of the transition. All others are
/// carried out after the lock is released, since they run foreign code.
pub(crate) enum Effect<R: Rules> {
    /// Send requests with this session.
    Publish {
        live: Live<R::Session>,
        /// Whether acceptances of the session have to be recorded (R12).
        is_watched: bool,
    },
    /// The latest session has another refresh token.
    Amend(R::Session),
    /// Send no requests with the present session.
    Withdraw,
    /// Start the driver of a refresh.
    Spawn {
        id: RefreshId,
        reason: RefreshReason,
        /// Until when its callers wait. `None`: without end.
        callers_until: Option<Instant>,
    },
    /// Wake a driver that sleeps.
    Nudge(RefreshId),
    /// Stop a driver that does nothing irrevocable, or that does not run.
    Abort(RefreshId),
    /// Wake the callers that wait for a refresh. `Ok`: they get the session that was published last.
    Finish(RefreshId, Result<(), R::Failure>),
    // Events for the observer follow.
    SessionChanged,
    Succeeded {
        id: RefreshId,
        generation: Generation,
    },
    Adopted {
        id: RefreshId,
        reason: RefreshReason,
        generation: Generation,
    },
    Failed {
        id: RefreshId,
        failure: R::Failure,
        will_retry: bool,
    },
    RefreshTokenChanged(TokenOf<R>),
    ReauthenticationRequired(R::Failure),
    LoggedOut,
}
