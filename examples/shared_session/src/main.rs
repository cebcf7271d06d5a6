//! Several processes share one user's session, and one refresh token that works only once.
//!
//! ```sh
//! cargo run -p shared_session
//! cargo run -p shared_session -- 8
//! ```
//!
//! Each process (default: 4) sends requests as fast as it can, while the session expires again and again. All processes
//! share a directory, a `FileStore`. The first process that sees the rejection refreshes the session and saves it; the others
//! adopt the stored session. The Salesforce org is an emulator on loopback, and as strict as the real one: a refresh token
//! that is presented twice would end the grant for all.

use std::{
    env, io,
    process::{ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::timeout,
};
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, SalesforceAuthLayer, SessionHandle,
    emulator::{Fault, Org},
    flow::RefreshToken,
    oauth::App,
    observer::{Observer, RefreshStarted, SessionAdopted},
    store::FileStore,
};

const PROCESSES: usize = 4;
const TASKS: usize = 8;

/// The number of times that the session expires.
const EXPIRIES: u64 = 20;

/// The line that a worker prints when a task had its first good answer with a session.
const NEW_SESSION: &str = "new session";

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    match env::args().nth(1).as_deref() {
        Some("worker") => work().await.map(|()| ExitCode::SUCCESS),
        Some(processes) => match processes.parse() {
            Ok(processes) if processes > 0 => supervise(processes).await,
            _ => {
                eprintln!("usage: shared_session [PROCESSES], a number of at least 1");
                Ok(ExitCode::from(2))
            }
        },
        None => supervise(PROCESSES).await,
    }
}

/// The task of a worker, on a line of its standard input.
#[derive(Serialize, Deserialize)]
struct Task {
    login_url: String,
    client_id: String,
    client_secret: String,
    /// The first refresh token. It is used only while the store is empty.
    refresh_token: String,
    directory: String,
}

/// The counts of a worker, on the last line of its standard output.
#[derive(Default, Serialize, Deserialize)]
struct Report {
    requests: u64,
    exchanges: u64,
    adoptions: u64,
    failures: u64,
}

// === A worker ===

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    exchanges: AtomicU64,
    adoptions: AtomicU64,
    failures: AtomicU64,
}

struct Counting(Arc<Counts>);

impl Observer for Counting {
    fn refresh_started(&self, _: &RefreshStarted) {
        self.0.exchanges.fetch_add(1, Ordering::Relaxed);
    }

    fn session_adopted(&self, _: &SessionAdopted) {
        self.0.adoptions.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends requests until the supervisor closes standard input.
async fn work() -> Result<(), BoxError> {
    let mut supervisor = BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    supervisor.read_line(&mut line).await?;
    let task: Task = serde_json::from_str(&line)?;

    // Processes share a session by the same directory and the same key.
    let app = App::new(task.login_url.parse()?, task.client_id).client_secret(task.client_secret);
    let http = Client::builder(TokioExecutor::new()).build_http();
    let counts = Arc::new(Counts::default());
    let handle = SessionHandle::builder(RefreshToken::new(http, app, task.refresh_token))
        .store(FileStore::open(task.directory)?, "integration-user")
        .observer(Counting(counts.clone()))
        .build();
    let layer = SalesforceAuthLayer::from(handle.clone());
    let client = layer.layer(Client::builder(TokioExecutor::new()).build_http());

    let mut senders = JoinSet::new();
    for _ in 0..TASKS {
        let (client, handle, counts) = (client.clone(), handle.clone(), counts.clone());
        senders.spawn(async move {
            let mut generation = None;
            loop {
                let request = Request::get("/services/data/v66.0/limits")
                    .body(Full::<Bytes>::default())
                    .map_err(BoxError::from);
                let used = handle.try_session().map(|live| live.generation());
                let answer = match request {
                    Ok(request) => client.clone().oneshot(request).await,
                    Err(error) => Err(error),
                };
                let is_good = match answer {
                    Ok(response) => {
                        let is_ok = response.status() == StatusCode::OK;
                        let is_read = response.into_body().collect().await.is_ok();
                        if is_ok && is_read && used > generation {
                            generation = used;
                            println!("{NEW_SESSION}");
                        }
                        is_ok && is_read
                    }
                    Err(error) => {
                        eprintln!("{error}");
                        false
                    }
                };
                counts.requests.fetch_add(1, Ordering::Relaxed);
                counts
                    .failures
                    .fetch_add(u64::from(!is_good), Ordering::Relaxed);
            }
        });
    }
    // The supervisor closes standard input at the end.
    supervisor.read_to_end(&mut Vec::new()).await?;
    senders.shutdown().await;
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let report = Report {
        requests: count(&counts.requests),
        exchanges: count(&counts.exchanges),
        adoptions: count(&counts.adoptions),
        failures: count(&counts.failures),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

// === The supervisor ===

async fn supervise(processes: usize) -> Result<ExitCode, BoxError> {
    let org = Org::new();
    let served = org.serve().await?;
    let grant = org.authorize();
    // A token call over the internet takes a while.
    org.on_token(Fault::Delay(Duration::from_millis(20)));
    let directory = tempfile::tempdir()?;
    let task = Task {
        login_url: org.login_url(),
        client_id: org.client_id().to_owned(),
        client_secret: org.client_secret().to_owned(),
        refresh_token: grant.refresh_token().to_owned(),
        directory: directory.path().display().to_string(),
    };
    println!(
        "{processes} processes share the session in {}.",
        task.directory
    );
    let mut workers = Vec::new();
    for _ in 0..processes {
        workers.push(Worker::start(&task).await?);
    }

    // The first exchange is the login. From then on each expiry costs one exchange.
    let progress = ProgressBar::new(EXPIRIES + 1).with_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} sessions, {msg}",
    )?);
    for session in 1..=EXPIRIES + 1 {
        if session > 1 {
            org.expire_sessions();
        }
        // The next session ends once every task uses this one, however fast the machine is.
        for worker in &mut workers {
            timeout(Duration::from_secs(60), worker.uses_new_session()).await??;
        }
        progress.set_message(format!("{} requests", org.counters().data_accepted));
        progress.inc(1);
    }
    progress.finish_and_clear();

    let mut total = Report::default();
    println!("process  requests  exchanges  adoptions  failures");
    for (number, worker) in workers.into_iter().enumerate() {
        let report = worker.stop().await?;
        show(&format!("{:>7}", number + 1), &report);
        total.requests += report.requests;
        total.exchanges += report.exchanges;
        total.adoptions += report.adoptions;
        total.failures += report.failures;
    }
    show("  total", &total);
    let counters = org.counters();
    println!(
        "The org issued {} sessions, and saw {} refresh tokens presented twice.",
        counters.tokens_issued, counters.refresh_token_reuses
    );
    served.shutdown().await;
    let is_as_promised = total.failures == 0
        && total.exchanges == EXPIRIES + 1
        && counters.tokens_issued == EXPIRIES + 1
        && counters.refresh_token_reuses == 0
        && counters.token_refusals == 0;
    if is_as_promised {
        return Ok(ExitCode::SUCCESS);
    }
    println!("That is not what was promised. The org counted: {counters:?}");
    Ok(ExitCode::FAILURE)
}

/// This program, started again.
struct Worker {
    process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    async fn start(task: &Task) -> Result<Self, BoxError> {
        let mut process = Command::new(env::current_exe()?)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(mut stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        };
        let mut line = serde_json::to_vec(task)?;
        line.push(b'\n');
        // Not on its command line, which other users can read.
        stdin.write_all(&line).await?;
        Ok(Self {
            process,
            stdin,
            lines: BufReader::new(stdout).lines(),
        })
    }

    async fn line(&mut self) -> Result<String, BoxError> {
        let line = self.lines.next_line().await?;
        line.ok_or_else(|| "a worker ended early".into())
    }

    /// Waits until each task of the worker has had an answer with the session that is new.
    async fn uses_new_session(&mut self) -> Result<(), BoxError> {
        for _ in 0..TASKS {
            self.line().await?;
        }
        Ok(())
    }

    /// Stops the worker, and returns its report.
    async fn stop(mut self) -> Result<Report, BoxError> {
        drop(self.stdin);
        let report = loop {
            let line = self.lines.next_line().await?;
            let line = line.ok_or("a worker ended without a report")?;
            if line != NEW_SESSION {
                break serde_json::from_str(&line)?;
            }
        };
        self.process.wait().await?;
        Ok(report)
    }
}

fn show(who: &str, report: &Report) {
    println!(
        "{who}  {:>8}  {:>9}  {:>9}  {:>8}",
        report.requests, report.exchanges, report.adoptions, report.failures
    );
}
