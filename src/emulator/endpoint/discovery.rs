//! The `OpenID` Connect discovery document, and the keys of the org (RFC 7517).

use http::{Method, StatusCode};
use serde_json::json;

use crate::emulator::state::backend::Backend;
use crate::emulator::state::keys::{KID, Key};
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::jwt;
use crate::emulator::wire::scope;

/// The document (`OpenID` Connect Discovery 1.0 §3), with the endpoints that the org has.
pub(crate) fn document(org: &Backend, method: &Method) -> HttpAnswer {
    if method != Method::GET {
        return answer::method_not_allowed(method, "GET");
    }
    let state = org.state();
    let (issuer, names_issuer) = (state.login_url.clone(), state.app.names_issuer);
    drop(state);
    let oauth = |name: &str| format!("{issuer}/services/oauth2/{name}");
    let mut body = json!({
        "issuer": issuer,
        "authorization_endpoint": oauth("authorize"),
        "token_endpoint": oauth("token"),
        "revocation_endpoint": oauth("revoke"),
        "introspection_endpoint": oauth("introspect"),
        "userinfo_endpoint": oauth("userinfo"),
        "jwks_uri": format!("{issuer}/id/keys"),
        "scopes_supported": scope::KNOWN,
        "response_types_supported": ["code", "token", "token id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "display_values_supported": ["page", "popup", "touch"],
        "dpop_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": [
            "client_secret_post",
            "client_secret_basic",
            "private_key_jwt",
        ],
        "claims_supported": [
            "active", "address", "email", "email_verified", "family_name", "given_name",
            "is_app_installed", "language", "locale", "name", "nickname", "organization_id",
            "photos", "picture", "preferred_username", "profile", "sub", "updated_at", "urls",
            "user_id", "user_type", "zoneinfo",
        ],
    });
    if names_issuer {
        // RFC 9207 §3.
        body["authorization_response_iss_parameter_supported"] = true.into();
    }
    answer::json(StatusCode::OK, &body)
}

/// The org's public keys.
pub(crate) fn keys(method: &Method) -> HttpAnswer {
    if method != Method::GET {
        return answer::method_not_allowed(method, "GET");
    }
    let (modulus, exponent) = Key::of_org().public_numbers().unwrap_or_default();
    let body = json!({ "keys": [{
        "kty": "RSA",
        "n": jwt::encode(modulus),
        "e": jwt::encode(exponent),
        "alg": "RS256",
        "use": "sig",
        "kid": KID,
    }] });
    answer::json(StatusCode::OK, &body)
}
