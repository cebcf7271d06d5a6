//! One session: its tokens, its instance, its lifetime, and the header values made from it.

pub(crate) mod header;
pub(crate) mod host;
pub(crate) mod lifetime;
pub(crate) mod live;
pub(crate) mod session;
pub(crate) mod url;
