//! A rejected request and its replay.

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
    soap::session_header::HeaderRewrite,
    verdict::Api,
};

// === Rejected ===

/// A request with a response that rejects it, or may turn out to.
pub(crate) struct Rejected<S, B, ResBody: Body> {
    pub(crate) response: Response<Peeked<ResBody>>,
    pub(crate) pending: PendingRequest<S, B>,
}

impl<S, B, ResBody: Body> Rejected<S, B, ResBody> {
    /// Returns the rejection to the caller, with the reason why there is no replay.
    pub(crate) fn into_response(
        mut self,
        reason: ReplaySkipped,
    ) -> Response<ResponseBody<ResBody>> {
        let is_refreshed = match reason {
            ReplaySkipped::RefreshFailed | ReplaySkipped::Fruitless => self.pending.is_refreshed(),
            // The other reasons follow a refresh.
            _ => true,
        };
        self.pending
            .attach_outcome(&mut self.response, is_refreshed, Some(reason));
        self.response.map(ResponseBody::from)
    }
}

// === Replay ===

/// A request that will be sent again. Keeps the rejection, to return it if the replay is not possible after all.
pub(crate) struct Replay<S, B, ResBody: Body> {
    pub(crate) rejected: Box<Rejected<S, B, ResBody>>,
    pub(crate) head: Head,
    pub(crate) body: Replayable<B>,
}

/// The request of a replay, and the pending request to keep while it is sent.
pub(crate) type ReplayRequest<S, B> = (Request<ReplayBody<B>>, PendingRequest<S, B>);

impl<S, B, ResBody> Replay<S, B, ResBody>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
    ResBody: Body,
{
    /// Writes the session into the body, if that is a SOAP envelope. Fails with the reason not to replay the request with
    /// this session.
    pub(crate) fn write_session(&mut self, live: &LiveSession) -> Result<(), ReplaySkipped> {
        let pending = &self.rejected.pending;
        if let Some(reason) = pending.skip_reason(live) {
            return Err(reason);
        }
        if pending.api() != Api::Soap {
            return Ok(());
        }
        match authorize::write_session(self.body.data(), &live.0) {
            HeaderRewrite::Envelope(envelope) => {
                let growth = authorize::growth(self.body.data(), &envelope);
                self.head.grow_body(growth);
                self.body.replace_data(Bytes::from(envelope));
                Ok(())
            }
            // The envelope is malformed: the server reports that.
            HeaderRewrite::Incomplete if self.body.is_whole() => Ok(()),
            // The place for the session may be in the rest of the stream.
            HeaderRewrite::Incomplete => Err(ReplaySkipped::BodyNotReplayable),
            HeaderRewrite::Unchanged => Ok(()),
        }
    }

    /// Drops the rejection and builds the request to send. Reports the replay.
    pub(crate) fn into_request(
        self,
        published: &Published,
        clone_inner: impl FnOnce() -> S,
    ) -> Result<ReplayRequest<S, B>, Error> {
        let Self {
            rejected,
            head,
            body,
        } = self;
        let mut pending = rejected.pending;
        pending.count_replay(published);
        let (body, kept_body) = if pending.is_exhausted() {
            (
                ReplayBody::resend(body),
                Err(ReplaySkipped::RefreshesExhausted),
            )
        } else {
            let (body, kept) = ReplayBody::resend_keeping(body);
            (body, kept.ok_or(ReplaySkipped::BodyNotReplayable))
        };
        let request = head.rebuild(pending.api(), published, body)?;
        pending.replay = kept_body.map(|body| ReplayParts {
            not_ready_inner: clone_inner(),
            head,
            body,
        });
        let news = Event::Replayed(Replayed {
            attempt: pending.attempts(),
            generation: pending.generation,
        });
        pending.handle.shared.announce(&[news]);
        Ok((request, pending))
    }
}
