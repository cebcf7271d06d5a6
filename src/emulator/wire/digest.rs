//! Length and digest of a body.

use std::fmt::Write;

use sha2::{Digest as _, Sha256};

/// The length and the SHA-256 digest of bytes that arrive in pieces.
#[derive(Default)]
pub(crate) struct BodyDigest {
    length: u64,
    hasher: Sha256,
}

impl BodyDigest {
    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        self.hasher.update(piece);
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The digest in lower-case hexadecimal digits.
    pub(crate) fn sha256(self) -> String {
        let mut sha256 = String::with_capacity(64);
        for byte in self.hasher.finalize() {
            // Writing to a `String` does not fail.
            let _ = write!(sha256, "{byte:02x}");
        }
        sha256
    }
}
