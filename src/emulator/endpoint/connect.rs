//! The verification page of the device flow.

use http::request::Parts;
use http::{Method, StatusCode};

use crate::emulator::state::backend::Backend;
use crate::emulator::state::decision::UserDecision;
use crate::emulator::state::user::USERNAME;
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::form::Form;
use crate::emulator::wire::page::{self, PageUser};

pub(crate) fn answer(org: &Backend, parts: &Parts, body: &[u8]) -> HttpAnswer {
    if parts.method != Method::GET && parts.method != Method::POST {
        return answer::method_not_allowed(&parts.method, "GET,POST");
    }
    let user = PageUser {
        username: USERNAME,
        password: &org.password,
    };
    let Ok(form) = Form::read(parts, body) else {
        return answer::html(StatusCode::BAD_REQUEST, page::device("", user, None));
    };
    let user_code = form.get("user_code").unwrap_or_default();
    let (Some(username), Some(password), &Method::POST) =
        (form.get("username"), form.get("password"), &parts.method)
    else {
        return answer::html(StatusCode::OK, page::device(user_code, user, None));
    };
    let decision = UserDecision::read(&form);
    let entered = org
        .state()
        .log_in(|user| user.login_on_page(username, password));
    let html = if entered.is_err() {
        page::device(
            user_code,
            user,
            Some("Please check your username and password."),
        )
    } else if !decide(org, user_code, decision) {
        page::device(user_code, user, Some("No device waits with this code."))
    } else if decision == UserDecision::Allow {
        page::done("The device is connected.")
    } else {
        page::done("The device is not connected.")
    };
    answer::html(StatusCode::OK, html)
}

fn decide(org: &Backend, user_code: &str, decision: UserDecision) -> bool {
    let now = org.now();
    org.state().devices.decide(user_code, decision, now)
}
