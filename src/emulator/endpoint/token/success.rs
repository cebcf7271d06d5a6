//! Successful token answers.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::emulator::state::OrgState;
use crate::emulator::state::app::{CLIENT_ID, CLIENT_SECRET};
use crate::emulator::state::keys::{KID, Key};
use crate::emulator::state::sessions::NewTokens;
use crate::emulator::wire::jwt;
use crate::emulator::wire::scope;
use crate::emulator::wire::signature;

/// The lifetime of an ID token in seconds.
const ID_TOKEN_LIFETIME: u64 = 120;

/// The kind of grant. It decides about the fields of the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum GrantKind {
    /// A user's consent, or a refresh of it.
    Consent,
    /// A signed assertion about the user. The answer has neither `signature` nor `issued_at`.
    Assertion,
    ClientCredentials,
    /// A plain session id. The answer has no `scope`.
    Password,
}

/// The fields of the answer with `tokens`.
pub(crate) fn fields(
    state: &OrgState,
    flow: GrantKind,
    tokens: NewTokens,
    nonce: Option<&str>,
    now: u64,
) -> Value {
    let id = state.identity_url();
    let mut body = json!({
        "access_token": tokens.access_token,
        "instance_url": state.instance_url,
        "id": id,
        "token_type": if tokens.is_bound { "DPoP" } else { "Bearer" },
    });
    if flow != GrantKind::Assertion {
        let issued_at = tokens.issued_at.to_string();
        body["signature"] = signature::sign(CLIENT_SECRET, &id, &issued_at).into();
        body["issued_at"] = issued_at.into();
    }
    if tokens.is_jwt {
        body["token_format"] = "jwt".into();
    }
    if let Some(refresh_token) = tokens.refresh_token {
        body["refresh_token"] = refresh_token.into();
    }
    if let Some(scope) = tokens.scope {
        if flow == GrantKind::Consent && scope::has(&scope, "openid") {
            let issuer = &state.login_url;
            body["id_token"] = id_token(issuer, &id, &tokens.access_token, nonce, now).into();
        }
        if scope::has(&scope, "sfap_api") {
            body["api_instance_url"] = "https://api.salesforce.com".into();
        }
        body["scope"] = (*scope).into();
    }
    body
}

/// Makes an ID token (`OpenID` Connect Core 1.0 §2).
fn id_token(
    issuer: &str,
    subject: &str,
    access_token: &str,
    nonce: Option<&str>,
    now: u64,
) -> String {
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": KID });
    // §3.1.3.6: `at_hash` is the left half of the hash.
    let hash = Sha256::digest(access_token);
    let (at_hash, _) = hash.split_at(hash.len() / 2);
    let mut claims = json!({
        "iss": issuer,
        "sub": subject,
        "aud": CLIENT_ID,
        "iat": now,
        "exp": now + ID_TOKEN_LIFETIME,
        "at_hash": jwt::encode(at_hash),
    });
    if let Some(nonce) = nonce {
        claims["nonce"] = nonce.into();
    }
    Key::of_org().sign(&header, &claims)
}
