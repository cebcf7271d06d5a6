//! Sends one request with any tower client and reads a response of limited size. Redirects are not followed.

use std::{
    borrow::Cow,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::SystemTime,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, LOCATION, WWW_AUTHENTICATE,
    },
};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;
use zeroize::Zeroizing;

use crate::{
    error::{BoxError, Error, ErrorKind, RefreshError, RefreshErrorKind, Unreachable},
    http::{
        response::{Ending, HttpResponse, PASSWORD_DELAY},
        retry_after,
    },
    secret::Secret,
    session::{dpop_key::DpopKey, host::HostFamily, session::Session, url::host_and_port},
    text::{
        charset,
        inflate::{self, inflate},
        json, pasted,
    },
};

/// How much of a response body is read. A token response has a few hundred bytes, a maintenance page a few thousand.
const RESPONSE_LIMIT: usize = 1024 * 1024;

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
        ) -> impl Future<Output = Result<Response<(Bytes, Option<BoxError>)>, BoxError>> + Send;
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
    async fn send(
        mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<(Bytes, Option<BoxError>)>, BoxError> {
        poll_fn(|cx| self.poll_ready(cx))
            .await
            .map_err(Into::into)?;
        let (head, body) = self.call(request).await.map_err(Into::into)?.into_parts();
        let body = read(body).await;
        Ok(Response::from_parts(head, body))
    }
}

/// Reads a body until it ends, fails or exceeds [`RESPONSE_LIMIT`]. What was read before it failed is kept.
async fn read<B>(body: B) -> (Bytes, Option<BoxError>)
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let mut read = BytesMut::new();
    let (mut pauses, mut empty) = (0, 0);
    while read.len() <= RESPONSE_LIMIT {
        let next = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
            Poll::Pending if pauses < PAUSES && !read.is_empty() => {
                pauses += 1;
                if is_complete(&read) {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                }
            }
            next => next,
        });
        match next.await {
            None => break,
            Some(Err(error)) => return (read.freeze(), Some(error.into())),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    empty += u32::from(!data.has_remaining());
                    if empty > EMPTY_FRAMES {
                        let error = "the body consists of empty frames";
                        return (read.freeze(), Some(error.into()));
                    }
                    let room = RESPONSE_LIMIT + 1 - read.len();
                    read.put(data.take(room));
                }
            }
        }
    }
    (read.freeze(), None)
}

/// A request to a server, with a complete body.
pub(crate) struct HttpRequest {
    method: Method,
    endpoint: Uri,
    headers: HeaderMap,
    body: Bytes,
    has_password: bool,
    /// The key that proves the request. `None`: it has no proof.
    dpop_key: Option<DpopKey>,
    /// The access token that the request carries. `None` if it carries none, or if there is no proof to name it.
    access_token: Option<Secret>,
}

impl HttpRequest {
    fn new(method: Method, endpoint: Uri, body: Bytes) -> Self {
        Self {
            method,
            endpoint,
            headers: HeaderMap::new(),
            body,
            has_password: false,
            dpop_key: None,
            access_token: None,
        }
    }

    /// A GET that accepts JSON.
    pub(crate) fn get(endpoint: Uri) -> Self {
        Self::new(Method::GET, endpoint, Bytes::new())
            .with_header(ACCEPT, HeaderValue::from_static("application/json"))
    }

    /// A POST of a form that accepts JSON.
    pub(crate) fn post_form(endpoint: Uri, form: &[(&str, &str)]) -> Result<Self, RefreshError> {
        for (name, value) in form {
            if let Some((what, rule)) = pasted::rule_of(name) {
                pasted::check(what, value, rule).map_err(RefreshError::unusable_setting)?;
            }
        }
        let has_password = form.iter().any(|(name, _)| *name == "password");
        // Reserves room for the percent-encoded form: growing the string would leave copies of secrets in memory.
        let room = form
            .iter()
            .map(|(name, value)| 3 * (name.len() + value.len()) + 2);
        let form = form_urlencoded::Serializer::new(String::with_capacity(room.sum()))
            .extend_pairs(form)
            .finish();
        let request = Self::new(Method::POST, endpoint, zeroizing_body(form))
            .with_header(
                CONTENT_TYPE,
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            )
            .with_header(ACCEPT, HeaderValue::from_static("application/json"));
        Ok(Self {
            has_password,
            ..request
        })
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

    /// Notes that the body contains a password: see [`unrecognized`](super::server_error::unrecognized).
    pub(crate) fn with_password(mut self) -> Self {
        self.has_password = true;
        self
    }

    /// Proves the request with this key, if there is one (RFC 9449).
    pub(crate) fn with_proof(mut self, key: Option<&DpopKey>) -> Self {
        self.dpop_key = key.cloned();
        self
    }

    /// Carries the access token of a session, with a proof if it is bound to a key.
    pub(crate) fn with_session(self, session: &Session) -> Self {
        let key = session.bound_key();
        let access_token = key.map(|_| session.access_token().clone());
        let request = self.with_header(AUTHORIZATION, session.authorization().clone());
        Self {
            access_token,
            ..request.with_proof(key)
        }
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sends the request once. The caller decides whether a failed request may be repeated. No error contains any of
    /// `secrets`, which a client may repeat.
    ///
    /// A nonce in the answer is kept for the next proof.
    pub(crate) async fn send(
        self,
        client: impl HttpClient,
        secrets: &[&str],
    ) -> Result<HttpResponse, RefreshError> {
        let host = self.endpoint.host().unwrap_or_default().to_owned();
        let whole_host = host_and_port(&self.endpoint);
        let endpoint = self.endpoint.clone();
        let mut request = Request::new(Full::new(self.body));
        *request.headers_mut() = self.headers;
        let mut proof = None;
        if let Some(key) = &self.dpop_key {
            let access_token = self.access_token.as_ref();
            let header = key.header(&self.method, &endpoint, access_token);
            let header = header.map_err(RefreshError::configuration)?;
            request.headers_mut().insert(DPOP, header.clone());
            proof = Some((header, key.now()));
        }
        *request.method_mut() = self.method;
        *request.uri_mut() = self.endpoint;
        let sent = client.send(request).await;
        let response = sent.map_err(|error| {
            // A proof that did not arrive is still good.
            let proof = proof.iter().filter_map(|(header, _)| header.to_str().ok());
            let secrets: Vec<_> = secrets.iter().copied().chain(proof).collect();
            not_sent(&whole_host, error, &secrets)
        })?;
        let (head, (body, error)) = response.into_parts();
        let ending = match error {
            Some(error) => Ending::BrokeOff(error),
            None if body.len() > RESPONSE_LIMIT => Ending::TooLong,
            None => Ending::Whole,
        };
        let dpop_key = self.dpop_key.as_ref();
        let nonce = dpop_key.and_then(|key| key.keep_nonce(&endpoint, &head.headers));
        let retry_after = retry_after::delay(&head.headers, now());
        if head.status.is_redirection() {
            let error = redirect_error(&host, head.status, &head.headers);
            let shortest = self.has_password.then_some(PASSWORD_DELAY);
            return Err(error.with_delay(retry_after, shortest));
        }
        let text = |name| Some(head.headers.get(name)?.to_str().ok()?.to_owned());
        let encoding: Option<String> = text(CONTENT_ENCODING);
        let (body, compression) = decompressed(body, encoding);
        Ok(HttpResponse {
            host,
            status: head.status,
            body,
            ending,
            content_type: text(CONTENT_TYPE),
            compression,
            retry_after,
            has_password: self.has_password,
            proof: proof.map(|(_, time)| time),
            has_nonce: nonce.is_some(),
            challenge: text(WWW_AUTHENTICATE),
            date: text(DATE),
        })
    }
}

/// The error for a request without an answer.
fn not_sent(host: &str, error: BoxError, secrets: &[&str]) -> RefreshError {
    let is_of_connection = error
        .downcast_ref::<Error>()
        .is_some_and(|error| error.kind() == ErrorKind::Connect);
    let unreachable = Unreachable::of(&*error);
    let what = if unreachable.is_some() || is_of_connection {
        format!("{host} could not be reached")
    } else {
        format!("{host} could not be reached, or did not answer")
    };
    let without_cause = RefreshError::new(RefreshErrorKind::Transport, false, what);
    let remedy = unreachable.and_then(Unreachable::remedy);
    let error = without_cause.with_source(error).with_remedy(remedy);
    error.without_secrets(secrets)
}

/// Decompresses a body. Returns how it is compressed if that fails.
fn decompressed(body: Bytes, encoding: Option<String>) -> (Bytes, Option<String>) {
    let encoding = encoding.filter(|encoding| !encoding.eq_ignore_ascii_case("identity"));
    let inflated = inflate(&body, encoding.as_deref(), RESPONSE_LIMIT);
    let is_text = |bytes: &[u8]| !bytes.starts_with(&inflate::GZIP) && !bytes.contains(&0);
    match inflated {
        Cow::Owned(inflated) => (inflated.into(), None),
        // A client may have decompressed the body and left the header.
        Cow::Borrowed(_) if is_text(&body) && str::from_utf8(&body).is_ok() => (body, None),
        Cow::Borrowed(_) if body.starts_with(&inflate::GZIP) => (body, Some("gzip".to_owned())),
        Cow::Borrowed(_) => (body, encoding),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server may name the time of the next attempt"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

const SOAP_ACTION: HeaderName = HeaderName::from_static("soapaction");

/// The header of a proof (RFC 9449 §4.1).
const DPOP: HeaderName = HeaderName::from_static("dpop");

/// A body whose memory is wiped when its last clone is dropped.
fn zeroizing_body(text: String) -> Bytes {
    Bytes::from_owner(Zeroizing::new(text.into_bytes()))
}

/// How many empty frames a body may have: it could yield them without end.
const EMPTY_FRAMES: u32 = 4096;

/// How often a body that pauses is searched for the end of its JSON.
const PAUSES: u32 = 16;

/// Whether a body that pauses holds an answer to its end. Then a connection that hangs costs no token (R39).
fn is_complete(beginning: &[u8]) -> bool {
    let text = charset::decode(beginning, None);
    let object = text.find('{').and_then(|start| text.get(start..));
    object.is_some_and(|object| {
        let mut names = ["\"access_token\"", "\"error\""].iter();
        names.any(|name| object.contains(name)) && json::is_closed(object)
    })
}

/// The error for a redirect. Secrets are never sent to its target: the user has to choose that host.
///
/// It is terminal if the target is a login host of Salesforce. Any other target is that of a gateway, a captive portal or a
/// page about maintenance, which pass.
fn redirect_error(host: &str, status: StatusCode, headers: &HeaderMap) -> RefreshError {
    let target = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| location.parse::<Uri>().ok())
        .and_then(|location| location.host().map(str::to_ascii_lowercase))
        .filter(|target| !target.eq_ignore_ascii_case(host));
    let family = target.as_deref().and_then(HostFamily::of);
    let has_logins = family.is_some_and(HostFamily::has_logins);
    let has_pages = family.is_some_and(HostFamily::has_pages_only);
    let advice = match target {
        Some(target) if has_logins => {
            format!("if {target} belongs to the org, use it as the login URL")
        }
        Some(target) if has_pages => format!(
            "{target} serves pages only: use the org's My Domain as the login URL, \
             https://<MyDomainName>.my.salesforce.com (Setup > My Domain)"
        ),
        Some(target) => format!(
            "{target} is no login host of Salesforce: a gateway, a captive portal or a page about maintenance may be in the \
             way, and the request is tried again"
        ),
        None => "the redirect leads to no other host: a page about maintenance may be in the way, and the request is \
                      tried again; if it does not pass, check the login URL"
            .to_owned(),
    };
    RefreshError::new(
        RefreshErrorKind::InvalidResponse,
        has_logins || has_pages,
        format!(
            "{host} redirected the request ({status}), and secrets are never sent on: {advice}"
        ),
    )
}
