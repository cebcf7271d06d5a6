//! The session in a request: whether the layer puts it there, and where each API wants it.

use http::{
    HeaderMap, HeaderName,
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

/// Where Bulk API 1.0 wants the session (Bulk API Developer Guide, "Set a Session Header").
const SESSION: HeaderName = HeaderName::from_static("x-sfdc-session");

/// Where the Pub/Sub API wants it, the instance and the org (Pub/Sub API, "Authentication").
const ACCESS_TOKEN: HeaderName = HeaderName::from_static("accesstoken");
const INSTANCE_URL: HeaderName = HeaderName::from_static("instanceurl");
const TENANT_ID: HeaderName = HeaderName::from_static("tenantid");

/// Whether the layer has no business with this request: its caller authenticates it, or wants it sent without.
pub(crate) fn is_left_alone(request: &Parts, api: Api) -> bool {
    let headers = &request.headers;
    let is_authenticated = headers.contains_key(AUTHORIZATION)
        || match api {
            Api::Bulk => headers.contains_key(SESSION),
            Api::Grpc => headers.contains_key(ACCESS_TOKEN),
            Api::Rest | Api::Soap | Api::Identity => false,
        };
    is_authenticated || request.extensions.get::<SkipAuth>().is_some()
}

/// Whether the layer has business with this request. If so, the session is in it where most APIs want it.
///
/// That is looked up once, to see whether the caller's own is there and to put ours there.
pub(crate) fn claim(request: &mut Parts, api: Api, published: &Published) -> Result<bool, Error> {
    match api {
        Api::Bulk | Api::Grpc => Ok(!is_left_alone(request, api)),
        Api::Rest | Api::Soap | Api::Identity => {
            if request.extensions.get::<SkipAuth>().is_some() {
                return Ok(false);
            }
            let Ok(entry) = request.headers.try_entry(AUTHORIZATION) else {
                // There is no room for what may be there already.
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

/// Adds the session to a request that was claimed, where its API wants it elsewhere.
pub(crate) fn authorize_elsewhere(request: &mut Parts, api: Api, published: &Published) {
    if matches!(api, Api::Bulk | Api::Grpc) {
        authorize(&mut request.headers, api, published);
    }
}

/// Adds the session. It is in the headers once afterwards.
pub(super) fn authorize(headers: &mut HeaderMap, api: Api, published: &Published) {
    match api {
        Api::Bulk => {
            headers.insert(SESSION, published.session.bare_token().clone());
        }
        Api::Grpc => {
            headers.insert(ACCESS_TOKEN, published.session.bare_token().clone());
            let Metadata {
                instance_url,
                tenant_id,
            } = published.metadata().clone();
            for (name, value) in [(INSTANCE_URL, instance_url), (TENANT_ID, tenant_id)] {
                if let Some(value) = value {
                    headers.insert(name, value);
                }
            }
        }
        Api::Rest | Api::Soap | Api::Identity => {
            headers.insert(AUTHORIZATION, published.authorization.get());
        }
    }
}

/// Corrects the length that the caller said the body has, if it was said, by how much longer the body became.
pub(crate) fn correct_length(headers: &mut HeaderMap, growth: i64) {
    let length = headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if growth != 0
        && let Some(length) = length.and_then(|length| length.checked_add_signed(growth))
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
}

pub(super) fn write_session(envelope: &[u8], published: &Published) -> HeaderRewrite {
    session_header::write(envelope, published.session.access_token().expose())
}

pub(super) fn growth(before: &[u8], after: &[u8]) -> i64 {
    let len = |bytes: &[u8]| i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    len(after) - len(before)
}
