//! Access tokens in the form of a JWT (RFC 7519; Salesforce Help, "JWT-Based Access Tokens").

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

/// The time in the `exp` claim of a JWT. `None` for an opaque token.
///
/// The signature is not checked. Callers plan by this time, and must not base trust on it.
pub(crate) fn expiry(token: &str) -> Option<SystemTime> {
    let Claims { exp, .. } = claims(token)?;
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(exp).ok()?)
}

#[derive(Deserialize)]
struct Claims {
    exp: f64,
    iat: Option<f64>,
}

fn claims(token: &str) -> Option<Claims> {
    let claims = URL_SAFE_NO_PAD.decode(payload(token)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

/// The lifetime of a JWT, from its `iat` and `exp` claims. `None` for an opaque token, or without these claims.
pub(crate) fn lifetime(token: &str) -> Option<Duration> {
    let Claims { exp, iat } = claims(token)?;
    Duration::try_from_secs_f64(exp - iat?).ok()
}

/// Whether a token has the form of a JWT: three parts, of which the first is a JSON object in base64.
pub(crate) fn is_jwt(token: &str) -> bool {
    payload(token).is_some()
}

fn payload(token: &str) -> Option<&str> {
    let mut parts = token.split('.');
    let (header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    // `{"` in base64.
    (header.starts_with("eyJ") && parts.next().is_none()).then_some(payload)
}
