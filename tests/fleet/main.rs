//! One session for a fleet: stores on real servers, which these tests start and stop themselves.

mod harness;
mod records;
mod redis_input;
mod redis_store;
mod servers;
