//! The errors of this crate, of a refresh and of a session store.

mod causes;
mod error;
mod message;
mod refresh;
mod shared;
mod store;
mod unreachable;

pub use error::{Error, ErrorKind};
pub(crate) use error::{logged_out, not_ended};
pub use refresh::{RefreshError, RefreshErrorKind};
pub use shared::BoxError;
pub use store::{StoreError, StoreErrorKind};
pub(crate) use unreachable::Unreachable;
