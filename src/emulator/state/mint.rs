//! Access tokens.

use std::sync::Arc;

use serde_json::json;

use super::app::CLIENT_ID;
use super::ids::{ORG_ID, USER_ID};
use super::keys::{KID, Key};

/// The lifetime of a JWT-based access token in seconds.
const JWT_LIFETIME: u64 = 30 * 60;

/// The settings for new access tokens.
pub(crate) struct Mint {
    /// Seconds since the Unix epoch.
    pub(crate) now: u64,
    /// The issuer of JWTs. `None` for opaque tokens.
    pub(crate) jwt_issuer: Option<String>,
    /// The thumbprint of the key that tokens are bound to. `None` for bearer tokens.
    pub(crate) key: Option<Arc<str>>,
}

/// The number that makes an access token unique.
#[derive(Clone, Copy)]
pub(crate) struct TokenSerial {
    pub(crate) org: u64,
    pub(crate) token: u64,
}

/// A new access token.
pub(crate) struct Minted {
    pub(crate) access_token: String,
    /// The end of a JWT in seconds since the Unix epoch. `None` for an opaque token.
    pub(crate) ends: Option<u64>,
}

impl Mint {
    /// Makes a token with this scope. Without a scope, it is a plain session id.
    pub(crate) fn access_token(&self, serial: TokenSerial, scope: Option<&str>) -> Minted {
        match (&self.jwt_issuer, scope) {
            (Some(issuer), Some(scope)) => self.jwt(serial, issuer, scope),
            // Real tokens have this length, which makes measurements meaningful.
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
            // Distinguishes tokens of the same second.
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
