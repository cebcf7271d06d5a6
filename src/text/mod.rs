//! Text that servers send: secrets redacted, XML and JWTs read.

pub(crate) mod jwt;
pub(crate) mod redact;
pub(crate) mod xml;
