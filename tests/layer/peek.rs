//! Rejections that are peeked before they are returned.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tower::Layer;
use tower_salesforce_auth::{BoxError, RefreshContext, RefreshError, ReplayBody};

use crate::support::{Answering, get, send, session, starting_with};

#[tokio::test]
async fn a_peeked_rejection_is_returned_frame_by_frame() {
    // The caller gets every frame in order, and then the error.
    let inner = Answering(|_: Request<ReplayBody<Full<Bytes>>>| {
        let data = |text| Ok(Frame::data(Bytes::from_static(text)));
        let error = Err(std::io::Error::other("broke off"));
        let frames = stream::iter([data(b"one "), data(b"two "), error]);
        let mut response = Response::new(StreamBody::new(frames));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response
    });
    let service = starting_with(session("T0"), |_: RefreshContext| async {
        Ok(session("T0"))
    })
    .layer(inner);
    let mut body = send(&service, get("/")).await.unwrap().into_body();
    let mut read = Vec::new();
    let error = loop {
        match body.frame().await.expect("the error") {
            Ok(frame) => read.extend(frame.into_data().unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!(read, b"one two ");
    assert_eq!(error.to_string(), "broke off");
}

/// The peek ends for any body.
#[tokio::test(start_paused = true)]
async fn a_peek_of_endless_empty_frames_ends() {
    let polls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&polls);
    let inner = Answering(move |_: Request<ReplayBody<Full<Bytes>>>| {
        let polls = Arc::clone(&count);
        let frames = stream::poll_fn(move |_| {
            // The body ends at some point, so that a failing test ends too.
            if polls.fetch_add(1, Ordering::SeqCst) >= 1_000_000 {
                return std::task::Poll::Ready(None);
            }
            std::task::Poll::Ready(Some(Ok::<_, BoxError>(Frame::data(Bytes::new()))))
        });
        let mut response = Response::new(StreamBody::new(frames));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response
    });
    let layer = starting_with(session("T0"), async |_: RefreshContext| {
        Err(RefreshError::transient("no"))
    });
    let _ = send(&layer.layer(inner), get("/x")).await;
    let polls = polls.load(Ordering::SeqCst);
    assert!(
        polls < 100_000,
        "{polls} frames were read in one poll, and kept"
    );
}
