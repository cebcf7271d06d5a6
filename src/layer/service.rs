//! The service: what happens to a request before it leaves.

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

/// An HTTP client service whose requests carry a live Salesforce session; made by
/// [`SalesforceAuthLayer`](crate::SalesforceAuthLayer).
///
/// See the [crate documentation](crate) for what it does. A client that is kept in a struct is named like this:
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
/// # let accounts = accounts(&SalesforceAuthLayer::with_session(session));
/// # assert!(accounts.client.handle().current().is_some());
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

    /// The session of all requests that do not choose [another](SessionHandle#many-orgs-one-client).
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
        // In two parts, each of which is changed where it is: as a whole it is larger than all that is done to it.
        let (mut head, body) = request.into_parts();
        // Taken out, not looked at: the wrapped service gets a session for one request, and not what renews it.
        let chosen = head.extensions.remove::<SessionHandle>();
        let handle = chosen.as_ref().unwrap_or(&self.handle);
        if let Some(published) = &*handle.load() {
            if published.is_due() {
                handle.renew(published);
            }
            // The inner service is called where it is, since it is this one that is ready. A clone, which is not, is
            // kept for the second attempt: NOTE in future.rs, `State::Readying`.
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
                // Apart, since it is not to be moved about where there is none.
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
    /// The cold path of `call`: there is no session to send with.
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
        // Where the instance is, a session that was rejected tells as well as any.
        let latest = handle.latest();
        if authorize::is_passed_through(&head, Api::of(&head)) {
            let latest = latest.as_ref().map(|latest| &*latest.0);
            return match target::resolve_relative(&mut head, latest) {
                Ok(()) => self.pass(head, body),
                Err(error) => self.fail(error),
            };
        }
        let target = match &latest {
            Some(latest) => Target::of(&head.uri, &latest.0, &handle),
            None => Target::before_login(&head.uri, &handle),
        };
        let meant_for = match (target, &latest) {
            (None, _) => return self.pass(head, body),
            (Some(Target::Instance), Some(latest)) => Some(latest.generation()),
            (Some(_), _) => None,
        };
        // The login that it waits for may need the permit.
        let not_ready_inner = self.give_up_readiness();
        ResponseFuture::acquiring(
            not_ready_inner,
            handle,
            Request::from_parts(head, body),
            meant_for,
            self.policy.clone(),
        )
    }

    fn pass<ReqBody, ResBody>(
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

    /// Gives up the readiness of the inner service, and with it any permit that it may hold, and returns another that
    /// is not ready.
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
