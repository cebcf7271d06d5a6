//! The layer and its sessions, seen from outside.
#![allow(missing_docs)]

mod bad_input;
mod by_hand;
mod cancellation;
mod factory;
#[path = "../support/faulty.rs"]
mod faulty;
mod foreign_code;
mod handle;
mod in_time;
mod instance_port;
mod logout;
mod many_orgs;
mod observer;
mod odd_rejections;
mod origin;
mod peek;
mod policy;
mod proactive;
mod quiesce;
mod reentrancy;
mod refresh;
mod replay;
mod replay_model;
#[path = "../support/rotating.rs"]
mod rotating;
mod rotation;
mod runtimes;
mod sessions;
mod settings;
mod support;
mod tower_contract;
mod verdict;
