//! Responses to a redirect that was followed inside the layer.

use http::Response;

use crate::handle::handle::SessionHandle;
#[cfg(feature = "follow-redirect")]
use crate::request::target::Target;

/// Whether a redirect led to a host that did not get the token. Its response says nothing about the session.
///
/// `tower_http`'s `FollowRedirect` records the last URI in the response. It removes the token from a request that it sends
/// to another origin.
#[cfg(feature = "follow-redirect")]
pub(crate) fn answered_by_foreign_host<B>(response: &Response<B>, handle: &SessionHandle) -> bool {
    response
        .extensions()
        .get::<tower_http::follow_redirect::RequestUri>()
        .zip(handle.latest())
        .is_some_and(|(last, latest)| Target::of(&last.0, &latest.0, handle).is_none())
}

/// Always `false`: without the feature `follow-redirect` the last URI is unknown.
#[cfg(not(feature = "follow-redirect"))]
pub(crate) fn answered_by_foreign_host<B>(
    _response: &Response<B>,
    _handle: &SessionHandle,
) -> bool {
    false
}
