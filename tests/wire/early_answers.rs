//! Rejections that come while the request is still sent (R8, R9).

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tower_salesforce_auth::{
    emulator::Org,
    request::{AuthOutcome, BodyFactory, ReplaySkipped},
};

use crate::support::{AnyBody, ECHO, Protocol, client, echoed, get, in_memory, layer, post, send};

/// A stream whose chunks show their position. Each chunk needs a poll of its own.
fn streaming(chunks: usize, chunk_len: usize) -> AnyBody {
    let chunks = stream::iter(0..chunks).then(move |n| async move {
        tokio::task::yield_now().await;
        let text = format!("{n:>8}").repeat(chunk_len.div_ceil(8));
        Ok(Frame::data(Bytes::from(text)))
    });
    UnsyncBoxBody::new(StreamBody::new(Box::pin(chunks)))
}

async fn echo_of(body: AnyBody) -> (serde_json::Value, serde_json::Value) {
    let org = Org::new();
    let grant = org.authorize();
    let request = http::Request::post(ECHO)
        .header("authorization", format!("Bearer {}", grant.access_token()))
        .body(body)
        .unwrap();
    let response = tower::ServiceExt::oneshot(org, request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let echo = echoed(&body);
    (echo["body_sha256"].clone(), echo["body_length"].clone())
}

/// Sends `runs` streams with an expired session. `shape` gives the number and the length of their chunks. The org
/// rejects them before the body, or after one, two or three times `early` bytes. Each stream arrives whole.
async fn send_into_early_answers(
    runs: usize,
    early: usize,
    shape: fn(usize) -> (usize, usize),
    request: fn(usize, usize) -> Request<AnyBody>,
) {
    for protocol in [Protocol::Http1, Protocol::H2] {
        let org = Org::new();
        let _served = org.serve().await.unwrap();
        let grant = org.authorize();
        let client = client(&layer(&org, &grant), protocol);
        for run in 0..runs {
            let (chunks, chunk_len) = shape(run);
            org.answer_early(run % 4 * early);
            org.expire_sessions();
            let (status, _, body) = send(&client, request(chunks, chunk_len)).await.unwrap();
            assert_eq!(status, StatusCode::OK, "{protocol:?} run {run}");
            let echo = echoed(&body);
            let whole = echo_of(streaming(chunks, chunk_len)).await;
            assert_eq!(
                (echo["body_sha256"].clone(), echo["body_length"].clone()),
                whole
            );
        }
        assert_eq!(org.counters().token_requests, runs as u64);
        assert_eq!(org.counters().refresh_token_reuses, 0);
    }
}

#[tokio::test]
async fn r09_early_answers_over_http_lose_and_repeat_no_byte() {
    let shape = |run| (1 + run % 10, 1 + run * 37 % 3_000);
    send_into_early_answers(500, 1_500, shape, |chunks, chunk_len| {
        post(ECHO, streaming(chunks, chunk_len))
    })
    .await;
}

#[tokio::test]
async fn r09_a_factory_body_arrives_whole_after_an_early_answer() {
    // Streams have up to ten times the replay limit.
    let shape = |run| (1 + run % 40, 1 + run * 977 % 16_000);
    send_into_early_answers(200, 20_000, shape, |chunks, chunk_len| {
        let factory = BodyFactory::new(move || streaming(chunks, chunk_len));
        factory.attach(Request::post(ECHO).body(()).unwrap())
    })
    .await;
}

#[tokio::test]
async fn r09_large_bodies_in_memory_survive_an_early_answer() {
    for protocol in [Protocol::Http1, Protocol::H2] {
        let org = Org::new();
        let _served = org.serve().await.unwrap();
        let grant = org.authorize();
        let client = client(&layer(&org, &grant), protocol);
        let data = Bytes::from(
            (0..10 * 1024 * 1024_u32)
                .map(|n| u8::try_from(n % 251).unwrap())
                .collect::<Vec<_>>(),
        );
        for early in [0, 1, 1024 * 1024] {
            org.answer_early(early);
            org.expire_sessions();
            let (status, _, body) = send(&client, post(ECHO, in_memory(data.clone())))
                .await
                .unwrap();
            assert_eq!(status, StatusCode::OK, "{protocol:?}, after {early} bytes");
            let echo = echoed(&body);
            let whole = echo_of(in_memory(data.clone())).await;
            assert_eq!(
                (echo["body_sha256"].clone(), echo["body_length"].clone()),
                whole
            );
            let length = data.len().to_string();
            let headers = echo["headers"].as_array().unwrap();
            let lengths = headers.iter().filter(|pair| pair[0] == "content-length");
            assert!(lengths.map(|pair| &pair[1]).all(|value| *value == length));
        }
    }
}

#[tokio::test]
async fn r09_framing_and_trailers_are_those_of_the_first_attempt() {
    for protocol in [Protocol::Http1, Protocol::H2] {
        for is_streaming in [false, true] {
            let body = || {
                let trailers = async {
                    let mut trailers = HeaderMap::new();
                    trailers.append("x-checksum", HeaderValue::from_static("1234"));
                    Some(Ok(trailers))
                };
                if is_streaming {
                    UnsyncBoxBody::new(streaming(3, 100).with_trailers(Box::pin(trailers)))
                } else {
                    let full = Full::new(Bytes::from("a body"));
                    let full = full.map_err(|never: Infallible| match never {});
                    UnsyncBoxBody::new(full.with_trailers(Box::pin(trailers)))
                }
            };
            let org = Org::new();
            let _served = org.serve().await.unwrap();
            let grant = org.authorize();
            let client = client(&layer(&org, &grant), protocol);
            let request = || {
                let mut request = post(ECHO, body());
                // HTTP/1.1 sends only announced trailers.
                let headers = request.headers_mut();
                headers.insert("trailer", HeaderValue::from_static("x-checksum"));
                if matches!(protocol, Protocol::Http1) {
                    headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
                }
                request
            };
            let (_, _, unchallenged) = send(&client, request()).await.unwrap();
            org.expire_sessions();
            let (status, extensions, replayed) = send(&client, request()).await.unwrap();
            assert_eq!(status, StatusCode::OK);
            assert_eq!(extensions.get::<AuthOutcome>().unwrap().attempts(), 2);
            assert_eq!(echoed(&replayed), echoed(&unchallenged), "{protocol:?}");
            assert_eq!(echoed(&replayed)["trailers"][0][1], "1234", "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn r08_an_upload_beyond_the_limit_is_not_replayed() {
    for protocol in [Protocol::Http1, Protocol::H2] {
        for early in [None, Some(0), Some(100_000)] {
            let org = Org::new();
            let _served = org.serve().await.unwrap();
            let grant = org.authorize();
            let client = client(&layer(&org, &grant), protocol);
            org.expire_sessions();
            org.answer_early(early);
            let answer = send(&client, post(ECHO, streaming(1_000, 1_024))).await;
            let counters = org.counters();
            match answer {
                Ok((StatusCode::UNAUTHORIZED, extensions, _)) => {
                    let outcome: &AuthOutcome = extensions.get().unwrap();
                    let skipped = outcome.replay_skipped();
                    assert_eq!(skipped, Some(ReplaySkipped::BodyNotReplayable));
                    assert_eq!((counters.data_requests, counters.token_requests), (1, 1));
                }
                // The answer came before the limit was reached, so the stream is replayed.
                Ok((status, ..)) => {
                    assert_eq!(status, StatusCode::OK);
                    assert!(early.is_some());
                }
                // The server may close the connection before its answer is read.
                Err(_) => assert!(early.is_some()),
            }
            let (status, ..) = send(&client, get(ECHO)).await.unwrap();
            assert_eq!(status, StatusCode::OK);
            assert!(org.counters().token_requests <= 1);
        }
    }
}

#[tokio::test]
async fn r09_a_stalled_stream_is_taken_back_from_the_transport() {
    for protocol in [Protocol::Http1, Protocol::H2] {
        let org = Org::new();
        let _served = org.serve().await.unwrap();
        let grant = org.authorize();
        let client = client(&layer(&org, &grant), protocol);
        org.expire_sessions();
        org.answer_early(0);
        // The second half comes only once the second attempt is running.
        let (tx, rx) = tokio::sync::oneshot::channel::<()>();
        let rest = stream::once(async {
            rx.await.unwrap();
            Ok(Frame::data(Bytes::from("second half")))
        });
        let chunks = stream::iter([Ok(Frame::data(Bytes::from("first half, ")))]).chain(rest);
        let body = UnsyncBoxBody::new(StreamBody::new(Box::pin(chunks)));
        let answer = tokio::spawn(async move { send(&client, post(ECHO, body)).await });
        while org.counters().data_requests < 2 {
            tokio::task::yield_now().await;
        }
        tx.send(()).unwrap();
        let (status, _, body) = tokio::time::timeout(Duration::from_secs(60), answer)
            .await
            .expect("an answer")
            .unwrap()
            .unwrap();
        assert_eq!(status, StatusCode::OK, "{protocol:?}");
        assert_eq!(
            echoed(&body)["body_length"],
            "first half, second half".len()
        );
    }
}
