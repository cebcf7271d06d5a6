//! The content of an ingest job.

use http_body::Body;
use serde::Serialize;

use crate::emulator::wire::digest::BodyDigest;
use crate::emulator::wire::receive::receive;
use crate::error::BoxError;

/// The maximum length of the content in Base64 (Bulk API 2.0 guide, "Upload Job Data").
pub(crate) const MAX_BASE64_LENGTH: u64 = 150_000_000;

/// The same limit before Base64, which makes four bytes of three.
const MAX_LENGTH: usize = 112_500_000;

/// The content that an [`Org`](crate::emulator::Org) received for an ingest job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Upload {
    /// The length in bytes.
    pub length: u64,
    /// The SHA-256 digest in lower-case hexadecimal digits.
    pub sha256: String,
    /// The number of rows, without the header and blank rows.
    pub records: u64,
    /// Whether the first row ends with a carriage return and a line feed. `None` if it has no end.
    #[serde(skip)]
    pub(crate) ends_with_crlf: Option<bool>,
}

impl Upload {
    /// Receives the content without keeping it. `None` if it is too large; the rest is then not
    /// read.
    pub(crate) async fn receive<B>(body: B, declared: Option<u64>) -> Result<Option<Self>, BoxError>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        if declared.is_some_and(|length| length > MAX_LENGTH as u64) {
            return Ok(None);
        }
        let mut digest = BodyDigest::default();
        let mut rows = Rows::default();
        receive(body, Some(MAX_LENGTH + 1), |piece| {
            digest.update(piece);
            rows.push(piece);
        })
        .await?;
        let length = digest.length();
        Ok((length <= MAX_LENGTH as u64).then(|| Self {
            length,
            sha256: digest.sha256(),
            records: rows.count().saturating_sub(1),
            ends_with_crlf: rows.end_with_crlf,
        }))
    }
}

/// Counts the rows of a CSV file (RFC 4180 §2) that arrives in pieces.
#[derive(Default)]
struct Rows {
    ended: u64,
    /// Whether the current row has content.
    has_begun: bool,
    /// Whether the current byte is within quotes, where a line break belongs to the value. A
    /// doubled quote ends and begins the quotes at once.
    is_quoted: bool,
    after_carriage_return: bool,
    /// `Upload::ends_with_crlf`.
    end_with_crlf: Option<bool>,
}

impl Rows {
    fn push(&mut self, piece: &[u8]) {
        for &byte in piece {
            match byte {
                b'\n' if !self.is_quoted => {
                    self.end_with_crlf.get_or_insert(self.after_carriage_return);
                    self.ended += u64::from(self.has_begun);
                    self.has_begun = false;
                }
                b'\r' if !self.is_quoted => {}
                b'"' => {
                    self.is_quoted = !self.is_quoted;
                    self.has_begun = true;
                }
                _ => self.has_begun = true,
            }
            self.after_carriage_return = byte == b'\r';
        }
    }

    /// The number of rows. The last one may have no line break.
    fn count(&self) -> u64 {
        self.ended + u64::from(self.has_begun)
    }
}
