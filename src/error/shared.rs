//! What the errors have in common: their sources.

use std::{error::Error as StdError, sync::Arc};

/// The error of a tower stack: anything boxed. The layer's own [`Error`](crate::Error) is found in it by `downcast_ref`.
pub type BoxError = Box<dyn StdError + Send + Sync>;

pub(crate) type SharedError = Arc<dyn StdError + Send + Sync>;

pub(crate) fn as_source(source: Option<&SharedError>) -> Option<&(dyn StdError + 'static)> {
    source.map(|source| &**source as &(dyn StdError + 'static))
}
