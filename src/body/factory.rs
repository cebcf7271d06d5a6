//! A body that is made anew for every attempt.

use std::{fmt, sync::Arc};

use http::Request;

/// Makes the body of a request, as often as the request is sent: a request extension for what is too large to be kept.
///
/// A stream is kept for a replay while it is sent, up to
/// [`replay_limit`](crate::SalesforceAuthLayer::replay_limit), and a longer one is not sent again. With a factory nothing is
/// kept, whatever its size: when the request is rejected, the factory is asked for another, and the body of that attempt ends
/// when it is polled the next time, or with its connection.
///
/// It has to make the same body each time, of the length that the request's `Content-Length` says. One that opens a file
/// should find out whether that is still the file that it was, and let the body fail if not. A body that says another length
/// than the first did ([`Body::size_hint`](http_body::Body::size_hint)) is not sent: the rejection is returned, as
/// [`BodyNotReplayable`](crate::ReplaySkipped::BodyNotReplayable).
///
/// # What it is not used for
///
/// - It is found by its type: `B` has to be the type of the request's body as it gets to
///   [`SalesforceAuth`](crate::SalesforceAuth). If a layer outside of that turns the body into another, box it for one,
///   the factory has to make what that layer makes.
/// - A body that is known to be empty is sent again as it is: a redirect may have made that of another, and left the factory.
/// - A SOAP envelope, which needs the session of the attempt in it, is kept as it would be without.
///
/// # Panics
///
/// If `make` panics for a replay, the future of the response does. It is called where that is polled, so it must not block
/// for long; a body can open its file when it is first polled.
///
/// ```
/// use std::{io, path::PathBuf};
/// use bytes::Bytes;
/// use futures_util::{StreamExt, TryStreamExt, stream};
/// use http::Request;
/// use http_body::Frame;
/// use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
/// use tokio_util::io::ReaderStream;
/// use tower_salesforce_auth::BodyFactory;
///
/// /// The file from its beginning. It is opened when the body is first polled.
/// fn open(path: PathBuf) -> UnsyncBoxBody<Bytes, io::Error> {
///     let file = stream::once(tokio::fs::File::open(path));
///     let chunks = file.map_ok(ReaderStream::new).try_flatten();
///     StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync()
/// }
///
/// let path = PathBuf::from("accounts.csv");
/// let head = Request::put("/services/data/v66.0/jobs/ingest/7505fEXAMPLE/batches").header("content-type", "text/csv");
/// let request = BodyFactory::new(move || open(path.clone())).attach(head.body(())?);
/// # let _: Request<UnsyncBoxBody<Bytes, io::Error>> = request;
/// # Ok::<_, http::Error>(())
/// ```
pub struct BodyFactory<B>(Arc<dyn Fn() -> B + Send + Sync>);

impl<B> BodyFactory<B> {
    /// A factory of the bodies that `make` makes.
    pub fn new(make: impl Fn() -> B + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// Gives the request its first body, and itself as an extension for those that may follow.
    pub fn attach(self, request: Request<()>) -> Request<B>
    where
        B: 'static,
    {
        let body = self.make();
        let mut request = request.map(|()| body);
        request.extensions_mut().insert(self);
        request
    }

    /// Makes a body: for a retry layer outside, whose attempts need one each.
    pub fn make(&self) -> B {
        (self.0)()
    }
}

// Not derived, since that would ask for a `B: Clone`.
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
