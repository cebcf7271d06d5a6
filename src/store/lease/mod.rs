//! Stores whose locks have leases: for databases, and the processes of many machines.

pub(super) mod backend;
pub(super) mod lease_store;
