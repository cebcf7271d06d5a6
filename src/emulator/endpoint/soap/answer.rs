//! SOAP answers and faults.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::header::ALLOW;
use http::{HeaderValue, StatusCode};
use quick_xml::escape::escape;
use sha2::{Digest, Sha256};

use super::endpoint::SoapEndpoint;
use crate::emulator::wire::answer::{HttpAnswer, with_body};

const XML: HeaderValue = HeaderValue::from_static("text/xml;charset=UTF-8");

/// The result of an operation. `result` is XML.
pub(super) fn success(endpoint: &SoapEndpoint<'_>, operation: &str, result: &str) -> HttpAnswer {
    let namespace = endpoint.namespace();
    let response = if result.is_empty() {
        format!("<{operation}Response/>")
    } else {
        format!("<{operation}Response><result>{result}</result></{operation}Response>")
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns=\"{namespace}\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\
         <soapenv:Body>{response}</soapenv:Body></soapenv:Envelope>"
    );
    with_body(StatusCode::OK, XML, body)
}

/// The fault of a refused login.
pub(super) fn login_fault(
    endpoint: &SoapEndpoint<'_>,
    status: StatusCode,
    code: &str,
    message: &str,
) -> HttpAnswer {
    let string = format!("{code}: {message}");
    api_fault(endpoint, status, "LoginFault", code, &string, message)
}

/// The fault of a call that the org cannot carry out.
pub(super) fn unexpected_error(
    endpoint: &SoapEndpoint<'_>,
    code: &str,
    message: &str,
) -> HttpAnswer {
    let string = format!("{code}: {message}");
    unexpected_error_fault(endpoint, code, &string, message)
}

/// The fault of an invalid session.
pub(super) fn invalid_session_id(endpoint: &SoapEndpoint<'_>, session_id: &str) -> HttpAnswer {
    let hash = STANDARD.encode(Sha256::digest(session_id));
    let code = "INVALID_SESSION_ID";
    let message = format!(
        "Invalid Session ID found in SessionHeader: Illegal Session. \
         Session not found, missing session hash: {hash}"
    );
    let string = format!(
        "{code}: {message}\nThis error usually occurs after a session expires or a user logs out."
    );
    unexpected_error_fault(endpoint, code, &string, &message)
}

/// The fault of a request that reaches no operation. It has no detail.
pub(super) fn client_fault(message: &str) -> HttpAnswer {
    let message = escape(message);
    let body = format!(
        "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\">\
         <soapenv:Body><soapenv:Fault><faultcode>soapenv:Client</faultcode>\
         <faultstring>{message}</faultstring></soapenv:Fault></soapenv:Body></soapenv:Envelope>"
    );
    with_body(StatusCode::INTERNAL_SERVER_ERROR, XML, body)
}

/// The answer to a redirected login that the client turned into a GET.
pub(super) fn only_post_allowed() -> HttpAnswer {
    let html = HeaderValue::from_static("text/html;charset=UTF-8");
    let body = "Only POST allowed".to_owned();
    let mut answer = with_body(StatusCode::METHOD_NOT_ALLOWED, html, body);
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("POST"));
    answer
}

fn unexpected_error_fault(
    endpoint: &SoapEndpoint<'_>,
    code: &str,
    string: &str,
    message: &str,
) -> HttpAnswer {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    api_fault(
        endpoint,
        status,
        "UnexpectedErrorFault",
        code,
        string,
        message,
    )
}

fn api_fault(
    endpoint: &SoapEndpoint<'_>,
    status: StatusCode,
    fault: &str,
    code: &str,
    string: &str,
    message: &str,
) -> HttpAnswer {
    let namespace = endpoint.fault_namespace();
    let (code, string, message) = (escape(code), escape(string), escape(message));
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:sf=\"{namespace}\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\
         <soapenv:Body><soapenv:Fault><faultcode>sf:{code}</faultcode>\
         <faultstring>{string}</faultstring><detail><sf:{fault} xsi:type=\"sf:{fault}\">\
         <sf:exceptionCode>{code}</sf:exceptionCode>\
         <sf:exceptionMessage>{message}</sf:exceptionMessage></sf:{fault}></detail>\
         </soapenv:Fault></soapenv:Body></soapenv:Envelope>"
    );
    with_body(status, XML, body)
}
