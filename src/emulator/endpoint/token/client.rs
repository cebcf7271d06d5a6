//! Client authentication.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use serde_json::Value;

use super::approved::PATH;
use super::refusal::TokenRefusal;
use crate::emulator::state::app::{CLIENT_ID, CLIENT_SECRET};
use crate::emulator::state::backend::Backend;
use crate::emulator::state::keys::Key;
use crate::emulator::wire::form::Form;

/// Whether the client must authenticate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretRule {
    /// Always. The flow has no other proof.
    Required,
    /// Only if the app is set up so.
    AsSetUp,
}

/// Authenticates the client by a secret in the form, HTTP Basic or a signed assertion.
pub(crate) fn authenticate(
    org: &Backend,
    parts: &Parts,
    form: &Form,
    secret_rule: SecretRule,
) -> Result<(), TokenRefusal> {
    let from_form = (form.get("client_id"), form.get("client_secret"));
    // Salesforce ignores the header when the form has both values.
    let basic = match from_form {
        (Some(_), Some(_)) => None,
        _ => basic_credentials(&parts.headers)?,
    };
    let (id, secret) = match &basic {
        Some((id, secret)) => (Some(id.as_str()), Some(secret.as_str())),
        None => from_form,
    };
    if id != Some(CLIENT_ID) {
        return Err(TokenRefusal::unknown_client());
    }
    let authentic = match (secret, form.get("client_assertion")) {
        (Some(secret), _) => secret == CLIENT_SECRET,
        (None, Some(assertion)) => check_assertion(org, parts, form, assertion)?,
        (None, None) => secret_rule == SecretRule::AsSetUp && !org.state().app.requires_secret,
    };
    if authentic {
        Ok(())
    } else {
        Err(TokenRefusal::new(
            "invalid_client",
            "invalid client credentials",
        ))
    }
}

/// The credentials of HTTP Basic (RFC 7617 §2). `None` without an `Authorization` header.
fn basic_credentials(headers: &HeaderMap) -> Result<Option<(String, String)>, TokenRefusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let credentials = || {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("Basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (id, secret) = decoded.split_once(':')?;
        Some((id.to_owned(), secret.to_owned()))
    };
    match (credentials(), values.next()) {
        (Some(credentials), None) => Ok(Some(credentials)),
        _ => Err(TokenRefusal::new(
            "invalid_basic_auth_header",
            "invalid basic authorization header",
        )),
    }
}

/// Checks `private_key_jwt` (RFC 7523 §2.2). Its audience is the URL of the token endpoint, or of the
/// called one.
fn check_assertion(
    org: &Backend,
    parts: &Parts,
    form: &Form,
    assertion: &str,
) -> Result<bool, TokenRefusal> {
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    if form.get("client_assertion_type") != Some(kind) {
        return Err(TokenRefusal::new(
            "invalid_assertion_type",
            "client_assertion_type must be jwt-bearer",
        ));
    }
    let Some(claims) = Key::of_app().verify(assertion) else {
        return Ok(false);
    };
    let now = org.now();
    let state = org.state();
    let mut bases = [&state.login_url, &state.instance_url].into_iter();
    let claim = |name: &str| claims.get(name).and_then(Value::as_str);
    let fresh = claims.get("exp").and_then(Value::as_u64) > Some(now);
    Ok(fresh
        && claim("iss") == Some(CLIENT_ID)
        && claim("sub") == Some(CLIENT_ID)
        && claim("aud").is_some_and(|audience| {
            bases.any(|base| {
                let path = audience.strip_prefix(base.as_str());
                path == Some(parts.uri.path()) || path == Some(PATH)
            })
        }))
}
