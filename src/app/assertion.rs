//! Assertions: short-lived JWTs that an app signs (RFC 7523 §3).

use std::time::{Duration, UNIX_EPOCH};

use crate::{
    app::private_key::PrivateKey,
    error::{BoxError, Error},
    secret::Secret,
    session::clock::WallClock,
};

/// The default lifetime of an assertion. Salesforce accepts at most three minutes.
pub(crate) const LIFETIME: Duration = Duration::from_secs(120);

/// The claims of an assertion, except for its expiry.
pub(crate) struct AssertionClaims<'a> {
    /// The app's client id (`iss`).
    pub(crate) issuer: &'a str,
    /// The user name, or the client id if the app authenticates itself (`sub`).
    pub(crate) subject: &'a str,
    /// The server that the assertion is for (`aud`).
    pub(crate) audience: &'a str,
    /// The id of this one assertion (`jti`). `None` for a grant, which needs none.
    pub(crate) id: Option<&'a Secret>,
}

impl AssertionClaims<'_> {
    /// Signs the claims. The assertion is valid from now until `lifetime` is over.
    pub(crate) fn sign(
        &self,
        key: &PrivateKey,
        clock: &WallClock,
        lifetime: Duration,
    ) -> Result<Secret, BoxError> {
        let expires = clock
            .now()
            .checked_add(lifetime)
            .and_then(|expires| expires.duration_since(UNIX_EPOCH).ok())
            .ok_or("the clock is out of range")?;
        let mut claims = serde_json::json!({
            "iss": self.issuer,
            "sub": self.subject,
            "aud": self.audience,
            "exp": expires.as_secs(),
        });
        if let Some(id) = self.id {
            claims["jti"] = id.expose().into();
        }
        key.sign(&claims).map_err(|error: Error| error.into())
    }
}
