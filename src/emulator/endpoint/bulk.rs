//! Bulk API 1.0: enough of it to see a session end there.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body;
use quick_xml::Reader;
use quick_xml::escape::escape;
use quick_xml::events::Event;
use serde_json::{Value, json};

use super::dpop;
use crate::emulator::fault::MetFault;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::bulk_jobs::{BulkJob, BulkJobState};
use crate::emulator::state::dpop::Presented;
use crate::emulator::state::ids::USER_ID;
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::receive::collect;
use crate::emulator::wire::version::ApiVersion;
use crate::error::BoxError;

const NAMESPACE: &str = "http://www.force.com/2009/06/asyncapi/dataload";

/// Answers a call to the path that continues with `path` after `/services/async/`.
pub(crate) async fn answer<B>(
    org: &Backend,
    parts: &Parts,
    path: &str,
    body: B,
) -> Result<HttpAnswer, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let fault = org.data_fault.meet();
    let form = BulkFormat::of(&parts.headers);
    let refusal = reject(org, parts, form, &fault);
    let body = collect(body).await?;
    fault.wait(&org.data_fault).await;
    let answer = match refusal {
        Some(refusal) => refusal,
        None => carry_out(org, &parts.method, path, form, &body),
    };
    fault.deliver(answer)
}

fn reject(org: &Backend, parts: &Parts, form: BulkFormat, fault: &MetFault) -> Option<HttpAnswer> {
    let headers = &parts.headers;
    let now = org.now();
    let mut state = org.state();
    let state = &mut *state;
    let counters = &mut state.counters;
    counters.data_requests += 1;
    let write = |status, error: &str, description: &str| form.error(status, error, description);
    if let Some(refusal) = fault.refusal(write) {
        counters.data_refused += 1;
        return Some(refusal);
    }
    let session = headers.get("x-sfdc-session");
    let session = session.and_then(|session| session.to_str().ok());
    // What Salesforce does with a bound token here is not documented: the org takes it with a proof.
    let is_proven = session.is_some_and(|token| {
        let presented = Presented {
            token,
            is_bound: None,
            proof: dpop::proof(headers),
        };
        let proofs = (&mut state.dpop, &state.sessions);
        presented.check(proofs, (parts, now), false).is_ok()
    });
    let is_valid = state.refusal_of_sessions.is_none()
        && is_proven
        && session.is_some_and(|session| state.sessions.spend_call(session, now));
    if is_valid {
        counters.data_accepted += 1;
        return None;
    }
    counters.data_rejected += 1;
    let message = state.refusal_of_sessions.as_deref();
    let message = message.unwrap_or("Invalid session id");
    Some(form.bad_request("InvalidSessionId", message))
}

fn carry_out(
    org: &Backend,
    method: &Method,
    path: &str,
    form: BulkFormat,
    body: &[u8],
) -> HttpAnswer {
    let path = path.strip_suffix('/').unwrap_or(path);
    let (version, path) = path.split_once('/').unwrap_or((path, ""));
    let ApiVersion::Supported(version) = ApiVersion::read(version) else {
        let message = format!("Invalid Version : {version}");
        return form.bad_request("InvalidVersion", &message);
    };
    let jobs = &mut org.state().bulk_jobs;
    let id = path.strip_prefix("job/");
    match (method, id) {
        (&Method::POST, None) if path == "job" => {
            let members = form.members(body, ["operation", "object"]);
            let Some([operation, object]) = members else {
                return form.bad_request("InvalidJob", "Unable to parse Job");
            };
            let job = jobs.create(operation, object);
            form.job(StatusCode::CREATED, version, job)
        }
        (&Method::POST, Some(id)) => {
            let members = form.members(body, ["state"]);
            let state = members.and_then(|[state]| BulkJobState::to_set(&state));
            match state.and_then(|state| jobs.set(id, state)) {
                Some(job) => form.job(StatusCode::OK, version, job),
                None => form.bad_request("InvalidJobState", "Invalid job id or state"),
            }
        }
        (&Method::GET, Some(id)) if !id.contains('/') => match jobs.get(id) {
            Some(job) => form.job(StatusCode::OK, version, job),
            None => form.bad_request("InvalidJob", &format!("Invalid job id: {id}")),
        },
        _ => form.bad_request("InvalidUrl", "Destination URL not found"),
    }
}

/// The texts of the elements with these names. `None` if one of them is missing or empty.
fn elements<const N: usize>(body: &[u8], names: [&str; N]) -> Option<[String; N]> {
    let mut reader = Reader::from_str(str::from_utf8(body).ok()?);
    let mut texts = names.map(|_| String::new());
    let mut inside = None;
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                let name = start.local_name().into_inner();
                inside = names.iter().position(|wanted| *wanted == name);
            }
            Event::End(_) => inside = None,
            Event::Text(text) => {
                if let Some(index) = inside {
                    texts[index].push_str(&text.xml10_content());
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let all = texts.iter().all(|text| !text.is_empty());
    all.then_some(texts)
}

/// The format of the request and its answer.
#[derive(Clone, Copy)]
enum BulkFormat {
    Xml,
    Json,
}

impl BulkFormat {
    /// Decides by `Content-Type`, then by `Accept`. Default: XML.
    fn of(headers: &HeaderMap) -> Self {
        let wanted = headers.get(CONTENT_TYPE).or_else(|| headers.get(ACCEPT));
        let wanted = wanted.and_then(|wanted| wanted.to_str().ok());
        if wanted.is_some_and(|wanted| wanted.starts_with("application/json")) {
            Self::Json
        } else {
            Self::Xml
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Xml => "application/xml",
            Self::Json => "application/json;charset=UTF-8",
        })
    }

    /// The members of a request with these names. `None` if one of them is missing or empty.
    fn members<const N: usize>(self, body: &[u8], names: [&str; N]) -> Option<[String; N]> {
        match self {
            Self::Xml => elements(body, names),
            Self::Json => {
                let body: Value = serde_json::from_slice(body).ok()?;
                let texts = names.map(|name| body[name].as_str().unwrap_or_default().to_owned());
                let all = texts.iter().all(|text| !text.is_empty());
                all.then_some(texts)
            }
        }
    }

    fn job(self, status: StatusCode, version: u16, job: &BulkJob) -> HttpAnswer {
        let BulkJob {
            id,
            operation,
            object,
            state,
        } = job;
        let state = state.name();
        let body = match self {
            Self::Json => json!({
                "apiVersion": f64::from(version),
                "createdById": USER_ID,
                "id": id,
                "object": object,
                "operation": operation,
                "state": state,
            })
            .to_string(),
            Self::Xml => format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><jobInfo xmlns=\"{NAMESPACE}\">\
                 <id>{id}</id><operation>{}</operation><object>{}</object>\
                 <createdById>{USER_ID}</createdById><state>{state}</state>\
                 <apiVersion>{version}.0</apiVersion></jobInfo>",
                escape(operation),
                escape(object),
            ),
        };
        answer::with_body(status, self.content_type(), body)
    }

    fn bad_request(self, code: &str, message: &str) -> HttpAnswer {
        self.error(StatusCode::BAD_REQUEST, code, message)
    }

    fn error(self, status: StatusCode, code: &str, message: &str) -> HttpAnswer {
        let body = match self {
            Self::Json => json!({ "exceptionCode": code, "exceptionMessage": message }).to_string(),
            Self::Xml => format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><error\n   xmlns=\"{NAMESPACE}\">\n \
                 <exceptionCode>{}</exceptionCode>\n \
                 <exceptionMessage>{}</exceptionMessage>\n</error>",
                escape(code),
                escape(message),
            ),
        };
        answer::with_body(status, self.content_type(), body)
    }
}
