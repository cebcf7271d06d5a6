//! Any body, read in any way and rejected at any point, compared with a model of its replay (R9).

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};
use tower_salesforce_auth::{
    BoxError, RefreshContext, ReplayBody,
    request::{AuthOutcome, ReplaySkipped},
};

use crate::support::{session, starting_with};

#[derive(Clone, Debug)]
enum Step {
    Data(usize),
    Pending,
    Error,
}

/// The size hint of a body.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hint {
    Exact,
    None,
    Bounds,
    LowerOnly,
}

/// What a transport does with a body after the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Drop,
    KeepPolling,
    Hold,
}

#[derive(Clone, Debug)]
struct Case {
    steps: Vec<Step>,
    trailers: bool,
    hint: Hint,
    knows_end: bool,
    limit: usize,
    read: usize,
    then: Then,
    refreshes: u32,
}

/// A body whose bytes show their position. It panics if it is polled after its end.
struct Model {
    steps: VecDeque<Step>,
    trailers: bool,
    hint: Hint,
    knows_end: bool,
    at: usize,
    done: bool,
}

impl Model {
    fn remaining(&self) -> u64 {
        self.steps
            .iter()
            .map(|step| {
                if let Step::Data(n) = step {
                    *n as u64
                } else {
                    0
                }
            })
            .sum()
    }
    fn byte(at: usize) -> u8 {
        u8::try_from(at % 251).unwrap()
    }
}

impl Body for Model {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        assert!(!self.done, "polled after completion");
        match self.steps.pop_front() {
            Some(Step::Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Data(n)) => {
                let bytes: Vec<u8> = (self.at..self.at + n).map(Self::byte).collect();
                self.at += n;
                Poll::Ready(Some(Ok(Frame::data(bytes.into()))))
            }
            Some(Step::Error) => {
                self.done = true;
                Poll::Ready(Some(Err("broken".into())))
            }
            None if self.trailers => {
                self.trailers = false;
                let mut map = HeaderMap::new();
                map.insert("x-end", HeaderValue::from_static("yes"));
                Poll::Ready(Some(Ok(Frame::trailers(map))))
            }
            None => {
                self.done = true;
                Poll::Ready(None)
            }
        }
    }
    fn is_end_stream(&self) -> bool {
        self.done || (self.knows_end && self.steps.is_empty() && !self.trailers)
    }
    fn size_hint(&self) -> SizeHint {
        let n = self.remaining();
        let mut hint = SizeHint::new();
        match self.hint {
            Hint::Exact => hint = SizeHint::with_exact(n),
            Hint::None => {}
            Hint::Bounds => {
                hint.set_lower(n / 2);
                hint.set_upper(n + 7);
            }
            Hint::LowerOnly => hint.set_lower(n / 2),
        }
        hint
    }
}

#[derive(Debug, Default)]
struct ReadOff {
    bytes: Vec<u8>,
    trailers: bool,
    error: bool,
    ended: bool,
}

/// Reads up to `frames` frames, and checks the size hint and the end at every stage.
async fn read_off(
    body: &mut ReplayBody<Model>,
    frames: usize,
    total: Option<u64>,
    exact: bool,
    off: &mut ReadOff,
) {
    for _ in 0..frames {
        let hint = body.size_hint();
        if let Some(total) = total {
            let left = total - off.bytes.len() as u64;
            assert!(
                hint.lower() <= left && hint.upper().is_none_or(|u| u >= left),
                "{hint:?} for {left}"
            );
            if exact && !off.trailers {
                assert_eq!(hint.exact(), Some(left));
            }
        }
        let says_end = body.is_end_stream();
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => {
                off.ended = true;
                assert!(
                    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))
                        .await
                        .is_none()
                );
                return;
            }
            Some(Err(_)) => {
                off.error = true;
                return;
            }
            Some(Ok(frame)) => {
                assert!(!off.trailers, "after trailers");
                match frame.into_data() {
                    Ok(data) => {
                        assert!(!says_end || data.is_empty(), "data after is_end_stream");
                        off.bytes.extend_from_slice(&data);
                    }
                    Err(_) => {
                        assert!(!says_end, "trailers after is_end_stream");
                        off.trailers = true;
                    }
                }
            }
        }
    }
}

#[expect(
    clippy::too_many_lines,
    reason = "one exchange, in the order in which it happens"
)]
fn run(case: &Case) {
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let case = case.clone();
    rt.block_on(async move {
        let all: usize = case
            .steps
            .iter()
            .map(|s| if let Step::Data(n) = s { *n } else { 0 })
            .sum();
        let has_error = case.steps.iter().any(|s| matches!(s, Step::Error));
        let expected: Vec<u8> = (0..all).map(Model::byte).collect();
        let attempts = Arc::new(Mutex::new(Vec::<ReadOff>::new()));
        let log = Arc::clone(&attempts);
        let c = case.clone();
        let total = (!has_error).then_some(all as u64);
        let calls = Arc::new(AtomicU32::new(0));
        let n_calls = Arc::clone(&calls);
        let held = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&held);
        let inner = service_fn(move |request: Request<ReplayBody<Model>>| {
            let (log, c, keep) = (Arc::clone(&log), c.clone(), Arc::clone(&keep));
            let n = n_calls.fetch_add(1, Ordering::SeqCst);
            async move {
                let mut body = request.into_body();
                let mut off = ReadOff::default();
                let exact = c.hint == Hint::Exact && total.is_some();
                let is_last = n == c.refreshes;
                let frames = if is_last { usize::MAX } else { c.read };
                read_off(&mut body, frames, total, exact, &mut off).await;
                if !is_last {
                    match c.then {
                        Then::Drop => drop(body),
                        Then::Hold => keep.lock().unwrap().push(body),
                        Then::KeepPolling => {
                            if !off.error && !off.ended {
                                tokio::spawn(async move {
                                    let mut more = ReadOff::default();
                                    loop {
                                        tokio::task::yield_now().await;
                                        read_off(&mut body, 1, None, false, &mut more).await;
                                        if more.error || more.ended {
                                            break;
                                        }
                                    }
                                    // Some transports poll on after an error.
                                    let again =
                                        poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
                                    assert!(again.is_none_or(|item| item.is_err()));
                                });
                            }
                        }
                    }
                }
                let error = off.error;
                log.lock().unwrap().push(off);
                if error {
                    return Err(BoxError::from("transport: body broke"));
                }
                let mut response = Response::new(Full::<Bytes>::default());
                if !is_last {
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                }
                Ok(response)
            }
        });
        let tokens = Arc::new(AtomicU32::new(0));
        let layer = starting_with(session("T0"), move |_: RefreshContext| {
            let n = tokens.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok(session(&format!("T{n}"))) }
        })
        .max_refreshes(case.refreshes)
        .replay_limit(case.limit);
        let body = Model {
            steps: case.steps.iter().cloned().collect(),
            trailers: case.trailers && !has_error,
            hint: case.hint,
            knows_end: case.knows_end,
            at: 0,
            done: false,
        };
        let request = Request::post("/x").body(body).unwrap();
        let response = layer.layer(inner).oneshot(request).await;
        let attempts = attempts.lock().unwrap();
        for off in attempts.iter() {
            assert!(expected.starts_with(&off.bytes), "bytes are not a prefix");
        }
        match response {
            Ok(response) if response.status() == StatusCode::OK => {
                let last = attempts.last().unwrap();
                assert!(!has_error, "a broken body was sent as complete");
                assert_eq!(last.bytes, expected);
                assert_eq!(last.trailers, case.trailers);
                assert_eq!(attempts.len(), case.refreshes as usize + 1);
            }
            Ok(response) => {
                let outcome = response.extensions().get::<AuthOutcome>().unwrap();
                assert_eq!(
                    outcome.replay_skipped(),
                    Some(ReplaySkipped::BodyNotReplayable)
                );
                // Without an error or a kept body, only the limit may prevent the replay.
                if case.then != Then::Hold && !has_error {
                    assert!(all > case.limit, "given up without a reason");
                }
            }
            Err(error) => assert!(has_error, "{error}"),
        }
    });
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![4 => (0usize..40).prop_map(Step::Data), 1 => Just(Step::Data(0)), 3 => Just(Step::Pending), 1 => Just(Step::Error)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn r09_a_replay_matches_the_model(
        steps in proptest::collection::vec(step(), 0..8),
        trailers in any::<bool>(),
        hint in prop_oneof![Just(Hint::Exact), Just(Hint::None), Just(Hint::Bounds), Just(Hint::LowerOnly)],
        knows_end in any::<bool>(),
        limit in prop_oneof![Just(0usize), 1usize..200, Just(64 * 1024), Just(usize::MAX)],
        read in 0usize..10,
        then in prop_oneof![Just(Then::Drop), Just(Then::KeepPolling), Just(Then::Hold)],
        refreshes in 1u32..4,
    ) {
        run(&Case { steps, trailers, hint, knows_end, limit, read, then, refreshes });
    }
}
