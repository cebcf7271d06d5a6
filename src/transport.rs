//! One bounded POST, over any tower service, that follows no redirect.

use std::{
    future::{Future, poll_fn},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use tower_service::Service;

use crate::error::{BoxError, RefreshError, RefreshErrorKind};

/// How much of an answer is read. A token response has a few hundred bytes, a maintenance page some thousand.
const ANSWER_LIMIT: usize = 64 * 1024;

/// An HTTP client that a flow can send its own requests with: any tower service of requests with a [`Full`] body.
///
/// hyper-util's client is one, and so is a stack of tower layers around it. It should be another than the one that
/// carries the session, and must not share a concurrency limit with it: requests that wait for a refresh may hold all
/// there is. It should not follow redirects, since what is sent are secrets.
///
/// Implemented for every service that fits; there is nothing to implement by hand.
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
pub trait HttpClient: sealed::Send + Clone + Send + Sync + 'static {}

impl<C: sealed::Send + Clone + Send + Sync + 'static> HttpClient for C {}

mod sealed {
    use super::{BoxError, Bytes, Full, Future, Request, Response};

    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not an HTTP client for a flow",
        note = "it has to be a `tower::Service<http::Request<http_body_util::Full<bytes::Bytes>>>` with an \
                `http::Response` and a `Send` future"
    )]
    pub trait Send {
        fn send(
            self,
            request: Request<Full<Bytes>>,
        ) -> impl Future<Output = Result<Response<Bytes>, BoxError>> + core::marker::Send;
    }
}

impl<C, ResBody> sealed::Send for C
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

/// What an authorization server answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// How long the server asked to be left alone, where it said so in seconds (RFC 9110 §10.2.3).
    pub(crate) retry_after: Option<Duration>,
}

/// Posts a form to an endpoint.
pub(crate) async fn post_form(
    client: impl HttpClient,
    endpoint: Uri,
    form: &[(&str, &str)],
) -> Result<Answer, RefreshError> {
    let host = endpoint.host().unwrap_or_default().to_owned();
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let mut request = Request::new(Full::from(form));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint;
    request.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    request
        .headers_mut()
        .insert(ACCEPT, HeaderValue::from_static("application/json"));
    let response = client.send(request).await.map_err(|error| {
        RefreshError::new(
            RefreshErrorKind::Transport,
            false,
            format!("{host} could not be asked for a token, or its answer broke off"),
        )
        .with_source(error)
    })?;
    if response.status().is_redirection() {
        return Err(redirected(&host, response.status(), response.headers()));
    }
    Ok(Answer {
        status: response.status(),
        retry_after: retry_after(response.headers()),
        body: response.into_body(),
    })
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
        format!("{host} redirects token requests ({status}), and no secret is sent on: {advice}"),
    )
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    seconds.parse().ok().map(Duration::from_secs)
}
