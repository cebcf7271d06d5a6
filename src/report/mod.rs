//! What the layer reports: events to an observer, spans, the state of a session, the outcome of a request.

pub(crate) mod event;
pub(crate) mod observer;
pub(crate) mod outcome;
pub(crate) mod reason;
pub(crate) mod subscription;
pub(crate) mod trace;
