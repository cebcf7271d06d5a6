//! The emulated org, seen through its public surface: without a socket, and over loopback.

mod bulk;
mod composite;
mod controls;
mod data;
mod device;
mod faults;
mod grants;
mod ingest;
mod objects;
mod query;
mod served;
mod sessions;
mod soap;
mod support;
mod token_endpoint;
mod tokens;
mod types;
mod web_server;
