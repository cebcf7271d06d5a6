//! The version of a record.

use std::{fmt, str::FromStr};

use crate::error::{StoreError, StoreErrorKind};

/// Identifies a record among all that were saved under its key.
///
/// A save is a compare-and-swap on it: see [`Save::replaces`](super::Save::replaces). A store may keep it in a column of its
/// own: the text of [`Display`](fmt::Display) has at most 70 ASCII characters, and [`FromStr`] reads it back. It contains no
/// secret.
///
/// ```
/// use tower_salesforce_auth::{Session, store::{Record, Version}};
///
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// let record = Record::new(session.clone());
/// let version = record.version();
/// assert_ne!(record.followed_by(session).version(), version);
/// assert_eq!(version.to_string().parse::<Version>()?, version);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// The login that the record descends from. Records that follow one another, with no deletion in between, share it.
    pub(super) login: u128,
    /// The position of the record since that login, from 1. Each save increments it.
    pub(super) number: u64,
    /// Tells apart two records that take the same position: two processes may both believe to have the lock.
    pub(super) tokens: u64,
}

impl Version {
    #[cfg(test)]
    pub(crate) const fn new(login: u128, number: u64, tokens: u64) -> Self {
        Self {
            login,
            number,
            tokens,
        }
    }

    /// Whether the record was saved after `last_seen`, or descends from another login.
    pub(crate) fn is_newer_than(self, last_seen: Option<Self>) -> bool {
        last_seen.is_none_or(|seen| self.login != seen.login || self.number > seen.number)
    }

    /// Whether the record descends from the same login as `other`.
    pub(crate) fn is_of_login(self, other: Option<Self>) -> bool {
        other.is_some_and(|other| self.login == other.login)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            login,
            number,
            tokens,
        } = self;
        write!(f, "{login:032x}.{number}.{tokens:016x}")
    }
}

impl FromStr for Version {
    type Err = StoreError;

    /// Reads the text that [`Display`](fmt::Display) wrote.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](super::StoreErrorKind::Corrupt) for any other text.
    fn from_str(text: &str) -> Result<Self, StoreError> {
        let parse = || {
            let (login, rest) = text.split_once('.')?;
            let (number, tokens) = rest.split_once('.')?;
            let version = Self {
                login: u128::from_str_radix(login, 16).ok()?,
                number: number.parse().ok()?,
                tokens: u64::from_str_radix(tokens, 16).ok()?,
            };
            // One version has one text.
            (version.to_string() == text).then_some(version)
        };
        parse().ok_or_else(|| {
            StoreError::new(
                StoreErrorKind::Corrupt,
                "the version of the session record is not valid: restore the record, or delete it to log in again",
            )
        })
    }
}
