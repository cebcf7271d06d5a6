//! How access tokens are made.

use serde_json::json;

use super::app::CLIENT_ID;
use super::ids::{ORG_ID, USER_ID};
use super::keys::{KID, Key};

/// How long a JWT-based access token lasts, in seconds.
const JWT_LIFETIME: u64 = 30 * 60;

/// How access tokens are made at the moment.
pub(crate) struct Mint {
    /// Seconds since the Unix epoch.
    pub(crate) now: u64,
    /// Who issues JWTs; `None` for opaque tokens.
    pub(crate) jwt_issuer: Option<String>,
}

/// What tells an access token apart from all others.
#[derive(Clone, Copy)]
pub(crate) struct TokenSerial {
    pub(crate) org: u64,
    pub(crate) token: u64,
}

/// A new access token, and when it ends, if it says so itself.
pub(crate) struct Minted {
    pub(crate) access_token: String,
    /// Seconds since the Unix epoch.
    pub(crate) ends: Option<u64>,
}

impl Mint {
    /// A token for an app with this scope; without a scope, a plain session id.
    pub(crate) fn access_token(&self, serial: TokenSerial, scope: Option<&str>) -> Minted {
        match (&self.jwt_issuer, scope) {
            (Some(issuer), Some(scope)) => self.jwt(serial, issuer, scope),
            // As long as the real ones, so that a measurement with them means something.
            _ => Minted {
                access_token: format!(
                    "00Dxx0000001gEF!AQEAQ{:0>11}.{:0>79}",
                    serial.org, serial.token
                ),
                ends: None,
            },
        }
    }

    fn jwt(&self, serial: TokenSerial, issuer: &str, scope: &str) -> Minted {
        let header = json!({
            "alg": "RS256",
            "typ": "JWT",
            "kid": KID,
            "tty": "sfdc-core-token",
            "tnk": format!("core/prod/{ORG_ID}"),
            "ver": "1.0",
        });
        let ends = self.now + JWT_LIFETIME;
        let claims = json!({
            "iss": issuer,
            "aud": [issuer],
            "sub": format!("uid:{USER_ID}"),
            "scp": scope,
            "client_id": CLIENT_ID,
            "exp": ends,
            "nbf": self.now,
            "iat": self.now,
            "mty": "oauth",
            // Tells tokens of the same second apart.
            "sfi": format!("{:0>11}.{:0>11}", serial.org, serial.token),
            "roles": [],
            "hsc": false,
        });
        Minted {
            access_token: Key::of_org().sign(&header, &claims),
            ends: Some(ends),
        }
    }
}
