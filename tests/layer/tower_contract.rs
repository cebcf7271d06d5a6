//! The contract of tower: readiness before each call, for each clone, and no permit held while waiting (R20).

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::{task::JoinSet, time::timeout};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt, buffer::BufferLayer, limit::ConcurrencyLimitLayer,
    load_shed::LoadShedLayer,
};
use tower_salesforce_auth::{
    BoxError, LiveSession, RefreshContext, RefreshError, ReplayBody, SalesforceAuth,
    SalesforceAuthLayer, Secret, Session, SessionHandle, Sessions,
    emulator::Org,
    flow,
    handle::{SessionState, Subscription},
    layer::{ResponseBody, ResponseFuture},
    oauth,
    request::{AuthOutcome, BodyFactory, SkipAuth},
    store,
    verdict::SalesforceClassifier,
};

use crate::support::{Api, Refresher, Strict, get, post, send, session};

/// Rejects the first attempt of each request with any token, and accepts the second.
#[derive(Clone)]
struct EveryOther {
    api: Api,
    calls: Arc<AtomicUsize>,
}

impl<B> Service<Request<B>> for EveryOther
where
    Api: Service<Request<B>, Response = Response<Full<Bytes>>, Error = BoxError>,
{
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = <Api as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if call.is_multiple_of(2) {
            // The session expires with each request.
            self.api.accept("nothing");
        }
        self.api.call(request)
    }
}

/// Sends 100 requests one after the other. Each needs a refresh and a replay.
async fn a_hundred<S, B>(refresher: &Refresher, service: S)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
{
    for n in 1..=100 {
        let response = send(&service, post("/services/data/", "body"))
            .await
            .map_err(Into::into);
        assert_eq!(response.unwrap().status(), StatusCode::OK);
        assert_eq!(refresher.count(), n);
    }
}

#[tokio::test]
async fn r20_every_call_follows_its_own_poll_ready() {
    let api = Api::accepting("T0");
    let refresher = Refresher::of(&api);
    let inner = EveryOther {
        api: api.clone(),
        calls: Arc::default(),
    };
    let strict = Strict::new(inner.clone());
    a_hundred(&refresher, refresher.layer().layer(strict.clone())).await;
    assert_eq!(api.calls(), 200);

    // Limits and buffers stand inside and outside of the layer.
    macro_rules! stack {
        ($($layer:expr),*) => {{
            let refresher = Refresher::of(&api);
            let stack = ServiceBuilder::new()$(.layer($layer))*;
            let inside = refresher.layer().layer(stack.service(strict.clone()));
            a_hundred(&refresher, inside).await;

            let refresher = Refresher::of(&api);
            let stack = ServiceBuilder::new()$(.layer($layer))*;
            let outside = stack.layer(refresher.layer()).service(strict.clone());
            a_hundred(&refresher, outside).await;
        }};
    }
    stack!(ConcurrencyLimitLayer::new(1));
    stack!(BufferLayer::new(1));
    stack!(LoadShedLayer::new());
    stack!(BufferLayer::new(1), ConcurrencyLimitLayer::new(1));
    stack!(LoadShedLayer::new(), ConcurrencyLimitLayer::new(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r20_concurrent_callers_share_one_permit_without_a_deadlock() {
    let api = Api::accepting("nothing yet");
    let refresher = Refresher::of(&api);
    let limited = ServiceBuilder::new()
        .layer(BufferLayer::new(1))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(Strict::new(api.clone()));
    let service = refresher.layer().layer(limited);
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let service = service.clone();
        callers.spawn(async move { send(&service, get("/")).await.unwrap().status() });
    }
    assert!(callers.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(refresher.count(), 1);
}

/// Sends a request by the very service that is ready, not by a clone.
async fn call<S, B>(service: &mut S) -> Response<B>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: std::fmt::Debug>,
{
    poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    service.call(get("/")).await.unwrap()
}

#[tokio::test]
async fn r20_no_permit_is_held_while_waiting_for_a_session() {
    // The login needs the permit that its requests wait for.
    let api = Api::accepting("T1");
    let limited = ServiceBuilder::new()
        .layer(ConcurrencyLimitLayer::new(1))
        .service(Strict::new(api.clone()));
    let login = limited.clone();
    let layer = SalesforceAuthLayer::new(move |_: RefreshContext| {
        let login = login.clone();
        async move {
            let answer = send(&login, get("https://login.salesforce.com/")).await;
            answer.map_err(RefreshError::transient)?;
            Ok(session("T1"))
        }
    });
    let mut service = layer.layer(limited);

    // The caller keeps its service and sends one request after another.
    let response = call(&mut service).await;
    assert_eq!(response.status(), StatusCode::OK);
    layer.handle().set(session("T0"));
    let response = call(&mut service).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["", "T1", "T0", "", "T1"]);
}

#[tokio::test]
async fn r20_a_session_rejected_during_readiness_is_not_sent() {
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let layer = refresher.layer_without_session();
    let handle = layer.handle();
    let (mock, mut server) =
        tower_test::mock::pair::<Request<ReplayBody<Full<Bytes>>>, Response<Full<Bytes>>>();
    server.allow(1);
    let mut service = layer.layer(mock);
    poll_fn(|cx| Service::<Request<Full<Bytes>>>::poll_ready(&mut service, cx))
        .await
        .unwrap();
    let answer = service.call(get("/"));
    let mut answer = tokio_test::task::spawn(answer);
    // The request logs in, and then waits for the service, whose only permit is taken.
    while refresher.count() == 0 || handle.try_session().is_none() {
        assert!(answer.poll().is_pending());
        tokio::task::yield_now().await;
    }
    server.allow(0);
    assert!(answer.poll().is_pending());
    // Meanwhile another request invalidates the session.
    handle.invalidate(handle.try_session().unwrap().generation());
    server.allow(2);
    assert!(answer.poll().is_pending());
    tokio_test::assert_pending!(server.poll_request(), "a dead session was sent");
    while handle.try_session().is_none() {
        tokio::task::yield_now().await;
    }
    assert!(answer.poll().is_pending());
    let (request, respond) = server.next_request().await.unwrap();
    assert_eq!(request.headers()["authorization"], "Bearer T2");
    respond.send_response(Response::new(Full::default()));
    assert!(tokio_test::assert_ready!(answer.poll()).is_ok());
}

#[tokio::test]
async fn r20_poll_ready_is_that_of_the_inner_service() {
    let (mock, mut server) =
        tower_test::mock::pair::<Request<ReplayBody<Full<Bytes>>>, Response<Full<Bytes>>>();
    let layer = SalesforceAuthLayer::fixed(session("T0"));
    let mut service = tokio_test::task::spawn(layer.layer(mock));
    server.allow(0);
    let poll_ready = |service: &mut tokio_test::task::Spawn<SalesforceAuth<_>>| {
        service
            .enter(|cx, mut service| Service::<Request<Full<Bytes>>>::poll_ready(&mut *service, cx))
    };
    assert!(poll_ready(&mut service).is_pending());
    server.allow(1);
    assert!(service.is_woken());
    assert!(matches!(poll_ready(&mut service), Poll::Ready(Ok(()))));
    server.send_error(std::io::Error::other("unplugged"));
    let mut clone = layer.layer(service.get_ref().clone());
    let error = poll_fn(|cx| Service::<Request<Full<Bytes>>>::poll_ready(&mut clone, cx)).await;
    assert_eq!(error.unwrap_err().to_string(), "unplugged");
}

#[tokio::test]
async fn r20_a_readiness_error_before_a_replay_is_returned() {
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let (layer, started, finish) = refresher.gated_layer();
    let (mock, mut server) =
        tower_test::mock::pair::<Request<ReplayBody<Full<Bytes>>>, Response<Full<Bytes>>>();
    let mut service = layer.layer(mock);
    server.allow(1);
    poll_fn(|cx| Service::<Request<Full<Bytes>>>::poll_ready(&mut service, cx))
        .await
        .unwrap();
    let mut answer = tokio_test::task::spawn(service.call(get("/")));
    assert!(answer.poll().is_pending());
    let (_, respond) = server.next_request().await.unwrap();
    respond.send_response(crate::support::expired());
    assert!(answer.poll().is_pending());
    started.notified().await;
    server.send_error(std::io::Error::other("unplugged"));
    finish.notify_one();
    let error = answer.await.unwrap_err();
    assert_eq!(error.to_string(), "unplugged");
}

/// Writes its name into each request.
#[derive(Clone)]
struct Named {
    name: &'static str,
    api: Api,
}

impl<B> Service<Request<B>> for Named
where
    Api: Service<Request<B>, Response = Response<Full<Bytes>>, Error = BoxError>,
{
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = <Api as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.api.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let name = HeaderValue::from_static(self.name);
        request.headers_mut().insert("x-sent-by", name);
        self.api.call(request)
    }
}

#[tokio::test]
async fn a_replay_is_sent_by_a_clone_of_the_changed_service() {
    let api = Api::accepting("T0");
    let mut service = Refresher::of(&api).layer().layer(Named {
        name: "first",
        api: api.clone(),
    });
    let mut clone = service.clone();
    call(&mut service).await;
    service.get_mut().name = "second";
    for (service, name) in [(&mut service, "second"), (&mut clone, "first")] {
        api.accept("nothing");
        call(service).await;
        let seen = api.seen();
        let [.., rejected, replayed] = &seen[..] else {
            panic!("{} requests", seen.len());
        };
        assert_eq!(rejected.headers["x-sent-by"], name);
        assert_eq!(replayed.headers["x-sent-by"], name);
    }
    assert_eq!(api.calls(), 5);
}

#[tokio::test]
async fn a_retry_layer_outside_sees_one_response_per_request() {
    // A retry layer outside must not count a replay as an attempt of its own.
    #[derive(Clone)]
    struct Count(Arc<AtomicUsize>);
    impl<Req, Res> tower::retry::Policy<Req, Response<Res>, BoxError> for Count {
        type Future = std::future::Ready<()>;
        fn retry(
            &mut self,
            _: &mut Req,
            result: &mut Result<Response<Res>, BoxError>,
        ) -> Option<Self::Future> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let response = result.as_ref().unwrap();
            assert_eq!(
                response
                    .extensions()
                    .get::<AuthOutcome>()
                    .unwrap()
                    .attempts(),
                2
            );
            None
        }
        fn clone_request(&mut self, _: &Req) -> Option<Req> {
            None
        }
    }
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let seen = Arc::new(AtomicUsize::new(0));
    let service = ServiceBuilder::new()
        .retry(Count(seen.clone()))
        .layer(refresher.layer())
        .service(api);
    // A request that cannot be cloned is not retried, and the policy does not see its response.
    let response = send(&service, get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(seen.load(Ordering::SeqCst), 0);
}

#[test]
fn public_types_are_send_sync_and_clone() {
    fn is_send_sync<T: Send + Sync + 'static>() {}
    fn is_clone<T: Clone>() {}
    fn is_send<T: Send + 'static>() {}
    fn is_unpin<T: Unpin>() {}
    type Inner = Strict<Api>;
    is_send_sync::<SalesforceAuthLayer>();
    is_send_sync::<SalesforceAuth<Inner>>();
    is_send_sync::<SessionHandle>();
    is_send_sync::<Session>();
    is_send_sync::<ReplayBody<Full<Bytes>>>();
    is_send_sync::<ResponseBody<Full<Bytes>>>();
    is_send_sync::<tower_salesforce_auth::Error>();
    is_send_sync::<RefreshError>();
    is_clone::<SalesforceAuth<Inner>>();
    is_clone::<tower_salesforce_auth::Error>();
    is_clone::<RefreshError>();
    is_send::<ResponseFuture<Inner, Full<Bytes>, Full<Bytes>>>();
    is_send_sync::<BodyFactory<std::cell::Cell<u8>>>();
    is_clone::<BodyFactory<std::cell::Cell<u8>>>();
    is_send_sync::<Secret>();
    is_send_sync::<LiveSession>();
    is_send_sync::<SessionState>();
    is_send_sync::<Subscription>();
    is_send_sync::<AuthOutcome>();
    is_send_sync::<RefreshContext>();
    is_send_sync::<Sessions<String>>();
    is_send_sync::<SalesforceClassifier>();
    is_send_sync::<store::StoreError>();
    is_send_sync::<store::MemoryStore>();
    is_send_sync::<store::FileStore>();
    is_send_sync::<store::EncryptionKey>();
    is_send_sync::<store::Record>();
    is_send_sync::<oauth::App>();
    is_send_sync::<oauth::PrivateKey>();
    is_send_sync::<oauth::ClientAuthentication>();
    is_send_sync::<oauth::AuthorizationRequest>();
    is_send_sync::<oauth::Callback>();
    is_send_sync::<oauth::TokenResponse>();
    is_send_sync::<flow::AuthorizationCode<Org>>();
    is_send_sync::<flow::ClientCredentials<Org>>();
    is_send_sync::<flow::DeviceAuthorization<Org>>();
    is_send_sync::<flow::ExtensionGrant<Org>>();
    is_send_sync::<flow::JwtBearer<Org>>();
    is_send_sync::<flow::RefreshToken<Org>>();
    is_send_sync::<flow::SamlBearer<Org>>();
    is_send_sync::<flow::SoapLogin<Org>>();
    is_send_sync::<flow::TokenExchange<Org>>();
    is_send_sync::<flow::UsernamePassword<Org>>();
    is_unpin::<ReplayBody<Full<Bytes>>>();
    is_unpin::<ResponseBody<Full<Bytes>>>();
    // A waiting request takes little memory.
    assert!(size_of::<ResponseFuture<Inner, Full<Bytes>, Full<Bytes>>>() <= 512);
}

#[test]
fn public_futures_are_send() {
    fn is_send(_: impl Send) {}
    let org = Org::new();
    let handle = SessionHandle::fixed(session("T0"));
    let app = oauth::App::new(tower_salesforce_auth::LoginUrl::production(), "client");
    is_send(handle.session());
    is_send(handle.refresh());
    is_send(handle.save());
    is_send(handle.logout(org.clone()));
    is_send(handle.logout_and_revoke(org.clone()));
    is_send(handle.subscribe().changed());
    is_send(flow::DeviceAuthorization::new(org, app).begin());
}

/// A request that fails before it is sent returns its permit.
#[tokio::test(start_paused = true)]
async fn r20_a_request_that_fails_at_once_returns_its_permit() {
    let layer = SalesforceAuthLayer::new(async |_: RefreshContext| Ok(session("T1")));
    let mut one = layer.layer(tower::limit::ConcurrencyLimit::new(Api::accepting("T1"), 1));
    let mut other = one.clone();
    let mut request = get("/relative");
    request.extensions_mut().insert(SkipAuth);
    assert!(
        ServiceExt::<Request<Full<Bytes>>>::ready(&mut one)
            .await
            .unwrap()
            .call(request)
            .await
            .is_err()
    );
    assert!(
        timeout(
            Duration::from_secs(60),
            ServiceExt::<Request<Full<Bytes>>>::ready(&mut other)
        )
        .await
        .is_ok(),
        "the permit is held by a service at rest"
    );
}
