//! A REST resource of the org.

pub(crate) const LIMITS: &str = "/services/data/v66.0/limits";
