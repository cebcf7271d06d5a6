//! Where a request goes: to the instance, to an origin that the user allowed, or to a host that never gets the token.

use http::{HeaderValue, Uri, header::HOST, request::Parts, uri::PathAndQuery};

use crate::{
    error::{BoxError, Error, ErrorKind},
    handle::handle::SessionHandle,
    session::{
        live::Published,
        url::{self, Origin},
    },
};

/// The destination of a request that may carry the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The instance of the session that the request is sent with.
    Instance,
    /// An origin that the user allowed.
    Allowed,
}

impl Target {
    /// Finds the target of a URI. `None` for a foreign host, which never gets the token.
    pub(crate) fn of(uri: &Uri, published: &Published, handle: &SessionHandle) -> Option<Self> {
        if is_relative(uri) || published.has_instance(uri) {
            Some(Self::Instance)
        } else if handle.allows(uri) {
            Some(Self::Allowed)
        } else {
            None
        }
    }

    /// Finds the target of a URI while the instance is unknown: any host that Salesforce serves may be the instance.
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

/// Whether a URI names no host.
pub(super) fn is_relative(uri: &Uri) -> bool {
    uri.authority().is_none()
}

/// Resolves a relative URI against the instance of the latest session. Leaves an absolute URI as it is.
pub(crate) fn resolve_relative(
    request: &mut Parts,
    latest: Option<&Published>,
) -> Result<(), Error> {
    if !is_relative(&request.uri) {
        return Ok(());
    }
    let Some(latest) = latest else {
        return Err(Error::new(
            ErrorKind::NoSession,
            "a relative URI needs an instance to go to, and there is no session yet to tell it: give the request an \
             absolute URI, or the layer a session",
        ));
    };
    point_at_instance(request, latest)
}

/// Replaces scheme and host of the request's URI by the instance's. The path stays.
///
/// A `Host` header names the instance then: a request that was handed on has that of the server that it came to.
pub(super) fn point_at_instance(request: &mut Parts, published: &Published) -> Result<(), Error> {
    let origin = published.session.instance_url().origin();
    if !origin.is_of(&request.uri) {
        let path = std::mem::take(&mut request.uri)
            .into_parts()
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        request.uri = join(origin, path)?;
        if request.headers.contains_key(HOST) {
            let host = HeaderValue::from_str(origin.authority().as_str())
                .map_err(|error| unsendable("the instance is not a valid Host header", error))?;
            request.headers.insert(HOST, host);
        }
    }
    Ok(())
}

/// Appends a path to an origin.
pub(super) fn join(origin: &Origin, path: PathAndQuery) -> Result<Uri, Error> {
    // The http crate accepts `*` as a path. Appended to the host, it would become part of the host name.
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

/// The error for a request that the http crate cannot build.
pub(super) fn unsendable(why: &str, error: impl Into<BoxError>) -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        format!("the request cannot be sent: {why}"),
    )
    .with_source(error)
}
