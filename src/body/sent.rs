//! The request body that is sent, and what is kept to send it again.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::{
    beginning::Beginning,
    factory::BodyFactory,
    kept::{InMemory, Replayable},
    stream::{self, BodyError, Reclaim, Reclaimed, SentFrame, Streaming},
};

/// Largest body in memory that is copied for a replay, in bytes. A second `Bytes` on a body costs an allocation, and a copy
/// behind the head costs none.
const COPIED: usize = 1024;

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
    /// The unsent rest of a body in memory, which has no trailers and declared the size of its data.
    Memory(Bytes),
    /// Any other body. Boxed, because requests are moved often and most of them have a small body in memory, or none.
    Other(Box<Other<B>>),
}

enum Other<B> {
    /// The caller's body, of which nothing is kept. `None` after it ended.
    Once(Option<B>),
    /// The unsent rest of a body in memory, which has trailers or declared another size.
    Memory(InMemory),
    Stream(Streaming<B>),
    /// A body from a factory.
    Made(Made<B>),
}

impl<B> ReplayBody<B> {
    /// The data of a body in memory. Empty for any other body.
    pub(crate) fn in_memory(&self) -> &[u8] {
        match &self.0 {
            Sent::Memory(data) => data,
            Sent::Other(_) => &[],
        }
    }

    /// Sends a body again, and keeps nothing of it.
    pub(crate) fn resend(body: Replayable<B>) -> Self {
        match body {
            Replayable::Kept { memory, rest: None } => Self::of_memory(memory),
            Replayable::Kept {
                memory,
                rest: Some((rest, _)),
            } => Self::other(Other::Stream(Streaming::new(memory, None, rest))),
            Replayable::Made { body, .. } => Self::other(Other::Once(Some(body))),
        }
    }

    #[inline]
    fn of_memory(memory: InMemory) -> Self {
        match memory.into_plain() {
            Ok(data) => Self(Sent::Memory(data)),
            Err(other) => Self::other(Other::Memory(other)),
        }
    }

    fn other(other: Other<B>) -> Self {
        Self(Sent::Other(Box::new(other)))
    }

    /// Sends a body in memory from its beginning, and keeps it. Of a body of at most `copied` bytes, the caller keeps a copy.
    #[inline]
    fn memory_keeping(memory: InMemory, copied: usize) -> (Self, Option<KeptBody<B>>) {
        let (sent, kept) = match memory.into_plain() {
            Ok(data) => {
                let kept = if data.len() <= copied {
                    KeptBody::Copied
                } else {
                    KeptBody::Data(data.clone())
                };
                (Self(Sent::Memory(data)), kept)
            }
            Err(other) => {
                let kept = KeptBody::Ready(Box::new(other.clone().into()));
                (Self::other(Other::Memory(other)), kept)
            }
        };
        (sent, Some(kept))
    }
}

impl<B: Body> ReplayBody<B> {
    /// Sends `body`, and keeps its factory to send another body in its place.
    pub(crate) fn made(body: B, factory: BodyFactory<B>) -> (Self, Option<KeptBody<B>>) {
        let (replace, replaced) = oneshot::channel();
        let kept = KeptBody::Made(Remake {
            factory,
            length: body.size_hint().exact(),
            replace: Some(replace),
        });
        let made = Made {
            body: Some(body),
            replaced: Some(replaced),
        };
        (Self::other(Other::Made(made)), Some(kept))
    }

    /// Sends a body again, and keeps what a further attempt needs.
    pub(crate) fn resend_keeping(body: Replayable<B>) -> (Self, Option<KeptBody<B>>) {
        match body {
            Replayable::Kept { memory, rest: None } => Self::memory_keeping(memory, 0),
            Replayable::Kept {
                memory,
                rest: Some((rest, limit)),
            } => {
                let expected = memory.data().len();
                let mut sent = Streaming::new(memory, None, rest);
                let kept = sent.record(expected, limit).map(KeptBody::Streaming);
                (Self::other(Other::Stream(sent)), kept)
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
    /// Sends `body` without keeping anything of it.
    ///
    /// A body that declares its size is polled: one in memory is sent without an allocation.
    #[inline]
    pub(crate) fn once(body: B) -> Self {
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            return Self::other(Other::Once(Some(body)));
        }
        match Beginning::of(body) {
            Beginning::Whole(memory) => Self::of_memory(memory),
            Beginning::Part { stream, .. } => Self::other(Other::Stream(stream)),
        }
    }

    /// Sends `body`, and keeps what a further attempt needs: of a stream, at most `limit` bytes. `edit` may change a body
    /// in memory before.
    ///
    /// Nothing is kept of a stream that is known to be larger, or that failed already.
    #[inline]
    pub(crate) fn keeping(
        body: B,
        limit: usize,
        edit: impl FnOnce(&mut InMemory),
    ) -> (Self, Option<KeptBody<B>>) {
        match Beginning::of(body) {
            Beginning::Whole(mut memory) => {
                edit(&mut memory);
                Self::memory_keeping(memory, COPIED)
            }
            Beginning::Part {
                mut stream,
                declared,
            } => {
                let kept = if declared > limit || stream.has_failed() {
                    None
                } else {
                    stream.record(declared, limit).map(KeptBody::Streaming)
                };
                (Self::other(Other::Stream(stream)), kept)
            }
        }
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
            Sent::Memory(data) if data.is_empty() => Poll::Ready(None),
            Sent::Memory(data) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(data))))),
            Sent::Other(other) => match &mut **other {
                Other::Memory(memory) => Poll::Ready(memory.next_frame().map(Ok)),
                Other::Stream(streaming) => streaming.poll_frame(cx),
                Other::Made(made) => made.poll_frame(cx),
                Other::Once(body) => poll_once(body, cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Sent::Memory(data) => data.is_empty(),
            Sent::Other(other) => match &**other {
                Other::Once(body) => body.as_ref().is_none_or(Body::is_end_stream),
                Other::Made(made) => made.body.as_ref().is_none_or(Body::is_end_stream),
                Other::Memory(memory) => memory.is_end_stream(),
                Other::Stream(streaming) => streaming.is_end_stream(),
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Sent::Memory(data) => SizeHint::with_exact(data.len() as u64),
            Sent::Other(other) => match &**other {
                Other::Once(body) => size_of_rest(body.as_ref()),
                Other::Made(made) => size_of_rest(made.body.as_ref()),
                Other::Memory(memory) => memory.size_hint(),
                Other::Stream(streaming) => streaming.size_hint(),
            },
        }
    }
}

impl<B: Default> Default for ReplayBody<B> {
    /// The default body of `B`. It cannot be sent again.
    fn default() -> Self {
        Self::other(Other::Once(Some(B::default())))
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_recording = match &self.0 {
            Sent::Memory(_) => false,
            Sent::Other(other) => {
                matches!(&**other, Other::Stream(streaming) if streaming.is_recording())
            }
        };
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
    /// The body is small, and a copy of it is kept with the head of the request.
    Copied,
    /// The data of a body in memory, which has no trailers and declared the size of its data.
    Data(Bytes),
    /// Any other body that can be sent from its beginning. Boxed, because few requests have one.
    Ready(Box<Replayable<B>>),
    /// A stream, which the attempt before still owns.
    Streaming(Reclaim<B>),
    /// The factory of the next body.
    Made(Remake<B>),
}

impl<B> KeptBody<B> {
    /// Waits for the attempt before to hand its stream back, if this is one. Afterwards the body [is ready](Self::is_ready),
    /// or the stream cannot be sent again.
    pub(crate) fn poll_reclaim(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Streaming(reclaim) = self
            && let Some(body) = ready!(Pin::new(reclaim).poll(cx))
        {
            *self = Self::Ready(Box::new(body));
        }
        Poll::Ready(())
    }

    /// Whether the body can be sent from its beginning.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self, Self::Copied | Self::Data(_) | Self::Ready(_))
    }

    /// The body to send again. `copied` returns the copy of a small one. `None` if the body is not
    /// [ready](Self::is_ready).
    pub(crate) fn into_replayable(self, copied: impl FnOnce() -> Bytes) -> Option<Replayable<B>> {
        match self {
            Self::Copied => Some(InMemory::from(copied()).into()),
            Self::Data(data) => Some(InMemory::from(data).into()),
            Self::Ready(body) => Some(*body),
            Self::Streaming(_) | Self::Made(_) => None,
        }
    }
}

impl<B: Body> KeptBody<B> {
    /// Makes the next body, if there is a factory. Returns whether the body [is ready](Self::is_ready).
    pub(crate) fn make_next(&mut self) -> bool {
        if let Self::Made(remake) = self
            && let Some(body) = remake.make()
        {
            *self = Self::Ready(Box::new(body));
        }
        self.is_ready()
    }
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
    /// Ends the body that is being sent. `None` after it was used.
    replace: Option<oneshot::Sender<()>>,
}

impl<B: Body> Remake<B> {
    /// Makes the body, and ends the one before it.
    ///
    /// `None` if the new body declares another length. The head of the request describes the first body, and HTTP/1.1
    /// cuts off what exceeds its `Content-Length`.
    fn make(&mut self) -> Option<Replayable<B>> {
        let body = self.factory.make();
        if body.size_hint().exact() != self.length {
            return None;
        }
        if let Some(replace) = self.replace.take() {
            // Sending fails if the previous body was dropped: then it has ended already.
            let _ = replace.send(());
        }
        Some(Replayable::Made {
            body,
            factory: self.factory.clone(),
        })
    }
}
