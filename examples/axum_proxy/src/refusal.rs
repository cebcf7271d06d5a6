//! The proxy's own errors, in the format of the REST API. They reveal nothing about the org or its hosts.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::json;
use tower_salesforce_auth::{BoxError, Error, ErrorKind, RefreshErrorKind};

/// Why a request got no answer from the org.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// The caller did not send the key.
    Forbidden,
    /// The proxy forwards nothing at this path.
    NotFound,
    /// The method is not allowed. With the value of `Allow` (RFC 9110 §15.5.6).
    MethodNotAllowed(HeaderValue),
    MethodOverridden,
    BodyTooLarge,
    Busy,
    /// There is no session at the moment. With the time to wait.
    NoSession(Duration),
    /// There is no session until the operator fixes the login.
    ReauthenticationRequired,
    NoAnswer,
    TimedOut,
}

const A_MOMENT: Duration = Duration::from_secs(1);

impl Refusal {
    /// The refusal for an error of the stack. The error itself goes to the log only: it names hosts and their answers.
    pub(crate) fn of(error: &BoxError) -> Self {
        let Some(error) = error.downcast_ref::<Error>() else {
            return Self::NoAnswer;
        };
        match (error.kind(), error.refresh_error()) {
            (_, Some(error)) if error.kind() == RefreshErrorKind::TimedOut => Self::TimedOut,
            (_, Some(error)) if !error.is_terminal() => {
                Self::NoSession(error.retry_after().unwrap_or(A_MOMENT))
            }
            (ErrorKind::Refresh | ErrorKind::NoSession | ErrorKind::LoggedOut, _) => {
                Self::ReauthenticationRequired
            }
            // For example `HttpsClient` got no connection: no login has failed.
            _ => Self::NoAnswer,
        }
    }

    fn parts(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "PROXY_KEY_REQUIRED",
                "Send the key of this proxy in the header X-Api-Key",
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "NOT_FOUND",
                "This proxy has nothing at this path",
            ),
            Self::MethodNotAllowed(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "METHOD_NOT_ALLOWED",
                "This proxy does not allow this method: see Allow",
            ),
            Self::MethodOverridden => (
                StatusCode::BAD_REQUEST,
                "METHOD_OVERRIDDEN",
                "This proxy does not allow the parameter _HttpMethod: use the method itself",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "REQUEST_BODY_TOO_LARGE",
                "The body is larger than this proxy allows",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "PROXY_BUSY",
                "This proxy has as many requests as it takes: try again",
            ),
            Self::NoSession(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "SESSION_UNAVAILABLE",
                "There is no session with Salesforce at the moment: try again",
            ),
            Self::ReauthenticationRequired => (
                StatusCode::BAD_GATEWAY,
                "REAUTHENTICATION_REQUIRED",
                "This proxy cannot log in to Salesforce: tell its operator",
            ),
            Self::NoAnswer => (
                StatusCode::BAD_GATEWAY,
                "UPSTREAM_FAILED",
                "Salesforce could not be reached, or did not answer",
            ),
            Self::TimedOut => (
                StatusCode::GATEWAY_TIMEOUT,
                "UPSTREAM_TIMEOUT",
                "Salesforce did not answer in time",
            ),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error_code, message) = self.parts();
        let body = json!([{ "message": message, "errorCode": error_code }]);
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::MethodNotAllowed(allowed) => {
                headers.insert(ALLOW, allowed);
            }
            Self::Busy => {
                headers.insert(RETRY_AFTER, A_MOMENT.as_secs().into());
            }
            // In whole seconds, rounded up, and at least 1.
            Self::NoSession(wait) => {
                let wait = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                headers.insert(RETRY_AFTER, wait.max(1).into());
            }
            _ => {}
        }
        response
    }
}
