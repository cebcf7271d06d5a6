//! The tower layer, its service, and the future of one response.

pub(crate) mod future;
pub(crate) mod layer;
pub(crate) mod service;
