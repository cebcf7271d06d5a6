//! What a layer adds to a request over loopback, in instructions of the client.
//!
//! ```sh
//! cargo bench -p benches --bench end_to_end_instructions
//! ```
//!
//! Beside its own work, a layer makes requests and futures larger, which the client then moves more slowly. The bench runs
//! itself under valgrind's callgrind as a client that sends one request after another, to a server in another process. A
//! number is the difference of [`FEW`] and [`MANY`] requests, so that connecting is no part of it. It repeats to a few
//! hundredths of a percent over HTTP/1.1, and to a percent over HTTP/2, where frames may share a write. Contenders are those
//! of `end_to_end`; each adds its number less that of `header_by_hand`, which sends the token too.
//!
//! The bench reports missed goals, and fails where a request over HTTP/1.1 takes far more instructions. Without valgrind it
//! says so, and counts nothing.
#![allow(missing_docs)]

use std::env;

use bytes::Bytes;
use contenders::token;
use figures::Table;
use http::{Method, StatusCode};
use http_body_util::Full;
use loopback::{HttpClient, Loopback, Protocol, current_thread, send};
use server_process::ServerProcess;
use tower::{Layer, service_fn};
use tower_http::auth::AddAuthorizationLayer;
use traffic::{Sent, accept, layer};

mod callgrind;
mod contenders;
mod figures;
mod loopback;
mod server_process;
mod traffic;

/// The requests of the two runs.
const FEW: i64 = 100;
const MANY: i64 = 1_100;

const CONTENDERS: [&str; 4] = ["header_by_hand", "fixed_header", "inject_only", "default"];

const METHODS: [Method; 2] = [Method::GET, Method::POST];

/// Goals for GET and POST by protocol: what `inject_only` and `default` may add. `None` if there is no goal.
const GOALS: [[(Option<i64>, i64); 2]; 2] = [
    [(Some(800), 2_300), (None, 2_500)],
    [(Some(650), 2_300), (None, 2_000)],
];

/// What a contender may add beyond its goal, before the bench fails: other compilers and allocators.
const MARGIN: i64 = 200;

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match *arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        [server_process::SERVE] => serve(),
        ["--send", contender, protocol, method, origin, requests] => {
            let protocol = Protocol::ALL[protocol.parse::<usize>().expect("a number")];
            let method = method.parse().expect("a method");
            let requests = requests.parse().expect("a number");
            run(
                contender,
                protocol,
                &Sent::to(origin, &method),
                origin,
                requests,
            );
        }
        _ if figures::is_wanted() && callgrind::is_there() => count_all(),
        _ => {}
    }
}

fn count_all() {
    let server = ServerProcess::start();
    let columns = ["request", "protocol"].into_iter().chain(CONTENDERS);
    let mut table = Table::new(&columns.collect::<Vec<_>>());
    let mut missed = Vec::new();
    for (protocol, goals) in GOALS.into_iter().enumerate() {
        for (method, (inject_goal, default_goal)) in METHODS.iter().zip(goals) {
            let count = |contender| count(&server.origin, contender, protocol, method);
            let [by_hand, others @ ..] = CONTENDERS.map(count);
            let [fixed_header, inject_only, default] = others.map(|other| other - by_hand);
            let request = traffic::name(method);
            let name = Protocol::ALL[protocol].name();
            table.row([
                request.clone(),
                name.to_string(),
                by_hand.to_string(),
                format!("{fixed_header:+}"),
                format!("{inject_only:+}"),
                format!("{default:+}"),
            ]);
            for (contender, adds, goal) in [
                ("inject_only", inject_only, inject_goal),
                ("default", default, Some(default_goal)),
            ] {
                let Some(goal) = goal.filter(|goal| adds > *goal) else {
                    continue;
                };
                let too_many =
                    format!("{request}, {name}: {contender} adds {adds}, and {goal} is the goal");
                // Over HTTP/2 the client itself moves by some hundreds: frames arrive one by one, or together.
                let repeats = protocol == 0;
                assert!(!repeats || adds <= goal + MARGIN, "{too_many}");
                missed.push(too_many);
            }
        }
    }
    table.keep("end_to_end_instructions");
    for missed in &missed {
        println!("{missed}");
    }
}

/// The client's instructions for one request.
fn count(origin: &str, contender: &str, protocol: usize, method: &Method) -> i64 {
    let [few, many] = [FEW, MANY].map(|requests| {
        let (protocol, requests) = (protocol.to_string(), requests.to_string());
        let arguments = [
            "--send",
            contender,
            &protocol,
            method.as_str(),
            origin,
            &requests,
        ];
        callgrind::count(None, &arguments)
    });
    (many - few) / (MANY - FEW)
}

// === Client ===

/// Sends this many requests, one after the other.
fn run(contender: &str, protocol: Protocol, sent: &Sent, origin: &str, requests: usize) {
    match contender {
        "header_by_hand" => send_all(
            Loopback::client(protocol),
            &sent.clone().authorized(),
            requests,
        ),
        "fixed_header" => {
            let bearer = AddAuthorizationLayer::bearer(&token());
            send_all(bearer.layer(Loopback::client(protocol)), sent, requests);
        }
        "inject_only" => {
            let layer = layer(origin).max_refreshes(0);
            send_all(layer.layer(Loopback::client(protocol)), sent, requests);
        }
        _ => send_all(
            layer(origin).layer(Loopback::client(protocol)),
            sent,
            requests,
        ),
    }
}

fn send_all<C: HttpClient<Full<Bytes>>>(mut client: C, sent: &Sent, requests: usize) {
    current_thread().block_on(async {
        for _ in 0..requests {
            let answer = send(&mut client, sent.request()).await;
            assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
        }
    });
}

// === Server ===

fn serve() {
    let server = Loopback::serve(service_fn(accept));
    server_process::serve_until_input_ends(&server.origin());
}
