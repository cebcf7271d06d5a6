//! Text from servers: redacts secrets, and reads XML and JWTs.

pub(crate) mod jwt;
pub(crate) mod redact;
pub(crate) mod xml;
