//! What the org demands of proofs (RFC 9449), and the ids and nonces of those that it has seen.

use std::collections::HashSet;

use http::HeaderValue;
use http::request::Parts;

use super::sessions::SessionTable;
use crate::emulator::wire::proof::Proof;

/// The settings of the app and of the org that concern proofs.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting of its own, and all are independent"
)]
pub(crate) struct Dpop {
    /// Whether the app refuses token requests without a proof.
    pub(crate) required: bool,
    /// Whether the org knows nothing of proofs.
    pub(crate) ignored: bool,
    /// Whether the OAuth endpoints demand a nonce.
    pub(crate) needs_nonce: bool,
    /// Whether data calls demand one.
    pub(crate) needs_nonce_for_data: bool,
    /// Whether no nonce is ever good enough.
    pub(crate) changes_always: bool,
    nonce: u64,
    /// The ids of all proofs.
    jtis: HashSet<String>,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) nonces_demanded: u64,
}

/// Why a proof is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ProofRefusal {
    /// It has not the nonce that the org demands.
    Nonce,
    Invalid(String),
}

impl Dpop {
    /// Makes the nonces so far invalid.
    pub(crate) fn rotate_nonce(&mut self) {
        self.nonce += 1;
    }

    /// The nonce that the next proof has to have.
    pub(crate) fn nonce(&self) -> HeaderValue {
        // Digits are always a header value.
        HeaderValue::try_from(format!("nonce-{:032}", self.nonce))
            .unwrap_or_else(|_| HeaderValue::from_static("nonce"))
    }

    /// Takes the proof in the header of a request to an OAuth endpoint, which has no access token. Returns the thumbprint of its
    /// key. `None` if there is no proof.
    pub(crate) fn take_proof(
        &mut self,
        parts: &Parts,
        now: u64,
    ) -> Result<Option<String>, ProofRefusal> {
        if self.ignored {
            return Ok(None);
        }
        let checked = Proof::of(parts, now)
            .map_err(ProofRefusal::Invalid)
            .and_then(|proof| match proof {
                Some(proof) if proof.has_hash() => {
                    let reason = "ath is there, and no access token".to_owned();
                    Err(ProofRefusal::Invalid(reason))
                }
                Some(proof) => self.use_up(proof, self.needs_nonce).map(Some),
                None => Ok(None),
            });
        self.count(checked)
    }

    /// Whether a request may use a bound access token, by the proof `text`. `key` is the thumbprint that the token is bound to.
    pub(crate) fn check_proof(
        &mut self,
        text: &str,
        (parts, now): (&Parts, u64),
        (token, key): (&str, &str),
        needs_nonce: bool,
    ) -> Result<(), ProofRefusal> {
        let checked = Proof::verify(text, parts, now)
            .map_err(ProofRefusal::Invalid)
            .and_then(|proof| {
                let reason = if proof.thumbprint != *key {
                    "the token is bound to another key"
                } else if !proof.is_of_token(token) {
                    "ath is not the hash of the access token"
                } else {
                    return self.use_up(proof, needs_nonce).map(Some);
                };
                Err(ProofRefusal::Invalid(reason.to_owned()))
            });
        self.count(checked).map(drop)
    }

    fn use_up(&mut self, proof: Proof, needs_nonce: bool) -> Result<String, ProofRefusal> {
        if needs_nonce {
            let is_newest =
                proof.nonce.as_deref().map(str::as_bytes) == Some(self.nonce().as_bytes());
            if self.changes_always {
                self.rotate_nonce();
            }
            if !is_newest || self.changes_always {
                return Err(ProofRefusal::Nonce);
            }
        }
        if !self.jtis.insert(proof.jti) {
            let reason = "jti was used before".to_owned();
            return Err(ProofRefusal::Invalid(reason));
        }
        Ok(proof.thumbprint)
    }

    fn count(
        &mut self,
        checked: Result<Option<String>, ProofRefusal>,
    ) -> Result<Option<String>, ProofRefusal> {
        match &checked {
            Ok(None) => {}
            Ok(Some(_)) => self.accepted += 1,
            Err(ProofRefusal::Nonce) => self.nonces_demanded += 1,
            Err(ProofRefusal::Invalid(_)) => self.refused += 1,
        }
        checked
    }
}

/// How a request proves that it may use its access token.
#[derive(Clone, Copy)]
pub(crate) struct Presented<'a> {
    pub(crate) token: &'a str,
    /// Whether the token came with the scheme `DPoP`. `None` where there are no schemes.
    pub(crate) is_bound: Option<bool>,
    /// `None` without a proof.
    pub(crate) proof: Option<&'a str>,
}

impl Presented<'_> {
    /// Whether the token may be used, as far as proofs go.
    pub(crate) fn check(
        self,
        (dpop, sessions): (&mut Dpop, &SessionTable),
        (parts, now): (&Parts, u64),
        needs_nonce: bool,
    ) -> Result<(), ProofRefusal> {
        let invalid = |reason: &str| Err(ProofRefusal::Invalid(reason.to_owned()));
        match (sessions.key_of(self.token), self.is_bound, self.proof) {
            (None, None | Some(false), _) => Ok(()),
            (None, Some(true), _) => invalid("the token is not bound"),
            (Some(_), Some(false), _) => invalid("the token is bound"),
            (Some(_), _, None) => invalid("there is no proof"),
            (Some(key), _, Some(proof)) => {
                dpop.check_proof(proof, (parts, now), (self.token, &key), needs_nonce)
            }
        }
    }
}
