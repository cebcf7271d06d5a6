//! What a server says no with, as an error: OAuth and SOAP refuse in other words, and are told alike.

use std::time::Duration;

use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::transport::Answer,
    text::redact::{redact, redact_code},
};

/// Salesforce counts logins by the hour.
const LOGIN_RATE_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What a server said, word by word: what it means does not depend on what of it can be shown.
pub(crate) struct ServerError<'a> {
    pub(crate) host: &'a str,
    /// What was asked.
    pub(crate) what: &'a str,
    pub(crate) code: &'a str,
    pub(crate) description: &'a str,
    /// What to do about it, if that is known.
    pub(crate) hint: Option<&'static str>,
    pub(crate) is_terminal: bool,
}

impl ServerError<'_> {
    /// The refusal without the `secrets` that the server may repeat.
    pub(crate) fn into_error(self, secrets: &[&str]) -> RefreshError {
        let Self { host, what, .. } = self;
        let code = redact_code(self.code, secrets);
        let description = redact(self.description, secrets);
        let mut message = format!("{host} refused the {what}: {code}");
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

/// Adds how long to wait: as long as the server asked for, or else an hour if logins came too fast.
pub(crate) fn paused(error: RefreshError, answer: &Answer, is_login_rate: bool) -> RefreshError {
    let rate_pause = is_login_rate.then_some(LOGIN_RATE_PAUSE);
    match answer.retry_after.or(rate_pause) {
        Some(delay) => error.with_retry_after(delay),
        None => error,
    }
}
