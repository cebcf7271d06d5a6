//! Error responses of the token endpoint (RFC 6749 §5.2), in any shape that can be read.

use crate::{
    error::RefreshError,
    http::{
        advice,
        response::HttpResponse,
        server_error::{RefusedProof, RestError, ServerError, is_overloaded, unrecognized},
    },
    secret::Secret,
    text::{
        fields::{Fields, is_placeholder},
        json::is_blank,
    },
};

/// The fields that tell a refusal from a success.
const FIELDS: [&str; 4] = [
    "error",
    "error_description",
    "access_token",
    "refresh_token",
];

struct ErrorResponse {
    code: String,
    description: String,
    /// Whether the error may belong to another object than the tokens beside it.
    is_doubtful: bool,
}

impl ErrorResponse {
    fn of(fields: &Fields) -> Option<Self> {
        let inner = fields.inner("error");
        let texts = |name: &str| fields.string(name).or_else(|| fields.first_string(name));
        let inner_texts = |names: &[&str]| {
            let inner = inner.as_ref()?;
            names.iter().find_map(|name| inner.string(name))
        };
        let code = texts("error")
            .or_else(|| inner_texts(&["error", "code", "errorCode", "type"]))
            .filter(|code| !is_placeholder(code));
        let description = texts("error_description")
            .or_else(|| inner_texts(&["error_description", "message", "description"]));
        let (code, description) = match code {
            Some(code) => {
                let description = description.or_else(|| texts("message"));
                with_description(code, description.unwrap_or_default())
            }
            // Some descriptions come with one code only. A `message` alone may be that of a gateway.
            None => {
                let description = description?;
                (advice::code_of(&description)?.to_owned(), description)
            }
        };
        Some(Self {
            code,
            description,
            is_doubtful: fields.is_doubtful("error"),
        })
    }
}

/// Separates `invalid_grant: expired access/refresh token`.
fn with_description(code: String, description: String) -> (String, String) {
    match code.split_once([':', ' ']) {
        Some((known, rest)) if description.is_empty() && advice::is_known(known) => {
            (known.to_owned(), rest.trim().to_owned())
        }
        _ => (code, description),
    }
}

/// Reads the fields that tell a refusal from a success, and the refusal, if there is one.
fn read(response: &HttpResponse) -> (Fields, Option<ErrorResponse>) {
    let fields = response.fields(&FIELDS).unwrap_or_default();
    let error = ErrorResponse::of(&fields);
    // The scripts of an HTML page may look like an error.
    let error = error.filter(|error| advice::is_known(&error.code) || !response.is_html());
    (fields, error)
}

/// Returns a response that is not a refusal. Any other is an error, which contains none of `secrets`.
///
/// An `error` that can be read is a refusal, with any status: an overloaded server has been seen to send one with 200. The
/// refresh token beside it is kept.
pub(super) fn check(
    request: &str,
    response: HttpResponse,
    secrets: &[&str],
) -> Result<HttpResponse, RefreshError> {
    let (fields, error) = read(&response);
    let has_access_token = fields.token("access_token").is_some();
    let error = error.filter(|error| !(error.is_doubtful && has_access_token));
    let is_success = response.status.is_success() || has_access_token;
    if is_success && error.is_none() {
        return Ok(response);
    }
    let [access_token, refresh_token] =
        ["access_token", "refresh_token"].map(|name| fields.token(name).map(Secret::from));
    let of_answer = [&access_token, &refresh_token].into_iter().flatten();
    let all: Vec<&str> = secrets
        .iter()
        .copied()
        .chain(of_answer.map(Secret::expose))
        .collect();
    let error = refused(request, response, error, &all);
    // A server may repeat the request.
    let rotated = refresh_token.filter(|token| !secrets.contains(&token.expose()));
    Err(error.with_rotated_refresh_token(rotated))
}

/// Makes the error for a response that is no success.
fn refused(
    request: &str,
    response: HttpResponse,
    error: Option<ErrorResponse>,
    secrets: &[&str],
) -> RefreshError {
    match error {
        Some(error) => {
            server_error(request, &response, &error.code, &error.description).into_error(secrets)
        }
        None => {
            let expected = "an OAuth error in JSON, with an `error` field";
            unrecognized(request, response, expected, secrets)
        }
    }
}

fn server_error<'a>(
    request: &'a str,
    response: &'a HttpResponse,
    code: &'a str,
    description: &'a str,
) -> ServerError<'a> {
    ServerError {
        host: &response.host,
        request,
        code,
        description,
        retry_after: response.retry_after,
        is_overloaded: is_overloaded(response.status),
        has_password: response.has_password,
        proof: response.proof.map(|time| RefusedProof {
            time,
            date: response.date.as_deref(),
            has_nonce: response.has_nonce,
        }),
    }
}

/// Reads the refusal of a request that carried an access token: an OAuth error, an error of the REST API, or a single word
/// as plain text.
pub(super) fn plain_refusal(
    request: &str,
    response: HttpResponse,
    secrets: &[&str],
) -> RefreshError {
    let text = response.text();
    let word = text.trim_matches(|c: char| is_blank(c) || c == '"');
    let is_word = !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_word && (response.status.is_client_error() || advice::is_known(word)) {
        return server_error(request, &response, word, "").into_error(secrets);
    }
    if let Some(RestError { code, message }) = RestError::read(&response) {
        return server_error(request, &response, &code, &message).into_error(secrets);
    }
    drop(text);
    let (_, error) = read(&response);
    refused(request, response, error, secrets)
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
        retry_after: None,
        is_overloaded: false,
        has_password: false,
        proof: None,
    }
    .into_error(secrets)
}
