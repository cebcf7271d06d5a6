//! One call of the REST API.

use http::{HeaderMap, Method, Uri};

use super::answer::RestAnswer;
use super::resource::{self, Resource, reads};
use super::{query, sobjects};
use crate::emulator::state::OrgState;

/// Carries out a call that is not itself several calls.
pub(super) fn call(
    state: &mut OrgState,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    (version, resource): (&str, Resource<'_>),
    body: &[u8],
) -> RestAnswer {
    let records = &mut state.records;
    match resource {
        Resource::Root | Resource::Limits if !reads(method) => {
            RestAnswer::method_not_allowed(method, "GET,HEAD")
        }
        Resource::Root => resource::root(version),
        Resource::Limits => resource::limits(state.counters.data_accepted),
        Resource::Query => query::run((method, uri, headers), version, state),
        Resource::MoreOf { locator } => query::more(method, headers, version, locator, state),
        Resource::Objects => sobjects::list(method, version),
        Resource::Object { object } => sobjects::object(method, version, object, body, records),
        Resource::Describe { object } => sobjects::describe(method, version, object),
        Resource::Record { object, id } => {
            sobjects::record(method, uri, version, (object, id), body, records)
        }
        Resource::Retired => resource::retired(version),
        Resource::Composite
        | Resource::Batch
        | Resource::Collection
        | Resource::Ingest { .. }
        | Resource::Echo
        | Resource::Unknown => RestAnswer::not_found(),
    }
}
