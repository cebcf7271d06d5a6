//! The layer from outside: what it promises to whoever sends requests through it.
#![allow(missing_docs)]

mod bad_input;
mod cancellation;
mod factory;
mod handle;
mod many_orgs;
mod observer;
mod origin;
mod policy;
mod refresh;
mod renewal;
mod replay;
mod replay_model;
mod runtimes;
mod sessions;
mod support;
mod tower_contract;
mod verdict;
