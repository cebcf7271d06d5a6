//! Sessions in a PostgreSQL database, for the processes of many machines.

mod backend;
mod connection;
mod failure;
mod listener;
mod pool;
mod postgres_store;
mod server;
mod statement;
mod table;
mod tls;
mod url;

pub use postgres_store::PostgresStore;
