//! A whole stack: eleven layers of tower and tower-http around the Salesforce layer, and what each of them saw.
//!
//! ```sh
//! cargo run --example stack_order
//! ```
//!
//! A session expires under more requests than the stack lets in. The comments say why each layer has its place, and
//! `docs::stack_order` says what breaks in another place. The org is an emulator on loopback, behind a front that
//! compresses, redirects, and is busy at times.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE},
};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    task::{JoinSet, unconstrained},
    time::{Sleep, sleep},
};
use tower::{
    Service, ServiceBuilder, ServiceExt, load_shed::error::Overloaded, retry::Policy, service_fn,
    timeout::error::Elapsed,
};
use tower_http::{
    compression::CompressionLayer,
    decompression::DecompressionLayer,
    follow_redirect::{
        FollowRedirectLayer,
        policy::{Policy as RedirectPolicy, PolicyExt, Standard, clone_body_fn},
    },
    sensitive_headers::{SetSensitiveRequestHeadersLayer, SetSensitiveResponseHeadersLayer},
    trace::TraceLayer,
};
use tower_salesforce_auth::{
    BoxError, ReplayBody, SalesforceAuthLayer, Session, SessionHandle,
    emulator::{Fault, Org},
    flow::RefreshToken,
    oauth::App,
};
use tracing::Span;

const LIMITS: &str = "/services/data/v66.0/limits";
const ACCOUNT: &str = r#"{"Name":"Example"}"#;
const CALLERS: usize = 300;
const LET_IN: usize = 200;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let org = Org::new();
    let served = org.serve().await?;
    let grant = org.authorize();

    // The flow has its own client, outside the stack. With a shared concurrency limit, a login would wait for the requests
    // that wait for it.
    let app =
        App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
    let flow = RefreshToken::new(
        Client::builder(TokioExecutor::new()).build_http(),
        app,
        grant.refresh_token(),
    );
    let session = Session::new(grant.access_token(), grant.instance_url())?;
    let handle = SessionHandle::builder(flow)
        .initial_session(session)
        .build();
    let salesforce = SalesforceAuthLayer::from(handle);
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();

    let seen = Seen::default();
    let busy = Arc::new(AtomicUsize::new(0));
    let stack = ServiceBuilder::new()
        // Outermost: it bounds everything, the wait for a refresh and all attempts included. When it runs out, the refresh
        // continues. Inside, it would start again for each attempt, and only the refresh timeout would bound the wait.
        .timeout(Duration::from_secs(60))
        // Outside: each of its tries gets the current session, and it sees no 401 that a refresh cures. Inside, it would
        // repeat the expired session, and could not clone a body.
        .retry(WhenBusy { tries_left: 2 })
        .map_request(count(&seen.tries))
        // Outside: it sheds the requests that the limit below would keep waiting. Inside, it would shed replays, for which
        // the session was refreshed already. With the buffer below, it also sheds requests of a task that has used up tokio's
        // budget for one poll. So each request here has its own task; see below.
        .load_shed()
        // Outside: it bounds the requests that wait during a refresh. Inside, it would bound the connections only, since a
        // request that waits for a session returns its permit.
        .concurrency_limit(LET_IN)
        .map_request(count(&seen.let_in))
        // Outside: each hop is a separate request, which gets the session if its host is the org's. URIs have to be
        // absolute for that. Inside, Bulk API's X-SFDC-Session would follow a redirect to any host. With the standard policy, a
        // 307 for a request with a body comes back to the caller; see below.
        .layer(FollowRedirectLayer::with_policy(keeping_bodies()))
        .map_request(count(&seen.hops))
        .layer(salesforce.clone())
        // Inside: the layer reads the decompressed body. Outside, the layer would miss sessions that end with a 400, 403 or
        // 500.
        .layer(DecompressionLayer::new())
        // Outside of the trace: it marks headers that come with the request. The layer marks its own headers.
        .layer(SetSensitiveRequestHeadersLayer::new([COOKIE]))
        // Inside: the limit below cannot be cloned, and the layer replays with a clone of its inner service. The buffer has
        // room for all requests that were let in.
        .buffer(LET_IN)
        // Inside: it counts attempts on the wire. Outside, it would count requests, and let twice as many pass when a
        // session ends.
        .rate_limit(5_000, Duration::from_secs(1))
        .map_request(count(&seen.on_the_wire))
        // Inside: it sees each attempt as it is on the wire, the 401s too. Outside, it would see one request, and the span of
        // a refresh would be inside that of the request: add a second trace there for that.
        .layer(
            TraceLayer::new_for_http()
                .on_request(seen.requests())
                .on_response(seen.responses()),
        )
        // Inside of the trace: it marks headers that come with the response.
        .layer(SetSensitiveResponseHeadersLayer::new([SET_COOKIE]))
        // Not a part of the stack: the network between here and the org.
        .layer(CompressionLayer::new())
        .service(service_fn({
            let (client, busy) = (client.clone(), busy.clone());
            move |request| front(client.clone(), busy.clone(), request)
        }));
    let standard = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(salesforce)
        .service(service_fn({
            let busy = busy.clone();
            move |request| front(client.clone(), busy.clone(), request)
        }));

    // A token call over the internet takes a while. On loopback the delay shows what happens in the meantime.
    org.on_token(Fault::Delay(Duration::from_millis(200)));
    org.expire_sessions();
    busy.store(2, Ordering::Relaxed);
    println!("The session expires; {CALLERS} requests at once, every other one to be redirected:");
    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        let request = request(n, &org.instance_url())?;
        callers.spawn(stack.clone().oneshot(request));
    }
    let mut outcomes = Outcomes::default();
    for answer in callers.join_all().await {
        match answer {
            Ok(response) if response.status().is_success() => {
                let body = response.into_body().collect().await?.to_bytes();
                serde_json::from_slice::<serde_json::Value>(&body)?;
                outcomes.succeeded += 1;
            }
            Ok(response) => println!("  failed: {}", response.status()),
            Err(error) => outcomes.count(&error),
        }
    }
    let refreshes = org.counters().token_requests;

    outcomes.print(refreshes, &seen);
    let is_returned = is_returned_by_the_standard_policy(standard, &org.instance_url()).await?;
    let is_cut = is_cut_by_the_budget(stack, &org.instance_url()).await?;

    served.shutdown().await;
    let Outcomes {
        succeeded, shed, ..
    } = outcomes;
    if succeeded + shed == CALLERS && refreshes == 1 && is_returned && is_cut {
        return Ok(ExitCode::SUCCESS);
    }
    println!("That is not what was promised.");
    Ok(ExitCode::FAILURE)
}

/// Every other request is to be redirected, and every other one of those has a body.
fn request(n: usize, instance: &str) -> http::Result<Request<Full<Bytes>>> {
    let (request, body) = match n % 4 {
        0 | 2 => (Request::get(format!("{instance}{LIMITS}")), ""),
        1 => (Request::get(format!("{instance}/moved")), ""),
        _ => (Request::post(format!("{instance}/moved-accounts")), ACCOUNT),
    };
    request
        .header(COOKIE, "sid=of-the-caller")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(body))
}

#[derive(Default)]
struct Outcomes {
    succeeded: usize,
    shed: usize,
    late: usize,
}

impl Outcomes {
    fn count(&mut self, error: &BoxError) {
        if error.is::<Overloaded>() {
            self.shed += 1;
        } else if error.is::<Elapsed>() {
            self.late += 1;
        } else {
            println!("  failed: {error}");
        }
    }

    fn print(&self, refreshes: u64, seen: &Seen) {
        let Self {
            succeeded,
            shed,
            late,
        } = self;
        println!("  timeout            {late:>4}  ran out of time");
        println!("  load_shed          {shed:>4}  shed: the limit was reached");
        println!("  Salesforce         {refreshes:>4}  refresh, for all of them");
        seen.print();
        println!("  succeeded          {succeeded:>4}");
    }
}

// === Redirects ===

async fn is_returned_by_the_standard_policy<S, B>(
    stack: S,
    instance: &str,
) -> Result<bool, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError>,
{
    println!("\nA POST that is redirected, with the standard policy of follow_redirect:");
    let moved = Request::post(format!("{instance}/moved-accounts"));
    let response = stack.oneshot(moved.body(Full::from(ACCOUNT))?).await?;
    println!(
        "  {} comes back. Above, the policy kept the body, and the redirect was followed.",
        response.status()
    );
    Ok(response.status() == StatusCode::TEMPORARY_REDIRECT)
}

/// The standard policy, which also keeps bodies: a body in memory is cloned without a copy.
///
/// The body goes to the host that the redirect names, without the session. `.and(SameOrigin::new())` keeps it at the first one.
fn keeping_bodies() -> impl RedirectPolicy<Full<Bytes>, BoxError> + Clone {
    let bodies = clone_body_fn(|body: &Full<Bytes>| Some(body.clone()));
    Standard::default().and::<_, Full<Bytes>, BoxError>(bodies)
}

// === One task ===

async fn is_cut_by_the_budget<S>(stack: S, instance: &str) -> Result<bool, BoxError>
where
    S: Service<Request<Full<Bytes>>, Error = BoxError> + Clone,
{
    println!(
        "\n{LET_IN} requests that one task begins without a pause, and that the limit lets in:"
    );
    let uri = format!("{instance}{LIMITS}");
    let cut = shed_of_one_task(stack.clone(), &uri).await?;
    println!("  load_shed          {cut:>4}  shed: tokio's budget of the task was used up");
    let uncut = unconstrained(shed_of_one_task(stack, &uri)).await?;
    println!("  load_shed          {uncut:>4}  shed in `tokio::task::unconstrained`");
    Ok(cut > 0 && uncut == 0)
}

/// Begins requests one after the other, without a pause in between. Returns how many are shed.
async fn shed_of_one_task<S>(mut stack: S, uri: &str) -> Result<usize, BoxError>
where
    S: Service<Request<Full<Bytes>>, Error = BoxError>,
{
    let mut begun = Vec::new();
    for _ in 0..LET_IN {
        let request = Request::get(uri).body(Full::default())?;
        begun.push(stack.ready().await?.call(request));
    }
    let answers = join_all(begun).await;
    let errors = answers.iter().filter_map(|answer| answer.as_ref().err());
    Ok(errors.filter(|error| error.is::<Overloaded>()).count())
}

// === Retry ===

/// Tries a request again, a little later, after a 503.
#[derive(Clone)]
struct WhenBusy {
    tries_left: u32,
}

impl<B> Policy<Request<Full<Bytes>>, Response<B>, BoxError> for WhenBusy {
    type Future = Sleep;

    fn retry(
        &mut self,
        _: &mut Request<Full<Bytes>>,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Sleep> {
        // An error of the Salesforce layer is final, and so is a 401: the layer has retried what it can.
        let status = result.as_ref().ok()?.status();
        if status != StatusCode::SERVICE_UNAVAILABLE || self.tries_left == 0 {
            return None;
        }
        self.tries_left -= 1;
        Some(sleep(Duration::from_millis(50)))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        // The clone keeps the extensions, which may name the session of the request.
        Some(request.clone())
    }
}

// === Counters ===

#[derive(Clone, Default)]
struct Seen {
    tries: Arc<AtomicUsize>,
    let_in: Arc<AtomicUsize>,
    hops: Arc<AtomicUsize>,
    on_the_wire: Arc<AtomicUsize>,
    marked: Arc<AtomicUsize>,
    compressed: Arc<AtomicUsize>,
    answers: Arc<Mutex<BTreeMap<u16, usize>>>,
}

impl Seen {
    /// Counts the requests whose secrets a trace hides.
    fn requests<B>(&self) -> impl FnMut(&Request<B>, &Span) + Clone + use<B> {
        let marked = self.marked.clone();
        move |request, _| {
            let is_marked = |name| {
                request
                    .headers()
                    .get(name)
                    .is_some_and(HeaderValue::is_sensitive)
            };
            if is_marked(COOKIE) && is_marked(AUTHORIZATION) {
                marked.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts the answers by the status that a trace sees.
    fn responses<B>(&self) -> impl FnOnce(&Response<B>, Duration, &Span) + Clone + use<B> {
        let seen = self.clone();
        move |response, _, _| {
            let mut answers = seen.answers.lock().unwrap_or_else(PoisonError::into_inner);
            *answers.entry(response.status().as_u16()).or_default() += 1;
            if response.headers().contains_key(CONTENT_ENCODING) {
                seen.compressed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn print(&self) {
        for (layer, counter, what) in [
            ("retry", &self.tries, "tries, those after a 503 among them"),
            ("concurrency_limit", &self.let_in, "let in"),
            ("follow_redirect", &self.hops, "hops"),
            (
                "rate_limit",
                &self.on_the_wire,
                "on the wire, replays among them",
            ),
            (
                "sensitive_headers",
                &self.marked,
                "with their cookie and their token marked",
            ),
            ("decompression", &self.compressed, "answers decompressed"),
        ] {
            let count = counter.load(Ordering::Relaxed);
            println!("  {layer:<17}  {count:>4}  {what}");
        }
        for (status, count) in &*self.answers.lock().unwrap_or_else(PoisonError::into_inner) {
            println!("  trace              {count:>4}  answers with {status}");
        }
    }
}

/// Counts the requests that pass.
fn count<R>(counter: &Arc<AtomicUsize>) -> impl Fn(R) -> R + Clone + use<R> {
    let counter = counter.clone();
    move |request| {
        counter.fetch_add(1, Ordering::Relaxed);
        request
    }
}

// === The front ===

type Wrapped = ReplayBody<Full<Bytes>>;

fn moved_to(path: &str) -> Option<&'static str> {
    match path {
        "/moved" => Some(LIMITS),
        "/moved-accounts" => Some("/services/data/v66.0/sobjects/Account"),
        _ => None,
    }
}

/// A front before the org: it redirects two resources, and is busy for some requests.
async fn front(
    client: Client<HttpConnector, Wrapped>,
    busy: Arc<AtomicUsize>,
    request: Request<Wrapped>,
) -> Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError> {
    let is_busy = busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    });
    let answer = Response::builder();
    let answer = if is_busy.is_ok() {
        answer.status(StatusCode::SERVICE_UNAVAILABLE)
    } else if let Some(place) = moved_to(request.uri().path()) {
        answer
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header(LOCATION, place)
    } else {
        let response = client.request(request).await?;
        return Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()));
    };
    Ok(answer.body(Full::default().map_err(BoxError::from).boxed_unsync())?)
}
