//! Receiving request bodies.

use std::pin::pin;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;

use crate::error::BoxError;

/// Receives `body`, passes its pieces to `keep` and returns the trailers.
///
/// Stops after `limit` bytes. `None` for no limit. With a limit of 0, the body is never polled.
pub(crate) async fn receive<B>(
    body: B,
    limit: Option<usize>,
    mut keep: impl FnMut(&[u8]),
) -> Result<HeaderMap, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let mut received = 0;
    let mut trailers = HeaderMap::new();
    while limit.is_none_or(|limit| received < limit) {
        let Some(frame) = body.frame().await else {
            break;
        };
        match frame.map_err(Into::into)?.into_data() {
            Ok(mut data) => {
                received += data.remaining();
                while data.has_remaining() {
                    let piece = data.chunk();
                    keep(piece);
                    let length = piece.len();
                    data.advance(length);
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok(trailers)
}

/// Receives and drops `body`, up to `limit` bytes. `None` for no limit.
pub(crate) async fn discard<B>(body: B, limit: Option<usize>) -> Result<(), BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    receive(body, limit, |_| {}).await.map(drop)
}

/// Receives and returns the whole body.
pub(crate) async fn collect<B>(body: B) -> Result<Bytes, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut bytes = BytesMut::new();
    receive(body, None, |piece| bytes.extend_from_slice(piece)).await?;
    Ok(bytes.freeze())
}
