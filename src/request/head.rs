//! The head of a request: where it goes, the session in it, and what is kept of it to send it again.
//!
//! Names and values are kept packed, one after the other in one buffer. That is less than half of the work of cloning a
//! header map, and it is done for every request; taking them apart again is more, and is done for the rejected ones.

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{AUTHORIZATION, CONTENT_LENGTH, Entry, HOST},
    request::Parts,
    uri::PathAndQuery,
};

use crate::{
    error::{BoxError, Error, ErrorKind},
    handle::handle::SessionHandle,
    request::extensions::SkipAuth,
    session::{
        live::{Metadata, Published},
        url::{self, Origin},
    },
    verdict::Api,
};

/// Enough for most paths, and for most headers with their frames, so that the buffer is hardly ever moved.
const PATH_ROOM: usize = 96;
const HEADER_ROOM: usize = 48;

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

/// Whether a URI says nothing about where it goes.
pub(crate) fn is_relative(uri: &Uri) -> bool {
    uri.authority().is_none()
}

/// Whose host a request goes to, if the token may go there at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The session's instance, wherever that is by the time of sending.
    Instance,
    /// An origin that the user allowed.
    Allowed,
}

impl Target {
    /// None for a foreign host, which never sees the token.
    pub(crate) fn of(uri: &Uri, published: &Published, handle: &SessionHandle) -> Option<Self> {
        if is_relative(uri) || published.has_instance(uri) {
            Some(Self::Instance)
        } else if handle.allows(uri) {
            Some(Self::Allowed)
        } else {
            None
        }
    }

    /// What may turn out to be the target, while nothing is known of the instance.
    pub(crate) fn before_login(uri: &Uri, handle: &SessionHandle) -> Option<Self> {
        if is_relative(uri) || url::may_be_an_instance(uri) {
            Some(Self::Instance)
        } else if handle.allows(uri) {
            Some(Self::Allowed)
        } else {
            None
        }
    }
}

/// Sends a request to the instance, with the path that it has.
pub(crate) fn send_to_instance(request: &mut Parts, published: &Published) -> Result<(), Error> {
    let origin = published.session.instance_url().origin();
    if !origin.is_of(&request.uri) {
        let path = std::mem::take(&mut request.uri)
            .into_parts()
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        request.uri = join(origin, path)?;
    }
    Ok(())
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
fn authorize(headers: &mut HeaderMap, api: Api, published: &Published) {
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

fn join(origin: &Origin, path: PathAndQuery) -> Result<Uri, Error> {
    // Anything else, written after the host, would read as a part of it. The http crate lets `*` through, by design.
    if !path.as_str().starts_with(['/', '?']) {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "the request cannot be sent: a relative URI has to be a path that begins with a slash",
        ));
    }
    origin
        .join(path)
        .map_err(|error| unsendable("its URI does not resolve against the instance", error))
}

fn unsendable(why: &str, error: impl Into<BoxError>) -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        format!("the request cannot be sent: {why}"),
    )
    .with_source(error)
}

// === Head ===

/// What is kept of the head of a request.
pub(crate) struct Head {
    method: Method,
    version: Version,
    extensions: Extensions,
    /// None: the URI is in the instance, and its path begins the packed bytes. Hardly any other is, and so it is boxed.
    uri: Option<Box<Uri>>,
    /// Whether the caller named the instance in a `Host` header, which then follows the instance.
    names_instance: bool,
    /// How much longer the body is by now than when the length was packed.
    body_growth: i64,
    path_len: usize,
    /// How many headers there are in all.
    headers: usize,
    /// The path, and then for each header its [frame](HeaderFrame), its name and its value.
    packed: Vec<u8>,
}

/// The lengths of a packed header, and whether its value is sensitive, in one word.
#[derive(Clone, Copy)]
struct HeaderFrame(u64);

impl HeaderFrame {
    /// The http crate has no names longer than 64 KiB.
    const NAME_BITS: u32 = 16;

    fn of(name: &str, value: &HeaderValue) -> Self {
        let lens = (value.len() as u64) << Self::NAME_BITS | name.len() as u64;
        Self(lens << 1 | u64::from(value.is_sensitive()))
    }

    fn is_sensitive(self) -> bool {
        self.0 & 1 == 1
    }

    fn name_len(self) -> usize {
        let name_len = (self.0 >> 1) & ((1 << Self::NAME_BITS) - 1);
        name_len.try_into().unwrap_or(usize::MAX)
    }

    fn value_len(self) -> usize {
        let value_len = self.0 >> 1 >> Self::NAME_BITS;
        value_len.try_into().unwrap_or(usize::MAX)
    }
}

impl Head {
    /// Keeps the head of a request that was claimed. Nothing is in it by then of what is added elsewhere.
    pub(crate) fn keep(request: &Parts, target: Target, published: &Published) -> Self {
        let mut packed = Vec::with_capacity(PATH_ROOM + HEADER_ROOM * request.headers.len());
        let uri = match target {
            Target::Instance => {
                let path = request.uri.path_and_query();
                packed.extend_from_slice(path.map_or("/", PathAndQuery::as_str).as_bytes());
                None
            }
            Target::Allowed => Some(Box::new(request.uri.clone())),
        };
        let path_len = packed.len();
        let mut names_instance = false;
        for (name, value) in &request.headers {
            if target == Target::Instance && name == HOST && is_instance_host(value, published) {
                names_instance = true;
                continue;
            }
            // It was claimed, and so this one is ours.
            if value.is_sensitive() && name == AUTHORIZATION {
                continue;
            }
            let name = name.as_str();
            let frame = HeaderFrame::of(name, value);
            packed.extend_from_slice(&frame.0.to_ne_bytes());
            packed.extend_from_slice(name.as_bytes());
            packed.extend_from_slice(value.as_bytes());
        }
        Self {
            method: request.method.clone(),
            version: request.version,
            extensions: request.extensions.clone(),
            uri,
            names_instance,
            body_growth: 0,
            path_len,
            headers: request.headers.len(),
            packed,
        }
    }

    /// Gives back the room that is left: many may wait for a refresh.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.packed.shrink_to_fit();
    }

    /// Says that the body became so much longer.
    pub(crate) fn grow_body(&mut self, growth: i64) {
        self.body_growth = self.body_growth.saturating_add(growth);
    }

    /// The same request again, with this session, sent to its instance.
    pub(crate) fn rebuild<B>(
        &self,
        api: Api,
        published: &Published,
        body: B,
    ) -> Result<Request<B>, Error> {
        let origin = published.session.instance_url().origin();
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.extensions.clone();
        let (path, mut headers) = self.packed.split_at(self.path_len);
        *request.uri_mut() = match &self.uri {
            Some(uri) => Uri::clone(uri),
            None => {
                let path = PathAndQuery::try_from(path)
                    .map_err(|error| unsendable("its path was not kept", error))?;
                join(origin, path)?
            }
        };
        // So many fitted before. Without the room they would be moved as they are put in.
        let _ = request.headers_mut().try_reserve(self.headers);
        while let Some((frame, rest)) = headers.split_first_chunk() {
            let frame = HeaderFrame(u64::from_ne_bytes(*frame));
            let (name, rest) = rest.split_at(frame.name_len());
            let (value, rest) = rest.split_at(frame.value_len());
            let name = HeaderName::from_bytes(name)
                .map_err(|error| unsendable("a header name was not kept", error))?;
            let mut value = HeaderValue::from_bytes(value)
                .map_err(|error| unsendable("a header value was not kept", error))?;
            value.set_sensitive(frame.is_sensitive());
            request.headers_mut().append(name, value);
            headers = rest;
        }
        if self.names_instance {
            let host = HeaderValue::from_str(origin.authority().as_str())
                .map_err(|error| unsendable("the instance cannot stand in a header", error))?;
            request.headers_mut().insert(HOST, host);
        }
        correct_length(request.headers_mut(), self.body_growth);
        authorize(request.headers_mut(), api, published);
        Ok(request)
    }
}

fn is_instance_host(host: &HeaderValue, published: &Published) -> bool {
    let authority = published.session.instance_url().origin().authority();
    host.as_bytes()
        .eq_ignore_ascii_case(authority.as_str().as_bytes())
}
