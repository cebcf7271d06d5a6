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

    /// Keeps the nonce of an answer, and returns it. `None` if the answer has none that can be used.
    pub(super) fn keep(&self, uri: &Uri, headers: &HeaderMap) -> Option<Arc<str>> {
        let nonce = headers.get(DPOP_NONCE)?.to_str().ok()?;
        let is_usable =
            (1..=LONGEST).contains(&nonce.len()) && !nonce.contains(char::is_whitespace);
        if !is_usable {
            return None;
        }
        let server = server(uri);
        let mut nonces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = nonces.get(&server).filter(|known| ***known == *nonce) {
            return Some(Arc::clone(known));
        }
        if nonces.len() >= REMEMBERED {
            nonces.clear();
        }
        let nonce = Arc::from(nonce);
        nonces.insert(server, Arc::clone(&nonce));
        Some(nonce)
    }
}

fn server(uri: &Uri) -> String {
    host_and_port(uri).to_ascii_lowercase()
}
