//! The echo resource of the org.

use serde_json::Value;

pub(crate) const ECHO: &str = "/services/data/v66.0/echo";

/// The request as the echo received it.
pub(crate) fn echoed(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("an echo")
}
