//! What the tests of the layer share: APIs, refreshes, services and observers.

use std::{
    future::{Ready, ready},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header::AUTHORIZATION};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::sync::{Barrier, Notify};
use tower::{Service, ServiceExt, service_fn};
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, RefreshContext, RefreshError, RefreshErrorKind, ReplayBody,
    SalesforceAuthLayer, Session, SessionHandle, handle::SessionHandleBuilder, layer::ResponseBody,
    observer::Observer, request::AuthOutcome,
};

#[path = "../support/answering.rs"]
mod answering;
#[path = "../support/app.rs"]
mod app;
#[path = "../support/call.rs"]
mod call;
#[path = "../support/granted.rs"]
mod granted;
#[path = "../support/production.rs"]
mod production;
#[path = "../support/record.rs"]
mod record;
#[path = "../support/rest.rs"]
mod rest;
#[path = "../support/starting.rs"]
mod starting;

pub(crate) use self::{
    answering::answering,
    app::app,
    call::get_limits,
    granted::{builder, granted, layer},
    production::production_app,
    record::recorded,
    starting::starting_with,
};

pub(crate) const INSTANCE: &str = "https://example.my.salesforce.com";
pub(crate) const EXPIRED: &str =
    r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#;

type ApiAnswer = Result<Response<Full<Bytes>>, BoxError>;

/// A named future: the compiler cannot prove a boxed one with a spelled-out error to be `Send` inside a task.
pub(crate) struct ApiFuture(Pin<Box<dyn Future<Output = ApiAnswer> + Send>>);

impl Future for ApiFuture {
    type Output = ApiAnswer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ApiAnswer> {
        self.0.as_mut().poll(cx)
    }
}

pub(crate) fn session(token: &str) -> Session {
    Session::new(token, INSTANCE).expect("a valid session")
}

pub(crate) fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri)
        .body(Full::default())
        .expect("a valid request")
}

pub(crate) fn post(uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(uri)
        .body(Full::new(body.into()))
        .expect("a valid request")
}

pub(crate) async fn text<B>(response: Response<ResponseBody<B>>) -> String
where
    B: Body,
    B::Error: std::fmt::Debug,
{
    let body = response.into_body().collect().await.expect("a body");
    String::from_utf8(body.to_bytes().to_vec()).expect("text")
}

// === Api ===

/// A data API that accepts one token at a time, and records its requests.
#[derive(Clone)]
pub(crate) struct Api(Arc<State>);

struct State {
    accepted: Mutex<String>,
    calls: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
}

/// A request as the server received it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) uri: Uri,
    pub(crate) method: http::Method,
    pub(crate) version: http::Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Seen {
    pub(crate) fn authorizations(&self) -> Vec<&str> {
        let values = self.headers.get_all(AUTHORIZATION).iter();
        values.map(|value| value.to_str().expect("text")).collect()
    }

    /// The headers without `Authorization`, to compare two attempts.
    pub(crate) fn other_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.remove(AUTHORIZATION);
        headers
    }
}

impl Api {
    pub(crate) fn accepting(token: &str) -> Self {
        Self(Arc::new(State {
            accepted: Mutex::new(token.to_owned()),
            calls: AtomicUsize::new(0),
            seen: Mutex::new(Vec::new()),
        }))
    }

    pub(crate) fn accept(&self, token: &str) {
        token.clone_into(&mut self.0.accepted.lock().unwrap());
    }

    pub(crate) fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().unwrap().clone()
    }

    /// The tokens of the requests, in order.
    pub(crate) fn tokens(&self) -> Vec<String> {
        let seen = self.seen();
        let tokens = seen.iter().map(|seen| match seen.authorizations()[..] {
            [] => String::new(),
            [one] => one.trim_start_matches("Bearer ").to_owned(),
            _ => panic!("several Authorization headers"),
        });
        tokens.collect()
    }

    /// Records a call and answers it, for services that wrap the API.
    pub(crate) fn answer(
        &self,
        head: http::request::Parts,
        body: Bytes,
        trailers: Option<HeaderMap>,
    ) -> Response<Full<Bytes>> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        let expected = format!("Bearer {}", self.0.accepted.lock().unwrap());
        let is_accepted = head
            .headers
            .get(AUTHORIZATION)
            .is_some_and(|value| value.as_bytes() == expected.as_bytes());
        self.0.seen.lock().unwrap().push(Seen {
            uri: head.uri,
            method: head.method,
            version: head.version,
            headers: head.headers,
            body,
            trailers,
        });
        if is_accepted {
            Response::new(Full::from("ok"))
        } else {
            expired()
        }
    }
}

/// The answer to an expired session.
pub(crate) fn expired() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(EXPIRED));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
        .headers_mut()
        .insert("www-authenticate", http::HeaderValue::from_static("Token"));
    response
}

impl<B> Service<Request<B>> for Api
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = ApiFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let api = self.clone();
        ApiFuture(Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(Into::into)?;
            let trailers = body.trailers().cloned();
            Ok(api.answer(head, body.to_bytes(), trailers))
        }))
    }
}

// === Refresher ===

/// Counts refreshes and makes the tokens `T1`, `T2` and so on. The API accepts the newest.
#[derive(Clone)]
pub(crate) struct Refresher {
    api: Api,
    refreshes: Arc<AtomicUsize>,
}

impl Refresher {
    pub(crate) fn of(api: &Api) -> Self {
        Self {
            api: api.clone(),
            refreshes: Arc::new(AtomicUsize::new(0)),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.refreshes.load(Ordering::SeqCst)
    }

    /// Begins a refresh, and returns its number, from 1.
    pub(crate) fn begin(&self) -> usize {
        self.refreshes.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Completes the n-th refresh.
    pub(crate) fn complete(&self, n: usize) -> Result<Session, RefreshError> {
        let token = format!("T{n}");
        self.api.accept(&token);
        Session::new(token, INSTANCE).map_err(RefreshError::terminal)
    }

    /// Builds a handle without a session.
    fn sessionless(&self) -> SessionHandleBuilder {
        let refresher = self.clone();
        SessionHandle::builder(move |_: RefreshContext| {
            let refresher = refresher.clone();
            async move { refresher.complete(refresher.begin()) }
        })
    }

    /// Builds a handle that starts with the session `T0`.
    pub(crate) fn builder(&self) -> SessionHandleBuilder {
        self.sessionless().initial_session(session("T0"))
    }

    /// A layer that starts with the session `T0`.
    pub(crate) fn layer(&self) -> SalesforceAuthLayer {
        self.builder().build().into()
    }

    pub(crate) fn layer_without_session(&self) -> SalesforceAuthLayer {
        self.sessionless().build().into()
    }

    /// Builds a handle that starts with the session `T0`, and whose n-th refresh does `work(n)` before it completes.
    fn builder_with<F, Fut>(&self, work: F) -> SessionHandleBuilder
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let (refresher, work) = (self.clone(), Arc::new(work));
        let builder = SessionHandle::builder(move |_: RefreshContext| {
            let (refresher, work) = (refresher.clone(), work.clone());
            async move {
                let n = refresher.begin();
                work(n).await;
                refresher.complete(n)
            }
        });
        builder.initial_session(session("T0"))
    }

    /// A layer that starts with the session `T0`, and whose n-th refresh does `work(n)` before it completes.
    pub(crate) fn layer_with<F, Fut>(&self, work: F) -> SalesforceAuthLayer
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send,
    {
        self.builder_with(work).build().into()
    }

    /// Builds a handle that starts with the session `T0`. Its refreshes notify the first value when they start, and
    /// complete once the second one is notified.
    pub(crate) fn gated(&self) -> (SessionHandleBuilder, Arc<Notify>, Arc<Notify>) {
        let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let gates = (started.clone(), finish.clone());
        let builder = self.builder_with(move |_| {
            let (started, finish) = gates.clone();
            async move {
                started.notify_one();
                finish.notified().await;
            }
        });
        (builder, started, finish)
    }

    /// A layer whose refreshes are [gated](Self::gated).
    pub(crate) fn gated_layer(&self) -> (SalesforceAuthLayer, Arc<Notify>, Arc<Notify>) {
        let (builder, started, finish) = self.gated();
        (builder.build().into(), started, finish)
    }
}

/// Builds a handle that starts with the session `T0`, and whose n-th refresh, from 1, is `refresh(n)`. Also returns the
/// count of refreshes.
pub(crate) fn counting_builder<F, Fut>(refresh: F) -> (SessionHandleBuilder, Arc<AtomicUsize>)
where
    F: Fn(usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Session, RefreshError>> + Send,
{
    let refreshes = Arc::new(AtomicUsize::new(0));
    let count = refreshes.clone();
    let builder = SessionHandle::builder(move |_: RefreshContext| {
        refresh(count.fetch_add(1, Ordering::SeqCst) + 1)
    });
    (builder.initial_session(session("T0")), refreshes)
}

/// A layer that starts with the session `T0`, and whose n-th refresh, from 1, is `refresh(n)`. Also returns the count of
/// refreshes.
pub(crate) fn counting<F, Fut>(refresh: F) -> (SalesforceAuthLayer, Arc<AtomicUsize>)
where
    F: Fn(usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Session, RefreshError>> + Send,
{
    let (builder, refreshes) = counting_builder(refresh);
    (builder.build().into(), refreshes)
}

// === Strict ===

/// Panics if this very instance is called without a successful `poll_ready` since the last call.
#[derive(Debug)]
pub(crate) struct Strict<S> {
    inner: S,
    is_ready: bool,
}

impl<S> Strict<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            is_ready: false,
        }
    }
}

impl<S: Clone> Clone for Strict<S> {
    /// A clone is not ready.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<S, R> Service<R> for Strict<S>
where
    S: Service<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let polled = self.inner.poll_ready(cx);
        self.is_ready = matches!(polled, Poll::Ready(Ok(())));
        polled
    }

    fn call(&mut self, request: R) -> S::Future {
        assert!(
            std::mem::take(&mut self.is_ready),
            "called without being ready"
        );
        self.inner.call(request)
    }
}

/// Sends a request by a clone of the service, as clients do.
pub(crate) async fn send<S, B>(service: &S, request: Request<B>) -> Result<S::Response, S::Error>
where
    S: Service<Request<B>> + Clone,
{
    service.clone().oneshot(request).await
}

/// A service that answers at once with a function of the request.
#[derive(Clone)]
pub(crate) struct Answering<F>(pub(crate) F);

impl<F, B, T> Service<Request<B>> for Answering<F>
where
    F: FnMut(Request<B>) -> Response<T>,
{
    type Response = Response<T>;
    type Error = BoxError;
    type Future = Ready<Result<Response<T>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok((self.0)(request)))
    }
}

/// An API that answers requests with the expired token only once all callers have sent theirs.
pub(crate) fn all_together(
    api: &Api,
    callers: usize,
) -> impl tower::Service<
    Request<ReplayBody<Full<Bytes>>>,
    Response = Response<Full<Bytes>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ 'static {
    let barrier = Arc::new(Barrier::new(callers));
    let api = api.clone();
    service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let (api, barrier) = (api.clone(), barrier.clone());
        async move {
            if request.headers()["authorization"] == "Bearer T0" {
                barrier.wait().await;
            }
            api.oneshot(request).await
        }
    })
}

pub(crate) fn layer_error(error: &BoxError) -> &Error {
    error.downcast_ref().expect("an error of the layer's own")
}

pub(crate) fn kind(error: &BoxError) -> Option<ErrorKind> {
    error.downcast_ref().map(Error::kind)
}

pub(crate) fn refresh_kind(error: &BoxError) -> Option<RefreshErrorKind> {
    let error: &Error = error.downcast_ref()?;
    error.refresh_error().map(RefreshError::kind)
}

pub(crate) fn outcome<B>(response: &Response<B>) -> &AuthOutcome {
    response.extensions().get().expect("an outcome")
}

pub(crate) fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

// === Observers ===

/// Counts the reports that a new login is needed.
#[derive(Clone, Default)]
pub(crate) struct Reauthentications(Arc<AtomicUsize>);

impl Reauthentications {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Observer for Reauthentications {
    fn reauthentication_required(&self, failure: &RefreshError) {
        assert!(failure.is_terminal());
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
