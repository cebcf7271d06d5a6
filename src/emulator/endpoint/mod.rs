//! The endpoints of the org. Each answers the requests to one group of paths.

pub(super) mod authorize;
pub(super) mod bulk;
pub(super) mod connect;
pub(super) mod data;
pub(super) mod discovery;
pub(super) mod dpop;
mod echo;
pub(super) mod identity;
mod ingest;
pub(super) mod introspect;
pub(super) mod rest;
pub(super) mod revoke;
pub(super) mod soap;
pub(super) mod token;
