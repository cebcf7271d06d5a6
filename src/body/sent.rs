//! The request body that is sent, and what is kept to send it again.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::{
    factory::BodyFactory,
    kept::{DeclaredSize, InMemory, Replayable},
    stream::{self, BodyError, Reclaim, Reclaimed, SentFrame, Streaming},
};

// === ReplayBody ===

/// The request body that the wrapped service receives: the caller's body of type `B`, ready to be sent again.
///
/// It yields the same bytes and trailers as `B`, in the same order. It declares the same size, and fails with the same
/// error. Frame boundaries may differ.
///
/// Its data type is [`Bytes`]. If `B` has another data type, each frame is copied when it is sent.
///
/// When the service is called, the layer polls the body once or twice to find out whether it is in memory.
///
/// A struct that holds a client names the type: `SalesforceAuth<Client<HttpConnector, ReplayBody<Full<Bytes>>>>`.
///
/// `B` must be [`Unpin`], as hyper-util's client requires too. `Box::pin` makes any body `Unpin`.
pub struct ReplayBody<B>(Sent<B>);

enum Sent<B> {
    /// The caller's body, of which nothing is kept. `None` after it ended.
    Once(Option<B>),
    /// The unsent rest of a body in memory.
    Memory(InMemory),
    /// A stream. Boxed, because requests are moved often and most of them have no stream.
    Stream(Box<Streaming<B>>),
    /// A body from a factory. Boxed for the same reason.
    Made(Box<Made<B>>),
}

impl<B> ReplayBody<B> {
    /// Sends `body` without keeping anything of it.
    pub(crate) fn once(body: B) -> Self {
        Self(Sent::Once(Some(body)))
    }

    /// Sends a body in memory from its beginning.
    pub(crate) fn in_memory(memory: InMemory) -> Self {
        Self(Sent::Memory(memory))
    }

    /// Sends a body again, and keeps nothing of it.
    pub(crate) fn resend(body: Replayable<B>) -> Self {
        match body {
            Replayable::Kept { memory, rest: None } => Self::in_memory(memory),
            Replayable::Kept {
                memory,
                rest: Some((rest, _)),
            } => Self::streaming(Streaming::new(memory, None, rest)),
            Replayable::Made { body, .. } => Self::once(body),
        }
    }

    fn streaming(streaming: Box<Streaming<B>>) -> Self {
        Self(Sent::Stream(streaming))
    }

    fn in_memory_keeping(memory: InMemory) -> (Self, Option<KeptBody<B>>) {
        let sent = Self::in_memory(memory.clone());
        (sent, Some(KeptBody::InMemory(memory)))
    }
}

impl<B: Body> ReplayBody<B> {
    /// Sends `body`, and keeps its factory to send another body in its place.
    pub(crate) fn made(body: B, factory: BodyFactory<B>) -> (Self, Option<KeptBody<B>>) {
        let (replace, replaced) = oneshot::channel();
        let kept = KeptBody::Made(Remake {
            factory,
            length: body.size_hint().exact(),
            replace,
        });
        let made = Made {
            body: Some(body),
            replaced: Some(replaced),
        };
        (Self(Sent::Made(Box::new(made))), Some(kept))
    }

    /// Sends a body again, and keeps what a further attempt needs.
    pub(crate) fn resend_keeping(body: Replayable<B>) -> (Self, Option<KeptBody<B>>) {
        match body {
            Replayable::Kept { memory, rest: None } => Self::in_memory_keeping(memory),
            Replayable::Kept {
                memory,
                rest: Some((rest, limit)),
            } => {
                let expected = memory.data().len();
                let mut sent = Streaming::new(memory, None, rest);
                let kept = sent.record(expected, limit).map(KeptBody::Streaming);
                (Self::streaming(sent), kept)
            }
            Replayable::Made { body, factory } => Self::made(body, factory),
        }
    }
}

impl<B> ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BodyError>,
{
    /// Sends `body`, and keeps what a further attempt needs: of a stream, at most `limit` bytes.
    ///
    /// Nothing is kept of a stream that is known to be larger, or that failed already.
    pub(crate) fn keeping(mut body: B, limit: usize) -> (Self, Option<KeptBody<B>>) {
        let hint = body.size_hint();
        let mut memory = InMemory {
            data: None,
            trailers: None,
            size: DeclaredSize::of(&hint),
        };
        let mut read_ahead = None;
        // Two polls distinguish a body in memory from a stream. A no-op waker is enough: the transport polls the stream
        // again with its own waker.
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if body.is_end_stream() {
                return Self::in_memory_keeping(memory);
            }
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(None) => return Self::in_memory_keeping(memory),
                Poll::Ready(Some(Ok(frame))) => match stream::into_bytes(frame) {
                    Ok(data) if memory.data.is_none() => memory.data = Some(data),
                    Ok(data) => {
                        read_ahead = Some(Ok(Frame::data(data)));
                        break;
                    }
                    Err(trailers) => {
                        memory.trailers = Some(Box::new(trailers));
                        return Self::in_memory_keeping(memory);
                    }
                },
                Poll::Ready(Some(Err(error))) => {
                    // The transport gets the error in its turn. A body that failed is not sent again.
                    read_ahead = Some(Err(error.into()));
                    let sent = Streaming::new(memory, read_ahead, body);
                    return (Self::streaming(sent), None);
                }
                Poll::Pending => break,
            }
        }
        let mut sent = Streaming::new(memory, read_ahead, body);
        let declared = usize::try_from(hint.lower()).unwrap_or(usize::MAX);
        let kept = if declared > limit {
            None
        } else {
            sent.record(declared, limit).map(KeptBody::Streaming)
        };
        (Self::streaming(sent), kept)
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Sent::Memory(memory) => Poll::Ready(memory.next_frame().map(Ok)),
            Sent::Stream(streaming) => streaming.poll_frame(cx),
            Sent::Made(made) => made.poll_frame(cx),
            Sent::Once(body) => poll_once(body, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Sent::Once(body) => body.as_ref().is_none_or(Body::is_end_stream),
            Sent::Made(made) => made.body.as_ref().is_none_or(Body::is_end_stream),
            Sent::Memory(memory) => memory.is_end_stream(),
            Sent::Stream(streaming) => streaming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Sent::Once(body) => size_of_rest(body.as_ref()),
            Sent::Made(made) => size_of_rest(made.body.as_ref()),
            Sent::Memory(memory) => memory.size_hint(),
            Sent::Stream(streaming) => streaming.size_hint(),
        }
    }
}

impl<B: Default> Default for ReplayBody<B> {
    /// The default body of `B`. It cannot be sent again.
    fn default() -> Self {
        Self::once(B::default())
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_recording = matches!(&self.0, Sent::Stream(streaming) if streaming.is_recording());
        f.debug_struct("ReplayBody")
            .field("is_recording", &is_recording)
            .finish_non_exhaustive()
    }
}

/// The next frame of a body, which is dropped when it ends.
fn poll_once<B>(body: &mut Option<B>, cx: &mut Context<'_>) -> Poll<Option<SentFrame>>
where
    B: Body + Unpin,
    B::Error: Into<BodyError>,
{
    let Some(rest) = body else {
        return Poll::Ready(None);
    };
    let frame = ready!(stream::poll_bytes(rest, cx));
    if !matches!(frame, Some(Ok(Ok(_)))) {
        *body = None;
    }
    let into_frame = |frame: Result<_, _>| frame.map_or_else(Frame::trailers, Frame::data);
    Poll::Ready(frame.map(|frame| frame.map(into_frame)))
}

fn size_of_rest<B: Body>(rest: Option<&B>) -> SizeHint {
    rest.map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
}

// === KeptBody ===

/// What is kept of a body while it is sent, to send it again.
pub(crate) enum KeptBody<B> {
    InMemory(InMemory),
    Streaming(Reclaim<B>),
    Made(Remake<B>),
}

// === Made, Remake ===

/// A body from a factory. It ends when another body replaces it.
struct Made<B> {
    /// `None` after the body ended.
    body: Option<B>,
    /// Completes when another body replaces this one, and fails when none will. `None` after either.
    replaced: Option<oneshot::Receiver<()>>,
}

impl<B> Made<B>
where
    B: Body + Unpin,
    B::Error: Into<BodyError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<SentFrame>> {
        if let Some(replaced) = &mut self.replaced {
            match Pin::new(replaced).poll(cx) {
                Poll::Ready(Ok(())) => {
                    self.replaced = None;
                    // A body that was read to its end was sent in full, and ends without an error.
                    return Poll::Ready(self.body.take().map(|_| Err(Reclaimed.into())));
                }
                Poll::Ready(Err(_)) => self.replaced = None,
                Poll::Pending => {}
            }
        }
        poll_once(&mut self.body, cx)
    }
}

/// Makes another body in place of the one that is being sent.
pub(crate) struct Remake<B> {
    factory: BodyFactory<B>,
    /// The exact length of the first body. `None` if the body declared none.
    length: Option<u64>,
    replace: oneshot::Sender<()>,
}

impl<B: Body> Remake<B> {
    /// Makes the body, and ends the one before it.
    ///
    /// `None` if the new body declares another length. The head of the request describes the first body, and HTTP/1.1
    /// cuts off what exceeds its `Content-Length`.
    pub(crate) fn make(self) -> Option<Replayable<B>> {
        let body = self.factory.make();
        if body.size_hint().exact() != self.length {
            return None;
        }
        // Sending fails if the previous body was dropped: then it has ended already.
        let _ = self.replace.send(());
        Some(Replayable::Made {
            body,
            factory: self.factory,
        })
    }
}
