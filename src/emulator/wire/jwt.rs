//! JSON Web Tokens signed with RS256 (RFC 7515, RFC 7518 §3.3, RFC 7519).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// Signs `claims`. `header` must contain `"alg": "RS256"`.
pub(crate) fn sign(key: &KeyPair, header: &Value, claims: &Value) -> String {
    let mut token = encode(header.to_string());
    token.push('.');
    token.push_str(&encode(claims.to_string()));
    let mut signature = vec![0; key.public_modulus_len()];
    // Signing fails only if the buffer and the modulus differ in length, and these do not. PKCS #1
    // v1.5 signatures use no randomness.
    let _ = key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        token.as_bytes(),
        &mut signature,
    );
    token.push('.');
    token.push_str(&encode(signature));
    token
}

/// The claims of `token`. `None` if `key` did not sign it with RS256.
pub(crate) fn verify(key: &KeyPair, token: &str) -> Option<Value> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    if json(header)?.get("alg")? != "RS256" {
        return None;
    }
    let public_key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    public_key.verify(signed.as_bytes(), &signature).ok()?;
    json(claims)
}

/// Encodes base64url without padding (RFC 7515 §2).
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn json(part: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::KeySize;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_token_signed_by_the_key_with_rs256_verifies() {
        let pair = || KeyPair::generate(KeySize::Rsa2048).unwrap();
        let (key, other) = (&pair(), &pair());
        let header = json!({ "alg": "RS256" });
        let claims = json!({ "sub": "user@example.com" });
        let token = sign(key, &header, &claims);
        assert_eq!(verify(key, &token), Some(claims.clone()));
        assert_eq!(verify(other, &token), None);
        assert_eq!(
            verify(key, &sign(key, &json!({ "alg": "none" }), &claims)),
            None
        );

        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let forged = encode(json!({ "sub": "admin@example.com" }).to_string());
        assert_eq!(verify(key, &format!("{header}.{forged}.{signature}")), None);
        for nonsense in ["", ".", "..", "a.b", "a.b.c", &token[1..]] {
            assert_eq!(verify(key, nonsense), None, "{nonsense}");
        }
    }
}
