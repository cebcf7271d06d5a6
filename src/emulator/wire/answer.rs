//! HTTP answers.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

pub(crate) type HttpAnswer = Response<Full<Bytes>>;

const JSON_UTF8: HeaderValue = HeaderValue::from_static("application/json;charset=UTF-8");

/// A JSON answer of the REST API.
pub(crate) fn json(status: StatusCode, body: &Value) -> HttpAnswer {
    with_body(status, JSON_UTF8, body.to_string())
}

/// The error array of the REST API.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> HttpAnswer {
    json(status, &json!([{ "message": message, "errorCode": code }]))
}

/// The answer for an unknown path or record.
pub(crate) fn not_found() -> HttpAnswer {
    error(
        StatusCode::NOT_FOUND,
        "NOT_FOUND",
        "The requested resource does not exist",
    )
}

/// The answer for a known resource and a wrong method.
pub(crate) fn method_not_allowed(method: &http::Method, allowed: &'static str) -> HttpAnswer {
    let message = format!("HTTP Method '{method}' not allowed. Allowed are {allowed}");
    let mut answer = error(
        StatusCode::METHOD_NOT_ALLOWED,
        "METHOD_NOT_ALLOWED",
        &message,
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// A token answer (RFC 6749 §5.1).
pub(crate) fn token(body: &Value) -> HttpAnswer {
    let mut answer = json(StatusCode::OK, body);
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// An error of the token endpoint (RFC 6749 §5.2).
pub(crate) fn token_error(status: StatusCode, error: &str, description: &str) -> HttpAnswer {
    let body = json!({ "error": error, "error_description": description });
    let json = HeaderValue::from_static("application/json");
    let mut answer = with_body(status, json, body.to_string());
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The 401 of an invalid session, with `message`, for the request numbered `request`.
///
/// The headers are those of a recorded answer, `WWW-Authenticate: Token` included. The transport
/// adds its own (`Date`, `Connection`, `Transfer-Encoding`).
pub(crate) fn invalid_session(
    request: u64,
    xml: bool,
    message: &str,
    least_body_size: usize,
) -> HttpAnswer {
    const HEADERS: [(&str, &str); 6] = [
        (
            "cache-control",
            "no-cache,must-revalidate,max-age=0,no-store,private",
        ),
        (
            "strict-transport-security",
            "max-age=63072000; includeSubDomains",
        ),
        ("x-content-type-options", "nosniff"),
        ("x-robots-tag", "none"),
        ("www-authenticate", "Token"),
        ("server", "sfdcedge"),
    ];
    let (content_type, mut body) = if xml {
        (
            HeaderValue::from_static("application/xml;charset=UTF-8"),
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Errors><Error>\
                 <errorCode>INVALID_SESSION_ID</errorCode>\
                 <message>{}</message></Error></Errors>",
                quick_xml::escape::escape(message)
            ),
        )
    } else {
        // Written by hand to keep the recorded order of the members.
        (
            JSON_UTF8,
            format!(
                r#"[{{"message":{},"errorCode":"INVALID_SESSION_ID"}}]"#,
                Value::from(message)
            ),
        )
    };
    // White space after the value is allowed in JSON (RFC 8259 §2) and in XML.
    let padding = least_body_size.saturating_sub(body.len());
    body.extend(std::iter::repeat_n(' ', padding));

    let mut answer = with_body(StatusCode::UNAUTHORIZED, content_type, body);
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::try_from(format!("{request:032x}")) {
        headers.insert("x-sfdc-request-id", id.clone());
        headers.insert("x-request-id", id);
    }
    answer
}

/// The 401 of an access token that looks like a JWT and is not one of the org's.
pub(crate) fn invalid_jwt() -> HttpAnswer {
    let status = StatusCode::UNAUTHORIZED;
    let mut answer = error(status, "INVALID_AUTH_HEADER", "INVALID_JWT_FORMAT");
    answer
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Token"));
    answer
}

/// An HTML page.
pub(crate) fn html(status: StatusCode, body: String) -> HttpAnswer {
    let content_type = HeaderValue::from_static("text/html;charset=UTF-8");
    let mut answer = with_body(status, content_type, body);
    // Pages carry authorization requests, and redirects carry codes.
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A single word, as the identity URL answers.
pub(crate) fn text(status: StatusCode, body: &str) -> HttpAnswer {
    let content_type = HeaderValue::from_static("text/html;charset=UTF-8");
    with_body(status, content_type, body.to_owned())
}

/// A success without a body.
pub(crate) fn empty() -> HttpAnswer {
    Response::new(Full::default())
}

/// A form-encoded body.
pub(crate) fn form(status: StatusCode, body: String) -> HttpAnswer {
    let content_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    with_body(status, content_type, body)
}

/// The page of an instance under maintenance.
pub(crate) fn maintenance() -> HttpAnswer {
    with_body(
        StatusCode::SERVICE_UNAVAILABLE,
        HeaderValue::from_static("text/html;charset=UTF-8"),
        "<html><head><title>Maintenance</title></head>\
         <body>We are down for maintenance.</body></html>"
            .to_owned(),
    )
}

/// An answer of any content type.
pub(crate) fn with_body(status: StatusCode, content_type: HeaderValue, body: String) -> HttpAnswer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}
