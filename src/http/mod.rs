//! The calls that flows send: the client they are sent with, and the errors that servers answer.

pub(crate) mod server_error;
pub(crate) mod transport;
