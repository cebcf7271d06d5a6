//! Error responses of the token endpoint (RFC 6749 §5.2), with a hint for each known one.

use http::StatusCode;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    error::RefreshError,
    http::{
        server_error::{ServerError, unrecognized, with_retry_delay},
        transport::HttpResponse,
    },
};

#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
    error_description: Option<String>,
}

impl ErrorResponse {
    /// Parses JSON, or the form that the revocation endpoint sends.
    fn parse(body: &[u8]) -> Option<Self> {
        if let Ok(response) = serde_json::from_slice(body) {
            return Some(response);
        }
        if body.trim_ascii_start().starts_with(b"<") {
            // An HTML page, whose links may look like a form.
            return None;
        }
        let (mut error, mut error_description) = (None, None);
        for (name, value) in form_urlencoded::parse(body) {
            match &*name {
                "error" => error = Some(value.into_owned()),
                "error_description" => error_description = Some(value.into_owned()),
                _ => {}
            }
        }
        Some(Self {
            error: error?,
            error_description,
        })
    }
}

/// Whether a response with a successful status is a refusal: an overloaded server has been seen to send one. A response
/// that contains a token is not a refusal, because the token must not be lost.
pub(super) fn is_refusal(response: &HttpResponse) -> bool {
    #[derive(Deserialize)]
    struct Tokens {
        access_token: Option<IgnoredAny>,
        refresh_token: Option<IgnoredAny>,
    }

    let has_token =
        |tokens: Tokens| tokens.access_token.is_some() || tokens.refresh_token.is_some();
    serde_json::from_slice::<ErrorResponse>(&response.body).is_ok()
        && !serde_json::from_slice(&response.body).is_ok_and(has_token)
}

/// Reads the refusal of `request`. The error contains none of `secrets`.
pub(super) fn refusal(request: &str, response: &HttpResponse, secrets: &[&str]) -> RefreshError {
    let Some(error) = ErrorResponse::parse(&response.body) else {
        let expected = "OAuth error: expected JSON with an `error` field";
        return unrecognized(request, response, expected);
    };
    let code = &*error.error;
    let description = error.error_description.as_deref().unwrap_or_default();
    let status = response.status;
    let is_overloaded = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    let is_transient = is_transient(code, description) || (is_overloaded && !is_terminal(code));
    let refusal = ServerError {
        host: &response.host,
        request,
        code,
        description,
        hint: hint(code, description),
        is_terminal: !is_transient,
    };
    with_retry_delay(
        refusal.into_error(secrets),
        response,
        code == "rate_limit_exceeded",
    )
}

/// Reads the refusal of a request that carried an access token: an OAuth error, or a single word as plain text.
pub(super) fn plain_refusal(
    request: &str,
    response: &HttpResponse,
    secrets: &[&str],
) -> RefreshError {
    let text = str::from_utf8(&response.body).unwrap_or_default().trim();
    let is_word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if response.status.is_client_error() && is_word(text) {
        let refusal = ServerError {
            host: &response.host,
            request,
            code: text,
            description: "",
            hint: hint(text, ""),
            is_terminal: true,
        };
        return refusal.into_error(secrets);
    }
    refusal(request, response, secrets)
}

/// Reads a refusal that the user's browser carried to the app (RFC 6749 §4.1.2.1).
pub(super) fn authorization_refusal(
    error: &str,
    description: &str,
    secrets: &[&str],
) -> RefreshError {
    // Salesforce's documentation prints some codes with hyphens.
    let code = &*error.replace('-', "_");
    ServerError {
        host: "Salesforce",
        request: "authorization",
        code,
        description,
        hint: hint(code, description),
        is_terminal: !is_transient(code, description),
    }
    .into_error(secrets)
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

/// Whether the code is terminal even with a status of 429 or 5xx.
fn is_terminal(code: &str) -> bool {
    matches!(
        code,
        "invalid_grant"
            | "invalid_client"
            | "invalid_client_id"
            | "inactive_user"
            | "inactive_org"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "unsupported_response_type"
            | "invalid_request"
            | "invalid_scope"
            | "invalid_app_access"
            | "invalid_assertion_type"
            | "invalid_basic_auth_header"
            | "invalid_token"
            | "unsupported_token_type"
            | "access_denied"
            | "redirect_uri_mismatch"
            | "redirect_uri_missing"
            | "app_not_found"
            | "app_blocked"
            | "oauth_flow_disabled"
            | "bad_jti_claim"
    )
}

/// What the user can do about a common refusal.
fn hint(code: &str, description: &str) -> Option<&'static str> {
    let has = |text| contains(description, text);
    Some(match code {
        "invalid_grant" if has("request not supported on this domain") => {
            "client credentials and token exchange work on the org's My Domain only, \
             https://<MyDomainName>.my.salesforce.com, not on login or test.salesforce.com"
        }
        "invalid_grant" if has("no client credentials user enabled") => {
            "choose a Run As user in the app's client credentials flow policy"
        }
        "invalid_grant" if has("expired access/refresh token") => {
            "the refresh token was revoked, has expired, was used twice, or belongs to another login host; a new \
             authorization is needed"
        }
        "invalid_grant" if has("authorization code") => {
            "a code can be exchanged once, within a few minutes; begin a new authorization"
        }
        "invalid_grant" if has("code verifier") => {
            "the code belongs to an authorization that began with another verifier: store each verifier together with \
             the `state` of its authorization"
        }
        "invalid_grant" if has("ip restricted") => {
            "the app's or the profile's IP policy excludes this address"
        }
        "invalid_grant" if has("authentication failure") => {
            "wrong user name, password or security token, a locked user, or a blocked flow (Setup > OAuth and OpenID \
             Connect Settings); do not repeat the login, since each attempt counts towards a lockout"
        }
        "invalid_grant" if has("hasn't approved this consumer") => {
            "pre-authorize the user (the app's policies: Admin approved users, and a profile or permission set), or \
             have the user authorize the app once, with the scope refresh_token; check that the login URL belongs to \
             the user's org"
        }
        "invalid_grant" if has("invalid assertion") => {
            "check that the app has the key's certificate, and that this machine's clock is right"
        }
        "invalid_grant" if has("audience") => {
            "the audience must be https://login.salesforce.com, https://test.salesforce.com for a sandbox, or the \
             site's login URL"
        }
        _ if has("data not available") => {
            "the org no longer exists, for example because it was a scratch org and has expired"
        }
        "invalid_grant" if has("inactive user") => "the user was deactivated",
        "invalid_grant" if has("login hours") => "the profile's login hours exclude this time",
        "invalid_app_access" => {
            "assign the app to the user's profile or permission set (the app's policies: Admin approved users)"
        }
        "invalid_client_id" => {
            "this host does not know the app: check the consumer key and the login URL; a new app may need ten minutes"
        }
        "invalid_client" => "check the consumer secret",
        "invalid_request" if has("refresh_token") => "add the scope refresh_token to the app",
        "invalid_scope" => "ask for scopes that the app has",
        "unsupported_grant_type" | "oauth_flow_disabled" => {
            "enable the flow in the app's OAuth settings"
        }
        "redirect_uri_mismatch" => {
            "the redirect URI must equal one of the app's callback URLs exactly"
        }
        "Bad_OAuth_Token" => "the session has expired, or was revoked",
        "access_denied" => "the user did not allow it",
        "immediate_unsuccessful" => {
            "the user has to log in or consent: ask again without `immediate`"
        }
        "app_not_found" | "app_blocked" => {
            "have an administrator install or unblock the app (Setup > Connected Apps OAuth Usage)"
        }
        "inactive_org" => "the org is locked, closed or suspended",
        "rate_limit_exceeded" => {
            "a user may log in 3,600 times an hour: keep sessions longer, and wait an hour"
        }
        _ => return None,
    })
}

fn contains(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase().contains(part)
}
