//! Bulk API 1.0: enough of it to see a session end there.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body;
use quick_xml::Reader;
use quick_xml::escape::escape;
use quick_xml::events::Event;
use serde::Deserialize;
use serde_json::json;

use crate::emulator::fault::MetFault;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::ids::USER_ID;
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::receive::collect;
use crate::emulator::wire::version::ApiVersion;
use crate::error::BoxError;

const NAMESPACE: &str = "http://www.force.com/2009/06/asyncapi/dataload";

/// The id of every job. One is enough, because jobs get no content.
const JOB_ID: &str = "750xx0000000001AAA";

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
    let refusal = reject(org, &parts.headers, form, &fault);
    let body = collect(body).await?;
    fault.wait(&org.data_fault).await;
    let answer = match refusal {
        Some(refusal) => refusal,
        None => match path.split_once('/') {
            Some((version, _))
                if !matches!(ApiVersion::read(version), ApiVersion::Supported(_)) =>
            {
                let message = format!("Invalid Version : {version}");
                form.error(StatusCode::BAD_REQUEST, "InvalidVersion", &message)
            }
            Some((_version, "job" | "job/")) if parts.method == Method::POST => {
                create_job(form, &body)
            }
            _ => form.error(
                StatusCode::BAD_REQUEST,
                "InvalidUrl",
                "Destination URL not found",
            ),
        },
    };
    fault.deliver(answer)
}

fn reject(
    org: &Backend,
    headers: &HeaderMap,
    form: BulkFormat,
    fault: &MetFault,
) -> Option<HttpAnswer> {
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
    let is_valid = state.refusal_of_sessions.is_none()
        && session.is_some_and(|session| state.sessions.spend_call(session, now));
    if is_valid {
        counters.data_accepted += 1;
        return None;
    }
    counters.data_rejected += 1;
    let message = state.refusal_of_sessions.as_deref();
    let message = message.unwrap_or("Invalid session id");
    Some(form.error(StatusCode::BAD_REQUEST, "InvalidSessionId", message))
}

#[derive(Deserialize)]
struct BulkJob {
    operation: String,
    object: String,
}

fn create_job(form: BulkFormat, body: &[u8]) -> HttpAnswer {
    let job = match form {
        BulkFormat::Json => serde_json::from_slice(body).ok(),
        BulkFormat::Xml => BulkJob::from_xml(body),
    };
    let Some(BulkJob { operation, object }) = job else {
        let message = "Unable to parse Job";
        return form.error(StatusCode::BAD_REQUEST, "InvalidJob", message);
    };
    let body = match form {
        BulkFormat::Json => json!({
            "apiVersion": 64.0,
            "createdById": USER_ID,
            "id": JOB_ID,
            "object": object,
            "operation": operation,
            "state": "Open",
        })
        .to_string(),
        BulkFormat::Xml => format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><jobInfo xmlns=\"{NAMESPACE}\">\
             <id>{JOB_ID}</id><operation>{}</operation><object>{}</object>\
             <createdById>{USER_ID}</createdById><state>Open</state></jobInfo>",
            escape(operation),
            escape(object),
        ),
    };
    answer::with_body(StatusCode::CREATED, form.content_type(), body)
}

impl BulkJob {
    fn from_xml(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::from_str(str::from_utf8(body).ok()?);
        let (mut operation, mut object) = (String::new(), String::new());
        let mut name = String::new();
        loop {
            match reader.read_event().ok()? {
                Event::Start(start) => start.local_name().into_inner().clone_into(&mut name),
                Event::End(_) => name.clear(),
                Event::Text(text) => match name.as_str() {
                    "operation" => operation.push_str(&text.xml10_content()),
                    "object" => object.push_str(&text.xml10_content()),
                    _ => {}
                },
                Event::Eof => break,
                _ => {}
            }
        }
        let is_job = !operation.is_empty() && !object.is_empty();
        is_job.then_some(Self { operation, object })
    }
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
