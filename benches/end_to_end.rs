//! How many requests per second a client sends over loopback, alone and with a session.
//!
//! ```sh
//! cargo bench -p benches --bench end_to_end
//! ```
//!
//! There is no TLS, and the server answers at once, so the layer's share of the time is as large as it can be. Contenders:
//!
//! - `bare`: hyper-util's client alone. It sends no token, and so less than the others.
//! - `header_by_hand`: the same, and each request has the token in it already.
//! - `fixed_header`: the client under `tower_http`'s bearer header, which cannot be refreshed.
//! - `layer`: the client under this layer, as it is by default.
//!
//! The contenders take turns in many short rounds. Compare by `of bare` only: the median of the rounds' ratios, with
//! their quartiles.
#![allow(missing_docs)]

use std::env;

use bytes::Bytes;
use contenders::{Headers, in_memory, token};
use figures::{Table, median, quartiles};
use futures_util::future::BoxFuture;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use loopback::{HttpClient, Loopback, Protocol, current_thread, send};
use tokio::{task::JoinSet, time::Instant};
use tower::{Layer, service_fn};
use tower_http::auth::AddAuthorizationLayer;
use tower_salesforce_auth::{
    RefreshContext, RefreshError, SalesforceAuthLayer, Session, SessionHandle,
};

mod contenders;
mod figures;
mod loopback;

const ROUNDS: usize = 100;

/// Requests that each contender sends in each round.
const REQUESTS: usize = 2_000;

/// Callers that share them, each sending one at a time: over one HTTP/1.1 connection each, or over one HTTP/2 connection.
const HTTP1_CALLERS: usize = 8;
const HTTP2_CALLERS: usize = 64;

const BODY: usize = 256;

/// How much of the bare client's requests per second the layer should reach.
const GOAL: f64 = 0.98;

fn main() {
    if !figures::is_wanted() {
        return;
    }
    let rounds = env::args().skip(1).find_map(|rounds| rounds.parse().ok());
    let rounds = rounds.unwrap_or(ROUNDS);
    let mut table = Table::new(&[
        "request",
        "protocol",
        "contender",
        "requests per second",
        "of bare",
        "quartiles",
    ]);
    let mut missed = Vec::new();
    for (protocol, callers) in [
        (Protocol::Http1, HTTP1_CALLERS),
        (Protocol::Http2, HTTP2_CALLERS),
    ] {
        for method in [Method::GET, Method::POST] {
            let reached = compare(&method, protocol, callers, rounds, &mut table);
            if reached < GOAL {
                missed.push(format!(
                    "{method}, {protocol:?}: {reached:.3} of bare, and {GOAL} is the goal"
                ));
            }
        }
    }
    table.keep("end_to_end");
    for missed in &missed {
        println!("{missed}");
    }
}

/// Compares the contenders by requests of one kind, over one protocol, and says how much of `bare` the layer reaches.
fn compare(
    method: &Method,
    protocol: Protocol,
    callers: usize,
    rounds: usize,
    table: &mut Table,
) -> f64 {
    let server = Loopback::serve(service_fn(accept));
    let sent = Sent::to(&server.origin(), method);
    let contenders = [
        ("bare", load(Loopback::client(protocol), &sent, callers)),
        (
            "header_by_hand",
            load(
                Loopback::client(protocol),
                &sent.clone().authorized(),
                callers,
            ),
        ),
        (
            "fixed_header",
            load(
                AddAuthorizationLayer::bearer(&token()).layer(Loopback::client(protocol)),
                &sent,
                callers,
            ),
        ),
        (
            "layer",
            load(
                layer(&server.origin()).layer(Loopback::client(protocol)),
                &sent,
                callers,
            ),
        ),
    ];
    // By contender, and then by round.
    let mut per_second = [const { Vec::new() }; 4];
    current_thread().block_on(async {
        for (_, load) in &contenders {
            // Opens the connections.
            load().await;
        }
        for round in 0..rounds {
            for turn in 0..contenders.len() {
                let which = (round + turn) % contenders.len();
                let (_, load) = &contenders[which];
                per_second[which].push(load().await);
            }
        }
    });
    let mut reached = f64::NAN;
    for ((name, _), one) in contenders.iter().zip(&per_second) {
        let of_bare: Vec<_> = one
            .iter()
            .zip(&per_second[0])
            .map(|(one, bare)| one / bare)
            .collect();
        // The layer is the last.
        let [first, middle, third] = quartiles(of_bare);
        reached = middle;
        table.row([
            match *method {
                Method::GET => "GET".to_string(),
                _ => format!("{method} {BODY} B"),
            },
            match protocol {
                Protocol::Http1 => "HTTP/1.1".to_string(),
                Protocol::Http2 => "HTTP/2".to_string(),
            },
            (*name).to_string(),
            format!("{:.0}", median(one.clone())),
            format!("{middle:.3}"),
            format!("{first:.3}..{third:.3}"),
        ]);
    }
    reached
}

/// Sends [`REQUESTS`], and returns the requests per second.
type Load = Box<dyn Fn() -> BoxFuture<'static, f64>>;

fn load<C: HttpClient<Full<Bytes>>>(client: C, sent: &Sent, callers: usize) -> Load {
    let sent = sent.clone();
    Box::new(move || {
        let (client, sent) = (client.clone(), sent.clone());
        Box::pin(async move {
            let start = Instant::now();
            let mut tasks = JoinSet::new();
            for _ in 0..callers {
                let (mut client, sent) = (client.clone(), sent.clone());
                tasks.spawn(async move {
                    for _ in 0..REQUESTS / callers {
                        let answer = send(&mut client, sent.request()).await;
                        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
                    }
                });
            }
            tasks.join_all().await;
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            let sent = (REQUESTS / callers * callers) as f64;
            sent / start.elapsed().as_secs_f64()
        })
    })
}

/// Makes a request of this kind.
#[derive(Clone)]
struct Sent {
    method: Method,
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl Sent {
    fn to(origin: &str, method: &Method) -> Self {
        let path = "/services/data/v66.0/sobjects/Account/001xx000003DGb2AAG";
        Self {
            method: method.clone(),
            uri: format!("{origin}{path}").parse().expect("a URI"),
            authorization: None,
        }
    }

    fn authorized(mut self) -> Self {
        let bearer = format!("Bearer {}", token());
        let mut authorization = HeaderValue::from_str(&bearer).expect("a token");
        authorization.set_sensitive(true);
        self.authorization = Some(authorization);
        self
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let body = match self.method {
            Method::GET => Full::default(),
            _ => in_memory(BODY),
        };
        let mut request = contenders::request(Headers(8), body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        if let Some(authorization) = &self.authorization {
            request
                .headers_mut()
                .insert(AUTHORIZATION, authorization.clone());
        }
        request
    }
}

fn layer(instance: &str) -> SalesforceAuthLayer {
    let session = Session::new(token(), instance).expect("a valid session");
    let refreshed = session.clone();
    SessionHandle::builder(move |_: RefreshContext| {
        // The server rejects nothing, so no refresh runs.
        std::future::ready(Ok::<_, RefreshError>(refreshed.clone()))
    })
    .initial_session(session)
    .build()
    .into()
}

async fn accept(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    request.into_body().collect().await?;
    let mut answer = Response::new(Full::from(r#"{"Id":"001xx000003DGb2AAG"}"#));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}
