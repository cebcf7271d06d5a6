//! What a layer adds to a request that is answered well, beside the floor and a fixed header.
//!
//! ```sh
//! cargo bench --bench call_overhead
//! ```
//!
//! Compare within one run only: `bare` is the service alone, `fixed_header` is `tower_http`'s bearer header, which
//! cannot be renewed; what is left is this layer, with replay off and on.
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_salesforce_auth::{RefreshContext, RefreshError, SalesforceAuthLayer, Session};

const INSTANCE: &str = "https://MyDomainName.my.salesforce.com";

/// Accepts everything at once.
#[derive(Clone)]
struct Accepting;

impl<B> Service<Request<B>> for Accepting {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::default()))
    }
}

/// Eight headers: three that are the same for every request, two of the client's, three of this one's.
fn request(body: usize) -> Request<Full<Bytes>> {
    let path = "/services/data/v66.0/sobjects/Account/001xx000003DGb2AAG";
    let mut request = Request::post(format!("{INSTANCE}{path}"))
        .body(Full::from(vec![7; body]))
        .expect("a valid request");
    for name in ["accept", "accept-encoding", "content-type"] {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static("application/json"));
    }
    for name in [
        "user-agent",
        "sforce-call-options",
        "x-request-id",
        "traceparent",
        "x-batch",
    ] {
        let value =
            HeaderValue::from_str(&format!("{name} of this request")).expect("a valid value");
        request.headers_mut().insert(name, value);
    }
    request
}

fn call(service: &mut impl Service<Request<Full<Bytes>>>, request: Request<Full<Bytes>>) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    assert!(pin!(service.call(request)).poll(&mut cx).is_ready());
}

fn call_overhead(criterion: &mut Criterion) {
    let token = "00Dxx0000001gEF!AQEAQ".repeat(5);
    let session = || Session::new(&*token, INSTANCE).expect("a valid session");
    let layer = SalesforceAuthLayer::new(|_: RefreshContext| async {
        Session::new("T1", INSTANCE).map_err(RefreshError::terminal)
    })
    .session(session());
    let mut bare = Accepting;
    let mut fixed_header = AddAuthorizationLayer::bearer(&token).layer(Accepting);
    let mut inject_only = layer.clone().max_refreshes(0).layer(Accepting);
    let mut replay = layer.layer(Accepting);

    for body in [0, 256, 64 * 1024] {
        let mut group = criterion.benchmark_group(format!("body of {body} bytes"));
        macro_rules! contender {
            ($service:ident) => {
                group.bench_function(stringify!($service), |bencher| {
                    bencher.iter_batched(
                        || request(body),
                        |request| call(&mut $service, request),
                        BatchSize::SmallInput,
                    );
                });
            };
        }
        contender!(bare);
        contender!(fixed_header);
        contender!(inject_only);
        contender!(replay);
        group.finish();
    }
}

criterion_group!(benches, call_overhead);
criterion_main!(benches);
