//! The slow path of a response future: a request that has no session yet, or was rejected.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use crate::{
    body::{KeptBody, Peeked, ReplayBody, ResponseBody},
    error::{BoxError, Error},
    handle::handle::{self, Acquired, SessionHandle, Waiting},
    report::outcome::{OnRefreshFailure, ReplaySkipped},
    request::{
        common::Common,
        pending::{PendingRequest, prepare_with_extras},
        watch::NonceDemand,
    },
    session::live::{Generation, LiveSession},
    verdict::{Extent, Verdict},
};

/// How many bytes of a possible rejection are read: enough to classify it and to free its connection.
const PEEK_LIMIT: usize = 64 * 1024;

/// How long reading a possible rejection may take. The rest stays unread.
const PEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a transport may take to give back the body of an answered request. Transports do so at once, unless the
/// server neither reads on nor closes the connection.
const RECLAIM_TIMEOUT: Duration = Duration::from_secs(5);

// === SlowPath ===

/// What a request waits for, and the response that it may return after all.
pub(super) struct SlowPath<S, ReqBody, ResBody: Body> {
    wait: Wait<S, ReqBody>,
    /// A response that is, or may be, a rejection. `None` before the first response, and after a replay was sent.
    rejection: Option<Response<Peeked<ResBody>>>,
}

/// What the request waits for. Each `Option` is `Some` until the value is taken, unless its comment says otherwise.
///
/// What is large is boxed, since few requests have to wait for it, and a wait is moved as a whole.
enum Wait<S, ReqBody> {
    /// Waits for a session to send the request with.
    Acquiring {
        /// `None` until a refresh is joined.
        waiter: Option<Pin<Box<Waiting>>>,
        /// `None` if the request is a replay.
        first: Option<Box<FirstSend<S, ReqBody>>>,
    },
    /// Waits for the inner service to become ready.
    ///
    /// NOTE: this service is a clone, and not ready. The ready one was called, or gave up its readiness, in service.rs.
    Readying {
        /// `None` until the service had to be waited for.
        inner: Option<Box<S>>,
        /// `None` if the request is a replay.
        first: Option<Box<FirstSend<S, ReqBody>>>,
    },
    /// Waits for the body of a possible rejection.
    Peeking {
        /// `None` until the body decides.
        verdict: Option<Verdict>,
        /// `None` until the body had to be waited for.
        deadline: Option<Pin<Box<Sleep>>>,
    },
    /// Waits for a session that replaces the rejected one.
    Refreshing { waiter: Pin<Box<Waiting>> },
    /// Waits for the transport to give back the stream that it was sending.
    Reclaiming { deadline: Pin<Box<Sleep>> },
    /// Waits for nothing.
    Done {
        /// `None` if the future completed.
        error: Option<Error>,
    },
}

/// A request that was not sent yet.
struct FirstSend<S, B> {
    common: Arc<Common<S>>,
    /// The handle that the request carried. `None` if it is sent with the layer's session.
    chosen: Option<SessionHandle>,
    request: Request<B>,
    /// Generation whose instance the request targets. `None` if there was no session yet, or if the request goes to another
    /// origin.
    meant_for: Option<Generation>,
}

/// Where the slow path of a request ends.
pub(super) enum End<F, ResBody: Body> {
    /// The request was sent.
    Sent(F),
    /// The caller gets a response.
    Response(Response<ResponseBody<ResBody>>),
}

/// What follows a wait.
enum Next<F, S, ReqBody, ResBody: Body> {
    Wait(Wait<S, ReqBody>),
    End(End<F, ResBody>),
}

type NextOf<S, ReqBody, ResBody> =
    Next<<S as Service<Request<ReplayBody<ReqBody>>>>::Future, S, ReqBody, ResBody>;

impl<S, ReqBody, ResBody: Body> SlowPath<S, ReqBody, ResBody> {
    /// Waits for a session to send the request with. The spare service is kept.
    pub(super) fn acquiring(
        common: Arc<Common<S>>,
        chosen: Option<SessionHandle>,
        request: Request<ReqBody>,
        meant_for: Option<Generation>,
    ) -> Box<Self> {
        Box::new(Self {
            wait: Wait::Acquiring {
                waiter: None,
                first: Some(Box::new(FirstSend {
                    common,
                    chosen,
                    request,
                    meant_for,
                })),
            },
            rejection: None,
        })
    }

    /// Reads the body of a possible rejection. `verdict` is `None` if the body decides.
    #[cold]
    pub(super) fn peeking(response: Response<ResBody>, verdict: Option<Verdict>) -> Box<Self> {
        Box::new(Self {
            wait: Wait::Peeking {
                verdict,
                deadline: None,
            },
            rejection: Some(response.map(Peeked::new)),
        })
    }

    /// Fails with an error.
    pub(super) fn failed(error: Error) -> Box<Self> {
        Box::new(Self {
            wait: Wait::Done { error: Some(error) },
            rejection: None,
        })
    }
}

impl<S, ReqBody, ResBody> SlowPath<S, ReqBody, ResBody>
where
    S: Service<Request<ReplayBody<ReqBody>>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    ReqBody: Body + Unpin + 'static,
    ReqBody::Error: Into<BoxError>,
    ResBody: Body,
{
    /// Waits until the request is sent, or returns a response. `pending` is `None` until the first send.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        pending: &mut Option<PendingRequest<S, ReqBody>>,
    ) -> Poll<Result<End<S::Future, ResBody>, BoxError>> {
        loop {
            let next = ready!(self.poll_next(cx, pending));
            let end = match next {
                Ok(Next::Wait(wait)) => {
                    self.wait = wait;
                    continue;
                }
                Ok(Next::End(end)) => Ok(end),
                Err(error) => Err(error),
            };
            self.wait = Wait::Done { error: None };
            return Poll::Ready(end);
        }
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        pending: &mut Option<PendingRequest<S, ReqBody>>,
    ) -> Poll<Result<NextOf<S, ReqBody, ResBody>, BoxError>> {
        let rejection = &mut self.rejection;
        Poll::Ready(match &mut self.wait {
            Wait::Acquiring { waiter, first } => {
                let handle = handle_of(first.as_deref(), pending);
                ready!(poll_acquire(cx, waiter, handle))?;
                Ok(Next::Wait(Wait::readying(first.take())))
            }
            Wait::Readying { inner, first } => {
                let common = common_of(first.as_deref(), pending);
                let mut ready_inner = ready!(poll_ready(cx, inner, common)).map_err(Into::into)?;
                send(&mut ready_inner, first, rejection, pending)
            }
            Wait::Peeking { verdict, deadline } => {
                let (response, sent) = (taken_mut(rejection), taken_mut(pending));
                let verdict = ready!(poll_verdict(cx, response, sent, verdict, deadline));
                react(rejection, sent, verdict).map_err(Into::into)
            }
            Wait::Refreshing { waiter } => {
                let result = ready!(waiter.as_mut().poll(cx));
                recover(rejection, taken_mut(pending), result).map_err(Into::into)
            }
            Wait::Reclaiming { deadline } => {
                let sent = taken_mut(pending);
                Ok(if ready!(poll_reclaim(cx, sent, deadline.as_mut())) {
                    Next::Wait(Wait::readying(None))
                } else {
                    Next::give_up(rejection, sent, ReplaySkipped::BodyNotReplayable)
                })
            }
            Wait::Done { error } => Err(taken(error).into()),
        })
    }
}

impl<S, ReqBody> Wait<S, ReqBody> {
    /// Waits for the inner service. `first` is `None` if the request is a replay.
    fn readying(first: Option<Box<FirstSend<S, ReqBody>>>) -> Self {
        Self::Readying { inner: None, first }
    }
}

// === Sending ===

/// What the request shares with its service.
fn common_of<'a, S, B>(
    first: Option<&'a FirstSend<S, B>>,
    pending: &'a mut Option<PendingRequest<S, B>>,
) -> &'a Common<S> {
    match first {
        Some(first) => &first.common,
        None => &taken_mut(pending).common,
    }
}

/// The handle whose session the request is sent with.
fn handle_of<'a, S, B>(
    first: Option<&'a FirstSend<S, B>>,
    pending: &'a mut Option<PendingRequest<S, B>>,
) -> &'a SessionHandle {
    match first {
        Some(first) => first.chosen.as_ref().unwrap_or(&first.common.handle),
        None => taken_mut(pending).handle(),
    }
}

/// Waits for a session. Joins a refresh at the first poll, if there is no session.
fn poll_acquire(
    cx: &mut Context<'_>,
    waiter: &mut Option<Pin<Box<Waiting>>>,
    handle: &SessionHandle,
) -> Poll<Result<(), Error>> {
    if waiter.is_none()
        && let Acquired::Wait(joined) = handle.acquire()?
    {
        *waiter = Some(Box::pin(joined));
    }
    if let Some(waiter) = waiter {
        // The session is looked up again once the inner service is ready.
        ready!(waiter.as_mut().poll(cx))?;
    }
    Poll::Ready(Ok(()))
}

/// Clones the spare service at the first poll, and waits until the clone is ready. `inner` holds it meanwhile.
fn poll_ready<S, R>(
    cx: &mut Context<'_>,
    inner: &mut Option<Box<S>>,
    common: &Common<S>,
) -> Poll<Result<S, S::Error>>
where
    S: Service<R> + Clone,
{
    if let Some(waiting) = inner {
        ready!(waiting.poll_ready(cx))?;
        return Poll::Ready(Ok(*taken(inner)));
    }
    let mut clone = common.clone_inner();
    if let Poll::Ready(result) = clone.poll_ready(cx) {
        return Poll::Ready(result.map(|()| clone));
    }
    *inner = Some(Box::new(clone));
    Poll::Pending
}

/// Sends a request by the inner service, which is ready. Returns the rejection instead, if a replay is skipped.
fn send<S, ReqBody, ResBody>(
    ready_inner: &mut S,
    first: &mut Option<Box<FirstSend<S, ReqBody>>>,
    rejection: &mut Option<Response<Peeked<ResBody>>>,
    pending: &mut Option<PendingRequest<S, ReqBody>>,
) -> Result<NextOf<S, ReqBody, ResBody>, BoxError>
where
    S: Service<Request<ReplayBody<ReqBody>>> + Clone,
    ReqBody: Body + Unpin + 'static,
    ReqBody::Error: Into<BoxError>,
    ResBody: Body,
{
    let live = match handle_of(first.as_deref(), pending).acquire()? {
        Acquired::Ready(live) => live,
        // The session was rejected while the service became ready. Readiness may hold a permit, which the refresh may need:
        // the ready service is dropped with this wait.
        Acquired::Wait(waiter) => {
            return Ok(Next::Wait(Wait::Acquiring {
                waiter: Some(Box::pin(waiter)),
                first: first.take(),
            }));
        }
    };
    let request = match first.take() {
        Some(first) => {
            let FirstSend {
                common,
                mut chosen,
                request,
                meant_for,
            } = *first;
            let (mut head, body) = request.into_parts();
            let prepared = prepare_with_extras(
                &mut head,
                body,
                meant_for,
                &live.0,
                &common,
                &mut chosen,
                ready_inner,
            );
            let (body, sent) = prepared?;
            *pending = sent;
            Request::from_parts(head, body)
        }
        None => {
            let sent = taken_mut(pending);
            // `live` may be newer than the session that ended the wait: it is checked again.
            match sent.prepare_replay(&live) {
                Ok(replay) => {
                    // The caller will not get the rejection, and its connection is free.
                    *rejection = None;
                    sent.replay(replay, &live.0)?
                }
                Err(reason) => return Ok(Next::give_up(rejection, sent, reason)),
            }
        }
    };
    Ok(Next::End(End::Sent(ready_inner.call(request))))
}

// === Rejections ===

/// Reads the body of a possible rejection: to its end if the response is a rejection, else as far as the verdict needs.
fn poll_verdict<S, ReqBody, ResBody: Body>(
    cx: &mut Context<'_>,
    response: &mut Response<Peeked<ResBody>>,
    pending: &PendingRequest<S, ReqBody>,
    verdict: &mut Option<Verdict>,
    deadline: &mut Option<Pin<Box<Sleep>>>,
) -> Poll<Verdict> {
    let extent = match response.body_mut().poll_read(cx, PEEK_LIMIT) {
        Poll::Ready(()) if response.body().is_whole() => Extent::Whole,
        Poll::Ready(()) => Extent::CutOff,
        Poll::Pending => Extent::Beginning,
    };
    if extent != Extent::Beginning || response.body_mut().has_grown() {
        *verdict = verdict.or_else(|| pending.classify_body(response, extent));
    }
    let may_need_rest = matches!(*verdict, None | Some(Verdict::Expired));
    if extent == Extent::Beginning && may_need_rest {
        // Outside of a runtime only what arrives at once is read.
        if deadline.is_none() && handle::runtime().is_ok() {
            *deadline = Some(Box::pin(sleep(PEEK_TIMEOUT)));
        }
        if let Some(deadline) = deadline {
            ready!(deadline.as_mut().poll(cx));
        }
        *verdict = verdict.or_else(|| pending.classify_body(response, Extent::CutOff));
    }
    Poll::Ready(verdict.unwrap_or(Verdict::Pass))
}

/// Starts or joins a refresh after a rejection, if the request may use one. Returns any other response.
fn react<F, S: Clone, ReqBody: Body, ResBody: Body>(
    rejection: &mut Option<Response<Peeked<ResBody>>>,
    pending: &mut PendingRequest<S, ReqBody>,
    verdict: Verdict,
) -> Result<Next<F, S, ReqBody, ResBody>, Error> {
    let is_rejected = verdict == Verdict::Expired;
    let response = taken_ref(rejection.as_ref());
    if is_rejected && pending.may_replay(response.status()) {
        let demand = match handle::runtime() {
            Ok(_) => pending.rejected(response),
            // Outside of a runtime the session stays in use, for requests that can refresh it.
            Err(error) if pending.may_refresh() => return Err(error),
            Err(_) => NonceDemand::None,
        };
        match demand {
            NonceDemand::None => {}
            NonceDemand::Replay => return Ok(replay(rejection, pending)),
            NonceDemand::InVain => {
                let reason = ReplaySkipped::NonceRefused;
                return Ok(Next::give_up(rejection, pending, reason));
            }
        }
    }
    if !is_rejected || !pending.may_refresh() {
        let mut response = taken(rejection);
        pending.conclude(&mut response, verdict);
        let response = response.map(ResponseBody::from);
        return Ok(Next::End(End::Response(response)));
    }
    let is_first = !pending.is_refreshed();
    let result = match pending.handle().reject(pending.generation, is_first) {
        Ok(Acquired::Ready(live)) => Ok(live),
        Ok(Acquired::Wait(waiter)) => {
            if let Ok(parts) = &mut pending.replay {
                parts.head.shrink_to_fit();
            }
            let waiter = Box::pin(waiter);
            return Ok(Next::Wait(Wait::Refreshing { waiter }));
        }
        Err(error) => Err(error),
    };
    recover(rejection, pending, result)
}

/// Replays a rejected request with the session that replaces the rejected one. Without such a session, or if the replay is
/// skipped, the request ends.
fn recover<F, S: Clone, ReqBody: Body, ResBody: Body>(
    rejection: &mut Option<Response<Peeked<ResBody>>>,
    pending: &mut PendingRequest<S, ReqBody>,
    result: Result<LiveSession, Error>,
) -> Result<Next<F, S, ReqBody, ResBody>, Error> {
    let live = match (result, pending.common.policy.on_refresh_failure) {
        (Ok(live), _) => live,
        (Err(error), OnRefreshFailure::Fail) => return Err(error),
        (Err(_), OnRefreshFailure::Respond) => {
            return Ok(Next::give_up(
                rejection,
                pending,
                ReplaySkipped::RefreshFailed,
            ));
        }
    };
    if let Some(reason) = pending.skip_reason(&live) {
        return Ok(Next::give_up(rejection, pending, reason));
    }
    Ok(replay(rejection, pending))
}

/// Sends a rejected request again, once its body is at hand. If it is not, the request ends.
fn replay<F, S, ReqBody: Body, ResBody: Body>(
    rejection: &mut Option<Response<Peeked<ResBody>>>,
    pending: &mut PendingRequest<S, ReqBody>,
) -> Next<F, S, ReqBody, ResBody> {
    let is_made = match pending.replay.as_mut().map(|parts| &mut parts.body) {
        Err(reason) => {
            let reason = *reason;
            return Next::give_up(rejection, pending, reason);
        }
        Ok(KeptBody::Streaming(_)) => {
            let deadline = Box::pin(sleep(RECLAIM_TIMEOUT));
            return Next::Wait(Wait::Reclaiming { deadline });
        }
        Ok(body) => body.make_next(),
    };
    if is_made {
        Next::Wait(Wait::readying(None))
    } else {
        Next::give_up(rejection, pending, ReplaySkipped::BodyNotReplayable)
    }
}

/// Waits for the transport to give back the stream that it was sending. `false` if it does not.
fn poll_reclaim<S, B>(
    cx: &mut Context<'_>,
    pending: &mut PendingRequest<S, B>,
    deadline: Pin<&mut Sleep>,
) -> Poll<bool> {
    let Ok(parts) = &mut pending.replay else {
        return Poll::Ready(false);
    };
    if parts.body.poll_reclaim(cx).is_pending() {
        ready!(deadline.poll(cx));
        return Poll::Ready(false);
    }
    Poll::Ready(parts.body.is_ready())
}

impl<F, S, ReqBody, ResBody: Body> Next<F, S, ReqBody, ResBody> {
    /// Returns the rejection, with the reason why there is no replay.
    fn give_up(
        rejection: &mut Option<Response<Peeked<ResBody>>>,
        pending: &PendingRequest<S, ReqBody>,
        reason: ReplaySkipped,
    ) -> Self {
        Self::End(End::Response(pending.give_up(taken(rejection), reason)))
    }
}

// === Taking out of a wait ===

const COMPLETED: &str = "`ResponseFuture` polled after completion";

#[expect(
    clippy::expect_used,
    reason = "polling a completed future is a bug in the caller"
)]
fn taken<T>(slot: &mut Option<T>) -> T {
    slot.take().expect(COMPLETED)
}

#[expect(
    clippy::expect_used,
    reason = "polling a completed future is a bug in the caller"
)]
fn taken_ref<T>(slot: Option<&T>) -> &T {
    slot.expect(COMPLETED)
}

#[expect(
    clippy::expect_used,
    reason = "polling a completed future is a bug in the caller"
)]
fn taken_mut<T>(slot: &mut Option<T>) -> &mut T {
    slot.as_mut().expect(COMPLETED)
}
