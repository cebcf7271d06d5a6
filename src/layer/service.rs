//! The service: from a request to the call of the inner service.

use std::{
    fmt,
    task::{Context, Poll},
};

use http::{Request, Response, request::Parts};
use http_body::Body;
use tower_service::Service;

use crate::{
    body::{ReplayBody, ResponseBody},
    error::{BoxError, Error},
    handle::handle::SessionHandle,
    layer::future::ResponseFuture,
    request::{
        authorize,
        pending::{self, ReplayPolicy},
        target::{self, Target},
    },
    verdict::Api,
};

/// An HTTP client service that adds a Salesforce session to its requests.
///
/// [`SalesforceAuthLayer`](crate::SalesforceAuthLayer) makes it; the [crate documentation](crate) says what it does. A
/// struct that owns such a client names its type like this:
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::{Client, connect::HttpConnector}, rt::TokioExecutor};
/// use tower::Layer;
/// use tower_salesforce_auth::{ReplayBody, SalesforceAuth, SalesforceAuthLayer};
///
/// struct Accounts {
///     client: SalesforceAuth<Client<HttpConnector, ReplayBody<Full<Bytes>>>>,
/// }
///
/// fn accounts(layer: &SalesforceAuthLayer) -> Accounts {
///     Accounts { client: layer.layer(Client::builder(TokioExecutor::new()).build_http()) }
/// }
/// # let session = tower_salesforce_auth::Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// # let accounts = accounts(&SalesforceAuthLayer::fixed(session));
/// # assert!(accounts.client.handle().try_session().is_some());
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone)]
pub struct SalesforceAuth<S> {
    inner: S,
    handle: SessionHandle,
    policy: ReplayPolicy,
}

impl<S> SalesforceAuth<S> {
    pub(crate) fn new(inner: S, handle: SessionHandle, policy: ReplayPolicy) -> Self {
        Self {
            inner,
            handle,
            policy,
        }
    }

    /// Returns the handle of the session that requests use, unless they carry
    /// [another handle](SessionHandle#many-orgs-one-client).
    pub fn handle(&self) -> SessionHandle {
        self.handle.clone()
    }

    /// Returns a reference to the wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the wrapped service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Consumes this service and returns the wrapped one.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SalesforceAuth<S>
where
    S: Service<Request<ReplayBody<ReqBody>>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    ReqBody: Body + Unpin + 'static,
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
        // The parts are changed in place: moving the whole request costs more than all the changes.
        let (mut head, body) = request.into_parts();
        // Removed, not only read: the inner service gets a session, but not the handle that refreshes it.
        let chosen = head.extensions.remove::<SessionHandle>();
        let handle = chosen.as_ref().unwrap_or(&self.handle);
        if let Some(published) = &*handle.load() {
            if published.is_due() {
                handle.refresh_due(published);
            }
            // NOTE: `self.inner` is called in place, since it is the service that is ready. The clone for a replay is not
            // ready: see `State::Readying` in future.rs.
            let prepared = pending::prepare(
                &mut head,
                body,
                None,
                published,
                handle,
                &self.policy,
                || self.inner.clone(),
            );
            return match prepared {
                // Separate arm: avoids moving a large `Option<PendingRequest>` on the pass-through path.
                Ok((body, None)) => {
                    let request = Request::from_parts(head, body);
                    ResponseFuture::calling(self.inner.call(request), None)
                }
                Ok((body, pending)) => {
                    let request = Request::from_parts(head, body);
                    ResponseFuture::calling(self.inner.call(request), pending)
                }
                Err(error) => self.fail(error),
            };
        }
        let handle = handle.clone();
        self.call_without_session(handle, head, body)
    }
}

impl<S: Clone> SalesforceAuth<S> {
    /// The cold path of `call`: no session is usable.
    fn call_without_session<ReqBody, ResBody>(
        &mut self,
        handle: SessionHandle,
        mut head: Parts,
        body: ReqBody,
    ) -> ResponseFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReplayBody<ReqBody>>>,
        ResBody: Body,
    {
        // A rejected session still names the instance.
        let latest = handle.latest();
        if authorize::is_passed_through(&head, Api::of(&head)) {
            let latest = latest.as_ref().map(|latest| &*latest.0);
            return match target::resolve_relative(&mut head, latest) {
                Ok(()) => self.pass_through(head, body),
                Err(error) => self.fail(error),
            };
        }
        let target = match &latest {
            Some(latest) => Target::of(&head.uri, &latest.0, &handle),
            None => Target::before_login(&head.uri, &handle),
        };
        let meant_for = match (target, &latest) {
            (None, _) => return self.pass_through(head, body),
            (Some(Target::Instance), Some(latest)) => Some(latest.generation()),
            (Some(_), _) => None,
        };
        // The login may go through the same inner service and need the permit.
        let not_ready_inner = self.give_up_readiness();
        ResponseFuture::acquiring(
            not_ready_inner,
            handle,
            Request::from_parts(head, body),
            meant_for,
            self.policy.clone(),
        )
    }

    /// Sends a request without a session.
    fn pass_through<ReqBody, ResBody>(
        &mut self,
        head: Parts,
        body: ReqBody,
    ) -> ResponseFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReplayBody<ReqBody>>>,
        ResBody: Body,
    {
        let request = Request::from_parts(head, ReplayBody::once(body));
        ResponseFuture::calling(self.inner.call(request), None)
    }

    fn fail<ReqBody, ResBody>(&mut self, error: Error) -> ResponseFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReplayBody<ReqBody>>>,
        ResBody: Body,
    {
        self.give_up_readiness();
        ResponseFuture::failed(error)
    }

    /// Drops the ready inner service, and any permit that its readiness holds. Returns a clone that is not ready.
    fn give_up_readiness(&mut self) -> S {
        let not_ready_inner = self.inner.clone();
        drop(std::mem::replace(&mut self.inner, not_ready_inner.clone()));
        not_ready_inner
    }
}

impl<S: fmt::Debug> fmt::Debug for SalesforceAuth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SalesforceAuth")
            .field("inner", &self.inner)
            .field("handle", &self.handle)
            .field("policy", &self.policy)
            .finish()
    }
}
