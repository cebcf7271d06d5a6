//! One session for a fleet: stores on real servers, which these tests start and stop themselves.

mod harness;
mod postgres_input;
mod postgres_store;
mod records;
mod redis_cluster;
mod redis_input;
mod redis_notices;
mod redis_store;
mod redis_tls;
mod servers;
