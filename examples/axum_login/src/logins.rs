//! The logins whose callback has come. A browser may send the same callback twice, and a code that is presented twice ends its
//! session at strict servers (RFC 6749 §4.1.2).
//!
//! The login itself is in the browser's cookie, so that this process has nothing to keep for a visitor who never returns.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;
use tower_salesforce_auth::oauth::LoginCookie;

/// The most logins to remember, which take some megabytes. One more forgets the oldest: Salesforce then refuses its code.
const CAPACITY: usize = 10_000;

#[derive(Default)]
pub(crate) struct Logins {
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    states: HashSet<String>,
    /// The states in order, the oldest first.
    in_order: VecDeque<(Instant, String)>,
}

impl Logins {
    /// Whether the login with this `state` is used up.
    pub(crate) fn is_used(&self, state: &str) -> bool {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.states.contains(state)
    }

    /// Uses up the login with this `state`. Returns `false` if another callback has.
    pub(crate) fn use_up(&self, state: &str, now: Instant) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.forget_old(now);
        if !used.states.insert(state.to_owned()) {
            return false;
        }
        used.in_order.push_back((now, state.to_owned()));
        true
    }
}

impl Used {
    /// Forgets the logins whose cookies have ended, and the oldest if there are too many.
    fn forget_old(&mut self, now: Instant) {
        while let Some((since, _)) = self.in_order.front()
            && (now.duration_since(*since) >= LoginCookie::LIFETIME
                || self.in_order.len() >= CAPACITY)
        {
            if let Some((_, state)) = self.in_order.pop_front() {
                self.states.remove(&state);
            }
        }
    }
}
