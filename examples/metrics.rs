//! Counters: an observer that feeds the `metrics` crate.
//!
//! ```sh
//! cargo run --example metrics
//! ```
//!
//! The recorder here keeps the counters in memory and prints them. A program uses an exporter's recorder instead, for
//! example one for Prometheus, and the same observer.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    counter, histogram,
};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, RefreshError, SalesforceAuthLayer, SessionHandle,
    emulator::Org,
    flow::ClientCredentials,
    https::HttpsClient,
    oauth::App,
    observer::{
        Observer, RefreshDescription, RefreshFailed, RefreshStarted, RefreshSucceeded, Replayed,
    },
    request::AuthOutcome,
};

// === The observer ===

struct Metrics;

impl Observer for Metrics {
    fn refresh_started(&self, event: &RefreshStarted) {
        let reason = format!("{:?}", event.reason());
        counter!("salesforce_refreshes_started", "reason" => reason).increment(1);
    }

    fn refresh_succeeded(&self, event: &RefreshSucceeded) {
        let (grant, host) = labels(event.description());
        counter!("salesforce_refreshes_succeeded", "grant" => grant, "host" => host).increment(1);
        histogram!("salesforce_refresh_seconds").record(event.duration().as_secs_f64());
    }

    fn refresh_failed(&self, event: &RefreshFailed) {
        let (grant, host) = labels(event.description());
        let code = event.error().error_code().unwrap_or("none").to_owned();
        counter!("salesforce_refreshes_failed", "grant" => grant, "host" => host, "code" => code)
            .increment(1);
    }

    fn replayed(&self, _event: &Replayed) {
        counter!("salesforce_requests_replayed").increment(1);
    }

    fn replay_skipped(&self, outcome: &AuthOutcome) {
        let reason = outcome
            .replay_skipped()
            .map_or_else(String::new, |reason| format!("{reason:?}"));
        counter!("salesforce_replays_skipped", "reason" => reason).increment(1);
    }

    fn reauthentication_required(&self, _failure: &RefreshError) {
        counter!("salesforce_reauthentications_required").increment(1);
    }
}

fn labels(description: Option<&RefreshDescription>) -> (String, String) {
    match description {
        Some(description) => (
            description.grant().to_owned(),
            description.host().to_owned(),
        ),
        None => ("none".to_owned(), "none".to_owned()),
    }
}

// === The program ===

const CALLERS: usize = 20;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let printer = Printer::default();
    metrics::set_global_recorder(printer.clone())?;

    let org = Org::new();
    let served = org.serve().await?;
    let app =
        App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
    let login = ClientCredentials::new(HttpsClient::new()?, app);
    let handle = SessionHandle::builder(login).observer(Metrics).build();
    let client = SalesforceAuthLayer::from(handle).layer(HttpsClient::new()?);

    for round in [
        "There is no session yet",
        "The session has ended at the org",
    ] {
        println!("{round}, and {CALLERS} requests begin at once.");
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let client = client.clone();
            let request =
                Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
            callers.spawn(async move { client.oneshot(request).await.map(|it| it.status()) });
        }
        let mut good = 0;
        for status in callers.join_all().await {
            good += usize::from(status? == StatusCode::OK);
        }
        println!("  {good} of them had a good answer.");
        org.expire_sessions();
    }
    served.shutdown().await;
    println!("\nWhat the observer counted meanwhile:");
    printer.print();
    println!("\nEach refresh was one login for all {CALLERS} callers.");
    println!(
        "The requests that the org rejected with the ended session were sent again: `replayed`."
    );
    Ok(())
}

// === A recorder that prints ===

/// Counts events, and the values recorded in histograms.
#[derive(Clone, Default)]
struct Printer(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Printer {
    fn count(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}=\"{}\"", label.key(), label.value()))
            .collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(counts.entry(name).or_default())
    }

    fn print(&self) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, count) in &*counts {
            println!("  {name} {}", count.load(Ordering::Relaxed));
        }
    }
}

impl Recorder for Printer {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.count(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        struct Values(Arc<AtomicU64>);

        impl HistogramFn for Values {
            fn record(&self, _value: f64) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        Histogram::from_arc(Arc::new(Values(self.count(key))))
    }
}
