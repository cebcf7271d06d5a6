//! The state of a session: one explicit machine without I/O, clock or randomness.
//!
//! Events and `now` go in, [effects](effect::Effects) come out, and the shell carries them out. The core is generic over
//! sessions and failures ([`Rules`]), so that a model can explore it with integers.
//!
//! ```text
//!           set, or a refresh returned                  rejected (n is current)
//! Vacant ───────────────────────────▶ Serving(n) ───────────────────────────▶ Vacant(n)
//!   ▲                                   ▲     │                                  │
//!   │ reset                             │     │ log out        a refresh returned│
//! LoggedOut ◀───────────────────────────┼─────┘               (n + 1), or set    │
//!   ▲                                   └────────────────────────────────────────┘
//!   └── log out, from any state
//! ```
//!
//! Beside the slot there is at most one refresh that callers wait for ([`refresh`]), and refreshes that drain: their callers
//! are gone, and their token call must not be cut off. What is shown ([`Core::state`]) is derived from these, never stored.

pub(crate) mod callers;
pub(crate) mod cut_off;
pub(crate) mod decide;
pub(crate) mod effect;
#[cfg(test)]
mod failure_tests;
#[cfg(test)]
mod fixtures;
pub(crate) mod logout;
#[cfg(test)]
mod logout_tests;
#[cfg(test)]
mod model;
pub(crate) mod offer;
pub(crate) mod pending_logout;
pub(crate) mod policy;
pub(crate) mod record;
pub(crate) mod rules;
pub(crate) mod run;
pub(crate) mod saving;
#[cfg(test)]
mod saving_tests;
#[cfg(test)]
mod search_tests;
pub(crate) mod slot;
pub(crate) mod state;
pub(crate) mod steps;
pub(crate) mod token;
pub(crate) mod token_call;
#[cfg(test)]
mod transitions;
