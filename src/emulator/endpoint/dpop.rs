//! Proofs (RFC 9449) in the requests to the endpoints, and nonces in their answers.

use std::sync::Arc;

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::emulator::state::OrgState;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::dpop::{Presented, ProofRefusal};
use crate::emulator::wire::answer::HttpAnswer;

const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Checks the proof of a request to an OAuth endpoint. Returns the thumbprint of its key. `None` if there is no proof.
pub(super) fn key_of_request(
    org: &Backend,
    parts: &Parts,
) -> Result<Option<Arc<str>>, ProofRefusal> {
    let now = org.now();
    let key = org.state().dpop.take_proof(parts, now);
    key.map(|key| key.map(Arc::from))
}

/// Adds the nonce for the next proof to an answer of an OAuth endpoint or of the identity, if they demand one.
pub(super) fn add_nonce(org: &Backend, mut answer: HttpAnswer) -> HttpAnswer {
    let state = org.state();
    if state.dpop.needs_nonce {
        answer.headers_mut().insert(DPOP_NONCE, state.dpop.nonce());
    }
    answer
}

/// Demands a nonce of a data call (RFC 9449 §9).
pub(super) fn demand_nonce(state: &OrgState, mut answer: HttpAnswer) -> HttpAnswer {
    let challenge = HeaderValue::from_static(
        "DPoP error=\"use_dpop_nonce\", error_description=\"Resource server requires nonce in DPoP proof\"",
    );
    let headers = answer.headers_mut();
    headers.insert(WWW_AUTHENTICATE, challenge);
    headers.insert(DPOP_NONCE, state.dpop.nonce());
    answer
}

/// The access token of the `Authorization` header, with the proof. `None` if there is no token, or two headers. Salesforce accepts
/// three schemes; `OAuth` is the oldest one.
pub(super) fn presented(headers: &HeaderMap) -> Option<Presented<'_>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let is = |known: &str| scheme.eq_ignore_ascii_case(known);
    let is_bound = is("DPoP");
    (is_bound || is("Bearer") || is("OAuth")).then(|| Presented {
        token,
        is_bound: Some(is_bound),
        proof: proof(headers),
    })
}

/// The proof in the headers. `None` without one, or with two.
pub(super) fn proof(headers: &HeaderMap) -> Option<&str> {
    let mut proofs = headers.get_all("dpop").iter();
    let proof = proofs.next()?.to_str().ok()?;
    proofs.next().is_none().then_some(proof)
}
