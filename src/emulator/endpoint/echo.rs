//! The echo: reports to a client what the org received from it.

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use serde_json::{Value, json};

use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::digest::BodyDigest;
use crate::emulator::wire::receive::receive;
use crate::error::BoxError;

/// The reported facts about a body.
pub(super) struct ReceivedBody {
    length: u64,
    sha256: String,
    trailers: HeaderMap,
}

/// Receives `body` without keeping it, so its size does not matter.
pub(super) async fn digest<B>(body: B) -> Result<ReceivedBody, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut digest = BodyDigest::default();
    let trailers = receive(body, None, |piece| digest.update(piece)).await?;
    Ok(ReceivedBody {
        length: digest.length(),
        sha256: digest.sha256(),
        trailers,
    })
}

pub(super) fn answer(parts: &Parts, received: &ReceivedBody) -> HttpAnswer {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let body = json!({
        "method": parts.method.as_str(),
        "path": path,
        "headers": pairs(&parts.headers),
        "authorization_count": parts.headers.get_all(AUTHORIZATION).iter().count(),
        "body_length": received.length,
        "body_sha256": received.sha256,
        "trailers": pairs(&received.trailers),
    });
    answer::json(StatusCode::OK, &body)
}

fn pairs(headers: &HeaderMap) -> Value {
    headers
        .iter()
        .map(|(name, value)| {
            if name == AUTHORIZATION {
                json!([name.as_str(), "[redacted]"])
            } else {
                json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
            }
        })
        .collect()
}
