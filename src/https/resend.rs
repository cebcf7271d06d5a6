//! Sends a request again that the server has not processed (RFC 9113 §8.7), with the same body.

use std::{
    any::Any,
    collections::VecDeque,
    error::Error as StdError,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, request::Parts};
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;

/// How often a request is sent again.
pub(super) const LIMIT: usize = 4;

/// The most bytes of a body in several frames that are kept to be sent again. A body in one frame of any size is kept: it is
/// not copied.
const KEPT_BYTES: u64 = 64 * 1024;

/// Whether an error means that the server did not process the request.
pub(super) fn is_unprocessed(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            // h2 gives the error of a GOAWAY only to streams beyond the last one that the server names.
            let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (is_refused || error.is_go_away());
        }
        // The connection ended before the request was written to it.
        if error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

// === Original ===

/// A request that can be made again, as long as its body can.
pub(super) struct Original<B> {
    head: Parts,
    body: Arc<Mutex<KeptBody<B>>>,
}

impl<B: Body> Original<B> {
    pub(super) fn new(request: Request<B>) -> Self {
        let (head, body) = request.into_parts();
        let body = KeptBody {
            attempt: 0,
            size: body.size_hint(),
            rest: body,
            to_send: VecDeque::new(),
            sent: Some(Vec::new()),
            sent_bytes: 0,
        };
        Self {
            head,
            body: Arc::new(Mutex::new(body)),
        }
    }

    /// The request, for its first attempt or for another one. Its body comes from the beginning. `None` if it cannot.
    pub(super) fn again(&self) -> Option<Request<ResentBody<B>>> {
        let attempt = lock(&self.body).rewind()?;
        let body = ResentBody {
            body: Arc::clone(&self.body),
            attempt,
        };
        Some(Request::from_parts(self.head.clone(), body))
    }
}

// === KeptBody ===

/// A body, and what was sent of it.
struct KeptBody<B> {
    /// The number of the present attempt. The transport may still hold the body of an earlier one.
    attempt: usize,
    size: SizeHint,
    rest: B,
    /// What was sent before, and is to be sent again.
    to_send: VecDeque<Part>,
    /// What was sent since the beginning. `None` if it cannot be sent again.
    sent: Option<Vec<Part>>,
    sent_bytes: u64,
}

/// A frame that can be sent twice.
#[derive(Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

fn lock<B>(body: &Mutex<KeptBody<B>>) -> MutexGuard<'_, KeptBody<B>> {
    body.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B> KeptBody<B> {
    /// Begins another attempt, and returns its number. `None` if the body cannot be sent again.
    fn rewind(&mut self) -> Option<usize> {
        let sent = std::mem::take(self.sent.as_mut()?);
        // What an attempt left of the earlier ones follows what it sent.
        self.to_send = sent.into_iter().chain(self.to_send.drain(..)).collect();
        self.sent_bytes = 0;
        self.attempt += 1;
        Some(self.attempt)
    }

    fn keep(&mut self, part: Part) {
        let len = match &part {
            Part::Data(data) => data.len() as u64,
            Part::Trailers(_) => 0,
        };
        self.sent_bytes += len;
        let Some(sent) = &mut self.sent else { return };
        if len == 0 || sent.is_empty() || self.sent_bytes <= KEPT_BYTES {
            sent.push(part);
        } else {
            self.sent = None;
        }
    }
}

// === ResentBody ===

/// The body of one attempt.
pub(super) struct ResentBody<B> {
    body: Arc<Mutex<KeptBody<B>>>,
    attempt: usize,
}

/// A frame's data: of the body itself, or sent before.
pub(super) enum Data<D> {
    New(D),
    Kept(Bytes),
}

impl<B> Body for ResentBody<B>
where
    B: Body + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Data = Data<B::Data>;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let mut body = lock(&self.body);
        if body.attempt != self.attempt {
            return Poll::Ready(Some(Err("the request is sent again elsewhere".into())));
        }
        if let Some(part) = body.to_send.pop_front() {
            body.keep(part.clone());
            return Poll::Ready(Some(Ok(match part {
                Part::Data(data) => Frame::data(Data::Kept(data)),
                Part::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        let frame = match Pin::new(&mut body.rest).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => {
                body.sent = None;
                return Poll::Ready(Some(Err(error.into())));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                match (&data as &dyn Any).downcast_ref::<Bytes>() {
                    Some(data) => body.keep(Part::Data(data.clone())),
                    // Data of another type cannot be cloned.
                    None => {
                        body.sent = None;
                        body.sent_bytes += data.remaining() as u64;
                    }
                }
                Frame::data(Data::New(data))
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    body.keep(Part::Trailers(trailers.clone()));
                    Frame::trailers(trailers)
                }
                Err(_) => {
                    return Poll::Ready(Some(
                        Err("the body has a frame of an unknown kind".into()),
                    ));
                }
            },
        })))
    }

    fn is_end_stream(&self) -> bool {
        let body = lock(&self.body);
        body.to_send.is_empty() && body.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = lock(&self.body);
        let mut left = SizeHint::new();
        if let Some(upper) = body.size.upper() {
            left.set_upper(upper.saturating_sub(body.sent_bytes));
        }
        left.set_lower(body.size.lower().saturating_sub(body.sent_bytes));
        left
    }
}

impl<D: Buf> Buf for Data<D> {
    fn remaining(&self) -> usize {
        match self {
            Self::New(data) => data.remaining(),
            Self::Kept(data) => data.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::New(data) => data.chunk(),
            Self::Kept(data) => data.chunk(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::New(data) => data.advance(count),
            Self::Kept(data) => data.advance(count),
        }
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        match self {
            Self::New(data) => data.copy_to_bytes(len),
            Self::Kept(data) => data.copy_to_bytes(len),
        }
    }
}
