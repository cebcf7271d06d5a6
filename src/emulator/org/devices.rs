//! The users of devices.

use super::Org;
use crate::emulator::state::decision::UserDecision;

/// Devices.
impl Org {
    /// Lets the device in that shows `user_code`, as its user does on the verification page.
    /// `false` if no device waits with this code.
    #[must_use = "`false` if no device waits with this code"]
    pub fn approve_device(&self, user_code: &str) -> bool {
        self.decide_device(user_code, UserDecision::Allow)
    }

    /// Turns the device away that shows `user_code`. `false` if no device waits with this code.
    #[must_use = "`false` if no device waits with this code"]
    pub fn deny_device(&self, user_code: &str) -> bool {
        self.decide_device(user_code, UserDecision::Deny)
    }

    /// Whether a device that polls before its interval has passed is told to `slow_down`, and to
    /// wait five seconds longer from then on. The default is `false`: tests need no time.
    pub fn enforce_device_interval(&self, enforce: bool) {
        self.state().devices.enforces_interval = enforce;
    }

    fn decide_device(&self, user_code: &str, decision: UserDecision) -> bool {
        let now = self.backend.now();
        self.state().devices.decide(user_code, decision, now)
    }
}
