//! What a layer adds to a request that is answered well, in time and in allocations, beside the floor and a fixed header.
//!
//! ```sh
//! cargo bench -p benches --bench call_overhead
//! ```
//!
//! `bare` is the service alone. `fixed_header` is `tower_http`'s bearer header, which cannot be refreshed. `inject_only` and
//! `default` are this layer, with replay off and on. Calls go to one service, or each to a clone of it by `oneshot`, as is
//! usual with tower. The counting allocator is always on.
//!
//! Compare by `over bare` only. The contenders take turns in many short rounds, and `over bare` is the median of the rounds'
//! ratios. Criterion measures the contenders one after the other, while the machine may change its pace.
//!
//! Bodies of 64 KiB and more are clones of one `Bytes`: filling that much memory is no part of a call. The first clone of a
//! `Bytes` allocates, as the request with 256 bytes shows; later clones do not.
#![allow(missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    mem,
    task::{Context, Poll},
    time::Instant,
};

use allocation_counter::AllocationInfo;
use contenders::{Contender, Headers, Stream, Work, call, in_memory, request};
use criterion::{BatchSize, Bencher, Criterion, criterion_group, criterion_main};
use figures::{Table, median, quartiles};
use http::Request;
use http_body::Body;
use tower::{BoxError, Service, ServiceExt, util::Oneshot};

mod contenders;
mod figures;

const ROUNDS: usize = 2_000;

/// Calls made before allocations are counted, so that one-time allocations are over.
const WARM_UP: usize = 32;

/// Calls whose allocations are counted; the result is their mean. Their requests are made ahead, and fit into the cache.
const CALLS: u32 = 64;

fn call_overhead(criterion: &mut Criterion) {
    let mut allocations = Allocations::new();
    measure_all(&mut allocations);
    allocations.table.keep("allocations");
    println!();
    let mut rounds = Rounds::new();
    measure_all(&mut rounds);
    rounds.table.keep("call_overhead");
    println!();
    measure_all(&mut Times::new(criterion));
}

/// Measures each contender with each kind of request.
fn measure_all(measure: &mut impl Measure) {
    for headers in [4, 8, 16] {
        compare(measure, &format!("{headers} headers"), false, move || {
            request(Headers(headers), in_memory(0))
        });
    }
    let small = || request(Headers(8), in_memory(256));
    compare(measure, "8 headers, 256 bytes", false, small);
    compare(measure, "8 headers, 256 bytes, on clones", true, small);
    for (size, len) in [("64 KiB", 64 * 1024), ("10 MiB", 10 * 1024 * 1024)] {
        let body = in_memory(len);
        compare(measure, &format!("8 headers, {size}"), false, move || {
            request(Headers(8), body.clone())
        });
    }
    let body = Stream::new(4, 256);
    compare(measure, "8 headers, a stream", false, move || {
        request(Headers(8), body.clone())
    });
}

/// Measures each contender with one kind of request.
fn compare<B>(
    measure: &mut impl Measure,
    sent: &str,
    on_clones: bool,
    make: impl Fn() -> Request<B> + Clone + 'static,
) where
    B: Body<Error: Into<BoxError>> + Unpin + Send + 'static,
{
    for contender in Contender::ALL {
        let single = Single {
            measure,
            contender,
            make: make.clone(),
        };
        if on_clones {
            contender.with(OnClones(single));
        } else {
            contender.with(single);
        }
    }
    measure.end(sent);
}

/// A way to measure a call.
trait Measure {
    fn measure<B: 'static>(
        &mut self,
        contender: Contender,
        service: impl Service<Request<B>> + 'static,
        make: impl Fn() -> Request<B> + 'static,
    );

    /// Ends a request kind, after each contender was measured with it, in order.
    fn end(&mut self, sent: &str);
}

/// One contender, one kind of request.
struct Single<'a, M, F> {
    measure: &'a mut M,
    contender: Contender,
    make: F,
}

impl<B: 'static, M: Measure, F: Fn() -> Request<B> + 'static> Work<B> for Single<'_, M, F> {
    type Output = ();

    fn with<S: Service<Request<B>> + 'static>(self, service: S) {
        self.measure.measure(self.contender, service, self.make);
    }
}

// === Measures ===

/// Criterion groups, named after the request kind.
struct Times<'a> {
    criterion: &'a mut Criterion,
    /// Benchmarks of the next group.
    functions: Vec<(&'static str, Function)>,
}

type Function = Box<dyn FnMut(&mut Bencher<'_>)>;

impl<'a> Times<'a> {
    fn new(criterion: &'a mut Criterion) -> Self {
        Self {
            criterion,
            functions: Vec::new(),
        }
    }
}

impl Measure for Times<'_> {
    fn measure<B: 'static>(
        &mut self,
        contender: Contender,
        mut service: impl Service<Request<B>> + 'static,
        make: impl Fn() -> Request<B> + 'static,
    ) {
        let function = move |bencher: &mut Bencher<'_>| {
            bencher.iter_batched(
                &make,
                |request| call(&mut service, request),
                BatchSize::NumIterations(CALLS.into()),
            );
        };
        self.functions.push((contender.name(), Box::new(function)));
    }

    fn end(&mut self, sent: &str) {
        let mut group = self.criterion.benchmark_group(sent);
        for (name, function) in self.functions.drain(..) {
            group.bench_function(name, function);
        }
        group.finish();
    }
}

/// Ratios between contenders that take turns.
struct Rounds {
    table: Table,
    /// Nanoseconds per call, by contender.
    batches: Vec<Box<dyn FnMut() -> f64>>,
}

impl Rounds {
    fn new() -> Self {
        let columns = [
            "request",
            "contender",
            "ns a call",
            "over bare",
            "quartiles",
        ];
        Self {
            table: Table::new(&columns),
            batches: Vec::new(),
        }
    }
}

impl Measure for Rounds {
    fn measure<B: 'static>(
        &mut self,
        _: Contender,
        mut service: impl Service<Request<B>> + 'static,
        make: impl Fn() -> Request<B> + 'static,
    ) {
        self.batches.push(Box::new(move || {
            let requests: Vec<_> = (0..CALLS).map(|_| make()).collect();
            let start = Instant::now();
            for request in requests {
                call(&mut service, request);
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
        }));
    }

    fn end(&mut self, sent: &str) {
        let mut batches = mem::take(&mut self.batches);
        // By contender, and then by round.
        let mut measured = [const { Vec::new() }; Contender::ALL.len()];
        for round in 0..ROUNDS {
            for turn in 0..batches.len() {
                let which = (round + turn) % batches.len();
                measured[which].push(batches[which]());
            }
        }
        let [bare, ..] = &measured;
        for (contender, one) in Contender::ALL.into_iter().zip(&measured) {
            let over_bare = one.iter().zip(bare).map(|(one, bare)| one / bare);
            let [first, middle, third] = quartiles(over_bare.collect());
            self.table.row([
                sent.to_string(),
                contender.name().to_string(),
                format!("{:.0}", median(one.clone())),
                format!("{middle:.2}"),
                format!("{first:.2}..{third:.2}"),
            ]);
        }
    }
}

struct Allocations {
    table: Table,
    counted: Vec<AllocationInfo>,
}

impl Allocations {
    fn new() -> Self {
        Self {
            table: Table::new(&["request", "contender", "allocations", "bytes"]),
            counted: Vec::new(),
        }
    }
}

impl Measure for Allocations {
    fn measure<B: 'static>(
        &mut self,
        _: Contender,
        mut service: impl Service<Request<B>> + 'static,
        make: impl Fn() -> Request<B> + 'static,
    ) {
        for _ in 0..WARM_UP {
            call(&mut service, make());
        }
        let requests: Vec<_> = (0..CALLS).map(|_| make()).collect();
        self.counted.push(allocation_counter::measure(|| {
            for request in requests {
                call(&mut service, request);
            }
        }));
    }

    fn end(&mut self, sent: &str) {
        let of_one = |total: u64| {
            let total = u32::try_from(total).expect("a small number");
            (f64::from(total) / f64::from(CALLS)).to_string()
        };
        for (contender, counted) in Contender::ALL.into_iter().zip(self.counted.drain(..)) {
            self.table.row([
                sent.to_string(),
                contender.name().to_string(),
                of_one(counted.count_total),
                of_one(counted.bytes_total),
            ]);
        }
    }
}

// === On clones ===

/// A service that hands each call to a clone of itself, and work that uses such a service.
#[derive(Clone)]
struct OnClones<T>(T);

impl<B, S: Service<Request<B>> + Clone> Service<Request<B>> for OnClones<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Oneshot<S, Request<B>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.0.clone().oneshot(request)
    }
}

impl<B, W: Work<B>> Work<B> for OnClones<W> {
    type Output = W::Output;

    fn with<S: Service<Request<B>> + Clone + Send + 'static>(self, service: S) -> W::Output {
        self.0.with(OnClones(service))
    }
}

criterion_group! {
    name = benches;
    config = figures::criterion();
    targets = call_overhead
}
criterion_main!(benches);
