//! What a proof costs: a request with a session that is bound to a key, beside one with a bearer token.
//!
//! ```sh
//! cargo bench -p benches --bench dpop
//! ```
//!
//! Each request goes through the layer to a service that answers at once, so that nothing but the layer is measured. A proof is one
//! signature with ES256, made on the thread that sends. The last row of the table is a storm: 1,000 replays, one after the other on
//! one thread.
#![allow(missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    thread,
    time::{Duration, Instant},
};

use contenders::{Accepting, Headers, INSTANCE, call, in_memory, request};
use figures::Table;
use tower::Layer;
use tower_salesforce_auth::{SalesforceAuthLayer, Session, oauth::DpopKey};

mod contenders;
mod figures;

/// How long each number of threads sends.
const TIME: Duration = Duration::from_millis(500);

/// Requests between two looks at the clock.
const BATCH: u32 = 64;

/// How often all is measured. The median counts.
const ROUNDS: usize = 7;

/// Requests that a storm replays.
const STORM: f64 = 1_000.0;

fn main() {
    if !figures::is_wanted() {
        return;
    }
    let key = DpopKey::generate().expect("random numbers");
    let session = Session::new(contenders::token(), INSTANCE).expect("a session");
    let bearer = SalesforceAuthLayer::fixed(session.clone());
    let bound = SalesforceAuthLayer::fixed(session.with_dpop_key(key));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut table = Table::new(&[
        "threads",
        "bearer, per second",
        "bound, per second",
        "a proof adds",
    ]);
    let mut alone = 0.0;
    for threads in [1, cores] {
        let [bearer, bound] = [&bearer, &bound].map(|layer| rate(layer, threads));
        #[expect(clippy::cast_precision_loss, reason = "few threads")]
        let adds = threads as f64 * (1.0 / bound - 1.0 / bearer);
        if threads == 1 {
            alone = adds;
        }
        table.row([
            threads.to_string(),
            format!("{bearer:.0}"),
            format!("{bound:.0}"),
            micros(adds),
        ]);
    }
    table.row([
        "1, a storm of 1,000".to_owned(),
        String::new(),
        String::new(),
        format!("{:.1} ms", STORM * alone * 1e3),
    ]);
    table.keep("dpop");
}

/// The requests in a second that some threads send through a layer, by the median of some rounds.
fn rate(layer: &SalesforceAuthLayer, threads: usize) -> f64 {
    let mut rates: Vec<f64> = (0..ROUNDS).map(|_| rate_once(layer, threads)).collect();
    rates.sort_by(f64::total_cmp);
    rates[ROUNDS / 2]
}

fn rate_once(layer: &SalesforceAuthLayer, threads: usize) -> f64 {
    thread::scope(|scope| {
        let sending = || {
            scope.spawn(|| {
                let mut service = layer.layer(Accepting);
                let (since, mut sent) = (Instant::now(), 0);
                while since.elapsed() < TIME {
                    for _ in 0..BATCH {
                        call(&mut service, request(Headers(8), in_memory(256)));
                    }
                    sent += BATCH;
                }
                f64::from(sent) / since.elapsed().as_secs_f64()
            })
        };
        let sending: Vec<_> = (0..threads).map(|_| sending()).collect();
        sending
            .into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .sum()
    })
}

fn micros(seconds: f64) -> String {
    format!("{:.1} µs", seconds * 1e6)
}
