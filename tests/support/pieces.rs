//! A server whose answer comes in pieces, and may not end.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use tower::{Service, service_fn};
use tower_salesforce_auth::BoxError;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ending {
    Whole,
    BreaksOff,
    Hangs,
}

/// A body that pauses before each of its pieces.
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    ending: Ending,
    has_paused: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.has_paused = !self.has_paused;
        if self.has_paused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match (self.pieces.pop_front(), self.ending) {
            (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            (None, Ending::Whole) => Poll::Ready(None),
            (None, Ending::BreaksOff) => Poll::Ready(Some(Err("the connection was reset".into()))),
            (None, Ending::Hangs) => Poll::Pending,
        }
    }
}

/// A server that always gives this answer.
pub(crate) fn answering_in_pieces(
    status: u16,
    pieces: impl IntoIterator<Item = impl Into<Bytes>>,
    ending: Ending,
) -> impl Service<Request<Full<Bytes>>, Response = Response<Pieces>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let pieces: VecDeque<Bytes> = pieces.into_iter().map(Into::into).collect();
    service_fn(move |_: Request<Full<Bytes>>| {
        let body = Pieces {
            pieces: pieces.clone(),
            ending,
            has_paused: false,
        };
        async move { Ok(Response::builder().status(status).body(body)?) }
    })
}
