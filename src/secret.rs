//! A string that cannot be printed by accident.

use std::{fmt, sync::Arc};

use serde::Deserialize;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// An access token, refresh token, password, client secret, authorization code, or code verifier.
///
/// A secret has no [`Display`](fmt::Display), and its [`Debug`] output is `[redacted]`. Clones share their memory, which
/// is wiped when the last clone is dropped. Only [`expose`](Secret::expose) returns the text, so a search for it finds all
/// code that reads a secret. Secrets of the same length are compared in constant time.
///
/// ```
/// use tower_salesforce_auth::Secret;
///
/// let secret = Secret::from("5Aep861…");
/// assert_eq!(format!("{secret:?}"), "[redacted]");
/// assert_eq!(secret.expose(), "5Aep861…");
/// ```
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// The secret's text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self::from(Zeroizing::new(secret))
    }
}

impl From<Zeroizing<String>> for Secret {
    fn from(secret: Zeroizing<String>) -> Self {
        Self(Arc::new(secret))
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        Self::from(secret.to_owned())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
