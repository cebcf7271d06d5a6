//! The response future: from a request to its response, with a refresh and a replay if the session is rejected.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    body::{ReplayBody, ResponseBody},
    error::{BoxError, Error},
    handle::handle::SessionHandle,
    layer::slow_path::{End, SlowPath},
    request::{
        common::Common,
        pending::{HeadVerdict, PendingRequest},
    },
    session::live::Generation,
};

pin_project! {
    /// The future of the response to a request sent through [`SalesforceAuth`](crate::SalesforceAuth).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReplayBody<ReqBody>>>,
        ResBody: Body,
    {
        // Before `pending`, so that it is dropped first.
        #[pin]
        state: State<S, ReqBody, ResBody>,
        // What is remembered of the request. `None` before the first send, and if any response is returned as it is.
        pending: Option<PendingRequest<S, ReqBody>>,
    }
}

pin_project! {
    /// What the future waits for.
    #[project = StateProj]
    enum State<S, ReqBody, ResBody>
    where
        S: Service<Request<ReplayBody<ReqBody>>>,
        ResBody: Body,
    {
        /// Waits for the response of the inner service.
        Calling {
            #[pin]
            future: S::Future,
        },
        /// Waits for anything else.
        ///
        /// Boxed, since few requests do: a future is as large as its largest state, and is moved as a whole.
        Slow {
            path: Box<SlowPath<S, ReqBody, ResBody>>,
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
            state: State::Calling { future },
            pending,
        }
    }

    /// Waits for a session to send the request with. The [spare](Common::keep_spare) service was kept.
    pub(crate) fn acquiring(
        common: Arc<Common<S>>,
        chosen: Option<SessionHandle>,
        request: Request<ReqBody>,
        meant_for: Option<Generation>,
    ) -> Self {
        Self::slow(SlowPath::acquiring(common, chosen, request, meant_for))
    }

    /// Fails with an error.
    pub(crate) fn failed(error: Error) -> Self {
        Self::slow(SlowPath::failed(error))
    }

    fn slow(path: Box<SlowPath<S, ReqBody, ResBody>>) -> Self {
        Self {
            state: State::Slow { path },
            pending: None,
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
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    let mut response = ready!(future.poll(cx)).map_err(Into::into)?;
                    let Some(sent) = this.pending.as_ref() else {
                        return Poll::Ready(Ok(response.map(ResponseBody::new)));
                    };
                    match sent.classify_head(&response) {
                        HeadVerdict::Final(verdict) => {
                            sent.conclude(&mut response, verdict);
                            // Frees what was kept for a replay, before the caller reads the body.
                            *this.pending = None;
                            return Poll::Ready(Ok(response.map(ResponseBody::new)));
                        }
                        HeadVerdict::ReadBody(verdict) => State::Slow {
                            path: SlowPath::peeking(response, verdict),
                        },
                    }
                }
                StateProj::Slow { path } => match ready!(path.poll(cx, this.pending))? {
                    End::Sent(future) => State::Calling { future },
                    End::Response(response) => {
                        *this.pending = None;
                        return Poll::Ready(Ok(response));
                    }
                },
            };
            this.state.set(next);
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
