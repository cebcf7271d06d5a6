//! The `signature` of a token response.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{secret::Secret, text::pasted};

/// Verifies the signature of an identity URL (Salesforce Help, "OAuth 2.0 Web Server Flow for Web App Integration").
///
/// The signature is an HMAC-SHA256 over `id` and `issued_at` as received, in base64. Its key is the client secret. It
/// covers the identity only, not the tokens or the instance URL. The comparison takes constant time.
///
/// The flows call this function for every signed response of an app with a client secret.
///
/// ```
/// use tower_salesforce_auth::{Secret, oauth::verify_signature};
///
/// let id = "https://login.salesforce.com/id/00Dd0000000dsWLEAY/005d0000000b8kWAAQ";
/// let signature = "tDZZRHgqtJWXw1cEjyuazDNkonKuIYT2EYnJrC7zbc8=";
/// let client_secret = Secret::from("some consumer secret");
/// assert!(verify_signature(&client_secret, id, "1332093834282", signature));
/// assert!(!verify_signature(&client_secret, id, "1332093834283", signature));
/// ```
#[must_use]
pub fn verify_signature(
    client_secret: &Secret,
    id: &str,
    issued_at: &str,
    signature: &str,
) -> bool {
    let Ok(signature) = STANDARD.decode(signature) else {
        return false;
    };
    // HMAC takes a key of any length (RFC 2104 §2).
    Hmac::<Sha256>::new_from_slice(pasted::credential(client_secret.expose()).as_bytes()).is_ok_and(
        |mac| {
            mac.chain_update(id)
                .chain_update(issued_at)
                .verify_slice(&signature)
                .is_ok()
        },
    )
}
