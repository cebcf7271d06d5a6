//! Answers of the REST API, before they are HTTP: a composite request has several.

use http::header::ALLOW;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use crate::emulator::wire::answer::{self, HttpAnswer};

pub(in crate::emulator::endpoint) struct RestAnswer {
    pub(super) status: StatusCode,
    /// `None` for an answer without a body.
    pub(super) body: Option<Value>,
    /// The methods that the resource has. `None` if the request used one of them.
    allowed: Option<&'static str>,
}

impl RestAnswer {
    pub(super) fn ok(body: Value) -> Self {
        Self::new(StatusCode::OK, body)
    }

    pub(super) fn new(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            body: Some(body),
            allowed: None,
        }
    }

    /// A success without a body.
    pub(super) fn no_content() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            body: None,
            allowed: None,
        }
    }

    pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::new(status, json!([{ "message": message, "errorCode": code }]))
    }

    pub(super) fn bad_request(code: &str, message: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn not_found() -> Self {
        let message = "The requested resource does not exist";
        Self::error(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    pub(super) fn method_not_allowed(method: &Method, allowed: &'static str) -> Self {
        let message = format!("HTTP Method '{method}' not allowed. Allowed are {allowed}");
        let code = "METHOD_NOT_ALLOWED";
        Self {
            allowed: Some(allowed),
            ..Self::error(StatusCode::METHOD_NOT_ALLOWED, code, &message)
        }
    }

    pub(in crate::emulator::endpoint) fn into_http(self) -> HttpAnswer {
        let mut http = match &self.body {
            Some(body) => answer::json(self.status, body),
            None => answer::empty(),
        };
        *http.status_mut() = self.status;
        if let Some(allowed) = self.allowed {
            let headers = http.headers_mut();
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        http
    }
}

/// A 400 with one error.
pub(in crate::emulator::endpoint) fn bad_request(code: &str, message: &str) -> HttpAnswer {
    answer::error(StatusCode::BAD_REQUEST, code, message)
}
