//! What tonic makes of `pubsub_api.proto`: the messages, a client, and a server.
//!
//! It is checked in, so that nothing has to be installed to build the example. A program makes it anew with each build,
//! from Salesforce's own definition. With `tonic-prost-build` 0.14 and `protox` 0.10, a compiler in Rust, among the
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
    reason = "made by a machine"
)]

include!("eventbus.v1.rs");
