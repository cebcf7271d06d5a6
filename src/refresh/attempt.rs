//! One call of a [`RefreshFn`](crate::RefreshFn), for the events about it.

use tokio::time::Instant;

use crate::{
    error::RefreshError,
    refresh::{core::run::RefreshId, hook::RefreshContext},
    report::{
        event::{RefreshFailed, RefreshStarted, RefreshSucceeded},
        observer::Event,
        reason::RefreshDescription,
        trace::RefreshSpan,
    },
    session::live::Generation,
};

/// A call that was started and whose end no event has reported.
pub(crate) struct Attempt {
    pub(crate) refresh: RefreshId,
    began: Instant,
    event: RefreshStarted,
    pub(crate) span: RefreshSpan,
}

impl Attempt {
    pub(crate) fn new(
        refresh: RefreshId,
        context: &RefreshContext,
        description: Option<RefreshDescription>,
        span: RefreshSpan,
        began: Instant,
    ) -> Self {
        Self {
            refresh,
            began,
            event: RefreshStarted {
                reason: context.reason(),
                attempt: context.attempt(),
                description,
            },
            span,
        }
    }

    pub(crate) fn started(&self) -> Event {
        Event::RefreshStarted(self.event.clone())
    }

    pub(crate) fn succeeded(&self, waiters: usize, generation: Generation, now: Instant) -> Event {
        Event::RefreshSucceeded(RefreshSucceeded {
            attempt: self.event.attempt,
            description: self.event.description.clone(),
            duration: now.saturating_duration_since(self.began),
            waiters,
            generation,
        })
    }

    pub(crate) fn failed(&self, error: RefreshError, will_retry: bool, now: Instant) -> Event {
        Event::RefreshFailed(RefreshFailed {
            attempt: self.event.attempt,
            description: self.event.description.clone(),
            duration: now.saturating_duration_since(self.began),
            error,
            will_retry,
        })
    }
}
