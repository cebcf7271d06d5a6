//! What is kept of the head of a request for a replay.
//!
//! Header names and values are packed into one buffer. Packing costs less than half of cloning a header map, and happens
//! for every request. Unpacking costs more, and happens for rejected requests only. A small body is in the same buffer.

use bytes::{Buf, Bytes};
use http::{
    Extensions, HeaderMap, HeaderValue, Method, Request, Uri, Version,
    header::{AUTHORIZATION, HOST},
    request::Parts,
    uri::PathAndQuery,
};

use crate::{
    error::Error,
    request::{
        authorize::{authorize, correct_length},
        names::Names,
        proof,
        target::{Target, join, unsendable},
    },
    session::live::Published,
    verdict::Api,
};

/// Bytes reserved for the path, and for each header with its frame. Most fit, so the buffer rarely grows.
const PATH_ROOM: usize = 96;
const HEADER_ROOM: usize = 48;

// === Head ===

/// The head of a request, packed for a replay. The session is not in it.
pub(crate) struct Head {
    method: Method,
    version: Version,
    extensions: Extensions,
    /// The URI of a request to an allowed origin, boxed because such requests are rare. `None` for a request to the
    /// instance: its path begins the packed bytes.
    uri: Option<Box<Uri>>,
    /// Whether the caller named the instance in a `Host` header. A replay writes the current instance there.
    names_instance: bool,
    /// By how many bytes the body has grown since `Content-Length` was packed.
    body_growth: i64,
    /// Length of the packed path.
    path_len: u32,
    /// Number of headers in the original request. The http crate limits it to 32,768.
    headers: u16,
    /// Where the packed headers end, and a small body begins.
    body_at: usize,
    packed: Packed,
}

/// The path, then the [frame](HeaderFrame), the name and the value of each header, then a small body.
enum Packed {
    Kept(Vec<u8>),
    /// Shared with the values and the body of a replay, which are slices of it.
    Shared(Bytes),
}

impl Packed {
    /// The bytes, for slices of them.
    fn share(&mut self) -> Bytes {
        let shared = match self {
            Self::Kept(kept) => Bytes::from(std::mem::take(kept)),
            Self::Shared(shared) => return shared.clone(),
        };
        *self = Self::Shared(shared.clone());
        shared
    }
}

impl Head {
    /// Packs the head of a claimed request, before [`authorize_claimed`](super::authorize::authorize_claimed) adds the
    /// session's other headers. Copies `small_body` behind it.
    #[inline]
    pub(super) fn pack(
        request: &Parts,
        target: Target,
        published: &Published,
        small_body: &[u8],
    ) -> Self {
        let room = PATH_ROOM + HEADER_ROOM * request.headers.len();
        let mut packed = Vec::with_capacity(room + small_body.len());
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
            if target == Target::Instance && name == HOST && published.has_host(value) {
                names_instance = true;
                continue;
            }
            // A claimed request came without `Authorization`: this one is the session's.
            if value.is_sensitive() && name == AUTHORIZATION {
                continue;
            }
            let name = name.as_str();
            let frame = HeaderFrame::of(name, value);
            packed.extend_from_slice(&frame.0.to_ne_bytes());
            packed.extend_from_slice(name.as_bytes());
            packed.extend_from_slice(value.as_bytes());
        }
        let body_at = packed.len();
        packed.extend_from_slice(small_body);
        Self {
            method: request.method.clone(),
            version: request.version,
            extensions: request.extensions.clone(),
            uri,
            names_instance,
            body_growth: 0,
            path_len: u32::try_from(path_len).unwrap_or(u32::MAX),
            headers: u16::try_from(request.headers.len()).unwrap_or(u16::MAX),
            body_at,
            packed: Packed::Kept(packed),
        }
    }

    /// The small body that was copied.
    pub(super) fn small_body(&mut self) -> Bytes {
        self.packed.share().split_off(self.body_at)
    }

    /// Frees unused capacity: many requests may wait for the same refresh.
    pub(crate) fn shrink_to_fit(&mut self) {
        if let Packed::Kept(packed) = &mut self.packed {
            packed.shrink_to_fit();
        }
    }

    /// Records that the body grew by `growth` bytes.
    pub(super) fn grow_body(&mut self, growth: i64) {
        self.body_growth = self.body_growth.saturating_add(growth);
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// Where a replay with this session goes.
    pub(super) fn uri(&mut self, published: &Published) -> Result<Uri, Error> {
        let path = self.packed.share().split_to(self.path_len as usize);
        self.resolve(path, published)
    }

    /// The URI of a replay. `path` is the packed one.
    fn resolve(&self, path: Bytes, published: &Published) -> Result<Uri, Error> {
        match &self.uri {
            Some(uri) => Ok(Uri::clone(uri)),
            None => {
                let path = PathAndQuery::from_maybe_shared(path)
                    .map_err(|error| unsendable("its path was not kept", error))?;
                join(published.session.instance_url().origin(), path)
            }
        }
    }

    /// Builds the request again, with this session and for its instance.
    pub(super) fn rebuild<B>(
        &mut self,
        api: Api,
        published: &Published,
        body: B,
    ) -> Result<Request<B>, Error> {
        let origin = published.session.instance_url().origin();
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.extensions.clone();
        let mut packed = self.packed.share();
        packed.truncate(self.body_at);
        let path = packed.split_to(self.path_len as usize);
        *request.uri_mut() = self.resolve(path, published)?;
        let headers = request.headers_mut();
        // Room for all at once, so that the map does not grow header by header. The original map had as many.
        let _ = headers.try_reserve(self.headers.into());
        Names::recent(|names| unpack(&mut packed, headers, names))?;
        if self.names_instance {
            let host = HeaderValue::from_str(origin.authority().as_str())
                .map_err(|error| unsendable("the instance is not a valid Host header", error))?;
            headers.insert(HOST, host);
        }
        correct_length(headers, self.body_growth);
        authorize(headers, api, published);
        if published.extras.is_some() {
            let (mut head, body) = request.into_parts();
            let target = (&head.method, &head.uri, &head.extensions);
            proof::write(&mut head.headers, target, api, published)?;
            request = Request::from_parts(head, body);
        }
        Ok(request)
    }
}

/// Appends packed headers to a map. The values are slices of the packed bytes.
fn unpack(packed: &mut Bytes, headers: &mut HeaderMap, names: &mut Names) -> Result<(), Error> {
    while let Some((frame, rest)) = packed.split_first_chunk() {
        let frame = HeaderFrame(u64::from_ne_bytes(*frame));
        let name = rest.get(..frame.name_len()).unwrap_or_default();
        let name = names
            .parse(name)
            .map_err(|error| unsendable("a header name was not kept", error))?;
        packed.advance(size_of_val(&frame) + frame.name_len());
        let mut value = HeaderValue::from_maybe_shared(packed.split_to(frame.value_len()))
            .map_err(|error| unsendable("a header value was not kept", error))?;
        value.set_sensitive(frame.is_sensitive());
        headers.append(name, value);
    }
    Ok(())
}

// === HeaderFrame ===

/// The lengths of a packed header's name and value, and whether the value is sensitive, in one word.
#[derive(Clone, Copy)]
struct HeaderFrame(u64);

impl HeaderFrame {
    /// Header names of the http crate are shorter than 64 KiB.
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
