//! Body factories: a new body for every attempt.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::task::JoinSet;
use tower::{Layer, ServiceBuilder, limit::ConcurrencyLimitLayer, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_salesforce_auth::{
    ReplayBody,
    request::{BodyFactory, NoReplay, ReplaySkipped, SkipAuth},
};

use crate::support::{Api, Refresher, counting, expired, get, outcome, send, session};

const CHUNK: usize = 16 * 1024;

/// The chunks of a stream far beyond the replay limit.
const CHUNKS: usize = 1_000;

// === Upload ===

/// A body of many chunks, which counts them in a ledger.
struct Upload {
    left: usize,
    has_pended: bool,
    ledger: Ledger,
}

/// Counts of the uploads that a factory has made.
#[derive(Clone, Default)]
struct Ledger(Arc<Counts>);

#[derive(Default)]
struct Counts {
    made: AtomicUsize,
    chunks: AtomicUsize,
    alive: AtomicUsize,
    most_alive: AtomicUsize,
}

/// The bytes of a chunk, counted as alive until they are dropped.
struct Chunk {
    bytes: Vec<u8>,
    ledger: Ledger,
}

impl Ledger {
    fn made(&self) -> usize {
        self.0.made.load(Ordering::SeqCst)
    }

    fn chunks(&self) -> usize {
        self.0.chunks.load(Ordering::SeqCst)
    }

    fn most_alive(&self) -> usize {
        self.0.most_alive.load(Ordering::SeqCst)
    }

    fn chunk(&self, n: usize) -> Bytes {
        self.0.chunks.fetch_add(1, Ordering::SeqCst);
        let alive = self.0.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_alive.fetch_max(alive, Ordering::SeqCst);
        Bytes::from_owner(Chunk {
            bytes: content(n),
            ledger: self.clone(),
        })
    }

    fn factory(&self, chunks: usize) -> BodyFactory<Upload> {
        let ledger = self.clone();
        BodyFactory::new(move || {
            ledger.0.made.fetch_add(1, Ordering::SeqCst);
            Upload {
                left: chunks,
                has_pended: false,
                ledger: ledger.clone(),
            }
        })
    }

    fn request(&self, chunks: usize) -> Request<Upload> {
        let head = Request::put("/services/data/v66.0/jobs/ingest/1/batches");
        self.factory(chunks).attach(head.body(()).unwrap())
    }
}

/// The bytes of the chunk with `n - 1` chunks after it.
fn content(n: usize) -> Vec<u8> {
    vec![u8::try_from(n % 251).unwrap(); CHUNK]
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.ledger.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        // Every other poll is pending, as with a file.
        self.has_pended = !self.has_pended;
        if self.has_pended {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let data = self.ledger.chunk(self.left);
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.left * CHUNK) as u64)
    }
}

// === Server ===

/// Accepts one token, reads bodies chunk by chunk, and rejects other tokens after `rejects_after` chunks.
#[derive(Clone)]
struct Server {
    api: Api,
    rejects_after: usize,
    keeps_the_body: bool,
    kept: Arc<Mutex<Vec<ReplayBody<Upload>>>>,
    received: Arc<Mutex<Vec<usize>>>,
}

impl Server {
    fn new(api: &Api, rejects_after: usize) -> Self {
        Self {
            api: api.clone(),
            rejects_after,
            keeps_the_body: false,
            kept: Arc::default(),
            received: Arc::default(),
        }
    }

    /// The number of chunks read of each attempt.
    fn received(&self) -> Vec<usize> {
        self.received.lock().unwrap().clone()
    }

    async fn answer(self, request: Request<ReplayBody<Upload>>) -> Response<Full<Bytes>> {
        let (head, mut body) = request.into_parts();
        let answer = self.api.answer(head, Bytes::new(), None);
        let is_rejected = answer.status() == StatusCode::UNAUTHORIZED;
        let announced = body.size_hint().exact().expect("a length");
        let announced = usize::try_from(announced).unwrap() / CHUNK;
        let mut chunks = 0;
        while !(is_rejected && chunks == self.rejects_after) {
            let Some(frame) = body.frame().await else {
                break;
            };
            let data = frame.unwrap().into_data().unwrap();
            assert_eq!(data, content(announced - chunks));
            chunks += 1;
        }
        if is_rejected && self.keeps_the_body {
            self.kept.lock().unwrap().push(body);
        }
        self.received.lock().unwrap().push(chunks);
        answer
    }

    fn service(
        &self,
    ) -> impl tower::Service<
        Request<ReplayBody<Upload>>,
        Response = Response<Full<Bytes>>,
        Error = std::convert::Infallible,
        Future: Send,
    > + Clone
    + Send
    + 'static {
        let this = self.clone();
        service_fn(move |request| {
            let this = this.clone();
            async move { Ok(this.answer(request).await) }
        })
    }
}

// === Tests ===

#[tokio::test]
async fn r08_a_factory_body_of_any_size_is_replayed() {
    // The rejection comes before, in the middle of, and after the first attempt's body.
    for rejects_after in [0, 1, CHUNKS / 2, CHUNKS, usize::MAX] {
        let api = Api::accepting("T1");
        let refresher = Refresher::of(&api);
        let server = Server::new(&api, rejects_after);
        let service = refresher.layer().layer(server.service());
        let ledger = Ledger::default();

        let response = send(&service, ledger.request(CHUNKS)).await.unwrap();

        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(outcome(&response).attempts(), 2);
        assert_eq!(refresher.count(), 1);
        assert_eq!(ledger.made(), 2, "one for each attempt");
        assert_eq!(server.received(), [rejects_after.min(CHUNKS), CHUNKS]);
        assert_eq!(api.tokens(), ["T0", "T1"]);
    }
}

#[tokio::test]
async fn a_factory_makes_one_body_for_a_successful_request() {
    let api = Api::accepting("T0");
    let server = Server::new(&api, 0);
    let service = Refresher::of(&api).layer().layer(server.service());
    let ledger = Ledger::default();

    let response = send(&service, ledger.request(CHUNKS)).await.unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((ledger.made(), ledger.chunks()), (1, CHUNKS));
    assert_eq!(server.received(), [CHUNKS]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r25_a_hundred_factory_uploads_hold_one_chunk_each() {
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let server = Server::new(&api, CHUNKS / 2);
    let service = refresher.layer().layer(server.service());
    let ledger = Ledger::default();

    let mut uploads = JoinSet::new();
    for _ in 0..100 {
        let (service, request) = (service.clone(), ledger.request(CHUNKS));
        uploads.spawn(async move { send(&service, request).await });
    }
    for response in uploads.join_all().await {
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }

    assert_eq!(refresher.count(), 1);
    assert!(ledger.most_alive() <= 100, "one each, as it is sent");
    let whole = |chunks: &&usize| **chunks == CHUNKS;
    assert_eq!(server.received().iter().filter(whole).count(), 100);
}

#[tokio::test]
async fn a_rejected_factory_body_ends_once_it_is_replaced() {
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let server = Server {
        keeps_the_body: true,
        ..Server::new(&api, 3)
    };
    let service = refresher.layer().layer(server.service());
    let ledger = Ledger::default();

    let response = send(&service, ledger.request(10)).await.unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.received(), [3, 10]);
    // A transport that has not noticed the answer polls on.
    let mut kept = server.kept.lock().unwrap().pop().expect("a body");
    let error = kept.frame().await.expect("an end").unwrap_err();
    assert!(error.to_string().contains("sent again"), "{error}");
    assert!(kept.frame().await.is_none());
    assert!(kept.is_end_stream());
    assert_eq!(ledger.chunks(), 3 + 10);
}

#[tokio::test]
async fn a_rejected_factory_body_goes_on_without_a_replay() {
    let api = Api::accepting("nothing");
    let (layer, refreshes) = counting(async |_| {
        let cause = io::Error::other("revoked");
        Err(tower_salesforce_auth::RefreshError::terminal(cause))
    });
    let server = Server {
        keeps_the_body: true,
        ..Server::new(&api, 3)
    };
    let service = layer.layer(server.service());
    let ledger = Ledger::default();

    assert!(send(&service, ledger.request(10)).await.is_err());

    assert_eq!(refreshes.load(Ordering::SeqCst), 1);
    let kept = server.kept.lock().unwrap().pop().expect("a body");
    assert_eq!(kept.size_hint().exact(), Some(7 * CHUNK as u64));
    assert_eq!(kept.collect().await.unwrap().to_bytes().len(), 7 * CHUNK);
    assert_eq!(ledger.made(), 1);
}

#[tokio::test]
async fn a_factory_makes_one_body_for_each_attempt() {
    let api = Api::accepting("nothing");
    let (layer, _) = counting(async |n| Ok(session(&format!("T{n}"))));
    let server = Server::new(&api, 1);
    let service = layer.max_refreshes(3).layer(server.service());
    let ledger = Ledger::default();

    let response = send(&service, ledger.request(2)).await.unwrap();

    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let outcome = outcome(&response);
    assert_eq!(outcome.attempts(), 4);
    assert_eq!(
        outcome.replay_skipped(),
        Some(ReplaySkipped::RefreshesExhausted)
    );
    assert_eq!(ledger.made(), 4);
    assert_eq!(server.received(), [1, 1, 1, 1]);
    assert_eq!(api.tokens(), ["T0", "T1", "T2", "T3"]);
}

#[tokio::test]
async fn a_factory_makes_no_body_before_the_first_login() {
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let server = Server::new(&api, 0);
    let service = refresher.layer_without_session().layer(server.service());
    let ledger = Ledger::default();

    let mut request = ledger.request(CHUNKS);
    *request.uri_mut() = "https://example.my.salesforce.com/services/data/"
        .parse()
        .unwrap();
    let response = send(&service, request).await.unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((ledger.made(), server.received()), (1, vec![CHUNKS]));

    // The session of the first login can expire too.
    api.accept("T2");
    let response = send(&service, ledger.request(CHUNKS)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        (ledger.made(), server.received()),
        (3, vec![CHUNKS, 0, CHUNKS])
    );
}

#[tokio::test]
async fn an_opt_out_of_replay_overrides_the_factory() {
    for opt_out in [
        |request: &mut Request<Upload>| {
            request.extensions_mut().insert(NoReplay);
        },
        |request: &mut Request<Upload>| {
            request.extensions_mut().insert(SkipAuth);
        },
    ] {
        let api = Api::accepting("T1");
        let server = Server::new(&api, usize::MAX);
        let service = Refresher::of(&api).layer().layer(server.service());
        let ledger = Ledger::default();
        let mut request = ledger.request(CHUNKS);
        opt_out(&mut request);

        let response = send(&service, request).await.unwrap();

        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!((ledger.made(), server.received()), (1, vec![CHUNKS]));
    }
}

/// The replay has the head of the first body, and HTTP/1.1 would send as many bytes as that says.
#[tokio::test]
async fn r08_a_factory_body_of_another_length_is_not_sent() {
    for other in ["", "9", "9 and more"] {
        let api = Api::accepting("T1");
        let refresher = Refresher::of(&api);
        let service = refresher.layer().layer(api.clone());
        let made = Mutex::new(["9 and so.", other].into_iter());
        let factory =
            BodyFactory::new(move || Full::new(Bytes::from(made.lock().unwrap().next().unwrap())));
        let head = Request::put("/").header("content-length", 9);

        let response = send(&service, factory.attach(head.body(()).unwrap()))
            .await
            .unwrap();

        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let skipped = outcome(&response).replay_skipped();
        assert_eq!(skipped, Some(ReplaySkipped::BodyNotReplayable));
        assert_eq!((refresher.count(), api.calls()), (1, 1));
    }
}

#[tokio::test]
async fn r20_a_factory_panic_fails_only_its_own_request() {
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let service = ServiceBuilder::new()
        .layer(refresher.layer())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(api.clone());
    let made = AtomicUsize::new(0);
    let factory = BodyFactory::new(move || {
        let is_first = made.fetch_add(1, Ordering::SeqCst) == 0;
        assert!(is_first, "the file is gone");
        Full::new(Bytes::from("an upload"))
    });
    let request = factory.attach(Request::put("/").body(()).unwrap());

    let upload = tokio::spawn({
        let service = service.clone();
        async move { send(&service, request).await.map(|_| ()) }
    });

    assert!(upload.await.unwrap_err().is_panic());
    let response = send(&service, get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((refresher.count(), api.calls()), (1, 2));
}

/// A dropped request releases its permit, its bodies and its session, at every await point.
#[tokio::test]
async fn r20_a_dropped_upload_releases_all_that_it_held() {
    for polls in 0..40 {
        let api = Api::accepting("T1");
        let refresher = Refresher::of(&api);
        let server = Server::new(&api, 2);
        let service = ServiceBuilder::new()
            .layer(refresher.layer())
            .layer(ConcurrencyLimitLayer::new(1))
            .service(server.service());
        let ledger = Ledger::default();
        {
            let mut upload = Box::pin(send(&service, ledger.request(5)));
            for _ in 0..polls {
                if futures_util::poll!(&mut upload).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(ledger.0.alive.load(Ordering::SeqCst), 0, "{polls}");
        let response = send(&service, ledger.request(5)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{polls}");
        assert_eq!(refresher.count(), 1, "{polls}");
        assert_eq!(server.received().last(), Some(&5), "{polls}");
    }
}

#[tokio::test]
async fn a_factory_of_another_body_type_is_ignored() {
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let server = Server::new(&api, usize::MAX);
    let service = refresher.layer().layer(server.service());
    let ledger = Ledger::default();
    let mut request = ledger.request(CHUNKS);
    request.extensions_mut().remove::<BodyFactory<Upload>>();
    let other = BodyFactory::new(|| Full::new(Bytes::from("another body")));
    request.extensions_mut().insert(other);

    let response = send(&service, request).await.unwrap();

    let skipped = outcome(&response).replay_skipped();
    assert_eq!(skipped, Some(ReplaySkipped::BodyNotReplayable));
    assert_eq!((refresher.count(), server.received()), (1, vec![CHUNKS]));
}

/// `FollowRedirect` drops the body of a redirected request and keeps its extensions.
#[tokio::test]
async fn an_empty_body_is_not_replayed_by_a_factory() {
    let api = Api::accepting("T0");
    let refresher = Refresher::of(&api);
    let redirecting = {
        let api = api.clone();
        service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let is_upload = head.uri.path() == "/upload";
                let mut answer = api.answer(head, body, None);
                if is_upload {
                    *answer.status_mut() = StatusCode::SEE_OTHER;
                    answer
                        .headers_mut()
                        .insert("location", "/status".parse().unwrap());
                    // The session expires before the redirect is followed.
                    api.accept("nothing");
                }
                Ok::<_, std::convert::Infallible>(answer)
            }
        })
    };
    let service = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(refresher.layer())
        .service(redirecting);
    let head = Request::put("https://example.my.salesforce.com/upload");
    let factory = BodyFactory::new(|| Full::new(Bytes::from("an upload")));

    let response = send(&service, factory.attach(head.body(()).unwrap()))
        .await
        .unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(outcome(&response).attempts(), 2);
    let seen = api.seen();
    let sent = seen.iter().map(|seen| (seen.uri.path(), &seen.body[..]));
    let sent: Vec<_> = sent.collect();
    let expected: [(&str, &[u8]); 3] = [
        ("/upload", b"an upload"),
        ("/status", b""),
        ("/status", b""),
    ];
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn r22_a_factory_envelope_is_replayed_with_the_new_session() {
    const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";
    let envelope = |token: &str| {
        format!(
            "<Envelope xmlns=\"{SOAP}\"><Header><SessionHeader xmlns=\"urn:partner.soap.sforce.com\">\
             <sessionId>{token}</sessionId></SessionHeader></Header><Body/></Envelope>"
        )
    };
    let refresher = Refresher::of(&Api::accepting("T1"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inner = {
        let seen = seen.clone();
        service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let seen = seen.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let text = String::from_utf8(body.to_vec()).unwrap();
                let is_good = text.contains(">T1<");
                seen.lock().unwrap().push(text);
                Ok::<_, std::convert::Infallible>(if is_good {
                    Response::new(Full::default())
                } else {
                    expired()
                })
            }
        })
    };
    let service = refresher.layer().layer(inner);
    let made = Full::new(Bytes::from(envelope("stale")));
    let request = Request::post("/services/Soap/u/64.0")
        .header("content-type", "text/xml")
        .header("soapaction", "\"\"")
        .body(())
        .unwrap();
    let request = BodyFactory::new(move || made.clone()).attach(request);

    let response = send(&service, request).await.unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(*seen.lock().unwrap(), [envelope("T0"), envelope("T1")]);
}
