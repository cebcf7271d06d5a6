//! Proof Key for Code Exchange (RFC 7636).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, ErrorKind},
    secret::Secret,
    session::random::random,
};

/// A code verifier and its challenge (RFC 7636 §4.1, §4.2). The method is always `S256`.
///
/// Each authorization needs a new verifier. Only the app that knows the verifier can exchange the authorization's code.
///
/// ```
/// use tower_salesforce_auth::oauth::Pkce;
///
/// // RFC 7636, Appendix B.
/// let pkce = Pkce::from_verifier("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")?;
/// assert_eq!(pkce.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkce {
    verifier: Secret,
}

impl Pkce {
    /// Generates a verifier of 43 characters from 256 random bits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoRandomness`] if the operating system has no random numbers.
    pub fn generate() -> Result<Self, Error> {
        random().map(|verifier| Self { verifier })
    }

    /// Takes a verifier that was generated before or elsewhere.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] unless the verifier has 43 to 128 characters, each a letter, digit, `-`, `.` or `_`.
    /// RFC 7636 allows `~` too, but Salesforce refuses it.
    pub fn from_verifier(verifier: impl Into<Secret>) -> Result<Self, Error> {
        let verifier = verifier.into();
        let text = verifier.expose();
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if !(43..=128).contains(&text.len()) || !text.bytes().all(is_allowed) {
            return Err(Error::new(
                ErrorKind::InvalidKey,
                format!(
                    "the code verifier cannot be used: expected 43 to 128 letters, digits, hyphens, dots and \
                     underscores; this one has {} characters, or one that Salesforce refuses, for example `~`",
                    text.chars().count()
                ),
            ));
        }
        Ok(Self { verifier })
    }

    /// The verifier. Keep it until the code is exchanged; the exchange sends it.
    pub fn verifier(&self) -> &Secret {
        &self.verifier
    }

    /// The challenge: the hash of the verifier, which the authorization request sends.
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.expose()))
    }
}
