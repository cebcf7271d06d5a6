//! Spans and events for `tracing`. Without the feature, the same functions do nothing.
//!
//! Fields are bounded and hold no secret: words of this crate, the grant, the host, the server's error code, and the line
//! that a [`RefreshError`](crate::RefreshError) says. The errors of a user's code in it are the user's to keep free of secrets.

pub(crate) use implementation::{RefreshSpan, event, in_refresh_span};

#[cfg(feature = "tracing")]
mod implementation {
    use std::future::Future;

    use tracing::{Instrument, Span, debug, error, field::Empty, info, info_span, warn};

    use crate::report::{observer::Event, reason::RefreshReason};

    const TARGET: &str = "tower_salesforce_auth";

    const REFRESH: &str = "salesforce.refresh";

    /// Runs the task of a refresh in a new span, a child of the current one: that of the request that caused the
    /// refresh.
    pub(crate) fn in_refresh_span<F: Future>(
        reason: RefreshReason,
        task: F,
    ) -> impl Future<Output = F::Output> {
        task.instrument(info_span!(
            target: TARGET,
            REFRESH,
            ?reason,
            grant = Empty,
            host = Empty,
            attempt = Empty,
            outcome = Empty,
            error_code = Empty,
        ))
    }

    /// The span of a refresh.
    #[derive(Clone)]
    pub(crate) struct RefreshSpan(Span);

    impl RefreshSpan {
        /// Returns the span of the running task.
        pub(crate) fn current() -> Self {
            let span = Span::current();
            // If a filter disables this crate's span, the current span belongs to the caller.
            let is_refresh_span = span
                .metadata()
                .is_some_and(|metadata| metadata.name() == REFRESH && metadata.target() == TARGET);
            Self(if is_refresh_span { span } else { Span::none() })
        }

        pub(crate) fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
            self.0.in_scope(work)
        }

        pub(crate) fn record(&self, events: &[Event]) {
            for event in events {
                match event {
                    Event::RefreshStarted(started) => {
                        self.0.record("attempt", started.attempt);
                        if let Some(description) = &started.description {
                            self.0.record("grant", description.grant());
                            self.0.record("host", description.host());
                        }
                    }
                    Event::RefreshSucceeded(_) => {
                        self.0.record("outcome", "succeeded");
                    }
                    Event::SessionAdopted(_) => {
                        self.0.record("outcome", "adopted");
                    }
                    Event::RefreshFailed(failed) if !failed.will_retry => {
                        self.0.record("outcome", "failed");
                        if let Some(code) = failed.error.error_code() {
                            self.0.record("error_code", code);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    pub(crate) fn event(event: &Event) {
        match event {
            Event::RefreshStarted(started) => debug!(
                target: TARGET,
                attempt = started.attempt,
                "refresh started"
            ),
            Event::RefreshSucceeded(succeeded) => info!(
                target: TARGET,
                attempt = succeeded.attempt,
                duration = ?succeeded.duration,
                waiters = succeeded.waiters,
                generation = %succeeded.generation,
                "refresh succeeded"
            ),
            Event::RefreshFailed(failed) => warn!(
                target: TARGET,
                attempt = failed.attempt,
                duration = ?failed.duration,
                error = %failed.error,
                kind = ?failed.error.kind(),
                error_code = failed.error.error_code(),
                terminal = failed.error.is_terminal(),
                will_retry = failed.will_retry,
                "refresh failed"
            ),
            Event::SessionAdopted(adopted) => info!(
                target: TARGET,
                reason = ?adopted.reason,
                waiters = adopted.waiters,
                generation = %adopted.generation,
                "session adopted"
            ),
            Event::StoreFailed(failed) => error!(
                target: TARGET,
                operation = ?failed.operation,
                key = &*failed.key,
                attempts = failed.attempts,
                duration = ?failed.duration,
                error = %failed.error,
                kind = ?failed.error.kind(),
                "session store failed"
            ),
            Event::DpopNotice(notice) => warn!(target: TARGET, %notice, "DPoP"),
            Event::Replayed(replayed) => debug!(
                target: TARGET,
                attempt = replayed.attempt,
                generation = %replayed.generation,
                "request replayed"
            ),
            Event::ReplaySkipped(outcome) => info!(
                target: TARGET,
                reason = outcome.replay_skipped().map(tracing::field::debug),
                attempts = outcome.attempts(),
                generation = %outcome.generation(),
                "replay skipped"
            ),
            Event::SessionChanged(session) => debug!(
                target: TARGET,
                generation = %session.generation(),
                host = session.instance_url().host(),
                "session changed"
            ),
            Event::RefreshTokenChanged(_) => debug!(target: TARGET, "refresh token changed"),
            Event::ReauthenticationRequired(failure) => error!(
                target: TARGET,
                error = %failure,
                kind = ?failure.kind(),
                error_code = failure.error_code(),
                "re-authentication required"
            ),
            Event::LoggedOut => info!(target: TARGET, "logged out"),
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod implementation {
    use std::future::Future;

    use crate::report::{observer::Event, reason::RefreshReason};

    pub(crate) fn in_refresh_span<F: Future>(_reason: RefreshReason, task: F) -> F {
        task
    }

    #[derive(Clone)]
    pub(crate) struct RefreshSpan;

    #[expect(clippy::unused_self, reason = "the same signature as with the feature")]
    impl RefreshSpan {
        pub(crate) fn current() -> Self {
            Self
        }

        pub(crate) fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
            work()
        }

        pub(crate) fn record(&self, _events: &[Event]) {}
    }

    pub(crate) fn event(_event: &Event) {}
}
