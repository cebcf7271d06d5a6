//! How many requests per second a client sends over loopback, with a session.
//!
//! ```sh
//! cargo bench -p benches --bench end_to_end
//! ```
//!
//! There is no TLS, and the server answers at once, so the layer's share of the time is as large as it can be. Contenders:
//!
//! - `header_by_hand`: hyper-util's client alone, with the token in each request already.
//! - `fixed_header`: the client under `tower_http`'s bearer header, which cannot be refreshed.
//! - `inject_only` and `default`: the client under this layer, with replay off and on.
//!
//! The contenders take turns in many short rounds. Compare by `of by hand` only: the median of the rounds' ratios, with
//! their quartiles. The differences are small beside those of the machine: `end_to_end_instructions` counts them.
#![allow(missing_docs)]

use std::env;

use bytes::Bytes;
use contenders::token;
use figures::{Table, median, quartiles};
use futures_util::future::BoxFuture;
use http::{Method, StatusCode};
use http_body_util::Full;
use loopback::{HttpClient, Loopback, Protocol, current_thread, send};
use tokio::{task::JoinSet, time::Instant};
use tower::{Layer, service_fn};
use tower_http::auth::AddAuthorizationLayer;
use traffic::{Sent, accept, layer};

mod contenders;
mod figures;
mod loopback;
mod traffic;

const ROUNDS: usize = 100;

/// Requests that each contender sends in each round.
const REQUESTS: usize = 2_000;

/// Callers that share them, each sending one at a time: over one HTTP/1.1 connection each, or over one HTTP/2 connection.
const HTTP1_CALLERS: usize = 8;
const HTTP2_CALLERS: usize = 64;

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
        "of by hand",
        "quartiles",
    ]);
    for (protocol, callers) in [
        (Protocol::Http1, HTTP1_CALLERS),
        (Protocol::Http2, HTTP2_CALLERS),
    ] {
        for method in [Method::GET, Method::POST] {
            compare(&method, protocol, callers, rounds, &mut table);
        }
    }
    table.keep("end_to_end");
}

/// Compares the contenders by requests of one kind, over one protocol.
fn compare(method: &Method, protocol: Protocol, callers: usize, rounds: usize, table: &mut Table) {
    let server = Loopback::serve(service_fn(accept));
    let sent = Sent::to(&server.origin(), method);
    let by_hand = sent.clone().authorized();
    let bearer = AddAuthorizationLayer::bearer(&token());
    let layer = layer(&server.origin());
    let inject_only = layer.clone().max_refreshes(0);
    let contenders = [
        (
            "header_by_hand",
            load(Loopback::client(protocol), &by_hand, callers),
        ),
        (
            "fixed_header",
            load(bearer.layer(Loopback::client(protocol)), &sent, callers),
        ),
        (
            "inject_only",
            load(
                inject_only.layer(Loopback::client(protocol)),
                &sent,
                callers,
            ),
        ),
        (
            "default",
            load(layer.layer(Loopback::client(protocol)), &sent, callers),
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
    for ((name, _), one) in contenders.iter().zip(&per_second) {
        let of_by_hand: Vec<_> = one
            .iter()
            .zip(&per_second[0])
            .map(|(one, by_hand)| one / by_hand)
            .collect();
        let [first, middle, third] = quartiles(of_by_hand);
        table.row([
            traffic::name(method),
            protocol.name().to_string(),
            (*name).to_string(),
            format!("{:.0}", median(one.clone())),
            format!("{middle:.3}"),
            format!("{first:.3}..{third:.3}"),
        ]);
    }
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
