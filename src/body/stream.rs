//! A request body that is streamed: recorded while it is sent, and handed back for the next attempt.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::kept::{DeclaredSize, InMemory, Replayable};

pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

pub(super) type SentFrame = Result<Frame<Bytes>, BodyError>;

// === Streaming ===

/// A stream that is being sent.
pub(super) struct Streaming<B> {
    /// Bytes to yield first: read ahead, or recorded by an earlier attempt. `None` after they were yielded.
    prefix: Option<Bytes>,
    /// The frame or error that was read ahead after `prefix`. `None` if there was none, or after it was yielded.
    read_ahead: Option<SentFrame>,
    /// The unread rest. `None` after the body ended.
    rest: Option<B>,
    size: DeclaredSize,
    /// `None` if the stream is not recorded, or no longer is.
    recorder: Option<Recorder<B>>,
}

impl<B> Streaming<B> {
    pub(super) fn new(memory: InMemory, read_ahead: Option<SentFrame>, rest: B) -> Self {
        Self {
            prefix: memory.data,
            read_ahead,
            rest: Some(rest),
            size: memory.size,
            recorder: None,
        }
    }

    /// Records the stream, including what was read ahead.
    ///
    /// `expected` is the number of bytes that the recording will probably hold. `None` if the bytes read ahead already
    /// exceed `limit`.
    pub(super) fn record(&mut self, expected: usize, limit: usize) -> Option<Reclaim<B>> {
        let mut recorded = Recording::new(expected, limit);
        if !self.unread().all(|data| recorded.push(data)) {
            return None;
        }
        let (hand_back, handed_back) = oneshot::channel();
        let (reclaim, reclaimed) = oneshot::channel();
        self.recorder = Some(Recorder {
            recorded,
            trailers: None,
            size: self.size,
            hand_back,
            reclaimed,
        });
        Some(Reclaim {
            reclaim: Some(reclaim),
            handed_back,
        })
    }

    /// Whether the body failed while it was read ahead.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.read_ahead, Some(Err(_)))
    }

    pub(super) fn is_recording(&self) -> bool {
        self.recorder.is_some()
    }

    /// The data that was read ahead.
    fn unread(&self) -> impl Iterator<Item = &Bytes> {
        let read_ahead = self
            .read_ahead
            .as_ref()
            .and_then(|frame| frame.as_ref().ok());
        self.prefix
            .iter()
            .chain(read_ahead.and_then(|frame| frame.data_ref()))
    }

    fn hand_back(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            recorder.hand_back(self.rest.take());
        }
    }

    fn yield_data(&mut self, data: Bytes) -> Poll<Option<SentFrame>> {
        self.size.subtract(&data);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl<B: Body> Streaming<B> {
    pub(super) fn is_end_stream(&self) -> bool {
        self.prefix.is_none()
            && self.read_ahead.is_none()
            && match &self.rest {
                Some(rest) => rest.is_end_stream(),
                None => self.size.is_complete(),
            }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let unread: u64 = self.unread().map(|data| data.len() as u64).sum();
        let rest = self.rest.as_ref().map(Body::size_hint);
        let lower = unread.saturating_add(rest.unwrap_or_default().lower());
        self.size.hint(lower)
    }
}

impl<B> Streaming<B>
where
    B: Body + Unpin,
    B::Error: Into<BodyError>,
{
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<SentFrame>> {
        if let Some(recorder) = &mut self.recorder {
            match Pin::new(&mut recorder.reclaimed).poll(cx) {
                Poll::Ready(Ok(())) => {
                    self.hand_back();
                    self.prefix = None;
                    self.read_ahead = None;
                    return Poll::Ready(Some(Err(Reclaimed.into())));
                }
                // `Reclaim` was dropped: no attempt will follow.
                Poll::Ready(Err(_)) => self.recorder = None,
                Poll::Pending => {}
            }
        }
        if let Some(data) = self.prefix.take() {
            return self.yield_data(data);
        }
        if let Some(frame) = self.read_ahead.take() {
            return match frame.map(Frame::into_data) {
                Ok(Ok(data)) => self.yield_data(data),
                Ok(Err(trailers)) => Poll::Ready(Some(Ok(trailers))),
                Err(error) => {
                    self.rest = None;
                    Poll::Ready(Some(Err(error)))
                }
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
                self.yield_data(data)
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
                // A body that failed cannot be sent again in full.
                self.rest = None;
                self.recorder = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl<B> Drop for Streaming<B> {
    fn drop(&mut self) {
        self.hand_back();
    }
}

/// The next frame of a body: data, or trailers.
pub(super) fn poll_bytes<B>(
    body: &mut B,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Result<Bytes, HeaderMap>, BodyError>>>
where
    B: Body + Unpin,
    B::Error: Into<BodyError>,
{
    let frame = ready!(Pin::new(body).poll_frame(cx));
    Poll::Ready(frame.map(|frame| frame.map(into_bytes).map_err(Into::into)))
}

/// The data of a frame as [`Bytes`], or its trailers. Data that is `Bytes` already is not copied.
pub(super) fn into_bytes<D: Buf>(frame: Frame<D>) -> Result<Bytes, HeaderMap> {
    match frame.into_data() {
        Ok(mut data) => Ok(data.copy_to_bytes(data.remaining())),
        Err(frame) => Err(frame.into_trailers().unwrap_or_default()),
    }
}

/// The error that ends the body of a rejected attempt, in place of its rest.
#[derive(Debug)]
pub(super) struct Reclaimed;

impl fmt::Display for Reclaimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the request was rejected before all of its body was sent, and is being sent again",
        )
    }
}

impl std::error::Error for Reclaimed {}

// === Recorder ===

/// Records a stream, and hands it back.
struct Recorder<B> {
    recorded: Recording,
    /// The trailers of the stream. `None` until it has yielded them, and if it has none.
    trailers: Option<Box<HeaderMap>>,
    /// The size declared at the start of the body.
    size: DeclaredSize,
    /// Receives the stream. Dropped unused if the stream exceeds the limit of its recording.
    hand_back: oneshot::Sender<Replayable<B>>,
    /// Completes when the stream is to be handed back, and fails when no attempt will need it.
    reclaimed: oneshot::Receiver<()>,
}

impl<B> Recorder<B> {
    fn hand_back(self, rest: Option<B>) {
        let Recording { bytes, limit } = self.recorded;
        // Sending fails if `Reclaim` was dropped: then no attempt needs the stream.
        let _ = self.hand_back.send(Replayable::Kept {
            memory: InMemory {
                data: (!bytes.is_empty()).then(|| bytes.into()),
                trailers: self.trailers,
                size: self.size,
            },
            rest: rest.map(|rest| (rest, limit)),
        });
    }
}

/// Largest buffer that is allocated for a declared size, before the body has yielded any data.
const MAX_INITIAL_CAPACITY: usize = 64 * 1024;

/// The bytes that a stream has yielded so far, up to a limit.
struct Recording {
    bytes: Vec<u8>,
    limit: usize,
}

impl Recording {
    /// An empty recording with capacity for `expected` bytes, up to [`MAX_INITIAL_CAPACITY`].
    fn new(expected: usize, limit: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(expected.min(limit).min(MAX_INITIAL_CAPACITY)),
            limit,
        }
    }

    /// Adds `data`, and returns whether it fitted into the limit.
    fn push(&mut self, data: &[u8]) -> bool {
        let len = self.bytes.len().saturating_add(data.len());
        if len > self.limit {
            return false;
        }
        if len > self.bytes.capacity() {
            // Doubles like any vector, but never allocates more than the limit, as the limit promises.
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

// === Reclaim ===

/// Takes a stream back from the attempt that sends it.
///
/// The first poll asks for the stream. The future completes with `None` if the stream exceeded the limit of its
/// recording, or failed.
pub(crate) struct Reclaim<B> {
    /// Asks the sending body to hand the stream back. `None` after the first poll.
    reclaim: Option<oneshot::Sender<()>>,
    handed_back: oneshot::Receiver<Replayable<B>>,
}

impl<B> Future for Reclaim<B> {
    type Output = Option<Replayable<B>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(reclaim) = self.reclaim.take() {
            // Sending fails if the body was dropped: then it has handed the stream back already.
            let _ = reclaim.send(());
        }
        Pin::new(&mut self.handed_back).poll(cx).map(Result::ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_never_allocates_more_than_its_limit() {
        let limit = MAX_INITIAL_CAPACITY + 100;
        let mut recording = Recording::new(10, limit);
        assert_eq!(recording.bytes.capacity(), 10);
        // Space that is there is used.
        assert!(recording.push(&[0; 10]));
        assert_eq!(recording.bytes.capacity(), 10);
        // It doubles, or grows to what it holds.
        assert!(recording.push(&[0; 1]));
        assert_eq!(recording.bytes.capacity(), 20);
        assert!(recording.push(&[0; 30]));
        assert_eq!(recording.bytes.capacity(), 41);
        // The limit is reached, and not exceeded.
        assert!(recording.push(&vec![0; limit - 42]));
        assert_eq!(recording.bytes.capacity(), limit - 1);
        assert!(recording.push(&[0; 1]));
        assert_eq!(recording.bytes.capacity(), limit);
        assert!(!recording.push(&[0; 1]));
        assert_eq!(recording.bytes.len(), limit);
    }
}
