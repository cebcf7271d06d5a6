//! Text from servers: decodes it, reads its fields, redacts secrets, and reads XML and JWTs.

pub(crate) mod charset;
pub(crate) mod fields;
pub(crate) mod inflate;
pub(crate) mod json;
pub(crate) mod jwt;
pub(crate) mod redact;
pub(crate) mod xml;
