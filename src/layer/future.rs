//! The response future: from a request to its response, with a refresh and a replay if the session is rejected.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, Timeout, sleep, timeout};
use tower_service::Service;

use crate::{
    body::{KeptBody, Peeked, Reclaim, ReplayBody, Replayable, ResponseBody},
    error::{BoxError, Error},
    handle::handle::{self, Acquired, SessionHandle, Waiting},
    report::outcome::{OnRefreshFailure, ReplaySkipped},
    request::{
        head::Head,
        pending::{HeadVerdict, PendingRequest, ReplayParts, ReplayPolicy, prepare},
        replay::{Rejected, Replay},
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

// === ResponseFuture ===

pin_project! {
    /// The future of the response to a request sent through [`SalesforceAuth`](crate::SalesforceAuth).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReplayBody<ReqBody>>>,
        ResBody: Body,
    {
        #[pin]
        state: State<S, ReqBody, ResBody>,
    }
}

pin_project! {
    /// What the future waits for. Each `Option` is `Some` until the value is taken, unless its comment says otherwise.
    ///
    /// What only waiting and rejected requests need is boxed: a future is as large as its largest state, and is moved as a
    /// whole.
    #[project = StateProj]
    enum State<S, ReqBody, ResBody>
    where
        S: Service<Request<ReplayBody<ReqBody>>>,
        ResBody: Body,
    {
        /// Waits for a session to send the request with.
        Acquiring {
            // `None` until a refresh is joined.
            #[pin]
            waiter: Option<Waiting>,
            outgoing: Option<Box<Outgoing<S, ReqBody, ResBody>>>,
        },
        /// Waits for the inner service to become ready.
        ///
        /// NOTE: this state is entered with an inner service that is not ready, a clone. The ready one was called, or gave
        /// up its readiness, in service.rs.
        Readying {
            outgoing: Option<Box<Outgoing<S, ReqBody, ResBody>>>,
        },
        /// Waits for the response of the inner service.
        Calling {
            #[pin]
            future: S::Future,
            // `None` if any response is returned as it is.
            pending: Option<PendingRequest<S, ReqBody>>,
        },
        /// Waits for the body of a possible rejection.
        Peeking {
            rejected: Option<Box<Rejected<S, ReqBody, ResBody>>>,
            // `None` until the body decides.
            verdict: Option<Verdict>,
            // `None` outside of a runtime: only what arrives at once is read.
            #[pin]
            deadline: Option<Sleep>,
        },
        /// Waits for a session that replaces the rejected one.
        Refreshing {
            #[pin]
            waiter: Waiting,
            rejected: Option<Box<Rejected<S, ReqBody, ResBody>>>,
        },
        /// Waits for the transport to give back the stream that it was sending.
        Reclaiming {
            #[pin]
            reclaim: Timeout<Reclaim<ReqBody>>,
            rejected: Option<Box<Rejected<S, ReqBody, ResBody>>>,
            // The service and the head of the replay.
            not_ready_inner: Option<S>,
            head: Option<Head>,
        },
        /// Waits for nothing: an error, or a response that was looked into.
        Done {
            result: Option<Result<Box<Response<ResponseBody<ResBody>>>, Error>>,
        },
    }
}

impl<S, ReqBody, ResBody> ResponseFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReplayBody<ReqBody>>>,
    ResBody: Body,
{
    /// Waits for the response to a request that was sent.
    #[inline]
    pub(crate) fn calling(future: S::Future, pending: Option<PendingRequest<S, ReqBody>>) -> Self {
        Self {
            state: State::Calling { future, pending },
        }
    }

    /// Waits for a session to send the request with.
    pub(crate) fn acquiring(
        not_ready_inner: S,
        handle: SessionHandle,
        request: Request<ReqBody>,
        meant_for: Option<Generation>,
        policy: ReplayPolicy,
    ) -> Self {
        Self {
            state: State::Acquiring {
                waiter: None,
                outgoing: Some(Box::new(Outgoing {
                    inner: not_ready_inner,
                    handle,
                    request: OutgoingRequest::First {
                        request,
                        meant_for,
                        policy,
                    },
                })),
            },
        }
    }

    /// Fails with an error.
    pub(crate) fn failed(error: Error) -> Self {
        Self {
            state: State::Done {
                result: Some(Err(error)),
            },
        }
    }
}

impl<S, ReqBody, ResBody> Future for ResponseFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReplayBody<ReqBody>>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    ReqBody: Body + Unpin + 'static,
    ReqBody::Error: Into<BoxError>,
    ResBody: Body,
{
    type Output = Result<Response<ResponseBody<ResBody>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Acquiring { waiter, outgoing } => {
                    ready!(State::poll_acquire(cx, waiter, outgoing))?
                }
                StateProj::Readying { outgoing } => ready!(State::poll_send(cx, outgoing))?,
                // Inline: every request passes here.
                StateProj::Calling { future, pending } => {
                    let mut response = ready!(future.poll(cx)).map_err(Into::into)?;
                    let Some(sent) = pending else {
                        return Poll::Ready(Ok(response.map(ResponseBody::new)));
                    };
                    match sent.classify_head(&response) {
                        HeadVerdict::Final(verdict) => {
                            sent.conclude(&mut response, verdict);
                            // Frees what was kept for a replay, before the caller reads the body.
                            *pending = None;
                            return Poll::Ready(Ok(response.map(ResponseBody::new)));
                        }
                        HeadVerdict::ReadBody(verdict) => {
                            State::peek(response, taken(pending), verdict)
                        }
                    }
                }
                StateProj::Peeking {
                    rejected,
                    verdict,
                    deadline,
                } => ready!(State::poll_peek(cx, rejected, verdict, deadline))?,
                StateProj::Refreshing { waiter, rejected } => {
                    let result = ready!(waiter.poll(cx));
                    State::recover(taken(rejected), result)
                }
                StateProj::Reclaiming {
                    reclaim,
                    rejected,
                    not_ready_inner,
                    head,
                } => {
                    let body = ready!(reclaim.poll(cx)).ok().flatten();
                    State::replay(taken(rejected), taken(not_ready_inner), taken(head), body)
                }
                StateProj::Done { result } => {
                    let response = taken(result)?;
                    return Poll::Ready(Ok(*response));
                }
            };
            state.set(next);
        }
    }
}

impl<S, ReqBody, ResBody> fmt::Debug for ResponseFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReplayBody<ReqBody>>>,
    ResBody: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

// === State ===

impl<S, ReqBody, ResBody> State<S, ReqBody, ResBody>
where
    S: Service<Request<ReplayBody<ReqBody>>> + Clone,
    S::Error: Into<BoxError>,
    ReqBody: Body + Unpin + 'static,
    ReqBody::Error: Into<BoxError>,
    ResBody: Body,
{
    /// Waits for a session. Joins a refresh at the first poll, if there is no session.
    fn poll_acquire(
        cx: &mut Context<'_>,
        mut waiter: Pin<&mut Option<Waiting>>,
        outgoing: &mut Option<Box<Outgoing<S, ReqBody, ResBody>>>,
    ) -> Poll<Result<Self, Error>> {
        if waiter.is_none()
            && let Acquired::Wait(joined) = taken_mut(outgoing).handle.acquire()?
        {
            waiter.set(Some(joined));
        }
        if let Some(waiter) = waiter.as_pin_mut() {
            // The session is looked up again once the inner service is ready.
            ready!(waiter.poll(cx))?;
        }
        let outgoing = outgoing.take();
        Poll::Ready(Ok(Self::Readying { outgoing }))
    }

    /// Waits for the inner service, then sends the request.
    fn poll_send(
        cx: &mut Context<'_>,
        outgoing: &mut Option<Box<Outgoing<S, ReqBody, ResBody>>>,
    ) -> Poll<Result<Self, BoxError>> {
        ready!(taken_mut(outgoing).inner.poll_ready(cx)).map_err(Into::into)?;
        let mut outgoing = taken(outgoing);
        let next = match outgoing.handle.acquire()? {
            Acquired::Ready(live) => outgoing.send(&live)?,
            Acquired::Wait(waiter) => {
                // The session was rejected while the service became ready. Readiness may hold a permit, which the
                // refresh may need: the ready service is dropped.
                outgoing.inner = outgoing.inner.clone();
                Self::Acquiring {
                    waiter: Some(waiter),
                    outgoing: Some(outgoing),
                }
            }
        };
        Poll::Ready(Ok(next))
    }

    /// Reads the body of a possible rejection. `verdict` is `None` if the body decides.
    fn peek(
        response: Response<ResBody>,
        pending: PendingRequest<S, ReqBody>,
        verdict: Option<Verdict>,
    ) -> Self {
        Self::Peeking {
            rejected: Some(Box::new(Rejected {
                response: response.map(Peeked::new),
                pending,
            })),
            verdict,
            deadline: handle::runtime().is_ok().then(|| sleep(PEEK_TIMEOUT)),
        }
    }

    /// Reads the body of a possible rejection: to its end if the response is a rejection, else as far as the verdict
    /// needs. Then reacts to the verdict.
    fn poll_peek(
        cx: &mut Context<'_>,
        rejected: &mut Option<Box<Rejected<S, ReqBody, ResBody>>>,
        verdict: &mut Option<Verdict>,
        deadline: Pin<&mut Option<Sleep>>,
    ) -> Poll<Result<Self, Error>> {
        let Rejected { response, pending } = &mut **taken_mut(rejected);
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
            if let Some(deadline) = deadline.as_pin_mut() {
                ready!(deadline.poll(cx));
            }
            *verdict = verdict.or_else(|| pending.classify_body(response, Extent::CutOff));
        }
        let verdict = verdict.unwrap_or(Verdict::Pass);
        Poll::Ready(Self::react(taken(rejected), verdict))
    }

    /// Starts or joins a refresh after a rejection, if the request may use one. Returns any other response.
    fn react(
        mut rejected: Box<Rejected<S, ReqBody, ResBody>>,
        verdict: Verdict,
    ) -> Result<Self, Error> {
        let Rejected { response, pending } = &mut *rejected;
        if verdict != Verdict::Expired || !pending.may_refresh() {
            pending.conclude(response, verdict);
            return Ok(Self::returned(rejected.response.map(ResponseBody::from)));
        }
        // Outside of a runtime the session stays in use, for requests that can refresh it.
        handle::runtime()?;
        let is_first = !pending.is_refreshed();
        let result = match pending.handle.reject(pending.generation, is_first) {
            Ok(Acquired::Ready(live)) => Ok(live),
            Ok(Acquired::Wait(waiter)) => {
                if let Ok(parts) = &mut pending.replay {
                    parts.head.shrink_to_fit();
                }
                return Ok(Self::Refreshing {
                    waiter,
                    rejected: Some(rejected),
                });
            }
            Err(error) => Err(error),
        };
        Ok(Self::recover(rejected, result))
    }

    /// Replays a rejected request with the session that replaces the rejected one. Without such a session, or if the
    /// replay is skipped, the request ends.
    fn recover(
        mut rejected: Box<Rejected<S, ReqBody, ResBody>>,
        result: Result<LiveSession, Error>,
    ) -> Self {
        let live = match (result, rejected.pending.on_refresh_failure) {
            (Ok(live), _) => live,
            (Err(error), OnRefreshFailure::Fail) => return Self::failed(error),
            (Err(_), OnRefreshFailure::Respond) => {
                return Self::respond(*rejected, ReplaySkipped::RefreshFailed);
            }
        };
        if let Some(reason) = rejected.pending.skip_reason(&live) {
            return Self::respond(*rejected, reason);
        }
        // Until the transport gives a stream back, there is nothing to replay.
        let not_back = Err(ReplaySkipped::BodyNotReplayable);
        let parts = match std::mem::replace(&mut rejected.pending.replay, not_back) {
            Ok(parts) => parts,
            Err(reason) => return Self::respond(*rejected, reason),
        };
        let ReplayParts {
            not_ready_inner,
            head,
            body,
        } = parts;
        let body = match body {
            KeptBody::InMemory(memory) => Some(memory.into()),
            KeptBody::Made(remake) => remake.make(),
            KeptBody::Streaming(reclaim) => {
                return Self::Reclaiming {
                    reclaim: timeout(RECLAIM_TIMEOUT, reclaim),
                    rejected: Some(rejected),
                    not_ready_inner: Some(not_ready_inner),
                    head: Some(head),
                };
            }
        };
        Self::replay(rejected, not_ready_inner, head, body)
    }

    /// Replays a rejected request. `body` is `None` if the body cannot be sent again.
    fn replay(
        rejected: Box<Rejected<S, ReqBody, ResBody>>,
        not_ready_inner: S,
        head: Head,
        body: Option<Replayable<ReqBody>>,
    ) -> Self {
        let Some(body) = body else {
            return Self::respond(*rejected, ReplaySkipped::BodyNotReplayable);
        };
        Self::Readying {
            outgoing: Some(Box::new(Outgoing {
                inner: not_ready_inner,
                handle: rejected.pending.handle.clone(),
                request: OutgoingRequest::Replay(Replay {
                    rejected,
                    head,
                    body,
                }),
            })),
        }
    }

    /// Returns the rejection, with the reason why there is no replay.
    fn respond(rejected: Rejected<S, ReqBody, ResBody>, reason: ReplaySkipped) -> Self {
        Self::returned(rejected.into_response(reason))
    }

    fn returned(response: Response<ResponseBody<ResBody>>) -> Self {
        Self::Done {
            result: Some(Ok(Box::new(response))),
        }
    }

    fn failed(error: Error) -> Self {
        Self::Done {
            result: Some(Err(error)),
        }
    }
}

// === Outgoing ===

/// A request that will be sent once there is a session and the inner service is ready.
struct Outgoing<S, B, ResBody: Body> {
    inner: S,
    handle: SessionHandle,
    request: OutgoingRequest<S, B, ResBody>,
}

enum OutgoingRequest<S, B, ResBody: Body> {
    First {
        request: Request<B>,
        /// Generation whose instance the request targets. `None` if there was no session yet, or if the request goes to
        /// another origin.
        meant_for: Option<Generation>,
        policy: ReplayPolicy,
    },
    Replay(Replay<S, B, ResBody>),
}

impl<S, B, ResBody> Outgoing<S, B, ResBody>
where
    S: Service<Request<ReplayBody<B>>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Unpin + 'static,
    B::Error: Into<BoxError>,
    ResBody: Body,
{
    /// Sends the request with this session. Returns the rejection instead, if a replay with this session is skipped.
    ///
    /// The inner service is ready.
    fn send(self, live: &LiveSession) -> Result<State<S, B, ResBody>, Error> {
        let mut ready_inner = self.inner;
        let clone_inner = || ready_inner.clone();
        let (request, pending) = match self.request {
            OutgoingRequest::First {
                request,
                meant_for,
                policy,
            } => {
                let (mut head, body) = request.into_parts();
                let (body, pending) = prepare(
                    &mut head,
                    body,
                    meant_for,
                    &live.0,
                    &self.handle,
                    &policy,
                    clone_inner,
                )?;
                (Request::from_parts(head, body), pending)
            }
            OutgoingRequest::Replay(mut replay) => {
                // `live` may be newer than the session that ended the wait: it is checked again.
                if let Err(reason) = replay.write_session(live) {
                    return Ok(State::respond(*replay.rejected, reason));
                }
                let (request, pending) = replay.into_request(&live.0, clone_inner)?;
                (request, Some(pending))
            }
        };
        Ok(State::Calling {
            future: ready_inner.call(request),
            pending,
        })
    }
}

// === Taking out of a state ===

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
fn taken_mut<T>(slot: &mut Option<T>) -> &mut T {
    slot.as_mut().expect(COMPLETED)
}
