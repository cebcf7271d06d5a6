//! Data calls: checks the session first, and then answers the request.

use http::HeaderMap;
use http::header::{ACCEPT, AUTHORIZATION};
use http::request::Parts;
use http_body::Body;

use super::echo;
use super::ingest;
use super::rest::{self, Resource};
use crate::emulator::fault::MetFault;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::keys::Key;
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::receive::{collect, discard};
use crate::error::BoxError;

/// Answers a call to the path that continues with `path` after `/services/data/`.
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
    if let Some(refusal) = reject(org, &parts.headers, &fault) {
        discard(body, refusal.read_at_most).await?;
        fault.wait(&org.data_fault).await;
        return fault.deliver(refusal.answer);
    }
    let (version, resource) = rest::resource(path);
    let mut answer = match resource {
        Resource::Echo => {
            let received = echo::digest(body).await?;
            fault.wait(&org.data_fault).await;
            echo::answer(parts, &received)
        }
        Resource::Ingest { path } => {
            ingest::answer(org, parts, (version, path), body, &fault).await?
        }
        resource => {
            let body = collect(body).await?;
            fault.wait(&org.data_fault).await;
            let request = (&parts.method, &parts.uri, &parts.headers);
            rest::carry_out(&mut org.state(), request, (version, resource), &body).into_http()
        }
    };
    rest::report_usage(answer.headers_mut(), org.state().counters.data_accepted);
    fault.deliver(answer)
}

/// An answer that does not depend on the resource.
struct EarlyAnswer {
    answer: HttpAnswer,
    /// How much of the body to read before the answer. `None` for all of it.
    read_at_most: Option<usize>,
}

/// Decides on arrival whether to reject the call.
fn reject(org: &Backend, headers: &HeaderMap, fault: &MetFault) -> Option<EarlyAnswer> {
    let now = org.now();
    let mut state = org.state();
    let state = &mut *state;
    let counters = &mut state.counters;
    counters.data_requests += 1;
    let answer = match fault.refusal(answer::error) {
        Some(refusal) => {
            counters.data_refused += 1;
            refusal
        }
        _ if state.refusal_of_sessions.is_none()
            && access_token(headers).is_some_and(|token| state.sessions.spend_call(token, now)) =>
        {
            counters.data_accepted += 1;
            return None;
        }
        _ if access_token(headers).is_some_and(is_bad_jwt) => {
            counters.data_rejected += 1;
            answer::invalid_jwt()
        }
        _ => {
            counters.data_rejected += 1;
            let number = counters.requests;
            let message = state.refusal_of_sessions.as_deref();
            let message = message.unwrap_or("Session expired or invalid");
            answer::invalid_session(number, wants_xml(headers), message, state.error_body_size)
        }
    };
    Some(EarlyAnswer {
        answer,
        read_at_most: state.answer_early,
    })
}

/// The token of the `Authorization` header. `None` if there are two of them. Salesforce accepts two
/// schemes; `OAuth` is the older one.
pub(crate) fn access_token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("Bearer") || scheme.eq_ignore_ascii_case("OAuth");
    known.then_some(token)
}

/// Whether a token looks like a JWT that the org did not sign.
fn is_bad_jwt(token: &str) -> bool {
    token.starts_with("eyJ") && Key::of_org().verify(token).is_none()
}

fn wants_xml(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("application/xml"))
}
