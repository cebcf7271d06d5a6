//! One proof of possession (RFC 9449 §4.2): a JWT for a single request.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Uri;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::url::has_port_or_none;

/// The claims of a proof.
#[derive(Serialize)]
pub(super) struct Claims<'a> {
    /// The method of the request.
    pub(super) htm: &'a str,
    /// The URI of the request, without query and fragment.
    pub(super) htu: &'a str,
    /// Seconds since the Unix epoch.
    pub(super) iat: u64,
    /// The id of this one proof.
    pub(super) jti: &'a str,
    /// The hash of the access token. `None` for a request without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ath: Option<String>,
    /// The nonce of the server. `None` if it has sent none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nonce: Option<&'a str>,
}

impl Claims<'_> {
    /// What is signed: the encoded header and claims.
    pub(super) fn signing_input(&self, encoded_header: &str) -> String {
        let mut input = String::with_capacity(1024);
        input.push_str(encoded_header);
        input.push('.');
        // Strings and a number are always JSON.
        let claims = serde_json::to_vec(self).unwrap_or_default();
        URL_SAFE_NO_PAD.encode_string(claims, &mut input);
        input
    }
}

/// The header of all proofs of a key, encoded. `x` and `y` are the encoded coordinates of the public key.
pub(super) fn encoded_header(x: &str, y: &str) -> String {
    let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{jwk}}}"#))
}

/// The thumbprint of a public key (RFC 7638 §3).
pub(super) fn thumbprint(x: &str, y: &str) -> String {
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(members))
}

/// The hash of an access token (`ath`).
pub(super) fn hash(access_token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(access_token))
}

/// The URI of a request as `htu` has it, in the normal form of RFC 3986 §6.2.2, §6.2.3.
pub(super) fn htu(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("https").to_ascii_lowercase();
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let port = uri
        .authority()
        .filter(|authority| has_port_or_none(authority));
    let port = port.and_then(http::uri::Authority::port_u16);
    let default = if scheme == "http" { 80 } else { 443 };
    let path = match uri.path() {
        "" => "/",
        path => path,
    };
    match port.filter(|port| *port != default) {
        Some(port) => format!("{scheme}://{host}:{port}{path}"),
        None => format!("{scheme}://{host}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r35_htu_has_neither_query_nor_fragment_nor_default_port() {
        for (uri, expected) in [
            ("https://Example.com/a/b?c=d", "https://example.com/a/b"),
            ("https://example.com:443/", "https://example.com/"),
            ("http://127.0.0.1:80", "http://127.0.0.1/"),
            ("http://127.0.0.1:8080/a%20B", "http://127.0.0.1:8080/a%20B"),
            ("https://example.com:8443/x", "https://example.com:8443/x"),
            ("https://user@example.com/x", "https://example.com/x"),
        ] {
            assert_eq!(htu(&uri.parse().unwrap()), expected);
        }
    }

    /// The hash of RFC 9449 §7.1.
    #[test]
    fn r35_the_hash_of_the_rfc_is_made() {
        let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
        assert_eq!(hash(token), "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
    }

    /// The key of RFC 9449 §4.1 has the thumbprint of §10.
    #[test]
    fn r35_the_thumbprint_of_the_rfc_is_made() {
        let (x, y) = (
            "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        );
        assert_eq!(
            thumbprint(x, y),
            "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
        );
    }
}
