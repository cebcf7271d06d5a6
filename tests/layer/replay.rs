//! Which bodies are replayed (R8), and that replays are identical (R9).

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};
use tower_salesforce_auth::{ReplayBody, request::ReplaySkipped};

use crate::support::{Api, EXPIRED, Refresher, expired, get, outcome, post, send, text};

type AnyBody = UnsyncBoxBody<Bytes, std::io::Error>;

fn request(
    body: impl Body<Data = Bytes, Error = std::io::Error> + Send + 'static,
) -> Request<AnyBody> {
    Request::post("/services/data/")
        .body(UnsyncBoxBody::new(body))
        .expect("a valid request")
}

fn in_memory(data: impl Into<Bytes>) -> AnyBody {
    let full = Full::new(data.into()).map_err(|never| match never {});
    UnsyncBoxBody::new(full)
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.append("x-checksum", HeaderValue::from_static("1"));
    trailers.append("x-checksum", HeaderValue::from_static("2"));
    trailers
}

fn skipped<B>(response: &http::Response<B>) -> Option<ReplaySkipped> {
    outcome(response).replay_skipped()
}

// === Script ===

/// A scripted body: one step for each poll.
struct Script {
    steps: VecDeque<Step>,
    hint: SizeHint,
}

#[derive(Clone, Debug)]
enum Step {
    Pend,
    Data(Bytes),
    Trailers,
    Fail,
}

impl Script {
    /// A body of unknown size.
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            hint: SizeHint::default(),
        }
    }

    /// A body whose size is known and right at every stage.
    fn sized(steps: impl IntoIterator<Item = Step>) -> Self {
        let mut script = Self::new(steps);
        script.hint = SizeHint::with_exact(script.len());
        script
    }

    fn len(&self) -> u64 {
        let len = |step: &Step| match step {
            Step::Data(data) => data.len() as u64,
            _ => 0,
        };
        self.steps.iter().map(len).sum()
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let Some(step) = self.steps.pop_front() else {
            return Poll::Ready(None);
        };
        if self.hint.exact().is_some() {
            self.hint = SizeHint::with_exact(match &step {
                Step::Data(data) => self.hint.lower() - data.len() as u64,
                _ => self.hint.lower(),
            });
        }
        match step {
            Step::Pend => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Step::Data(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Step::Trailers => Poll::Ready(Some(Ok(Frame::trailers(trailers())))),
            Step::Fail => Poll::Ready(Some(Err(std::io::Error::other("broke off")))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

// === R8 ===

#[tokio::test]
async fn r08_a_stream_beyond_the_limit_is_not_replayed() {
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let service = refresher.layer().layer(api.clone());
    let chunk = Bytes::from(vec![7; 1024]);
    let chunks = stream::iter((0..65).map(move |_| Ok(Frame::data(chunk.clone()))));

    let response = send(&service, request(StreamBody::new(chunks)))
        .await
        .unwrap();

    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(skipped(&response), Some(ReplaySkipped::BodyNotReplayable));
    assert_eq!(text(response).await, EXPIRED);
    assert_eq!((api.calls(), refresher.count()), (1, 1));
    assert_eq!(api.seen()[0].body.len(), 65 * 1024, "sent in full, once");

    let response = send(&service, get("/services/data/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((api.calls(), refresher.count()), (2, 1));
    assert_eq!(api.tokens(), ["T0", "T1"]);
}

#[tokio::test]
async fn r08_a_stream_up_to_the_limit_is_replayed_in_full() {
    for (limit, len, is_replayed) in [
        (64 * 1024, 64 * 1024, true),
        (10, 10, true),
        (10, 11, false),
        (0, 1, false),
    ] {
        let api = Api::accepting("T1");
        let refresher = Refresher::of(&api);
        let service = refresher.layer().replay_limit(limit).layer(api.clone());
        let bytes = (0..len).map(|n| u8::try_from(n % 251).unwrap());
        let data: Vec<Bytes> = bytes.map(|byte| Bytes::from(vec![byte])).collect();
        let steps = data
            .iter()
            .cloned()
            .flat_map(|data| [Step::Pend, Step::Data(data)]);

        let response = send(&service, request(Script::new(steps))).await.unwrap();

        let seen = api.seen();
        assert_eq!(seen[0].body, data.concat());
        if is_replayed {
            assert_eq!(response.status(), StatusCode::OK, "limit {limit}");
            assert_eq!(seen[1].body, seen[0].body);
        } else {
            assert_eq!(skipped(&response), Some(ReplaySkipped::BodyNotReplayable));
            assert_eq!(seen.len(), 1);
        }
    }
}

#[tokio::test]
async fn r08_a_body_that_errors_in_the_middle_is_not_replayed() {
    // The API fails on the body, and the caller gets the body's own error.
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let service = refresher.layer().layer(api.clone());
    for steps in [
        vec![Step::Fail],
        vec![Step::Data(Bytes::from("one")), Step::Fail],
        vec![
            Step::Pend,
            Step::Data(Bytes::from("one")),
            Step::Pend,
            Step::Fail,
        ],
    ] {
        let error = send(&service, request(Script::new(steps)))
            .await
            .unwrap_err();
        let error: &std::io::Error = error.downcast_ref().expect("the body's own error");
        assert_eq!(error.to_string(), "broke off");
    }
    assert_eq!((api.calls(), refresher.count()), (0, 0));

    // This server answers although the body failed.
    let calls = Arc::new(AtomicUsize::new(0));
    let inner = {
        let calls = calls.clone();
        service_fn(move |request: Request<ReplayBody<AnyBody>>| {
            calls.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(request.into_body().collect().await.is_err());
                Ok::<_, std::convert::Infallible>(expired())
            }
        })
    };
    let service = refresher.layer().layer(inner);
    let steps = [Step::Pend, Step::Data(Bytes::from("one")), Step::Fail];
    let response = send(&service, request(Script::new(steps))).await.unwrap();
    assert_eq!(skipped(&response), Some(ReplaySkipped::BodyNotReplayable));
    assert_eq!((calls.load(Ordering::SeqCst), refresher.count()), (1, 1));
}

// === R9 ===

#[tokio::test]
async fn r09_a_body_in_memory_is_replayed_without_a_copy() {
    // A small body is copied: a second `Bytes` on it costs more.
    const COPIED: usize = 1024;
    for len in [0, 1, COPIED, COPIED + 1, 64 * 1024, 10 * 1024 * 1024] {
        let api = Api::accepting("T1");
        let refresher = Refresher::of(&api);
        let service = refresher.layer().layer(api.clone());
        let data = Bytes::from(vec![7; len]);

        let response = send(&service, post("/services/data/", data.clone()))
            .await
            .unwrap();

        assert_eq!(response.status(), StatusCode::OK);
        let seen = api.seen();
        assert_eq!(seen.len(), 2);
        for seen in &seen {
            assert!(seen.body == data, "{len} bytes");
            if len > COPIED {
                assert_eq!(seen.body.as_ptr(), data.as_ptr(), "{len} bytes copied");
            }
        }
        assert_eq!(seen[0].other_headers(), seen[1].other_headers());
    }
}

#[tokio::test]
async fn r09_trailers_are_replayed_and_their_body_is_not_copied() {
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let service = refresher.layer().layer(api.clone());
    let data = Bytes::from(vec![7; 1024 * 1024]);
    let body = Full::new(data.clone())
        .map_err(|never: std::convert::Infallible| match never {})
        .with_trailers(std::future::ready(Some(Ok(trailers()))));

    let response = send(&service, request(body)).await.unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    for seen in api.seen() {
        assert_eq!(seen.body.as_ptr(), data.as_ptr());
        assert_eq!(seen.trailers, Some(trailers()));
    }

    // The trailers of a stream are replayed too.
    let api = Api::accepting("T1");
    let service = Refresher::of(&api).layer().layer(api.clone());
    let steps = [
        Step::Pend,
        Step::Data(data.slice(..9)),
        Step::Pend,
        Step::Trailers,
    ];
    send(&service, request(Script::new(steps))).await.unwrap();
    assert_eq!(api.seen().len(), 2);
    for seen in api.seen() {
        assert_eq!(seen.body, data.slice(..9));
        assert_eq!(seen.trailers, Some(trailers()));
    }
}

#[tokio::test]
async fn a_body_of_which_nothing_is_kept_is_sent_unchanged() {
    use Step::{Data, Fail, Pend, Trailers};

    let inner = service_fn(|request: Request<ReplayBody<AnyBody>>| async {
        // Each frame, or the error, and the size that is declared before it.
        let mut body = request.into_body();
        let mut seen = vec![format!("{:?}", body.size_hint().exact())];
        while let Some(frame) = body.frame().await {
            seen.push(match frame.map(Frame::into_data) {
                Ok(Ok(data)) => format!("{data:?}, then {:?}", body.size_hint().exact()),
                Ok(Err(frame)) => format!("{:?}", frame.trailers_ref()),
                Err(error) => error.to_string(),
            });
        }
        Ok::<_, std::convert::Infallible>(http::Response::new(Full::<Bytes>::from(seen.join("\n"))))
    });
    let refresher = Refresher::of(&Api::accepting("T0"));
    let service = refresher.layer().max_refreshes(0).layer(inner);
    let data = |text: &'static str| Data(Bytes::from_static(text.as_bytes()));
    let ended = format!("{:?}", Some(trailers()));
    for (script, expected) in [
        (vec![], vec!["Some(0)"]),
        (vec![data("one")], vec!["Some(3)", "b\"one\", then Some(0)"]),
        (
            vec![data("one"), data("two")],
            vec![
                "Some(6)",
                "b\"one\", then Some(3)",
                "b\"two\", then Some(0)",
            ],
        ),
        (
            vec![Pend, data("one"), Pend, Trailers],
            vec!["Some(3)", "b\"one\", then Some(0)", &ended],
        ),
        (
            vec![data("one"), Trailers],
            vec!["Some(3)", "b\"one\", then Some(0)", &ended],
        ),
        (vec![Fail], vec!["Some(0)", "broke off"]),
        (
            vec![data("one"), Fail],
            vec!["Some(3)", "b\"one\", then Some(0)", "broke off"],
        ),
    ] {
        let sized = send(&service, request(Script::sized(script.clone()))).await;
        assert_eq!(
            text(sized.unwrap()).await,
            expected.join("\n"),
            "{script:?}"
        );
        let unsized_body = send(&service, request(Script::new(script.clone()))).await;
        let expected: Vec<_> = expected
            .iter()
            .map(|line| match line.split_once("Some(") {
                Some((before, size)) if size.len() == 2 => format!("{before}None"),
                _ => (*line).to_string(),
            })
            .collect();
        assert_eq!(
            text(unsized_body.unwrap()).await,
            expected.join("\n"),
            "{script:?}"
        );
    }
}

#[tokio::test]
async fn r09_the_head_is_replayed_header_for_header() {
    #[derive(Clone, Debug, PartialEq)]
    struct Tag(u32);

    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let tags = Arc::new(Mutex::new(Vec::new()));
    let inner = {
        let (api, tags) = (api.clone(), tags.clone());
        service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            tags.lock()
                .unwrap()
                .push(request.extensions().get::<Tag>().cloned());
            api.clone()
                .oneshot(request)
                .map(|answer| answer.map_err(std::io::Error::other))
        })
    };
    let service = refresher.layer().layer(inner);
    let mut request = post("/services/data/v66.0/query?q=SELECT+Id&x=%2F", "body");
    *request.method_mut() = Method::from_bytes(b"PURGE").unwrap();
    *request.version_mut() = Version::HTTP_2;
    request.extensions_mut().insert(Tag(7));
    let headers = request.headers_mut();
    headers.append("accept", HeaderValue::from_static("application/json"));
    headers.append("cookie", HeaderValue::from_static("a=1"));
    headers.append("cookie", HeaderValue::from_static("b=2"));
    headers.insert("x-empty", HeaderValue::from_static(""));
    headers.insert(
        "x-opaque",
        HeaderValue::from_bytes(b"\xfe\xff caf\xe9").unwrap(),
    );
    headers.insert("content-length", HeaderValue::from_static("4"));
    let mut secret = HeaderValue::from_static("hush");
    secret.set_sensitive(true);
    headers.insert("x-secret", secret);
    let long = HeaderName::from_bytes("x-".repeat(200).as_bytes()).unwrap();
    headers.insert(long, HeaderValue::from_str(&"v".repeat(20_000)).unwrap());

    send(&service, request).await.unwrap();

    let [first, second] = api.seen().try_into().unwrap();
    assert_eq!(first.other_headers(), second.other_headers());
    assert_eq!(
        second.headers.get_all("cookie").iter().collect::<Vec<_>>(),
        ["a=1", "b=2"]
    );
    assert!(second.headers["x-secret"].is_sensitive());
    assert!(!second.headers["accept"].is_sensitive());
    assert!(second.headers["authorization"].is_sensitive());
    assert_eq!(
        (&first.uri, &first.method, first.version),
        (&second.uri, &second.method, second.version)
    );
    assert_eq!(second.method, "PURGE");
    assert_eq!(*tags.lock().unwrap(), [Some(Tag(7)), Some(Tag(7))]);
}

/// An inner service that reads `frames_read` frames and answers. It may keep the rest of the body, like a transport
/// that has not noticed the answer.
#[derive(Clone, Default)]
struct Early {
    frames_read: usize,
    keeps_the_body: bool,
    kept: Arc<Mutex<Vec<ReplayBody<AnyBody>>>>,
}

/// The size of an attempt, and the part of it that was read.
#[derive(Debug, Default, PartialEq)]
struct Received {
    exact_size: Option<u64>,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
}

impl Early {
    /// Reads the first attempt in part and rejects it. Reads the second one in full and accepts it.
    async fn send(self, body: AnyBody, limit: usize) -> (Vec<Received>, StatusCode) {
        let api = Api::accepting("nothing yet");
        let refresher = Refresher::of(&api);
        let received = Arc::new(Mutex::new(Vec::new()));
        let inner = {
            let received = received.clone();
            let this = self.clone();
            service_fn(move |request: Request<ReplayBody<AnyBody>>| {
                let (this, received) = (this.clone(), received.clone());
                async move {
                    let is_first = request.headers()["authorization"] == "Bearer T0";
                    let mut body = request.into_body();
                    let mut got = Received {
                        exact_size: body.size_hint().exact(),
                        ..Received::default()
                    };
                    let mut frames = 0;
                    while !is_first || frames < this.frames_read {
                        check_hint(&body);
                        let Some(frame) = body.frame().await else {
                            break;
                        };
                        match frame.expect("a frame").into_data() {
                            Ok(data) => got.data.extend(data),
                            Err(frame) => got.trailers = frame.into_trailers().ok(),
                        }
                        frames += 1;
                    }
                    received.lock().unwrap().push(got);
                    if !is_first {
                        return Ok::<_, std::convert::Infallible>(http::Response::new(
                            Full::default(),
                        ));
                    }
                    if this.keeps_the_body {
                        this.kept.lock().unwrap().push(body);
                    }
                    Ok(expired())
                }
            })
        };
        let service = refresher.layer().replay_limit(limit).layer(inner);
        let request = Request::post("/").body(body).unwrap();
        // A transport that keeps the body polls it further.
        let mut answer = std::pin::pin!(send(&service, request));
        let answer = std::future::poll_fn(|cx| {
            let answer = answer.as_mut().poll(cx);
            for body in self.kept.lock().unwrap().iter_mut() {
                let polled = Pin::new(body).poll_frame(cx);
                if answer.is_pending() && polled.is_ready() {
                    cx.waker().wake_by_ref();
                }
            }
            answer
        });
        let response = answer.await.expect("an answer");
        assert_eq!(refresher.count(), 1);
        let received = std::mem::take(&mut *received.lock().unwrap());
        (received, response.status())
    }
}

/// Checks that the size hint and the end of a body agree.
fn check_hint<B: Body>(body: &B) {
    let hint = body.size_hint();
    assert!(hint.upper().is_none_or(|upper| hint.lower() <= upper));
    if body.is_end_stream() {
        assert_eq!(hint.lower(), 0);
    }
}

#[tokio::test]
async fn r09_an_early_answer_loses_and_repeats_no_byte() {
    for run in 0..1_000_usize {
        let chunks = run % 7;
        let chunk = |n: usize| Step::Data(Bytes::from(format!("chunk {run}/{n} ")));
        let steps: Vec<_> = (0..chunks)
            .flat_map(|n| [Step::Pend, chunk(n)].into_iter().skip((run / 7 + n) % 2))
            .chain((run % 3 == 0).then_some(Step::Trailers))
            .collect();
        let body = if run % 2 == 0 {
            Script::new(steps.clone())
        } else {
            Script::sized(steps.clone())
        };
        let whole = Script::new(steps).collect().await.unwrap();
        let early = Early {
            // 0 answers before the first DATA frame is polled.
            frames_read: run % 5,
            keeps_the_body: run % 11 > 5,
            ..Early::default()
        };

        let (received, status) = early.send(UnsyncBoxBody::new(body), 64 * 1024).await;

        assert_eq!(status, StatusCode::OK, "run {run}");
        let [first, second] = received.try_into().expect("two attempts");
        assert_eq!(second.exact_size, first.exact_size, "run {run}");
        assert_eq!(second.trailers.as_ref(), whole.trailers(), "run {run}");
        let whole = whole.to_bytes();
        assert!(whole.starts_with(&first.data), "run {run}");
        assert_eq!(second.data, whole, "run {run}");
    }
}

#[tokio::test(start_paused = true)]
async fn r09_a_transport_that_keeps_the_body_is_not_awaited() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let inner = {
        let kept = kept.clone();
        service_fn(move |request: Request<ReplayBody<AnyBody>>| {
            kept.lock().unwrap().push(request.into_body());
            async { Ok::<_, std::convert::Infallible>(expired()) }
        })
    };
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let service = refresher.layer().layer(inner);
    let steps = [Step::Pend, Step::Data(Bytes::from("one"))];

    let response = send(&service, request(Script::new(steps))).await.unwrap();
    assert_eq!(skipped(&response), Some(ReplaySkipped::BodyNotReplayable));
    assert_eq!(kept.lock().unwrap().len(), 1);

    // A body in memory is replayed even if the transport keeps it.
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    let response = send(&service, request(in_memory("one"))).await.unwrap();
    assert_eq!(skipped(&response), Some(ReplaySkipped::RefreshesExhausted));
    assert_eq!(kept.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn r09_a_stream_is_replayed_for_every_refresh() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inner = {
        let seen = seen.clone();
        service_fn(move |request: Request<ReplayBody<AnyBody>>| {
            let seen = seen.clone();
            async move {
                let mut body = request.into_body();
                let mut data = Vec::new();
                // Each attempt reads one more frame.
                let frames = seen.lock().unwrap().len() + 1;
                for _ in 0..frames {
                    if let Some(frame) = body.frame().await {
                        data.extend(frame.unwrap().into_data().unwrap());
                    }
                }
                seen.lock().unwrap().push(String::from_utf8(data).unwrap());
                Ok::<_, std::convert::Infallible>(expired())
            }
        })
    };
    let refresher = Refresher::of(&Api::accepting("nothing"));
    let service = refresher.layer().max_refreshes(4).layer(inner);
    let steps = ["a", "b", "c", "d"].map(|data| [Step::Pend, Step::Data(Bytes::from(data))]);

    let response = send(&service, request(Script::new(steps.concat())))
        .await
        .unwrap();

    assert_eq!(skipped(&response), Some(ReplaySkipped::RefreshesExhausted));
    assert_eq!(refresher.count(), 4);
    // The recording is replayed as one frame, so the third attempt reads the end.
    assert_eq!(*seen.lock().unwrap(), ["a", "ab", "abcd", "abcd", "abcd"]);
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Pend),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|data| Step::Data(data.into())),
    ];
    (proptest::collection::vec(step, 0..12), any::<bool>()).prop_map(|(mut steps, trailers)| {
        if trailers {
            steps.push(Step::Trailers);
        }
        steps
    })
}

proptest! {
    /// For any body and any part of it that was read, a second attempt has the whole body.
    #[test]
    fn r09_a_second_attempt_is_the_whole_body_or_none(
        steps in steps(),
        is_sized: bool,
        frames_read in 0..14_usize,
        keeps_the_body: bool,
        limit in 0..200_usize,
    ) {
        let body = if is_sized { Script::sized(steps.clone()) } else { Script::new(steps.clone()) };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let (whole, (received, status)) = runtime.block_on(async {
            let early = Early { frames_read, keeps_the_body, ..Early::default() };
            let whole = Script::new(steps).collect().await.unwrap();
            (whole, early.send(UnsyncBoxBody::new(body), limit).await)
        });
        let trailers = whole.trailers().cloned();
        let whole = whole.to_bytes();
        prop_assert!(whole.starts_with(&received[0].data));
        match &received[1..] {
            [] => {
                prop_assert_eq!(status, StatusCode::UNAUTHORIZED);
                prop_assert!(whole.len() > limit, "within the limit, and not replayed");
            }
            [second] => {
                prop_assert_eq!(status, StatusCode::OK);
                prop_assert_eq!(&second.data, &whole);
                prop_assert_eq!(&second.trailers, &trailers);
                prop_assert_eq!(second.exact_size, received[0].exact_size);
                prop_assert!(is_sized || second.exact_size.is_none());
            }
            _ => prop_assert!(false, "more than two attempts"),
        }
    }
}

#[tokio::test]
async fn a_body_reports_its_size_and_end_right_at_every_stage() {
    // The steps, whether the size is known, and the exact size at each stage.
    let data = |text: &'static str| Step::Data(Bytes::from_static(text.as_bytes()));
    let cases = [
        (vec![], true, vec![Some(0)]),
        (vec![data("abc")], true, vec![Some(3), Some(0)]),
        (
            vec![data("abc"), data("de")],
            true,
            vec![Some(5), Some(2), Some(0)],
        ),
        (
            vec![Step::Pend, data("abc"), Step::Pend, data("de")],
            true,
            vec![Some(5), Some(2), Some(0)],
        ),
        (
            vec![data("abc"), Step::Trailers],
            true,
            vec![Some(3), Some(0), Some(0)],
        ),
        (vec![data("abc")], false, vec![None, None]),
        (vec![Step::Pend, data("abc")], false, vec![None, None]),
    ];
    for (steps, is_sized, sizes) in cases {
        let body = if is_sized {
            Script::sized(steps.clone())
        } else {
            Script::new(steps.clone())
        };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let inner = {
            let seen = seen.clone();
            service_fn(move |request: Request<ReplayBody<AnyBody>>| {
                let seen = seen.clone();
                async move {
                    let mut body = request.into_body();
                    let mut exact_sizes = vec![body.size_hint().exact()];
                    let mut ends = vec![body.is_end_stream()];
                    while let Some(frame) = body.frame().await {
                        frame.unwrap();
                        exact_sizes.push(body.size_hint().exact());
                        ends.push(body.is_end_stream());
                    }
                    assert!(body.is_end_stream());
                    assert!(body.frame().await.is_none(), "an ended body stays ended");
                    ends.pop();
                    assert!(ends.iter().all(|is_end| !is_end), "{ends:?}");
                    seen.lock().unwrap().push(exact_sizes);
                    Ok::<_, std::convert::Infallible>(expired())
                }
            })
        };
        let refresher = Refresher::of(&Api::accepting("nothing"));
        let service = refresher.layer().layer(inner);
        send(&service, request(body)).await.unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 2, "{steps:?}");
        assert_eq!(seen[0], sizes, "{steps:?}");
        // The recording is replayed as one frame, so there are fewer stages. The size is the same.
        assert_eq!(seen[1][0], sizes[0], "{steps:?}");
    }
}

#[tokio::test]
async fn a_default_replay_body_is_empty() {
    let body = ReplayBody::<Full<Bytes>>::default();
    assert!(body.is_end_stream());
    assert_eq!(body.collect().await.unwrap().to_bytes(), Bytes::new());
}

/// A body whose size hint never changes. Transports read it only once.
struct Unchanging {
    frames: VecDeque<Bytes>,
    size: u64,
}

impl Body for Unchanging {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(self.frames.pop_front().map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size)
    }
}

#[tokio::test]
async fn r08_a_wrong_size_hint_does_not_break_the_recording() {
    const FRAME: usize = 15 * 1024;
    for (size, limit) in [
        (3 * FRAME as u64, 64 * 1024),
        // Sizes beyond any memory must not be allocated.
        (u64::MAX, usize::MAX),
        (1 << 46, usize::MAX),
    ] {
        let api = Api::accepting("T1");
        let layer = Refresher::of(&api).layer().replay_limit(limit);
        let body = Unchanging {
            frames: (0..3).map(|n| Bytes::from(vec![n; FRAME])).collect(),
            size,
        };
        let response = send(&layer.layer(api), request(body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{size}");
    }
}
