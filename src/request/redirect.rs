//! Where a response came from, if a redirect was followed inside the layer.

use http::Response;

use crate::handle::handle::SessionHandle;
#[cfg(feature = "follow-redirect")]
use crate::request::target::Target;

/// Whether a redirect led to a host that the token was not sent to, so that what it answers is nothing about it.
///
/// `tower_http`'s `FollowRedirect` notes the last URI in the response, and takes the token out of a request that it
/// sends to another origin.
#[cfg(feature = "follow-redirect")]
pub(crate) fn answered_by_foreign_host<B>(response: &Response<B>, handle: &SessionHandle) -> bool {
    response
        .extensions()
        .get::<tower_http::follow_redirect::RequestUri>()
        .zip(handle.latest())
        .is_some_and(|(last, latest)| Target::of(&last.0, &latest.0, handle).is_none())
}

/// Nothing that could be known without the feature `follow-redirect`.
#[cfg(not(feature = "follow-redirect"))]
pub(crate) fn answered_by_foreign_host<B>(
    _response: &Response<B>,
    _handle: &SessionHandle,
) -> bool {
    false
}
