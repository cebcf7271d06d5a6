//! The session that all handles share, and the one refresh at a time that replaces it.
//!
//! `core` decides, as a machine without I/O. `shared` keeps it behind one lock, `driver` carries out a refresh, and
//! `task` is what its callers wait for.

mod another_record;
pub(crate) mod attempt;
mod background;
mod binding;
pub(crate) mod core;
pub(crate) mod driver;
pub(crate) mod driver_handle;
pub(crate) mod follow;
pub(crate) mod hook;
pub(crate) mod owner;
mod panic;
pub(crate) mod save;
mod save_again;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod store_calls;
pub(crate) mod task;

pub use self::hook::{FromService, from_service};
