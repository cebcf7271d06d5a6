//! A session store in a directory: its records, their locks, and who may have access to them.

mod access;
mod file_store;
mod record_files;

pub use file_store::FileStore;
