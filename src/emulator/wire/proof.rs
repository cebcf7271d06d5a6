//! Proofs of possession (RFC 9449 §4.2, §4.3).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::header::HOST;
use http::request::Parts;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::jwt;

/// How far the time of a proof may be from that of the org, in seconds.
const SKEW: u64 = 300;

/// A proof whose signature, method, URI and time are right.
#[derive(Debug)]
pub(crate) struct Proof {
    /// The thumbprint of the key that signed it (RFC 7638).
    pub(crate) thumbprint: String,
    pub(crate) jti: String,
    pub(crate) nonce: Option<String>,
    /// The hash of the access token.
    ath: Option<String>,
}

impl Proof {
    /// The proof in the header of a request. `None` without one. `Err` has the reason why it is refused.
    pub(crate) fn of(parts: &Parts, now: u64) -> Result<Option<Self>, String> {
        let mut headers = parts.headers.get_all("dpop").iter();
        let Some(header) = headers.next() else {
            return Ok(None);
        };
        if headers.next().is_some() {
            return Err("there is more than one DPoP header".to_owned());
        }
        let text = header.to_str().map_err(|error| error.to_string())?;
        Self::verify(text, parts, now).map(Some)
    }

    /// Verifies a proof for a request.
    pub(crate) fn verify(text: &str, parts: &Parts, now: u64) -> Result<Self, String> {
        let (signed, signature) = text.rsplit_once('.').ok_or("it is no JWT")?;
        let (header, claims) = signed.split_once('.').ok_or("it is no JWT")?;
        let [header, claims] = [header, claims].map(object);
        let (header, claims) = (header.ok_or("it is no JWT")?, claims.ok_or("it is no JWT")?);
        if header.get("typ") != Some(&"dpop+jwt".into()) {
            return Err("typ is not dpop+jwt".to_owned());
        }
        // Salesforce accepts other algorithms too.
        if header.get("alg") != Some(&"ES256".into()) {
            return Err("alg is not ES256".to_owned());
        }
        // RFC 7515 §4.1.11: what must be understood and is not. RFC 7797 §7: a JWT has no `b64`.
        if let Some(name) = ["crit", "b64"]
            .iter()
            .find(|name| header.get(**name).is_some())
        {
            return Err(format!("{name} is not supported"));
        }
        let thumbprint = verify_signature(&header, signed, signature)?;
        let claim = |name: &str| claims.get(name).and_then(Value::as_str);
        if claim("htm") != Some(parts.method.as_str()) {
            return Err("htm is not the method of the request".to_owned());
        }
        if !claim("htu").is_some_and(|htu| is_uri_of(htu, parts)) {
            return Err("htu is not the URI of the request".to_owned());
        }
        let issued = claims.get("iat").and_then(Value::as_u64);
        if issued.is_none_or(|issued| issued.abs_diff(now) > SKEW) {
            return Err("iat is out of range".to_owned());
        }
        let jti = claim("jti").filter(|jti| jti.len() >= 12);
        Ok(Self {
            thumbprint,
            jti: jti.ok_or("jti is missing or too short")?.to_owned(),
            nonce: claim("nonce").map(str::to_owned),
            ath: claim("ath").map(str::to_owned),
        })
    }

    /// Whether the proof was made for this access token.
    pub(crate) fn is_of_token(&self, access_token: &str) -> bool {
        self.ath.as_deref() == Some(&*jwt::encode(Sha256::digest(access_token)))
    }

    pub(crate) fn has_hash(&self) -> bool {
        self.ath.is_some()
    }
}

fn object(part: &str) -> Option<Value> {
    let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
    value.is_object().then_some(value)
}

/// Verifies the signature with the key in the header, and returns its thumbprint.
fn verify_signature(header: &Value, signed: &str, signature: &str) -> Result<String, String> {
    let jwk = header.get("jwk").ok_or("jwk is missing")?;
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    if jwk.get("d").is_some() {
        return Err("jwk has the private key".to_owned());
    }
    if member("kty") != Some("EC") || member("crv") != Some("P-256") {
        return Err("jwk is no P-256 key".to_owned());
    }
    let (x, y) = (
        member("x").unwrap_or_default(),
        member("y").unwrap_or_default(),
    );
    let coordinate = |encoded: &str| {
        let decoded = URL_SAFE_NO_PAD.decode(encoded).ok();
        decoded.filter(|coordinate| coordinate.len() == 32)
    };
    let point = coordinate(x).zip(coordinate(y));
    let (left, right) = point.ok_or("jwk has no coordinates of 32 bytes")?;
    let point = [&[4][..], &left, &right].concat();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    if key.verify(signed.as_bytes(), &signature).is_err() {
        return Err("the signature is wrong".to_owned());
    }
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    Ok(jwt::encode(Sha256::digest(members)))
}

/// Whether `htu` is the URI that the request came to, without query and fragment.
fn is_uri_of(htu: &str, parts: &Parts) -> bool {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = parts
        .uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or(host)
        .map(|authority| authority.rsplit('@').next().unwrap_or_default());
    let Some(authority) = authority else {
        // Without a host, as in a call in the process, the path is all there is to compare.
        let rest = htu
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('/'));
        return rest.is_some_and(|(_, path)| Some(path) == parts.uri.path().strip_prefix('/'));
    };
    let schemes = match parts.uri.scheme_str() {
        Some("http") => &["http"][..],
        Some(_) => &["https"],
        None => &["http", "https"],
    };
    schemes.iter().any(|scheme| {
        let port = if *scheme == "http" { ":80" } else { ":443" };
        let authority = authority.to_ascii_lowercase();
        let authority = authority.strip_suffix(port).unwrap_or(&authority);
        htu == format!("{scheme}://{authority}{}", parts.uri.path())
    })
}
