//! The content of a job, as it streams by.

use http_body::Body;
use serde::Serialize;

use crate::emulator::wire::digest::BodyDigest;
use crate::emulator::wire::receive::receive;
use crate::error::BoxError;

/// How many bytes the content may have in Base64, as the Bulk API 2.0 guide has it ("Upload Job Data").
pub(crate) const MAX_BASE64_LENGTH: u64 = 150_000_000;

/// The same before it is put into Base64: three bytes become four.
const MAX_LENGTH: usize = 112_500_000;

/// What an [`Org`](crate::emulator::Org) was sent as the content of an ingest job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Upload {
    /// How many bytes it had.
    pub length: u64,
    /// The SHA-256 digest of them, in lower-case hexadecimal digits.
    pub sha256: String,
    /// Its rows, without the first, which names the columns, and without blank ones.
    pub records: u64,
    /// Whether its first row ended with a carriage return and a line feed. None: it has no end.
    #[serde(skip)]
    pub(crate) ends_with_crlf: Option<bool>,
}

impl Upload {
    /// Receives the content without keeping it. None if it is too large; whatever is left of it then is not read.
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

/// Counts the rows of a CSV file (RFC 4180 §2) that comes in pieces.
#[derive(Default)]
struct Rows {
    ended: u64,
    /// Whether there is anything in the row that has not ended.
    has_begun: bool,
    /// Within quotes a line break is part of a value. A quote that stands for itself is doubled, and so ends and begins
    /// them at once.
    is_quoted: bool,
    after_carriage_return: bool,
    /// Whether the first row did.
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

    /// The last row need not have an end.
    fn count(&self) -> u64 {
        self.ended + u64::from(self.has_begun)
    }
}
