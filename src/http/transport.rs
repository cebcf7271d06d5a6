//! One bounded exchange, over any tower service, that follows no redirect.

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

/// How much of an answer is read. A token response has a few hundred bytes, a maintenance page some thousand.
const ANSWER_LIMIT: usize = 64 * 1024;

/// No server has to be left alone for longer than it takes somebody to look at it.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// An HTTP client that a flow can send its own requests with: any tower service of requests with a [`Full`] body.
///
/// hyper-util's client is one, and so is a stack of tower layers around it. It should be another than the one that
/// carries the session, and must not share a concurrency limit with it: requests that wait for a refresh may hold all
/// there is. It should not follow redirects, since what is sent are secrets.
///
/// Implemented for every service that fits; there is nothing to implement by hand. It has to be `Sync`: a stack that is
/// boxed is one as `tower::util::BoxCloneSyncService`.
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
        note = "it has to be a `tower::Service<http::Request<http_body_util::Full<bytes::Bytes>>>` with an \
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
        let body = Limited::new(body, ANSWER_LIMIT).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// A call to a server, for one answer.
pub(crate) struct Call {
    method: Method,
    endpoint: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    pub(crate) fn get(endpoint: Uri) -> Self {
        Self {
            method: Method::GET,
            endpoint,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
        .with_header(ACCEPT, HeaderValue::from_static("application/json"))
    }

    /// Posts a form, and wants JSON.
    pub(crate) fn post_form(endpoint: Uri, form: &[(&str, &str)]) -> Self {
        // With room for all of it, percent-encoded, so that no copy is left behind.
        let room = form
            .iter()
            .map(|(name, value)| 3 * (name.len() + value.len()) + 2);
        let form = form_urlencoded::Serializer::new(String::with_capacity(room.sum()))
            .extend_pairs(form)
            .finish();
        Self {
            method: Method::POST,
            endpoint,
            headers: HeaderMap::new(),
            body: wiped_after_use(form),
        }
        .with_header(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        )
        .with_header(ACCEPT, HeaderValue::from_static("application/json"))
    }

    /// Posts a SOAP 1.1 envelope.
    pub(crate) fn post_soap(endpoint: Uri, envelope: String) -> Self {
        Self {
            method: Method::POST,
            endpoint,
            headers: HeaderMap::new(),
            body: wiped_after_use(envelope),
        }
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

    /// Sends it, once. Whether it can be repeated is for the caller to know.
    pub(crate) async fn send(self, client: impl HttpClient) -> Result<Answer, RefreshError> {
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
            return Err(redirected(&host, response.status(), response.headers()));
        }
        Ok(Answer {
            host,
            status: response.status(),
            retry_after: retry_after(response.headers()),
            body: response.into_body(),
        })
    }
}

const SOAP_ACTION: HeaderName = HeaderName::from_static("soapaction");

/// The text as a body whose memory is wiped when nobody needs it any more.
fn wiped_after_use(text: String) -> Bytes {
    Bytes::from_owner(Zeroizing::new(text.into_bytes()))
}

/// What a server answered.
pub(crate) struct Answer {
    pub(crate) host: String,
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// How long the server asked to be left alone, where it said so in seconds (RFC 9110 §10.2.3).
    pub(crate) retry_after: Option<Duration>,
}

impl Answer {
    /// Reads the JSON of a good answer; `expected` says what it should have been.
    pub(crate) fn json<T: DeserializeOwned>(&self, expected: &str) -> Result<T, RefreshError> {
        // What follows it is no reason to lose it.
        T::deserialize(&mut serde_json::Deserializer::from_slice(&self.body)).map_err(|error| {
            // Its message may quote what it stumbled over, which may be a token.
            RefreshError::new(
                RefreshErrorKind::InvalidResponse,
                false,
                format!(
                    "{} answered {} with something else ({:?} error at line {}, column {}): expected {expected}",
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

/// The secrets stay here: where they would have to be sent instead is for the user to decide.
fn redirected(host: &str, status: StatusCode, headers: &HeaderMap) -> RefreshError {
    let target = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| location.parse::<Uri>().ok())
        .and_then(|location| location.host().map(str::to_owned));
    let advice = match target {
        Some(target) => format!("if {target} is the org's, make it the login URL"),
        None => "make the org's My Domain the login URL".to_owned(),
    };
    RefreshError::new(
        RefreshErrorKind::InvalidResponse,
        true,
        format!("{host} redirects the request ({status}), and no secret is sent on: {advice}"),
    )
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = seconds.parse().ok().map(Duration::from_secs)?;
    Some(delay.min(LONGEST_RETRY_AFTER))
}
