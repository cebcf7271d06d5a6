//! The org's clock.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::org::Org;

/// Tells the time. A clone is the same clock.
#[derive(Clone)]
pub(super) struct Clock {
    read: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Clock {
    /// The clock of the machine.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads it, and the default of a clock that can be set"
    )]
    pub(super) fn system() -> Self {
        Self {
            read: Arc::new(SystemTime::now),
        }
    }

    /// Seconds since the Unix epoch, as JWTs count them (RFC 7519 §2).
    fn unix_seconds(&self) -> u64 {
        (self.read)()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }
}

impl Org {
    /// Makes the org live by another clock. The default is the clock of the machine.
    ///
    /// The org looks at it where time is part of the protocol: the lifetimes of authorization codes,
    /// device codes, assertions and JWT-based access tokens, and the times in ID tokens and
    /// introspection answers.
    ///
    /// ```
    /// use std::time::{Duration, UNIX_EPOCH};
    /// use tower_salesforce_auth::emulator::Org;
    ///
    /// let org = Org::new();
    /// let noon = UNIX_EPOCH + Duration::from_secs(1_750_000_000);
    /// org.set_clock(move || noon);
    /// ```
    pub fn set_clock(&self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) {
        self.state().clock = Clock {
            read: Arc::new(clock),
        };
    }

    /// Seconds since the Unix epoch. The clock is the caller's code: it runs while nothing is locked.
    pub(super) fn now(&self) -> u64 {
        let clock = self.state().clock.clone();
        clock.unix_seconds()
    }
}
