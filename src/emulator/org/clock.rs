//! The clock of the org.

use std::time::SystemTime;

use super::Org;
use crate::emulator::state::clock::OrgClock;

impl Org {
    /// Sets the clock of the org. Default: the clock of the machine.
    ///
    /// The org reads it where time is part of the protocol. These are the lifetimes of
    /// authorization codes, device codes, assertions and JWT-based access tokens, and the times in
    /// ID tokens and introspection answers.
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
        self.state().clock = OrgClock::new(clock);
    }
}
