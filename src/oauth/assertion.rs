//! Assertions: short-lived JWTs that an app signs (RFC 7523 §3).

use std::time::{Duration, UNIX_EPOCH};

use crate::{
    error::{BoxError, Error},
    oauth::{clock::Clock, private_key::PrivateKey},
    secret::Secret,
};

/// How long an assertion is good for, unless another time is asked for. Salesforce accepts three minutes at most.
pub(crate) const LIFETIME: Duration = Duration::from_secs(120);

/// Who says something of whom, and to whom.
pub(crate) struct Assertion<'a> {
    /// The app (`iss`).
    pub(crate) issuer: &'a str,
    /// The user, or the app itself (`sub`).
    pub(crate) subject: &'a str,
    /// Who it is for (`aud`).
    pub(crate) audience: &'a str,
}

impl Assertion<'_> {
    /// The assertion, good from now for this long.
    pub(crate) fn sign(
        &self,
        key: &PrivateKey,
        clock: &Clock,
        lifetime: Duration,
    ) -> Result<Secret, BoxError> {
        let expires = clock
            .now()
            .checked_add(lifetime)
            .and_then(|expires| expires.duration_since(UNIX_EPOCH).ok())
            .ok_or("the clock is out of range")?;
        let claims = serde_json::json!({
            "iss": self.issuer,
            "sub": self.subject,
            "aud": self.audience,
            "exp": expires.as_secs(),
        });
        key.sign(&claims).map_err(|error: Error| error.into())
    }
}
