//! A rejected request, and its replay.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use crate::{
    body::{Peeked, ReplayBody, Replayable, ResponseBody},
    error::{BoxError, Error},
    report::{event::Replayed, observer::News, outcome::ReplaySkipped},
    request::{
        authorize::{growth, write_session},
        head::Head,
        pending::{PendingRequest, ReplayParts},
    },
    session::live::Published,
    soap::session_header::HeaderRewrite,
    verdict::Api,
};

/// A request that was answered with a rejection, or with what may be one, and the answer.
pub(crate) struct Rejected<S, B, ResBody: Body> {
    pub(crate) response: Response<Peeked<ResBody>>,
    pub(crate) pending: PendingRequest<S, B>,
}

impl<S, B, ResBody: Body> Rejected<S, B, ResBody> {
    /// Returns the rejection after all.
    pub(crate) fn into_response(
        mut self,
        replay_skipped: ReplaySkipped,
    ) -> Response<ResponseBody<ResBody>> {
        let is_refreshed = match replay_skipped {
            ReplaySkipped::RefreshFailed | ReplaySkipped::Fruitless => self.pending.is_refreshed(),
            _ => true,
        };
        self.pending
            .note(&mut self.response, is_refreshed, Some(replay_skipped));
        self.response.map(ResponseBody::from)
    }
}

/// A replay, ready to be sent, and what is remembered of it.
pub(crate) type ReplayRequest<S, B> = (Request<ReplayBody<B>>, PendingRequest<S, B>);

/// A request that is to be sent again, and the rejection that it replaces, unless it cannot be sent after all.
pub(crate) struct Replay<S, B, ResBody: Body> {
    pub(crate) rejected: Box<Rejected<S, B, ResBody>>,
    pub(crate) head: Head,
    pub(crate) body: Replayable<B>,
}

impl<S, B, ResBody> Replay<S, B, ResBody>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
    ResBody: Body,
{
    /// Writes the session into an envelope. If it cannot be told where in it, says why the request is not sent again.
    pub(crate) fn write_session(&mut self, published: &Published) -> Option<ReplaySkipped> {
        if self.rejected.pending.api != Api::Soap {
            return None;
        }
        match write_session(self.body.data(), published) {
            HeaderRewrite::Envelope(envelope) => {
                self.head.grow_body(growth(self.body.data(), &envelope));
                self.body.replace_data(Bytes::from(envelope));
                None
            }
            // Not well-formed: let the server say so.
            HeaderRewrite::Incomplete if self.body.is_whole() => None,
            HeaderRewrite::Incomplete => Some(ReplaySkipped::BodyNotReplayable),
            HeaderRewrite::Unchanged => None,
        }
    }

    /// Drops the rejection, and prepares the next attempt.
    pub(crate) fn attempt(
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
        pending.generation = published.generation;
        pending.attempts = pending.attempts.saturating_add(1);
        if !published.is_adopted || std::mem::replace(&mut pending.has_adopted, true) {
            pending.refreshes_left = pending.refreshes_left.saturating_sub(1);
        }
        pending.has_jwt = published.has_jwt;
        pending.trial.clone_from(&published.trial);
        let is_last = pending.refreshes_left == 0;
        let (body, kept) = if is_last {
            (
                ReplayBody::resend(body),
                Err(ReplaySkipped::RefreshesExhausted),
            )
        } else {
            let (body, kept) = ReplayBody::resend_keeping(body);
            (body, kept.ok_or(ReplaySkipped::BodyNotReplayable))
        };
        let request = head.rebuild(pending.api, published, body)?;
        pending.kept = kept.map(|body| ReplayParts {
            not_ready_inner: clone_inner(),
            head,
            body,
        });
        let news = News::Replayed(Replayed {
            attempt: pending.attempts,
            generation: pending.generation,
        });
        pending.handle.shared.announce(&[news]);
        Ok((request, pending))
    }
}
