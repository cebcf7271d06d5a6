//! One request and its answer, over all attempts: how the first is sent, and what is remembered for the next.

use http::{Request, Response};
use http_body::Body;

use crate::{
    body::{KeptBody, Peeked, ReplayBody, Replayable, ResponseBody},
    error::{BoxError, Error, ErrorKind},
    handle::SessionHandle,
    opt_out::{NoRefresh, NoReplay},
    outcome::{AuthOutcome, OnRefreshFailure, ReplaySkipped},
    request::{self, Head, Target},
    session::{Generation, LiveSession, Published},
};

/// How much may be done for one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_refreshes: u32,
    pub(crate) replay_limit: usize,
    pub(crate) on_refresh_failure: OnRefreshFailure,
}

/// What is remembered of a request while its answer is awaited.
pub(crate) struct Exchange<S, B> {
    pub(crate) handle: SessionHandle,
    /// The session that it was sent with last.
    pub(crate) generation: Generation,
    /// How often it was sent.
    pub(crate) attempts: u32,
    /// How often it may still be rejected, wait and be sent again.
    pub(crate) refreshes_left: u32,
    pub(crate) on_refresh_failure: OnRefreshFailure,
    pub(crate) kept: Result<Kept<S, B>, ReplaySkipped>,
}

/// What it takes to send a request again.
pub(crate) struct Kept<S, B> {
    /// The service to send it with. It was not polled to readiness yet.
    pub(crate) not_ready_inner: S,
    pub(crate) head: Head,
    pub(crate) body: KeptBody<B>,
}

/// A request with a session, ready to be sent, and what is remembered of it. None: its answer is passed on, whatever it
/// is.
pub(crate) type Attempt<S, B> = (Request<ReplayBody<B>>, Option<Exchange<S, B>>);

/// Prepares the first attempt.
///
/// `meant_for` is the session whose instance the request was found to be meant for, if it had to wait for another.
/// `clone_inner` gets the service that a second attempt would be sent with.
pub(crate) fn first_attempt<S, B>(
    mut request: Request<B>,
    meant_for: Option<Generation>,
    published: &Published,
    handle: &SessionHandle,
    limits: Limits,
    clone_inner: impl FnOnce() -> S,
) -> Result<Attempt<S, B>, Error>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    if request::is_left_alone(&request) {
        if request::is_relative(request.uri()) {
            request::send_to_instance(&mut request, published)?;
        }
        return Ok((request.map(ReplayBody::once), None));
    }
    let target = match meant_for {
        Some(generation) if published.succeeds(generation) => Target::Instance,
        Some(_) => return Err(other_org()),
        None => match Target::of(request.uri(), published, handle) {
            Some(target) => target,
            None => return Ok((request.map(ReplayBody::once), None)),
        },
    };
    if target == Target::Instance {
        request::send_to_instance(&mut request, published)?;
    }
    if limits.max_refreshes == 0 || request.extensions().get::<NoRefresh>().is_some() {
        request::authorize(&mut request, published);
        return Ok((request.map(ReplayBody::once), None));
    }
    let (mut request, kept) = if !handle.is_renewable() {
        let request = request.map(ReplayBody::once);
        (request, Err(ReplaySkipped::NotConfigured))
    } else if request.extensions().get::<NoReplay>().is_some() {
        let request = request.map(ReplayBody::once);
        (request, Err(ReplaySkipped::NotWanted))
    } else {
        let mut kept_body = None;
        let request = request.map(|body| {
            let (body, kept) = ReplayBody::keep(body, limits.replay_limit);
            kept_body = kept;
            body
        });
        let kept = kept_body.map(|body| Kept {
            not_ready_inner: clone_inner(),
            head: Head::keep(&request, target, published),
            body,
        });
        (request, kept.ok_or(ReplaySkipped::BodyNotReplayable))
    };
    request::authorize(&mut request, published);
    let exchange = Exchange {
        handle: handle.clone(),
        generation: published.generation,
        attempts: 1,
        refreshes_left: limits.max_refreshes,
        on_refresh_failure: limits.on_refresh_failure,
        kept,
    };
    Ok((request, Some(exchange)))
}

fn other_org() -> Error {
    Error::new(
        ErrorKind::OtherOrg,
        "a session of another org was set while the request waited for one of the org that it is meant for: send it \
         again if it is for this org too",
    )
}

impl<S, B> Exchange<S, B> {
    /// Why it would be of no use, or do harm, to send the request again with this session.
    pub(crate) fn reason_to_stop(&self, live: &LiveSession) -> Option<ReplaySkipped> {
        if live.generation() == self.generation {
            Some(ReplaySkipped::Fruitless)
        } else if !live.cures(self.generation) {
            Some(ReplaySkipped::Unchanged)
        } else if !live.0.succeeds(self.generation) {
            Some(ReplaySkipped::OtherOrg)
        } else {
            None
        }
    }

    /// Notes on a response what was done for it.
    pub(crate) fn note<R>(
        &self,
        response: &mut Response<R>,
        refreshed: bool,
        replay_skipped: Option<ReplaySkipped>,
    ) {
        response.extensions_mut().insert(AuthOutcome {
            attempts: self.attempts,
            generation: self.generation,
            refreshed,
            replay_skipped,
        });
    }

    /// Whether the session was renewed since the first attempt, for all that this exchange has seen.
    pub(crate) fn is_refreshed(&self) -> bool {
        self.attempts > 1
    }
}

/// A request that was answered with a rejection, and the answer.
pub(crate) struct Rejected<S, B, ResBody: Body> {
    pub(crate) response: Response<Peeked<ResBody>>,
    pub(crate) exchange: Exchange<S, B>,
}

impl<S, B, ResBody: Body> Rejected<S, B, ResBody> {
    /// Returns the rejection after all.
    pub(crate) fn into_response(
        mut self,
        replay_skipped: ReplaySkipped,
    ) -> Response<ResponseBody<ResBody>> {
        let is_refreshed = match replay_skipped {
            ReplaySkipped::RefreshFailed | ReplaySkipped::Fruitless => self.exchange.is_refreshed(),
            _ => true,
        };
        self.exchange
            .note(&mut self.response, is_refreshed, Some(replay_skipped));
        self.response.map(ResponseBody::from)
    }
}

/// A request that is to be sent again, and the rejection that it replaces, unless it cannot be sent after all.
pub(crate) struct Replay<S, B, ResBody: Body> {
    pub(crate) rejected: Rejected<S, B, ResBody>,
    pub(crate) head: Head,
    pub(crate) body: Replayable<B>,
}

impl<S, B, ResBody> Replay<S, B, ResBody>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
    ResBody: Body,
{
    /// Drops the rejection, and prepares the next attempt.
    pub(crate) fn attempt(
        self,
        published: &Published,
        clone_inner: impl FnOnce() -> S,
    ) -> Result<Attempt<S, B>, Error> {
        let Self {
            rejected,
            head,
            body,
        } = self;
        let Exchange {
            handle,
            attempts,
            refreshes_left,
            on_refresh_failure,
            ..
        } = rejected.exchange;
        let refreshes_left = refreshes_left.saturating_sub(1);
        let is_last = refreshes_left == 0;
        let (body, kept) = if is_last {
            (body.send(), Err(ReplaySkipped::RefreshesExhausted))
        } else {
            let (body, kept) = body.keep();
            (body, kept.ok_or(ReplaySkipped::BodyNotReplayable))
        };
        let request = head.rebuild(published, body)?;
        let exchange = Exchange {
            handle,
            generation: published.generation,
            attempts: attempts.saturating_add(1),
            refreshes_left,
            on_refresh_failure,
            kept: kept.map(|body| Kept {
                not_ready_inner: clone_inner(),
                head,
                body,
            }),
        };
        Ok((request, Some(exchange)))
    }
}
