//! What it costs to be able to send a body again, and to do it, beside collecting the body first.
//!
//! ```sh
//! cargo bench --bench replay_body
//! ```
//!
//! Compare within one group: a size and the number of frames that it comes in, or a body in memory. The service reads each
//! body to its end.
//!
//! | name | what is done |
//! |---|---|
//! | `pass_through` | this layer, with replay off: nothing is kept |
//! | `record` | this layer, with a limit above the size: what is sent is kept, and not needed |
//! | `replay` | the same, and the session turns out to be dead: the body is sent twice, and read twice |
//! | `collect` | by hand: the body is collected, and sent when it is complete |
//! | `collect_and_replay` | by hand: the same, and it is sent twice |
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use contenders::{Headers, INSTANCE, Stream, in_memory, layer, request};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::runtime::{self, Runtime};
use tower::{Layer, Service, service_fn};
use tower_salesforce_auth::{ReplayBody, Session, SessionHandle};

mod contenders;

const SIZES: [usize; 3] = [256, 64 * 1024, 1024 * 1024];
const FRAMES: [usize; 3] = [2, 16, 256];

type Answer = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

/// Reads the body to its end, frame by frame, as a transport does.
async fn read(mut body: impl Body<Data = Bytes> + Unpin) {
    while let Some(Ok(frame)) = body.frame().await {
        black_box(&frame);
    }
}

/// A service that reads, and accepts everything.
fn accepting<B>(request: Request<B>) -> Answer
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    Box::pin(async move {
        read(request.into_body()).await;
        Ok(Response::default())
    })
}

/// A service that reads, and turns down every other request. By then there is another session, so that what is measured
/// is the replay, and not a refresh.
fn rejecting<B>(
    handle: SessionHandle,
) -> impl Service<
    Request<ReplayBody<B>>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future = Answer,
> + Clone
where
    B: Body<Error: Into<tower::BoxError>> + Unpin + Send + 'static,
{
    let sessions =
        ["T1", "T2"].map(|token| Session::new(token, INSTANCE).expect("a valid session"));
    let attempts = Arc::new(AtomicUsize::new(0));
    service_fn(move |request: Request<ReplayBody<B>>| -> Answer {
        let attempt = attempts.fetch_add(1, Ordering::Relaxed);
        let handle = handle.clone();
        let session = sessions[attempt / 2 % 2].clone();
        Box::pin(async move {
            read(request.into_body()).await;
            let mut response = Response::default();
            if attempt.is_multiple_of(2) {
                handle.set(session);
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            Ok(response)
        })
    })
}

fn bodies_of<B>(criterion: &mut Criterion, runtime: &Runtime, name: &str, make: impl Fn() -> B)
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static,
{
    let Ok(body) = runtime.block_on(make().collect());
    let size = body.to_bytes().len();
    let mut group = criterion.benchmark_group(format!("replay_body, {size} bytes"));
    group.throughput(Throughput::Bytes(size as u64));
    let request = || request(Headers(8), make());
    let mut measure = |contender: &str, send: &mut dyn FnMut(Request<B>)| {
        group.bench_function(BenchmarkId::new(contender, name), |bencher| {
            bencher.iter_batched(request, &mut *send, BatchSize::SmallInput);
        });
    };

    let layer = || layer().replay_limit(2 * size.max(1024));
    let mut service = layer().max_refreshes(0).layer(service_fn(accepting));
    measure("pass_through", &mut |request| {
        let answer = runtime.block_on(service.call(request));
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    });
    let mut service = layer().layer(service_fn(accepting));
    measure("record", &mut |request| {
        let answer = runtime.block_on(service.call(request));
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    });
    let layer = layer();
    let mut service = layer.layer(rejecting(layer.handle()));
    measure("replay", &mut |request| {
        let answer = runtime.block_on(service.call(request));
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    });
    for (contender, times) in [("collect", 1), ("collect_and_replay", 2)] {
        measure(contender, &mut |request| {
            runtime.block_on(async {
                let (head, body) = request.into_parts();
                let Ok(collected) = body.collect().await;
                let request = Request::from_parts(head, Full::new(collected.to_bytes()));
                for _ in 0..times {
                    let Ok(answer) = accepting(request.clone()).await;
                    assert_eq!(answer.status(), StatusCode::OK);
                }
            });
        });
    }
    group.finish();
}

fn replay_body(criterion: &mut Criterion) {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for size in SIZES {
        let body = in_memory(size);
        bodies_of(criterion, &runtime, "in memory", || body.clone());
        for frames in FRAMES {
            let name = format!("{frames} frames");
            let body = Stream::new(frames, size / frames);
            bodies_of(criterion, &runtime, &name, || body.clone());
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .nresamples(5_000)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = replay_body
}
criterion_main!(benches);
