//! Writing the session into a request: whether the layer does so, and where each API expects the session.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{AUTHORIZATION, CONTENT_LENGTH, Entry},
    request::Parts,
};

use crate::{
    error::{Error, ErrorKind},
    request::extensions::SkipAuth,
    session::live::{Metadata, Published},
    soap::session_header::{self, HeaderRewrite},
    verdict::Api,
};

/// The session header of Bulk API 1.0 (Bulk API Developer Guide, "Set a Session Header").
const SESSION: HeaderName = HeaderName::from_static("x-sfdc-session");

/// The metadata of the Pub/Sub API: token, instance and org (Pub/Sub API, "Authentication").
const ACCESS_TOKEN: HeaderName = HeaderName::from_static("accesstoken");
const INSTANCE_URL: HeaderName = HeaderName::from_static("instanceurl");
const TENANT_ID: HeaderName = HeaderName::from_static("tenantid");

// === Headers ===

/// Whether the layer passes a request through: the request is authenticated already, or marked with [`SkipAuth`].
pub(crate) fn is_passed_through(request: &Parts, api: Api) -> bool {
    is_authenticated(&request.headers, api) || request.extensions.get::<SkipAuth>().is_some()
}

/// Whether a request carries a session, or other credentials.
pub(super) fn is_authenticated(headers: &HeaderMap, api: Api) -> bool {
    headers.contains_key(AUTHORIZATION)
        || match api {
            Api::Bulk => headers.contains_key(SESSION),
            Api::Grpc => headers.contains_key(ACCESS_TOKEN),
            Api::Rest | Api::Soap | Api::Identity => false,
        }
}

/// Claims a request for the layer. `false` if the request is [passed through](is_passed_through).
///
/// Writes `Authorization` for the APIs that expect the session there: a single lookup detects the caller's own header and
/// inserts the session's.
#[inline]
pub(super) fn claim(request: &mut Parts, api: Api, published: &Published) -> Result<bool, Error> {
    match api {
        Api::Bulk | Api::Grpc => Ok(!is_passed_through(request, api)),
        Api::Rest | Api::Soap | Api::Identity => {
            if request.extensions.get::<SkipAuth>().is_some() {
                return Ok(false);
            }
            let Ok(entry) = request.headers.try_entry(AUTHORIZATION) else {
                // The map is full, with or without the caller's own header.
                return if request.headers.contains_key(AUTHORIZATION) {
                    Ok(false)
                } else {
                    Err(Error::new(
                        ErrorKind::InvalidRequest,
                        "the request cannot be sent: it has as many headers as there can be, and no room for the session's",
                    ))
                };
            };
            let Entry::Vacant(authorization) = entry else {
                return Ok(false);
            };
            authorization.insert(published.authorization.get());
            Ok(true)
        }
    }
}

/// Writes the session into a claimed request whose API expects other headers than `Authorization`.
///
/// Runs after [`Head::pack`](super::head::Head::pack), which then finds no session in these headers.
pub(super) fn authorize_claimed(request: &mut Parts, api: Api, published: &Published) {
    if matches!(api, Api::Bulk | Api::Grpc) {
        authorize(&mut request.headers, api, published);
    }
}

/// Writes the session into the headers. Replaces the headers of an earlier session.
pub(super) fn authorize(headers: &mut HeaderMap, api: Api, published: &Published) {
    match api {
        Api::Bulk => insert_each(headers, [(SESSION, &published.metadata().token)]),
        Api::Grpc => {
            let Metadata {
                token,
                instance_url,
                tenant_id,
            } = published.metadata();
            let values = [
                (ACCESS_TOKEN, token),
                (INSTANCE_URL, instance_url),
                (TENANT_ID, tenant_id),
            ];
            insert_each(headers, values);
        }
        Api::Rest | Api::Soap | Api::Identity => {
            headers.insert(AUTHORIZATION, published.authorization.get());
        }
    }
}

fn insert_each<const N: usize>(
    headers: &mut HeaderMap,
    values: [(HeaderName, &Option<HeaderValue>); N],
) {
    for (name, value) in values {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
}

/// Adds `growth` to `Content-Length`, if the caller set that header.
pub(super) fn correct_length(headers: &mut HeaderMap, growth: i64) {
    if growth == 0 {
        return;
    }
    let length = headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = length.and_then(|length| length.checked_add_signed(growth)) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
}

// === Envelopes ===

/// Writes the session into the SOAP envelope of a request, with a new proof if the session is bound to a key.
pub(super) fn write_session(
    envelope: &[u8],
    (method, uri): (&Method, &Uri),
    published: &Published,
) -> HeaderRewrite {
    let access_token = published.session.access_token();
    let key = published.session.bound_key();
    // Where no proof can be made, the proof in the headers fails too, and with it the request.
    let proof = key.and_then(|key| key.prove(method, uri, Some(access_token)).ok());
    session_header::write(envelope, access_token.expose(), proof.as_deref())
}

/// By how many bytes `after` is longer than `before`.
pub(super) fn growth(before: &[u8], after: &[u8]) -> i64 {
    let len = |bytes: &[u8]| i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    len(after) - len(before)
}
