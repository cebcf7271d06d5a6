//! Errors that a browser is shown, because the app must not be told.

use std::fmt;

use crate::emulator::wire::form::Duplicate;

/// What a browser is shown instead of being sent back to the app.
///
/// From [`Org::approve`] and [`Org::deny`]: the authorization request is of the kind that must not
/// be answered with a redirect (RFC 6749 §4.1.2.1), or the org does not let the app have it.
///
/// [`Org::approve`]: crate::emulator::Org::approve
/// [`Org::deny`]: crate::emulator::Org::deny
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    error: &'static str,
    description: String,
}

impl ErrorPage {
    pub(crate) fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self {
            error,
            description: description.into(),
        }
    }

    pub(super) fn redirect_mismatch() -> Self {
        Self::new(
            "redirect_uri_mismatch",
            "redirect_uri must match configuration",
        )
    }

    /// The error code on the page, for instance `redirect_uri_mismatch`.
    pub fn error(&self) -> &str {
        self.error
    }

    /// What the page says about it.
    pub fn description(&self) -> &str {
        &self.description
    }
}

impl fmt::Display for ErrorPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error, self.description)
    }
}

impl std::error::Error for ErrorPage {}

impl From<Duplicate> for ErrorPage {
    fn from(Duplicate(name): Duplicate) -> Self {
        Self::new("invalid_request", format!("duplicate parameter: {name}"))
    }
}
