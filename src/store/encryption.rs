//! Records that only the holder of a key can read.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::record::{self, Record};
use crate::error::{StoreError, StoreErrorKind};

/// How an encrypted record says what it is.
const FORMAT: &str = "tower-salesforce-auth session, encrypted with XChaCha20-Poly1305";

const VERSION: u32 = 1;

/// A key that session records are encrypted with: XChaCha20-Poly1305, an AEAD whose nonce is long enough to be random.
///
/// A record is bound to the key of the store that it is stored under, so that nobody who can write to the store can put one
/// user's session in another's place. Nothing keeps them from putting an older record of the same user back.
///
/// Keep the key apart from the records, and make it of 32 random bytes, not of a password:
///
/// ```
/// use tower_salesforce_auth::{Session, store::{EncryptionKey, Record}};
///
/// # fn bytes_from_the_vault() -> [u8; 32] { [7; 32] }
/// let key = EncryptionKey::new(bytes_from_the_vault());
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
///
/// let text = key.seal("nightly-export", &Record::new(session))?;
/// assert!(!text.contains("AQEAQ"));
/// assert!(key.open("nightly-export", &text).is_ok());
/// assert!(key.open("another", &text).is_err());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # To change the key
///
/// ```
/// use tower_salesforce_auth::store::{EncryptionKey, StoreError};
///
/// fn sealed_anew(text: &str, old: &EncryptionKey, new: &EncryptionKey) -> Result<String, StoreError> {
///     new.seal("nightly-export", &old.open("nightly-export", text)?)
/// }
/// ```
///
/// under the lock, and with a store that does not encrypt by itself; or load from a store with the old key, and save to one
/// with the new, while nobody else uses it.
#[derive(Clone)]
pub struct EncryptionKey(Zeroizing<[u8; 32]>);

#[derive(Serialize, Deserialize)]
struct Sealed {
    format: String,
    version: u32,
    nonce: String,
    ciphertext: String,
}

impl EncryptionKey {
    /// A key of these bytes.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }

    /// Encrypts a record that is to be stored under `store_key`. The text is JSON on one line.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](StoreErrorKind::Unavailable) if the operating system has no random numbers to give.
    pub fn seal(&self, store_key: &str, record: &Record) -> Result<String, StoreError> {
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).map_err(|error| {
            StoreError::new(
                StoreErrorKind::Unavailable,
                "the session record cannot be encrypted: the operating system has no random numbers to give",
            )
            .with_source(error)
        })?;
        let plaintext = record.encode();
        let payload = Payload {
            msg: plaintext.expose().as_bytes(),
            aad: store_key.as_bytes(),
        };
        let ciphertext = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| {
                StoreError::new(
                    StoreErrorKind::Unavailable,
                    "the session record is too long to be encrypted",
                )
            })?;
        let sealed = Sealed {
            format: FORMAT.to_owned(),
            version: VERSION,
            nonce: STANDARD.encode(nonce),
            ciphertext: STANDARD.encode(ciphertext),
        };
        serde_json::to_string(&sealed).map_err(|error| record::unreadable(&error))
    }

    /// Decrypts what [`seal`](Self::seal) encrypted under the same `store_key`.
    ///
    /// # Errors
    ///
    /// [`Undecryptable`](StoreErrorKind::Undecryptable) if it was encrypted with another key or for another place, was
    /// changed since, or is not encrypted; otherwise as for [`Record::decode`].
    pub fn open(&self, store_key: &str, text: &str) -> Result<Record, StoreError> {
        let sealed: Sealed = match serde_json::from_str(text) {
            Ok(sealed) => sealed,
            // Whoever can write to the store must not get around the key.
            Err(_) if Record::decode(text).is_ok() => {
                return Err(undecryptable(
                    "the session record is not encrypted, although the store has a key: load it from a store without \
                     one, and save it to this one",
                ));
            }
            Err(error) => return Err(record::unreadable(&error)),
        };
        if sealed.format != FORMAT {
            return Err(record::corrupt(
                "the record is not an encrypted one of a session",
            ));
        }
        record::check_version(sealed.version, VERSION)?;
        let decode = |what: &str| STANDARD.decode(what).ok();
        let nonce: Option<[u8; 24]> = decode(&sealed.nonce).and_then(|nonce| nonce.try_into().ok());
        let (Some(nonce), Some(ciphertext)) = (nonce, decode(&sealed.ciphertext)) else {
            return Err(record::corrupt(
                "the encrypted session record has a nonce or a text that is not Base64",
            ));
        };
        let payload = Payload {
            msg: &ciphertext,
            aad: store_key.as_bytes(),
        };
        let record = self
            .cipher()
            .decrypt(&XNonce::from(nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| {
                undecryptable(
                    "the session record cannot be decrypted: it was encrypted with another key, or for another session, \
                     or was changed since",
                )
            })?;
        let record = str::from_utf8(&record)
            .map_err(|_| record::corrupt("the session record is not text"))?;
        Record::decode(record)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

fn undecryptable(message: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Undecryptable, message)
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey([redacted])")
    }
}
