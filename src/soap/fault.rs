//! SOAP faults, with a hint for each known one.

use super::envelope::Elements;
use crate::{
    error::RefreshError,
    http::{
        server_error::{ServerError, unrecognized, with_retry_delay},
        transport::HttpResponse,
    },
    text::xml,
};

/// The elements of a successful `response` to `request`. A fault, or a response without an envelope, is an error.
pub(super) fn parse_response(
    request: &str,
    response: &HttpResponse,
    secrets: &[&str],
) -> Result<Elements, RefreshError> {
    let elements = Elements::parse(&response.body);
    let fault = elements.as_ref().and_then(|elements| {
        let code = elements
            .text("exceptionCode")
            .or_else(|| elements.text("faultcode"))?;
        let message = elements
            .text("exceptionMessage")
            .or_else(|| elements.text("faultstring"));
        Some((code, message.unwrap_or_default()))
    });
    let refusal = fault.map(|(code, message)| refusal(request, response, code, message, secrets));
    match (refusal, elements) {
        (Some(refusal), _) => Err(refusal),
        (None, Some(elements)) if response.status.is_success() => Ok(elements),
        _ => Err(unrecognized(request, response, "SOAP envelope")),
    }
}

fn refusal(
    request: &str,
    response: &HttpResponse,
    code: &str,
    message: &str,
    secrets: &[&str],
) -> RefreshError {
    // The code is `sf:INVALID_LOGIN`, or `INVALID_LOGIN` without the prefix.
    let code = xml::local(code);
    let is_login_rate = code == "LOGIN_RATE_EXCEEDED";
    let is_transient = is_login_rate
        || matches!(
            code,
            // SOAP 1.1 §4.4.1: the same message may succeed later.
            "Server" | "SERVER_UNAVAILABLE" | "ORG_IN_MAINTENANCE" | "UNKNOWN_EXCEPTION"
        );
    let refusal = ServerError {
        host: &response.host,
        request,
        code,
        description: message,
        hint: hint(code, message),
        is_terminal: !is_transient,
    };
    with_retry_delay(refusal.into_error(secrets), response, is_login_rate)
}

fn hint(code: &str, message: &str) -> Option<&'static str> {
    let message = message.to_ascii_lowercase();
    Some(match code {
        "INVALID_LOGIN" => {
            "check the login URL, which is different for a sandbox, and the security token, which changes with the \
             password; do not repeat the login, since each attempt counts towards a lockout"
        }
        "LOGIN_MUST_USE_SECURITY_TOKEN" => {
            "add the user's security token, or this address to the org's trusted IP ranges"
        }
        "LOGIN_DURING_RESTRICTED_DOMAIN" => "the profile's login IP ranges exclude this address",
        "LOGIN_DURING_RESTRICTED_TIME" => "the profile's login hours exclude this time",
        "PASSWORD_LOCKOUT" => {
            "wait until the lockout is over, or have an administrator unlock the user"
        }
        "API_DISABLED_FOR_ORG" | "API_CURRENTLY_DISABLED" => {
            "the org's edition, or the user's permissions, do not include the API"
        }
        "INSUFFICIENT_ACCESS" => {
            "SOAP login() is turned off in this org, or the user lacks the permission \"Use Any API Auth\""
        }
        "UNSUPPORTED_API_VERSION" => "login() needs an API version from 31.0 to 64.0",
        // Servers send one text or the other.
        _ if message.contains("login operation is not available")
            || message.contains("no operation available") =>
        {
            "SOAP login() exists up to API version 64.0 only, and is retired in Summer '27: use another flow"
        }
        _ => return None,
    })
}
