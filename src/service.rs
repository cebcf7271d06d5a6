//! The service: what happens to a request before it leaves.

use std::{
    fmt,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::{
    body::{ReplayBody, ResponseBody},
    error::{BoxError, Error, ErrorKind},
    exchange::{self, Effort},
    future::ResponseFuture,
    handle::SessionHandle,
    request,
};

/// An HTTP client service whose requests carry a live Salesforce session; made by
/// [`SalesforceAuthLayer`](crate::SalesforceAuthLayer).
///
/// See the [crate documentation](crate).
#[derive(Clone)]
pub struct SalesforceAuth<S> {
    inner: S,
    handle: SessionHandle,
    effort: Effort,
}

impl<S> SalesforceAuth<S> {
    pub(crate) fn new(inner: S, handle: SessionHandle, effort: Effort) -> Self {
        Self {
            inner,
            handle,
            effort,
        }
    }

    /// The session.
    pub fn handle(&self) -> SessionHandle {
        self.handle.clone()
    }

    /// The wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the wrapped service out.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SalesforceAuth<S>
where
    S: Service<Request<ReplayBody<ReqBody>>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    ReqBody: Body + Unpin,
    ReqBody::Error: Into<BoxError>,
    ResBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, ReqBody, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        if let Some(published) = &*self.handle.load() {
            // The inner service is called where it is, since it is this one that is ready. A clone, which is not, is
            // kept for the second attempt: NOTE in future.rs, `State::Readying`.
            let attempt =
                exchange::first_attempt(request, published, &self.handle, self.effort, || {
                    self.inner.clone()
                });
            return match attempt {
                Ok((request, exchange)) => {
                    ResponseFuture::calling(self.inner.call(request), exchange)
                }
                Err(error) => ResponseFuture::failed(error),
            };
        }
        if request::is_left_alone(&request) {
            if request::is_relative(request.uri()) {
                return ResponseFuture::failed(Error::new(
                    ErrorKind::NoSession,
                    "a relative URI needs an instance to go to, and there is no session yet to tell it: give the \
                     request an absolute URI, or the layer a session",
                ));
            }
        } else if request::is_relative(request.uri()) || self.handle.may_trust(request.uri()) {
            // The ready service is given up: it may hold a permit, which the login that is waited for may need.
            let not_ready_inner = self.inner.clone();
            drop(std::mem::replace(&mut self.inner, not_ready_inner.clone()));
            return ResponseFuture::acquiring(
                not_ready_inner,
                self.handle.clone(),
                request,
                self.effort,
            );
        }
        ResponseFuture::calling(self.inner.call(request.map(ReplayBody::once)), None)
    }
}

impl<S: fmt::Debug> fmt::Debug for SalesforceAuth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SalesforceAuth")
            .field("inner", &self.inner)
            .field("handle", &self.handle)
            .field("effort", &self.effort)
            .finish()
    }
}
