//! Answers with pages and redirects.

use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use super::error_page::ErrorPage;
use super::request::{ConsentRequest, NextStep};
use crate::emulator::state::backend::Backend;
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::form::Form;
use crate::emulator::wire::page;

/// Answers a request to the authorization endpoint with a page or a redirect.
pub(crate) fn answer(org: &Backend, parts: &Parts, body: &[u8]) -> HttpAnswer {
    org.state().counters.authorize_requests += 1;
    if parts.method != Method::GET && parts.method != Method::POST {
        return answer::method_not_allowed(&parts.method, "GET,POST");
    }
    let form = Form::read(parts, body).map_err(ErrorPage::from);
    let next = form.and_then(|form| {
        let request = ConsentRequest::read(org, &form)?;
        // The pages post to the body. A link must neither log in nor allow.
        if parts.method == Method::POST {
            Ok(request.go_on(org, &form))
        } else {
            Ok(request.begin(org, &form))
        }
    });
    match next {
        Ok(NextStep::Page(html)) => answer::html(StatusCode::OK, html),
        Ok(NextStep::Redirect(url)) => redirect(&url),
        Err(error) => answer::html(StatusCode::BAD_REQUEST, error_page(&error)),
    }
}

fn error_page(error: &ErrorPage) -> String {
    page::error(error.error(), error.description())
}

fn redirect(url: &str) -> HttpAnswer {
    match HeaderValue::try_from(url) {
        Ok(url) => {
            let mut answer = answer::html(StatusCode::FOUND, String::new());
            answer.headers_mut().insert(LOCATION, url);
            answer
        }
        // A callback that is not a header value was never a usable one.
        Err(_) => answer::html(
            StatusCode::BAD_REQUEST,
            error_page(&ErrorPage::redirect_mismatch()),
        ),
    }
}
