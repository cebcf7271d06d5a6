//! The paths of the REST API, and the resources that belong to no object.

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::answer::RestAnswer;
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::version::{self, ApiVersion};

/// `DailyApiRequests.Max`, and the second number of `Sforce-Limit-Info`.
const DAILY_API_REQUESTS: u64 = 15_000;

/// The resource of a path below `/services/data/`.
#[derive(Clone, Copy)]
pub(in crate::emulator::endpoint) enum Resource<'a> {
    /// The list of the resources.
    Root,
    Limits,
    /// `query` or `queryAll`. The org keeps no deleted records.
    Query,
    /// The next page of a result.
    MoreOf {
        locator: &'a str,
    },
    /// The list of the objects.
    Objects,
    Object {
        object: &'a str,
    },
    Describe {
        object: &'a str,
    },
    Record {
        object: &'a str,
        id: &'a str,
    },
    Composite,
    Batch,
    Collection,
    /// The rest of the path after `jobs/ingest`.
    Ingest {
        path: &'a str,
    },
    Echo,
    /// Any resource of a version that Salesforce has retired.
    Retired,
    Unknown,
}

/// The version and the resource of `path`, which begins after `/services/data/`.
pub(in crate::emulator::endpoint) fn resource(path: &str) -> (&str, Resource<'_>) {
    let (version, rest) = path.split_once('/').unwrap_or((path, ""));
    let number = version.strip_prefix('v').unwrap_or_default();
    match ApiVersion::read(number) {
        ApiVersion::Supported(_) => {}
        ApiVersion::Retired => return (version, Resource::Retired),
        ApiVersion::Unknown => return (version, Resource::Unknown),
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(path) = rest.strip_prefix("jobs/ingest") {
        return (version, Resource::Ingest { path });
    }
    let segments: Vec<&str> = rest.split('/').collect();
    let resource = match segments.as_slice() {
        [""] => Resource::Root,
        ["limits"] => Resource::Limits,
        ["query" | "queryAll"] => Resource::Query,
        ["query" | "queryAll", locator] => Resource::MoreOf { locator },
        ["echo"] => Resource::Echo,
        ["sobjects"] => Resource::Objects,
        ["sobjects", object] => Resource::Object { object },
        ["sobjects", object, "describe"] => Resource::Describe { object },
        ["sobjects", object, id] => Resource::Record { object, id },
        ["composite"] => Resource::Composite,
        ["composite", "batch"] => Resource::Batch,
        ["composite", "sobjects"] => Resource::Collection,
        _ => Resource::Unknown,
    };
    (version, resource)
}

/// The list of API versions. It needs no session.
pub(crate) fn versions(method: &Method) -> HttpAnswer {
    if !reads(method) {
        return answer::method_not_allowed(method, "GET,HEAD");
    }
    let versions: Value = (version::FIRST..=version::LATEST)
        .map(|number| {
            let label = version::release(number);
            let url = format!("/services/data/v{number}.0");
            json!({ "label": label, "url": url, "version": format!("{number}.0") })
        })
        .collect();
    answer::json(StatusCode::OK, &versions)
}

/// The resources of a version, with their paths.
pub(super) fn root(version: &str) -> RestAnswer {
    let names = ["composite", "limits", "query", "queryAll", "sobjects"];
    let mut resources: Value = names
        .into_iter()
        .map(|name| (name.to_owned(), format!("/services/data/{version}/{name}")))
        .collect();
    resources["jobs"] = format!("/services/data/{version}/jobs").into();
    RestAnswer::ok(resources)
}

/// The `limits` resource: `DailyApiRequests`, after `used` calls.
pub(super) fn limits(used: u64) -> RestAnswer {
    let requests = json!({
        "Max": DAILY_API_REQUESTS,
        "Remaining": DAILY_API_REQUESTS.saturating_sub(used),
    });
    RestAnswer::ok(json!({ "DailyApiRequests": requests }))
}

/// The answer of every resource of a retired version.
pub(super) fn retired(version: &str) -> RestAnswer {
    let message = format!("API version {version} is retired. Use one of /services/data.");
    RestAnswer::error(StatusCode::GONE, "UNSUPPORTED_API_VERSION", &message)
}

/// Reports the number of calls used, as the REST API does with every answer.
pub(in crate::emulator::endpoint) fn report_usage(headers: &mut HeaderMap, used: u64) {
    if let Ok(usage) = HeaderValue::try_from(format!("api-usage={used}/{DAILY_API_REQUESTS}")) {
        headers.insert("sforce-limit-info", usage);
    }
}

pub(super) fn reads(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}
