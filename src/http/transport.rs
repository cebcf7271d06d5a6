//! Sends one request with any tower client and reads a response of limited size. Redirects are not followed.

use std::{
    future::{Future, poll_fn},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use serde::de::DeserializeOwned;
use tower_service::Service;
use zeroize::Zeroizing;

use crate::error::{BoxError, RefreshError, RefreshErrorKind};

/// The longest response body that is read. A token response has a few hundred bytes, a maintenance page a few thousand.
const RESPONSE_LIMIT: usize = 64 * 1024;

/// The longest `Retry-After` that is honoured. A longer one counts as this.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// An HTTP client that a flow sends its own requests with.
///
/// Every tower service that takes requests with a [`Full`] body implements this trait, for example hyper-util's client
/// or a stack of tower layers around it. Other implementations are not possible.
///
/// - Use a separate client, not the one that the layer wraps. The two must not share a concurrency limit: requests that
///   wait for a refresh may hold all permits.
/// - The client should not follow redirects, because the requests contain secrets.
/// - The client must be `Sync`. To box a stack, use `tower::util::BoxCloneSyncService`.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
///
/// fn can_send_for_a_flow(_: impl tower_salesforce_auth::flow::HttpClient) {}
///
/// can_send_for_a_flow(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
/// ```
pub trait HttpClient: sealed::SendRequest + Clone + Send + Sync + 'static {}

impl<C: sealed::SendRequest + Clone + Send + Sync + 'static> HttpClient for C {}

mod sealed {
    use super::{BoxError, Bytes, Full, Future, Request, Response};

    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not an HTTP client for a flow",
        note = "it must be a `tower::Service<http::Request<http_body_util::Full<bytes::Bytes>>>` with an \
                `http::Response` and a `Send` future"
    )]
    #[expect(
        unnameable_types,
        reason = "sealed: implemented for every service that fits"
    )]
    pub trait SendRequest {
        fn send(
            self,
            request: Request<Full<Bytes>>,
        ) -> impl Future<Output = Result<Response<Bytes>, BoxError>> + Send;
    }
}

impl<C, ResBody> sealed::SendRequest for C
where
    C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Send,
    C::Error: Into<BoxError>,
    C::Future: Send,
    ResBody: Body + Send,
    ResBody::Data: Send,
    ResBody::Error: Into<BoxError>,
{
    async fn send(mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, BoxError> {
        poll_fn(|cx| self.poll_ready(cx))
            .await
            .map_err(Into::into)?;
        let (head, body) = self.call(request).await.map_err(Into::into)?.into_parts();
        let body = Limited::new(body, RESPONSE_LIMIT).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// A request to a server, with a complete body.
pub(crate) struct HttpRequest {
    method: Method,
    endpoint: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl HttpRequest {
    fn new(method: Method, endpoint: Uri, body: Bytes) -> Self {
        Self {
            method,
            endpoint,
            headers: HeaderMap::new(),
            body,
        }
    }

    /// A GET that accepts JSON.
    pub(crate) fn get(endpoint: Uri) -> Self {
        Self::new(Method::GET, endpoint, Bytes::new())
            .with_header(ACCEPT, HeaderValue::from_static("application/json"))
    }

    /// A POST of a form that accepts JSON.
    pub(crate) fn post_form(endpoint: Uri, form: &[(&str, &str)]) -> Self {
        // Reserves room for the percent-encoded form: growing the string would leave copies of secrets in memory.
        let room = form
            .iter()
            .map(|(name, value)| 3 * (name.len() + value.len()) + 2);
        let form = form_urlencoded::Serializer::new(String::with_capacity(room.sum()))
            .extend_pairs(form)
            .finish();
        Self::new(Method::POST, endpoint, zeroizing_body(form))
            .with_header(
                CONTENT_TYPE,
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            )
            .with_header(ACCEPT, HeaderValue::from_static("application/json"))
    }

    /// A POST of a SOAP 1.1 envelope.
    pub(crate) fn post_soap(endpoint: Uri, envelope: String) -> Self {
        Self::new(Method::POST, endpoint, zeroizing_body(envelope))
            .with_header(
                CONTENT_TYPE,
                HeaderValue::from_static("text/xml; charset=UTF-8"),
            )
            .with_header(SOAP_ACTION, HeaderValue::from_static("\"\""))
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sends the request once. The caller decides whether a failed request may be repeated.
    pub(crate) async fn send(self, client: impl HttpClient) -> Result<HttpResponse, RefreshError> {
        let host = self.endpoint.host().unwrap_or_default().to_owned();
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.endpoint;
        *request.headers_mut() = self.headers;
        let response = client.send(request).await.map_err(|error| {
            RefreshError::new(
                RefreshErrorKind::Transport,
                false,
                format!("{host} could not be reached, or its answer broke off"),
            )
            .with_source(error)
        })?;
        if response.status().is_redirection() {
            return Err(redirect_error(&host, response.status(), response.headers()));
        }
        Ok(HttpResponse {
            host,
            status: response.status(),
            retry_after: retry_after(response.headers()),
            body: response.into_body(),
        })
    }
}

const SOAP_ACTION: HeaderName = HeaderName::from_static("soapaction");

/// A body whose memory is wiped when its last clone is dropped.
fn zeroizing_body(text: String) -> Bytes {
    Bytes::from_owner(Zeroizing::new(text.into_bytes()))
}

/// A server's response, with its complete body.
pub(crate) struct HttpResponse {
    pub(crate) host: String,
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// The delay that the server asked for in `Retry-After` (RFC 9110 §10.2.3). `None` if it is absent or a date.
    pub(crate) retry_after: Option<Duration>,
}

impl HttpResponse {
    /// Reads the body as JSON. `expected` describes the right body, for the error message.
    pub(crate) fn json<T: DeserializeOwned>(&self, expected: &str) -> Result<T, RefreshError> {
        // Ignores bytes after the JSON value: the value may hold the only valid refresh token.
        T::deserialize(&mut serde_json::Deserializer::from_slice(&self.body)).map_err(|error| {
            // serde's own message is left out, because it may quote a token from the body.
            RefreshError::new(
                RefreshErrorKind::InvalidResponse,
                false,
                format!(
                    "{} answered {} with an unexpected body ({:?} error at line {}, column {}): expected {expected}",
                    self.host,
                    self.status,
                    error.classify(),
                    error.line(),
                    error.column(),
                ),
            )
        })
    }
}

/// The error for a redirect. Secrets are never sent to the redirect's target: the user has to choose that host.
fn redirect_error(host: &str, status: StatusCode, headers: &HeaderMap) -> RefreshError {
    let target = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| location.parse::<Uri>().ok())
        .and_then(|location| location.host().map(str::to_owned));
    let advice = match target {
        Some(target) => format!("if {target} belongs to the org, use it as the login URL"),
        None => "use the org's My Domain as the login URL".to_owned(),
    };
    RefreshError::new(
        RefreshErrorKind::InvalidResponse,
        true,
        format!(
            "{host} redirected the request ({status}), and secrets are never sent on: {advice}"
        ),
    )
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = seconds.parse().ok().map(Duration::from_secs)?;
    Some(delay.min(RETRY_AFTER_LIMIT))
}
