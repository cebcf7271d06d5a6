//! Responses to a redirect that was followed inside the layer.

use http::{Response, Uri};

use crate::{handle::handle::SessionHandle, request::target::Target};

/// Where the last request of a redirect that was followed went to: `tower_http`'s `FollowRedirect` records it in the response.
/// `None` if nothing was recorded.
#[cfg(feature = "follow-redirect")]
pub(super) fn last_uri<B>(response: &Response<B>) -> Option<&Uri> {
    let last = response.extensions().get();
    last.map(|tower_http::follow_redirect::RequestUri(uri)| uri)
}

/// Always `None`: without the feature `follow-redirect` the last URI is unknown.
#[cfg(not(feature = "follow-redirect"))]
pub(super) fn last_uri<B>(_response: &Response<B>) -> Option<&Uri> {
    None
}

/// Whether a redirect led to a host that did not get the token. Its response says nothing about the session.
///
/// `FollowRedirect` removes the token from a request that it sends to another origin.
pub(crate) fn answered_by_foreign_host<B>(response: &Response<B>, handle: &SessionHandle) -> bool {
    last_uri(response)
        .zip(handle.latest())
        .is_some_and(|(last, latest)| Target::of(last, &latest.0, handle).is_none())
}
