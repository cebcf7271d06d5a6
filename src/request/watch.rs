//! What a request notes for its answer, if its session is one of the few whose answers matter.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, Uri, header::WWW_AUTHENTICATE};

use crate::{
    request::redirect,
    session::live::{Extras, Published},
    verdict::Verdict,
};

/// The session of a request whose answer matters: it is on probation, or bound to a key.
pub(super) struct Watch {
    extras: Arc<Extras>,
    /// Where the request was sent.
    uri: Uri,
    /// The nonce in its proof. `None` if it has none.
    nonce: Option<Arc<str>>,
    nonce_replay: NonceReplay,
}

/// Whether a request is sent once more for a nonce (RFC 9449 §9). That happens once, so that no loop is possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum NonceReplay {
    #[default]
    Possible,
    Due,
    Done,
    /// It was due, and was sent with a session that had replaced the one before.
    DoneWithAnother,
}

/// What an answer says of the nonce in the proof of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonceDemand {
    /// Nothing.
    None,
    /// A proof with the nonce of the answer may be accepted.
    Replay,
    /// The server demands another nonce again, although the request had the one of its last answer.
    InVain,
}

impl Watch {
    /// `before` is what was noted for the last answer. `None` if answers of this session do not matter.
    #[cold]
    pub(super) fn of(published: &Published, uri: &Uri, before: Option<&Self>) -> Option<Box<Self>> {
        let extras = published.watched()?;
        Some(Box::new(Self {
            uri: uri.clone(),
            nonce: extras.dpop_key().and_then(|key| key.nonce(uri)),
            nonce_replay: before.map_or(NonceReplay::Possible, |before| before.nonce_replay),
            extras: Arc::clone(extras),
        }))
    }

    /// Notes the last answer of the request.
    #[cold]
    pub(super) fn conclude<B>(&self, response: &Response<B>, verdict: Verdict) {
        if verdict == Verdict::Pass {
            self.extras.accept();
        }
        self.keep_nonce(response);
    }

    /// Keeps the nonce of an answer for the server that sent it, and returns it.
    fn keep_nonce<B>(&self, response: &Response<B>) -> Option<Arc<str>> {
        let uri = redirect::last_uri(response).unwrap_or(&self.uri);
        let key = self.extras.dpop_key()?;
        key.keep_nonce(uri, response.headers())
    }

    /// Notes a rejection, and whether a new proof may cure it.
    pub(super) fn rejected<B>(&mut self, response: &Response<B>) -> NonceDemand {
        let nonce = self.keep_nonce(response);
        if nonce.is_none() || response.status() != StatusCode::UNAUTHORIZED {
            return NonceDemand::None;
        }
        // A server may send its nonce with every answer, and so with one that is about the session.
        let is_new = nonce != self.nonce;
        let demand = match (Challenge::of(response.headers()), self.nonce_replay) {
            (Challenge::Nonce, NonceReplay::Possible) => NonceDemand::Replay,
            (Challenge::Nonce, _) => NonceDemand::InVain,
            (Challenge::Unknown, NonceReplay::Possible) if is_new => NonceDemand::Replay,
            (Challenge::Unknown | Challenge::Other, _) => NonceDemand::None,
        };
        if demand == NonceDemand::Replay {
            self.nonce_replay = NonceReplay::Due;
        }
        demand
    }

    /// Whether the session is bound to a key.
    pub(super) fn is_bound(&self) -> bool {
        self.extras.dpop_key().is_some()
    }

    /// Whether a replay for a nonce may follow.
    pub(super) fn may_replay(&self) -> bool {
        self.is_bound() && self.nonce_replay == NonceReplay::Possible
    }

    /// Whether the next replay is for a nonce.
    pub(super) fn is_nonce_due(&self) -> bool {
        self.nonce_replay == NonceReplay::Due
    }

    /// Whether one of the replays was for a nonce alone: with the session that was sent before.
    pub(super) fn was_for_nonce_alone(&self) -> bool {
        self.nonce_replay == NonceReplay::Done
    }

    pub(super) fn nonce_done(&mut self, is_same_session: bool) {
        self.nonce_replay = if is_same_session {
            NonceReplay::Done
        } else {
            NonceReplay::DoneWithAnother
        };
    }
}

/// Why a server refused a proof, by its `WWW-Authenticate: DPoP` (RFC 9449 §7.1).
enum Challenge {
    /// It demands a nonce.
    Nonce,
    /// It names another error.
    Other,
    /// It names no error, or there is no such challenge.
    Unknown,
}

impl Challenge {
    fn of(headers: &HeaderMap) -> Self {
        let has = |parts: &[&str]| {
            let challenges = headers.get_all(WWW_AUTHENTICATE).iter();
            let mut texts = challenges.filter_map(|challenge| challenge.to_str().ok());
            texts.any(|text| parts.iter().all(|part| text.contains(part)))
        };
        if has(&["use_dpop_nonce"]) {
            Self::Nonce
        } else if has(&["DPoP", "error="]) {
            Self::Other
        } else {
            Self::Unknown
        }
    }
}
