//! The errors of this crate, of a refresh and of a session store.

mod error;
mod refresh;
mod shared;
mod store;

pub use error::{Error, ErrorKind};
pub(crate) use error::{is_reentrant, logged_out, not_ended};
pub use refresh::{RefreshError, RefreshErrorKind};
pub use shared::BoxError;
pub use store::{StoreError, StoreErrorKind};
