//! Refusals of a server as [`RefreshError`]s, in the same form for OAuth and SOAP.

use std::time::Duration;

use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::transport::HttpResponse,
    text::redact::{redact, redact_code},
};

/// Salesforce limits the logins of a user per hour.
const LOGIN_RATE_DELAY: Duration = Duration::from_secs(60 * 60);

/// A refusal, with the code and description as the server sent them. They may contain secrets, so
/// [`into_error`](Self::into_error) redacts them.
pub(crate) struct ServerError<'a> {
    pub(crate) host: &'a str,
    /// The name of the refused request, for the message.
    pub(crate) request: &'a str,
    pub(crate) code: &'a str,
    pub(crate) description: &'a str,
    /// What the user can do about the refusal. `None` if the code is not a known one.
    pub(crate) hint: Option<&'static str>,
    pub(crate) is_terminal: bool,
}

impl ServerError<'_> {
    /// Makes the error. Neither its message nor its code contains any of `secrets`, which the server may have repeated.
    pub(crate) fn into_error(self, secrets: &[&str]) -> RefreshError {
        let Self { host, request, .. } = self;
        let code = redact_code(self.code, secrets);
        let description = redact(self.description, secrets);
        let mut message = format!("{host} refused the {request}: {code}");
        if !description.is_empty() {
            message += " (";
            message += &description;
            message += ")";
        }
        if let Some(hint) = self.hint {
            message += ": ";
            message += hint;
        }
        RefreshError::new(RefreshErrorKind::Refused, self.is_terminal, message)
            .with_error_code(&code)
    }
}

/// Adds the delay before the next attempt: the server's `Retry-After`, or one hour after too many logins.
pub(crate) fn with_retry_delay(
    error: RefreshError,
    response: &HttpResponse,
    is_login_rate: bool,
) -> RefreshError {
    let rate_delay = is_login_rate.then_some(LOGIN_RATE_DELAY);
    match response.retry_after.or(rate_delay) {
        Some(delay) => error.with_retry_after(delay),
        None => error,
    }
}

/// The error for a response that is neither a success nor a refusal, and lacks `expected`.
///
/// It is transient: a maintenance page or a gateway's error page says nothing about the grant.
pub(crate) fn unrecognized(request: &str, response: &HttpResponse, expected: &str) -> RefreshError {
    let HttpResponse { host, status, .. } = response;
    let error = RefreshError::new(
        RefreshErrorKind::InvalidResponse,
        false,
        format!("{host} answered the {request} with {status} and no {expected}"),
    );
    with_retry_delay(error, response, false)
}

/// The error for a successful response whose content cannot be used. It is terminal.
pub(crate) fn unusable_response(message: String) -> RefreshError {
    RefreshError::new(RefreshErrorKind::InvalidResponse, true, message)
}
