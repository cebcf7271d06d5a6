//! The `signature` of a token answer.

use sha2::{Digest, Sha256};

use super::base64;

const BLOCK: usize = 64;

/// `base64(HMAC-SHA256(key = client_secret, data = id + issued_at))`.
pub(super) fn sign(client_secret: &str, id: &str, issued_at: &str) -> String {
    // HMAC is written out (RFC 2104 §2) because nothing else here would use a crate for it.
    let mut key = [0; BLOCK];
    if client_secret.len() > BLOCK {
        let digest = Sha256::digest(client_secret);
        key[..digest.len()].copy_from_slice(&digest);
    } else {
        key[..client_secret.len()].copy_from_slice(client_secret.as_bytes());
    }
    let inner = Sha256::new()
        .chain_update(key.map(|byte| byte ^ 0x36))
        .chain_update(id)
        .chain_update(issued_at)
        .finalize();
    let outer = Sha256::new()
        .chain_update(key.map(|byte| byte ^ 0x5c))
        .chain_update(inner)
        .finalize();
    base64::encode(&outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_salesforce_does() {
        // The published example: cangencer/salesforce-oauth2, test/tests.js.
        let id = "https://login.salesforce.com/id/00Dd0000000dsWLEAY/005d0000000b8kWAAQ";
        let signature = sign("some consumer secret", id, "1332093834282");
        assert_eq!(signature, "tDZZRHgqtJWXw1cEjyuazDNkonKuIYT2EYnJrC7zbc8=");
    }
}
