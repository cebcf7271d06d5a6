//! What `docs::stack_order` says of each layer: the order that works does, and the other breaks as the page says.

use std::{
    collections::HashSet,
    future::{Future, Ready, ready},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE},
    request::Parts,
};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    buffer::BufferLayer,
    limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer, RateLimitLayer},
    load_shed::{LoadShedLayer, error::Overloaded},
    retry::{Policy, RetryLayer},
    timeout::{TimeoutLayer, error::Elapsed},
};
use tower_http::{
    compression::CompressionLayer,
    decompression::DecompressionLayer,
    follow_redirect::{FollowRedirectLayer, RequestUri},
    sensitive_headers::{SetSensitiveRequestHeadersLayer, SetSensitiveResponseHeadersLayer},
    trace::{DefaultMakeSpan, DefaultOnRequest, DefaultOnResponse, TraceLayer},
};
use tower_salesforce_auth::{
    Error, ErrorKind, RefreshContext, RefreshError, ReplayBody, SalesforceAuthLayer, Session,
    SessionHandle,
    oauth::DpopKey,
    request::{AuthOutcome, ReplaySkipped, SkipAuth},
};
use tracing::{Span, info};

use crate::traced::Traced;

const INSTANCE: &str = "https://example.my.salesforce.com";
const LIMITS: &str = "/services/data/v66.0/limits";
const EXPIRED: &str =
    r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#;

// === The wire ===

type Answer = Response<Full<Bytes>>;
type AnswerFuture = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

/// What is at the other end: answers by the head of a request, and remembers it.
#[derive(Clone)]
struct Wire {
    seen: Arc<Mutex<Vec<Parts>>>,
    answer: Arc<dyn Fn(&Parts) -> AnswerFuture + Send + Sync>,
}

impl Wire {
    fn new(answer: impl Fn(&Parts) -> Answer + Send + Sync + 'static) -> Self {
        Self::slow(move |head| ready(answer(head)))
    }

    fn slow<F>(answer: impl Fn(&Parts) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self {
            seen: Arc::default(),
            answer: Arc::new(move |head| {
                let answer = answer(head);
                Box::pin(async move { Ok(answer.await) })
            }),
        }
    }

    /// The session `T0` has expired; all others are good.
    fn with_expired_session() -> Self {
        Self::new(unless_expired)
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn tokens(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(token).collect()
    }

    fn seen(&self) -> Vec<Parts> {
        self.seen.lock().unwrap().clone()
    }
}

impl<B> Service<Request<B>> for Wire {
    type Response = Answer;
    type Error = BoxError;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> AnswerFuture {
        let (head, _) = request.into_parts();
        let answer = (self.answer)(&head);
        self.seen.lock().unwrap().push(head);
        answer
    }
}

fn token(head: &Parts) -> String {
    let token = head.headers.get(AUTHORIZATION);
    let token = token.map_or("", |token| token.to_str().unwrap());
    token.trim_start_matches("Bearer ").to_owned()
}

fn unless_expired(head: &Parts) -> Answer {
    match token(head).as_str() {
        "T0" => answer(StatusCode::UNAUTHORIZED, EXPIRED),
        _ => answer(StatusCode::OK, "ok"),
    }
}

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}

fn redirect(location: &'static str) -> Answer {
    let mut answer = answer(StatusCode::TEMPORARY_REDIRECT, "");
    let location = HeaderValue::from_static(location);
    answer.headers_mut().insert(LOCATION, location);
    answer
}

// === The session ===

fn session(token: impl Into<String>) -> Session {
    Session::new(token.into(), INSTANCE).unwrap()
}

/// A layer that begins with the session `T0`, refreshes it to `T1`, `T2` and so on, and counts the refreshes.
fn layer() -> (SalesforceAuthLayer, Arc<AtomicUsize>) {
    layer_after(async || {})
}

/// The same; each refresh waits for this before it completes.
fn layer_after<F, Fut>(wait: F) -> (SalesforceAuthLayer, Arc<AtomicUsize>)
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let refreshes = Arc::new(AtomicUsize::new(0));
    let count = refreshes.clone();
    let wait = Arc::new(wait);
    let layer = SalesforceAuthLayer::new(move |_: RefreshContext| {
        let n = count.fetch_add(1, Ordering::SeqCst) + 1;
        let wait = wait.clone();
        async move {
            wait().await;
            Ok::<_, RefreshError>(session(format!("T{n}")))
        }
    });
    layer.handle().set(session("T0"));
    (layer, refreshes)
}

/// A layer whose session has expired, and whose refresh waits for a gate.
fn gated() -> (SalesforceAuthLayer, Arc<AtomicUsize>, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let wait = gate.clone();
    let (layer, refreshes) = layer_after(move || {
        let gate = wait.clone();
        async move { gate.acquire().await.unwrap().forget() }
    });
    let handle = layer.handle();
    handle.invalidate(handle.try_session().unwrap().generation());
    (layer, refreshes, gate)
}

// === Requests ===

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

fn marked<T: Clone + Send + Sync + 'static>(
    mut request: Request<Full<Bytes>>,
    mark: T,
) -> Request<Full<Bytes>> {
    request.extensions_mut().insert(mark);
    request
}

/// One that the layer has no business with, and so need not wait for a session.
fn unauthenticated() -> Request<Full<Bytes>> {
    marked(get("https://login.salesforce.com/"), SkipAuth)
}

async fn send<S, B>(service: &S, request: Request<B>) -> Result<S::Response, S::Error>
where
    S: Service<Request<B>> + Clone,
{
    service.clone().oneshot(request).await
}

fn skipped<B>(response: &Response<B>) -> Option<ReplaySkipped> {
    response.extensions().get::<AuthOutcome>()?.replay_skipped()
}

fn attempts<B>(response: &Response<B>) -> Option<u32> {
    Some(response.extensions().get::<AuthOutcome>()?.attempts())
}

fn is_clone<T: Clone>(_: &T) {}

// === timeout ===

#[tokio::test(start_paused = true)]
async fn timeout_outside_bounds_the_wait_and_the_refresh_goes_on() {
    let wire = Wire::with_expired_session();
    let (layer, refreshes) = layer_after(async || sleep(Duration::from_secs(20)).await);
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .layer(layer)
        .service(wire.clone());
    let started = Instant::now();
    let error = send(&service, get(LIMITS)).await.unwrap_err();
    assert!(error.is::<Elapsed>(), "{error}");
    assert_eq!(started.elapsed().as_secs(), 5);

    sleep(Duration::from_secs(16)).await;
    let response = send(&service, get(LIMITS)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(refreshes.load(Ordering::SeqCst), 1, "the one that went on");
    assert_eq!(wire.tokens(), ["T0", "T1"]);
}

#[tokio::test(start_paused = true)]
async fn timeout_inside_is_for_each_attempt_and_does_not_bound_the_wait() {
    let wire = Wire::slow(|head| {
        let answer = unless_expired(head);
        async move {
            sleep(Duration::from_secs(4)).await;
            answer
        }
    });
    let (layer, _) = layer_after(async || sleep(Duration::from_secs(20)).await);
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .service(wire);
    let started = Instant::now();
    let response = send(&service, get(LIMITS)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(started.elapsed().as_secs(), 4 + 20 + 4);

    // It is the attempt that it is for.
    let (layer, _) = self::layer();
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .service(Wire::slow(|_| std::future::pending()));
    let error = send(&service, get(LIMITS)).await.unwrap_err();
    assert!(error.is::<Elapsed>(), "{error}");
}

/// Tries once more what took too long.
#[derive(Clone)]
struct WhenLate(u32);

impl<Res> Policy<Request<Full<Bytes>>, Response<Res>, BoxError> for WhenLate {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Full<Bytes>>,
        result: &mut Result<Response<Res>, BoxError>,
    ) -> Option<Ready<()>> {
        let is_late = result.as_ref().is_err_and(|error| error.is::<Elapsed>());
        self.0 = self.0.checked_sub(1).filter(|_| is_late)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_inside_leaves_time_for_a_retry_outside() {
    let hangs = Arc::new(AtomicBool::new(true));
    let wire = Wire::slow(move |head| {
        let hangs = hangs.swap(false, Ordering::SeqCst);
        let answer = unless_expired(head);
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            answer
        }
    });
    let (layer, _) = layer();
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(Duration::from_secs(60)))
        .layer(RetryLayer::new(WhenLate(1)))
        .layer(layer)
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .service(wire.clone());
    let started = Instant::now();
    let response = send(&service, get(LIMITS)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(wire.tokens(), ["T0", "T0", "T1"]);
}

// === retry ===

/// Tries again, up to so many times, what was answered with one of these statuses.
#[derive(Clone)]
struct Statuses {
    statuses: &'static [u16],
    left: u32,
    pause: Duration,
}

impl<B, Res> Policy<Request<B>, Response<Res>, BoxError> for Statuses
where
    Request<B>: CloneRequest,
{
    type Future = Sleep;

    fn retry(
        &mut self,
        _: &mut Request<B>,
        result: &mut Result<Response<Res>, BoxError>,
    ) -> Option<Sleep> {
        let status = result.as_ref().ok()?.status().as_u16();
        if self.left == 0 || !self.statuses.contains(&status) {
            return None;
        }
        self.left -= 1;
        Some(sleep(self.pause))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        request.clone_request()
    }
}

trait CloneRequest: Sized {
    fn clone_request(&self) -> Option<Self>;
}

impl CloneRequest for Request<Full<Bytes>> {
    fn clone_request(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// Inside the layer bodies cannot be cloned. Those that are empty can be made again.
impl CloneRequest for Request<ReplayBody<Full<Bytes>>> {
    fn clone_request(&self) -> Option<Self> {
        if self.body().size_hint().exact() != Some(0) {
            return None;
        }
        let mut request = Request::new(ReplayBody::default());
        *request.method_mut() = self.method().clone();
        *request.uri_mut() = self.uri().clone();
        *request.headers_mut() = self.headers().clone();
        *request.extensions_mut() = self.extensions().clone();
        Some(request)
    }
}

fn retry(statuses: &'static [u16]) -> RetryLayer<Statuses> {
    retry_after(Duration::ZERO, statuses)
}

fn retry_after(pause: Duration, statuses: &'static [u16]) -> RetryLayer<Statuses> {
    RetryLayer::new(Statuses {
        statuses,
        left: 3,
        pause,
    })
}

/// Answers 503, during which the session is replaced, until the new one is there.
fn busy(handle: SessionHandle) -> Wire {
    Wire::new(move |head| {
        handle.set(session("T1"));
        match token(head).as_str() {
            "T0" => answer(StatusCode::SERVICE_UNAVAILABLE, "busy"),
            _ => answer(StatusCode::OK, "ok"),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn retry_outside_sends_each_attempt_with_the_session_of_its_time() {
    let (layer, _) = layer();
    let wire = busy(layer.handle());
    let service = ServiceBuilder::new()
        .layer(retry(&[503]))
        .layer(layer)
        .service(wire.clone());
    let response = send(&service, get(LIMITS)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(wire.tokens(), ["T0", "T1"]);
}

#[tokio::test(start_paused = true)]
async fn retry_inside_repeats_the_session_of_the_first_attempt() {
    let (layer, _) = layer();
    let wire = busy(layer.handle());
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(retry(&[503]))
        .service(wire.clone());
    let response = send(&service, get(LIMITS)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(wire.tokens(), ["T0", "T0", "T0", "T0"]);
}

/// A layer with a session that is bound to a key.
fn bound_layer() -> SalesforceAuthLayer {
    let (layer, _) = layer();
    let key = DpopKey::generate().unwrap();
    layer.handle().set(session("T1").with_dpop_key(key));
    layer
}

/// The proofs that reached the wire, and how many of them are different.
fn proofs(wire: &Wire) -> (usize, usize) {
    let seen = wire.seen();
    let proofs: Vec<_> = seen.iter().map(|head| head.headers.get("dpop")).collect();
    assert!(proofs.iter().all(Option::is_some));
    let different: HashSet<_> = proofs.iter().collect();
    (proofs.len(), different.len())
}

#[tokio::test(start_paused = true)]
async fn retry_inside_repeats_the_proof_of_a_bound_session() {
    let busy = || Wire::new(|_| answer(StatusCode::SERVICE_UNAVAILABLE, "busy"));
    let layer = bound_layer();
    let wire = busy();
    let inside = ServiceBuilder::new()
        .layer(&layer)
        .layer(retry(&[503]))
        .service(wire.clone());
    send(&inside, get(LIMITS)).await.unwrap();
    assert_eq!(proofs(&wire), (4, 1));

    let wire = busy();
    let outside = ServiceBuilder::new()
        .layer(retry(&[503]))
        .layer(&layer)
        .service(wire.clone());
    send(&outside, get(LIMITS)).await.unwrap();
    assert_eq!(proofs(&wire), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn retry_inside_that_takes_a_401_repeats_the_dead_session() {
    let wire = Wire::with_expired_session();
    let (layer, refreshes) = layer();
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(retry(&[401]))
        .service(wire.clone());
    let response = send(&service, get(LIMITS)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(wire.tokens(), ["T0", "T0", "T0", "T0", "T1"]);
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn retry_inside_cannot_repeat_a_body() {
    let wire = Wire::new(|_| answer(StatusCode::SERVICE_UNAVAILABLE, "busy"));
    let (layer, _) = layer();
    let request = || {
        let body = Full::from(r#"{"Name":"Acme"}"#);
        Request::post("/services/data/v66.0/sobjects/Account").body(body)
    };
    let inside = ServiceBuilder::new()
        .layer(&layer)
        .layer(retry(&[503]))
        .service(wire.clone());
    send(&inside, request().unwrap()).await.unwrap();
    assert_eq!(wire.calls(), 1, "not retried at all");

    let outside = ServiceBuilder::new()
        .layer(retry(&[503]))
        .layer(&layer)
        .service(wire.clone());
    send(&outside, request().unwrap()).await.unwrap();
    assert_eq!(wire.calls(), 1 + 4);
}

#[tokio::test(start_paused = true)]
async fn retry_outside_that_takes_a_401_multiplies_attempts_and_logins() {
    let sent = async |pause: Duration, statuses: &'static [u16]| {
        let wire = Wire::new(|_| answer(StatusCode::UNAUTHORIZED, EXPIRED));
        let (layer, refreshes) = layer();
        let service = ServiceBuilder::new()
            .layer(retry_after(pause, statuses))
            .layer(layer)
            .service(wire.clone());
        let response = send(&service, get(LIMITS)).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        (wire.tokens(), refreshes.load(Ordering::SeqCst))
    };
    let minute = Duration::from_secs(60);
    // Two attempts and one login are what there is to try.
    let (tokens, logins) = sent(minute, &[503]).await;
    assert_eq!(
        (&tokens[..], logins),
        (&["T0", "T1"].map(String::from)[..], 1)
    );
    let (tokens, logins) = sent(minute, &[401]).await;
    assert_eq!(tokens, ["T0", "T1", "T1", "T2", "T2", "T3", "T3", "T4"]);
    assert_eq!(logins, 4);
    // Without a pause the layer does not log in each time, since it knows that new sessions are useless (R12).
    let (tokens, logins) = sent(Duration::ZERO, &[401]).await;
    assert_eq!(tokens, ["T0", "T1", "T1", "T1", "T1"]);
    assert_eq!(logins, 1);
}

/// Tries everything again once, by a copy of the request that lacks its extensions.
#[derive(Clone)]
struct Forgetful;

impl<Res> Policy<Request<Full<Bytes>>, Response<Res>, BoxError> for Forgetful {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        request: &mut Request<Full<Bytes>>,
        result: &mut Result<Response<Res>, BoxError>,
    ) -> Option<Ready<()>> {
        request.headers().get("x-retried")?;
        let status = result.as_ref().ok()?.status();
        (status == StatusCode::SERVICE_UNAVAILABLE).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        let copy = Request::get(request.uri()).header("x-retried", "1");
        copy.body(request.body().clone()).ok()
    }
}

#[tokio::test(start_paused = true)]
async fn a_retried_request_has_to_keep_its_extensions() {
    let busy = || {
        let first = AtomicBool::new(true);
        Wire::new(move |_| {
            if first.swap(false, Ordering::SeqCst) {
                answer(StatusCode::SERVICE_UNAVAILABLE, "busy")
            } else {
                answer(StatusCode::OK, "ok")
            }
        })
    };
    let tenant = SessionHandle::fixed(session("tenant"));
    let (layer, _) = layer();
    let wire = busy();
    let service = ServiceBuilder::new()
        .layer(retry(&[503]))
        .layer(&layer)
        .service(wire.clone());
    let request = marked(get(LIMITS), tenant.clone());
    send(&service, request).await.unwrap();
    assert_eq!(wire.tokens(), ["tenant", "tenant"]);

    let wire = busy();
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(Forgetful))
        .layer(&layer)
        .service(wire.clone());
    send(&service, marked(get(LIMITS), tenant)).await.unwrap();
    assert_eq!(wire.tokens(), ["tenant", "T0"], "as another user");
}

// === buffer ===

#[tokio::test]
async fn buffer_inside_makes_a_client_clone_that_is_not() {
    let wire = Wire::with_expired_session();
    let (layer, _) = layer();
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(BufferLayer::new(1))
        .layer(RateLimitLayer::new(10, Duration::from_secs(1)))
        .service(wire.clone());
    is_clone(&service);
    let response = send(&service, get(LIMITS)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(wire.tokens(), ["T0", "T1"]);
}

/// Has 100 requests wait for a refresh, and then sends one that needs none.
macro_rules! pass_those_who_wait {
    ($gate:expr, $wire:expr, $service:expr) => {{
        let service = $service;
        let mut waiters = JoinSet::new();
        for _ in 0..100 {
            waiters.spawn(service.clone().oneshot(get(LIMITS)));
        }
        // Each task runs as far as it can, the worker of a buffer too.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!($wire.calls(), 0);
        let passing = timeout(Duration::from_secs(1), send(&service, unauthenticated())).await;
        let has_passed = passing.is_ok();
        $gate.add_permits(1);
        for waiter in waiters.join_all().await {
            assert_eq!(waiter.unwrap().status(), StatusCode::OK);
        }
        has_passed
    }};
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_session_hold_no_slot_of_a_buffer_on_either_side() {
    let (layer, refreshes, gate) = gated();
    let wire = Wire::with_expired_session();
    let inside = ServiceBuilder::new()
        .layer(layer)
        .layer(BufferLayer::new(1))
        .service(wire.clone());
    assert!(pass_those_who_wait!(gate, wire, inside));
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);

    // So it does not bound how many wait either.
    let (layer, refreshes, gate) = gated();
    let wire = Wire::with_expired_session();
    let outside = ServiceBuilder::new()
        .layer(BufferLayer::new(1))
        .layer(layer)
        .service(wire.clone());
    assert!(pass_those_who_wait!(gate, wire, outside));
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);
}

/// R13, through a task that the refresh is no part of.
#[tokio::test(start_paused = true)]
async fn a_refresh_through_a_buffer_outside_is_known_as_reentrant() {
    type Stack = tower::util::BoxCloneService<Request<Full<Bytes>>, (), BoxError>;
    let stack: Arc<Mutex<Option<Stack>>> = Arc::default();
    let itself = stack.clone();
    let layer = SalesforceAuthLayer::new(move |_: RefreshContext| {
        let service = itself.lock().unwrap().clone().unwrap();
        async move {
            let answer = service.oneshot(get(LIMITS)).await;
            answer.map_err(RefreshError::terminal)?;
            Ok(session("T1"))
        }
    });
    let service = ServiceBuilder::new()
        .map_response(drop)
        .layer(BufferLayer::new(8))
        .layer(layer)
        .service(Wire::with_expired_session());
    *stack.lock().unwrap() = Some(tower::util::BoxCloneService::new(service.clone()));
    let started = Instant::now();
    let error = send(&service, get(LIMITS)).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::ZERO);
    let error = error.downcast::<Error>().unwrap();
    let cause = error.causes().nth(1).unwrap();
    let cause = cause.downcast_ref::<Error>().unwrap();
    assert_eq!(cause.kind(), ErrorKind::Reentrant);
    *stack.lock().unwrap() = None;
}

// === concurrency_limit ===

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_outside_bounds_those_who_wait() {
    let (layer, _, gate) = gated();
    let wire = Wire::with_expired_session();
    let service = ServiceBuilder::new()
        .layer(ConcurrencyLimitLayer::new(10))
        .layer(layer)
        .service(wire.clone());
    // Requests that wait for a session hold their permits, so no other request passes.
    assert!(!pass_those_who_wait!(gate, wire, service));
}

#[tokio::test(start_paused = true)]
async fn no_waiter_holds_a_permit_of_a_limit_inside() {
    let (layer, _, gate) = gated();
    let wire = Wire::with_expired_session();
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(ConcurrencyLimitLayer::new(1))
        .service(wire.clone());
    assert!(pass_those_who_wait!(gate, wire, service));
}

/// A layer whose refresh sends a request through this client.
fn logging_in_through<S>(client: S) -> SalesforceAuthLayer
where
    S: Service<Request<Full<Bytes>>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Response: Send,
{
    let layer = SalesforceAuthLayer::new(move |_: RefreshContext| {
        let client = client.clone();
        async move {
            // Time for others to come, and to wait.
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            let login = client.oneshot(get("https://login.salesforce.com/")).await;
            login.map_err(RefreshError::transient)?;
            Ok(session("T1"))
        }
    });
    layer.handle().set(session("T0"));
    layer
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_outside_that_the_flow_shares_is_a_deadlock_until_the_refresh_timeout()
{
    let wire = Wire::with_expired_session();
    let limit = GlobalConcurrencyLimitLayer::new(1);
    let service = ServiceBuilder::new()
        .layer(limit.clone())
        .layer(logging_in_through(limit.layer(wire.clone())))
        .service(wire.clone());
    let started = Instant::now();
    let error = send(&service, get(LIMITS)).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    let error = error.downcast::<Error>().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refresh);
    assert_eq!(wire.tokens(), ["T0"]);

    // With a separate client there is one refresh, and no wait.
    let wire = Wire::with_expired_session();
    let service = ServiceBuilder::new()
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .layer(logging_in_through(wire.clone()))
        .service(wire.clone());
    let started = Instant::now();
    let response = send(&service, get(LIMITS)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(wire.tokens(), ["T0", "", "T1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_concurrency_limit_inside_that_the_flow_shares_is_no_deadlock() {
    let wire = Wire::with_expired_session();
    let limit = GlobalConcurrencyLimitLayer::new(1);
    let service = ServiceBuilder::new()
        .layer(logging_in_through(limit.layer(wire.clone())))
        .layer(limit)
        .service(wire.clone());
    let mut callers = JoinSet::new();
    for _ in 0..1_000 {
        let service = service.clone();
        callers.spawn(async move { send(&service, get(LIMITS)).await.unwrap().status() });
    }
    let statuses = callers.join_all().await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK));
    let logins = wire
        .tokens()
        .iter()
        .filter(|token| token.is_empty())
        .count();
    assert_eq!(logins, 1);
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_inside_that_the_flow_shares_stalls_behind_a_held_permit() {
    let wire = Wire::with_expired_session();
    let limit = GlobalConcurrencyLimitLayer::new(1);
    let service = ServiceBuilder::new()
        .layer(logging_in_through(limit.layer(wire.clone())))
        .layer(limit)
        .service(wire.clone());
    let mut response = task::spawn(service.clone().oneshot(get(LIMITS)));
    assert_pending!(response.poll());
    // A caller that has readiness, and does not call.
    let mut held = service.clone();
    ServiceExt::<Request<Full<Bytes>>>::ready(&mut held)
        .await
        .unwrap();
    let started = Instant::now();
    let error = response.await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::from_secs(30), "{error}");
    drop(held);
}

// === load_shed ===

/// One permit, which a request that hangs takes while another, that was rejected, waits for a new session.
macro_rules! replay_without_a_permit {
    ($stack:expr) => {{
        let let_go = Arc::new(Semaphore::new(0));
        let hang = let_go.clone();
        let wire = Wire::slow(move |head| {
            let answer = unless_expired(head);
            let hang = head.extensions.get::<SkipAuth>().map(|_| hang.clone());
            async move {
                if let Some(hang) = hang {
                    hang.acquire().await.unwrap().forget();
                }
                answer
            }
        });
        let gate = Arc::new(Semaphore::new(0));
        let wait = gate.clone();
        let (layer, refreshes) = layer_after(move || {
            let gate = wait.clone();
            async move { gate.acquire().await.unwrap().forget() }
        });
        let service = $stack(layer, wire.clone());
        let mut rejected = task::spawn(service.clone().oneshot(get(LIMITS)));
        while refreshes.load(Ordering::SeqCst) == 0 {
            assert_pending!(rejected.poll());
            tokio::task::yield_now().await;
        }
        let mut hanging = task::spawn(service.clone().oneshot(unauthenticated()));
        assert_pending!(hanging.poll());
        gate.add_permits(1);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let replayed = match rejected.poll() {
            Poll::Ready(replayed) => replayed,
            Poll::Pending => {
                let_go.add_permits(1);
                assert!(assert_ready!(hanging.poll()).is_ok());
                rejected.await
            }
        };
        (replayed, wire)
    }};
}

#[tokio::test(start_paused = true)]
async fn load_shed_inside_sheds_a_replay_whose_session_is_there() {
    let (replayed, wire) = replay_without_a_permit!(|layer, wire| {
        ServiceBuilder::new()
            .layer::<SalesforceAuthLayer>(layer)
            .layer(LoadShedLayer::new())
            .layer(ConcurrencyLimitLayer::new(1))
            .service::<Wire>(wire)
    });
    let error = replayed.unwrap_err();
    assert!(error.is::<Overloaded>(), "{error}");
    assert_eq!(wire.tokens(), ["T0", ""]);
}

#[tokio::test(start_paused = true)]
async fn load_shed_outside_sheds_no_replay() {
    let (replayed, wire) = replay_without_a_permit!(|layer, wire| {
        ServiceBuilder::new()
            .layer(LoadShedLayer::new())
            .layer::<SalesforceAuthLayer>(layer)
            .layer(ConcurrencyLimitLayer::new(1))
            .service::<Wire>(wire)
    });
    assert_eq!(replayed.unwrap().status(), StatusCode::OK);
    assert_eq!(wire.tokens(), ["T0", "", "T1"]);
}

#[tokio::test(start_paused = true)]
async fn load_shed_outside_of_a_limit_outside_sheds_who_would_wait_beyond_it() {
    let (layer, _, gate) = gated();
    let wire = Wire::with_expired_session();
    let service = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(10))
        .layer(layer)
        .service(wire.clone());
    let mut waiters: Vec<_> = (0..100)
        .map(|_| task::spawn(service.clone().oneshot(get(LIMITS))))
        .collect();
    let shed = waiters.split_off(10);
    for waiter in &mut waiters {
        assert_pending!(waiter.poll());
    }
    for mut waiter in shed {
        let error = assert_ready!(waiter.poll()).unwrap_err();
        assert!(error.is::<Overloaded>(), "{error}");
    }
    gate.add_permits(1);
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn load_shed_inside_sheds_those_who_waited_when_they_all_go_on() {
    let (layer, _, gate) = gated();
    let wire = Wire::slow(|head| {
        let answer = unless_expired(head);
        async move {
            sleep(Duration::from_millis(1)).await;
            answer
        }
    });
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(10))
        .service(wire.clone());
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let service = service.clone();
        callers.spawn(async move { send(&service, get(LIMITS)).await });
    }
    gate.add_permits(1);
    let answers = callers.join_all().await;
    let shed = answers.iter().filter(|answer| answer.is_err()).count();
    assert_eq!(shed, 90);
}

// === rate_limit ===

#[tokio::test(start_paused = true)]
async fn a_rate_limit_inside_counts_replays_and_one_outside_requests() {
    let per_second = RateLimitLayer::new(1, Duration::from_secs(1));

    let (layer, _) = layer();
    let wire = Wire::with_expired_session();
    let inside = ServiceBuilder::new()
        .layer(layer)
        .layer(BufferLayer::new(1))
        .layer(per_second.clone())
        .service(wire.clone());
    let started = Instant::now();
    send(&inside, get(LIMITS)).await.unwrap();
    assert_eq!(wire.calls(), 2);
    assert_eq!(started.elapsed().as_millis() / 10, 100, "the replay's turn");

    let (layer, _) = self::layer();
    let wire = Wire::with_expired_session();
    let mut outside = ServiceBuilder::new()
        .layer(per_second)
        .layer(layer)
        .service(wire.clone());
    let started = Instant::now();
    let response = ServiceExt::<Request<Full<Bytes>>>::ready(&mut outside)
        .await
        .unwrap()
        .call(get(LIMITS))
        .await;
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    assert_eq!(wire.calls(), 2, "on the wire, in no time");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

// === trace ===

type Noted = Arc<Mutex<Vec<u16>>>;

/// Notes the status of each response that passes.
macro_rules! noting {
    ($statuses:expr) => {{
        let statuses: Noted = $statuses.clone();
        TraceLayer::new_for_http().on_response(
            move |response: &Response<_>, _: Duration, _: &Span| {
                statuses.lock().unwrap().push(response.status().as_u16());
            },
        )
    }};
}

#[tokio::test]
async fn trace_inside_sees_each_attempt_and_trace_outside_one_request() {
    let (outside, inside) = (Noted::default(), Noted::default());
    let (layer, _) = layer();
    let service = ServiceBuilder::new()
        .layer(noting!(outside))
        .layer(layer)
        .layer(noting!(inside))
        .service(Wire::with_expired_session());
    send(&service, get(LIMITS)).await.unwrap();
    assert_eq!(*inside.lock().unwrap(), [401, 200]);
    assert_eq!(*outside.lock().unwrap(), [200]);
}

/// Spans and events with all headers.
macro_rules! with_headers {
    () => {
        TraceLayer::new_for_http()
            .make_span_with(DefaultMakeSpan::new().include_headers(true))
            .on_request(DefaultOnRequest::new())
            .on_response(DefaultOnResponse::new().include_headers(true))
    };
}

#[tokio::test]
async fn the_span_of_a_refresh_is_in_that_of_a_trace_outside_and_not_inside() {
    let spans = |is_outside: bool| async move {
        let (traced, _guard) = Traced::begin();
        let (layer, _) = layer_after(async || info!("at the token endpoint"));
        if is_outside {
            let service = ServiceBuilder::new()
                .layer(TraceLayer::new_for_http())
                .layer(layer)
                .service(Wire::with_expired_session());
            send(&service, get(LIMITS)).await.unwrap();
        } else {
            let service = ServiceBuilder::new()
                .layer(layer)
                .layer(TraceLayer::new_for_http())
                .service(Wire::with_expired_session());
            send(&service, get(LIMITS)).await.unwrap();
        }
        let text = traced.text();
        let mut lines = text.lines();
        lines
            .find(|line| line.contains("at the token endpoint"))
            .unwrap_or_else(|| panic!("{text}"))
            .to_owned()
    };
    let outside = spans(true).await;
    assert!(outside.contains(" request{"), "{outside}");
    assert!(outside.contains(":salesforce.refresh{"), "{outside}");
    let inside = spans(false).await;
    assert!(!inside.contains(" request{"), "{inside}");
    assert!(inside.contains(" salesforce.refresh{"), "{inside}");
}

// === sensitive_headers ===

#[tokio::test]
async fn what_the_layer_adds_is_marked_as_sensitive_without_another_layer() {
    let wire = Wire::with_expired_session();
    let (layer, _) = layer();
    let service = ServiceBuilder::new().layer(layer).service(wire.clone());
    for (path, content_type) in [
        (LIMITS, "application/json"),
        ("/services/async/66.0/job", "application/json"),
        ("/eventbus.v1.PubSub/GetTopic", "application/grpc"),
    ] {
        let request = Request::post(path)
            .header("content-type", content_type)
            .header("x-own", "secret of the caller")
            .body(Full::<Bytes>::default())
            .unwrap();
        send(&service, request).await.unwrap();
    }
    let mut found = Vec::new();
    for head in wire.seen() {
        for (name, value) in &head.headers {
            let is_ours = !["content-type", "x-own"].contains(&name.as_str());
            assert_eq!(value.is_sensitive(), is_ours, "{name}");
            found.push(name.to_string());
        }
    }
    for name in [
        "authorization",
        "x-sfdc-session",
        "accesstoken",
        "instanceurl",
    ] {
        assert!(
            found.iter().any(|found| found == name),
            "{name} in {found:?}"
        );
    }
}

#[tokio::test]
async fn what_the_caller_brings_is_marked_by_a_layer_outside_of_the_trace() {
    let traced = |is_marked_first: bool| async move {
        let (traced, _guard) = Traced::begin();
        let sensitive = SetSensitiveRequestHeadersLayer::new([COOKIE, AUTHORIZATION]);
        let (layer, _) = layer();
        let wire = Wire::with_expired_session();
        let mut request = get(LIMITS);
        let cookie = HeaderValue::from_static("sid=of-the-caller");
        request.headers_mut().insert(COOKIE, cookie);
        if is_marked_first {
            let service = ServiceBuilder::new()
                .layer(sensitive)
                .layer(layer)
                .layer(with_headers!())
                .service(wire.clone());
            send(&service, request).await.unwrap();
        } else {
            let service = ServiceBuilder::new()
                .layer(layer)
                .layer(with_headers!())
                .layer(sensitive)
                .service(wire.clone());
            send(&service, request).await.unwrap();
        }
        assert_eq!(wire.tokens(), ["T0", "T1"]);
        // The replay's is marked too.
        for head in wire.seen() {
            assert!(head.headers[COOKIE].is_sensitive());
        }
        traced.text()
    };
    let text = traced(true).await;
    assert_eq!(text.matches("of-the-caller").count(), 0, "{text}");
    assert!(text.contains(r#""cookie": Sensitive"#), "{text}");
    assert!(text.contains(r#""authorization": Sensitive"#), "{text}");
    let text = traced(false).await;
    assert!(text.contains("of-the-caller"), "{text}");
    assert!(!text.contains("Bearer"), "{text}");
}

#[tokio::test]
async fn what_the_server_sets_is_marked_by_a_layer_inside_of_the_trace() {
    let traced = |is_marked_first: bool| async move {
        let (traced, _guard) = Traced::begin();
        let sensitive = SetSensitiveResponseHeadersLayer::new([SET_COOKIE]);
        let (layer, _) = layer();
        let wire = Wire::new(|head| {
            let mut answer = unless_expired(head);
            let cookie = HeaderValue::from_static("sid=of-the-server");
            answer.headers_mut().insert(SET_COOKIE, cookie);
            answer
        });
        if is_marked_first {
            let service = ServiceBuilder::new()
                .layer(layer)
                .layer(with_headers!())
                .layer(sensitive)
                .service(wire);
            send(&service, get(LIMITS)).await.unwrap();
        } else {
            let service = ServiceBuilder::new()
                .layer(sensitive)
                .layer(layer)
                .layer(with_headers!())
                .service(wire);
            send(&service, get(LIMITS)).await.unwrap();
        }
        traced.text()
    };
    let text = traced(true).await;
    assert!(text.contains(r#""set-cookie": Sensitive"#), "{text}");
    assert!(!text.contains("of-the-server"), "{text}");
    let text = traced(false).await;
    assert!(text.contains("of-the-server"), "{text}");
}

// === follow_redirect ===

/// The instance sends `/away` to a foreign host, and `/moved` elsewhere on itself. The foreign host accepts no session.
fn redirecting() -> Wire {
    Wire::new(|head| match (head.uri.host(), head.uri.path()) {
        (Some("example.my.salesforce.com"), path) if path.ends_with("/away") => {
            redirect("https://elsewhere.example.com/services/data/")
        }
        (Some("example.my.salesforce.com"), "/moved") => redirect("/services/data/v66.0/limits"),
        (Some("example.my.salesforce.com"), _) => unless_expired(head),
        _ => answer(StatusCode::UNAUTHORIZED, "who are you?"),
    })
}

fn hops(wire: &Wire) -> Vec<String> {
    let seen = wire.seen();
    let hops = seen.iter().map(|head| {
        let headers = &head.headers;
        let session = headers.get(AUTHORIZATION).or(headers.get("x-sfdc-session"));
        let session = session.map_or("none", |session| session.to_str().unwrap());
        format!("{} {session}", head.uri.host().unwrap_or("?"))
    });
    hops.collect()
}

#[tokio::test]
async fn follow_redirect_outside_needs_absolute_uris() {
    let wire = redirecting();
    let (layer, _) = layer();
    let service = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(layer)
        .service(wire.clone());
    // It resolves what it follows against the URI that it was given, and gets none from this.
    for path in ["/moved", "/away"] {
        let response = send(&service, get(path)).await.unwrap();
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    }
    assert_eq!(wire.calls(), 2);

    let uri = format!("{INSTANCE}/moved");
    let response = send(&service, get(&uri)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(attempts(&response), Some(2));
    let instance = "example.my.salesforce.com";
    assert_eq!(
        hops(&wire)[2..],
        [
            format!("{instance} Bearer T0"),
            format!("{instance} Bearer T0"),
            format!("{instance} Bearer T1")
        ]
    );
}

#[tokio::test]
async fn follow_redirect_outside_is_given_no_session_for_a_foreign_host() {
    for path in ["/away", "/services/async/66.0/job/away"] {
        let wire = redirecting();
        let (layer, refreshes) = layer();
        let service = ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(layer)
            .service(wire.clone());
        let uri = format!("{INSTANCE}{path}");
        let response = send(&service, get(&uri)).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(hops(&wire)[1..], ["elsewhere.example.com none"]);
        assert_eq!(refreshes.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn follow_redirect_inside_takes_relative_uris_and_drops_authorization() {
    let wire = redirecting();
    let (layer, refreshes) = layer();
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(FollowRedirectLayer::new())
        .service(wire.clone());
    let response = send(&service, get("/away")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(hops(&wire)[1..], ["elsewhere.example.com none"]);
    assert_eq!(refreshes.load(Ordering::SeqCst), 0, "by its feature");

    let response = send(&service, get("/moved")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn follow_redirect_outside_keeps_whose_request_it_is() {
    let instance = "https://tenant.my.salesforce.com";
    let tenant = SessionHandle::fixed(Session::new("tenant", instance).unwrap());
    let request = || marked(get(&format!("{instance}/moved")), tenant.clone());
    let wire = || {
        Wire::new(|head| match head.uri.path() {
            "/moved" => redirect(LIMITS),
            _ => unless_expired(head),
        })
    };
    let (layer, _) = layer();
    let follow = |wire: &Wire, follow: FollowRedirectLayer| {
        let stack = ServiceBuilder::new().layer(follow).layer(&layer);
        stack.service(wire.clone())
    };

    let kept = wire();
    let service = follow(&kept, FollowRedirectLayer::new());
    send(&service, request()).await.unwrap();
    assert_eq!(kept.tokens(), ["tenant", "tenant"]);

    // The handle is an extension. Without it the hop goes to a host that is none of the layer's own session's.
    let dropped = wire();
    let service = follow(
        &dropped,
        FollowRedirectLayer::new().preserve_extensions(false),
    );
    send(&service, request()).await.unwrap();
    assert_eq!(dropped.tokens(), ["tenant", ""]);
}

/// Removes the extension that the feature `follow-redirect` reads, as if the feature were off.
#[tokio::test]
async fn follow_redirect_inside_without_the_feature_costs_a_refresh_for_a_foreign_401() {
    let wire = redirecting();
    let (layer, refreshes) = layer();
    let service = ServiceBuilder::new()
        .layer(layer)
        .map_response(|mut response: Answer| {
            response.extensions_mut().remove::<RequestUri>();
            response
        })
        .layer(FollowRedirectLayer::new())
        .service(wire.clone());
    let response = send(&service, get("/away")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refreshes.load(Ordering::SeqCst), 1, "for nothing");
}

#[tokio::test]
async fn follow_redirect_inside_repeats_the_proof_of_a_bound_session_at_any_host() {
    for path in ["/moved", "/away"] {
        let wire = redirecting();
        let service = ServiceBuilder::new()
            .layer(bound_layer())
            .layer(FollowRedirectLayer::new())
            .service(wire.clone());
        send(&service, get(path)).await.unwrap();
        assert_eq!(proofs(&wire), (2, 1), "{path}");
    }
}

#[tokio::test]
async fn follow_redirect_inside_takes_a_session_that_is_elsewhere_to_a_foreign_host() {
    let wire = redirecting();
    let (layer, _) = layer();
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(FollowRedirectLayer::new())
        .service(wire.clone());
    let job = get("/services/async/66.0/job/away");
    send(&service, job).await.unwrap();
    assert_eq!(hops(&wire)[1..], ["elsewhere.example.com T0"]);
}

// === decompression ===

const INCURABLE: &str = r#"[{"message":"This session is not valid for use with the REST API","errorCode":"INVALID_SESSION_ID"}]"#;
const BULK: &str = "<?xml version=\"1.0\"?><error xmlns=\"http://www.force.com/2009/06/asyncapi/dataload\"><exceptionCode>InvalidSessionId</exceptionCode></error>";
const FAULT: &str = "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"><soapenv:Body><soapenv:Fault><faultcode>sf:INVALID_SESSION_ID</faultcode></soapenv:Fault></soapenv:Body></soapenv:Envelope>";

/// Each API's way to say that the session has ended, and one that says more. All are longer than what is compressed.
fn of_all_apis() -> Wire {
    Wire::new(|head| {
        let session = head.headers.get("x-sfdc-session");
        let has_expired = token(head) == "T0" || session.is_some_and(|token| token == "T0");
        let (status, text) = match head.uri.path() {
            // gzip stores text without repetitions as it is, so that it stays readable.
            "/incurable" => return answer(StatusCode::UNAUTHORIZED, INCURABLE.repeat(3)),
            _ if !has_expired => (200, "ok"),
            "/services/async/66.0/job" => (400, BULK),
            "/services/Soap/u/64.0" => (500, FAULT),
            "/services/oauth2/userinfo" => (403, "Bad_OAuth_Token\n                    "),
            _ => (401, EXPIRED),
        };
        answer(StatusCode::from_u16(status).unwrap(), text)
    })
}

#[derive(Debug, PartialEq)]
struct Found {
    status: u16,
    refreshes: usize,
    skipped: Option<ReplaySkipped>,
}

macro_rules! found {
    ($path:expr, |$layer:ident, $wire:ident| $service:expr) => {{
        let ($layer, refreshes) = layer();
        let $wire = CompressionLayer::new().layer(of_all_apis());
        let response = send(&$service, get($path)).await.unwrap();
        Found {
            status: response.status().as_u16(),
            refreshes: refreshes.load(Ordering::SeqCst),
            skipped: skipped(&response),
        }
    }};
}

async fn decompressed_inside(path: &str) -> Found {
    found!(path, |layer, wire| ServiceBuilder::new()
        .layer(layer)
        .layer(DecompressionLayer::new())
        .service(wire))
}

async fn decompressed_outside(path: &str) -> Found {
    found!(path, |layer, wire| ServiceBuilder::new()
        .layer(DecompressionLayer::new())
        .layer(layer)
        .service(wire))
}

async fn never_compressed(path: &str) -> Found {
    found!(path, |layer, wire| layer.layer(wire))
}

const REPLAYED: Found = Found {
    status: 200,
    refreshes: 1,
    skipped: None,
};

#[tokio::test]
async fn decompression_inside_lets_the_layer_read_every_rejection() {
    for path in [
        LIMITS,
        "/services/async/66.0/job",
        "/services/Soap/u/64.0",
        "/services/oauth2/userinfo",
    ] {
        assert_eq!(decompressed_inside(path).await, REPLAYED, "{path}");
        assert_eq!(never_compressed(path).await, REPLAYED, "{path}");
    }
    let incurable = Found {
        status: 401,
        refreshes: 0,
        skipped: Some(ReplaySkipped::Incurable),
    };
    assert_eq!(decompressed_inside("/incurable").await, incurable);
    assert_eq!(never_compressed("/incurable").await, incurable);
}

/// The layer reads gzip by itself.
#[tokio::test]
async fn decompression_outside_lets_the_layer_read_gzip() {
    for path in [
        LIMITS,
        "/services/async/66.0/job",
        "/services/Soap/u/64.0",
        "/services/oauth2/userinfo",
    ] {
        assert_eq!(decompressed_outside(path).await, REPLAYED, "{path}");
    }
    let incurable = Found {
        status: 401,
        refreshes: 0,
        skipped: Some(ReplaySkipped::Incurable),
    };
    assert_eq!(decompressed_outside("/incurable").await, incurable);
}

#[tokio::test]
async fn only_decompression_asks_for_gzip_on_either_side() {
    let asked = |wire: &Wire| -> Vec<Option<String>> {
        let seen = wire.seen();
        let asked = seen.iter().map(|head| head.headers.get(ACCEPT_ENCODING));
        asked
            .map(|asked| Some(asked?.to_str().unwrap().to_owned()))
            .collect()
    };
    let (layer, _) = layer();
    let wire = Wire::with_expired_session();
    send(&layer.layer(wire.clone()), get(LIMITS)).await.unwrap();
    assert_eq!(asked(&wire), [None, None]);

    let (layer, _) = self::layer();
    let wire = Wire::with_expired_session();
    let inside = layer.layer(DecompressionLayer::new().layer(wire.clone()));
    send(&inside, get(LIMITS)).await.unwrap();
    assert_eq!(
        asked(&wire),
        [Some("gzip".to_owned()), Some("gzip".to_owned())]
    );

    let (layer, _) = self::layer();
    let wire = Wire::with_expired_session();
    let outside = DecompressionLayer::new().layer(layer.layer(wire.clone()));
    send(&outside, get(LIMITS)).await.unwrap();
    assert_eq!(
        asked(&wire),
        [Some("gzip".to_owned()), Some("gzip".to_owned())]
    );
}

/// A body that says when it was read to its end.
struct Watched<B>(B, Arc<AtomicBool>);

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.0).poll_frame(cx);
        if let Poll::Ready(None) = polled {
            self.1.store(true, Ordering::SeqCst);
        }
        polled
    }
}

/// R29: only a body that is read to its end gives its connection back.
#[tokio::test]
async fn decompression_inside_reads_a_rejection_to_the_end_of_what_was_compressed() {
    let (layer, _) = layer();
    let ended = Arc::new(AtomicBool::new(false));
    let watching = ended.clone();
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(DecompressionLayer::new())
        .map_response(move |response: Response<_>| {
            response.map(|body| Watched(body, watching.clone()))
        })
        .layer(CompressionLayer::new())
        .service(of_all_apis());
    let response = send(&service, get(LIMITS)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(ended.load(Ordering::SeqCst), "that of the rejection");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "ok");
}
