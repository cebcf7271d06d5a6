//! One request over all its attempts: where it goes, what it carries, what is kept to replay it.

pub(crate) mod authorize;
pub(crate) mod extensions;
pub(crate) mod head;
pub(crate) mod pending;
pub(crate) mod redirect;
pub(crate) mod replay;
pub(crate) mod target;
