//! Errors for the browser, where a redirect to the app is not allowed.

use std::fmt;

use crate::emulator::wire::form::Duplicate;

/// The error page that a browser gets instead of a redirect to the app.
///
/// [`Org::approve`] and [`Org::deny`] return it. Either RFC 6749 §4.1.2.1 forbids a redirect for
/// the request, or the org refuses the app.
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

    /// The explanation on the page.
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
