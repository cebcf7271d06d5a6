//! The factory that makes a new request body for each attempt.

use std::{fmt, sync::Arc};

use http::Request;

/// A request extension that makes a new body for each attempt, for bodies that are too large to be kept.
///
/// Without a factory, the layer records a stream while it is sent, up to
/// [`replay_limit`](crate::SalesforceAuthLayer::replay_limit), and cannot replay a longer one. With a factory, nothing
/// is recorded, and the body may have any size. When the request is rejected, the layer asks the factory for another body.
/// The body of the rejected attempt ends when it is next polled, or with its connection.
///
/// Each body must have the same content, and the length of the request's `Content-Length`. A factory that opens a file
/// should check that the file has not changed, and otherwise make a body that fails. A body that declares another length
/// than the first ([`Body::size_hint`](http_body::Body::size_hint)) is not sent. The layer then returns the rejection, with
/// [`BodyNotReplayable`](crate::request::ReplaySkipped::BodyNotReplayable).
///
/// # When the factory is not used
///
/// - **Another body type.** The extension is found by its type: `B` must be the body type with which
///   [`SalesforceAuth`](crate::SalesforceAuth) is called. If an outer layer changes that type, for example by boxing, the
///   factory must make the changed type.
/// - **An empty body.** A body that is known to be empty is sent again as it is. A redirect may have emptied it and left
///   the factory in the extensions.
/// - **A SOAP envelope.** It must contain the session of the attempt, so it is kept as if it had no factory.
///
/// # Panics
///
/// If `make` panics for a replay, the response future panics. `make` is called where that future is polled, so it must not
/// block. A body can open its file when it is first polled.
///
/// ```
/// use std::{io, path::PathBuf};
/// use bytes::Bytes;
/// use futures_util::{StreamExt, TryStreamExt, stream};
/// use http::Request;
/// use http_body::Frame;
/// use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
/// use tokio_util::io::ReaderStream;
/// use tower_salesforce_auth::request::BodyFactory;
///
/// /// Reads the file from its beginning. Opens it when the body is first polled.
/// fn open(path: PathBuf) -> UnsyncBoxBody<Bytes, io::Error> {
///     let file = stream::once(tokio::fs::File::open(path));
///     let chunks = file.map_ok(ReaderStream::new).try_flatten();
///     StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync()
/// }
///
/// let path = PathBuf::from("accounts.csv");
/// let head = Request::put("/services/data/v66.0/jobs/ingest/7505fEXAMPLE/batches")
///     .header("content-type", "text/csv");
/// let request = BodyFactory::new(move || open(path.clone())).attach(head.body(())?);
/// # let _: Request<UnsyncBoxBody<Bytes, io::Error>> = request;
/// # Ok::<_, http::Error>(())
/// ```
pub struct BodyFactory<B>(Arc<dyn Fn() -> B + Send + Sync>);

impl<B> BodyFactory<B> {
    /// Creates a factory that calls `make` for each body.
    pub fn new(make: impl Fn() -> B + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// Adds the first body to the request, and the factory as an extension for further bodies.
    pub fn attach(self, request: Request<()>) -> Request<B>
    where
        B: 'static,
    {
        let body = self.make();
        let mut request = request.map(|()| body);
        request.extensions_mut().insert(self);
        request
    }

    /// Makes a body. An outer retry layer calls it, because each of its attempts needs a body.
    pub fn make(&self) -> B {
        (self.0)()
    }
}

// Not derived, because a derived impl would require `B: Clone`.
impl<B> Clone for BodyFactory<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> fmt::Debug for BodyFactory<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyFactory").finish_non_exhaustive()
    }
}
