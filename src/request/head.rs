//! What is kept of the head of a request, to send it again.
//!
//! Names and values are kept packed, one after the other in one buffer. That is less than half of the work of cloning a
//! header map, and it is done for every request; taking them apart again is more, and is done for the rejected ones.

use http::{
    Extensions, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{AUTHORIZATION, HOST},
    request::Parts,
    uri::PathAndQuery,
};

use crate::{
    error::Error,
    request::{
        authorize::{authorize, correct_length},
        target::{Target, join, unsendable},
    },
    session::live::Published,
    verdict::Api,
};

/// Enough for most paths, and for most headers with their frames, so that the buffer is hardly ever moved.
const PATH_ROOM: usize = 96;
const HEADER_ROOM: usize = 48;

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
