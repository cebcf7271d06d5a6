//! The `signature` of a token answer.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Computes `base64(HMAC-SHA256(key = client_secret, data = id + issued_at))`.
pub(crate) fn sign(client_secret: &str, id: &str, issued_at: &str) -> String {
    // HMAC takes a key of any length (RFC 2104 §2), so this never fails.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(client_secret.as_bytes()) else {
        return String::new();
    };
    let mac = mac.chain_update(id).chain_update(issued_at);
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_equals_the_published_example() {
        // The published example: cangencer/salesforce-oauth2, test/tests.js.
        let id = "https://login.salesforce.com/id/00Dd0000000dsWLEAY/005d0000000b8kWAAQ";
        let signature = sign("some consumer secret", id, "1332093834282");
        assert_eq!(signature, "tDZZRHgqtJWXw1cEjyuazDNkonKuIYT2EYnJrC7zbc8=");
    }
}
