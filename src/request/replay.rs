//! The replay of a rejected request.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use crate::{
    body::{Peeked, ReplayBody, Replayable, ResponseBody},
    error::{BoxError, Error},
    report::{event::Replayed, observer::Event, outcome::ReplaySkipped},
    request::{
        authorize,
        head::Head,
        pending::{PendingRequest, ReplayParts},
    },
    session::live::{LiveSession, Published},
    soap::session_header::{self, HeaderRewrite},
    verdict::Api,
};

/// A request that will be sent again.
pub(crate) struct Replay<B> {
    head: Head,
    body: Replayable<B>,
}

impl<S, B> PendingRequest<S, B> {
    /// Prepares a replay with this session: takes what was kept of the request, and writes the session into the body, if that
    /// is a SOAP envelope. Fails with the reason not to replay the request with this session.
    pub(crate) fn prepare_replay(
        &mut self,
        live: &LiveSession,
    ) -> Result<Replay<B>, ReplaySkipped> {
        if let Some(reason) = self.skip_reason(live) {
            return Err(reason);
        }
        let ReplayParts { mut head, body } = self.take_parts()?;
        let body = body.into_replayable(|| head.small_body());
        let body = body.ok_or(ReplaySkipped::BodyNotReplayable)?;
        let mut replay = Replay { head, body };
        if self.api() == Api::Soap {
            if self.was_bound() && live.0.session.bound_key().is_none() {
                replay.remove_proof();
            }
            replay.write_session(&live.0)?;
        }
        Ok(replay)
    }

    /// Takes what was kept of the request. There is nothing to replay then until [`replay`](Self::replay).
    fn take_parts(&mut self) -> Result<ReplayParts<B>, ReplaySkipped> {
        std::mem::replace(&mut self.replay, Err(ReplaySkipped::BodyNotReplayable))
    }

    /// Builds the request of a replay, and keeps what another one needs. Reports the replay.
    pub(crate) fn replay(
        &mut self,
        replay: Replay<B>,
        published: &Published,
    ) -> Result<Request<ReplayBody<B>>, Error>
    where
        B: Body + Unpin,
        B::Error: Into<BoxError>,
    {
        let Replay { mut head, body } = replay;
        self.count_replay(published);
        let is_last = self.is_exhausted() && !self.may_replay_for_nonce();
        let (body, kept_body) = if is_last {
            (
                ReplayBody::resend(body),
                Err(ReplaySkipped::RefreshesExhausted),
            )
        } else {
            let (body, kept) = ReplayBody::resend_keeping(body);
            (body, kept.ok_or(ReplaySkipped::BodyNotReplayable))
        };
        let request = head.rebuild(self.api(), published, body)?;
        self.watch(published, request.uri());
        self.replay = kept_body.map(|body| ReplayParts { head, body });
        let replayed = Event::Replayed(Replayed {
            attempt: self.attempts(),
            generation: self.generation,
        });
        self.handle().shared.announce(&[replayed]);
        Ok(request)
    }

    /// Returns a rejection to the caller, with the reason why there is no replay.
    pub(crate) fn give_up<R: Body>(
        &self,
        mut rejection: Response<Peeked<R>>,
        reason: ReplaySkipped,
    ) -> Response<ResponseBody<R>> {
        let is_refreshed = match reason {
            ReplaySkipped::RefreshFailed
            | ReplaySkipped::Fruitless
            | ReplaySkipped::NonceRefused => self.is_refreshed(),
            ReplaySkipped::NotWanted | ReplaySkipped::BodyNotReplayable if self.is_nonce_due() => {
                self.is_refreshed()
            }
            // The other reasons follow a refresh.
            _ => true,
        };
        self.attach_outcome(&mut rejection, is_refreshed, Some(reason));
        rejection.map(ResponseBody::from)
    }
}

impl<B> Replay<B> {
    /// Removes the proof of a session that was bound. A server may refuse a bearer token that comes with one.
    fn remove_proof(&mut self) {
        if let HeaderRewrite::Envelope(envelope) = session_header::remove_proof(self.body.data()) {
            self.replace_envelope(envelope);
        }
    }

    fn replace_envelope(&mut self, envelope: Vec<u8>) {
        let growth = authorize::growth(self.body.data(), &envelope);
        self.head.grow_body(growth);
        self.body.replace_data(Bytes::from(envelope));
    }

    /// Writes the session into a SOAP envelope. Fails if the place for it was not kept.
    fn write_session(&mut self, published: &Published) -> Result<(), ReplaySkipped> {
        // Without a URI the request cannot be built either.
        let uri = self.head.uri(published).unwrap_or_default();
        let request = (self.head.method(), &uri);
        match authorize::write_session(self.body.data(), request, published) {
            HeaderRewrite::Envelope(envelope) => {
                self.replace_envelope(envelope);
                Ok(())
            }
            // The envelope is malformed: the server reports that.
            HeaderRewrite::Incomplete if self.body.is_whole() => Ok(()),
            // The place for the session may be in the rest of the stream.
            HeaderRewrite::Incomplete => Err(ReplaySkipped::BodyNotReplayable),
            HeaderRewrite::Unchanged => Ok(()),
        }
    }
}
