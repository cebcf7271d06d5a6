//! The proxy: its checks and limits, and how it forwards a request to the org and the answer back.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::any,
};
use futures_util::stream;
use http::{HeaderValue, Method, Uri, uri::PathAndQuery};
use http_body_util::{BodyExt, LengthLimitError, Limited, StreamBody};
use subtle::ConstantTimeEq;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::timeout,
};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_salesforce_auth::{BoxError, Secret};

use super::{
    headers::{API_KEY, sign, strip_request, strip_response, strip_trailers},
    refusal::Refusal,
};

/// The rules of the proxy.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The key that callers must send in `X-Api-Key`.
    pub(crate) api_key: Secret,
    /// The allowed methods. A POST may be a composite request, with requests of any method in its body. For callers that
    /// may only read, limit the permissions of the Run As user.
    pub(crate) methods: Vec<Method>,
    /// The allowed prefixes of paths, below `/services/`. Each ends with a slash.
    pub(crate) prefixes: Vec<&'static str>,
    /// The bytes of a request body, at most.
    pub(crate) request_body: usize,
    /// The concurrent requests, at most, each counted until the last byte of its answer.
    pub(crate) concurrency: usize,
    /// The time without progress, at most: on a piece of the request, on the head of the response, or on a piece of its body.
    pub(crate) patience: Duration,
}

impl Rules {
    /// Rules for the REST API, with Bulk API 2.0.
    pub(crate) fn new(api_key: impl Into<Secret>) -> Self {
        Self {
            api_key: api_key.into(),
            methods: vec![
                Method::GET,
                Method::HEAD,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
            ],
            // Not `/services/oauth2/`, whose answers have tokens, nor other APIs below `/services/`.
            prefixes: vec!["/services/data/"],
            // More than the largest upload of Bulk API 2.0, which is 150 MB in Base64.
            request_body: 150 * 1024 * 1024,
            concurrency: 100,
            patience: Duration::from_secs(60),
        }
    }
}

/// Puts the proxy in front of `client`, which adds the session: a
/// [`SalesforceAuth`](tower_salesforce_auth::SalesforceAuth) around any HTTP client.
pub(crate) fn router<S, B>(client: S, rules: Rules) -> Router
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error = BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let rules = Arc::new(rules);
    let permits = Arc::new(Semaphore::new(rules.concurrency));
    let forward = {
        let rules = Arc::clone(&rules);
        move |request| forward(client.clone(), rules.clone(), request)
    };
    Router::new()
        .route("/services/{*path}", any(forward))
        .fallback(async || Refusal::NotFound)
        .layer(
            // All of this is outside of the layer with the session: it sees one request of the caller, also if the layer
            // sends it twice.
            ServiceBuilder::new()
                // First: callers without the key learn nothing about the proxy, and take no permit.
                .layer(from_fn_with_state(Arc::clone(&rules), require_key))
                // Then the checks: a forbidden request takes no permit.
                .layer(from_fn_with_state(Arc::clone(&rules), check))
                // Then the limit. `hold_permit` says why this is no `ConcurrencyLimitLayer`, and why the client of the login
                // does not share it.
                .layer(from_fn_with_state((permits, rules), hold_permit)),
        )
}

/// Admits callers with the key. Loopback alone does not protect the proxy: other users of the machine reach it, and so do
/// pages in a browser. A page can post to the proxy, but cannot set this header without permission (CORS).
async fn require_key(State(rules): State<Arc<Rules>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(API_KEY);
    // In constant time, so that a caller cannot guess the key byte by byte. Its length is no secret.
    let is_known = shown.is_some_and(|shown| {
        let key = rules.api_key.expose().as_bytes();
        bool::from(shown.as_bytes().ct_eq(key))
    });
    if !is_known {
        return Refusal::Forbidden.into_response();
    }
    next.run(request).await
}

/// Refuses what the rules do not allow, by its head.
async fn check(State(rules): State<Arc<Rules>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !is_unambiguous(path) || !rules.prefixes.iter().any(|it| path.starts_with(it)) {
        return Refusal::NotFound.into_response();
    }
    if !rules.methods.contains(request.method()) {
        return not_allowed(&rules.methods).into_response();
    }
    // Salesforce takes this parameter of a POST for the method (REST API Developer Guide, "Using HTTP PATCH").
    let query = request.uri().query().unwrap_or_default();
    let mut names = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
    if names.any(|name| name.eq_ignore_ascii_case("_HttpMethod")) {
        return Refusal::MethodOverridden.into_response();
    }
    // `forward` counts the bytes of a body without a length.
    if request.body().size_hint().lower() > rules.request_body as u64 {
        return Refusal::BodyTooLarge.into_response();
    }
    next.run(request).await
}

/// Whether every server reads the path as the proxy does. A server may take an encoded dot or slash for a plain one, a
/// backslash for a slash, `..;` for `..`, decode twice, decode `%u002e` or overlong UTF-8, and drop control characters.
///
/// So the path has characters of a list only: those that need no encoding, and encoded visible characters of ASCII that
/// have no meaning in a path.
fn is_unambiguous(path: &str) -> bool {
    let is_plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._~/-".contains(&byte))
    };
    let is_harmless = |code: &str| {
        code.bytes().all(|digit| digit.is_ascii_hexdigit())
            && u8::from_str_radix(code, 16)
                .is_ok_and(|byte| byte.is_ascii_graphic() && !b"./\\;%".contains(&byte))
    };
    let mut parts = path.split('%');
    let is_allowed = parts.next().is_some_and(is_plain)
        && parts.all(|part| {
            part.split_at_checked(2)
                .is_some_and(|(code, rest)| is_harmless(code) && is_plain(rest))
        });
    is_allowed && !path.contains("//") && !path.split('/').any(|it| it == "." || it == "..")
}

fn not_allowed(methods: &[Method]) -> Refusal {
    let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
    let allow = HeaderValue::try_from(methods.join(", "));
    // The names of methods are tokens, which are valid in any header.
    Refusal::MethodNotAllowed(allow.unwrap_or_else(|_| HeaderValue::from_static("")))
}

/// Sheds load instead of queueing it: a caller gets the refusal at once.
///
/// `tower`'s `LoadShed` and `ConcurrencyLimit` shed load too, but that limit releases its permit with the head of the
/// response. Here most of the work comes after the head, so the permit belongs to the body.
///
/// The flow's client must never share the limit: requests that wait for the login may hold all permits, and then the login
/// would wait for them.
async fn hold_permit(
    State((permits, rules)): State<(Arc<Semaphore>, Arc<Rules>)>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(permit) = permits.try_acquire_owned() else {
        return Refusal::Busy.into_response();
    };
    let response = next.run(request).await;
    response.map(|body| relay(body, rules.patience, permit))
}

/// Forwards a body piece by piece, and holds the permit until its end.
///
/// A separate task does this. If a caller reads nothing, the server stops polling the body: a timeout inside the body would
/// never fire, and the permit would never be released.
fn relay(body: Body, patience: Duration, permit: OwnedSemaphorePermit) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let (pieces, mut coming) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut body = body;
        // Without room the caller is too slow, or has disconnected.
        while let Ok(Ok(room)) = timeout(patience, pieces.reserve()).await {
            let piece = tokio::select! {
                piece = timeout(patience, body.frame()) => piece,
                () = pieces.closed() => break,
            };
            match piece {
                Ok(Some(Ok(frame))) => room.send(Some(Ok(frame))),
                ended => {
                    // Before the end is visible: a caller that sees it may send its next request at once.
                    drop(permit);
                    room.send(match ended {
                        Ok(ended) => ended.map(|failed| failed.map_err(BoxError::from)),
                        Err(elapsed) => Some(Err(elapsed.into())),
                    });
                    break;
                }
            }
        }
    });
    // An error, so that a slow caller does not take a partial body for the whole.
    let broken_off = || Some(Err("the answer was broken off".into()));
    let pieces = stream::poll_fn(move |cx| {
        let piece = coming.poll_recv(cx);
        piece.map(|piece: Option<Option<Result<_, BoxError>>>| piece.unwrap_or_else(broken_off))
    });
    Body::new(StreamBody::new(pieces))
}

/// The state of a request body during the upload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upload {
    WithinLimit,
    BeyondLimit,
}

/// Forwards a request to the org, and the answer back. Both bodies stream: the proxy reads a piece when the other side has taken
/// the last one. Only the layer keeps the first 64 KiB of the request body, for a replay.
async fn forward<S, B>(client: S, rules: Arc<Rules>, request: Request) -> Result<Response, Refusal>
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error = BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (head, body) = request.into_parts();
    let (progress, mut progressed) = watch::channel(Upload::WithinLimit);
    let beyond_limit = progress.clone();
    let body = Limited::new(body, rules.request_body)
        .map_frame(move |frame| {
            progress.send_replace(Upload::WithinLimit);
            strip_trailers(frame, strip_request)
        })
        .map_err(move |error| {
            if error.is::<LengthLimitError>() {
                beyond_limit.send_replace(Upload::BeyondLimit);
            }
            error
        });
    // A new request, since the version and the extensions belong to the connection of the caller.
    let mut request = http::Request::new(Body::new(body));
    *request.method_mut() = head.method;
    // Without the host of the caller: the layer sends a path to the current instance.
    let path = head.uri.into_parts().path_and_query;
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.headers_mut() = head.headers;
    strip_request(request.headers_mut());
    sign(request.headers_mut());

    let mut answer = pin!(client.oneshot(request));
    let answer = loop {
        // A timeout for the whole call would also stop an upload that makes progress. This one starts again with each piece.
        // It is outside of the layer, and so covers the wait for a session; it does not stop the refresh.
        tokio::select! {
            answer = &mut answer => break answer,
            Ok(()) = progressed.changed() => {}
            () = tokio::time::sleep(rules.patience) => return Err(Refusal::TimedOut),
        }
    };
    let response = answer.map_err(|error| {
        // The error of a client need not say why the body failed: over HTTP/2 it only says that the stream was reset.
        if *progressed.borrow() == Upload::BeyondLimit {
            return Refusal::BodyTooLarge;
        }
        tracing::warn!(error = &*error as &(dyn std::error::Error + 'static));
        Refusal::of(&error)
    })?;
    // Including a 401 that the layer could not cure.
    let (head, body) = response.into_parts();
    let body = body.map_frame(|frame| strip_trailers(frame, strip_response));
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    strip_response(response.headers_mut());
    Ok(response)
}
