//! Devices and their users.

use super::Org;
use crate::emulator::state::decision::UserDecision;

/// Devices that wait for their user.
impl Org {
    /// Allows the device that shows `user_code`, as its user does on the verification page. `false`
    /// if no device waits with this code.
    #[must_use = "`false` if no device waits with this code"]
    pub fn approve_device(&self, user_code: &str) -> bool {
        self.decide_device(user_code, UserDecision::Allow)
    }

    /// Refuses the device that shows `user_code`. `false` if no device waits with this code.
    #[must_use = "`false` if no device waits with this code"]
    pub fn deny_device(&self, user_code: &str) -> bool {
        self.decide_device(user_code, UserDecision::Deny)
    }

    /// Whether a device that polls too early gets `slow_down`, and must wait five seconds longer
    /// from then on. Default: `false`, so tests need no time.
    pub fn enforce_device_interval(&self, enforce: bool) {
        self.state().devices.enforces_interval = enforce;
    }

    fn decide_device(&self, user_code: &str, decision: UserDecision) -> bool {
        let now = self.backend.now();
        self.state().devices.decide(user_code, decision, now)
    }
}
