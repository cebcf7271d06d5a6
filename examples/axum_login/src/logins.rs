//! Pending logins, whose browser is at Salesforce. Each keeps a code verifier for a single callback of the browser that began
//! the login.
//!
//! The browser has the `state`, in its cookie and in the callback. The verifier stays in this process until the token
//! endpoint gets it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tower_salesforce_auth::oauth::PendingAuthorization;

/// The time that a user has to log in and consent. Salesforce's codes are valid for 15 minutes.
pub(crate) const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// The most pending logins, which take some megabytes. Any visitor can begin a login and never end it, so a new login drops the
/// oldest. An attacker who begins as many drops the logins of other users: limit the rate of `/login` by address.
const CAPACITY: usize = 10_000;

#[derive(Default)]
pub(crate) struct Logins {
    begun: Mutex<Begun>,
}

#[derive(Default)]
struct Begun {
    /// The pending logins by `state`. `None` after the callback: no code is presented twice, even if Salesforce would take it.
    by_state: HashMap<String, Option<PendingAuthorization>>,
    /// The logins in order, the oldest first.
    in_order: VecDeque<(Instant, String)>,
}

/// Why a callback is refused, before any call to Salesforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This browser has not begun the login of the callback.
    Forged,
    /// The callback of this login has come before.
    Used,
    /// The login began too long ago.
    TooLate,
}

impl Logins {
    pub(crate) fn begin(&self, pending: &PendingAuthorization, now: Instant) {
        let state = pending.state().expose().to_owned();
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.forget_old(now);
        if begun.in_order.len() == CAPACITY {
            begun.forget_first();
        }
        begun.in_order.push_back((now, state.clone()));
        begun.by_state.insert(state, Some(pending.clone()));
    }

    /// Takes the login of a callback, by the `state` in the cookie and that in the callback. A forged callback takes no login,
    /// so that the right callback still works.
    pub(crate) fn take(
        &self,
        in_cookie: Option<&str>,
        in_callback: Option<&str>,
        now: Instant,
    ) -> Result<PendingAuthorization, Refused> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.forget_old(now);
        let known = in_callback.and_then(|state| begun.by_state.get_mut(state));
        if matches!(known, Some(None)) {
            return Err(Refused::Used);
        }
        match (in_cookie, in_callback) {
            (Some(in_cookie), Some(in_callback)) if in_cookie == in_callback => {
                known.and_then(Option::take).ok_or(Refused::TooLate)
            }
            _ => Err(Refused::Forged),
        }
    }
}

impl Begun {
    fn forget_old(&mut self, now: Instant) {
        while let Some((since, _)) = self.in_order.front()
            && now.duration_since(*since) >= LIFETIME
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, state)) = self.in_order.pop_front() {
            self.by_state.remove(&state);
        }
    }
}
