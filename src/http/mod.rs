//! HTTP calls of the flows: the client that sends them, and the errors that servers answer.

pub(crate) mod server_error;
pub(crate) mod transport;
