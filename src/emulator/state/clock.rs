//! The org's clock.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of time. Clones share it.
#[derive(Clone)]
pub(crate) struct OrgClock {
    read: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl OrgClock {
    /// The clock of the machine.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads it, and the default of a clock that can be set"
    )]
    pub(crate) fn system() -> Self {
        Self::new(SystemTime::now)
    }

    pub(crate) fn new(read: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            read: Arc::new(read),
        }
    }

    /// Seconds since the Unix epoch, the unit of JWTs (RFC 7519 §2).
    pub(crate) fn unix_seconds(&self) -> u64 {
        (self.read)()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }
}
