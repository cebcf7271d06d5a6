//! Where a request goes: to the instance, to an origin that the user allowed, or past the layer.

use http::{Uri, request::Parts, uri::PathAndQuery};

use crate::{
    error::{BoxError, Error, ErrorKind},
    handle::handle::SessionHandle,
    session::{
        live::Published,
        url::{self, Origin},
    },
};

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

/// Whether a URI says nothing about where it goes.
pub(crate) fn is_relative(uri: &Uri) -> bool {
    uri.authority().is_none()
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

pub(super) fn join(origin: &Origin, path: PathAndQuery) -> Result<Uri, Error> {
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

pub(super) fn unsendable(why: &str, error: impl Into<BoxError>) -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        format!("the request cannot be sent: {why}"),
    )
    .with_source(error)
}
