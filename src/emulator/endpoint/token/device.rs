//! The device flow: RFC 8628 with older parameter names.

use http::request::Parts;
use serde_json::{Value, json};

use super::approved::Approved;
use super::client::{SecretRule, authenticate};
use super::refusal::TokenRefusal;
use super::success::GrantKind;
use crate::emulator::state::app::CLIENT_ID;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::devices::{INTERVAL, PollRefusal};
use crate::emulator::wire::form::Form;
use crate::emulator::wire::scope;

/// Starts the flow: returns the codes of a device.
pub(super) fn begin(org: &Backend, form: &Form) -> Result<Value, TokenRefusal> {
    if form.get("client_id") != Some(CLIENT_ID) {
        return Err(TokenRefusal::unknown_client());
    }
    let scope = scope::granted(form.get("scope")).ok_or_else(TokenRefusal::unknown_scope)?;
    let now = org.now();
    let mut state = org.state();
    let codes = state.devices.begin(scope, now);
    state.counters.device_codes_issued += 1;
    Ok(json!({
        "device_code": codes.device_code,
        "user_code": codes.user_code,
        "verification_uri": format!("{}/setup/connect", state.login_url),
        "interval": INTERVAL,
    }))
}

pub(super) fn poll(org: &Backend, parts: &Parts, form: &Form) -> Result<Approved, TokenRefusal> {
    authenticate(org, parts, form, SecretRule::AsSetUp)?;
    let code = form
        .get("code")
        .ok_or_else(|| TokenRefusal::missing("code"))?;
    let now = org.now();
    let mut state = org.state();
    state.user.check_active()?;
    let (error, description) = match state.devices.poll(code, now) {
        Ok(scope) => return Ok(Approved::new(GrantKind::Consent, scope)),
        Err(PollRefusal::Pending) => ("authorization_pending", "waiting for the user to authorize"),
        Err(PollRefusal::TooFast) => ("slow_down", "polling too frequently"),
        Err(PollRefusal::Denied) => ("access_denied", "end-user denied authorization"),
        Err(PollRefusal::Expired) => ("invalid_grant", "expired authorization code"),
        Err(PollRefusal::Unknown) => ("invalid_grant", "invalid authorization code"),
    };
    Err(TokenRefusal::new(error, description))
}
