//! Encrypted session records.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::record::{self, Record};
use crate::error::{BoxError, StoreError, StoreErrorKind};

/// The value of `format` that identifies an encrypted session record.
const FORMAT: &str = "tower-salesforce-auth session, encrypted with XChaCha20-Poly1305";

/// Version 1 did not name the key.
const VERSION: u32 = 2;

/// A key that encrypts session records with XChaCha20-Poly1305, an AEAD whose nonce is long enough to be random.
///
/// Each encrypted record is bound to its store key. So an attacker who can write to the store cannot replace one user's
/// session with another user's. An attacker can still restore an older record of the same user.
///
/// Keep the key apart from the records. Make it from 32 random bytes, not from a password:
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
/// # Changing the key
///
/// A key that is followed by [older ones](Self::or) decrypts with each of them, and encrypts with the first. The guide has the
/// [order of deployments](crate::docs::security#changing-the-encryption-key) that changes the key without a stop.
#[derive(Clone)]
pub struct EncryptionKey {
    first: Key,
    /// Keys that only decrypt.
    older: Vec<Key>,
}

/// An encrypted record, as it is written.
#[derive(Serialize, Deserialize)]
struct Sealed {
    format: String,
    version: u32,
    /// Names the key with which the record was encrypted. `None` in version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    nonce: String,
    ciphertext: String,
}

impl EncryptionKey {
    /// Creates a key from these bytes.
    pub fn new(key: [u8; 32]) -> Self {
        Self {
            first: Key(Zeroizing::new(key)),
            older: Vec::new(),
        }
    }

    /// Decrypts with this older key too. Any number of them may follow; encryption is always with the first key.
    ///
    /// ```
    /// use tower_salesforce_auth::{Session, store::{EncryptionKey, Record}};
    ///
    /// let (old, new) = (EncryptionKey::new([1; 32]), EncryptionKey::new([2; 32]));
    /// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
    /// let text = old.seal("nightly-export", &Record::new(session))?;
    ///
    /// let both = new.clone().or(old);
    /// let record = both.open("nightly-export", &text)?;
    /// let text = both.seal("nightly-export", &record)?;
    /// assert!(new.open("nightly-export", &text).is_ok());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn or(mut self, older: Self) -> Self {
        self.older.push(older.first);
        self.older.extend(older.older);
        self
    }

    /// Encrypts a record for the key `store_key` of the store. Returns JSON on one line.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](StoreErrorKind::Unavailable) if the operating system provides no random numbers.
    pub fn seal(&self, store_key: &str, record: &Record) -> Result<String, StoreError> {
        let plaintext = record.encode();
        let plaintext = plaintext.expose().as_bytes();
        let (nonce, ciphertext) =
            self.encrypt(store_key.as_bytes(), plaintext)
                .map_err(|error| {
                    StoreError::new(
                        StoreErrorKind::Unavailable,
                        "the session record cannot be encrypted: the operating system provides no random numbers",
                    )
                    .with_source(error)
                })?;
        let sealed = Sealed {
            format: FORMAT.to_owned(),
            version: VERSION,
            key_id: Some(self.id()),
            nonce: STANDARD.encode(nonce),
            ciphertext: STANDARD.encode(ciphertext),
        };
        serde_json::to_string(&sealed).map_err(|error| record::unreadable(&error))
    }

    /// Decrypts a record that [`seal`](Self::seal) encrypted for the same `store_key`, with this key or an
    /// [older one](Self::or).
    ///
    /// # Errors
    ///
    /// [`Undecryptable`](StoreErrorKind::Undecryptable) if the record was encrypted with another key or for another
    /// `store_key`, was changed afterwards, or is not encrypted. The error names the key that the record needs. Other errors as
    /// for [`Record::decode`].
    pub fn open(&self, store_key: &str, text: &str) -> Result<Record, StoreError> {
        let sealed: Sealed = match serde_json::from_str(text) {
            Ok(sealed) => sealed,
            // An attacker who can write to the store must not bypass the key with a plain record.
            Err(_) if Record::decode(text).is_ok() => {
                return Err(undecryptable(
                    "the session record is not encrypted, although the store has a key: load it from a store without \
                     a key, and save it to this store",
                ));
            }
            Err(error) => return Err(record::unreadable(&error)),
        };
        if sealed.format != FORMAT {
            return Err(record::corrupt(
                "the record is not an encrypted session record",
            ));
        }
        record::check_version(sealed.version, VERSION)?;
        let key_id = sealed.key_id.as_deref();
        // A record of version 1 may be of any key.
        let mut named = self
            .keys()
            .filter(|key| sealed.version == 1 || key_id == Some(&key.id()))
            .peekable();
        if named.peek().is_none() {
            return Err(self.not_decrypted(key_id));
        }
        let decode = |what: &str| STANDARD.decode(what).ok();
        let nonce: Option<[u8; 24]> = decode(&sealed.nonce).and_then(|nonce| nonce.try_into().ok());
        let (Some(nonce), Some(ciphertext)) = (nonce, decode(&sealed.ciphertext)) else {
            return Err(record::corrupt(
                "the encrypted session record has a nonce or ciphertext that is not valid Base64",
            ));
        };
        let record = named
            .find_map(|key| key.decrypt(store_key.as_bytes(), &nonce, &ciphertext))
            .ok_or_else(|| self.not_decrypted(key_id))?;
        let record = str::from_utf8(&record)
            .map_err(|_| record::corrupt("the session record is not text"))?;
        Record::decode(record)
    }

    /// Encrypts a text that only [`decrypt`](Self::decrypt) with the same `purpose` reads. Returns the nonce and the
    /// ciphertext. Fails without random numbers.
    pub(crate) fn encrypt(
        &self,
        purpose: &[u8],
        plaintext: &[u8],
    ) -> Result<([u8; 24], Vec<u8>), BoxError> {
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce)?;
        let payload = Payload {
            msg: plaintext,
            aad: purpose,
        };
        match self.first.cipher().encrypt(&XNonce::from(nonce), payload) {
            Ok(ciphertext) => Ok((nonce, ciphertext)),
            // The limit of the cipher is 256 GiB.
            Err(_) => Err("the text is too long".into()),
        }
    }

    /// Compares the tag in constant time. `None` if the text was encrypted with a key that is not here or for another purpose,
    /// or was changed.
    pub(crate) fn decrypt(
        &self,
        purpose: &[u8],
        nonce: &[u8; 24],
        ciphertext: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        self.keys()
            .find_map(|key| key.decrypt(purpose, nonce, ciphertext))
    }

    /// The error of a record that cannot be decrypted. `key_id` names the key of the record.
    fn not_decrypted(&self, key_id: Option<&str>) -> StoreError {
        let ids: Vec<_> = self.keys().map(Key::id).collect();
        let reason = match key_id {
            Some(key_id) if ids.iter().any(|id| id == key_id) => {
                "it was encrypted for another session, or was changed afterwards".to_owned()
            }
            Some(key_id) if is_key_id(key_id) => {
                let here = match ids.as_slice() {
                    [id] => format!("the key of this store is {id}"),
                    ids => format!("the keys of this store are {}", ids.join(", ")),
                };
                format!(
                    "it was encrypted with the key {key_id}, and {here}: add that key with `EncryptionKey::or`, and the \
                     record is read again; nothing has changed it"
                )
            }
            _ => "it was encrypted with another key, or for another session, or was changed afterwards"
                .to_owned(),
        };
        StoreError::new(
            StoreErrorKind::Undecryptable,
            format!("the session record cannot be decrypted: {reason}"),
        )
    }

    /// Names the first key in records and errors: 16 hexadecimal digits that tell nothing about it.
    pub fn id(&self) -> String {
        self.first.id()
    }

    /// All keys, the one that encrypts first.
    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.first).chain(&self.older)
    }
}

/// One key of 256 bits.
#[derive(Clone)]
struct Key(Zeroizing<[u8; 32]>);

impl Key {
    fn id(&self) -> String {
        let mut digest = Sha256::new();
        digest.update("tower-salesforce-auth key id");
        digest.update(*self.0);
        let id = digest.finalize();
        let id = id.iter().take(8);
        let id = id.fold(0, |id, byte| (id << 8) | u64::from(*byte));
        format!("{id:016x}")
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }

    /// `None` if the text was encrypted with another key or for another purpose, or was changed.
    fn decrypt(
        &self,
        purpose: &[u8],
        nonce: &[u8; 24],
        ciphertext: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let payload = Payload {
            msg: ciphertext,
            aad: purpose,
        };
        let plaintext = self.cipher().decrypt(&XNonce::from(*nonce), payload);
        plaintext.ok().map(Zeroizing::new)
    }
}

/// Whether a text of a record may be shown as the id of a key.
fn is_key_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn undecryptable(message: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Undecryptable, message)
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey([redacted])")
    }
}
