//! The layer and its sessions, seen from outside.
#![allow(missing_docs)]

mod bad_input;
mod cancellation;
mod factory;
mod handle;
mod logout;
mod many_orgs;
mod observer;
mod origin;
mod peek;
mod policy;
mod proactive;
mod reentrancy;
mod refresh;
mod replay;
mod replay_model;
mod rotation;
mod runtimes;
mod sessions;
mod settings;
mod support;
mod tower_contract;
mod verdict;
