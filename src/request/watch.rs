//! What a request notes for its answer, if its session is one of the few whose answers matter.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, Uri, header::WWW_AUTHENTICATE};

use crate::{
    session::live::{Extras, Published},
    verdict::Verdict,
};

/// The session of a request whose answer matters: it is on probation, or bound to a key.
pub(super) struct Watch {
    extras: Arc<Extras>,
    /// Where the request was sent.
    uri: Uri,
    nonce: NonceReplay,
}

/// Whether a request is sent once more for a nonce (RFC 9449 §9). That happens once, so that no loop is possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum NonceReplay {
    #[default]
    Possible,
    Due,
    Done,
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
        let nonce = before.map_or(NonceReplay::Possible, |before| before.nonce);
        Some(Box::new(Self {
            uri: uri.clone(),
            extras: Arc::clone(extras),
            nonce,
        }))
    }

    /// Notes the last answer of the request.
    #[cold]
    pub(super) fn conclude(&self, headers: &HeaderMap, verdict: Verdict) {
        if verdict == Verdict::Pass {
            self.extras.accept();
        }
        self.keep_nonce(headers);
    }

    fn keep_nonce(&self, headers: &HeaderMap) -> bool {
        let key = self.extras.dpop_key();
        key.is_some_and(|key| key.keep_nonce(&self.uri, headers))
    }

    /// Notes a rejection, and whether a new proof may cure it.
    pub(super) fn rejected<B>(&mut self, response: &Response<B>) -> NonceDemand {
        let has_nonce = self.keep_nonce(response.headers());
        if !has_nonce || response.status() != StatusCode::UNAUTHORIZED {
            return NonceDemand::None;
        }
        let demand = match (Challenge::of(response.headers()), self.nonce) {
            (Challenge::Nonce | Challenge::Unknown, NonceReplay::Possible) => NonceDemand::Replay,
            (Challenge::Nonce, NonceReplay::Due | NonceReplay::Done) => NonceDemand::InVain,
            (Challenge::Unknown | Challenge::Other, _) => NonceDemand::None,
        };
        if demand == NonceDemand::Replay {
            self.nonce = NonceReplay::Due;
        }
        demand
    }

    /// Whether a replay for a nonce may follow.
    pub(super) fn may_replay(&self) -> bool {
        self.extras.dpop_key().is_some() && self.nonce == NonceReplay::Possible
    }

    /// Whether the next replay is for a nonce.
    pub(super) fn is_nonce_due(&self) -> bool {
        self.nonce == NonceReplay::Due
    /// Whether the session is bound to a key.
    pub(super) fn is_bound(&self) -> bool {
        self.extras.dpop_key().is_some()
    }

    }

    /// Whether one of the replays was for a nonce.
    pub(super) fn was_sent_for_nonce(&self) -> bool {
        self.nonce == NonceReplay::Done
    }

    pub(super) fn nonce_done(&mut self) {
        self.nonce = NonceReplay::Done;
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
        let mut challenges = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|challenge| challenge.to_str().ok())
            .filter(|challenge| challenge.contains("DPoP") && challenge.contains("error="));
        match challenges.next() {
            None => Self::Unknown,
            Some(challenge) if challenge.contains("use_dpop_nonce") => Self::Nonce,
            Some(_) => Self::Other,
        }
    }
}
