//! A request body that can be sent again.
//!
//! # What is kept
//!
//! A body that is in memory (it ends with its first frame, or with trailers after it) is kept as the very [`Bytes`]
//! that it was made of, whatever their size. Any other body is a stream: what it yields is copied into a recording while
//! it is sent, and past the limit the recording is given up, never the sending. The copy is what makes the limit hold:
//! a frame may be a slice of a buffer that is much larger, or so small that keeping it apart costs more than its bytes.
//! Of a body that comes with a [`BodyFactory`] nothing is kept but that.
//!
//! # Who owns the stream
//!
//! Nothing is shared between attempts. A stream and its recording belong to the one body that is being sent, which
//! hands both back when it is dropped or done, or as soon as it is polled after it was asked to. The next attempt then
//! replays the recording and goes on with the stream where the last one left it, so that an answer that comes early, to
//! a body half read or not read at all, neither loses nor repeats a byte.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::factory::BodyFactory;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

// === ReplayBody ===

/// The body of a request on its way out: the caller's body, and what it takes to send it again.
///
/// This is what the wrapped service gets for a body of type `B`. It yields the same bytes and trailers in the same
/// order, says of its size what `B` says, and fails as `B` fails. Frames may be cut differently.
///
/// Its data are [`Bytes`]. A body whose data are something else has them copied, frame by frame, as it is sent.
///
/// To find out whether it is in memory, the body is polled once or twice when the service is called.
///
/// A client that is kept in a struct names it: `SalesforceAuth<Client<HttpConnector, ReplayBody<Full<Bytes>>>>`.
///
/// `B` has to be [`Unpin`], as it has to be for hyper-util's client; `Box::pin` makes any body so.
pub struct ReplayBody<B>(Sent<B>);

enum Sent<B> {
    /// The caller's body, of which nothing is kept. None: it was read to its end, or to an error.
    Once(Option<B>),
    /// What is left of a body in memory.
    Memory(InMemory),
    /// A stream, or one that turned out to be none. On the heap, since requests are moved about, and most have none.
    Stream(Box<Streaming<B>>),
    /// One of several that a factory makes. On the heap for the same reason.
    Made(Box<Made<B>>),
}

/// A body that is ended when another is made in its place.
struct Made<B> {
    /// None: it was read to its end, or to an error.
    body: Option<B>,
    /// Completes when there is going to be another, and fails when there never will be. None: it failed.
    replaced: Option<oneshot::Receiver<()>>,
}

/// A stream on its way out.
struct Streaming<B> {
    /// Read already, to be handed out before anything else.
    ahead: Option<Bytes>,
    /// Read already, to be handed out after `ahead`.
    then: Option<Item>,
    /// What is not read yet. None: nothing follows.
    rest: Option<B>,
    size: Size,
    recorder: Option<Recorder<B>>,
}

type Item = Result<Frame<Bytes>, BoxError>;

/// What is said of the size of a body.
///
/// What was said at the start holds at every attempt, whatever is known by then: a transport frames a body by it, and
/// finds by it that one broke off.
#[derive(Clone, Copy, Debug)]
enum Size {
    /// It was said to be so many bytes from here on.
    Exact(u64),
    /// It was not said.
    Unknown,
}

impl Size {
    /// Takes note that data were handed out.
    fn hand_out(&mut self, data: &Bytes) {
        if let Self::Exact(left) = self {
            *left = left.saturating_sub(data.len() as u64);
        }
    }

    /// Whether nothing is missing. One that ended short of what it said has yet to be found out.
    fn is_complete(self) -> bool {
        !matches!(self, Self::Exact(1..))
    }

    /// What is said of a body of which at least `lower` bytes are left.
    fn hint(self, lower: u64) -> SizeHint {
        match self {
            Self::Exact(left) => SizeHint::with_exact(left),
            Self::Unknown => {
                let mut hint = SizeHint::new();
                hint.set_lower(lower);
                hint
            }
        }
    }
}

impl<B> ReplayBody<B> {
    fn streaming(streaming: Box<Streaming<B>>) -> Self {
        Self(Sent::Stream(streaming))
    }

    /// Sends `body` without keeping anything of it.
    pub(crate) fn once(body: B) -> Self {
        Self(Sent::Once(Some(body)))
    }

    /// Sends `body`, and keeps the factory that it is from, to send another in its place.
    pub(crate) fn made(body: B, factory: BodyFactory<B>) -> (Self, Option<KeptBody<B>>)
    where
        B: Body,
    {
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
}

impl<B> ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// Sends `body`, and keeps what it takes to send it again, `limit` bytes at most if it is a stream.
    ///
    /// None is kept of a body that is larger.
    pub(crate) fn keep(mut body: B, limit: usize) -> (Self, Option<KeptBody<B>>) {
        let hint = body.size_hint();
        let mut memory = InMemory {
            data: None,
            trailers: None,
            size: hint.exact().map_or(Size::Unknown, Size::Exact),
        };
        let mut then = None;
        // Two polls tell a body in memory from a stream. Whoever sends the body polls it with a waker that is awake.
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if body.is_end_stream() {
                return memory.keep();
            }
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(None) => return memory.keep(),
                Poll::Ready(Some(Ok(frame))) => match into_bytes(frame) {
                    Ok(data) if memory.data.is_none() => memory.data = Some(data),
                    Ok(data) => {
                        then = Some(Ok(Frame::data(data)));
                        break;
                    }
                    Err(trailers) => {
                        memory.trailers = Some(Box::new(trailers));
                        return memory.keep();
                    }
                },
                Poll::Ready(Some(Err(error))) => {
                    // Whoever sends the body meets the error in its turn, and does not send it again.
                    then = Some(Err(error.into()));
                    let sent = Streaming::new(memory, then, body);
                    return (Self::streaming(sent), None);
                }
                Poll::Pending => break,
            }
        }
        let mut sent = Streaming::new(memory, then, body);
        let declared = usize::try_from(hint.lower()).unwrap_or(usize::MAX);
        let kept = if declared > limit {
            None
        } else {
            sent.record_from_here(declared, limit)
        };
        (Self::streaming(sent), kept)
    }
}

impl<B> Streaming<B> {
    fn new(memory: InMemory, then: Option<Item>, rest: B) -> Box<Self> {
        Box::new(Self {
            ahead: memory.data,
            then,
            rest: Some(rest),
            size: memory.size,
            recorder: None,
        })
    }

    /// Records what was read ahead, and everything from here on, unless it is too much already. So many bytes in all are
    /// `expected`.
    fn record_from_here(&mut self, expected: usize, limit: usize) -> Option<KeptBody<B>> {
        let mut recorded = Recording::new(expected, limit);
        if !self.unread().all(|data| recorded.push(data)) {
            return None;
        }
        let (handback, handed_back) = oneshot::channel();
        let (reclaim, reclaimed) = oneshot::channel();
        self.recorder = Some(Recorder {
            recorded,
            trailers: None,
            size: self.size,
            handback,
            reclaimed,
        });
        Some(KeptBody::Streaming(Reclaim {
            reclaim: Some(reclaim),
            handed_back,
        }))
    }

    /// The data that was read ahead.
    fn unread(&self) -> impl Iterator<Item = &Bytes> {
        let then = self.then.as_ref().and_then(|item| item.as_ref().ok());
        self.ahead
            .iter()
            .chain(then.and_then(|frame| frame.data_ref()))
    }

    fn hand_back(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            recorder.hand_back(self.rest.take());
        }
    }

    /// Hands out data.
    fn hand_out(&mut self, data: Bytes) -> Poll<Option<Item>> {
        self.size.hand_out(&data);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl<B> Streaming<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// So many bytes are left at least.
    fn lower(&self) -> u64 {
        let unread: u64 = self.unread().map(|data| data.len() as u64).sum();
        let rest = self.rest.as_ref().map(Body::size_hint);
        unread.saturating_add(rest.unwrap_or_default().lower())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if let Some(recorder) = &mut self.recorder {
            match Pin::new(&mut recorder.reclaimed).poll(cx) {
                Poll::Ready(Ok(())) => {
                    self.hand_back();
                    self.ahead = None;
                    self.then = None;
                    return Poll::Ready(Some(Err(Reclaimed.into())));
                }
                // Nobody is going to ask.
                Poll::Ready(Err(_)) => self.recorder = None,
                Poll::Pending => {}
            }
        }
        if let Some(data) = self.ahead.take() {
            return self.hand_out(data);
        }
        if let Some(item) = self.then.take() {
            return match item.map(Frame::into_data) {
                Ok(Ok(data)) => self.hand_out(data),
                Ok(Err(frame)) => Poll::Ready(Some(Ok(frame))),
                Err(error) => Poll::Ready(Some(Err(error))),
            };
        }
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        match ready!(poll_bytes(rest, cx)) {
            None => {
                self.rest = None;
                self.hand_back();
                Poll::Ready(None)
            }
            Some(Ok(Ok(data))) => {
                if let Some(recorder) = &mut self.recorder
                    && !recorder.recorded.push(&data)
                {
                    self.recorder = None;
                }
                self.hand_out(data)
            }
            Some(Ok(Err(trailers))) => {
                self.rest = None;
                if let Some(recorder) = &mut self.recorder {
                    recorder.trailers = Some(Box::new(trailers.clone()));
                    self.hand_back();
                }
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Some(Err(error)) => {
                // What broke off cannot be sent again in full.
                self.rest = None;
                self.recorder = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl<B> Made<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if let Some(replaced) = &mut self.replaced {
            match Pin::new(replaced).poll(cx) {
                Poll::Ready(Ok(())) => {
                    self.replaced = None;
                    // What was read to its end was sent, whatever comes of it.
                    return Poll::Ready(self.body.take().map(|_| Err(Reclaimed.into())));
                }
                Poll::Ready(Err(_)) => self.replaced = None,
                Poll::Pending => {}
            }
        }
        poll_once(&mut self.body, cx)
    }
}

impl<B> Drop for Streaming<B> {
    fn drop(&mut self) {
        self.hand_back();
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
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
            Sent::Memory(memory) => memory.is_read() && memory.size.is_complete(),
            Sent::Stream(streaming) => {
                streaming.ahead.is_none()
                    && streaming.then.is_none()
                    && match &streaming.rest {
                        Some(rest) => rest.is_end_stream(),
                        None => streaming.size.is_complete(),
                    }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Sent::Once(body) => size_of_rest(body.as_ref()),
            Sent::Made(made) => size_of_rest(made.body.as_ref()),
            Sent::Memory(memory) => memory.size.hint(memory.data().len() as u64),
            Sent::Stream(streaming) => streaming.size.hint(streaming.lower()),
        }
    }
}

impl<B: Default> Default for ReplayBody<B> {
    /// The default body of `B`, with nothing kept of it.
    fn default() -> Self {
        Self::once(B::default())
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_recording =
            matches!(&self.0, Sent::Stream(streaming) if streaming.recorder.is_some());
        f.debug_struct("ReplayBody")
            .field("is_recording", &is_recording)
            .finish_non_exhaustive()
    }
}

/// The next frame of a body that is dropped when there is none.
fn poll_once<B>(body: &mut Option<B>, cx: &mut Context<'_>) -> Poll<Option<Item>>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let Some(rest) = body else {
        return Poll::Ready(None);
    };
    let item = ready!(poll_bytes(rest, cx));
    if !matches!(item, Some(Ok(Ok(_)))) {
        *body = None;
    }
    let frame = |item: Result<_, _>| item.map_or_else(Frame::trailers, Frame::data);
    Poll::Ready(item.map(|item| item.map(frame)))
}

fn size_of_rest<B: Body>(rest: Option<&B>) -> SizeHint {
    rest.map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
}

/// The next frame of a body: data, or trailers.
fn poll_bytes<B>(
    body: &mut B,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Result<Bytes, HeaderMap>, BoxError>>>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let item = ready!(Pin::new(body).poll_frame(cx));
    Poll::Ready(item.map(|frame| frame.map(into_bytes).map_err(Into::into)))
}

/// Data as [`Bytes`], which costs nothing where it is that already, or the trailers.
fn into_bytes<D: Buf>(frame: Frame<D>) -> Result<Bytes, HeaderMap> {
    match frame.into_data() {
        Ok(mut data) => Ok(data.copy_to_bytes(data.remaining())),
        Err(frame) => Err(frame.into_trailers().unwrap_or_default()),
    }
}

/// What the transport of an abandoned attempt gets in place of the rest of its body.
#[derive(Debug)]
struct Reclaimed;

impl fmt::Display for Reclaimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was rejected before its body was sent, which is being sent again")
    }
}

impl std::error::Error for Reclaimed {}

// === KeptBody ===

/// What is kept of a body while it is sent, to send it again.
pub(crate) enum KeptBody<B> {
    InMemory(InMemory),
    Streaming(Reclaim<B>),
    Made(Remake<B>),
}

/// A body, or the beginning of one, that is held in memory.
#[derive(Clone)]
pub(crate) struct InMemory {
    data: Option<Bytes>,
    trailers: Option<Box<HeaderMap>>,
    size: Size,
}

impl InMemory {
    pub(crate) fn data(&self) -> &[u8] {
        self.data.as_deref().unwrap_or_default()
    }

    /// Puts other data in their place. What was said of the size is said of them.
    pub(crate) fn replace_data(&mut self, data: Bytes) {
        if let Size::Exact(size) = &mut self.size {
            let others = size.saturating_sub(self.data.as_ref().map_or(0, Bytes::len) as u64);
            *size = others.saturating_add(data.len() as u64);
        }
        self.data = (!data.is_empty()).then_some(data);
    }

    /// Sends the body from its beginning.
    pub(crate) fn send<B>(self) -> ReplayBody<B> {
        ReplayBody(Sent::Memory(self))
    }

    fn keep<B>(self) -> (ReplayBody<B>, Option<KeptBody<B>>) {
        (self.clone().send(), Some(KeptBody::InMemory(self)))
    }

    fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        if let Some(data) = self.data.take() {
            self.size.hand_out(&data);
            return Some(Frame::data(data));
        }
        self.trailers
            .take()
            .map(|trailers| Frame::trailers(*trailers))
    }

    fn is_read(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }
}

/// A body that can be sent from its beginning.
pub(crate) enum Replayable<B> {
    Kept {
        /// All of it, or what a stream yielded so far.
        memory: InMemory,
        /// What a stream has yet to yield, and how much of it may be recorded.
        rest: Option<(B, usize)>,
    },
    /// It was made anew.
    Made { body: B, factory: BodyFactory<B> },
}

impl<B> From<InMemory> for Replayable<B> {
    fn from(memory: InMemory) -> Self {
        Self::Kept { memory, rest: None }
    }
}

impl<B> Replayable<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// What is known of the data, from the beginning on.
    pub(crate) fn data(&self) -> &[u8] {
        match self {
            Self::Kept { memory, .. } => memory.data(),
            Self::Made { .. } => &[],
        }
    }

    /// Whether that is all.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Kept { rest: None, .. })
    }

    /// Puts other data in the place of those that are known.
    pub(crate) fn replace_data(&mut self, data: Bytes) {
        if let Self::Kept { memory, .. } = self {
            memory.replace_data(data);
        }
    }

    /// Sends the body again, for the last time.
    pub(crate) fn send(self) -> ReplayBody<B> {
        match self {
            Self::Kept { memory, rest: None } => memory.send(),
            Self::Kept {
                memory,
                rest: Some((rest, _)),
            } => ReplayBody::streaming(Streaming::new(memory, None, rest)),
            Self::Made { body, .. } => ReplayBody::once(body),
        }
    }

    /// Sends the body again, and keeps what it takes to send it once more.
    pub(crate) fn keep(self) -> (ReplayBody<B>, Option<KeptBody<B>>) {
        match self {
            Self::Kept { memory, rest: None } => memory.keep(),
            Self::Kept {
                memory,
                rest: Some((rest, limit)),
            } => {
                let expected = memory.data().len();
                let mut sent = Streaming::new(memory, None, rest);
                let kept = sent.record_from_here(expected, limit);
                (ReplayBody::streaming(sent), kept)
            }
            Self::Made { body, factory } => ReplayBody::made(body, factory),
        }
    }
}

// === Recorder ===

/// Records a stream, and hands it back.
struct Recorder<B> {
    recorded: Recording,
    trailers: Option<Box<HeaderMap>>,
    /// At the start of the body.
    size: Size,
    /// Dropped without a word if the stream outgrew its recording.
    handback: oneshot::Sender<Replayable<B>>,
    /// Completes when the stream is wanted back, and fails when it never will be.
    reclaimed: oneshot::Receiver<()>,
}

impl<B> Recorder<B> {
    fn hand_back(self, rest: Option<B>) {
        let Recording { bytes, limit } = self.recorded;
        // If nobody is there to take it, nobody wants it.
        let _ = self.handback.send(Replayable::Kept {
            memory: InMemory {
                data: (!bytes.is_empty()).then(|| bytes.into()),
                trailers: self.trailers,
                size: self.size,
            },
            rest: rest.map(|rest| (rest, limit)),
        });
    }
}

/// So many bytes are set aside for what a body says that it has, before it yields any.
const BELIEVED: usize = 64 * 1024;

/// The bytes of a stream so far, up to a limit.
struct Recording {
    bytes: Vec<u8>,
    limit: usize,
}

impl Recording {
    /// With room for what is `expected`, as far as that is worth being believed.
    fn new(expected: usize, limit: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(expected.min(limit).min(BELIEVED)),
            limit,
        }
    }

    /// Adds `data`, or says that it does not fit.
    fn push(&mut self, data: &[u8]) -> bool {
        let len = self.bytes.len().saturating_add(data.len());
        if len > self.limit {
            return false;
        }
        if len > self.bytes.capacity() {
            // Doubles like any vector, but never beyond the limit: that is what the limit promises.
            let capacity = self
                .bytes
                .capacity()
                .saturating_mul(2)
                .clamp(len, self.limit);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        true
    }
}

// === Remake ===

/// Makes another body in place of the one that is being sent.
pub(crate) struct Remake<B> {
    factory: BodyFactory<B>,
    /// What was said of the length of the first, if it was said.
    length: Option<u64>,
    replace: oneshot::Sender<()>,
}

impl<B: Body> Remake<B> {
    /// Makes the body, and tells the one before to end. None if it says another length: the head of the request is that of
    /// the first, and HTTP/1.1 cuts off what is longer.
    pub(crate) fn make(self) -> Option<Replayable<B>> {
        let body = self.factory.make();
        if body.size_hint().exact() != self.length {
            return None;
        }
        // If the one before is gone, it need not be told to end.
        let _ = self.replace.send(());
        Some(Replayable::Made {
            body,
            factory: self.factory,
        })
    }
}

// === Reclaim ===

/// Gets a stream back from the attempt that was sending it.
///
/// Asks at the first poll. Completes with None if the stream outgrew its recording, or broke off.
pub(crate) struct Reclaim<B> {
    reclaim: Option<oneshot::Sender<()>>,
    handed_back: oneshot::Receiver<Replayable<B>>,
}

impl<B> Future for Reclaim<B> {
    type Output = Option<Replayable<B>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(reclaim) = self.reclaim.take() {
            // If the body is gone, so is its answer: it is there already.
            let _ = reclaim.send(());
        }
        Pin::new(&mut self.handed_back).poll(cx).map(Result::ok)
    }
}
