//! The introspection endpoint (RFC 7662).

use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::dpop;
use super::token::{SecretRule, TokenRefusal, authenticate};
use crate::emulator::state::app::CLIENT_ID;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::sessions::TokenKind;
use crate::emulator::state::user::USERNAME;
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::form::Form;

/// The lifetime of an unused opaque session in seconds: the default of an org.
const INACTIVITY_TIMEOUT: u64 = 2 * 60 * 60;

/// The distance from `nbf` to `iat` in seconds.
const CLOCK_SKEW: u64 = 5;

pub(crate) fn answer(org: &Backend, parts: &Parts, body: &[u8]) -> HttpAnswer {
    org.state().counters.introspections += 1;
    let answer = match introspect(org, parts, body) {
        Ok(body) => answer::json(StatusCode::OK, &body),
        Err(refusal) => refusal.answer(),
    };
    dpop::add_nonce(org, answer)
}

fn introspect(org: &Backend, parts: &Parts, body: &[u8]) -> Result<Value, TokenRefusal> {
    if parts.method != Method::POST {
        return Err(TokenRefusal::new("invalid_request", "must use HTTP POST"));
    }
    dpop::key_of_request(org, parts)?;
    let form = Form::read(parts, body)?;
    authenticate(org, parts, &form, SecretRule::Required)?;
    let token = form.get("token").unwrap_or_default();
    let now = org.now();
    let state = org.state();
    let Some(known) = state.sessions.look_up(token, now) else {
        return Ok(json!({ "active": false }));
    };
    let mut body = json!({
        "active": true,
        "scope": known.scope,
        "client_id": CLIENT_ID,
        "username": USERNAME,
        "sub": state.identity_url(),
        "iat": known.issued,
        "nbf": known.issued.saturating_sub(CLOCK_SKEW),
    });
    match known.kind {
        TokenKind::Refresh => body["token_type"] = "refresh_token".into(),
        TokenKind::Access => {
            body["token_type"] = "access_token".into();
            body["exp"] = known.ends.unwrap_or(now + INACTIVITY_TIMEOUT).into();
        }
    }
    Ok(body)
}
