//! Guides: one page for each question that comes up once the first request works.
//!
//! - [`choosing_a_flow`]: which way to log in is for whom, and what to click in Salesforce for it.
//! - [`from_jsforce`]: each snippet of jsforce's pages on connections and OAuth 2.0, and what it is here.
//! - [`from_salesforce_oauth2`]: the same for the package `salesforce-oauth2`.
//! - [`production`]: timeouts, what to be woken for, several processes, many orgs, and how to stop.
//! - [`security`]: what is promised and what is not, why, and what is left for you to do.
//! - [`stack_order`]: which layers go inside, which outside, and what breaks otherwise.
//! - [`testing`]: your own application against the emulated org, without a network and without waiting.

#[doc = include_str!("choosing_a_flow.md")]
pub mod choosing_a_flow {}

#[doc = include_str!("from_jsforce.md")]
pub mod from_jsforce {}

#[doc = include_str!("from_salesforce_oauth2.md")]
pub mod from_salesforce_oauth2 {}

#[doc = include_str!("production.md")]
pub mod production {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("stack_order.md")]
pub mod stack_order {}

#[doc = include_str!("testing.md")]
pub mod testing {}
