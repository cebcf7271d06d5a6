//! Private keys and certificates that are encrypted with a pass phrase: PKCS #8 (RFC 5958) and PKCS #12 (RFC 7292).
//!
//! The cryptography is that of AWS-LC. Only what is current can be decrypted: PBES2 (RFC 8018 §6.2) with PBKDF2 and AES. Older
//! ciphers get an error with the command that converts the file.

mod decrypt;
mod pbes2;
mod pkcs12;

pub(crate) use self::decrypt::decrypted;
