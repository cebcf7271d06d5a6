//! The user's identity: userinfo (`OpenID` Connect Core 1.0 §5.3) and the identity URL.

use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::dpop;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::dpop::ProofRefusal;
use crate::emulator::state::ids::{ORG_ID, USER_ID, short_org_id};
use crate::emulator::state::user::USERNAME;
use crate::emulator::wire::answer::{self, HttpAnswer};

pub(crate) fn userinfo(org: &Backend, parts: &Parts) -> HttpAnswer {
    dpop::add_nonce(org, answer_userinfo(org, parts))
}

fn answer_userinfo(org: &Backend, parts: &Parts) -> HttpAnswer {
    if let Some(refusal) = refuse(org, parts) {
        return refusal;
    }
    let state = org.state();
    let instance = &state.instance_url;
    let body = json!({
        "sub": state.identity_url(),
        "user_id": USER_ID,
        "organization_id": ORG_ID,
        "preferred_username": USERNAME,
        "nickname": "user",
        "name": "Ann Example",
        "email": USERNAME,
        "email_verified": true,
        "given_name": "Ann",
        "family_name": "Example",
        "zoneinfo": "America/Los_Angeles",
        "photos": photos(instance),
        "profile": format!("{instance}/{USER_ID}"),
        "picture": format!("{instance}/profilephoto/005/F"),
        "address": { "country": "US" },
        "is_salesforce_integration_user": false,
        "urls": urls(instance),
        "active": true,
        "user_type": "STANDARD",
        "language": "en_US",
        "locale": "en_US",
        "utcOffset": -28_800_000,
        "updated_at": "2026-01-02T03:04:05Z",
        "is_app_installed": true,
    });
    answer::json(StatusCode::OK, &body)
}

/// Answers a request to the path that continues with `path` after `/id/`.
pub(crate) fn identity(org: &Backend, parts: &Parts, path: &str) -> HttpAnswer {
    dpop::add_nonce(org, answer_identity(org, parts, path))
}

fn answer_identity(org: &Backend, parts: &Parts, path: &str) -> HttpAnswer {
    if let Some(refusal) = refuse(org, parts) {
        return refusal;
    }
    match path.split_once('/') {
        Some((ORG_ID, USER_ID)) => {}
        Some((ORG_ID, _)) => return answer::text(StatusCode::NOT_FOUND, "Bad_Id"),
        _ => return answer::text(StatusCode::FORBIDDEN, "Wrong_Org"),
    }
    let state = org.state();
    let instance = &state.instance_url;
    let body = json!({
        "id": state.identity_url(),
        "asserted_user": true,
        "user_id": USER_ID,
        "organization_id": ORG_ID,
        "username": USERNAME,
        "nick_name": "user",
        "display_name": "Ann Example",
        "email": USERNAME,
        "email_verified": true,
        "first_name": "Ann",
        "last_name": "Example",
        "timezone": "America/Los_Angeles",
        "photos": photos(instance),
        "addr_street": null,
        "addr_city": null,
        "addr_state": null,
        "addr_country": null,
        "addr_zip": null,
        "mobile_phone": null,
        "mobile_phone_verified": false,
        "is_lightning_login_user": false,
        "status": { "created_date": null, "body": null },
        "urls": urls(instance),
        "active": true,
        "user_type": "STANDARD",
        "language": "en_US",
        "locale": "en_US",
        "utcOffset": -28_800_000,
        "last_modified_date": "2026-01-02T03:04:05Z",
        "is_app_installed": true,
    });
    answer::json(StatusCode::OK, &body)
}

/// Rejects a request without a valid access token: 403 with one word, as these resources do.
fn refuse(org: &Backend, parts: &Parts) -> Option<HttpAnswer> {
    let now = org.now();
    let mut state = org.state();
    state.counters.identity_requests += 1;
    if parts.method != Method::GET && parts.method != Method::POST {
        return Some(answer::method_not_allowed(&parts.method, "GET,POST"));
    }
    let state = &mut *state;
    let word = match dpop::presented(&parts.headers) {
        Some(presented) if state.sessions.is_valid(presented.token, now) => {
            let (dpop, sessions) = (&mut state.dpop, &state.sessions);
            let needs_nonce = dpop.needs_nonce;
            match presented.check((dpop, sessions), (parts, now), needs_nonce) {
                Ok(()) => return None,
                Err(ProofRefusal::Nonce) => {
                    let answer = answer::text(StatusCode::UNAUTHORIZED, "Bad_OAuth_Token");
                    return Some(dpop::demand_nonce(state, answer));
                }
                Err(ProofRefusal::Invalid(_)) => "Bad_OAuth_Token",
            }
        }
        Some(_) => "Bad_OAuth_Token",
        None => "Missing_OAuth_Token",
    };
    Some(answer::text(StatusCode::FORBIDDEN, word))
}

fn photos(instance: &str) -> Value {
    json!({
        "picture": format!("{instance}/profilephoto/005/F"),
        "thumbnail": format!("{instance}/profilephoto/005/T"),
    })
}

/// The `urls` member. Callers replace `{version}` in it. SOAP URLs carry the 15-character id.
fn urls(instance: &str) -> Value {
    let short_id = short_org_id();
    let soap = |api: &str| format!("{instance}/services/Soap/{api}/{{version}}/{short_id}");
    let rest = |path: &str| format!("{instance}/services/data/v{{version}}/{path}");
    json!({
        "enterprise": soap("c"),
        "metadata": soap("m"),
        "partner": soap("u"),
        "rest": rest(""),
        "sobjects": rest("sobjects/"),
        "search": rest("search/"),
        "query": rest("query/"),
        "recent": rest("recent/"),
        "tooling_soap": soap("T"),
        "tooling_rest": rest("tooling/"),
        "profile": format!("{instance}/{USER_ID}"),
        "feeds": rest("chatter/feeds"),
        "groups": rest("chatter/groups"),
        "users": rest("chatter/users"),
        "feed_items": rest("chatter/feed-items"),
        "feed_elements": rest("chatter/feed-elements"),
        "custom_domain": instance,
    })
}
