//! Grants for a token of another issuer: JWT bearer and token exchange.

use http::request::Parts;
use serde_json::Value;

use super::approved::{Approved, PATH};
use super::client::{SecretRule, authenticate};
use super::refusal::TokenRefusal;
use super::success::GrantKind;
use crate::emulator::state::OrgState;
use crate::emulator::state::app::CLIENT_ID;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::keys::Key;
use crate::emulator::state::user::{LoginRefusal, USERNAME, User};
use crate::emulator::wire::form::Form;
use crate::emulator::wire::scope;

/// The longest lifetime of an assertion in seconds: three minutes and two for clock skew.
const LONGEST_VALIDITY: u64 = 5 * 60;

/// From here on an `exp` is one in milliseconds: so many seconds end in the year 5138, and so many
/// milliseconds ended in 1973.
const FIRST_MILLISECONDS: u64 = 100_000_000_000;

/// The JWT bearer flow (RFC 7523 §2.1).
pub(super) fn jwt_bearer(
    org: &Backend,
    parts: &Parts,
    form: &Form,
) -> Result<Approved, TokenRefusal> {
    let assertion = form
        .get("assertion")
        .ok_or_else(|| TokenRefusal::missing("assertion"))?;
    let invalid = || TokenRefusal::invalid_grant("invalid assertion");
    let claims = Key::of_app().verify(assertion).ok_or_else(invalid)?;
    let claim = |name: &str| claims.get(name).and_then(Value::as_str);
    if claim("iss") != Some(CLIENT_ID) {
        return Err(TokenRefusal::unknown_client());
    }
    let now = org.now();
    let seconds = |name: &str| match claims.get(name)? {
        // No NumericDate (RFC 7519 §2), but simple-salesforce sends it so, and is let in.
        Value::String(seconds) => seconds.parse().ok(),
        seconds => seconds.as_u64(),
    };
    let expires = seconds("exp").ok_or_else(invalid)?;
    let early = seconds("nbf").is_some_and(|not_before| now < not_before);
    // Salesforce's own CLI adds seconds to milliseconds, and production accepts the result.
    let in_time = if expires < FIRST_MILLISECONDS {
        expires > now && expires <= now + LONGEST_VALIDITY
    } else {
        (expires / 1_000).abs_diff(now) <= LONGEST_VALIDITY
    };
    if !in_time || early {
        return Err(invalid());
    }
    let mut state = org.state();
    if !claim("aud").is_some_and(|audience| is_audience(&state, parts, audience)) {
        return Err(TokenRefusal::invalid_grant("audience is invalid"));
    }
    // `prn` is the older name of `sub` and takes precedence.
    let subject = claim("prn").or_else(|| claim("sub"));
    if let Some(jti) = claim("jti")
        && !state.sessions.take_jti(jti)
    {
        return Err(TokenRefusal::new("bad_jti_claim", "jti was used before"));
    }
    admit(&mut state, subject)?;
    Ok(Approved::new(GrantKind::Assertion, "web openid api id"))
}

/// Whether the audience is a login host of this org, or the URL of the called site.
fn is_audience(state: &OrgState, parts: &Parts, audience: &str) -> bool {
    let site = parts.uri.path().strip_suffix(PATH).unwrap_or_default();
    audience == "https://login.salesforce.com"
        || [&state.login_url, &state.instance_url]
            .into_iter()
            .any(|url| {
                let rest = audience.strip_prefix(url.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest == site)
            })
}

/// Lets the user in whom an assertion names, if that user has approved the app.
pub(super) fn admit(state: &mut OrgState, subject: Option<&str>) -> Result<(), TokenRefusal> {
    let approved = state.app.preauthorized || state.sessions.has_approval();
    if !subject.is_some_and(User::is_named) || !approved {
        return Err(TokenRefusal::not_approved());
    }
    state
        .log_in(User::login_by_assertion)
        .map_err(|refusal| match refusal {
            // The answer must not reveal that the user is inactive.
            LoginRefusal::Inactive => TokenRefusal::not_approved(),
            refusal => refusal.into(),
        })
}

/// Token exchange (RFC 8693 §2.1). [`Org::trust_subject_token`] stands for the Apex handler.
pub(super) fn token_exchange(
    org: &Backend,
    parts: &Parts,
    form: &Form,
) -> Result<Approved, TokenRefusal> {
    authenticate(org, parts, form, SecretRule::AsSetUp)?;
    let required = |name: &str| form.get(name).ok_or_else(|| TokenRefusal::missing(name));
    let subject_token = required("subject_token")?;
    let kind = required("subject_token_type")?;
    let mut state = org.state();
    if state.app.on_shared_host {
        return Err(TokenRefusal::wrong_host());
    }
    let known = ["access_token", "refresh_token", "id_token", "saml2", "jwt"];
    let kind = kind.strip_prefix("urn:ietf:params:oauth:token-type:");
    if !kind.is_some_and(|kind| known.contains(&kind)) {
        return Err(TokenRefusal::new(
            "unsupported_token_type",
            "subject_token_type not supported",
        ));
    }
    if subject_token.chars().count() > 10_000 {
        return Err(TokenRefusal::new(
            "invalid_request",
            "subject_token is too long",
        ));
    }
    let scope = scope::granted(form.get("scope")).ok_or_else(TokenRefusal::unknown_scope)?;
    let mut trusted = state.app.subject_tokens.iter();
    if !trusted.any(|trusted| trusted == subject_token) {
        return Err(TokenRefusal::not_approved());
    }
    admit(&mut state, Some(USERNAME))?;
    Ok(Approved::new(GrantKind::Consent, scope))
}
