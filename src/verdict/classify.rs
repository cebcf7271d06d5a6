//! What a classifier is asked, and what it may say.

use std::{fmt, sync::Arc};

use http::{HeaderMap, Response, StatusCode};

use crate::verdict::Api;

/// Tells the end of a session from any other answer: what [`SalesforceAuthLayer::classifier`] takes.
///
/// See the [module](crate::verdict) for an example. A classifier decides by what it is given alone, and does not block.
///
/// [`SalesforceAuthLayer::classifier`]: crate::SalesforceAuthLayer::classifier
pub trait Classify: Send + Sync + 'static {
    /// Decides by status and headers. None: the body is needed.
    ///
    /// Called for every answer. It should be quick to say [`Verdict::Pass`] to a good one, whose body is never looked
    /// into then.
    fn classify_head(&self, head: &ResponseHead<'_>) -> Option<Verdict>;

    /// Decides by the beginning of the body. None: more of it is needed, which comes to `Pass` if there is no more.
    ///
    /// Called whenever there is nothing more to read for the moment, with all that was read so far, and once at the end.
    /// A verdict on a part must be the one that the whole would get: where frames are cut is nobody's intention.
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

/// What an answer says about the session that it was asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing: it is the caller's.
    Pass,
    /// That it has ended: another one may do.
    Expired,
    /// That it is of no use, and that another one would be of none either. The answer is returned with
    /// [`ReplaySkipped::Incurable`](crate::ReplaySkipped::Incurable), and nothing is refreshed.
    Incurable,
}

/// How much of a body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Extent {
    /// The beginning. More may follow.
    Beginning,
    /// All of it.
    Whole,
    /// The beginning, and no more is going to be read: it is too long, takes too long, or broke off.
    CutOff,
}

/// The head of a response, and whose it is.
#[derive(Clone, Copy)]
pub struct ResponseHead<'a> {
    api: Api,
    status: StatusCode,
    headers: &'a HeaderMap,
    has_jwt: bool,
}

impl<'a> ResponseHead<'a> {
    /// The head of a response of an API to a session whose token is no JWT.
    pub fn new<B>(api: Api, response: &'a Response<B>) -> Self {
        Self {
            api,
            status: response.status(),
            headers: response.headers(),
            has_jwt: false,
        }
    }

    /// The same, to a session whose token [is a JWT](crate::Session::is_jwt).
    #[must_use]
    pub fn with_jwt(mut self) -> Self {
        self.has_jwt = true;
        self
    }

    /// Whose request was answered.
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

    /// Whether the token of the session [is a JWT](crate::Session::is_jwt).
    pub fn has_jwt(&self) -> bool {
        self.has_jwt
    }
}

impl fmt::Debug for ResponseHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A header may be a cookie.
        f.debug_struct("ResponseHead")
            .field("api", &self.api)
            .field("status", &self.status)
            .field("has_jwt", &self.has_jwt)
            .finish_non_exhaustive()
    }
}
