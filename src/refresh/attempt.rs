//! One call of a [`RefreshFn`](crate::RefreshFn), for those who want to hear of it.

use tokio::time::Instant;

use crate::{
    error::RefreshError,
    refresh::hook::RefreshContext,
    report::{
        event::{RefreshFailed, RefreshStarted, RefreshSucceeded},
        observer::Event,
        reason::RefreshDescription,
        trace::RefreshSpan,
    },
    session::live::Generation,
};

/// An attempt to obtain a session that has not ended. Whoever [takes](Self::take) it tells how it did, so that it is told
/// once.
pub(crate) struct Attempt {
    /// Of the flight that it is part of.
    epoch: u64,
    began: Instant,
    event: RefreshStarted,
    pub(crate) span: RefreshSpan,
}

impl Attempt {
    pub(crate) fn new(
        epoch: u64,
        context: &RefreshContext,
        description: Option<RefreshDescription>,
        span: RefreshSpan,
    ) -> Self {
        Self {
            epoch,
            began: Instant::now(),
            event: RefreshStarted {
                reason: context.reason(),
                attempt: context.attempt(),
                description,
            },
            span,
        }
    }

    /// Takes the attempt of the flight of this epoch out of those that are under way.
    pub(crate) fn take(under_way: &mut Vec<Self>, epoch: u64) -> Option<Self> {
        let place = under_way
            .iter()
            .position(|attempt| attempt.epoch == epoch)?;
        let attempt = under_way.swap_remove(place);
        if under_way.is_empty() {
            // Room for more would outlast it, in each of many sessions.
            *under_way = Vec::new();
        }
        Some(attempt)
    }

    pub(crate) fn started(&self) -> Event {
        Event::RefreshStarted(self.event.clone())
    }

    pub(crate) fn succeeded(&self, waiters: usize, generation: Generation) -> Event {
        Event::RefreshSucceeded(RefreshSucceeded {
            attempt: self.event.attempt,
            description: self.event.description.clone(),
            duration: self.began.elapsed(),
            waiters,
            generation,
        })
    }

    pub(crate) fn failed(&self, error: &RefreshError, will_retry: bool) -> Event {
        Event::RefreshFailed(RefreshFailed {
            attempt: self.event.attempt,
            description: self.event.description.clone(),
            duration: self.began.elapsed(),
            error: error.clone(),
            will_retry,
        })
    }
}
