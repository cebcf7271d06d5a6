//! The beginning of a request body, read to find out whether the body is in memory.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use http_body::{Body, Frame};

use super::{
    kept::{DeclaredSize, InMemory},
    stream::{self, BodyError, Streaming},
};

/// What one or two polls of a body show.
pub(super) enum Beginning<B> {
    /// The body is in memory: it ended with its first frame, or with trailers after that frame.
    Whole(InMemory),
    /// The body is a stream, or failed.
    Part {
        stream: Streaming<B>,
        /// How many bytes the body declared at least.
        declared: usize,
    },
}

impl<B> Beginning<B>
where
    B: Body + Unpin,
    B::Error: Into<BodyError>,
{
    /// Polls the body once, or twice if its first frame is not the whole.
    #[inline]
    pub(super) fn of(mut body: B) -> Self {
        let hint = body.size_hint();
        let mut memory = InMemory {
            data: None,
            trailers: None,
            size: DeclaredSize::of(&hint),
        };
        // A no-op waker is enough: the transport polls a stream again with its own waker.
        let mut cx = Context::from_waker(Waker::noop());
        let read_ahead = loop {
            if body.is_end_stream() {
                return Self::Whole(memory);
            }
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(None) => return Self::Whole(memory),
                Poll::Ready(Some(Ok(frame))) => match stream::into_bytes(frame) {
                    Ok(data) if memory.data.is_none() => memory.data = Some(data),
                    Ok(data) => break Some(Ok(Frame::data(data))),
                    Err(trailers) => {
                        memory.trailers = Some(Box::new(trailers));
                        return Self::Whole(memory);
                    }
                },
                // The transport gets the error in its turn.
                Poll::Ready(Some(Err(error))) => break Some(Err(error.into())),
                Poll::Pending => break None,
            }
        };
        Self::Part {
            stream: Streaming::new(memory, read_ahead, body),
            declared: usize::try_from(hint.lower()).unwrap_or(usize::MAX),
        }
    }
}
