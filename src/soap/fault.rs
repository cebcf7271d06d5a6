//! SOAP faults.

use super::envelope::Elements;
use crate::{
    error::RefreshError,
    http::{
        advice,
        response::HttpResponse,
        server_error::{ServerError, unrecognized},
    },
    text::xml,
};

/// The elements of a successful `response` to `request`. A fault, or a response without an envelope, is an error.
pub(super) fn parse_response(
    request: &str,
    response: HttpResponse,
    secrets: &[&str],
) -> Result<Elements, RefreshError> {
    let elements = Elements::read(&response.text()).filter(|_| !response.is_html());
    let fault = elements.as_ref().and_then(|elements| {
        let text = elements.text("faultstring");
        // A gateway may replace the code. Salesforce writes it before the text too.
        let code_in_text = || {
            let (code, _) = text?.split_once(':')?;
            (code.contains('_') && advice::is_known(code)).then_some(code)
        };
        let code = elements
            .text("exceptionCode")
            .or_else(code_in_text)
            .or_else(|| elements.text("faultcode"))?;
        let message = elements.text("exceptionMessage").or(text);
        Some(refusal(
            request,
            &response,
            code,
            message.unwrap_or_default(),
            secrets,
        ))
    });
    match (fault, elements) {
        (Some(refusal), _) => Err(refusal),
        (None, Some(elements)) if response.status.is_success() => Ok(elements),
        _ => Err(unrecognized(request, response, "a SOAP envelope", secrets)),
    }
}

fn refusal(
    request: &str,
    response: &HttpResponse,
    code: &str,
    message: &str,
    secrets: &[&str],
) -> RefreshError {
    ServerError {
        host: &response.host,
        request,
        // The code is `sf:INVALID_LOGIN`, or `INVALID_LOGIN` without the prefix.
        code: xml::local(code),
        description: message,
        retry_after: response.retry_after,
        // SOAP sends each fault with the status 500.
        is_overloaded: false,
        has_password: response.has_password,
        proof: None,
    }
    .into_error(secrets)
}
