//! Devices that wait for their user (RFC 8628 with older parameter names): the bookkeeping.

use std::collections::HashMap;

use super::decision::UserDecision;

/// The lifetime of the codes in seconds.
const LIFETIME: u64 = 10 * 60;

/// The first interval between polls in seconds.
pub(crate) const INTERVAL: u64 = 5;

/// The device codes of one org.
pub(crate) struct Devices {
    /// The number of the org. Device codes contain it, so that other orgs do not accept them.
    org: u64,
    pub(crate) enforces_interval: bool,
    issued: u64,
    /// The devices by device code.
    waiting: HashMap<String, Device>,
}

struct Device {
    user_code: String,
    scope: String,
    until: u64,
    decision: Option<UserDecision>,
    interval: u64,
    polled: Option<u64>,
}

/// The reason why a poll returns no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollRefusal {
    Unknown,
    Expired,
    Pending,
    TooFast,
    Denied,
}

/// The codes of one device.
pub(crate) struct DeviceCodes {
    pub(crate) device_code: String,
    pub(crate) user_code: String,
}

impl Devices {
    pub(crate) fn new(org: u64) -> Self {
        Self {
            org,
            enforces_interval: false,
            issued: 0,
            waiting: HashMap::new(),
        }
    }

    pub(crate) fn begin(&mut self, scope: &str, now: u64) -> DeviceCodes {
        self.issued += 1;
        let device_code = format!("ZGV2aWNlLWNvZGU{:0>11}.{:0>40}==", self.org, self.issued);
        let user_code = format!("EMUL{:0>4}", self.issued);
        let device = Device {
            user_code: user_code.clone(),
            scope: scope.to_owned(),
            until: now + LIFETIME,
            decision: None,
            interval: INTERVAL,
            polled: None,
        };
        self.waiting.insert(device_code.clone(), device);
        DeviceCodes {
            device_code,
            user_code,
        }
    }

    /// Records the user's decision. `false` if no device waits with this code.
    pub(crate) fn decide(&mut self, user_code: &str, decision: UserDecision, now: u64) -> bool {
        let device = self.waiting.values_mut().find(|device| {
            device.user_code == user_code && device.decision.is_none() && now < device.until
        });
        match device {
            Some(device) => {
                device.decision = Some(decision);
                true
            }
            None => false,
        }
    }

    /// Returns the scope that the user allowed. A device code works once.
    pub(crate) fn poll(&mut self, device_code: &str, now: u64) -> Result<String, PollRefusal> {
        let device = self
            .waiting
            .get_mut(device_code)
            .ok_or(PollRefusal::Unknown)?;
        if now >= device.until {
            return Err(PollRefusal::Expired);
        }
        let earliest = device
            .polled
            .replace(now)
            .map(|last| last + device.interval);
        if self.enforces_interval && earliest.is_some_and(|earliest| now < earliest) {
            // RFC 8628 §3.5: `slow_down` adds five seconds to the interval.
            device.interval += 5;
            return Err(PollRefusal::TooFast);
        }
        match device.decision {
            None => Err(PollRefusal::Pending),
            Some(UserDecision::Deny) => Err(PollRefusal::Denied),
            Some(UserDecision::Allow) => {
                let device = self.waiting.remove(device_code);
                device
                    .map(|device| device.scope)
                    .ok_or(PollRefusal::Unknown)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_code_expires_after_ten_minutes() {
        let mut devices = Devices::new(1);
        assert_eq!(devices.poll("unknown", 0), Err(PollRefusal::Unknown));
        let codes = devices.begin("api", 1_000);
        assert_eq!(codes.user_code.len(), 8);
        let code = codes.device_code;
        assert_eq!(devices.poll(&code, 1_000), Err(PollRefusal::Pending));
        assert!(!devices.decide("EMUL9999", UserDecision::Allow, 1_000));
        assert!(devices.decide(&codes.user_code, UserDecision::Allow, 1_000));
        assert!(!devices.decide(&codes.user_code, UserDecision::Deny, 1_000));
        assert_eq!(devices.poll(&code, 1_600), Err(PollRefusal::Expired));
        assert_eq!(devices.poll(&code, 1_599).as_deref(), Ok("api"));
        assert_eq!(devices.poll(&code, 1_599), Err(PollRefusal::Unknown));
    }

    #[test]
    fn a_device_that_polls_too_fast_must_wait_longer_each_time() {
        let mut devices = Devices::new(1);
        devices.enforces_interval = true;
        let code = devices.begin("api", 0).device_code;
        assert_eq!(devices.poll(&code, 0), Err(PollRefusal::Pending));
        assert_eq!(devices.poll(&code, 4), Err(PollRefusal::TooFast));
        assert_eq!(devices.poll(&code, 13), Err(PollRefusal::TooFast));
        assert_eq!(devices.poll(&code, 28), Err(PollRefusal::Pending));
    }
}
