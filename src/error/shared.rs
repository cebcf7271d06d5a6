//! The boxed error of tower, and the shared source of this crate's errors.

use std::{error::Error as StdError, sync::Arc};

/// The boxed error of a tower stack. Use `downcast_ref` to find the layer's own [`Error`](crate::Error) in it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A source that clones of an error share.
pub(crate) type SharedError = Arc<dyn StdError + Send + Sync>;

pub(crate) fn as_source(source: Option<&SharedError>) -> Option<&(dyn StdError + 'static)> {
    source.map(|source| &**source as &(dyn StdError + 'static))
}
