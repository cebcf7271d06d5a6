//! Proof Key for Code Exchange (RFC 7636).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    error::{Error, ErrorKind},
    secret::Secret,
};

/// A code verifier, and the challenge that is made of it (RFC 7636 §4.1, §4.2). The method is always `S256`.
///
/// One is good for one authorization: whoever began it is the only one who can exchange its code.
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
    /// A new verifier of 43 characters, from 256 random bits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoRandomness`] if the operating system has none to give.
    pub fn generate() -> Result<Self, Error> {
        random().map(|verifier| Self { verifier })
    }

    /// A verifier that was generated before, or elsewhere.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] unless it has 43 to 128 letters, digits, `-`, `.` and `_`. RFC 7636 allows `~` too, but
    /// Salesforce refuses a verifier with one in it.
    pub fn from_verifier(verifier: impl Into<Secret>) -> Result<Self, Error> {
        let verifier = verifier.into();
        let text = verifier.expose();
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if !(43..=128).contains(&text.len()) || !text.bytes().all(is_allowed) {
            return Err(Error::new(
                ErrorKind::InvalidKey,
                format!(
                    "the code verifier cannot be used: expected 43 to 128 letters, digits, hyphens, dots and \
                     underscores, and it has {} characters or one that Salesforce refuses, `~` for one",
                    text.chars().count()
                ),
            ));
        }
        Ok(Self { verifier })
    }

    /// What is kept until the code is exchanged, and is sent with it.
    pub fn verifier(&self) -> &Secret {
        &self.verifier
    }

    /// What is sent with the authorization request: the hash of the verifier.
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.expose()))
    }
}

/// 256 random bits, as 43 characters that need no encoding anywhere.
pub(super) fn random() -> Result<Secret, Error> {
    let mut bits = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bits).map_err(|error| {
        Error::new(
            ErrorKind::NoRandomness,
            "the operating system has no random numbers to give",
        )
        .with_source(error)
    })?;
    Ok(Secret::from(URL_SAFE_NO_PAD.encode(*bits)))
}
