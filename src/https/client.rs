//! The client: hyper-util's, with nothing of it in sight.

use std::{
    error::Error as _,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::connector::Connector;
use crate::error::{BoxError, Error};

/// An HTTP client with TLS. Clones share its connections.
///
/// It takes requests with absolute URIs and with any body that is sent by pieces of memory; which one, its use tells:
/// `HttpsClient<Full<Bytes>>` is a [`flow::HttpClient`](crate::flow::HttpClient), and
/// `HttpsClient<ReplayBody<Full<Bytes>>>` is one to wrap. See the [module](super) for what it does.
///
/// It has no timeout for an answer, since who sends a request knows how long it may take: put tower's `Timeout` around
/// it, or around the layer.
///
/// # Errors
///
/// A connection that does not come about is an [`Error`] of this crate, of the kind
/// [`Connect`](crate::ErrorKind::Connect) or [`InvalidUrl`](crate::ErrorKind::InvalidUrl): nothing was sent then. Any
/// other is one of hyper's.
///
/// # Panics
///
/// A request panics outside of a tokio runtime with I/O and time drivers.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use tower::Layer;
/// use tower_salesforce_auth::{
///     Error, ReplayBody, SalesforceAuth, SalesforceAuthLayer, Session, https::HttpsClient,
/// };
///
/// struct Salesforce {
///     client: SalesforceAuth<HttpsClient<ReplayBody<Full<Bytes>>>>,
/// }
///
/// fn salesforce(session: Session) -> Result<Salesforce, Error> {
///     let layer = SalesforceAuthLayer::with_session(session);
///     Ok(Salesforce { client: layer.layer(HttpsClient::new()?) })
/// }
/// # let session = Session::new("00Dxx0000001gEF!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// # let _ = salesforce(session)?.client;
/// # Ok::<_, Error>(())
/// ```
pub struct HttpsClient<B> {
    inner: legacy::Client<Connector, B>,
}

impl<B> HttpsClient<B> {
    pub(super) fn with_client(inner: legacy::Client<Connector, B>) -> Self {
        Self { inner }
    }
}

impl<B> Service<Request<B>> for HttpsClient<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        ResponseFuture {
            inner: self.inner.call(request),
        }
    }
}

impl<B> Clone for HttpsClient<B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<B> fmt::Debug for HttpsClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsClient").finish_non_exhaustive()
    }
}

pin_project! {
    /// The answer of an [`HttpsClient`], when it is there.
    ///
    /// Dropping it ends the request.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture {
        #[pin]
        inner: legacy::ResponseFuture,
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Incoming>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx).map_err(without_wrapping)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// Takes the connector's error out of hyper-util's, which nobody could look for without that crate.
fn without_wrapping(error: legacy::Error) -> BoxError {
    let own = error
        .source()
        .and_then(|source| source.downcast_ref::<Error>());
    match own {
        Some(own) => own.clone().into(),
        None => error.into(),
    }
}
