//! A response body that was looked into.

use std::{
    collections::VecDeque,
    fmt,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// Frames may be empty, and come without end.
const MAX_FRAMES: usize = 4096;

/// The data of a frame are in one piece, or in a few.
const MAX_PIECES: usize = 16;

pin_project! {
    /// The body of a response: the wrapped service's own.
    ///
    /// Of an answer that may turn the session down, the beginning may have been read already. It is handed on first, byte
    /// for byte.
    pub struct ResponseBody<B: Body> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B: Body> {
        Untouched {
            #[pin]
            body: B,
        },
        // Boxed, since hardly any answer is looked into, and all are moved about.
        Peeked {
            peeked: Box<Peeked<B>>,
        },
    }
}

type Item<B> = Result<Frame<<B as Body>::Data>, <B as Body>::Error>;

/// A body with its beginning read. On the heap, so that it can be read before it is known whose it is going to be.
pub(crate) struct Peeked<B: Body> {
    frames: VecDeque<Item<B>>,
    /// How many bytes were read.
    read: usize,
    /// A copy of the first of them, as many as could be looked at.
    seen: Vec<u8>,
    /// None: it was read to its end, or to an error.
    rest: Option<Pin<Box<B>>>,
}

impl<B: Body> ResponseBody<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            state: State::Untouched { body },
        }
    }
}

impl<B: Body> From<Peeked<B>> for ResponseBody<B> {
    fn from(peeked: Peeked<B>) -> Self {
        Self {
            state: State::Peeked {
                peeked: Box::new(peeked),
            },
        }
    }
}

impl<B: Body> Peeked<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            // What Salesforce says of a session that has ended fits into one.
            frames: VecDeque::with_capacity(1),
            read: 0,
            seen: Vec::new(),
            rest: Some(Box::pin(body)),
        }
    }

    /// Reads on until the end, an error, more than `limit` bytes, or more frames than an honest body has.
    ///
    /// A body that is read to its end gives its connection back.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<()> {
        while self.read <= limit && self.frames.len() <= MAX_FRAMES {
            let Some(rest) = &mut self.rest else {
                break;
            };
            match ready!(rest.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.look_at(data, limit);
                    }
                    self.frames.push_back(Ok(frame));
                }
                Some(Err(error)) => {
                    self.rest = None;
                    self.frames.push_back(Err(error));
                }
                None => self.rest = None,
            }
        }
        Poll::Ready(())
    }

    /// Copies what a reader would get, up to `limit` in all.
    fn look_at(&mut self, data: &B::Data, limit: usize) {
        // What comes after data that could not be looked at does not follow what was.
        if self.seen.len() == self.read {
            let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
            let count = data.chunks_vectored(&mut pieces);
            for piece in pieces.iter().take(count) {
                let room = limit.saturating_sub(self.seen.len());
                self.seen.extend(piece.iter().take(room));
            }
        }
        self.read = self.read.saturating_add(data.remaining());
    }

    /// The bytes that were read, from the first on.
    pub(crate) fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// Whether these are all that there are.
    pub(crate) fn is_whole(&self) -> bool {
        let is_read = self.rest.is_none() && self.frames.iter().all(Result::is_ok);
        is_read && self.seen.len() == self.read
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item<B>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(frame));
        }
        match &mut self.rest {
            Some(rest) => rest.as_mut().poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let data = self.frames.iter().filter_map(|frame| frame.as_ref().ok());
        let unread: u64 = data
            .filter_map(Frame::data_ref)
            .map(|data| data.remaining() as u64)
            .sum();
        let rest = match &self.rest {
            Some(rest) => rest.size_hint(),
            None if self.frames.iter().all(Result::is_ok) => SizeHint::with_exact(0),
            // It broke off: how much is missing nobody knows.
            None => SizeHint::default(),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(unread));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(unread));
        }
        hint
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item<B>>> {
        match self.project().state.project() {
            StateProj::Untouched { body } => body.poll_frame(cx),
            StateProj::Peeked { peeked } => peeked.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Untouched { body } => body.is_end_stream(),
            State::Peeked { peeked } => {
                peeked.frames.is_empty() && peeked.rest.as_ref().is_none_or(Body::is_end_stream)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Untouched { body } => body.size_hint(),
            State::Peeked { peeked } => peeked.size_hint(),
        }
    }
}

impl<B: Body + Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
