//! Guides: one page for each question that follows the first request.
//!
//! - [`choosing_a_flow`]: which way to log in fits, and what to set up in Salesforce for it.
//! - [`how_it_works`]: what happens to a request, what can be replayed, where the session is carried, and the states of a
//!   session.
//! - [`stack_order`]: which layers go inside, which outside, and what breaks otherwise.
//! - [`testing`]: your own application against the emulated org, without a network and without waiting.
//! - [`dpop`]: tokens that are bound to a key of the app, and how to get there from bearer tokens.
//! - [`production`]: timeouts, alerts, several processes, many orgs, and how to stop.
//! - [`fleet`]: one session for many machines: which store, set-up, size, alerts, and what happens when it fails.
//! - [`security`]: what is promised and what is not, why, and what is left for you to do.
//! - [`from_jsforce`]: each snippet of jsforce's pages on connections and OAuth 2.0, and what replaces it.
//! - [`from_salesforce_oauth2`]: the same for the package `salesforce-oauth2`.

#[doc = include_str!("choosing_a_flow.md")]
pub mod choosing_a_flow {}

#[doc = include_str!("dpop.md")]
pub mod dpop {}

#[doc = include_str!("fleet.md")]
pub mod fleet {}

#[doc = include_str!("from_jsforce.md")]
pub mod from_jsforce {}

#[doc = include_str!("from_salesforce_oauth2.md")]
pub mod from_salesforce_oauth2 {}

#[doc = include_str!("how_it_works.md")]
#[doc = concat!("<div>\n", include_str!("session_states.svg"), "</div>\n\n")]
#[doc = include_str!("how_it_works_state.md")]
pub mod how_it_works {}

#[doc = include_str!("production.md")]
pub mod production {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("stack_order.md")]
pub mod stack_order {}

#[doc = include_str!("testing.md")]
pub mod testing {}
