//! Data calls: checks the session first, and then answers the request.

use http::HeaderMap;
use http::header::ACCEPT;
use http::request::Parts;
use http_body::Body;

use super::dpop;
use super::echo;
use super::ingest;
use super::rest::{self, Resource};
use crate::emulator::fault::MetFault;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::dpop::ProofRefusal;
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
    if let Some(refusal) = reject(org, parts, &fault) {
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
fn reject(org: &Backend, parts: &Parts, fault: &MetFault) -> Option<EarlyAnswer> {
    let headers = &parts.headers;
    let presented = dpop::presented(headers);
    let now = org.now();
    let mut state = org.state();
    let state = &mut *state;
    let proven = presented.map(|presented| {
        let (dpop, sessions) = (&mut state.dpop, &state.sessions);
        let needs_nonce = dpop.needs_nonce_for_data;
        presented.check((dpop, sessions), (parts, now), needs_nonce)
    });
    let demands_nonce = proven == Some(Err(ProofRefusal::Nonce));
    let token = presented.map(|presented| presented.token);
    let counters = &mut state.counters;
    counters.data_requests += 1;
    let answer = match fault.refusal(answer::error) {
        Some(refusal) => {
            counters.data_refused += 1;
            refusal
        }
        _ if state.refusal_of_sessions.is_none()
            && proven == Some(Ok(()))
            && token.is_some_and(|token| state.sessions.spend_call(token, now)) =>
        {
            counters.data_accepted += 1;
            return None;
        }
        _ if token.is_some_and(is_bad_jwt) => {
            counters.data_rejected += 1;
            answer::invalid_jwt()
        }
        _ => {
            counters.data_rejected += 1;
            let number = counters.requests;
            let message = state.refusal_of_sessions.as_deref();
            let message = message.unwrap_or("Session expired or invalid");
            let answer =
                answer::invalid_session(number, wants_xml(headers), message, state.error_body_size);
            if demands_nonce {
                dpop::demand_nonce(state, answer)
            } else {
                answer
            }
        }
    };
    Some(EarlyAnswer {
        answer,
        read_at_most: state.answer_early,
    })
}

/// Whether a token looks like a JWT that the org did not sign.
fn is_bad_jwt(token: &str) -> bool {
    token.starts_with("eyJ") && Key::of_org().verify(token).is_none()
}

fn wants_xml(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("application/xml"))
}
