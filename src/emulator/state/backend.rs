//! The part of an org that all its clones share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::OrgState;
use crate::emulator::fault::FaultSwitch;

/// The state of an org behind a mutex, and its faults.
pub(crate) struct Backend {
    state: Mutex<OrgState>,
    /// The user's password, which no change of the state replaces.
    pub(crate) password: String,
    pub(crate) token_fault: FaultSwitch,
    pub(crate) data_fault: FaultSwitch,
    pub(crate) revoke_fault: FaultSwitch,
    pub(crate) soap_login_fault: FaultSwitch,
}

impl Backend {
    pub(crate) fn new(url: &str, password: &str) -> Self {
        Self {
            state: Mutex::new(OrgState::new(url, password)),
            password: password.to_owned(),
            token_fault: FaultSwitch::new(),
            data_fault: FaultSwitch::new(),
            revoke_fault: FaultSwitch::new(),
            soap_login_fault: FaultSwitch::new(),
        }
    }

    /// Locks the state. A panic elsewhere leaves it intact, because every change is one step.
    pub(crate) fn state(&self) -> MutexGuard<'_, OrgState> {
        let state = self.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds since the Unix epoch. The clock is user code, so it runs without the lock.
    pub(crate) fn now(&self) -> u64 {
        let clock = self.state().clock.clone();
        clock.unix_seconds()
    }
}
