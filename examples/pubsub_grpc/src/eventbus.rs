//! The code that tonic generates from `pubsub_api.proto`: the messages, a client, and a server.
//!
//! The code is checked in, so that the example builds without further tools. A program generates it at each build, from
//! Salesforce's own definition. With `tonic-prost-build` 0.14 and `protox` 0.10, a compiler in Rust, among the
//! `[build-dependencies]`, its `build.rs` is:
//!
//! ```ignore
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let descriptors = protox::compile(["pubsub_api.proto"], ["proto"])?;
//!     tonic_prost_build::configure().compile_fds(descriptors)?;
//!     Ok(())
//! }
//! ```
//!
//! and this module is `tonic::include_proto!("eventbus.v1");`.
#![allow(
    clippy::all,
    clippy::pedantic,
    dead_code,
    missing_debug_implementations,
    missing_docs,
    unnameable_types,
    unreachable_pub,
    reason = "generated code"
)]

include!("eventbus.v1.rs");
