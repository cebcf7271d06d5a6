//! Bodies that break off or declare a wrong size end as they do without the layer.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{BoxError, RefreshContext, RefreshError, ReplayBody, Session};

use crate::support::starting_with;

type Item = Result<Frame<Bytes>, BoxError>;

/// A scripted body.
struct Scripted {
    items: VecDeque<Poll<Option<Item>>>,
    hint: SizeHint,
    done: bool,
}

impl Scripted {
    fn new(hint: SizeHint, items: impl IntoIterator<Item = Poll<Option<Item>>>) -> Self {
        Self {
            items: items.into_iter().collect(),
            hint,
            done: false,
        }
    }
}

fn data(text: &'static str) -> Poll<Option<Item>> {
    Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
}

fn broken() -> Poll<Option<Item>> {
    Poll::Ready(Some(Err("disk error".into())))
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        assert!(!self.done, "polled after completion");
        match self.items.pop_front() {
            None => {
                self.done = true;
                Poll::Ready(None)
            }
            Some(Poll::Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(item) => {
                if let Poll::Ready(Some(Ok(frame))) = &item
                    && let Some(data) = frame.data_ref()
                    && let Some(exact) = self.hint.exact()
                {
                    self.hint = SizeHint::with_exact(exact.saturating_sub(data.len() as u64));
                }
                if matches!(item, Poll::Ready(Some(Err(_)))) {
                    self.done = true;
                }
                item
            }
        }
    }
    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// Sends `body` over HTTP/1.1, with the layer or without. Returns the requests that the server took for complete.
async fn over_h1(body: Scripted, with_layer: bool) -> Vec<Bytes> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&received);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                // This server reads HTTP/1.1 by `Content-Length` and chunks only.
                let mut socket = socket;
                let mut bytes = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let length = head.to_ascii_lowercase().lines().find_map(|l| {
                            l.strip_prefix("content-length: ")
                                .map(|n| n.parse::<usize>().unwrap())
                        });
                        let complete = match length {
                            Some(length) => body.len() >= length,
                            None if head.to_ascii_lowercase().contains("chunked") => {
                                body.ends_with("0\r\n\r\n")
                            }
                            None => true,
                        };
                        if complete {
                            log.lock().unwrap().push(Bytes::from(body.to_owned()));
                            let _ = socket
                                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                                .await;
                            return;
                        }
                    }
                    match socket.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                    }
                }
            });
        }
    });
    let base = format!("http://{address}");
    let request = Request::post(format!("{base}/upload")).body(body).unwrap();
    if with_layer {
        let client = Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Scripted>>();
        let layer = starting_with(
            Session::new("T0", &base).unwrap(),
            async |_: RefreshContext| Err(RefreshError::terminal("no")),
        );
        let _ = layer.layer(client).oneshot(request).await;
    } else {
        let client = Client::builder(TokioExecutor::new()).build_http::<Scripted>();
        let _ = client.oneshot(request).await;
    }
    received.lock().unwrap().clone()
}

macro_rules! same_over_h1 {
    ($name:ident, $body:expr) => {
        #[tokio::test]
        async fn $name() {
            let bare = over_h1($body, false).await;
            let layered = over_h1($body, true).await;
            assert_eq!(layered, bare, "what the server takes for complete requests");
        }
    };
}

same_over_h1!(
    a_sized_body_that_breaks_at_once_is_not_sent_as_empty,
    Scripted::new(SizeHint::with_exact(100), [broken()])
);
same_over_h1!(
    a_sized_body_that_breaks_is_not_sent_truncated,
    Scripted::new(SizeHint::with_exact(100), [data("hello"), broken()])
);
same_over_h1!(
    a_body_shorter_than_its_size_is_not_sent_as_complete,
    Scripted::new(SizeHint::with_exact(100), [data("hello")])
);
same_over_h1!(
    an_empty_body_with_a_size_is_sent_as_without_the_layer,
    Scripted::new(SizeHint::with_exact(100), [])
);
same_over_h1!(
    a_sized_body_that_breaks_later_is_sent_as_without_it,
    Scripted::new(
        SizeHint::with_exact(100),
        [data("hello"), Poll::Pending, broken()]
    )
);
same_over_h1!(
    a_complete_body_is_sent_as_without_the_layer,
    Scripted::new(SizeHint::with_exact(5), [data("hello")])
);
same_over_h1!(
    an_unsized_body_that_breaks_is_sent_as_without_it,
    Scripted::new(SizeHint::new(), [data("hello"), broken()])
);
