//! The example `axum_proxy`: a reverse proxy that adds the session.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client, server};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{Barrier, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_salesforce_auth::{
    BoxError, RefreshContext, RefreshError, SalesforceAuthLayer, Session, SessionHandle,
    emulator::{Fault, Org},
    flow::RefreshToken,
    https::HttpsClient,
    oauth::App,
};

use crate::proxy::{Rules, router};

const KEY: &str = "the key of the proxy";
const LIMITS: &str = "/services/data/v66.0/limits";
const ECHO: &str = "/services/data/v66.0/echo";
const MIB: usize = 1024 * 1024;

/// The wait for a piece, at most.
const LONG: Duration = Duration::from_secs(60);

// === Proxies ===

fn rules() -> Rules {
    Rules::new(KEY)
}

/// A proxy before this org, without a socket between them.
fn before(org: &Org, rules: Rules) -> Router {
    router(refreshing(org).layer(org.clone()), rules)
}

/// A layer with a session of the org, which refreshes it in process.
fn refreshing(org: &Org) -> SalesforceAuthLayer {
    let session = |org: &Org| {
        let grant = org.authorize();
        Session::new(grant.access_token(), grant.instance_url()).unwrap()
    };
    let first = session(org);
    let org = org.clone();
    let refresh = move |_: RefreshContext| {
        let next = session(&org);
        async move { Ok::<_, RefreshError>(next) }
    };
    SessionHandle::builder(refresh)
        .initial_session(first)
        .build()
        .into()
}

/// A proxy before an upstream function, with a session that never expires.
fn before_fn<F, R>(answer: F, rules: Rules) -> Router
where
    F: Fn(http::Request<Body>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response> + Send + 'static,
{
    let upstream = service_fn(move |request: http::Request<_>| {
        let answer = answer(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    router(
        lasting("https://example.my.salesforce.com").layer(upstream),
        rules,
    )
}

fn lasting(instance_url: &str) -> SalesforceAuthLayer {
    SalesforceAuthLayer::fixed(Session::new("00Dxx!live", instance_url).unwrap())
}

/// A request with the key.
fn request(method: Method, uri: &str, body: impl Into<Body>) -> Request {
    let request = Request::builder().method(method).uri(uri);
    let request = request.header("x-api-key", KEY);
    request.body(body.into()).unwrap()
}

fn get(uri: &str) -> Request {
    request(Method::GET, uri, Body::empty())
}

async fn send(proxy: &Router, request: Request) -> Response {
    proxy.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn error_code(response: Response) -> String {
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert!(body[0]["message"].is_string());
    body[0]["errorCode"].as_str().unwrap().to_owned()
}

async fn serve(router: Router) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, serving)
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector
}

/// Sends a request over HTTP/1.1 through a pipe in memory. Only the two ends buffer data, and nothing depends on the system's
/// clock.
async fn through_a_pipe<B>(
    to: Router,
    request: http::Request<B>,
) -> Result<http::Response<Incoming>, hyper::Error>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let (here, there) = tokio::io::duplex(64 * 1_024);
    let server = server::conn::http1::Builder::new();
    tokio::spawn(server.serve_connection(TokioIo::new(there), TowerToHyperService::new(to)));
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(here)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}

/// A proxy with a pipe to this upstream.
fn before_a_pipe(upstream: Router, rules: Rules) -> Router {
    let upstream = service_fn(move |request| through_a_pipe(upstream.clone(), request));
    router(
        lasting("https://example.my.salesforce.com").layer(upstream),
        rules,
    )
}

/// A proxy on loopback before this upstream on loopback, and a client of it.
async fn chain(upstream: Router) -> (String, JoinSet<()>) {
    let (upstream_url, mut serving) = serve(upstream).await;
    let http = Client::builder(TokioExecutor::new()).build(connector());
    let (url, mut proxy) = serve(router(lasting(&upstream_url).layer(http), rules())).await;
    serving.spawn(async move { while proxy.join_next().await.is_some() {} });
    (url, serving)
}

async fn send_over(url: &str, mut request: Request) -> Response {
    let client = Client::builder(TokioExecutor::new()).build(connector());
    let path = request.uri().path_and_query().unwrap().clone();
    *request.uri_mut() = format!("{url}{path}").parse().unwrap();
    client.request(request).await.unwrap().map(Body::new)
}

/// A body of the pieces that the sender sends.
fn pieces() -> (mpsc::Sender<Bytes>, Body) {
    let (pieces, mut coming) = mpsc::channel::<Bytes>(1);
    let coming =
        stream::poll_fn(move |cx| coming.poll_recv(cx).map(|it| it.map(Ok::<_, Infallible>)));
    (pieces, Body::from_stream(coming))
}

async fn next_piece(body: &mut Body) -> Option<Bytes> {
    let frame = body.frame().await?;
    Some(frame.unwrap().into_data().unwrap())
}

// === Streaming ===

#[tokio::test]
async fn a_request_body_arrives_while_it_is_sent() {
    let (arrived, mut arriving) = mpsc::channel(1);
    let upstream = Router::new().fallback(move |request: Request| {
        let arrived = arrived.clone();
        async move {
            let mut body = request.into_body();
            while let Some(piece) = next_piece(&mut body).await {
                arrived.send(piece).await.unwrap();
            }
            "done"
        }
    });
    let (url, _serving) = chain(upstream).await;
    let (pieces, body) = pieces();
    let response = tokio::spawn(async move {
        let request = request(
            Method::PUT,
            "/services/data/v66.0/jobs/ingest/1/batches",
            body,
        );
        text(send_over(&url, request).await).await
    });
    for piece in ["first", "second", "last"] {
        pieces.send(piece.into()).await.unwrap();
        // The next piece is sent after this one has arrived.
        let arrived = timeout(LONG, arriving.recv()).await.expect("a piece");
        assert_eq!(arrived.unwrap(), piece);
    }
    drop(pieces);
    assert_eq!(response.await.unwrap(), "done");
}

#[tokio::test]
async fn a_response_body_arrives_while_it_is_made() {
    let (pieces, body) = pieces();
    let body = Arc::new(Mutex::new(Some(body)));
    let upstream =
        Router::new().fallback(move || async move { body.lock().unwrap().take().unwrap() });
    let (url, _serving) = chain(upstream).await;
    let response = timeout(LONG, send_over(&url, get(LIMITS))).await;
    let mut response = response.expect("a head").into_body();
    for piece in ["first", "second", "last"] {
        pieces.send(piece.into()).await.unwrap();
        let arrived = timeout(LONG, next_piece(&mut response)).await;
        assert_eq!(arrived.expect("a piece").unwrap(), piece);
    }
    drop(pieces);
    assert!(next_piece(&mut response).await.is_none());
}

/// The lead of the sender of a body over its receiver.
#[derive(Default)]
struct Lead {
    made: AtomicU64,
    taken: AtomicU64,
    furthest: AtomicU64,
}

const TOTAL: usize = 256;

impl Lead {
    /// A body of `TOTAL` pieces of one MiB, each made at the poll for it.
    fn make(self: &Arc<Self>) -> Body {
        let this = Arc::clone(self);
        let piece = Bytes::from(vec![b'x'; MIB]);
        Body::from_stream(stream::iter((0..TOTAL).map(move |_| {
            let made = this.made.fetch_add(MIB as u64, Ordering::SeqCst) + MIB as u64;
            let lead = made - this.taken.load(Ordering::SeqCst);
            this.furthest.fetch_max(lead, Ordering::SeqCst);
            Ok::<_, Infallible>(piece.clone())
        })))
    }

    /// Reads the whole body, and before each MiB waits until all other tasks are idle: the paused clock advances only then.
    async fn take(&self, mut body: Body) {
        let mut until_pause = 0;
        while let Some(piece) = next_piece(&mut body).await {
            self.taken.fetch_add(piece.len() as u64, Ordering::SeqCst);
            until_pause += piece.len();
            if until_pause >= MIB {
                until_pause = 0;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    fn assert_bounded(&self) {
        assert_eq!(self.taken.load(Ordering::SeqCst), (TOTAL * MIB) as u64);
        // There are four ends of connections on the path, each with a buffer of some 400 KiB, and the piece that the first
        // one is writing.
        let furthest = self.furthest.load(Ordering::SeqCst);
        assert!(furthest <= 4 * MIB as u64, "{furthest} bytes were buffered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_request_body_stays_in_bounded_memory() {
    let lead = Arc::new(Lead::default());
    let taker = Arc::clone(&lead);
    let upstream = Router::new().fallback(move |request: Request| {
        let taker = Arc::clone(&taker);
        async move { taker.take(request.into_body()).await }
    });
    let mut rules = rules();
    rules.request_body = TOTAL * MIB;
    let proxy = before_a_pipe(upstream, rules);
    let request = request(Method::PUT, ECHO, lead.make());
    let response = through_a_pipe(proxy, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    lead.assert_bounded();
}

#[tokio::test(start_paused = true)]
async fn a_large_response_body_stays_in_bounded_memory() {
    let lead = Arc::new(Lead::default());
    let maker = Arc::clone(&lead);
    let upstream = Router::new().fallback(move || async move { maker.make() });
    let proxy = before_a_pipe(upstream, rules());
    let response = through_a_pipe(proxy, get(LIMITS)).await.unwrap();
    lead.take(Body::new(response.into_body())).await;
    lead.assert_bounded();
}

// === The session ===

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_gets_with_an_expired_session_cost_one_refresh() {
    const CALLERS: usize = 200;
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    let app = App::new(org.login_url().parse().unwrap(), org.client_id());
    let flow = RefreshToken::new(
        Client::builder(TokioExecutor::new()).build_http(),
        app.client_secret(org.client_secret()),
        grant.refresh_token(),
    );
    let session = Session::new(grant.access_token(), grant.instance_url()).unwrap();
    let handle = SessionHandle::builder(flow)
        .initial_session(session)
        .build();
    let layer = SalesforceAuthLayer::from(handle);
    let mut rules = rules();
    rules.concurrency = CALLERS;
    let upstream = Client::builder(TokioExecutor::new()).build_http();
    let (url, _serving) = serve(router(layer.layer(upstream), rules)).await;

    org.expire_sessions();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let start = Arc::new(Barrier::new(CALLERS));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (client, start) = (client.clone(), Arc::clone(&start));
        let mut request = get(LIMITS);
        *request.uri_mut() = format!("{url}{LIMITS}").parse().unwrap();
        callers.spawn(async move {
            start.wait().await;
            client.request(request).await.unwrap().status()
        });
    }
    for status in callers.join_all().await {
        assert_eq!(status, StatusCode::OK);
    }
    let counters = org.counters();
    assert_eq!(counters.token_requests, 1);
    assert!(counters.data_rejected > 0);
    assert_eq!(counters.data_accepted, CALLERS as u64);
    assert_eq!(counters.requests_with_several_authorizations, 0);
}

/// A stream of this many bytes, in pieces of 1 KiB.
fn upload(bytes: usize) -> Body {
    let piece = Bytes::from(vec![b'x'; 1_024]);
    Body::from_stream(stream::iter(
        (0..bytes / 1_024).map(move |_| Ok::<_, Infallible>(piece.clone())),
    ))
}

#[tokio::test]
async fn a_rejected_upload_is_replayed_up_to_the_replay_limit() {
    for (read_before_the_answer, bytes, is_sent_again) in [
        (None, 32 * 1_024, true),
        (None, MIB, false),
        // Rejected before any byte was read, so that the whole body is left.
        (Some(0), MIB, true),
    ] {
        let org = Org::new();
        let proxy = before(&org, rules());
        org.answer_early(read_before_the_answer);
        org.expire_sessions();
        let response = send(&proxy, request(Method::POST, ECHO, upload(bytes))).await;
        let counters = org.counters();
        if is_sent_again {
            assert_eq!(response.status(), StatusCode::OK);
            let echo: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
            assert_eq!(echo["body_length"], bytes);
            assert_eq!((counters.data_rejected, counters.data_accepted), (1, 1));
        } else {
            // The answer of the org, unchanged.
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(error_code_of_the_org(response).await, "INVALID_SESSION_ID");
            assert_eq!((counters.data_rejected, counters.data_accepted), (1, 0));
            // The session is refreshed now.
            let again = send(&proxy, request(Method::POST, ECHO, upload(bytes))).await;
            assert_eq!(again.status(), StatusCode::OK);
        }
    }
}

async fn error_code_of_the_org(response: Response) -> String {
    let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    body[0]["errorCode"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_401_that_no_refresh_cures_is_passed_on() {
    let org = Org::new();
    let proxy = before(&org, rules());
    org.refuse_sessions("This session is not valid for use with the REST API");
    let response = send(&proxy, get(LIMITS)).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(
        text(response)
            .await
            .contains("not valid for use with the REST API")
    );
    assert_eq!(org.counters().data_requests, 1);
}

// === Headers ===

#[tokio::test]
async fn a_request_loses_session_hop_and_forwarding_headers() {
    let org = Org::new();
    let proxy = before(&org, rules());
    let mut asked = get(&format!("{ECHO}?q=1"));
    for (name, value) in [
        ("host", "attacker.example.com"),
        ("authorization", "Bearer of-the-caller"),
        ("cookie", "sid=of-the-caller"),
        ("x-sfdc-session", "of-the-caller"),
        ("accesstoken", "of-the-caller"),
        ("instanceurl", "https://attacker.example.com"),
        ("tenantid", "of-the-caller"),
        ("forwarded", "for=192.0.2.1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-host", "attacker.example.com"),
        ("x-forwarded-proto", "http"),
        ("x-real-ip", "192.0.2.1"),
        ("via", "1.1 inside.example.com"),
        ("connection", "close, X-Of-The-Hop"),
        ("connection", "x-another"),
        ("x-of-the-hop", "1"),
        ("x-another", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic c2VjcmV0"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("x-http-method-override", "DELETE"),
        ("x-original-url", "/id/"),
        ("accept", "application/json"),
        ("sforce-query-options", "batchSize=200"),
    ] {
        let headers = asked.headers_mut();
        headers.append(name, value.parse().unwrap());
    }
    let response = send(&proxy, asked).await;
    let echo: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(echo["path"], format!("{ECHO}?q=1"));
    let mut received: Vec<_> = echo["headers"].as_array().unwrap().clone();
    received.sort_by_key(|pair| pair[0].as_str().unwrap().to_owned());
    let expected = serde_json::json!([
        ["accept", "application/json"],
        ["authorization", "[redacted]"],
        ["sforce-query-options", "batchSize=200"],
        ["via", "1.1 axum_proxy"],
    ]);
    assert_eq!(serde_json::Value::from(received), expected);
}

/// Some servers merge trailers into the headers.
#[tokio::test]
async fn trailers_lose_the_same_fields_as_headers() {
    let trailers = |names: &[&'static str]| {
        let pairs = names.iter().map(|name| {
            let value = HeaderValue::from_static("1");
            (HeaderName::from_static(name), value)
        });
        let trailers = pairs.collect::<HeaderMap>();
        Body::new(Full::from("body").with_trailers(async { Some(Ok(trailers)) }))
    };
    let org = Org::new();
    let body = trailers(&["x-checksum", "x-sfdc-session", "authorization", "x-api-key"]);
    let response = send(&before(&org, rules()), request(Method::POST, ECHO, body)).await;
    let echo: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(echo["body_length"], 4);
    assert_eq!(echo["trailers"], serde_json::json!([["x-checksum", "1"]]));

    let upstream = move |_| async move { trailers(&["x-checksum", "set-cookie"]).into_response() };
    let response = send(&before_fn(upstream, rules()), get(LIMITS)).await;
    let body = response.into_body().collect().await.unwrap();
    let received = body.trailers().unwrap();
    assert_eq!(received["x-checksum"], "1");
    assert_eq!(received.len(), 1);
    assert_eq!(body.to_bytes(), "body");
}

#[tokio::test]
async fn a_request_with_a_foreign_host_goes_to_the_instance() {
    let (asked, mut asking) = mpsc::unbounded_channel();
    let upstream = move |request: http::Request<Body>| {
        let host = request.headers().get(header::HOST).cloned();
        asked.send((request.uri().clone(), host)).unwrap();
        async { "".into_response() }
    };
    let proxy = before_fn(upstream, rules());
    for uri in [
        LIMITS.to_owned(),
        format!("http://attacker.example.com{LIMITS}"),
    ] {
        let mut asked = get(&uri);
        let host = "attacker.example.com".parse().unwrap();
        asked.headers_mut().insert(header::HOST, host);
        assert_eq!(send(&proxy, asked).await.status(), StatusCode::OK);
        let (uri, host) = asking.recv().await.unwrap();
        assert_eq!(uri, *format!("https://example.my.salesforce.com{LIMITS}"));
        // The HTTP client adds the host of the URI.
        assert_eq!(host, None);
    }
}

#[tokio::test]
async fn an_answer_loses_its_cookies_and_hop_headers() {
    let upstream = |_| async {
        let headers = [
            ("set-cookie", "sid=of-the-org"),
            ("connection", "keep-alive, X-Of-The-Hop"),
            ("x-of-the-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("alt-svc", "h3=\":443\""),
            ("sforce-limit-info", "api-usage=1/15000"),
            ("etag", "\"1\""),
        ];
        (StatusCode::CREATED, headers, "body").into_response()
    };
    let response = send(&before_fn(upstream, rules()), get(LIMITS)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let mut names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "etag", "sforce-limit-info"]);
    assert_eq!(text(response).await, "body");
}

// === What is let through ===

#[tokio::test]
async fn a_path_outside_the_data_apis_is_refused_in_any_encoding() {
    let org = Org::new();
    let proxy = before(&org, rules());
    for path in [
        "/",
        "/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS",
        "/services/",
        "/services/oauth2/userinfo",
        "/services/oauth2/token",
        "/services/OAUTH2/token",
        "/services/Soap/u/64.0",
        "/services/async/66.0/job",
        "/services/data",
        "/SERVICES/data/v66.0/limits",
        "/services/../id/00Dxx0000001gEFEAY/005xx000001SwiUAAS",
        "/services/data/../oauth2/userinfo",
        "/services/data/./../oauth2/userinfo",
        "/services/data/v66.0/../../oauth2/userinfo",
        "/services/data/%2e%2e/oauth2/userinfo",
        "/services/data/%2E./oauth2/userinfo",
        "/services/data/..%2foauth2/userinfo",
        "/services/data/..%5Coauth2/userinfo",
        "/services/data/..\\oauth2/userinfo",
        "/services/data/%252e%252e/oauth2/userinfo",
        "/services/data/..;/oauth2/userinfo",
        "/services/data/..%3b/oauth2/userinfo",
        "/services/data//../oauth2/userinfo",
        "/services/data/.%09./oauth2/userinfo",
        "/services/data/.%0D./oauth2/userinfo",
        "/services/data/.%1f./oauth2/userinfo",
        "/services/data/.%7F./oauth2/userinfo",
        // Overlong UTF-8, encodings of other kinds, and codes that are none.
        "/services/data/%c0%ae%c0%ae/oauth2/userinfo",
        "/services/data/..%c0%afoauth2/userinfo",
        "/services/data/%e0%80%ae%e0%80%ae/oauth2/userinfo",
        "/services/data/%u002e%u002e/oauth2/userinfo",
        "/services/data/%ef%bc%8e%ef%bc%8e/oauth2/userinfo",
        "/services/data/%2",
        "/services/data/%+2e/oauth2/userinfo",
        "/services/data/..%20/oauth2/userinfo",
        "/services/data/..%00/oauth2/userinfo",
        "/services/data/..;x=y/oauth2/userinfo",
        "/services/data/.,./oauth2/userinfo",
        "//services/data/v66.0/limits",
        "http://attacker.example.com/services/data/../oauth2/userinfo",
    ] {
        let response = send(&proxy, get(path)).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(error_code(response).await, "NOT_FOUND", "{path}");
    }
    assert_eq!(org.counters().requests, 0);
    // These paths are allowed.
    for path in [
        LIMITS,
        "/services/data/v66.0/query?q=SELECT+Name+FROM+Account+LIMIT+1%2e",
        "/services/data/v66.0/sobjects/Account/External__c/a%40b%3A1",
        "/services/data/v66.0/ui-api/record-ui/001xx000003DGb2AAG%2C001xx000003DGb3AAG",
    ] {
        let before = org.counters().requests;
        send(&proxy, get(path)).await;
        assert!(org.counters().requests > before, "{path}");
    }
}

#[tokio::test]
async fn a_caller_without_the_key_is_refused() {
    let org = Org::new();
    let proxy = before(&org, rules());
    for key in [
        None,
        Some(""),
        Some("the key"),
        Some("THE KEY OF THE PROXY"),
    ] {
        for path in [LIMITS, "/id/"] {
            let mut asked = get(path);
            asked.headers_mut().remove("x-api-key");
            if let Some(key) = key {
                let key = key.parse().unwrap();
                asked.headers_mut().insert("x-api-key", key);
            }
            let response = send(&proxy, asked).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN);
            assert_eq!(error_code(response).await, "PROXY_KEY_REQUIRED");
        }
    }
    assert_eq!(org.counters().requests, 0);
    assert!(!format!("{:?}", rules()).contains(KEY));
}

#[tokio::test]
async fn a_forbidden_or_overridden_method_is_refused() {
    let org = Org::new();
    let mut rules = rules();
    rules.methods = vec![Method::GET, Method::POST];
    let proxy = before(&org, rules);
    let response = send(&proxy, request(Method::DELETE, ECHO, "")).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET, POST");
    assert_eq!(error_code(response).await, "METHOD_NOT_ALLOWED");
    for query in [
        "_HttpMethod=DELETE",
        "a=b&_httpmethod=DELETE",
        "%5fHttpMethod=PATCH",
    ] {
        let response = send(
            &proxy,
            request(Method::POST, &format!("{ECHO}?{query}"), ""),
        )
        .await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(error_code(response).await, "METHOD_OVERRIDDEN");
    }
    assert_eq!(org.counters().requests, 0);
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_with_or_without_a_length() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let mut rules = rules();
    rules.request_body = 128 * 1_024;
    let (url, _serving) = {
        let upstream = Client::builder(TokioExecutor::new()).build_http();
        serve(router(refreshing(&org).layer(upstream), rules.clone())).await
    };
    let declared = |bytes| Body::new(Full::new(Bytes::from(vec![b'x'; bytes])));
    for body in [declared, upload] {
        let response = send_over(&url, request(Method::POST, ECHO, body(128 * 1_024))).await;
        assert_eq!(response.status(), StatusCode::OK);
        // An early answer would reset the connection, so this request is sent without sockets.
        let proxy = before(&org, rules.clone());
        let response = send(&proxy, request(Method::POST, ECHO, body(129 * 1_024))).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(error_code(response).await, "REQUEST_BODY_TOO_LARGE");
    }
    // The same through hyper's client, over HTTP/1.1 and HTTP/2.
    for http2_only in [false, true] {
        let upstream = Client::builder(TokioExecutor::new())
            .http2_only(http2_only)
            .build_http();
        let proxy = router(refreshing(&org).layer(upstream), rules.clone());
        let response = send(&proxy, request(Method::POST, ECHO, upload(129 * 1_024))).await;
        assert_eq!(
            response.status(),
            StatusCode::PAYLOAD_TOO_LARGE,
            "HTTP/2: {http2_only}"
        );
    }
}

#[tokio::test]
async fn load_above_the_limit_is_shed_until_an_answer_ends() {
    let (body_of, bodies) = mpsc::unbounded_channel::<Body>();
    let bodies = Arc::new(tokio::sync::Mutex::new(bodies));
    let upstream = move |_| {
        let bodies = Arc::clone(&bodies);
        async move { bodies.lock().await.recv().await.unwrap().into_response() }
    };
    let mut rules = rules();
    rules.concurrency = 1;
    let proxy = before_fn(upstream, rules);

    let (pieces, body) = pieces();
    body_of.send(body).unwrap();
    let first = send(&proxy, get(LIMITS)).await;
    assert_eq!(first.status(), StatusCode::OK);
    // Its head has come, its body has not.
    let second = send(&proxy, get(LIMITS)).await;
    assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(second.headers()["retry-after"], "1");
    assert_eq!(error_code(second).await, "PROXY_BUSY");

    drop(pieces);
    assert_eq!(text(first).await, "");
    body_of.send(Body::empty()).unwrap();
    assert_eq!(send(&proxy, get(LIMITS)).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_reads_nothing_loses_its_permit() {
    let upstream = |_| async { Arc::new(Lead::default()).make().into_response() };
    let mut rules = rules();
    rules.concurrency = 1;
    let proxy = before_fn(upstream, rules);
    let stuck = through_a_pipe(proxy.clone(), get(LIMITS)).await.unwrap();
    let shed = send(&proxy, get(LIMITS)).await;
    assert_eq!(shed.status(), StatusCode::SERVICE_UNAVAILABLE);
    tokio::time::sleep(LONG * 2).await;
    let next = send(&proxy, get(LIMITS)).await;
    assert_eq!(next.status(), StatusCode::OK);
    // The caller sees that its answer is incomplete.
    assert!(stuck.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_caller_that_disconnects_releases_its_permit() {
    let (asked, mut asking) = mpsc::unbounded_channel();
    let upstream = move |_| {
        let (answer, answered) = oneshot::channel::<Response>();
        asked.send(answer).unwrap();
        async { answered.await.unwrap_or_default() }
    };
    let mut rules = rules();
    rules.concurrency = 1;
    let proxy = before_fn(upstream, rules);
    let settle = async || {
        // The permit comes back when the task has seen the disconnect.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    };

    // Disconnects before the answer.
    let waiting = tokio::spawn(proxy.clone().oneshot(get(LIMITS)));
    let unanswered = asking.recv().await.unwrap();
    waiting.abort();
    settle().await;
    assert!(unanswered.is_closed());

    // Disconnects in the middle of the answer.
    let waiting = tokio::spawn(proxy.clone().oneshot(get(LIMITS)));
    let answer = asking.recv().await.unwrap();
    let (pieces, body) = pieces();
    answer.send(body.into_response()).unwrap();
    drop(waiting.await.unwrap());
    settle().await;
    assert!(pieces.is_closed());

    let waiting = tokio::spawn(proxy.clone().oneshot(get(LIMITS)));
    let answer = asking.recv().await.unwrap();
    answer.send("done".into_response()).unwrap();
    assert_eq!(text(waiting.await.unwrap().unwrap()).await, "done");
}

#[tokio::test]
async fn an_unreachable_org_is_not_reported_as_a_failed_login() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    // The client of the example: its error is of the crate's own type.
    let proxy = router(lasting(&url).layer(HttpsClient::new().unwrap()), rules());
    let response = send(&proxy, get(LIMITS)).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(error_code(response).await, "UPSTREAM_FAILED");
}

#[tokio::test(start_paused = true)]
async fn an_org_that_does_not_answer_times_out() {
    let org = Org::new();
    let proxy = before(&org, rules());
    org.on_data(Fault::Hang);
    let response = send(&proxy, get(LIMITS)).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(error_code(response).await, "UPSTREAM_TIMEOUT");
}

/// Each piece comes after 90 % of the patience, and all pieces together take many times as long.
#[tokio::test(start_paused = true)]
async fn a_slow_upload_that_makes_progress_does_not_time_out() {
    let org = Org::new();
    let proxy = before(&org, rules());
    let pieces = stream::unfold(0, |n| async move {
        tokio::time::sleep(rules().patience * 9 / 10).await;
        (n < 10).then_some((Ok::<_, Infallible>("piece"), n + 1))
    });
    let response = send(
        &proxy,
        request(Method::POST, ECHO, Body::from_stream(pieces)),
    )
    .await;
    assert_eq!(response.status(), StatusCode::OK);
}

/// The connection is closed, so that the client sees that the body is incomplete.
#[tokio::test(start_paused = true)]
async fn a_stalled_answer_ends_with_an_error() {
    let (pieces, body) = pieces();
    let body = Arc::new(Mutex::new(Some(body)));
    let upstream = move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async { body.into_response() }
    };
    let mut body = send(&before_fn(upstream, rules()), get(LIMITS))
        .await
        .into_body();
    pieces.send("piece".into()).await.unwrap();
    assert_eq!(next_piece(&mut body).await.unwrap(), "piece");
    assert!(body.frame().await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_failure_reveals_nothing_about_the_org() {
    let secret = "invalid_grant: secrets of the org";
    let failing = |error: fn(&'static str) -> RefreshError| {
        let layer = SalesforceAuthLayer::new(move |_: RefreshContext| async move {
            Err::<Session, _>(error(secret).with_retry_after(Duration::from_millis(1_500)))
        });
        router(layer.layer(Org::new()), rules())
    };
    let unreachable = {
        let upstream =
            service_fn(
                move |_| async move { Err::<http::Response<Body>, BoxError>(secret.into()) },
            );
        router(
            lasting("https://example.my.salesforce.com").layer(upstream),
            rules(),
        )
    };
    let hanging = {
        let handle = SessionHandle::builder(|_: RefreshContext| std::future::pending())
            .refresh_timeout(Duration::from_secs(30))
            .build();
        router(SalesforceAuthLayer::from(handle).layer(Org::new()), rules())
    };
    for (proxy, status, code, retry_after) in [
        (
            failing(RefreshError::transient),
            503,
            "SESSION_UNAVAILABLE",
            Some("2"),
        ),
        (
            failing(RefreshError::terminal),
            502,
            "REAUTHENTICATION_REQUIRED",
            None,
        ),
        (unreachable, 502, "UPSTREAM_FAILED", None),
        (hanging, 504, "UPSTREAM_TIMEOUT", None),
    ] {
        let response = send(&proxy, get(LIMITS)).await;
        assert_eq!(response.status(), status, "{code}");
        let wait = response.headers().get("retry-after");
        assert_eq!(wait.map(|it| it.to_str().unwrap()), retry_after, "{code}");
        let body = text(response).await;
        assert!(body.contains(code), "{body}");
        assert!(
            !body.contains("secret") && !body.contains("salesforce.com"),
            "{body}"
        );
    }
}
