//! The report: the saved tables of the benches, beside the goals.

pub(crate) mod criterion;
pub(crate) mod document;
pub(crate) mod environment;
pub(crate) mod goals;
pub(crate) mod kept;
pub(crate) mod plots;
pub(crate) mod sections;
