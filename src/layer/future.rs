//! The response future: what happens to a request until its answer is returned.

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

/// How much of the body of what may be a rejection is read: enough to tell, and to give the connection back.
const PEEK_LIMIT: usize = 64 * 1024;

/// How long that may take. What is not there by then stays unread.
const PEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a transport may take to let go of the body of a request that was answered. It does at once, unless the
/// server neither reads on nor closes.
const RECLAIM_TIMEOUT: Duration = Duration::from_secs(5);

pin_project! {
    /// The future of a response to a request that carries a session.
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
    /// What the future waits for. Each `Option` is Some until it is taken.
    ///
    /// What only a request needs that waits or was rejected is boxed: every future is as large as its largest state, and
    /// is moved about as a whole.
    #[project = StateProj]
    enum State<S, ReqBody, ResBody>
    where
        S: Service<Request<ReplayBody<ReqBody>>>,
        ResBody: Body,
    {
        /// For nothing.
        Failed {
            error: Option<Error>,
        },
        /// For a session to send with.
        Acquiring {
            // None: not asked for yet.
            #[pin]
            waiting: Option<Waiting>,
            outgoing: Option<Box<Outgoing<S, ReqBody, ResBody>>>,
        },
        /// For the inner service to become ready.
        ///
        /// NOTE: it is not ready when this state is entered. The one that was ready was called, or given up, in
        /// service.rs, and this is a clone.
        Readying {
            outgoing: Option<Box<Outgoing<S, ReqBody, ResBody>>>,
        },
        /// For the inner service's response.
        Calling {
            #[pin]
            future: S::Future,
            pending: Option<PendingRequest<S, ReqBody>>,
        },
        /// For the body of a rejection, or of what may be one.
        Peeking {
            rejected: Option<Box<Rejected<S, ReqBody, ResBody>>>,
            // None: the body decides.
            verdict: Option<Verdict>,
            // None: there is no runtime to wait on, and what is not there at once stays unread.
            #[pin]
            deadline: Option<Sleep>,
        },
        /// For a new session, in place of the one that was rejected.
        Refreshing {
            #[pin]
            waiting: Waiting,
            rejected: Option<Box<Rejected<S, ReqBody, ResBody>>>,
        },
        /// For the request body that the rejected attempt was sending.
        Reclaiming {
            #[pin]
            reclaim: Timeout<Reclaim<ReqBody>>,
            rejected: Option<Box<Rejected<S, ReqBody, ResBody>>>,
            to: Option<(S, Head)>,
        },
    }
}

/// A request that is going to be sent.
struct Outgoing<S, B, ResBody: Body> {
    inner: S,
    handle: SessionHandle,
    request: OutgoingRequest<S, B, ResBody>,
}

enum OutgoingRequest<S, B, ResBody: Body> {
    First {
        request: Request<B>,
        /// The session whose instance it goes to, as far as that is known.
        meant_for: Option<Generation>,
        policy: ReplayPolicy,
    },
    Again(Replay<S, B, ResBody>),
}

impl<S, B, ResBody> Outgoing<S, B, ResBody>
where
    S: Service<Request<ReplayBody<B>>> + Clone,
    B: Body + Unpin + 'static,
    B::Error: Into<BoxError>,
    ResBody: Body,
{
    /// Sends the request with this session, or what came back of it before if that must not be. The inner service is
    /// ready.
    fn send(self, live: &LiveSession) -> Result<Step<S, B, ResBody>, Error> {
        let Self {
            inner: mut ready_inner,
            handle,
            request,
        } = self;
        let clone_inner = || ready_inner.clone();
        let (request, pending) = match request {
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
                    &handle,
                    &policy,
                    clone_inner,
                )?;
                (Request::from_parts(head, body), pending)
            }
            // The session may be another than the one that the rejection was held against.
            OutgoingRequest::Again(mut replay) => {
                if let Err(reason) = replay.write_session(live) {
                    return Ok(Step::Respond(replay.rejected.into_response(reason)));
                }
                let (request, pending) = replay.into_request(&live.0, clone_inner)?;
                (request, Some(pending))
            }
        };
        Ok(Step::Wait(State::Calling {
            future: ready_inner.call(request),
            pending,
        }))
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
                waiting: None,
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
            state: State::Failed { error: Some(error) },
        }
    }
}

/// What to do with a rejection, once the session that replaces the rejected one is known.
fn recover<S, ReqBody, ResBody>(
    mut rejected: Box<Rejected<S, ReqBody, ResBody>>,
    live: &LiveSession,
) -> Step<S, ReqBody, ResBody>
where
    S: Service<Request<ReplayBody<ReqBody>>>,
    ReqBody: Body,
    ResBody: Body,
{
    if let Some(reason) = rejected.pending.skip_reason(live) {
        return Step::Respond(rejected.into_response(reason));
    }
    // Until a stream is back, it cannot be replayed.
    let not_back = Err(ReplaySkipped::BodyNotReplayable);
    match std::mem::replace(&mut rejected.pending.replay, not_back) {
        Err(skipped) => Step::Respond(rejected.into_response(skipped)),
        Ok(ReplayParts {
            not_ready_inner,
            head,
            body: KeptBody::Streaming(reclaim),
        }) => Step::Wait(State::Reclaiming {
            reclaim: timeout(RECLAIM_TIMEOUT, reclaim),
            rejected: Some(rejected),
            to: Some((not_ready_inner, head)),
        }),
        Ok(ReplayParts {
            not_ready_inner,
            head,
            body: KeptBody::InMemory(memory),
        }) => Step::Wait(replay(rejected, not_ready_inner, head, memory.into())),
        Ok(ReplayParts {
            not_ready_inner,
            head,
            body: KeptBody::Made(remake),
        }) => match remake.make() {
            Some(body) => Step::Wait(replay(rejected, not_ready_inner, head, body)),
            None => Step::Respond(rejected.into_response(ReplaySkipped::BodyNotReplayable)),
        },
    }
}

/// What a rejected request gets whose session cannot be renewed.
fn give_up<S, ReqBody, ResBody>(
    rejected: Rejected<S, ReqBody, ResBody>,
    error: Error,
) -> Result<Step<S, ReqBody, ResBody>, Error>
where
    S: Service<Request<ReplayBody<ReqBody>>>,
    ResBody: Body,
{
    match rejected.pending.on_refresh_failure {
        OnRefreshFailure::Fail => Err(error),
        OnRefreshFailure::Respond => Ok(Step::Respond(
            rejected.into_response(ReplaySkipped::RefreshFailed),
        )),
    }
}

/// Sends the request of a rejection again.
fn replay<S, ReqBody, ResBody>(
    rejected: Box<Rejected<S, ReqBody, ResBody>>,
    not_ready_inner: S,
    head: Head,
    body: Replayable<ReqBody>,
) -> State<S, ReqBody, ResBody>
where
    S: Service<Request<ReplayBody<ReqBody>>>,
    ResBody: Body,
{
    State::Readying {
        outgoing: Some(Box::new(Outgoing {
            inner: not_ready_inner,
            handle: rejected.pending.handle.clone(),
            request: OutgoingRequest::Again(Replay {
                rejected,
                head,
                body,
            }),
        })),
    }
}

/// What comes of a state.
enum Step<S, ReqBody, ResBody>
where
    S: Service<Request<ReplayBody<ReqBody>>>,
    ResBody: Body,
{
    Wait(State<S, ReqBody, ResBody>),
    Respond(Response<ResponseBody<ResBody>>),
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
            let step = match state.as_mut().project() {
                StateProj::Failed { error } => return Poll::Ready(Err(taken(error).into())),

                StateProj::Acquiring {
                    mut waiting,
                    outgoing,
                } => {
                    if let Some(waiting) = waiting.as_mut().as_pin_mut() {
                        // Which session it is, is looked up again once the request can leave.
                        ready!(waiting.poll(cx))?;
                        Step::Wait(State::Readying {
                            outgoing: outgoing.take(),
                        })
                    } else {
                        match taken_mut(outgoing).handle.acquire()? {
                            Acquired::Ready(_) => Step::Wait(State::Readying {
                                outgoing: outgoing.take(),
                            }),
                            Acquired::Wait(landing) => {
                                waiting.set(Some(landing));
                                continue;
                            }
                        }
                    }
                }

                StateProj::Readying { outgoing } => {
                    ready!(taken_mut(outgoing).inner.poll_ready(cx)).map_err(Into::into)?;
                    let mut outgoing = taken(outgoing);
                    match outgoing.handle.acquire()? {
                        Acquired::Ready(live) => outgoing.send(&live)?,
                        // The session was rejected while the service got ready. The permit that readiness may hold is
                        // given back for as long as the next one takes.
                        Acquired::Wait(waiting) => {
                            outgoing.inner = outgoing.inner.clone();
                            Step::Wait(State::Acquiring {
                                waiting: Some(waiting),
                                outgoing: Some(outgoing),
                            })
                        }
                    }
                }

                StateProj::Calling { future, pending } => {
                    let mut response = ready!(future.poll(cx)).map_err(Into::into)?;
                    let verdict = pending
                        .as_ref()
                        .map(|pending| pending.classify_head(&response));
                    match verdict {
                        None | Some(HeadVerdict::Final(_)) => {
                            if let (Some(pending), Some(HeadVerdict::Final(verdict))) =
                                (&pending, verdict)
                            {
                                pending.conclude(&mut response, verdict);
                            }
                            // What was kept for a replay is not held any longer than the answer took.
                            *pending = None;
                            return Poll::Ready(Ok(response.map(ResponseBody::new)));
                        }
                        Some(HeadVerdict::ReadBody(verdict)) => Step::Wait(State::Peeking {
                            rejected: Some(Box::new(Rejected {
                                response: response.map(Peeked::new),
                                pending: taken(pending),
                            })),
                            verdict,
                            deadline: handle::runtime().is_ok().then(|| sleep(PEEK_TIMEOUT)),
                        }),
                    }
                }

                StateProj::Peeking {
                    rejected,
                    verdict,
                    deadline,
                } => {
                    let verdict = ready!(peek(cx, &mut *taken_mut(rejected), verdict, deadline));
                    judged(taken(rejected), verdict)?
                }

                StateProj::Refreshing { waiting, rejected } => match ready!(waiting.poll(cx)) {
                    Ok(live) => recover(taken(rejected), &live),
                    Err(error) => give_up(*taken(rejected), error)?,
                },

                StateProj::Reclaiming {
                    reclaim,
                    rejected,
                    to,
                } => {
                    let reclaimed = ready!(reclaim.poll(cx));
                    let rejected = taken(rejected);
                    match reclaimed {
                        Ok(Some(body)) => {
                            let (not_ready_inner, head) = taken(to);
                            Step::Wait(replay(rejected, not_ready_inner, head, body))
                        }
                        Ok(None) | Err(_) => {
                            Step::Respond(rejected.into_response(ReplaySkipped::BodyNotReplayable))
                        }
                    }
                }
            };
            match step {
                Step::Wait(next) => state.set(next),
                Step::Respond(response) => return Poll::Ready(Ok(response)),
            }
        }
    }
}

/// Reads the body of what may be a rejection, no further than it takes to know that it is none, and to its end if it is
/// one.
fn peek<S, ReqBody, ResBody: Body>(
    cx: &mut Context<'_>,
    rejected: &mut Rejected<S, ReqBody, ResBody>,
    verdict: &mut Option<Verdict>,
    deadline: Pin<&mut Option<Sleep>>,
) -> Poll<Verdict> {
    let Rejected { response, pending } = rejected;
    let is_read = response.body_mut().poll_read(cx, PEEK_LIMIT).is_ready();
    let classify = |extent| pending.classify_body(response, extent);
    if is_read {
        let extent = if response.body().is_whole() {
            Extent::Whole
        } else {
            Extent::CutOff
        };
        return Poll::Ready(
            verdict
                .or_else(|| classify(extent))
                .unwrap_or(Verdict::Pass),
        );
    }
    if verdict.is_none() {
        *verdict = classify(Extent::Beginning);
    }
    match *verdict {
        Some(verdict) if verdict != Verdict::Expired => Poll::Ready(verdict),
        undecided => {
            if let Some(deadline) = deadline.as_pin_mut() {
                ready!(deadline.poll(cx));
            }
            let verdict = undecided.or_else(|| classify(Extent::CutOff));
            Poll::Ready(verdict.unwrap_or(Verdict::Pass))
        }
    }
}

/// What to do with an answer whose body was looked into.
fn judged<S, ReqBody, ResBody>(
    mut rejected: Box<Rejected<S, ReqBody, ResBody>>,
    verdict: Verdict,
) -> Result<Step<S, ReqBody, ResBody>, Error>
where
    S: Service<Request<ReplayBody<ReqBody>>>,
    ReqBody: Body,
    ResBody: Body,
{
    let Rejected { response, pending } = &mut *rejected;
    if verdict == Verdict::Expired && pending.may_refresh() {
        // The session stays for those who can renew it.
        handle::runtime()?;
        let is_first = !pending.is_refreshed();
        return match pending.handle.reject(pending.generation, is_first) {
            Ok(Acquired::Ready(live)) => Ok(recover(rejected, &live)),
            Ok(Acquired::Wait(waiting)) => {
                if let Ok(parts) = &mut rejected.pending.replay {
                    parts.head.shrink_to_fit();
                }
                Ok(Step::Wait(State::Refreshing {
                    waiting,
                    rejected: Some(rejected),
                }))
            }
            Err(error) => give_up(*rejected, error),
        };
    }
    pending.conclude(response, verdict);
    Ok(Step::Respond(rejected.response.map(ResponseBody::from)))
}

const COMPLETED: &str = "`ResponseFuture` polled after completion";

#[expect(
    clippy::expect_used,
    reason = "polling a completed future is a bug of the caller's"
)]
fn taken<T>(slot: &mut Option<T>) -> T {
    slot.take().expect(COMPLETED)
}

#[expect(
    clippy::expect_used,
    reason = "polling a completed future is a bug of the caller's"
)]
fn taken_mut<T>(slot: &mut Option<T>) -> &mut T {
    slot.as_mut().expect(COMPLETED)
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
