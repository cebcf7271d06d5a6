//! The session in the user's hands: one handle, or a registry of many.

pub(crate) mod handle;
pub(crate) mod logout;
pub(crate) mod registry;
pub(crate) mod save;
