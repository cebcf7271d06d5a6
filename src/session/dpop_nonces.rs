//! The nonces that servers demand in proofs (RFC 9449 §8, §9).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderMap, HeaderName, Uri};

use super::url::host_and_port;

/// The header in which a server sends the next nonce.
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// How many servers a key remembers the nonces of. With more, some cost one more call.
const REMEMBERED: usize = 1024;

/// The longest nonce that is kept, in bytes. Servers send some dozens.
const LONGEST: usize = 1024;

/// The newest nonce of each server, by host and port.
#[derive(Default)]
pub(super) struct Nonces(Mutex<HashMap<String, Arc<str>>>);

impl Nonces {
    /// The newest nonce of the server at this URI. `None` if it has sent none.
    pub(super) fn of(&self, uri: &Uri) -> Option<Arc<str>> {
        let nonces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if nonces.is_empty() {
            return None;
        }
        nonces.get(&server(uri)).cloned()
    }

    /// Keeps the nonce of an answer. Returns whether the answer has one.
    pub(super) fn keep(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let nonce = headers.get(DPOP_NONCE);
        let Some(nonce) = nonce.and_then(|nonce| nonce.to_str().ok()) else {
            return false;
        };
        let is_usable =
            (1..=LONGEST).contains(&nonce.len()) && !nonce.contains(char::is_whitespace);
        if is_usable {
            let mut nonces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let server = server(uri);
            if nonces.get(&server).is_some_and(|known| **known == *nonce) {
                return true;
            }
            if nonces.len() >= REMEMBERED {
                nonces.clear();
            }
            nonces.insert(server, nonce.into());
        }
        is_usable
    }
}

fn server(uri: &Uri) -> String {
    host_and_port(uri).to_ascii_lowercase()
}
