//! The revocation endpoint (RFC 7009, with the differences of Salesforce).

use form_urlencoded::Serializer;
use http::header::ACCEPT;
use http::request::Parts;
use http::{Method, StatusCode};
use http_body::Body;

use super::dpop;
use super::token::{SecretRule, TokenRefusal, authenticate};
use crate::emulator::state::backend::Backend;
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::form::Form;
use crate::emulator::wire::receive::collect;
use crate::error::BoxError;

pub(crate) async fn answer<B>(org: &Backend, parts: &Parts, body: B) -> Result<HttpAnswer, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let fault = org.revoke_fault.meet();
    org.state().counters.revoke_requests += 1;
    let body = collect(body).await?;
    let write = |status, error: &str, description: &str| refuse(parts, status, error, description);
    let answer = match fault.refusal(write) {
        Some(refusal) => refusal,
        None => {
            fault.wait(&org.revoke_fault).await;
            revoke(org, parts, &body)
        }
    };
    fault.deliver(dpop::add_nonce(org, answer))
}

fn revoke(org: &Backend, parts: &Parts, body: &[u8]) -> HttpAnswer {
    if parts.method != Method::GET && parts.method != Method::POST {
        return answer::method_not_allowed(&parts.method, "GET,POST");
    }
    if let Err(refusal) = dpop::key_of_request(org, parts) {
        return TokenRefusal::from(refusal).answer();
    }
    let form = Form::read(parts, body).unwrap_or_default();
    let is_strict = org.state().app.authenticates_revocations;
    if is_strict && let Err(refusal) = authenticate(org, parts, &form, SecretRule::AsSetUp) {
        return refusal.answer();
    }
    let token = form.get("token");
    let mut state = org.state();
    if token.is_some_and(|token| state.sessions.revoke(token)) {
        state.counters.tokens_revoked += 1;
        return answer::empty();
    }
    let status = StatusCode::BAD_REQUEST;
    refuse(
        parts,
        status,
        "invalid_token",
        "invalid token: unknown or revoked",
    )
}

/// Writes an error as JSON to clients that accept it, and as a form to the others. Both kinds of
/// client exist.
fn refuse(parts: &Parts, status: StatusCode, error: &str, description: &str) -> HttpAnswer {
    let accept = parts.headers.get(ACCEPT);
    let json = accept
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    if json {
        return answer::token_error(status, error, description);
    }
    let form = Serializer::new(String::new())
        .append_pair("error", error)
        .append_pair("error_description", description)
        .finish();
    answer::form(status, form)
}
