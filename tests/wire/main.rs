//! The layer over real HTTP: hyper's client, the emulated org, loopback.
#![allow(missing_docs)]

mod broken_bodies;
mod connections;
mod early_answers;
mod flows;
mod support;
mod verdicts;
