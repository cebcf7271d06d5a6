//! Many callers meet an expired session at the same moment: how many refreshes that costs, and how long it takes.
//!
//! ```sh
//! cargo bench -p benches --bench refresh_storm
//! ```
//!
//! The server holds every rejection until all callers' requests have arrived. Its token endpoint takes 50 ms, and rotates the
//! refresh token: one that was used before is refused, as Salesforce does. The server runs in the client's own runtime, or
//! on another thread behind one HTTP/2 connection on loopback. Contenders:
//!
//! - `bare`: the client alone with a live token. Each caller sends two requests, as many as with a rejection: the floor.
//! - `hand_written`: after a 401 a caller locks a mutex, refreshes unless another caller has done so, and sends again. As lean
//!   as that can be: a caller keeps a clone of its request and the header it sent, and compares that with the newest.
//! - `layer`: this layer.
//! - `naive_mutex`: as `hand_written`, but each caller refreshes, one after the other. The bench stops it after 6 s.
//! - `per_caller`: each caller refreshes by itself, all at once.
//!
//! Compare within one run only. Contenders take turns in every round. A ratio is the median of the rounds' ratios. For
//! refreshes and failures the table shows the worst round. `µs per caller` leaves the 50 ms of the token call out: where the
//! value stays the same, the time is linear. (tokio's clock rounds up, so that a call takes a millisecond more.) `per_caller`
//! has one success, and its time is that of this one. The bench panics if the layer refreshes twice or fails a caller, and
//! reports where the layer takes longer than the goal allows. A number after `--` limits the callers.
#![allow(missing_docs)]

use std::{
    env,
    future::Future,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use contenders::{Headers, INSTANCE};
use figures::Table;
use futures_util::future::BoxFuture;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use loopback::{HttpClient, Loopback, Protocol, current_thread, send};
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, sleep, timeout_at},
};
use tower::{BoxError, Layer, Service};
use tower_salesforce_auth::{
    RefreshContext, RefreshError, SalesforceAuthLayer, Session, SessionHandle, request::SkipAuth,
};

mod contenders;
mod figures;
mod loopback;

/// Callers that meet the expired session, and the rounds.
const STORMS: [(usize, usize); 5] = [(1, 11), (100, 11), (1_000, 11), (10_000, 21), (100_000, 5)];

/// The time of the layer over that of `hand_written`, at most.
const GOAL: f64 = 1.05;

/// How long a call of the token endpoint takes.
const TOKEN_CALL: Duration = Duration::from_millis(50);

/// Callers that are not done after this time have failed.
const LIMIT: Duration = Duration::from_secs(60);

/// The time limit of `naive_mutex`. Every round takes that long, so there is only one.
const NAIVE_LIMIT: Duration = Duration::from_secs(6);

/// Beyond this, nearly all callers of `naive_mutex` fail.
const NAIVE_CALLERS: usize = 1_000;

/// From here on, `per_caller` has only one round.
const MANY_TOKEN_CALLS: usize = 10_000;

const EXPIRED_TOKEN: &str = "00Dxx0000001gEF!AQEAQ.expired";
const FIRST_REFRESH_TOKEN: &str = "5Aep861.0";
const TOKEN_PATH: &str = "/services/oauth2/token";
const WARM_UP_PATH: &str = "/services/data/";

fn main() {
    if !figures::is_wanted() {
        return;
    }
    let most = env::args().skip(1).find_map(|most| most.parse().ok());
    let mut table = Table::new(&[
        "transport",
        "callers",
        "contender",
        "refreshes",
        "failures",
        "ms to the last success",
        "over bare",
        "over hand-written",
        "µs per caller",
    ]);
    let most = most.unwrap_or(usize::MAX);
    let mut missed = storms::<InProcess>(most, &mut table);
    missed.extend(storms::<OverHttp2>(most, &mut table));
    table.keep("refresh_storm");
    for missed in &missed {
        println!("{missed}");
    }
}

// === Rounds ===

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Bare,
    HandWritten,
    Layer,
    NaiveMutex,
    PerCaller,
}

impl Contender {
    const ALL: [Self; 5] = [
        Self::Bare,
        Self::HandWritten,
        Self::Layer,
        Self::NaiveMutex,
        Self::PerCaller,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::HandWritten => "hand_written",
            Self::Layer => "layer",
            Self::NaiveMutex => "naive_mutex",
            Self::PerCaller => "per_caller",
        }
    }

    /// The rounds that the contender takes part in.
    fn rounds(self, rounds: usize, callers: usize) -> usize {
        match self {
            Self::NaiveMutex if callers > NAIVE_CALLERS => 0,
            Self::NaiveMutex if callers > 1 => 1,
            Self::PerCaller if callers >= MANY_TOKEN_CALLS => 1,
            _ => rounds,
        }
    }
}

/// The result of one storm.
#[derive(Clone, Copy)]
struct Storm {
    refreshes: usize,
    failures: usize,
    /// The time until the last success. `None` if there was no success.
    took: Option<Duration>,
}

impl Storm {
    fn ms(&self) -> f64 {
        self.took.map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    }
}

/// All storms over one transport, and the goals that were missed in them.
fn storms<T: Transport>(most: usize, table: &mut Table) -> Vec<String> {
    let mut missed = Vec::new();
    for (callers, rounds) in STORMS.into_iter().filter(|(callers, _)| *callers <= most) {
        // By contender, and then by round.
        let mut came_of = [const { Vec::new() }; Contender::ALL.len()];
        for round in 0..rounds {
            for turn in 0..Contender::ALL.len() {
                let which = (round + turn) % Contender::ALL.len();
                let contender = Contender::ALL[which];
                if round < contender.rounds(rounds, callers) {
                    came_of[which].push(storm::<T>(contender, callers));
                }
            }
        }
        for (contender, storms) in Contender::ALL.into_iter().zip(&came_of) {
            let over = |floor: Contender| {
                let floor = &came_of[floor as usize];
                median(storms.iter().zip(floor).map(|(one, of)| one.ms() / of.ms()))
            };
            let over_hand_written = over(Contender::HandWritten);
            if contender == Contender::Layer && over_hand_written > GOAL {
                missed.push(format!(
                    "{callers} callers, {}: {over_hand_written:.3} × by hand, and {GOAL} is the goal",
                    T::NAME
                ));
            }
            let worst = |what: fn(&Storm) -> usize| {
                let worst = storms.iter().map(what).max();
                worst.map_or("–".to_string(), |worst| worst.to_string())
            };
            let ms = median(storms.iter().map(Storm::ms));
            table.row([
                T::NAME.to_string(),
                callers.to_string(),
                contender.name().to_string(),
                worst(|storm| storm.refreshes),
                worst(|storm| storm.failures),
                cell(ms, 2),
                cell(over(Contender::Bare), 3),
                cell(over_hand_written, 3),
                cell(per_caller(contender, ms, callers), 2),
            ]);
        }
    }
    missed
}

/// The microseconds of a caller, less the one token call that all wait for. NaN where callers wait for none.
#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn per_caller(contender: Contender, ms: f64, callers: usize) -> f64 {
    let token_call = match contender {
        Contender::Bare => 0.0,
        Contender::HandWritten | Contender::Layer => TOKEN_CALL.as_secs_f64() * 1e3,
        Contender::NaiveMutex | Contender::PerCaller => f64::NAN,
    };
    (ms - token_call) * 1e3 / callers as f64
}

/// The median; NaN if there are no figures.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let figures: Vec<_> = figures.collect();
    if figures.is_empty() {
        f64::NAN
    } else {
        figures::median(figures)
    }
}

fn cell(figure: f64, decimals: usize) -> String {
    if figure.is_nan() {
        "–".to_string()
    } else {
        format!("{figure:.decimals$}")
    }
}

// === One storm ===

/// Runs one storm with a new client and org, whose connections are open before it begins.
fn storm<T: Transport>(contender: Contender, callers: usize) -> Storm {
    let org = Org::new(callers);
    let transport = T::to(org.clone());
    let storm = current_thread().block_on(async {
        let origin = transport.origin();
        let request = || {
            let mut request = contenders::request(Headers(8), Full::default());
            *request.method_mut() = Method::GET;
            let path = request.uri().path();
            *request.uri_mut() = format!("{origin}{path}").parse().expect("a URI");
            request
        };
        let token_client = TokenClient {
            client: transport.client::<Full<Bytes>>(),
            endpoint: format!("{origin}{TOKEN_PATH}").parse().expect("a URI"),
        };
        let warm_up = format!("{origin}{WARM_UP_PATH}");
        warm(token_client.client.clone(), &warm_up).await;
        if contender == Contender::Layer {
            let client = layer(token_client, &origin).layer(transport.client());
            warm(client.clone(), &warm_up).await;
            return meet(LIMIT, callers, || {
                let (mut client, request) = (client.clone(), request());
                async move { is_served(send(&mut client, request).await) }
            })
            .await;
        }
        let client = transport.client();
        warm(client.clone(), &warm_up).await;
        if contender == Contender::Bare {
            return meet(LIMIT, callers, || {
                let (client, request) = (client.clone(), request());
                async move { twice(client, request).await }
            })
            .await;
        }
        let (limit, by_hand) = match contender {
            Contender::NaiveMutex => (NAIVE_LIMIT, ByHand::InTurn),
            Contender::PerCaller => (LIMIT, ByHand::EachByItself),
            _ => (LIMIT, ByHand::Once),
        };
        let shared = Arc::new((token_client, Mutex::new(Tokens::first())));
        meet(limit, callers, || {
            let (client, request) = (client.clone(), request());
            let shared = Arc::clone(&shared);
            async move {
                let (token_client, tokens) = &*shared;
                let answer = refreshing(by_hand, client, token_client, tokens, request).await;
                is_served(answer)
            }
        })
        .await
    });
    let storm = Storm {
        refreshes: org.state.token_calls.load(Ordering::Relaxed),
        ..storm
    };
    if contender == Contender::Layer {
        assert_eq!(storm.refreshes, 1, "of {callers} callers over {}", T::NAME);
        assert_eq!(storm.failures, 0, "of {callers} callers over {}", T::NAME);
    }
    storm
}

/// Starts all callers at once, each in its own task, and waits for them. Their requests are made before.
async fn meet<F>(limit: Duration, callers: usize, caller: impl FnMut() -> F) -> Storm
where
    F: Future<Output = bool> + Send + 'static,
{
    let ready: Vec<_> = std::iter::repeat_with(caller).take(callers).collect();
    let start = Instant::now();
    let tasks: Vec<_> = ready
        .into_iter()
        .map(|caller| tokio::spawn(async move { caller.await.then(Instant::now) }))
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        if let Ok(Ok(Some(at))) = timeout_at(start + limit, task).await {
            done.push(at - start);
        }
    }
    Storm {
        refreshes: 0,
        failures: callers - done.len(),
        took: done.into_iter().max(),
    }
}

// === Callers ===

async fn twice<C: HttpClient<Full<Bytes>>>(
    mut client: C,
    mut request: Request<Full<Bytes>>,
) -> bool {
    let live = bearer(&live_token(1));
    request.headers_mut().insert(AUTHORIZATION, live);
    let first = send(&mut client, request.clone()).await;
    is_served(first) && is_served(send(&mut client, request).await)
}

/// How a caller refreshes a session by hand.
#[derive(Clone, Copy)]
enum ByHand {
    /// One caller refreshes for all.
    Once,
    /// Each caller refreshes, one after the other.
    InTurn,
    /// Each caller refreshes, all at once.
    EachByItself,
}

async fn refreshing<C, T>(
    by_hand: ByHand,
    mut client: C,
    token_client: &TokenClient<T>,
    tokens: &Mutex<Tokens>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, BoxError>
where
    C: HttpClient<Full<Bytes>>,
    T: HttpClient<Full<Bytes>>,
{
    let used = tokens.lock().await.authorization.clone();
    let mut attempt = request.clone();
    attempt.headers_mut().insert(AUTHORIZATION, used.clone());
    let answer = send(&mut client, attempt).await?;
    if answer.status() != StatusCode::UNAUTHORIZED {
        return Ok(answer);
    }
    let authorization = match by_hand {
        ByHand::EachByItself => {
            let refresh_token = Arc::clone(&tokens.lock().await.refresh_token);
            token_client.refresh(&refresh_token).await?.authorization
        }
        ByHand::Once | ByHand::InTurn => {
            let mut current = tokens.lock().await;
            if current.authorization == used || matches!(by_hand, ByHand::InTurn) {
                *current = token_client.refresh(&current.refresh_token).await?;
            }
            current.authorization.clone()
        }
    };
    let mut again = request;
    again.headers_mut().insert(AUTHORIZATION, authorization);
    send(&mut client, again).await
}

fn layer(
    token_client: TokenClient<impl HttpClient<Full<Bytes>>>,
    origin: &str,
) -> SalesforceAuthLayer {
    let instance = origin.to_string();
    let expired = Session::new(EXPIRED_TOKEN, origin).expect("a valid session");
    SessionHandle::builder(move |context: RefreshContext| {
        let (token_client, instance) = (token_client.clone(), instance.clone());
        async move {
            let refresh_token = context.refresh_token().expect("a refresh token");
            let tokens = token_client
                .refresh(refresh_token.expose())
                .await
                .map_err(RefreshError::terminal)?;
            let session = Session::new(&*tokens.access_token, &instance);
            let session = session.map_err(RefreshError::terminal)?;
            Ok(session.with_refresh_token(&*tokens.refresh_token))
        }
    })
    .initial_session(expired.with_refresh_token(FIRST_REFRESH_TOKEN))
    .build()
    .into()
}

/// The state of callers that refresh by hand.
struct Tokens {
    access_token: Arc<str>,
    authorization: HeaderValue,
    refresh_token: Arc<str>,
}

impl Tokens {
    fn first() -> Self {
        Self::new(EXPIRED_TOKEN, FIRST_REFRESH_TOKEN)
    }

    fn new(access_token: &str, refresh_token: &str) -> Self {
        Self {
            access_token: access_token.into(),
            authorization: bearer(access_token),
            refresh_token: refresh_token.into(),
        }
    }
}

fn bearer(token: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("Bearer {token}")).expect("a token")
}

#[derive(Clone)]
struct TokenClient<C> {
    client: C,
    endpoint: Uri,
}

impl<C: HttpClient<Full<Bytes>>> TokenClient<C> {
    async fn refresh(&self, refresh_token: &str) -> Result<Tokens, BoxError> {
        let form = format!("grant_type=refresh_token&refresh_token={refresh_token}");
        let request = Request::post(self.endpoint.clone()).body(Full::from(form))?;
        let answer = send(&mut self.client.clone(), request).await?;
        if answer.status() != StatusCode::OK {
            return Err("the refresh token was refused".into());
        }
        let answer: serde_json::Value = serde_json::from_slice(answer.body())?;
        let token = |name: &str| answer[name].as_str().ok_or("no token");
        Ok(Tokens::new(token("access_token")?, token("refresh_token")?))
    }
}

fn is_served(answer: Result<Response<Bytes>, BoxError>) -> bool {
    answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
}

/// Opens the connection.
async fn warm<C: HttpClient<Full<Bytes>>>(mut client: C, uri: &str) {
    let request = Request::get(uri).extension(SkipAuth).body(Full::default());
    send(&mut client, request.expect("a request"))
        .await
        .expect("an answer");
}

// === Transports ===

/// How callers reach the org.
trait Transport {
    const NAME: &str;

    fn to(org: Org) -> Self;

    fn origin(&self) -> String;

    /// A client with its own connections.
    fn client<B>(&self) -> impl HttpClient<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;
}

struct InProcess(Org);

impl Transport for InProcess {
    const NAME: &str = "in-process";

    fn to(org: Org) -> Self {
        Self(org)
    }

    fn origin(&self) -> String {
        INSTANCE.to_string()
    }

    fn client<B>(&self) -> impl HttpClient<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        self.0.clone()
    }
}

struct OverHttp2(Loopback);

impl Transport for OverHttp2 {
    const NAME: &str = "HTTP/2";

    fn to(org: Org) -> Self {
        Self(Loopback::serve(org))
    }

    fn origin(&self) -> String {
        self.0.origin()
    }

    fn client<B>(&self) -> impl HttpClient<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        Loopback::client(Protocol::Http2)
    }
}

// === The org ===

/// An org with one expired session.
#[derive(Clone)]
struct Org {
    state: Arc<OrgState>,
}

struct OrgState {
    callers: usize,
    arrived: AtomicUsize,
    /// Closed when the first request of each caller has arrived. It never has a permit.
    all_arrived: Semaphore,
    token_calls: AtomicUsize,
    /// The number of refresh tokens issued after the first. Only the last one works.
    rotations: StdMutex<usize>,
}

impl Org {
    fn new(callers: usize) -> Self {
        Self {
            state: Arc::new(OrgState {
                callers,
                arrived: AtomicUsize::new(0),
                all_arrived: Semaphore::new(0),
                token_calls: AtomicUsize::new(0),
                rotations: StdMutex::new(0),
            }),
        }
    }
}

impl<B> Service<Request<B>> for Org
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            match request.uri().path() {
                WARM_UP_PATH => Ok(answer(StatusCode::OK, "[]")),
                TOKEN_PATH => {
                    let form = request.into_body().collect().await.map_err(Into::into)?;
                    Ok(state.exchange(&form.to_bytes()).await)
                }
                _ => Ok(state.serve(request.headers().get(AUTHORIZATION)).await),
            }
        })
    }
}

impl OrgState {
    async fn serve(&self, authorization: Option<&HeaderValue>) -> Response<Full<Bytes>> {
        if self.arrived.fetch_add(1, Ordering::Relaxed) + 1 == self.callers {
            self.all_arrived.close();
        }
        // The gate never has a permit: this returns when the gate is closed.
        let _ = self.all_arrived.acquire().await;
        if authorization.is_some_and(is_live) {
            answer(StatusCode::OK, r#"{"Id":"001xx000003DGb2AAG"}"#)
        } else {
            answer(
                StatusCode::UNAUTHORIZED,
                r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#,
            )
        }
    }

    async fn exchange(&self, form: &[u8]) -> Response<Full<Bytes>> {
        self.token_calls.fetch_add(1, Ordering::Relaxed);
        let issued = self.rotate(form);
        sleep(TOKEN_CALL).await;
        match issued {
            Some(number) => {
                let access_token = live_token(number);
                let refresh_token = refresh_token(number);
                answer(
                    StatusCode::OK,
                    format!(
                        r#"{{"access_token":"{access_token}","refresh_token":"{refresh_token}"}}"#
                    ),
                )
            }
            None => answer(
                StatusCode::BAD_REQUEST,
                r#"{"error":"invalid_grant","error_description":"expired access/refresh token"}"#,
            ),
        }
    }

    /// The number of the new tokens, if the refresh token is the last one.
    fn rotate(&self, form: &[u8]) -> Option<usize> {
        let mut rotations = self
            .rotations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !form.ends_with(format!("={}", refresh_token(*rotations)).as_bytes()) {
            return None;
        }
        *rotations += 1;
        Some(*rotations)
    }
}

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn live_token(number: usize) -> String {
    format!("00Dxx0000001gEF!AQEAQ.live.{number}")
}

fn is_live(authorization: &HeaderValue) -> bool {
    authorization
        .as_bytes()
        .starts_with(b"Bearer 00Dxx0000001gEF!AQEAQ.live.")
}

fn refresh_token(number: usize) -> String {
    format!("5Aep861.{number}")
}
