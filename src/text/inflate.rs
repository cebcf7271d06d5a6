//! Compressed bytes, and what can be read of them.

use std::{borrow::Cow, io::Read};

use flate2::{
    Compression,
    read::{DeflateDecoder, GzEncoder, MultiGzDecoder, ZlibDecoder},
};

/// The first bytes of gzip (RFC 1952 §2.3.1).
pub(crate) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Decompresses gzip and deflate, to at most `limit` bytes. Returns other bytes unchanged.
///
/// Of bytes that break off, returns what can be read. `encoding` is the `Content-Encoding`; gzip is recognised without it.
/// A client may have decompressed the bytes and left the header.
pub(crate) fn inflate<'a>(bytes: &'a [u8], encoding: Option<&str>, limit: usize) -> Cow<'a, [u8]> {
    let is_deflate = encoding.is_some_and(|encoding| encoding.eq_ignore_ascii_case("deflate"));
    let inflated = if bytes.starts_with(&GZIP) {
        read(MultiGzDecoder::new(bytes), limit)
    } else if is_deflate {
        // RFC 9110 §8.4.1.2: some servers leave out the zlib format around the data.
        match read(ZlibDecoder::new(bytes), limit) {
            // Without that format, any text would be data.
            inflated if inflated.is_empty() && str::from_utf8(bytes).is_err() => {
                read(DeflateDecoder::new(bytes), limit)
            }
            inflated => inflated,
        }
    } else {
        Vec::new()
    };
    if inflated.is_empty() {
        Cow::Borrowed(bytes)
    } else {
        Cow::Owned(inflated)
    }
}

/// Decompresses gzip to its end. `None` if the end is missing or damaged, or beyond the limit.
pub(crate) fn whole(bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut inflated = Vec::new();
    let mut reader = MultiGzDecoder::new(bytes).take(u64::try_from(limit).ok()?);
    reader.read_to_end(&mut inflated).ok()?;
    (inflated.len() < limit).then_some(inflated)
}

/// Compresses with gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    // Reading from memory does not fail.
    let _ = GzEncoder::new(bytes, Compression::default()).read_to_end(&mut compressed);
    compressed
}

/// Whether a `Content-Encoding` is one that [`inflate`] decompresses, or none.
pub(crate) fn is_readable(encoding: &str) -> bool {
    ["identity", "gzip", "x-gzip", "deflate", ""]
        .iter()
        .any(|known| encoding.trim().eq_ignore_ascii_case(known))
}

/// Reads until the end, `limit` bytes, or an error.
fn read(reader: impl Read, limit: usize) -> Vec<u8> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut inflated = Vec::new();
    // An error leaves what was read before it.
    let _ = reader.take(limit).read_to_end(&mut inflated);
    inflated
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{DeflateEncoder, ZlibEncoder},
    };

    use super::*;

    fn compressed() -> [(&'static str, Vec<u8>); 3] {
        let text = "{\"a\":1}".repeat(100);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(text.as_bytes()).unwrap();
        deflate.write_all(text.as_bytes()).unwrap();
        [
            ("gzip", gzip(text.as_bytes())),
            ("deflate", zlib.finish().unwrap()),
            ("Deflate", deflate.finish().unwrap()),
        ]
    }

    #[test]
    fn gzip_and_both_kinds_of_deflate_are_read() {
        for (encoding, bytes) in compressed() {
            let inflated = inflate(&bytes, Some(encoding), 1_000);
            assert_eq!(inflated, "{\"a\":1}".repeat(100).as_bytes(), "{encoding}");
            assert_eq!(inflate(&bytes, Some(encoding), 10).len(), 10);
            // Of a part, a part is read.
            let part = inflate(&bytes[..bytes.len() - 9], Some(encoding), 1_000);
            assert!(part.starts_with(b"{\"a\":1}") || part.len() < bytes.len());
        }
    }

    #[test]
    fn other_bytes_are_unchanged() {
        for (encoding, bytes) in [
            (Some("gzip"), &b"{\"a\":1}"[..]),
            (Some("deflate"), b"{\"a\":1}"),
            (Some("br"), b"\x0b\x02"),
            (None, b"\x1f\x8b"),
            (None, b""),
        ] {
            assert_eq!(inflate(bytes, encoding, 1_000), bytes, "{encoding:?}");
        }
    }
}
