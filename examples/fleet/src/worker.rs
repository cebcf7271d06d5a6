//! A process that sends requests, and what it needs for that.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    task::JoinSet,
};
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, ReplayBody, SalesforceAuth, SalesforceAuthLayer, SessionHandle,
    flow::RefreshToken,
    oauth::App,
    observer::{Observer, RefreshReason, RefreshStarted, SessionAdopted},
};

use crate::shared_store::{KEY, Place};

pub(crate) const TASKS: usize = 8;

/// The line that a worker prints when a task had its first good answer with a session.
pub(crate) const NEW_SESSION: &str = "new session";

/// The task of a process, on a line of its standard input.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) login_url: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    /// The first refresh token. It is used only while the store is empty.
    pub(crate) refresh_token: String,
    pub(crate) place: Place,
    /// The prefix of the keys in a database.
    pub(crate) prefix: String,
}

/// The counts of a process, on the last line of its standard output.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) exchanges: u64,
    /// Sessions that others had refreshed.
    pub(crate) adoptions: u64,
    /// How many of them were adopted before a request was rejected.
    pub(crate) unrejected: u64,
    pub(crate) failures: u64,
}

#[derive(Default)]
pub(crate) struct Counts {
    requests: AtomicU64,
    exchanges: AtomicU64,
    adoptions: AtomicU64,
    unrejected: AtomicU64,
    failures: AtomicU64,
}

impl Counts {
    pub(crate) fn report(&self) -> Report {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Report {
            requests: count(&self.requests),
            exchanges: count(&self.exchanges),
            adoptions: count(&self.adoptions),
            unrejected: count(&self.unrejected),
            failures: count(&self.failures),
        }
    }
}

struct Counting(Arc<Counts>);

impl Observer for Counting {
    fn refresh_started(&self, _: &RefreshStarted) {
        self.0.exchanges.fetch_add(1, Ordering::Relaxed);
    }

    fn session_adopted(&self, event: &SessionAdopted) {
        self.0.adoptions.fetch_add(1, Ordering::Relaxed);
        let is_rejected = event.reason() == RefreshReason::Rejected;
        self.0
            .unrejected
            .fetch_add(u64::from(!is_rejected), Ordering::Relaxed);
    }
}

/// A client of the org whose session is that of all processes.
#[derive(Clone)]
pub(crate) struct Sender {
    client: SalesforceAuth<Client<HttpConnector, ReplayBody<Full<Bytes>>>>,
    pub(crate) handle: SessionHandle,
    pub(crate) counts: Arc<Counts>,
}

impl Sender {
    pub(crate) fn new(task: &Task) -> Result<Self, BoxError> {
        let app =
            App::new(task.login_url.parse()?, &*task.client_id).client_secret(&*task.client_secret);
        let http: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let counts = Arc::new(Counts::default());
        // Processes share a session by the same store and the same key.
        let handle = SessionHandle::builder(RefreshToken::new(http, app, &*task.refresh_token))
            .store(task.place.open(&task.prefix)?, KEY)
            .follow_store()
            .observer(Counting(Arc::clone(&counts)))
            .build();
        let http = Client::builder(TokioExecutor::new()).build_http();
        let client = SalesforceAuthLayer::from(handle.clone()).layer(http);
        Ok(Self {
            client,
            handle,
            counts,
        })
    }

    /// Sends a request. Returns whether it was answered with success.
    pub(crate) async fn send(&self) -> bool {
        let sent = self.try_send().await;
        if let Err(error) = &sent {
            eprintln!("{error}");
        }
        let is_good = sent.unwrap_or_default();
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        self.counts
            .failures
            .fetch_add(u64::from(!is_good), Ordering::Relaxed);
        is_good
    }

    async fn try_send(&self) -> Result<bool, BoxError> {
        let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
        let response = self.client.clone().oneshot(request).await?;
        let is_ok = response.status() == StatusCode::OK;
        response.into_body().collect().await?;
        Ok(is_ok)
    }
}

/// Sends requests until the supervisor closes standard input.
pub(crate) async fn work() -> Result<(), BoxError> {
    let mut supervisor = BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    supervisor.read_line(&mut line).await?;
    let sender = Sender::new(&serde_json::from_str(&line)?)?;
    let mut senders = JoinSet::new();
    for _ in 0..TASKS {
        let sender = sender.clone();
        senders.spawn(async move {
            let mut generation = None;
            loop {
                let used = sender.handle.try_session().map(|live| live.generation());
                if sender.send().await && used > generation {
                    generation = used;
                    println!("{NEW_SESSION}");
                }
            }
        });
    }
    // The supervisor closes standard input at the end.
    supervisor.read_to_end(&mut Vec::new()).await?;
    senders.shutdown().await;
    sender.handle.quiesce().await?;
    let report = serde_json::to_string(&sender.counts.report())?;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}
