//! A response body whose beginning was read to classify the response.

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

/// Most frames that are read. A body could yield empty frames without end.
const MAX_FRAMES: usize = 4096;

/// The length of a body that is classified at each of its frames.
const SHORT: usize = 1024;

/// Most pieces of one frame's data that are copied.
const MAX_PIECES: usize = 16;

pin_project! {
    /// The response body of the layer: the wrapped service's body, unchanged.
    ///
    /// The layer may have read the beginning of a response that could be a rejection. The body yields that part first,
    /// byte for byte.
    pub struct ResponseBody<B: Body> {
        #[pin]
        content: Content<B>,
    }
}

pin_project! {
    #[project = ContentProj]
    enum Content<B: Body> {
        Untouched {
            #[pin]
            body: B,
        },
        // Boxed, because few responses are peeked at and all of them are moved.
        Peeked {
            peeked: Box<Peeked<B>>,
        },
    }
}

type FrameOf<B> = Result<Frame<<B as Body>::Data>, <B as Body>::Error>;

/// A body whose beginning was read.
///
/// The rest is boxed, so that it can be polled before the caller pins the response body.
pub(crate) struct Peeked<B: Body> {
    /// The data of the first frame, if it is in one piece: nearly always the whole body. `None` after it was yielded.
    first: Option<B::Data>,
    /// What was read beside that. `None` if nothing was.
    others: Option<Box<Others<B>>>,
    /// The unread rest. `None` after the body ended, or failed.
    rest: Option<Pin<Box<B>>>,
    /// How many bytes were classified.
    classified: usize,
}

/// The frames of a body that came in several.
struct Others<B: Body> {
    /// The frames after the first, or all frames.
    frames: VecDeque<FrameOf<B>>,
    /// The number of bytes that were read, with the first frame.
    read: usize,
    /// A copy of the first bytes that were read, up to the limit.
    seen: Vec<u8>,
}

impl<B: Body> ResponseBody<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            content: Content::Untouched { body },
        }
    }
}

impl<B: Body> From<Peeked<B>> for ResponseBody<B> {
    fn from(peeked: Peeked<B>) -> Self {
        Self {
            content: Content::Peeked {
                peeked: Box::new(peeked),
            },
        }
    }
}

impl<B: Body> Peeked<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            first: None,
            others: None,
            rest: Some(Box::pin(body)),
            classified: 0,
        }
    }

    /// Reads until the body ends or fails, or exceeds `limit` bytes or [`MAX_FRAMES`].
    ///
    /// Reading a body to its end frees its connection for reuse.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<()> {
        while !self.is_full(limit) {
            let Some(rest) = &mut self.rest else {
                break;
            };
            match ready!(rest.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => self.push(frame, limit),
                Some(Err(error)) => {
                    self.rest = None;
                    self.others(limit).frames.push_back(Err(error));
                }
                None => self.rest = None,
            }
        }
        Poll::Ready(())
    }

    fn is_full(&self, limit: usize) -> bool {
        let others = self.others.as_ref();
        others.is_some_and(|others| others.read > limit || others.frames.len() >= MAX_FRAMES)
    }

    fn push(&mut self, frame: Frame<B::Data>, limit: usize) {
        let is_first = self.first.is_none() && self.others.is_none();
        let frame = match frame.into_data() {
            Ok(data) if is_first && data.remaining() <= limit && is_in_one_piece(&data) => {
                self.first = Some(data);
                return;
            }
            Ok(data) => {
                self.others(limit).copy(&data, limit);
                Frame::data(data)
            }
            Err(frame) => frame,
        };
        self.others(limit).frames.push_back(Ok(frame));
    }

    /// What was read beside the first frame, whose data counts as read and is copied.
    fn others(&mut self, limit: usize) -> &mut Others<B> {
        let first = self.first.as_ref();
        self.others.get_or_insert_with(|| {
            let mut others = Box::new(Others {
                frames: VecDeque::with_capacity(1),
                read: 0,
                seen: Vec::new(),
            });
            if let Some(first) = first {
                others.copy(first, limit);
            }
            others
        })
    }

    /// The beginning of the body that was read, up to the limit, and before it was yielded.
    pub(crate) fn seen(&self) -> &[u8] {
        match (&self.others, &self.first) {
            (Some(others), _) => &others.seen,
            (None, Some(first)) => first.chunk(),
            (None, None) => &[],
        }
    }

    /// Whether a beginning is worth classifying: it is short, or twice as long as the last time.
    ///
    /// So a body in thousands of frames costs at most two searches of the whole.
    pub(crate) fn has_grown(&mut self) -> bool {
        let seen = self.seen().len();
        let has_grown = seen <= SHORT || seen >= self.classified.saturating_mul(2);
        if has_grown {
            self.classified = seen;
        }
        has_grown
    }

    /// Whether [`seen`](Self::seen) is the whole body.
    pub(crate) fn is_whole(&self) -> bool {
        let is_seen = |others: &Others<B>| !others.has_failed() && others.seen.len() == others.read;
        self.rest.is_none() && self.others.as_deref().is_none_or(is_seen)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<FrameOf<B>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(frame) = self.others.as_mut().and_then(|it| it.frames.pop_front()) {
            return Poll::Ready(Some(frame));
        }
        match &mut self.rest {
            Some(rest) => rest.as_mut().poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none()
            && self.others.as_ref().is_none_or(|it| it.frames.is_empty())
            && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let frames = self.others.iter().flat_map(|others| &others.frames);
        let data = frames.filter_map(|frame| frame.as_ref().ok()?.data_ref());
        let unread: u64 = self
            .first
            .iter()
            .chain(data)
            .map(|data| data.remaining() as u64)
            .sum();
        let rest = match &self.rest {
            Some(rest) => rest.size_hint(),
            None if !self.others.as_deref().is_some_and(Others::has_failed) => {
                SizeHint::with_exact(0)
            }
            // The body failed: the size of the rest is unknown.
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

fn is_in_one_piece(data: &impl Buf) -> bool {
    data.chunk().len() == data.remaining()
}

impl<B: Body> Others<B> {
    /// Copies `data` to `seen`, which holds at most `limit` bytes.
    fn copy(&mut self, data: &B::Data, limit: usize) {
        // After a gap, later data would not be contiguous with the copy.
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

    /// Whether the body failed, and the error was not yielded yet.
    fn has_failed(&self) -> bool {
        self.frames.iter().any(Result::is_err)
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FrameOf<B>>> {
        match self.project().content.project() {
            ContentProj::Untouched { body } => body.poll_frame(cx),
            ContentProj::Peeked { peeked } => peeked.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Untouched { body } => body.is_end_stream(),
            Content::Peeked { peeked } => peeked.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Untouched { body } => body.size_hint(),
            Content::Peeked { peeked } => peeked.size_hint(),
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

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, pin::pin};

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, &'static str>>;

    #[expect(clippy::unnecessary_wraps, reason = "bodies are made of results")]
    fn data(text: &'static [u8]) -> Result<Frame<Bytes>, &'static str> {
        Ok(Frame::data(Bytes::from_static(text)))
    }

    fn body(frames: Frames) -> impl Body<Data = Bytes, Error = &'static str> {
        StreamBody::new(futures_util::stream::iter(frames))
    }

    /// Reads a body up to `limit` bytes.
    fn peeked<B: Body>(body: B, limit: usize) -> Peeked<B> {
        let mut peeked = Peeked::new(body);
        let read = peeked.poll_read(&mut Context::from_waker(std::task::Waker::noop()), limit);
        assert!(read.is_ready());
        peeked
    }

    #[test]
    fn a_peek_is_whole_if_all_was_read_and_copied() {
        assert!(peeked(body(vec![data(b"ab"), data(b"c")]), 3).is_whole());
        // A rest, a part that was not copied, an error.
        assert!(!peeked(body(vec![data(b"abc"), data(b"d")]), 2).is_whole());
        assert!(!peeked(body(vec![data(b"abc")]), 2).is_whole());
        assert!(!peeked(body(vec![data(b"a"), Err("broke off")]), 3).is_whole());
    }

    #[test]
    fn a_long_body_is_classified_when_it_has_doubled() {
        let mut peeked = peeked(body(Vec::new()), 0);
        let mut grown = |len| {
            peeked.others(0).seen.resize(len, b'a');
            peeked.has_grown()
        };
        assert!(grown(SHORT - 1) && grown(SHORT));
        assert!(!grown(SHORT + 1) && !grown(2 * SHORT - 1));
        assert!(grown(2 * SHORT));
        assert!(!grown(4 * SHORT - 1) && grown(4 * SHORT));
    }

    #[tokio::test]
    async fn a_peeked_body_has_the_size_and_end_of_the_body() {
        let mut whole = ResponseBody::from(peeked(Full::new(Bytes::from_static(b"abc")), 3));
        assert_eq!(whole.size_hint().exact(), Some(3));
        assert!(!whole.is_end_stream());
        let frame = pin!(&mut whole).frame().await;
        assert!(matches!(frame, Some(Ok::<_, Infallible>(_))));
        assert_eq!(whole.size_hint().exact(), Some(0));
        assert!(whole.is_end_stream());

        // The rest is unread.
        let mut rest = ResponseBody::from(peeked(body(vec![data(b"abc"), data(b"d")]), 2));
        assert_eq!(rest.size_hint().lower(), 3);
        assert_eq!(rest.size_hint().exact(), None);
        assert!(pin!(&mut rest).frame().await.is_some());
        assert!(!rest.is_end_stream());

        // The body failed: its size is unknown.
        let failed = ResponseBody::from(peeked(body(vec![data(b"a"), Err("broke off")]), 9));
        assert_eq!(failed.size_hint().exact(), None);
        assert!(!failed.is_end_stream());

        let untouched = ResponseBody::new(Full::new(Bytes::from_static(b"abc")));
        assert_eq!(untouched.size_hint().exact(), Some(3));
    }
}
