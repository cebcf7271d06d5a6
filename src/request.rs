//! The head of a request: where it goes, the session in it, and what is kept of it to send it again.
//!
//! Names and values are kept packed, one after the other in one buffer. That is less than half of the work of cloning a
//! header map, and it is done for every request; taking them apart again is more, and is done for the rejected ones.

use http::{
    Extensions, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST},
    uri::PathAndQuery,
};

use crate::{
    api::Api,
    endpoint::{self, Origin},
    error::{BoxError, Error, ErrorKind},
    handle::SessionHandle,
    opt_out::SkipAuth,
    session::{Metadata, Published},
};

/// Enough for the path and a dozen headers, so that the buffer is hardly ever moved.
const PACKED_CAPACITY: usize = 512;

/// Where Bulk API 1.0 wants the session (Bulk API Developer Guide, "Set a Session Header").
const SESSION: HeaderName = HeaderName::from_static("x-sfdc-session");

/// Where the Pub/Sub API wants it, the instance and the org (Pub/Sub API, "Authentication").
const ACCESS_TOKEN: HeaderName = HeaderName::from_static("accesstoken");
const INSTANCE_URL: HeaderName = HeaderName::from_static("instanceurl");
const TENANT_ID: HeaderName = HeaderName::from_static("tenantid");

/// Whether the layer has no business with this request: its caller authenticates it, or wants it sent without.
pub(crate) fn is_left_alone<B>(request: &Request<B>, api: Api) -> bool {
    let headers = request.headers();
    let is_authenticated = headers.contains_key(AUTHORIZATION)
        || match api {
            Api::Bulk => headers.contains_key(SESSION),
            Api::Grpc => headers.contains_key(ACCESS_TOKEN),
            Api::Rest | Api::Soap | Api::Identity => false,
        };
    is_authenticated || request.extensions().get::<SkipAuth>().is_some()
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
        if is_relative(uri) || endpoint::may_be_an_instance(uri) {
            Some(Self::Instance)
        } else if handle.allows(uri) {
            Some(Self::Allowed)
        } else {
            None
        }
    }
}

/// Sends a request to the instance, with the path that it has.
pub(crate) fn send_to_instance<B>(
    request: &mut Request<B>,
    published: &Published,
) -> Result<(), Error> {
    let origin = published.session.instance_url().origin();
    if !origin.is_of(request.uri()) {
        let path = std::mem::take(request.uri_mut())
            .into_parts()
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = join(origin, path)?;
    }
    Ok(())
}

/// Adds the session. It is in the headers once afterwards.
pub(crate) fn authorize<B>(request: &mut Request<B>, api: Api, published: &Published) {
    let headers = request.headers_mut();
    match api {
        Api::Bulk => {
            headers.insert(SESSION, published.session.bare_token().clone());
        }
        Api::Grpc => {
            headers.insert(ACCESS_TOKEN, published.session.bare_token().clone());
            let Metadata {
                instance_url,
                tenant_id,
            } = published.metadata.clone();
            for (name, value) in [(INSTANCE_URL, instance_url), (TENANT_ID, tenant_id)] {
                if let Some(value) = value {
                    headers.insert(name, value);
                }
            }
        }
        Api::Rest | Api::Soap | Api::Identity => {
            headers.insert(AUTHORIZATION, published.authorization.clone());
        }
    }
}

/// Corrects the length that the caller said the body has, if it was said, by how much longer the body became.
pub(crate) fn correct_length<B>(request: &mut Request<B>, growth: i64) {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if growth != 0
        && let Some(length) = length.and_then(|length| length.checked_add_signed(growth))
    {
        request.headers_mut().insert(CONTENT_LENGTH, length.into());
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
    /// The path, and then for each header [`HeaderFrame::LEN`] bytes, the name and the value.
    packed: Vec<u8>,
}

/// The lengths of a packed header, and whether its value is sensitive.
struct HeaderFrame {
    name_len: usize,
    value_len: usize,
    is_sensitive: bool,
}

impl HeaderFrame {
    const LEN: usize = 2 * size_of::<usize>() + 1;

    fn of(name: &HeaderName, value: &HeaderValue) -> Self {
        Self {
            name_len: name.as_str().len(),
            value_len: value.len(),
            is_sensitive: value.is_sensitive(),
        }
    }

    fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (name_len, rest) = bytes.split_at_mut(size_of::<usize>());
        let (value_len, flag) = rest.split_at_mut(size_of::<usize>());
        name_len.copy_from_slice(&self.name_len.to_ne_bytes());
        value_len.copy_from_slice(&self.value_len.to_ne_bytes());
        flag[0] = u8::from(self.is_sensitive);
        bytes
    }

    fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let mut name_len = [0; size_of::<usize>()];
        let mut value_len = [0; size_of::<usize>()];
        name_len.copy_from_slice(&bytes[..size_of::<usize>()]);
        value_len.copy_from_slice(&bytes[size_of::<usize>()..Self::LEN - 1]);
        Self {
            name_len: usize::from_ne_bytes(name_len),
            value_len: usize::from_ne_bytes(value_len),
            is_sensitive: bytes[Self::LEN - 1] != 0,
        }
    }
}

impl Head {
    /// Keeps the head of a request that has no session in it yet.
    pub(crate) fn keep<B>(request: &Request<B>, target: Target, published: &Published) -> Self {
        let mut packed = Vec::with_capacity(PACKED_CAPACITY);
        let uri = match target {
            Target::Instance => {
                let path = request.uri().path_and_query();
                packed.extend_from_slice(path.map_or("/", PathAndQuery::as_str).as_bytes());
                None
            }
            Target::Allowed => Some(Box::new(request.uri().clone())),
        };
        let path_len = packed.len();
        let mut names_instance = false;
        for (name, value) in request.headers() {
            if target == Target::Instance && name == HOST && is_instance_host(value, published) {
                names_instance = true;
                continue;
            }
            packed.extend_from_slice(&HeaderFrame::of(name, value).to_bytes());
            packed.extend_from_slice(name.as_str().as_bytes());
            packed.extend_from_slice(value.as_bytes());
        }
        Self {
            method: request.method().clone(),
            version: request.version(),
            extensions: request.extensions().clone(),
            uri,
            names_instance,
            body_growth: 0,
            path_len,
            packed,
        }
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
        while let Some((frame, rest)) = headers.split_first_chunk() {
            let HeaderFrame {
                name_len,
                value_len,
                is_sensitive,
            } = HeaderFrame::from_bytes(*frame);
            let (name, rest) = rest.split_at(name_len);
            let (value, rest) = rest.split_at(value_len);
            let name = HeaderName::from_bytes(name)
                .map_err(|error| unsendable("a header name was not kept", error))?;
            let mut value = HeaderValue::from_bytes(value)
                .map_err(|error| unsendable("a header value was not kept", error))?;
            value.set_sensitive(is_sensitive);
            request.headers_mut().append(name, value);
            headers = rest;
        }
        if self.names_instance {
            let host = HeaderValue::from_str(origin.authority().as_str())
                .map_err(|error| unsendable("the instance cannot stand in a header", error))?;
            request.headers_mut().insert(HOST, host);
        }
        correct_length(&mut request, self.body_growth);
        authorize(&mut request, api, published);
        Ok(request)
    }
}

fn is_instance_host(host: &HeaderValue, published: &Published) -> bool {
    let authority = published.session.instance_url().origin().authority();
    host.as_bytes()
        .eq_ignore_ascii_case(authority.as_str().as_bytes())
}
