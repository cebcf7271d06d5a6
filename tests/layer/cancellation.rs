//! Callers that are dropped, at every await point (R4).

use std::{pin::pin, task::Context, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::time::{advance, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_salesforce_auth::{ReplayBody, SalesforceAuthLayer, handle::SessionState};

use crate::support::{Api, Refresher, get, send};

/// A layer whose refresh takes half a second.
fn slow(refresher: &Refresher) -> SalesforceAuthLayer {
    refresher.layer_with(|_| sleep(Duration::from_millis(500)))
}

#[tokio::test(start_paused = true)]
async fn r04_a_refresh_survives_the_callers_that_wait_for_it() {
    let api = Api::accepting("nothing yet");
    let refresher = Refresher::of(&api);
    let layer = slow(&refresher);
    let mut published = layer.handle().subscribe();
    let service = layer.layer(api.clone());

    let mut callers: Vec<_> = (0..10)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { send(&service, get("/services/data/")).await })
        })
        .collect();
    advance(Duration::from_millis(10)).await;
    assert_eq!(refresher.count(), 1);
    // The caller that caused the refresh is dropped first, then all others but one.
    for caller in callers.drain(..1) {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    advance(Duration::from_millis(10)).await;
    for caller in callers.drain(..8) {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }

    let response = callers.remove(0).await.unwrap().unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(refresher.count(), 1);
    let response = send(&service, get("/services/data/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(refresher.count(), 1);
    let published = published.changed().now_or_never().flatten();
    assert!(matches!(published, Some(SessionState::Ready(_))));
}

#[tokio::test(start_paused = true)]
async fn r04_a_refresh_survives_without_any_waiter() {
    let api = Api::accepting("nothing yet");
    let refresher = Refresher::of(&api);
    let layer = slow(&refresher);
    let handle = layer.handle();
    let service = layer.layer(api.clone());

    let only = tokio::spawn({
        let service = service.clone();
        async move { send(&service, get("/services/data/")).await }
    });
    advance(Duration::from_millis(10)).await;
    only.abort();
    assert!(only.await.unwrap_err().is_cancelled());
    // The running refresh completes without the layer.
    drop((service, layer));
    sleep(Duration::from_secs(1)).await;

    let live = handle
        .try_session()
        .expect("the session that was refreshed");
    assert_eq!(live.access_token().expose(), "T1");
    assert_eq!(refresher.count(), 1);
}

/// Polls a request a number of times and drops it. Returns its status if it was complete by then.
async fn dropped_after<S>(
    polls: usize,
    service: &S,
    request: Request<UnsyncBody>,
) -> Option<StatusCode>
where
    S: Service<Request<UnsyncBody>, Response: IntoStatus, Error: std::fmt::Debug> + Clone,
{
    let mut future = pin!(send(service, request));
    for _ in 0..polls {
        let polled = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(future.as_mut().poll(&mut Context::from_waker(cx.waker())))
        })
        .await;
        if let std::task::Poll::Ready(answer) = polled {
            return Some(answer.unwrap().into_status());
        }
        tokio::task::yield_now().await;
    }
    None
}

type UnsyncBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

trait IntoStatus {
    fn into_status(self) -> StatusCode;
}

impl<B> IntoStatus for http::Response<B> {
    fn into_status(self) -> StatusCode {
        self.status()
    }
}

fn streaming(uri: &str) -> Request<UnsyncBody> {
    // Every chunk needs a poll of its own.
    let chunks = stream::unfold(0, |n| async move {
        tokio::task::yield_now().await;
        (n < 4).then(|| (Ok(Frame::data(Bytes::from("chunk"))), n + 1))
    });
    let body = StreamBody::new(Box::pin(chunks));
    Request::post(uri).body(body.boxed_unsync()).unwrap()
}

fn in_memory(uri: &str) -> Request<UnsyncBody> {
    let body = Full::new(Bytes::from("body")).map_err(|never| match never {});
    Request::post(uri).body(body.boxed_unsync()).unwrap()
}

#[tokio::test]
async fn r04_a_request_can_be_dropped_at_every_await_point() {
    for request in [streaming, in_memory] {
        let mut completed_after = None;
        for polls in 0..200 {
            let api = Api::accepting("nothing yet");
            let refresher = Refresher::of(&api);
            let layer = refresher.layer_with(|_| async {
                for _ in 0..5 {
                    tokio::task::yield_now().await;
                }
            });
            // The inner service becomes ready and answers after a yield.
            let inner = {
                let api = api.clone();
                service_fn(move |request: Request<ReplayBody<UnsyncBody>>| {
                    let api = api.clone();
                    async move {
                        tokio::task::yield_now().await;
                        api.oneshot(request).await.map_err(std::io::Error::other)
                    }
                })
            };
            let service = layer.layer(tower::limit::ConcurrencyLimit::new(inner, 1));

            let status = dropped_after(polls, &service, request("/services/data/")).await;

            // The next request succeeds, and there was only one refresh.
            let next = send(&service, request("/services/data/")).await.unwrap();
            assert_eq!(next.status(), StatusCode::OK, "after {polls} polls");
            assert_eq!(refresher.count(), 1, "after {polls} polls");
            let last = api.seen().pop().unwrap();
            assert_eq!(last.authorizations(), ["Bearer T1"]);
            if let Some(status) = status {
                assert_eq!(status, StatusCode::OK);
                completed_after = Some(polls);
                break;
            }
        }
        let completed_after = completed_after.expect("a request that completes");
        assert!(completed_after > 5, "there are points to be dropped at");
    }
}
