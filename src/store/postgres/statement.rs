//! The parameters of statements, with the types that the server reads them as.

use std::{error::Error as StdError, time::Duration};

use bytes::BytesMut;
use sha2::{Digest, Sha256};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::secret::Secret;

/// A thousand years: a longer time does not fit into every timestamp.
const LONGEST: Duration = Duration::from_secs(1_000 * 366 * 24 * 60 * 60);

/// One parameter.
#[derive(Debug)]
pub(super) enum Parameter {
    Bytes(Vec<u8>),
    ByteLists(Vec<Vec<u8>>),
    Text(String),
    Millis(Option<i64>),
    /// Written as bytes, so that the encoding of the database does not matter.
    Secret(Secret),
}

impl Parameter {
    /// The hash by which a key is found.
    pub(super) fn key_hash(key: &str) -> Self {
        Self::Bytes(key_hash(key))
    }

    /// The key for people: it fits into a text of any encoding, and has no NUL.
    pub(super) fn readable(key: &str) -> Self {
        let is_plain = |char: char| char == ' ' || (char.is_ascii_graphic() && char != '\\');
        let mut readable = String::with_capacity(key.len());
        for char in key.chars() {
            if is_plain(char) {
                readable.push(char);
            } else {
                readable.extend(char.escape_default());
            }
        }
        Self::Text(readable)
    }

    pub(super) fn text(text: &(impl ToString + ?Sized)) -> Self {
        Self::Text(text.to_string())
    }

    pub(super) fn millis(time: impl Into<Option<Duration>>) -> Self {
        let millis = time.into().map(|time| time.min(LONGEST).as_millis());
        Self::Millis(millis.and_then(|millis| i64::try_from(millis).ok()))
    }

    pub(super) fn kind(&self) -> Type {
        match self {
            Self::Bytes(_) | Self::Secret(_) => Type::BYTEA,
            Self::ByteLists(_) => Type::BYTEA_ARRAY,
            Self::Text(_) => Type::TEXT,
            Self::Millis(_) => Type::INT8,
        }
    }
}

/// The hash of a key: any string is a key, and the index of a primary key takes at most 2,700 bytes.
pub(super) fn key_hash(key: &str) -> Vec<u8> {
    Sha256::digest(key.as_bytes()).to_vec()
}

impl ToSql for Parameter {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Self::Bytes(bytes) => bytes.as_slice().to_sql(kind, out),
            Self::ByteLists(lists) => lists.to_sql(kind, out),
            Self::Text(text) => text.to_sql(kind, out),
            Self::Millis(millis) => millis.to_sql(kind, out),
            Self::Secret(secret) => secret.expose().as_bytes().to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::BYTEA, Type::BYTEA_ARRAY, Type::TEXT, Type::INT8].contains(kind)
    }

    to_sql_checked!();
}
