//! Random values that cannot be guessed.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::{
    error::{BoxError, Error, ErrorKind},
    secret::Secret,
};

/// 256 random bits as 43 characters that no URL, form or cookie has to encode.
pub(crate) fn random() -> Result<Secret, Error> {
    let mut bits = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bits).map_err(no_randomness)?;
    Ok(Secret::from(URL_SAFE_NO_PAD.encode(*bits)))
}

/// 128 random bits as 22 characters: an id that is not secret.
#[cfg(feature = "dpop")]
pub(super) fn random_id() -> Result<String, Error> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(no_randomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bits))
}

pub(super) fn no_randomness(error: impl Into<BoxError>) -> Error {
    Error::new(
        ErrorKind::NoRandomness,
        "the operating system has no random numbers",
    )
    .with_source(error)
}
