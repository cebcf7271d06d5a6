//! One request from its first send to its last replay: where it goes, what it carries, what is kept for a replay.

pub(crate) mod authorize;
pub(crate) mod extensions;
pub(crate) mod head;
pub(crate) mod pending;
pub(crate) mod redirect;
pub(crate) mod replay;
pub(crate) mod target;
