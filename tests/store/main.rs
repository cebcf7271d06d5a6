//! Session stores: sessions that survive a restart, and that processes share.

mod adopt;
#[path = "../support/answering.rs"]
mod answering;
mod breaker;
mod conformance;
mod directory;
mod ended;
mod events;
#[path = "../support/faulty.rs"]
mod faulty;
mod file;
mod follow;
mod key_rings;
mod kill;
#[path = "../support/lease_table.rs"]
mod lease_table;
mod leases;
mod lineage;
mod logout;
mod lost_leases;
mod outage;
mod processes;
#[path = "../support/random.rs"]
mod random;
#[path = "../support/rotating.rs"]
mod rotating;
mod save;
mod scripted;
mod secrets;
mod set;
mod setup;
mod support;
mod waiting;
mod walk;
mod world;
