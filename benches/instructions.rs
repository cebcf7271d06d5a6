//! What a layer adds to a request that is answered well, and what a replay takes, in instructions: the same number at every
//! run.
//!
//! ```sh
//! cargo bench -p benches --bench instructions
//! ```
//!
//! The bench runs itself under valgrind's callgrind, once for each contender and request. It reports missed goals, and fails
//! where a call takes more instructions than before. Without valgrind it says so, and counts nothing.
//!
//! Each number of the first table counts one call, from `poll_ready` to the answer, without making the request. A contender
//! adds its number less that of the service alone. The second table counts the one poll that gets a rejection, finds a newer
//! session, sends the request again, and gets the second answer.
#![allow(missing_docs)]

use std::{
    cell::Cell,
    env,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use contenders::{Contender, Headers, INSTANCE, Stream, Work, call, in_memory, request};
use figures::Table;
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use tower::{BoxError, Layer, Service};
use tower_salesforce_auth::Session;

mod callgrind;
mod contenders;
mod figures;

/// Calls made before counting starts, so that one-time work is over.
const WARM_UP: usize = 32;

/// Calls that are counted; the result is their mean.
const CALLS: usize = 64;

/// Goals for a request with eight headers and 256 bytes: the instructions that injection alone and the default add, and those
/// of a replay.
const INJECTION_GOAL: i64 = 850;
const DEFAULT_GOAL: i64 = 2_450;
const REPLAY_GOAL: i64 = 11_000;

/// Upper bounds, with a twentieth to spare for other compilers and allocators.
const INJECTION_CEILING: i64 = 900;
const DEFAULT_CEILING: i64 = 2_500;
const REPLAY_CEILING: i64 = 11_500;

/// A request: its number of headers, and the bytes of its body. `None` for a stream of two frames.
///
/// At most eight headers: with 16, glibc frees the values of the bare request in another way than those of the others, which moves
/// the difference by 200.
type Sent = (Headers, Option<usize>);

const SENT: [Sent; 5] = [
    (Headers(4), Some(0)),
    (Headers(8), Some(0)),
    (Headers(8), Some(256)),
    (Headers(8), Some(64 * 1024)),
    (Headers(8), None),
];

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match *arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        ["--one", contender, sent] => {
            let contender = Contender::named(contender).expect("a contender");
            let sent = SENT[sent.parse::<usize>().expect("a number")];
            match sent {
                (headers, Some(len)) => contender.with(Repeat(|| request(headers, in_memory(len)))),
                (headers, None) => contender.with(Repeat(|| request(headers, Stream::new(2, 256)))),
            }
        }
        ["--replay", len] => replay(len.parse().expect("a number")),
        _ if figures::is_wanted() && callgrind::is_there() => count_all(),
        _ => {}
    }
}

fn count_all() {
    let calls = count_calls();
    let replays = count_replays();
    for missed in calls.iter().chain(&replays) {
        println!("{missed}");
    }
}

// === Calls ===

struct Repeat<M>(M);

impl<B, M: Fn() -> Request<B>> Work<B> for Repeat<M> {
    type Output = ();

    fn with<S: Service<Request<B>>>(self, mut service: S) {
        for _ in 0..WARM_UP {
            call(&mut service, self.0());
        }
        for _ in 0..CALLS {
            counted_call(&mut service, self.0());
        }
    }
}

/// Callgrind counts the instructions inside a function of this name.
#[inline(never)]
fn counted_call<S: Service<Request<B>>, B>(service: &mut S, request: Request<B>) {
    call(service, request);
}

/// Counts each contender with each request, and returns the goals that were missed.
fn count_calls() -> Vec<String> {
    let [bare, fixed_header, inject_only, default] = Contender::ALL.map(Contender::name);
    let mut table = Table::new(&["request", bare, fixed_header, inject_only, default]);
    let mut missed = Vec::new();
    for (number, (headers, body)) in SENT.into_iter().enumerate() {
        let sent = match body {
            Some(len) => format!("{} headers, {len} bytes", headers.0),
            None => format!("{} headers, a stream", headers.0),
        };
        let count = |contender: Contender| count(&["--one", contender.name(), &number.to_string()]);
        let [bare, others @ ..] = Contender::ALL.map(count);
        let [fixed_header, inject_only, default] = others.map(|other| other - bare);
        table.row([
            sent.clone(),
            bare.to_string(),
            format!("{fixed_header:+}"),
            format!("{inject_only:+}"),
            format!("{default:+}"),
        ]);
        if (headers, body) != (Headers(8), Some(256)) {
            continue;
        }
        for (contender, adds, goal, ceiling) in [
            ("injection", inject_only, INJECTION_GOAL, INJECTION_CEILING),
            ("the default", default, DEFAULT_GOAL, DEFAULT_CEILING),
        ] {
            assert!(
                adds <= ceiling,
                "{sent}: {contender} adds {adds}, and {ceiling} is what it may add"
            );
            if adds > goal {
                missed.push(format!(
                    "{sent}: {contender} adds {adds}, and {goal} is the goal"
                ));
            }
        }
    }
    table.keep("instructions");
    missed
}

// === Replays ===

/// Counts replays, and returns the goals that were missed.
fn count_replays() -> Vec<String> {
    let mut table = Table::new(&["replayed request", "instructions"]);
    let mut missed = Vec::new();
    for len in [0, 256, 64 * 1024] {
        let sent = format!("8 headers, {len} bytes");
        let replay = count(&["--replay", &len.to_string()]);
        table.row([sent.clone(), replay.to_string()]);
        assert!(
            replay <= REPLAY_CEILING,
            "{sent}: a replay takes {replay}, and {REPLAY_CEILING} is what it may take"
        );
        if len == 256 && replay > REPLAY_GOAL {
            missed.push(format!(
                "{sent}: a replay takes {replay}, and {REPLAY_GOAL} is the goal"
            ));
        }
    }
    table.keep("replays");
    missed
}

/// Replays requests with a body of this length. The newer session is set before the rejection comes.
fn replay(len: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let _entered = runtime.enter();
    let layer = contenders::layer();
    let handle = layer.handle();
    let mut service = layer.layer(Rejecting(Rc::default()));
    let mut cx = Context::from_waker(Waker::noop());
    for number in 0..WARM_UP + CALLS {
        let mut answer = pin!(service.call(request(Headers(8), in_memory(len))));
        assert!(answer.as_mut().poll(&mut cx).is_pending());
        let newer = Session::new(format!("{}{number}", contenders::token()), INSTANCE);
        handle.set(newer.expect("a session"));
        let answer = if number < WARM_UP {
            answer.poll(&mut cx)
        } else {
            counted_call_of(answer, &mut cx)
        };
        let Poll::Ready(Ok(answer)) = answer else {
            panic!("no second answer");
        };
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

/// Callgrind counts the instructions inside a function of this name.
#[inline(never)]
fn counted_call_of<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    future.poll(cx)
}

/// Rejects every other request at the second poll, and accepts the others at once.
#[derive(Clone)]
struct Rejecting(Rc<Cell<usize>>);

impl<B> Service<Request<B>> for Rejecting {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Answer {
        let number = self.0.replace(self.0.get() + 1);
        if number.is_multiple_of(2) {
            Answer(Some(rejection()), true)
        } else {
            Answer(Some(Response::default()), false)
        }
    }
}

/// An answer, and whether the next poll is too early.
struct Answer(Option<Response<Full<Bytes>>>, bool);

impl Future for Answer {
    type Output = Result<Response<Full<Bytes>>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.1) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(self.0.take().expect("one answer")))
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

/// The instructions of one call, or of one replay.
fn count(arguments: &[&str]) -> i64 {
    let total = callgrind::count(Some("*counted_call*"), arguments);
    total / i64::try_from(CALLS).expect("a small number")
}
