//! The trait of a classifier, with its input and its verdicts.

use std::{fmt, sync::Arc};

use http::{HeaderMap, Response, StatusCode};

use super::api::Api;

/// Decides whether a response rejects the session. Set it with [`SalesforceAuthLayer::classifier`].
///
/// See the [module](crate::verdict) for an example. A classifier decides by its arguments alone, and must not block.
///
/// [`SalesforceAuthLayer::classifier`]: crate::SalesforceAuthLayer::classifier
pub trait Classify: Send + Sync + 'static {
    /// Decides by status and headers. Returns `None` if the body is needed.
    ///
    /// The layer calls it for every response. It should quickly return [`Verdict::Pass`] for a successful response; the
    /// layer then does not read its body.
    fn classify_head(&self, head: &ResponseHead<'_>) -> Option<Verdict>;

    /// Decides by the beginning of the body. Returns `None` if more of it is needed.
    ///
    /// The layer calls it with everything read so far: when it has to wait for more and has read twice as much as before, and
    /// once at the end. At the end, `None` counts as `Pass`. A verdict on a part must equal the verdict on the whole, because frame boundaries are
    /// arbitrary.
    fn classify_body(
        &self,
        head: &ResponseHead<'_>,
        body: &[u8],
        extent: Extent,
    ) -> Option<Verdict>;
}

impl<C: Classify + ?Sized> Classify for Arc<C> {
    fn classify_head(&self, head: &ResponseHead<'_>) -> Option<Verdict> {
        C::classify_head(self, head)
    }

    fn classify_body(
        &self,
        head: &ResponseHead<'_>,
        body: &[u8],
        extent: Extent,
    ) -> Option<Verdict> {
        C::classify_body(self, head, body, extent)
    }
}

/// What a response says about the session of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The response does not reject the session. The caller receives it.
    Pass,
    /// The session has ended. A new session may work.
    Expired,
    /// The session is rejected, and a new session would be rejected too. The layer does not refresh it, and returns the
    /// response with [`ReplaySkipped::Incurable`](crate::request::ReplaySkipped::Incurable).
    Incurable,
}

/// How much of a response body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Extent {
    /// The beginning of the body. More may follow.
    Beginning,
    /// The whole body.
    Whole,
    /// The beginning of the body. The rest will not be read: it is too long, takes too long, or failed.
    CutOff,
}

/// The head of a response, and the API of its request.
#[derive(Clone, Copy)]
pub struct ResponseHead<'a> {
    api: Api,
    status: StatusCode,
    headers: &'a HeaderMap,
    has_jwt: bool,
}

impl<'a> ResponseHead<'a> {
    /// Creates the head of a response to a request whose token is not a JWT.
    pub fn new<B>(api: Api, response: &'a Response<B>) -> Self {
        Self {
            api,
            status: response.status(),
            headers: response.headers(),
            has_jwt: false,
        }
    }

    /// Notes that the token of the request [is a JWT](crate::Session::is_jwt).
    #[must_use]
    pub fn with_jwt(mut self) -> Self {
        self.has_jwt = true;
        self
    }

    /// The API of the request.
    pub fn api(&self) -> Api {
        self.api
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// Whether the token of the request [is a JWT](crate::Session::is_jwt).
    pub fn has_jwt(&self) -> bool {
        self.has_jwt
    }
}

impl fmt::Debug for ResponseHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers are not shown: one may be a cookie.
        f.debug_struct("ResponseHead")
            .field("api", &self.api)
            .field("status", &self.status)
            .field("has_jwt", &self.has_jwt)
            .finish_non_exhaustive()
    }
}
