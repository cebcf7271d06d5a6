//! The measured services: one that answers at once, alone and in layers. And requests as clients make them.
#![allow(dead_code, reason = "each bench needs a part of it")]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_salesforce_auth::{
    RefreshContext, RefreshError, SalesforceAuthLayer, Session, SessionHandle,
};

pub(crate) const INSTANCE: &str = "https://mydomainname.my.salesforce.com";

/// A token as long as Salesforce's.
pub(crate) fn token() -> String {
    "00Dxx0000001gEF!AQEAQ".repeat(5)
}

/// The session that requests carry.
pub(crate) fn authorization() -> HeaderValue {
    // No static header: one costs less than any header that can be refreshed.
    HeaderValue::from_maybe_shared(Bytes::from(format!("Bearer {}", token()))).expect("a value")
}

pub(crate) fn layer() -> SalesforceAuthLayer {
    let session = Session::new(token(), INSTANCE).expect("a valid session");
    SessionHandle::builder(|_: RefreshContext| async {
        Session::new("T1", INSTANCE).map_err(RefreshError::terminal)
    })
    .initial_session(session)
    .build()
    .into()
}

// === Contenders ===

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The service alone: the floor.
    Bare,
    /// `tower_http`'s bearer header, which cannot be refreshed.
    FixedHeader,
    /// This layer, without replay.
    InjectOnly,
    /// This layer, as it is by default.
    Default,
}

impl Contender {
    pub(crate) const ALL: [Self; 4] = [
        Self::Bare,
        Self::FixedHeader,
        Self::InjectOnly,
        Self::Default,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::FixedHeader => "fixed_header",
            Self::InjectOnly => "inject_only",
            Self::Default => "default",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Does `work` with the contender's service.
    pub(crate) fn with<B, W>(self, work: W) -> W::Output
    where
        B: http_body::Body<Error: Into<tower::BoxError>> + Unpin + 'static,
        W: Work<B>,
    {
        match self {
            Self::Bare => work.with(Accepting),
            Self::FixedHeader => {
                work.with(AddAuthorizationLayer::bearer(&token()).layer(Accepting))
            }
            Self::InjectOnly => work.with(layer().max_refreshes(0).layer(Accepting)),
            Self::Default => work.with(layer().layer(Accepting)),
        }
    }
}

/// Work with a service of any type.
pub(crate) trait Work<B> {
    type Output;

    fn with<S: Service<Request<B>> + Clone + Send + 'static>(self, service: S) -> Self::Output;
}

/// A service that accepts every request at once.
#[derive(Clone)]
pub(crate) struct Accepting;

impl<B> Service<Request<B>> for Accepting {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::default()))
    }
}

/// One call, from readiness to the answer.
#[inline]
pub(crate) fn call<S: Service<Request<B>>, B>(service: &mut S, request: Request<B>) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    assert!(pin!(service.call(request)).poll(&mut cx).is_ready());
}

// === Requests ===

/// The number of headers of a request. Of each four, one is new with each request, one comes from the client, and two are the same
/// for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) usize);

impl Headers {
    /// The value is made for each request, as clients do.
    fn add(self, request: &mut Request<impl Sized>) {
        const NAMES: [&str; 16] = [
            "accept",
            "x-request-id",
            "content-type",
            "user-agent",
            "accept-encoding",
            "traceparent",
            "sforce-query-options",
            "sforce-call-options",
            "accept-language",
            "if-modified-since",
            "cache-control",
            "x-client-version",
            "sforce-duplicate-rule-header",
            "tracestate",
            "sforce-limit-info",
            "x-client-name",
        ];
        for (n, name) in NAMES.into_iter().enumerate().take(self.0) {
            let value = match n % 4 {
                1 => HeaderValue::from_str(&format!("{name} of this request")).expect("a value"),
                3 => HeaderValue::from_maybe_shared(Bytes::from_static(b"of this client"))
                    .expect("a value"),
                _ => HeaderValue::from_static("application/json"),
            };
            request
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
}

pub(crate) fn request<B>(headers: Headers, body: B) -> Request<B> {
    let path = format!("/services/data/v66.0/sobjects/Account/{}", "0".repeat(18));
    let mut request = Request::post(format!("{INSTANCE}{path}"))
        .body(body)
        .expect("a valid request");
    headers.add(&mut request);
    request
}

/// A body in memory, made for each request.
pub(crate) fn in_memory(len: usize) -> Full<Bytes> {
    Full::from(vec![7; len])
}

/// A stream of unknown length, made while it is sent.
#[derive(Clone)]
pub(crate) struct Stream {
    pub(crate) frames: usize,
    pub(crate) frame: Bytes,
}

impl Stream {
    pub(crate) fn new(frames: usize, len: usize) -> Self {
        Self {
            frames,
            frame: Bytes::from(vec![7; len]),
        }
    }
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.frames.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.frames = left;
        Poll::Ready(Some(Ok(Frame::data(self.frame.clone()))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}
