//! What a layer adds to a request that is answered well, beside the floor and a fixed header.
//!
//! ```sh
//! cargo bench --bench call_overhead
//! ```
//!
//! Compare within one run only: `bare` is the service alone, `fixed_header` is `tower_http`'s bearer header, which
//! cannot be renewed; `inject_only` and `default` are this layer, with replay off and on.
#![allow(missing_docs)]

use contenders::{Contender, Headers, Work, call, in_memory, request};
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use http::Request;
use tower::Service;

mod contenders;

struct Measure<'a, 'b, M> {
    group: &'a mut BenchmarkGroup<'b, WallTime>,
    name: &'static str,
    make: M,
}

impl<B, M: Fn() -> Request<B>> Work<B> for Measure<'_, '_, M> {
    type Output = ();

    fn with<S: Service<Request<B>>>(self, mut service: S) {
        self.group.bench_function(self.name, |bencher| {
            bencher.iter_batched(
                &self.make,
                |request| call(&mut service, request),
                BatchSize::SmallInput,
            );
        });
    }
}

fn call_overhead(criterion: &mut Criterion) {
    for body in [0, 256, 64 * 1024] {
        let mut group = criterion.benchmark_group(format!("body of {body} bytes"));
        for contender in Contender::ALL {
            contender.with(Measure {
                group: &mut group,
                name: contender.name(),
                make: || request(Headers(8), in_memory(body)),
            });
        }
        group.finish();
    }
}

criterion_group!(benches, call_overhead);
criterion_main!(benches);
