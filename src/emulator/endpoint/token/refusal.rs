//! Refused token requests.

use std::borrow::Cow;

use http::StatusCode;

use crate::emulator::state::dpop::ProofRefusal;
use crate::emulator::state::user::LoginRefusal;
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::form::Duplicate;

/// An error of the token endpoint: `error` and `error_description` (RFC 6749 §5.2).
pub(crate) struct TokenRefusal {
    pub(crate) error: &'static str,
    pub(crate) description: Cow<'static, str>,
}

impl TokenRefusal {
    pub(crate) fn new(error: &'static str, description: impl Into<Cow<'static, str>>) -> Self {
        Self {
            error,
            description: description.into(),
        }
    }

    pub(super) fn invalid_grant(description: &'static str) -> Self {
        Self::new("invalid_grant", description)
    }

    pub(super) fn missing(parameter: &str) -> Self {
        let description = format!("missing required parameter: {parameter}");
        Self::new("invalid_request", description)
    }

    pub(super) fn unknown_client() -> Self {
        Self::new("invalid_client_id", "client identifier invalid")
    }

    pub(super) fn unknown_scope() -> Self {
        Self::new("invalid_scope", "the requested scope is not allowed")
    }

    pub(super) fn not_approved() -> Self {
        Self::invalid_grant("user hasn't approved this consumer")
    }

    pub(super) fn wrong_host() -> Self {
        Self::invalid_grant("request not supported on this domain")
    }

    pub(crate) fn answer(&self) -> HttpAnswer {
        answer::token_error(StatusCode::BAD_REQUEST, self.error, &self.description)
    }
}

impl From<Duplicate> for TokenRefusal {
    fn from(Duplicate(name): Duplicate) -> Self {
        Self::new("invalid_request", format!("duplicate parameter: {name}"))
    }
}

impl From<ProofRefusal> for TokenRefusal {
    fn from(refusal: ProofRefusal) -> Self {
        match refusal {
            ProofRefusal::Nonce => Self::new(
                "use_dpop_nonce",
                "the authorization server requires a nonce in the DPoP proof",
            ),
            ProofRefusal::Invalid(reason) => Self::new("invalid_dpop_proof", reason),
        }
    }
}

impl From<LoginRefusal> for TokenRefusal {
    fn from(refusal: LoginRefusal) -> Self {
        match refusal {
            LoginRefusal::Invalid => Self::invalid_grant("authentication failure"),
            LoginRefusal::Inactive => Self::invalid_grant("inactive user"),
            LoginRefusal::RateExceeded => Self::new("rate_limit_exceeded", "login rate exceeded"),
        }
    }
}
