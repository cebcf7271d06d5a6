//! What the layer allocates for a request, and what it holds for a replay.
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    future::{Ready, poll_fn, ready},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use tower::{Layer, Service};
use tower_salesforce_auth::{
    RefreshContext, RefreshError, ReplayBody, SalesforceAuthLayer, Session, SessionHandle,
    layer::ResponseFuture,
};

const INSTANCE: &str = "https://example.my.salesforce.com";

fn layer() -> SalesforceAuthLayer {
    let session = Session::new("00Dxx0000001gEF!AQEAQ", INSTANCE).unwrap();
    let handle = SessionHandle::builder(|_: RefreshContext| async {
        Session::new("T1", INSTANCE).map_err(RefreshError::terminal)
    });
    handle.initial_session(session).build().into()
}

/// Accepts everything, and allocates nothing.
#[derive(Clone)]
struct Accepting;

impl<B> Service<Request<B>> for Accepting {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::default()))
    }
}

/// A typical request: eight headers, an owned path, an owned body.
fn request(body_len: usize) -> Request<Full<Bytes>> {
    let path = format!("/services/data/v66.0/sobjects/Account/{}", "0".repeat(18));
    let mut request = Request::post(path)
        .body(Full::from(vec![7; body_len]))
        .unwrap();
    for name in [
        "accept",
        "user-agent",
        "x-1",
        "x-2",
        "x-3",
        "x-4",
        "x-5",
        "content-type",
    ] {
        let value = HeaderValue::from_str(&format!("value of {name}")).unwrap();
        request.headers_mut().insert(name, value);
    }
    request
}

fn allocations_of(
    service: &mut impl Service<Request<Full<Bytes>>>,
    request: Request<Full<Bytes>>,
) -> AllocationInfo {
    let mut cx = Context::from_waker(Waker::noop());
    measure(|| {
        assert!(service.poll_ready(&mut cx).is_ready());
        let answer = std::pin::pin!(service.call(request));
        assert!(answer.poll(&mut cx).is_ready());
    })
}

/// The allocations that the layer adds to a service after its first call.
fn added(layer: &SalesforceAuthLayer, body_len: usize) -> u64 {
    let mut bare = Accepting;
    let mut service = layer.layer(Accepting);
    allocations_of(&mut service, request(body_len));
    let floor = allocations_of(&mut bare, request(body_len)).count_total;
    let total = allocations_of(&mut service, request(body_len)).count_total;
    total - floor
}

#[test]
fn a_successful_request_costs_at_most_two_allocations() {
    assert_eq!(added(&layer().max_refreshes(0), 256), 0, "nothing is kept");
    assert_eq!(added(&layer(), 0), 1, "the head is kept");
    assert_eq!(added(&layer(), 1024), 1, "a small body is with the head");
    assert!(added(&layer(), 1025) <= 2, "the head and the body are kept");
    assert!(added(&layer(), 10 * 1024 * 1024) <= 2, "a body of any size");
}

#[test]
fn requests_and_futures_are_small_enough_to_be_moved() {
    type Sent = ReplayBody<Full<Bytes>>;
    type OfClient = ResponseFuture<Client<HttpConnector, Sent>, Full<Bytes>, Incoming>;

    let request = size_of::<Request<Sent>>();
    assert!(request <= 256, "a request has {request} bytes");
    let future = size_of::<OfClient>();
    assert!(future <= 224, "a future has {future} bytes");
}

// === Callers that wait ===

/// Rejects everything, at the second poll. Is of some size.
#[derive(Clone)]
struct Rejecting<const SIZE: usize>([u8; SIZE]);

impl<B, const SIZE: usize> Service<Request<B>> for Rejecting<SIZE> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        std::hint::black_box(&self.0);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        const BODY: &str =
            r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#;
        let mut polls = 0..1;
        Box::pin(poll_fn(move |_| {
            if polls.next().is_some() {
                return Poll::Pending;
            }
            let mut response = Response::new(Full::from(BODY));
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            Poll::Ready(Ok(response))
        }))
    }
}

/// The bytes that a caller holds while it waits for a refresh after a 401. Needs a runtime.
fn held_by_a_waiter<const SIZE: usize>() -> i64 {
    const CALLERS: i64 = 64;
    let layer = SalesforceAuthLayer::new(|_: RefreshContext| {
        std::future::pending::<Result<Session, RefreshError>>()
    });
    let session = Session::new("00Dxx0000001gEF!AQEAQ", INSTANCE).unwrap();
    layer.handle().set(session);
    let mut service = layer.layer(Rejecting([0; SIZE]));
    let mut held = |callers: i64| {
        let mut cx = Context::from_waker(Waker::noop());
        let held = measure(|| {
            let mut answers: Vec<_> = (0..callers)
                .map(|_| Box::pin(service.call(request(0))))
                .collect();
            for _ in 0..2 {
                for answer in &mut answers {
                    assert!(answer.as_mut().poll(&mut cx).is_pending());
                }
            }
            std::mem::forget(answers);
        });
        // The next callers are rejected too.
        layer
            .handle()
            .set(Session::new("00Dxx0000001gEF!AQEAR", INSTANCE).unwrap());
        held.bytes_current
    };
    held(CALLERS);
    (held(2 * CALLERS) - held(CALLERS)) / CALLERS
}

#[tokio::test]
async fn a_waiter_after_a_401_holds_less_than_a_kibibyte() {
    let small = held_by_a_waiter::<0>();
    assert!(small <= 1024, "{small} bytes");
    let large = held_by_a_waiter::<4096>();
    assert_eq!(large, small, "the size of the client makes a difference");
}

// === R25 ===

/// A body that yields the same chunk again and again, and is pending before each.
struct Endless {
    chunk: Bytes,
    chunks_left: u64,
    is_declared: bool,
    is_ready: bool,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.chunks_left == 0 {
            return Poll::Ready(None);
        }
        self.is_ready = !self.is_ready;
        if self.is_ready {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.chunks_left -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.chunk.clone()))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_declared {
            SizeHint::with_exact(self.chunks_left * self.chunk.len() as u64)
        } else {
            SizeHint::default()
        }
    }
}

/// Reads bodies side by side, and returns the most memory that they held.
fn upload(uploads: u64, limit: usize, chunk_len: usize, chunks: u64, is_declared: bool) -> u64 {
    let chunk = Bytes::from(vec![7; chunk_len]);
    let (bodies, mut sent) = (0..uploads)
        .map(|_| Endless {
            chunk: chunk.clone(),
            chunks_left: chunks,
            is_declared,
            is_ready: false,
        })
        .map(|body| {
            // The inner service sends the body that it gets to the test.
            let (tx, rx) = std::sync::mpsc::channel();
            let inner = tower::service_fn(move |request: Request<ReplayBody<Endless>>| {
                tx.send(request.into_body()).unwrap();
                std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
            });
            let mut service = layer().replay_limit(limit).layer(inner);
            let answer = service.call(Request::post("/").body(body).unwrap());
            (answer, rx.recv().unwrap())
        })
        .unzip::<_, _, Vec<_>, Vec<_>>();
    let mut cx = Context::from_waker(Waker::noop());
    let mut len = 0;
    let held = measure(|| {
        let mut is_done = false;
        while !is_done {
            is_done = true;
            for body in &mut sent {
                match Pin::new(body).poll_frame(&mut cx) {
                    Poll::Ready(Some(frame)) => {
                        len += frame.unwrap().data_ref().unwrap().len() as u64;
                        is_done = false;
                    }
                    Poll::Ready(None) => {}
                    Poll::Pending => is_done = false,
                }
            }
        }
    });
    assert_eq!(len, uploads * chunks * chunk_len as u64, "sent in full");
    drop(bodies);
    held.bytes_max
}

#[test]
fn r25_a_large_upload_holds_at_most_the_replay_limit() {
    const GIB: u64 = 1024 * 1024 * 1024;
    const LIMIT: u64 = 64 * 1024;
    let limit = usize::try_from(LIMIT).unwrap();
    for (chunk_len, total) in [(16_000, GIB / 100), (48 * 1024, GIB), (1024 * 1024, GIB)] {
        let chunks = total.div_ceil(chunk_len as u64);
        let held = upload(100, limit, chunk_len, chunks, false);
        assert!(
            held <= 100 * LIMIT,
            "{held} bytes held in chunks of {chunk_len}"
        );
        // A body that declares a larger size is never recorded.
        let held = upload(100, limit, chunk_len, chunks, true);
        assert_eq!(held, 0, "in chunks of {chunk_len}");
    }
}

#[test]
fn r25_a_stream_of_tiny_frames_holds_only_its_bytes() {
    let held = upload(10, 4096, 1, 4096, false);
    assert!(
        (10 * 4096..=10 * 4096 + 4096).contains(&held),
        "{held} bytes held"
    );
    let held = upload(10, 4096, 1, 100_000, false);
    // One recording at a time grows, and takes twice its size while it is reallocated.
    assert!(held <= 11 * 4096, "{held} bytes held");
}

#[test]
fn r25_a_slice_of_a_large_buffer_does_not_keep_the_buffer() {
    let mut service = layer().layer(tower::service_fn(
        |request: Request<ReplayBody<Endless>>| async {
            // The service drops each frame as it comes.
            request
                .into_body()
                .collect()
                .await
                .map(|body| drop(body.to_bytes()))
                .unwrap();
            std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>().await
        },
    ));
    let held = measure(|| {
        let chunk = Bytes::from(vec![7; 16 * 1024 * 1024]).slice(..10);
        let body = Endless {
            chunk,
            chunks_left: 3,
            is_declared: false,
            is_ready: false,
        };
        let mut answer = Box::pin(service.call(Request::post("/").body(body).unwrap()));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..10 {
            assert!(answer.as_mut().poll(&mut cx).is_pending());
        }
        // The request still waits for its answer: it holds its recording, but not the buffer.
        std::mem::forget(answer);
    });
    assert!(
        held.bytes_current < 4096,
        "{} bytes held",
        held.bytes_current
    );
}
