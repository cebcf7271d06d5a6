//! DER (X.690 §10), element by element. What is not DER is `None`.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_ID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed, and the same for an octet string in its place.
pub(crate) const CONTEXT_0: u8 = 0xa0;
pub(crate) const IMPLICIT_0: u8 = 0x80;

/// Reads the elements of some bytes, one after another.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The elements of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The elements of the one sequence that `bytes` consists of.
    pub(crate) fn of_sequence(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Self(bytes);
        let content = reader.sequence()?;
        reader.is_empty().then_some(content)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The tag of the next element. `None` at the end.
    pub(crate) fn tag(self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next element, which has this tag.
    pub(crate) fn read(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.tag()? != tag {
            return None;
        }
        let (length, content) = match *self.0.get(1)? {
            short @ ..=0x7f => (usize::from(short), self.0.get(2..)?),
            long @ 0x81..=0x84 => {
                let bytes = self.0.get(2..2 + usize::from(long & 0x0f))?;
                let length = bytes
                    .iter()
                    .fold(0, |length, byte| (length << 8) | usize::from(*byte));
                (length, self.0.get(2 + bytes.len()..)?)
            }
            // 0x80 is BER's indefinite length.
            _ => return None,
        };
        let (content, rest) = content.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    /// The elements of the next sequence.
    pub(crate) fn sequence(&mut self) -> Option<Self> {
        self.read(SEQUENCE).map(Self)
    }

    /// The next integer, from 0 up.
    pub(crate) fn number(&mut self) -> Option<u32> {
        let bytes = self.read(INTEGER)?;
        let bytes = match bytes {
            [0, rest @ ..] if !rest.is_empty() => rest,
            [first, ..] if *first < 0x80 => bytes,
            _ => return None,
        };
        (bytes.len() <= 4).then(|| {
            bytes
                .iter()
                .fold(0, |number, byte| (number << 8) | u32::from(*byte))
        })
    }

    /// The next `AlgorithmIdentifier` (RFC 5280 §4.1.1.2): its id, and its parameters.
    pub(crate) fn algorithm(&mut self) -> Option<(&'a [u8], Self)> {
        let mut algorithm = self.sequence()?;
        let id = algorithm.read(OBJECT_ID)?;
        Some((id, algorithm))
    }
}
