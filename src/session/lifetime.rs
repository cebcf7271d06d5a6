//! When a proactive refresh of a session is due.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// Refreshes a session before it expires, while requests still use it. Off by default.
///
/// Only traffic starts a proactive refresh: the first request after the due time starts it, and is sent with the
/// present session, as are all others until the new one is published. No timer runs. A proactive refresh that fails
/// harms no request and is tried again later.
///
/// Salesforce rarely says how long a session lasts: JWT access tokens, `expires_in` and SOAP logins do. For other
/// sessions set a [`lifetime`](Self::lifetime), or no proactive refresh happens. The lifetime counts from when the
/// handle published the session.
///
/// ```
/// use std::time::Duration;
/// use tower_salesforce_auth::{
///     RefreshContext, RefreshError, SalesforceAuthLayer, Session, SessionHandle,
///     handle::ProactiveRefresh,
/// };
///
/// let login = async |_: RefreshContext| {
///     # let from_somewhere = "00Dxx!AQEAQ";
///     Session::new(from_somewhere, "https://MyDomainName.my.salesforce.com")
///         .map_err(RefreshError::terminal)
/// };
/// let two_hours = Duration::from_secs(2 * 60 * 60);
/// let handle = SessionHandle::builder(login)
///     .refresh_before_expiry(ProactiveRefresh::at(0.8).lifetime(two_hours))
///     .build();
/// let layer = SalesforceAuthLayer::from(handle);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProactiveRefresh {
    share: f64,
    lifetime: Option<Duration>,
}

impl ProactiveRefresh {
    /// Refreshes a session when this share of its lifetime has passed: 0.8 for four fifths.
    ///
    /// The due time is up to a twentieth earlier, at random, so that sessions that began together are not all refreshed
    /// together. A share below 0.1 counts as 0.1, and a share above 1 as 1. NaN counts as 1.
    pub fn at(share: f64) -> Self {
        Self {
            share: if share.is_nan() {
                1.0
            } else {
                share.clamp(0.1, 1.0)
            },
            lifetime: None,
        }
    }

    /// Sets the lifetime of sessions whose own is unknown: the session timeout of the org or of the app. Default: none.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// When a session that was published `now` is due. `known` is its own lifetime, if the login returned one. `jitter`
    /// is from 0 to 1.
    pub(crate) fn due(&self, known: Option<Duration>, now: Instant, jitter: f64) -> Option<Due> {
        let lifetime = known.or(self.lifetime)?;
        let share = self.share * (1.0 - jitter.clamp(0.0, 1.0) / 20.0);
        // A server may name any lifetime, also one that no product fits into.
        let after = Duration::try_from_secs_f64(lifetime.as_secs_f64() * share);
        Some(Due::new(now, after.unwrap_or(Duration::MAX)))
    }
}

/// When a proactive refresh is due.
#[derive(Debug)]
pub(crate) struct Due {
    since: Instant,
    /// Milliseconds after `since`. `u64::MAX` if never.
    after: AtomicU64,
}

impl Due {
    fn new(since: Instant, after: Duration) -> Self {
        Self {
            since,
            after: AtomicU64::new(millis(after)),
        }
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        millis(now.saturating_duration_since(self.since)) >= self.after.load(Ordering::Relaxed)
    }

    /// Postpones the refresh until then. `None`: it is never due again.
    pub(crate) fn postpone(&self, until: Option<Instant>) {
        let after = until.map_or(u64::MAX, |until| {
            millis(until.saturating_duration_since(self.since))
        });
        self.after.store(after, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server may send `expires_in` of 2^64 s.
    #[test]
    fn the_longest_lifetime_is_never_due() {
        let now = Instant::now();
        for lifetime in [Duration::MAX, Duration::from_secs(u64::MAX)] {
            for (share, jitter) in [(1.0, 0.0), (1.0, 1.0), (0.1, 0.5), (f64::NAN, 0.0)] {
                let due = ProactiveRefresh::at(share).due(Some(lifetime), now, jitter);
                assert!(due.is_some_and(|due| !due.is_over(now)));
            }
        }
        let due = ProactiveRefresh::at(1.0).due(Some(Duration::ZERO), now, 0.0);
        assert!(due.is_some_and(|due| due.is_over(now)));
    }
}
