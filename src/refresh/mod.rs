//! The session that all handles share, and the one refresh at a time that replaces it.

pub(crate) mod attempt;
pub(crate) mod driver;
pub(crate) mod hook;
pub(crate) mod policy;
pub(crate) mod record;
pub(crate) mod shared;
pub(crate) mod task;

pub use self::hook::{FromService, from_service};
