//! What it costs to keep a body for a replay, and to replay it, beside collecting the body first.
//!
//! ```sh
//! cargo bench -p benches --bench replay_body
//! ```
//!
//! Compare by `over collect` only. The contenders take turns in many short rounds, and `over collect` is the median of the
//! rounds' ratios. Criterion measures the contenders one after the other, while the machine may change its pace. The service
//! reads each body to its end.
//!
//! | name | what is done |
//! |---|---|
//! | `pass_through` | this layer, with replay off: nothing is kept |
//! | `record` | this layer, with a limit above the size: what is sent is kept, and not needed |
//! | `replay` | the same, but the session has expired: another is set, and the body is sent and read twice |
//! | `collect` | by hand: the body is collected, and sent when it is complete |
//! | `collect_and_replay` | by hand: the same, and it is sent twice |
#![allow(missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    convert::Infallible,
    fmt::Debug,
    future::Future,
    hint::black_box,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use contenders::{Headers, INSTANCE, Stream, in_memory, layer, request};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use figures::{Table, median, quartiles};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::runtime::{self, Runtime};
use tower::{Layer, Service, service_fn};
use tower_salesforce_auth::{ReplayBody, Session, SessionHandle};

mod contenders;
mod figures;

const SIZES: [usize; 3] = [256, 64 * 1024, 1024 * 1024];
const FRAMES: [usize; 3] = [2, 16, 256];

const ROUNDS: usize = 200;

/// Requests made ahead: few enough to stay in the cache.
const BATCH: u32 = 32;

type Answer = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

/// Reads the body to its end, frame by frame, as a transport does.
async fn read(mut body: impl Body<Data = Bytes> + Unpin) {
    while let Some(Ok(frame)) = body.frame().await {
        black_box(&frame);
    }
}

/// A service that reads each body, and accepts every request.
fn accepting<B>(request: Request<B>) -> Answer
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    Box::pin(async move {
        read(request.into_body()).await;
        Ok(Response::default())
    })
}

/// A service that reads each body, and rejects every other request. It sets another session before, so that the bench
/// measures the replay, and not a refresh.
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

/// Sends a request, and reads its body.
type Contender<'a, B> = (&'static str, Box<dyn FnMut(Request<B>) + 'a>);

fn contenders_of<B>(runtime: &Runtime, size: usize) -> [Contender<'_, B>; 5]
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static,
{
    let recording = || layer().replay_limit(2 * size.max(1024));
    let pass_through = recording().max_refreshes(0).layer(service_fn(accepting));
    let record = recording().layer(service_fn(accepting));
    let layer = recording();
    let replay = layer.layer(rejecting(layer.handle()));
    [
        ("collect", Box::new(collect(runtime, 1))),
        ("pass_through", Box::new(send(runtime, pass_through))),
        ("record", Box::new(send(runtime, record))),
        ("collect_and_replay", Box::new(collect(runtime, 2))),
        ("replay", Box::new(send(runtime, replay))),
    ]
}

fn send<B, R>(
    runtime: &Runtime,
    mut service: impl Service<Request<B>, Response = Response<R>, Error: Debug>,
) -> impl FnMut(Request<B>) {
    move |request| {
        let answer = runtime.block_on(service.call(request));
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    }
}

fn collect<B>(runtime: &Runtime, times: usize) -> impl FnMut(Request<B>)
where
    B: Body<Data = Bytes, Error = Infallible>,
{
    move |request| {
        runtime.block_on(async {
            let (head, body) = request.into_parts();
            let Ok(collected) = body.collect().await;
            let request = Request::from_parts(head, Full::new(collected.to_bytes()));
            for _ in 0..times {
                let Ok(answer) = accepting(request.clone()).await;
                assert_eq!(answer.status(), StatusCode::OK);
            }
        });
    }
}

// === Measures ===

/// Measures each contender with bodies of each size and kind.
fn measure_all(measure: &mut impl Measure) {
    for size in SIZES {
        let body = in_memory(size);
        measure.measure(size, "in memory", || request(Headers(8), body.clone()));
        for frames in FRAMES {
            let body = Stream::new(frames, size / frames);
            let comes = format!("{frames} frames");
            measure.measure(size, &comes, || request(Headers(8), body.clone()));
        }
    }
}

trait Measure {
    fn measure<B>(&mut self, size: usize, comes: &str, make: impl Fn() -> Request<B>)
    where
        B: Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static;
}

/// Ratios between contenders that take turns.
struct Rounds<'a> {
    runtime: &'a Runtime,
    table: Table,
}

impl Measure for Rounds<'_> {
    fn measure<B>(&mut self, size: usize, comes: &str, make: impl Fn() -> Request<B>)
    where
        B: Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static,
    {
        let mut contenders = contenders_of(self.runtime, size);
        // By contender, and then by round.
        let mut measured = [const { Vec::new() }; 5];
        for round in 0..ROUNDS {
            for turn in 0..contenders.len() {
                let which = (round + turn) % contenders.len();
                let (_, send) = &mut contenders[which];
                let requests: Vec<_> = (0..BATCH).map(|_| make()).collect();
                let start = Instant::now();
                for request in requests {
                    send(request);
                }
                measured[which].push(start.elapsed().as_secs_f64() * 1e6 / f64::from(BATCH));
            }
        }
        let [collect, ..] = &measured;
        for ((name, _), one) in contenders.iter().zip(&measured) {
            let over_collect = one.iter().zip(collect).map(|(one, collect)| one / collect);
            let [first, middle, third] = quartiles(over_collect.collect());
            self.table.row([
                format!("{size} bytes"),
                comes.to_string(),
                (*name).to_string(),
                format!("{:.2}", median(one.clone())),
                format!("{middle:.2}"),
                format!("{first:.2}..{third:.2}"),
            ]);
        }
    }
}

/// A criterion group for each size.
struct Times<'a> {
    runtime: &'a Runtime,
    criterion: &'a mut Criterion,
}

impl Measure for Times<'_> {
    fn measure<B>(&mut self, size: usize, comes: &str, make: impl Fn() -> Request<B>)
    where
        B: Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static,
    {
        let group = format!("replay_body, {size} bytes");
        let mut group = self.criterion.benchmark_group(group);
        group.throughput(Throughput::Bytes(size as u64));
        for (contender, mut send) in contenders_of(self.runtime, size) {
            let batch = BatchSize::NumIterations(BATCH.into());
            group.bench_function(BenchmarkId::new(contender, comes), |bencher| {
                bencher.iter_batched(&make, &mut send, batch);
            });
        }
        group.finish();
    }
}

fn replay_body(criterion: &mut Criterion) {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut rounds = Rounds {
        runtime: &runtime,
        table: Table::new(&[
            "body",
            "comes",
            "contender",
            "µs",
            "over collect",
            "quartiles",
        ]),
    };
    measure_all(&mut rounds);
    rounds.table.keep("replay_body");
    println!();
    measure_all(&mut Times {
        runtime: &runtime,
        criterion,
    });
}

criterion_group! {
    name = benches;
    config = figures::criterion();
    targets = replay_body
}
criterion_main!(benches);
