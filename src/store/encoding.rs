//! How a store writes its records: as plain text, or encrypted.

use super::{encryption::EncryptionKey, record::Record};
use crate::{error::StoreError, secret::Secret};

/// The encoding of the records of a store. `None`: plain text.
#[derive(Clone, Default)]
pub(super) struct Encoding(Option<EncryptionKey>);

impl Encoding {
    /// Encrypts records, and refuses those that are not encrypted with this key or an older one of its ring.
    #[cfg(feature = "encryption")]
    pub(super) fn encrypted(key: EncryptionKey) -> Self {
        Self(Some(key))
    }

    /// Encodes a record that is stored under `key`.
    pub(super) fn encode(&self, key: &str, record: &Record) -> Result<Secret, StoreError> {
        match &self.0 {
            Some(encryption) => encryption.seal(key, record).map(Secret::from),
            None => Ok(record.encode()),
        }
    }

    /// Decodes a text that is stored under `key`.
    pub(super) fn decode(&self, key: &str, text: &str) -> Result<Record, StoreError> {
        match &self.0 {
            Some(encryption) => encryption.open(key, text),
            None => Record::decode(text),
        }
    }
}
