//! The proxy: who may ask, for what, how much at a time; and the way of a request to the org and of its answer back.

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

/// What the proxy allows.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// What callers have to show in `X-Api-Key`.
    pub(crate) api_key: Secret,
    /// With POST, a composite request may be one of them, which has requests of any method in its body: to have callers
    /// read only, give the Run As user no more permissions than that.
    pub(crate) methods: Vec<Method>,
    /// Where paths may begin, below `/services/`. Each ends with a slash.
    pub(crate) prefixes: Vec<&'static str>,
    /// How many bytes a request body may have.
    pub(crate) request_body: usize,
    /// How many requests may be under way, until the last byte of their answer.
    pub(crate) concurrency: usize,
    /// How long nothing may happen: no piece of the request sent, no head of the response, no piece of it come, or taken.
    pub(crate) patience: Duration,
}

impl Rules {
    /// For the REST API, and Bulk API 2.0, which is a part of it.
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
            // Not `/services/oauth2/`, whose answers are tokens, nor what else may come to be below `/services/`.
            prefixes: vec!["/services/data/"],
            // More than the largest upload that Bulk API 2.0 takes, which is 150 MB in Base64.
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
            // All of this is outside of the layer with the session: it is about requests of callers, of which each is one
            // here, however often it is sent.
            ServiceBuilder::new()
                // Whoever is not let in learns nothing of what is there, and takes no room from those who are.
                .layer(from_fn_with_state(Arc::clone(&rules), require_key))
                // What is not allowed need not wait for what is.
                .layer(from_fn_with_state(Arc::clone(&rules), check))
                // What is left costs something. See there why this is no `ConcurrencyLimitLayer`, and no limit that the
                // client of the login shares.
                .layer(from_fn_with_state((permits, rules), hold_permit)),
        )
}

/// Lets in who has the key. Loopback alone would be too little: other users of the machine are there, too, and so is any
/// page in a browser, which can post to it, but cannot set this header without being allowed to.
async fn require_key(State(rules): State<Arc<Rules>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(API_KEY);
    // In constant time, so that nobody finds out the key piece by piece. Its length is no secret.
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
    // One that does not say its length is counted as it comes.
    if request.body().size_hint().lower() > rules.request_body as u64 {
        return Refusal::BodyTooLarge.into_response();
    }
    next.run(request).await
}

/// Whether the path is to everybody what it is here. A server may take an encoded dot or slash for a plain one, a
/// backslash for a slash, `..;` for `..`, decode twice, and leave control characters out.
fn is_unambiguous(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let mut ambiguous = [
        "%0", "%1", "%25", "%2e", "%2f", "%3b", "%5c", "%7f", ";", "\\", "//",
    ]
    .into_iter();
    !ambiguous.any(|it| path.contains(it)) && !path.split('/').any(|it| it == "." || it == "..")
}

fn not_allowed(methods: &[Method]) -> Refusal {
    let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
    let allow = HeaderValue::try_from(methods.join(", "));
    // The names of methods are tokens, which can stand in any header.
    Refusal::MethodNotAllowed(allow.unwrap_or_else(|_| HeaderValue::from_static("")))
}

/// Sheds load instead of queueing it: a caller that is told at once can go elsewhere.
///
/// `tower`'s `LoadShed` and `ConcurrencyLimit` do so, too, but that limit has its permit back with the head of the
/// response. Here most of the work comes after it, and so the permit goes with the body.
///
/// Whatever the limit is made of, the client that the flow logs in with must not be below it: all permits may be held by
/// requests that wait for the login, which then would wait for one of them.
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

/// Hands a body on, a piece at a time, and holds the permit for as long as that goes on.
///
/// It is a task of its own. Of a caller that takes nothing a server sees no more than that there is no room, and asks the
/// body for nothing: whatever is in the body would not see the time pass, and the permit would never come back.
fn relay(body: Body, patience: Duration, permit: OwnedSemaphorePermit) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let (pieces, mut coming) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut body = body;
        // Without room the caller is too slow, or gone.
        while let Ok(Ok(room)) = timeout(patience, pieces.reserve()).await {
            let piece = tokio::select! {
                piece = timeout(patience, body.frame()) => piece,
                () = pieces.closed() => break,
            };
            match piece {
                Ok(Some(Ok(frame))) => room.send(Some(Ok(frame))),
                ended => {
                    // By now it is over, and whoever sees the end may ask for the next.
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
    // A caller that was too slow must not take what it has for the whole.
    let broken_off = || Some(Err("the answer was broken off".into()));
    let pieces = stream::poll_fn(move |cx| {
        let piece = coming.poll_recv(cx);
        piece.map(|piece: Option<Option<Result<_, BoxError>>>| piece.unwrap_or_else(broken_off))
    });
    Body::new(StreamBody::new(pieces))
}

/// What is known of a request body on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upload {
    WithinLimit,
    BeyondLimit,
}

/// Sends a request to the org, and its answer back. Neither body is held, but for the first 64 KiB of the request's, which
/// the layer keeps for a replay: a piece is asked of one side when the other has taken the last one.
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
    // Made anew of what is to go on: the version and the extensions are of the connection that it came by.
    let mut request = http::Request::new(Body::new(body));
    *request.method_mut() = head.method;
    // Without a host, whatever the caller named. The layer sends it to the instance, wherever that is by then.
    let path = head.uri.into_parts().path_and_query;
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.headers_mut() = head.headers;
    strip_request(request.headers_mut());
    sign(request.headers_mut());

    let mut answer = pin!(client.oneshot(request));
    let answer = loop {
        // A timeout for the call as a whole would be one for the upload, too, however well that goes. This one begins
        // again with each piece. It is outside of the layer, and so covers the wait for a session, which it does not stop.
        tokio::select! {
            answer = &mut answer => break answer,
            Ok(()) = progressed.changed() => {}
            () = tokio::time::sleep(rules.patience) => return Err(Refusal::TimedOut),
        }
    };
    let response = answer.map_err(|error| {
        // A client need not tell why it stopped sending: of a stream of HTTP/2 nothing but its reset is left.
        if *progressed.borrow() == Upload::BeyondLimit {
            return Refusal::BodyTooLarge;
        }
        tracing::warn!(error = &*error as &(dyn std::error::Error + 'static));
        Refusal::of(&error)
    })?;
    // Including a 401 that the layer could not cure: it says so itself.
    let (head, body) = response.into_parts();
    let body = body.map_frame(|frame| strip_trailers(frame, strip_response));
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    strip_response(response.headers_mut());
    Ok(response)
}
