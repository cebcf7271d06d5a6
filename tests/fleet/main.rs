//! One session for a fleet: stores on real servers, which these tests start and stop themselves.

mod cut_off;
mod database;
mod faults;
mod fleet;
mod following;
mod harness;
mod kept_leases;
mod one_refresh;
mod part;
mod postgres_input;
mod postgres_store;
mod program;
mod proxy;
#[path = "../support/random.rs"]
mod random;
mod records;
mod redis_cluster;
mod redis_input;
mod redis_notices;
mod redis_store;
mod redis_tls;
mod rounds;
mod servers;
mod worker;
