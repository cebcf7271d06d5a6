//! What is kept in memory of a request body.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::factory::BodyFactory;

// === DeclaredSize ===

/// The size that a body declared at the start of an attempt, less what it has yielded since.
///
/// Every attempt declares the same size, even if more is known by then. A transport frames the body by it, and detects by
/// it that a body broke off.
#[derive(Clone, Copy, Debug)]
pub(super) enum DeclaredSize {
    /// The body declared that this many bytes are left.
    Exact(u64),
    /// The body declared no exact size.
    Unknown,
}

impl DeclaredSize {
    /// The size that `hint` declares.
    #[inline]
    pub(super) fn of(hint: &SizeHint) -> Self {
        hint.exact().map_or(Self::Unknown, Self::Exact)
    }

    /// Subtracts `data`, which the body yielded.
    #[inline]
    pub(super) fn subtract(&mut self, data: &Bytes) {
        if let Self::Exact(left) = self {
            *left = left.saturating_sub(data.len() as u64);
        }
    }

    /// Whether no declared byte is missing. The transport still has to detect a body that ended short of its size.
    #[inline]
    pub(super) fn is_complete(self) -> bool {
        !matches!(self, Self::Exact(1..))
    }

    /// The hint for a body of which at least `lower` bytes are left.
    #[inline]
    pub(super) fn hint(self, lower: u64) -> SizeHint {
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

// === InMemory ===

/// A body, or the beginning of one, that is held in memory.
#[derive(Clone)]
pub(crate) struct InMemory {
    /// The data. `None` if there is none, or after it was yielded.
    pub(super) data: Option<Bytes>,
    /// The trailers. `None` if there are none, or after they were yielded.
    pub(super) trailers: Option<Box<HeaderMap>>,
    pub(super) size: DeclaredSize,
}

impl From<Bytes> for InMemory {
    /// A body without trailers that declares the size of its data.
    fn from(data: Bytes) -> Self {
        Self {
            size: DeclaredSize::Exact(data.len() as u64),
            data: (!data.is_empty()).then_some(data),
            trailers: None,
        }
    }
}

impl InMemory {
    /// The data, if the body has no trailers and declared the size of its data: then the data says everything.
    #[inline]
    pub(super) fn into_plain(self) -> Result<Bytes, Self> {
        let len = self.data().len() as u64;
        match self {
            Self {
                data,
                trailers: None,
                size: DeclaredSize::Exact(size),
            } if size == len => Ok(data.unwrap_or_default()),
            other => Err(other),
        }
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.data.as_deref().unwrap_or_default()
    }

    /// Replaces the data, and corrects the declared size by the difference.
    pub(crate) fn replace_data(&mut self, data: Bytes) {
        if let DeclaredSize::Exact(size) = &mut self.size {
            let others = size.saturating_sub(self.data.as_ref().map_or(0, Bytes::len) as u64);
            *size = others.saturating_add(data.len() as u64);
        }
        self.data = (!data.is_empty()).then_some(data);
    }

    /// The next frame: the data, then the trailers.
    #[inline]
    pub(super) fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        if let Some(data) = self.data.take() {
            self.size.subtract(&data);
            return Some(Frame::data(data));
        }
        self.trailers
            .take()
            .map(|trailers| Frame::trailers(*trailers))
    }

    #[inline]
    pub(super) fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none() && self.size.is_complete()
    }

    #[inline]
    pub(super) fn size_hint(&self) -> SizeHint {
        self.size.hint(self.data().len() as u64)
    }
}

// === Replayable ===

/// A body that can be sent from its beginning.
pub(crate) enum Replayable<B> {
    Kept {
        /// The whole body, or what a stream has yielded so far.
        memory: InMemory,
        /// The unread rest of a stream, and the limit of its recording. `None` if `memory` is the whole body.
        rest: Option<(B, usize)>,
    },
    /// A new body from the factory.
    Made { body: B, factory: BodyFactory<B> },
}

impl<B> Replayable<B> {
    /// The data that is in memory, from the beginning of the body. Empty for a body from a factory.
    pub(crate) fn data(&self) -> &[u8] {
        match self {
            Self::Kept { memory, .. } => memory.data(),
            Self::Made { .. } => &[],
        }
    }

    /// Whether [`data`](Self::data) is all data of the body.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Kept { rest: None, .. })
    }

    /// Replaces the data that is in memory.
    pub(crate) fn replace_data(&mut self, data: Bytes) {
        if let Self::Kept { memory, .. } = self {
            memory.replace_data(data);
        }
    }
}

impl<B> From<InMemory> for Replayable<B> {
    fn from(memory: InMemory) -> Self {
        Self::Kept { memory, rest: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_ended_short_of_its_size_is_not_complete() {
        let mut size = DeclaredSize::of(&SizeHint::with_exact(5));
        size.subtract(&Bytes::from_static(b"four"));
        assert!(!size.is_complete());
        assert_eq!(size.hint(0).exact(), Some(1));
        size.subtract(&Bytes::from_static(b"5"));
        assert!(size.is_complete());
        assert!(DeclaredSize::Unknown.is_complete());

        let mut memory = InMemory {
            data: Some(Bytes::from_static(b"four")),
            trailers: None,
            size: DeclaredSize::Exact(5),
        };
        assert!(!memory.is_end_stream());
        assert!(memory.next_frame().is_some());
        // hyper has to find the missing byte, and not to send the end.
        assert!(!memory.is_end_stream());
    }
}
