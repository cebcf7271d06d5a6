//! Receiving request bodies.

use std::pin::pin;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;

use crate::error::BoxError;

/// Receives `body`, hands its pieces to `keep` and returns the trailers.
///
/// Stops as soon as `limit` bytes have come, if there is one; with a limit of 0 the body is not
/// polled at all.
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

/// Receives `body`, or as much of it as `limit` says, and forgets it.
pub(crate) async fn discard<B>(body: B, limit: Option<usize>) -> Result<(), BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    receive(body, limit, |_| {}).await.map(drop)
}

/// Receives the whole body and keeps it.
pub(crate) async fn collect<B>(body: B) -> Result<Bytes, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut bytes = BytesMut::new();
    receive(body, None, |piece| bytes.extend_from_slice(piece)).await?;
    Ok(bytes.freeze())
}
