//! Logins that were begun, and whose browser is at Salesforce: the code verifier of each, for one callback, of the browser
//! that began.
//!
//! The browser has the `state`, in its cookie and in the callback. The verifier never leaves this process before it is
//! sent to the token endpoint.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tower_salesforce_auth::oauth::PendingAuthorization;

/// How long a user may take to log in and consent. Salesforce's codes are good for 15 minutes.
pub(crate) const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Anybody can begin a login, and need not end it: the oldest makes room for the next. It is some megabytes. Who begins as
/// many while others are at Salesforce keeps them from coming back: limit the rate of `/login` by address, where one is known.
const CAPACITY: usize = 10_000;

#[derive(Default)]
pub(crate) struct Logins {
    begun: Mutex<Begun>,
}

#[derive(Default)]
struct Begun {
    /// By `state`. `None` once a callback has come: no code is presented twice, even if Salesforce would take it.
    by_state: HashMap<String, Option<PendingAuthorization>>,
    /// The oldest first.
    in_order: VecDeque<(Instant, String)>,
}

/// Why a callback is not let through. Nothing is asked of Salesforce then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This browser has not begun the login that the callback is of.
    Forged,
    /// Its callback has come before.
    Used,
    /// It was begun too long ago.
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

    /// Takes the login that a callback is of, with the `state` in the cookie and that in the callback. A forged callback
    /// takes nothing, so that it does not get in the way of the right one.
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
