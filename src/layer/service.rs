//! The service: from a request to the call of the inner service.

use std::{
    fmt,
    sync::Arc,
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
        common::{Common, ReplayPolicy},
        pending,
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
///
/// # Which service sends a replay
///
/// A replay, and a request that waited for a session, is sent by a clone of the wrapped service. The layer keeps one clone, of
/// the service that sent the first request, for this service and all its clones. If a wrapped service is changed, through
/// [`get_mut`](Self::get_mut), this service keeps a clone of its own from then on. So clones of the wrapped service have to be
/// interchangeable, unless they are changed in that way.
#[derive(Clone)]
pub struct SalesforceAuth<S> {
    inner: S,
    common: Arc<Common<S>>,
}

impl<S> SalesforceAuth<S> {
    pub(crate) fn new(inner: S, handle: SessionHandle, policy: ReplayPolicy) -> Self {
        Self {
            inner,
            common: Common::new(handle, policy),
        }
    }

    /// Returns the handle of the session that requests use, unless they carry
    /// [another handle](SessionHandle#many-orgs-one-client).
    pub fn handle(&self) -> SessionHandle {
        self.common.handle.clone()
    }

    /// Returns a reference to the wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the wrapped service.
    ///
    /// Replays are sent by clones of the changed service. Clones of this service, and requests that were sent before, stay as
    /// they are.
    pub fn get_mut(&mut self) -> &mut S {
        self.common = self.common.without_spare();
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
        // Most requests have no extensions: nothing is looked up then.
        let mut chosen = if head.extensions.is_empty() {
            None
        } else {
            head.extensions.remove::<SessionHandle>()
        };
        let handle = chosen.as_ref().unwrap_or(&self.common.handle);
        if let Some(published) = &*handle.load() {
            let prepared = match published.extras {
                None => pending::prepare::<_, _, false>(
                    &mut head,
                    body,
                    None,
                    published,
                    &self.common,
                    &mut chosen,
                    &self.inner,
                ),
                // Few sessions have extras: they are all looked at here.
                Some(_) => {
                    if published.is_due() {
                        handle.refresh_due(published);
                    }
                    pending::prepare_with_extras(
                        &mut head,
                        body,
                        None,
                        published,
                        &self.common,
                        &mut chosen,
                        &self.inner,
                    )
                }
            };
            // NOTE: `self.inner` is called in place, since it is the service that is ready. Replays are sent by a clone, which
            // is not: see `Wait::Readying` in slow_path.rs.
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
        self.call_without_session(chosen, head, body)
    }
}

impl<S: Clone> SalesforceAuth<S> {
    /// The cold path of `call`: no session is usable.
    fn call_without_session<ReqBody, ResBody>(
        &mut self,
        chosen: Option<SessionHandle>,
        mut head: Parts,
        body: ReqBody,
    ) -> ResponseFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReplayBody<ReqBody>>>,
        ReqBody: Body + Unpin,
        ReqBody::Error: Into<BoxError>,
        ResBody: Body,
    {
        let handle = chosen.as_ref().unwrap_or(&self.common.handle);
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
            Some(latest) => Target::of(&head.uri, &latest.0, handle),
            None => Target::before_login(&head.uri, handle),
        };
        let meant_for = match (target, &latest) {
            (None, _) => return self.pass_through(head, body),
            (Some(Target::Instance), Some(latest)) => Some(latest.generation()),
            (Some(_), _) => None,
        };
        self.common.keep_spare(&self.inner);
        // The login may go through the same inner service and need the permit.
        self.give_up_readiness();
        ResponseFuture::acquiring(
            Arc::clone(&self.common),
            chosen,
            Request::from_parts(head, body),
            meant_for,
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
        ReqBody: Body + Unpin,
        ReqBody::Error: Into<BoxError>,
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

    /// Replaces the ready inner service, and any permit that its readiness holds, by a clone that is not ready.
    fn give_up_readiness(&mut self) {
        self.inner = self.inner.clone();
    }
}

impl<S: fmt::Debug> fmt::Debug for SalesforceAuth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SalesforceAuth")
            .field("inner", &self.inner)
            .field("handle", &self.common.handle)
            .field("policy", &self.common.policy)
            .finish()
    }
}
