//! DPoP (RFC 9449): keys, proofs and nonces, with the emulated org and scripted servers.

mod bad_input;
mod changed_sessions;
mod emulator;
mod flows;
mod keys;
mod layer;
mod leaks;
mod nonces;
mod odd_nonces;
mod soap;
mod stores;
mod support;
#[path = "../support/traced.rs"]
mod traced;
mod uris;
