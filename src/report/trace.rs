//! Spans and events for `tracing`: the one place that knows of it. Without the feature there is nothing to them.
//!
//! What is recorded is bounded and not secret: words of this crate, the grant, the host, the server's error code, and
//! messages of [`RefreshError`](crate::RefreshError)s, not those of their sources.

pub(crate) use implementation::{RefreshSpan, event, in_current_span, in_refresh_span};

#[cfg(feature = "tracing")]
mod implementation {
    use std::future::Future;

    use tracing::{Instrument, Span, debug, error, field::Empty, info, info_span, warn};

    use crate::report::{observer::News, reason::RefreshReason};

    const TARGET: &str = "tower_salesforce_auth";

    const REFRESH: &str = "salesforce.refresh";

    /// Runs the task of a refresh in a span of its own, in the one that is current: of the request that caused it. Not to
    /// be called under a lock, which whoever collects the spans may take.
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

    /// Runs what a refresh leaves behind in its span.
    pub(crate) fn in_current_span<F: Future>(task: F) -> impl Future<Output = F::Output> {
        task.in_current_span()
    }

    /// The span of a refresh.
    #[derive(Clone)]
    pub(crate) struct RefreshSpan(Span);

    impl RefreshSpan {
        /// That of the running task.
        pub(crate) fn current() -> Self {
            let span = Span::current();
            // If ours is filtered out, another may be there, of whoever drives the runtime.
            let is_ours = span
                .metadata()
                .is_some_and(|metadata| metadata.name() == REFRESH && metadata.target() == TARGET);
            Self(if is_ours { span } else { Span::none() })
        }

        pub(crate) fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
            self.0.in_scope(work)
        }

        pub(crate) fn record(&self, news: &[News]) {
            for news in news {
                match news {
                    News::RefreshStarted(started) => {
                        self.0.record("attempt", started.attempt);
                        if let Some(description) = &started.description {
                            self.0.record("grant", description.grant());
                            self.0.record("host", description.host());
                        }
                    }
                    News::RefreshSucceeded(_) => {
                        self.0.record("outcome", "succeeded");
                    }
                    News::SessionAdopted(_) => {
                        self.0.record("outcome", "adopted");
                    }
                    News::RefreshFailed(failed) if !failed.will_retry => {
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

    pub(crate) fn event(news: &News) {
        match news {
            News::RefreshStarted(started) => debug!(
                target: TARGET,
                attempt = started.attempt,
                "refresh started"
            ),
            News::RefreshSucceeded(succeeded) => info!(
                target: TARGET,
                attempt = succeeded.attempt,
                duration = ?succeeded.duration,
                waiters = succeeded.waiters,
                generation = %succeeded.generation,
                "refresh succeeded"
            ),
            News::RefreshFailed(failed) => warn!(
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
            News::SessionAdopted(adopted) => info!(
                target: TARGET,
                reason = ?adopted.reason,
                waiters = adopted.waiters,
                generation = %adopted.generation,
                "session adopted"
            ),
            News::StoreFailed(failed) => error!(
                target: TARGET,
                operation = ?failed.operation,
                key = &*failed.key,
                attempts = failed.attempts,
                duration = ?failed.duration,
                error = %failed.error,
                kind = ?failed.error.kind(),
                "session store failed"
            ),
            News::Replayed(replayed) => debug!(
                target: TARGET,
                attempt = replayed.attempt,
                generation = %replayed.generation,
                "request replayed"
            ),
            News::ReplaySkipped(reason, outcome) => info!(
                target: TARGET,
                ?reason,
                attempts = outcome.attempts(),
                generation = %outcome.generation(),
                "replay skipped"
            ),
            News::SessionChanged(session) => debug!(
                target: TARGET,
                generation = %session.generation(),
                host = session.instance_url().host(),
                "session changed"
            ),
            News::RefreshTokenChanged(_) => debug!(target: TARGET, "refresh token changed"),
            News::ReauthenticationRequired(failure) => error!(
                target: TARGET,
                error = %failure,
                kind = ?failure.kind(),
                error_code = failure.error_code(),
                "re-authentication required"
            ),
            News::LoggedOut => info!(target: TARGET, "logged out"),
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod implementation {
    use std::future::Future;

    use crate::report::{observer::News, reason::RefreshReason};

    pub(crate) fn in_refresh_span<F: Future>(_reason: RefreshReason, task: F) -> F {
        task
    }

    pub(crate) fn in_current_span<F: Future>(task: F) -> F {
        task
    }

    #[derive(Clone)]
    pub(crate) struct RefreshSpan;

    #[expect(clippy::unused_self, reason = "it is something with the feature")]
    impl RefreshSpan {
        pub(crate) fn current() -> Self {
            Self
        }

        pub(crate) fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
            work()
        }

        pub(crate) fn record(&self, _news: &[News]) {}
    }

    pub(crate) fn event(_news: &News) {}
}
