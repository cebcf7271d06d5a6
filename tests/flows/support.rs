//! What the tests of the flows share.

use bytes::Bytes;
use http::Request;
use tower_salesforce_auth::{
    RefreshContext,
    emulator::Org,
    oauth::{App, PrivateKey},
    observer::RefreshReason,
};

#[path = "../support/answering.rs"]
mod answering;
#[path = "../support/app.rs"]
mod app;
#[path = "../support/call.rs"]
mod call;
#[path = "../support/granted.rs"]
mod granted;
#[path = "../support/pieces.rs"]
mod pieces;
#[path = "../support/production.rs"]
mod production;
#[path = "../support/record.rs"]
mod record;
#[path = "../support/refusal.rs"]
mod refusal;
#[path = "../support/rest.rs"]
mod rest;
#[path = "../support/starting.rs"]
mod starting;
#[path = "../support/traced.rs"]
mod traced;

pub(crate) use self::{
    answering::answering,
    app::app,
    call::get_limits,
    granted::{builder, granted, layer},
    pieces::{Ending, answering_in_pieces},
    production::production_app,
    record::recorded,
    refusal::assert_refused,
    rest::LIMITS,
    starting::starting_with,
    traced::Traced,
};

/// The org's app without its secret.
pub(crate) fn public_app(org: &Org) -> App {
    App::new(org.login_url().parse().unwrap(), org.client_id())
}

/// The key whose certificate the org's app has.
pub(crate) fn key(org: &Org) -> PrivateKey {
    PrivateKey::from_pem(org.jwt_private_key()).unwrap()
}

pub(crate) fn first_login() -> RefreshContext {
    RefreshContext::new(RefreshReason::FirstLogin)
}

/// How often the org was asked for a login, over OAuth or SOAP.
pub(crate) fn login_calls(org: &Org) -> u64 {
    let counters = org.counters();
    counters.token_requests + counters.soap_requests
}

/// The form of the only request of `requests`.
pub(crate) fn form_of(requests: &[Request<Bytes>]) -> Vec<(String, String)> {
    let [request] = requests else {
        panic!("{} requests", requests.len());
    };
    form_urlencoded::parse(request.body())
        .into_owned()
        .collect()
}
