//! The HTTPS client: a wrapper around hyper-util's client that hides its types.

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
/// The client takes requests with absolute URIs, and any body whose data is a [`Buf`](bytes::Buf). The body type
/// follows from its use:
///
/// - `HttpsClient<Full<Bytes>>` is a [`flow::HttpClient`](crate::flow::HttpClient).
/// - `HttpsClient<ReplayBody<Full<Bytes>>>` is a client for the layer to wrap.
///
/// The [module](super) describes TLS, proxies and connections.
///
/// The client sets no timeout for a response, because only the caller knows how long a request may take. Put tower's
/// `Timeout` around the client or around the layer.
///
/// # Errors
///
/// If a connection fails, the error is this crate's [`Error`], and no request was sent. Its kind is
/// [`Connect`](crate::ErrorKind::Connect) or [`InvalidUrl`](crate::ErrorKind::InvalidUrl). Every other error comes from
/// hyper.
///
/// # Panics
///
/// A request panics outside a tokio runtime with I/O and time drivers.
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
///     let layer = SalesforceAuthLayer::fixed(session);
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
    /// The future of a response of an [`HttpsClient`].
    ///
    /// Dropping the future cancels the request.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture {
        #[pin]
        inner: legacy::ResponseFuture,
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Incoming>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project()
            .inner
            .poll(cx)
            .map_err(unwrap_connector_error)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// Takes the connector's error out of hyper-util's error: callers can then downcast it without depending on hyper-util.
fn unwrap_connector_error(error: legacy::Error) -> BoxError {
    let connector_error = error
        .source()
        .and_then(|source| source.downcast_ref::<Error>());
    match connector_error {
        Some(error) => error.clone().into(),
        None => error.into(),
    }
}
