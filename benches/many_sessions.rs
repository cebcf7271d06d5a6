//! The memory of sessions and waiting callers, in bytes: the same number at every run.
//!
//! ```sh
//! cargo bench -p benches --bench many_sessions
//! ```
//!
//! The allocator counts the bytes requested on the one thread that does everything. Each number is the difference between
//! N and 2 N sessions or callers.
//!
//! An idle session has a token of a hundred bytes, an instance and a refresh token; all sessions share one `RefreshFn`. A
//! waiting caller is a task that waits for a refresh with a request of eight headers and no body. The same task waiting for
//! the service alone, which keeps nothing of a request, is subtracted. So is what the caller itself holds: before a first
//! login its request, which was not sent yet; after a 401 the rejection, which the caller gets if the refresh fails.
//!
//! `over hyper-util` wraps a service of the size of hyper-util's client. No caller that waits has a clone of it: the clone is
//! made when there is a session.
//!
//! The second table is the only one with times. Compare within one run only.
#![allow(missing_docs)]

use std::{
    future::{pending, poll_fn},
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use allocation_counter::measure;
use bytes::Bytes;
use contenders::{Accepting, Headers, INSTANCE, call, token};
use figures::Table;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    runtime,
    sync::Semaphore,
    task::yield_now,
    time::{Instant, sleep},
};
use tower::{BoxError, Layer, Service};
use tower_salesforce_auth::{
    RefreshContext, RefreshError, RefreshFn, SalesforceAuthLayer, Session, SessionHandle, Sessions,
};

mod contenders;
mod figures;

const IDLE_GOAL: i64 = 2048;
const WAITING_GOAL: i64 = 1024;

const FEW: usize = 1_000;
const MANY: usize = 100_000;

/// More threads than a session has shards.
const THREADS: usize = 12;

/// Passes over all orgs, with one request for each. The median counts.
const PASSES: usize = 7;

fn main() {
    if !figures::is_wanted() {
        return;
    }
    let mut table = Table::new(&["what", "count", "bytes each", "of them the layer's", "goal"]);
    let mut missed = Vec::new();
    let mut row = |what: &str, count: usize, bytes: i64, others: i64, goal: Option<i64>| {
        let layers = bytes - others;
        table.row([
            what.to_string(),
            count.to_string(),
            bytes.to_string(),
            goal.map_or("–".to_string(), |_| layers.to_string()),
            goal.map_or("–".to_string(), |goal| goal.to_string()),
        ]);
        if let Some(goal) = goal.filter(|goal| layers > *goal) {
            missed.push(format!("{what}: {layers} bytes, and {goal} is the goal"));
        }
    };

    let handles = idle(|made| {
        (0..made)
            .map(|number| handle(number, refresh()))
            .collect::<Vec<_>>()
    });
    row("idle session", FEW, handles, 0, Some(IDLE_GOAL));
    let refreshed = idle(refreshed);
    row(
        "idle session, refreshed",
        FEW,
        refreshed,
        0,
        Some(IDLE_GOAL),
    );
    let bytes = per_one(FEW, used(2 * FEW) - used(FEW));
    row(
        "idle session, used by many threads",
        FEW,
        bytes,
        0,
        Some(IDLE_GOAL),
    );
    let kept = idle(sessions);
    row("idle session in `Sessions`", FEW, kept, 0, Some(IDLE_GOAL));
    let kept = per_one(MANY, measure(|| keep(sessions(MANY))).bytes_current);
    row("idle session in `Sessions`", MANY, kept, 0, Some(IDLE_GOAL));

    let request_bytes = idle(|made| (0..made).map(|_| request()).collect::<Vec<_>>());
    row("request", FEW, request_bytes, 0, None);
    let rejection_bytes = idle(|made| (0..made).map(|_| rejection()).collect::<Vec<_>>());
    row("rejection", FEW, rejection_bytes, 0, None);
    for (over, waiting) in [
        (
            "",
            [When::FirstLogin, When::Rejected].map(|when| waiting_caller((), when)),
        ),
        (
            " over hyper-util",
            [When::FirstLogin, When::Rejected].map(|when| waiting_caller(hyper_client(), when)),
        ),
    ] {
        let [first_login, rejected] = waiting;
        let goal = Some(WAITING_GOAL);
        let what = format!("waiting caller{over}, first login");
        row(&what, FEW, first_login, request_bytes, goal);
        let what = format!("waiting caller{over}, after a 401");
        row(&what, FEW, rejected, rejection_bytes, goal);
    }
    for (what, bytes) in [
        ("size of hyper-util's client", size(&hyper_client())),
        ("size of a response future", future_size(())),
        (
            "size of a response future over hyper-util",
            future_size(hyper_client()),
        ),
    ] {
        row(what, 1, bytes, 0, None);
    }
    table.keep("many_sessions");
    for missed in &missed {
        println!("{missed}");
    }
    println!();
    many_orgs();
}

// === Sessions ===

/// The bytes of one of the values that `make` makes.
fn idle<T>(make: impl Fn(usize) -> T) -> i64 {
    let bytes = |made| measure(|| keep(make(made))).bytes_current;
    per_one(FEW, bytes(2 * FEW) - bytes(FEW))
}

/// Leaks the value, so that its bytes stay counted.
fn keep<T>(made: T) {
    std::mem::forget(black_box(made));
}

fn per_one(count: usize, bytes: i64) -> i64 {
    let count = i64::try_from(count).expect("a small number");
    (bytes + count / 2) / count
}

fn size<T>(of: &T) -> i64 {
    i64::try_from(size_of_val(of)).expect("a small number")
}

fn session(number: usize, refresh_token: &str) -> Session {
    Session::new(token(), INSTANCE)
        .expect("a valid session")
        .with_refresh_token(format!("{number:06}{}", refresh_token.repeat(10)))
}

/// Refreshes any session, with a rotated refresh token.
fn refresh() -> impl RefreshFn + Clone {
    |_: RefreshContext| std::future::ready(Ok::<_, RefreshError>(session(0, "5Aep861R")))
}

fn handle(number: usize, refresh_fn: impl RefreshFn) -> SessionHandle {
    let handle = SessionHandle::new(refresh_fn);
    handle.set(session(number, "5Aep861I"));
    handle
}

fn refreshed(made: usize) -> Vec<SessionHandle> {
    let runtime = runtime();
    let handles: Vec<_> = (0..made).map(|number| handle(number, refresh())).collect();
    runtime.block_on(async {
        for handle in &handles {
            handle.refresh().await.expect("a session");
        }
    });
    handles
}

/// The bytes of sessions after each of many threads sent a request with each of them.
fn used(made: usize) -> i64 {
    let send = |handles: &[SessionHandle]| {
        let mut client = contenders::layer().layer(Accepting);
        for handle in handles {
            let mut request = request();
            request.extensions_mut().insert(handle.clone());
            call(&mut client, request);
        }
    };
    let mut handles = Vec::new();
    let here = measure(|| {
        handles.extend((0..made).map(|number| handle(number, refresh())));
    });
    let there = (0..THREADS).map(|_| {
        let handles = &handles;
        let sent = thread::scope(|scope| scope.spawn(|| measure(|| send(handles))).join());
        sent.expect("that it was sent").bytes_current
    });
    let bytes = here.bytes_current + there.sum::<i64>();
    keep(handles);
    bytes
}

fn sessions(made: usize) -> Sessions<String> {
    let numbers = AtomicUsize::new(0);
    let sessions = Sessions::new(made, move |_: &String| {
        handle(numbers.fetch_add(1, Ordering::Relaxed), refresh())
    });
    for number in 0..made {
        sessions.get(&org(number)).expect("a session");
    }
    sessions
}

/// A key as long as an org's id.
fn org(number: usize) -> String {
    format!("00Dxx{number:013}")
}

// === Callers ===

/// When a caller has to wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    FirstLogin,
    Rejected,
}

/// The bytes of a caller that waits for a refresh, less those of a caller that waits for an answer.
fn waiting_caller<C: Clone + Send + Sync + 'static>(carried: C, when: When) -> i64 {
    let bytes = |callers| {
        let gate = Arc::new(Semaphore::new(0));
        let service = Rejecting {
            gate: Some(Arc::clone(&gate)),
            carried: carried.clone(),
        };
        let layer = SalesforceAuthLayer::new(|_: RefreshContext| {
            pending::<Result<Session, RefreshError>>()
        });
        if let When::Rejected = when {
            layer.handle().set(session(0, "5Aep861I"));
        }
        waiting(callers, layer.layer(service), || gate.close())
    };
    let floor = |callers| {
        let service = Rejecting {
            gate: None,
            carried: carried.clone(),
        };
        waiting(callers, service, || ())
    };
    per_one(FEW, bytes(2 * FEW) - bytes(FEW)) - per_one(FEW, floor(2 * FEW) - floor(FEW))
}

/// The bytes of this many callers that wait, once `reject` has let their answers come.
fn waiting<S>(callers: usize, mut service: S, reject: impl FnOnce()) -> i64
where
    S: Service<Request<Full<Bytes>>, Future: Send, Response: Send, Error: Send> + 'static,
    S::Future: 'static,
{
    let runtime = runtime();
    runtime.block_on(async {
        // The runtime allocates its room for this many tasks here.
        for _ in 0..4 * callers {
            tokio::spawn(yield_now());
        }
        sleep(Duration::from_millis(10)).await;
    });
    measure(|| {
        runtime.block_on(async {
            for _ in 0..callers {
                let ready = poll_fn(|cx| service.poll_ready(cx)).await;
                assert!(ready.is_ok());
                tokio::spawn(service.call(request()));
            }
            yield_now().await;
            reject();
            // Every caller waits for the refresh after that.
            sleep(Duration::from_millis(20)).await;
        });
    })
    .bytes_current
}

fn request() -> Request<Full<Bytes>> {
    contenders::request(Headers(8), Full::default())
}

/// Keeps nothing of a request, and does not answer before the gate is closed.
#[derive(Clone)]
struct Rejecting<C> {
    /// The answer comes when it is closed. `None` if no answer ever comes.
    gate: Option<Arc<Semaphore>>,
    /// Makes the service as large as another one.
    carried: C,
}

impl<B, C> Service<Request<B>> for Rejecting<C> {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        black_box(&self.carried);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let Some(gate) = self.gate.clone() else {
            return Box::pin(pending());
        };
        Box::pin(async move {
            // The gate never has a permit: this returns when the gate is closed.
            let _ = gate.acquire().await;
            Ok(rejection())
        })
    }
}

fn rejection() -> Response<Full<Bytes>> {
    let body = r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#;
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = StatusCode::UNAUTHORIZED;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn hyper_client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn future_size<C: Clone>(carried: C) -> i64 {
    let mut service = contenders::layer().layer(Rejecting {
        gate: None,
        carried,
    });
    size(&service.call(request()))
}

fn runtime() -> runtime::Runtime {
    runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

// === Many orgs ===

/// One client, and a session for each request.
fn many_orgs() {
    let mut table = Table::new(&["what", "count", "requests per second", "MiB in all"]);
    let mut row = |what: &str, count: usize, send: &mut dyn FnMut(usize), held: i64| {
        let mut passes = [(); PASSES].map(|()| {
            let start = Instant::now();
            for number in 0..MANY {
                send(number);
            }
            start.elapsed()
        });
        passes.sort();
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let (sent, held) = (MANY as f64, held as f64);
        let per_second = sent / passes[PASSES / 2].as_secs_f64();
        table.row([
            what.to_string(),
            count.to_string(),
            format!("{per_second:.0}"),
            format!("{:.1}", held / 1024.0 / 1024.0),
        ]);
    };
    let mut bare = Accepting;
    row("no session", 0, &mut |_| call(&mut bare, request()), 0);
    let mut client = contenders::layer().layer(Accepting);
    row("one session", 1, &mut |_| call(&mut client, request()), 0);

    let mut kept = None;
    let held = measure(|| kept = Some(sessions(MANY))).bytes_current;
    let sessions = kept.expect("that they were made");
    let mut send = |number| {
        let mut request = request();
        let handle = sessions.get(&org(number)).expect("a session");
        request.extensions_mut().insert(handle);
        call(&mut client, request);
    };
    row("a session for each request", MANY, &mut send, held);
    assert_eq!(sessions.len(), MANY, "nothing was evicted");
    table.keep("many_sessions_throughput");
}
