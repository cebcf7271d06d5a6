//! Error responses of the token endpoint (RFC 6749 §5.2), and what they mean.

use std::time::Duration;

use serde::Deserialize;

use crate::{
    error::{RefreshError, RefreshErrorKind},
    transport::Answer,
};

/// Salesforce counts logins by the hour.
const LOGIN_RATE_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Longer texts are cut: an error is read by people.
const MAX_DESCRIPTION: usize = 200;

#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
    error_description: Option<String>,
}

/// Reads a refusal of `host` to accept a grant. `secrets` are kept out of what it says.
pub(super) fn refusal(
    host: &str,
    grant_type: &str,
    answer: &Answer,
    secrets: &[&str],
) -> RefreshError {
    let status = answer.status;
    let Ok(response) = serde_json::from_slice::<ErrorResponse>(&answer.body) else {
        // A maintenance page, a gateway, a proxy: nothing that says that the grant is dead.
        let error = RefreshError::new(
            RefreshErrorKind::InvalidResponse,
            false,
            format!(
                "{host} answered the {grant_type} grant with {status} and no OAuth error: expected JSON with an \
                 `error` field"
            ),
        );
        return with_retry_after(error, answer.retry_after);
    };
    let code = legible(&response.error, secrets);
    let description = legible(
        response.error_description.as_deref().unwrap_or_default(),
        secrets,
    );
    let is_in_trouble = status.is_server_error() || status.as_u16() == 429;
    let is_transient =
        is_transient(&code, &description) || (is_in_trouble && !is_known_to_be_terminal(&code));
    let mut message = format!("{host} refused the {grant_type} grant: {code}");
    if !description.is_empty() {
        message += " (";
        message += &description;
        message += ")";
    }
    if let Some(hint) = hint(&code, &description) {
        message += ": ";
        message += hint;
    }
    let error = RefreshError::new(RefreshErrorKind::Refused, !is_transient, message)
        .with_oauth_error(&code);
    let rate_pause = (code == "rate_limit_exceeded").then_some(LOGIN_RATE_PAUSE);
    with_retry_after(error, answer.retry_after.or(rate_pause))
}

fn with_retry_after(error: RefreshError, retry_after: Option<Duration>) -> RefreshError {
    match retry_after {
        Some(delay) => error.with_retry_after(delay),
        None => error,
    }
}

/// Whether the same request may be accepted later.
fn is_transient(code: &str, description: &str) -> bool {
    match code {
        "invalid_grant" => contains(description, "token request is already being processed"),
        "unknown_error"
        | "server_error"
        | "service_unavailable"
        | "system_down"
        | "login_error"
        | "temporarily_unavailable"
        | "rate_limit_exceeded" => true,
        _ => false,
    }
}

/// Codes that mean the same whatever the status.
fn is_known_to_be_terminal(code: &str) -> bool {
    matches!(
        code,
        "invalid_grant"
            | "invalid_client"
            | "invalid_client_id"
            | "inactive_user"
            | "inactive_org"
            | "unauthorized_client"
            | "unsupported_grant_type"
    )
}

/// What to do about the refusals that people meet.
fn hint(code: &str, description: &str) -> Option<&'static str> {
    let has = |text| contains(description, text);
    Some(match code {
        "invalid_grant" if has("request not supported on this domain") => {
            "client credentials work on the org's My Domain only, https://<MyDomainName>.my.salesforce.com, not on \
             login or test.salesforce.com"
        }
        "invalid_grant" if has("no client credentials user enabled") => {
            "choose a Run As user in the app's client credentials flow policy"
        }
        "invalid_grant" if has("expired access/refresh token") => {
            "the refresh token was revoked, has expired, was used twice, or is of another login host; a new \
             authorization is needed"
        }
        "invalid_grant" if has("ip restricted") => {
            "the app's or the profile's IP policy excludes this address"
        }
        "invalid_client_id" => {
            "there is no such app on this host: check the consumer key and the login URL; a new app may need ten minutes"
        }
        "invalid_client" => "check the consumer secret",
        "unsupported_grant_type" => "enable the flow in the app's OAuth settings",
        _ => return None,
    })
}

fn contains(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase().contains(part)
}

/// What a server wrote, on one line, without secrets, and not too long.
fn legible(text: &str, secrets: &[&str]) -> String {
    // As they are, and as they were sent. The longest first: one may be the beginning of another.
    let mut secrets: Vec<String> = secrets
        .iter()
        .flat_map(|secret| [(*secret).to_owned(), form_encoded(secret)])
        .filter(|secret| !secret.is_empty())
        .collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut text = text.to_owned();
    for secret in &secrets {
        text = text.replace(secret, "[redacted]");
    }
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_DESCRIPTION)
        .collect()
}

fn form_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
