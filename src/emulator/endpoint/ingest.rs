//! The resources of ingest jobs.

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::rest::bad_request;
use crate::emulator::fault::MetFault;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::jobs::{JobOperation, JobOrder, JobRefusal, JobState};
use crate::emulator::state::schema::RecordType;
use crate::emulator::state::upload::{MAX_BASE64_LENGTH, Upload};
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::receive::{collect, discard};
use crate::error::BoxError;

/// Answers a request to the path that continues with `path` after `jobs/ingest`, at this API
/// version.
pub(super) async fn answer<B>(
    org: &Backend,
    parts: &Parts,
    (version, path): (&str, &str),
    body: B,
    fault: &MetFault,
) -> Result<HttpAnswer, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let request = receive(org, parts, path, body).await?;
    fault.wait(&org.data_fault).await;
    Ok(carry_out(org, version, request))
}

/// The parsed request, after all of it has arrived.
enum IngestRequest {
    Create(JobOrder),
    Fill { id: String, content: Upload },
    Change { id: String, to: JobState },
    LookAt { id: String },
    Delete { id: String },
    Refused(HttpAnswer),
}

async fn receive<B>(
    org: &Backend,
    parts: &Parts,
    path: &str,
    body: B,
) -> Result<IngestRequest, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut segments = path.split('/');
    let (before, id, below, beyond) = (
        segments.next(),
        segments.next(),
        segments.next(),
        segments.next(),
    );
    let request = match (&parts.method, before, id, below, beyond) {
        (&Method::PUT, Some(""), Some(id), Some("batches"), None) => {
            return receive_content(org, &parts.headers, id, body).await;
        }
        (method, Some(""), Some(_), Some("batches"), None) => {
            IngestRequest::Refused(answer::method_not_allowed(method, "PUT"))
        }
        (&Method::POST, Some(""), None, ..) => {
            return Ok(read(&collect(body).await?, IngestRequest::Create));
        }
        (method, Some(""), None, ..) => {
            IngestRequest::Refused(answer::method_not_allowed(method, "POST"))
        }
        (&Method::PATCH, Some(""), Some(id), None, _) => {
            let change = |JobChange { state }| IngestRequest::Change {
                id: id.to_owned(),
                to: state,
            };
            return Ok(read(&collect(body).await?, change));
        }
        (&(Method::GET | Method::HEAD), Some(""), Some(id), None, _) => {
            IngestRequest::LookAt { id: id.to_owned() }
        }
        (&Method::DELETE, Some(""), Some(id), None, _) => {
            IngestRequest::Delete { id: id.to_owned() }
        }
        (method, Some(""), Some(_), None, _) => {
            IngestRequest::Refused(answer::method_not_allowed(method, "DELETE,GET,HEAD,PATCH"))
        }
        _ => IngestRequest::Refused(answer::not_found()),
    };
    discard(body, None).await?;
    Ok(request)
}

#[derive(Deserialize)]
struct JobChange {
    state: JobState,
}

fn read<T: DeserializeOwned>(
    body: &[u8],
    request: impl FnOnce(T) -> IngestRequest,
) -> IngestRequest {
    match serde_json::from_slice(body) {
        Ok(read) => request(read),
        Err(error) => IngestRequest::Refused(bad_request("JSON_PARSER_ERROR", &error.to_string())),
    }
}

async fn receive_content<B>(
    org: &Backend,
    headers: &HeaderMap,
    id: &str,
    body: B,
) -> Result<IngestRequest, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let expected = org.state().jobs.expects_content(id);
    if let Err(refusal) = expected {
        discard(body, None).await?;
        return Ok(IngestRequest::Refused(refuse(id, &refusal)));
    }
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    Ok(match Upload::receive(body, declared).await? {
        Some(content) => IngestRequest::Fill {
            id: id.to_owned(),
            content,
        },
        None => {
            let message =
                format!("Failed to read request. Exceeded max size limit of {MAX_BASE64_LENGTH}");
            IngestRequest::Refused(bad_request("CLIENTINPUTERROR", &message))
        }
    })
}

fn carry_out(org: &Backend, version: &str, request: IngestRequest) -> HttpAnswer {
    let jobs = &mut org.state().jobs;
    let (id, done) = match request {
        IngestRequest::Refused(answer) => return answer,
        IngestRequest::Create(order) => {
            if let Some(refusal) = refuse_order(&order) {
                return refusal;
            }
            let version = version.trim_start_matches('v').parse().unwrap_or_default();
            return answer::json(StatusCode::OK, &jobs.create(version, order));
        }
        IngestRequest::Fill { id, content } => {
            let filled = jobs.fill(&id, content);
            (id, filled.map(|()| nothing(StatusCode::CREATED)))
        }
        IngestRequest::Change { id, to } => {
            let changed = jobs.change(&id, to);
            (id, changed.map(|job| answer::json(StatusCode::OK, &job)))
        }
        IngestRequest::LookAt { id } => {
            let seen = jobs.look_at(&id);
            (id, seen.map(|job| answer::json(StatusCode::OK, &job)))
        }
        IngestRequest::Delete { id } => match jobs.delete(&id) {
            Err(JobRefusal::InvalidState(_)) => {
                let message =
                    "Error encountered when deleting the job because the job is not terminated";
                return bad_request("API_ERROR", message);
            }
            deleted => (id, deleted.map(|()| nothing(StatusCode::NO_CONTENT))),
        },
    };
    done.unwrap_or_else(|refusal| refuse(&id, &refusal))
}

fn refuse_order(order: &JobOrder) -> Option<HttpAnswer> {
    let object = &order.object;
    if RecordType::named(object).is_none_or(|object| object.required.is_none()) {
        let message = format!("Entity '{object}' is not supported by the Bulk API.");
        return Some(bad_request("INVALIDENTITY", &message));
    }
    if order.operation == JobOperation::Upsert && order.external_id_field_name.is_none() {
        let message = format!("External ID was blank for {object}. Upsert needs one.");
        return Some(bad_request("INVALIDJOB", &message));
    }
    None
}

fn refuse(id: &str, refusal: &JobRefusal) -> HttpAnswer {
    match refusal {
        JobRefusal::NoSuchJob => answer::not_found(),
        JobRefusal::InvalidState(state) => {
            let state = serde_json::to_value(state).unwrap_or_default();
            let message = format!("Not possible in the state {state} of the job");
            bad_request("INVALIDJOBSTATE", &message)
        }
        JobRefusal::HasContent => {
            let message = format!("Found multiple contents for job: <{id}>");
            bad_request("INVALIDJOB", &message)
        }
    }
}

fn nothing(status: StatusCode) -> HttpAnswer {
    let mut answer = answer::empty();
    *answer.status_mut() = status;
    answer
}
