//! Renewing a session before it ends: when that is due.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// When a session is renewed before it ends, while it goes on serving.
///
/// Only traffic renews a session: the first request after the time has come starts the refresh, and goes out with the
/// session that there is, as does every other until the new one is there. Nothing runs by a timer. A renewal that fails
/// harms no request, and is tried again later.
///
/// How long a session lives is hardly ever told by Salesforce: by a JWT access token, by `expires_in`, and by a SOAP login.
/// For all others give a [`lifetime`](Self::lifetime), or there is no renewal. It counts from when the session came to the
/// handle.
///
/// ```
/// use std::time::Duration;
/// use tower_salesforce_auth::{RefreshContext, RefreshError, Renewal, SalesforceAuthLayer, Session};
///
/// let layer = SalesforceAuthLayer::new(async |_: RefreshContext| {
///     # let from_somewhere = "00Dxx!AQEAQ";
///     Session::new(from_somewhere, "https://MyDomainName.my.salesforce.com").map_err(RefreshError::terminal)
/// })
/// .renewal(Renewal::at(0.8).lifetime(Duration::from_secs(2 * 60 * 60)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Renewal {
    share: f64,
    lifetime: Option<Duration>,
}

impl Renewal {
    /// Renews a session when this share of its lifetime has passed: 0.8 for four fifths. A little before, to be exact, so
    /// that not all sessions that began together are renewed together.
    ///
    /// What is less than 0.1 counts as 0.1, and what is more than 1 as 1.
    pub fn at(share: f64) -> Self {
        Self {
            // A number that is none is none to compute with.
            share: if share.is_nan() {
                1.0
            } else {
                share.clamp(0.1, 1.0)
            },
            lifetime: None,
        }
    }

    /// How long sessions live that do not tell it themselves: the session timeout of the org, or of the app. None by
    /// default.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// When a session is due that came `now`, and told its lifetime or not. `jitter` is from 0 to 1.
    pub(crate) fn due(&self, told: Option<Duration>, now: Instant, jitter: f64) -> Option<Due> {
        let lifetime = told.or(self.lifetime)?;
        // A twentieth earlier at most.
        let share = self.share * (1.0 - jitter.clamp(0.0, 1.0) / 20.0);
        Some(Due::new(now, lifetime.mul_f64(share)))
    }
}

/// When a session is to be renewed.
#[derive(Debug)]
pub(crate) struct Due {
    since: Instant,
    /// In milliseconds.
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

    /// Makes it due at another time. None: never.
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
