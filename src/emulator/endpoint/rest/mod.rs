//! The resources of the REST API. The session check is in `data.rs`.

mod answer;
mod call;
mod columns;
mod composite;
mod describe;
mod filter;
mod query;
mod resource;
mod sobjects;

pub(super) use self::answer::bad_request;
pub(super) use self::composite::carry_out;
pub(crate) use self::resource::versions;
pub(super) use self::resource::{Resource, report_usage, resource};
