//! HTTP calls of the flows: the client that sends them, the responses, and the errors that servers answer.

pub(crate) mod advice;
pub(crate) mod response;
pub(crate) mod retry_after;
pub(crate) mod server_error;
pub(crate) mod transport;
