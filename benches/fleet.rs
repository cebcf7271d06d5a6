//! Processes that share a session by a Redis: how long the last of them takes to adopt it, and what that asks of the server.
//!
//! ```sh
//! cargo bench -p benches --bench fleet
//! ```
//!
//! It starts a `redis-server` from the `PATH`, and says so if there is none. Each process is this program again. A proxy between
//! the processes and the server counts what they send, and all bytes of both directions.
//!
//! The session expires. Without `follow_store` all processes send a request at that moment; with it one process does, and the
//! others adopt what it has saved. The time begins when that process has saved, and ends when the last of the others has
//! adopted. It contains the way of the message to this process, over a pipe. The figures are the median of the rounds.
//!
//! A request that is accepted asks nothing of the store, and so does a fleet at rest, but for the test of each subscription
//! every 15 s.
#![allow(missing_docs)]

use std::{
    env, io,
    net::{SocketAddr, TcpListener as Listener},
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use figures::{Table, median};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};
use tower::{BoxError, Layer, ServiceExt};
use tower_salesforce_auth::{
    SalesforceAuthLayer, SessionHandle,
    emulator::{Org, Served},
    flow::RefreshToken,
    oauth::App,
    observer::{Observer, RefreshSucceeded, SessionAdopted},
    store::RedisStore,
};

mod figures;

/// The argument with which this program is a process of the fleet.
const PROCESS: &str = "--process";

const PROCESSES: [usize; 3] = [2, 8, 32];
const ROUNDS: usize = 11;
const ACCEPTED: usize = 1_000;
const REST: Duration = Duration::from_secs(5);

/// What is waited for comes within this time.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    if env::args().any(|argument| argument == PROCESS) {
        return process().await;
    }
    if !figures::is_wanted() {
        return Ok(());
    }
    let Some(program) = redis_server() else {
        println!("There is no redis-server on the PATH: `apt-get install redis-server`.");
        return Ok(());
    };
    expiries(&program).await?;
    println!();
    at_rest(&program).await
}

async fn expiries(program: &PathBuf) -> Result<(), BoxError> {
    let mut table = Table::new(&[
        "processes",
        "follow the store",
        "ms to the last adoption",
        "store calls per expiry",
        "KiB per expiry",
        "store calls per adoption",
        "bytes per adoption",
    ]);
    for follows in [false, true] {
        let alone = measure(&mut Fleet::start(program, 1, follows).await?).await?;
        for processes in PROCESSES {
            let all = measure(&mut Fleet::start(program, processes, follows).await?).await?;
            let others = as_float(processes - 1);
            table.row([
                processes.to_string(),
                if follows { "yes" } else { "no" }.to_string(),
                format!("{:.1}", all.ms),
                format!("{:.0}", all.calls),
                format!("{:.1}", all.bytes / 1024.0),
                format!("{:.1}", (all.calls - alone.calls) / others),
                format!("{:.0}", (all.bytes - alone.bytes) / others),
            ]);
        }
    }
    table.keep("fleet");
    Ok(())
}

/// One expiry.
struct Expiry {
    ms: f64,
    calls: f64,
    bytes: f64,
}

async fn measure(fleet: &mut Fleet) -> Result<Expiry, BoxError> {
    let (mut ms, mut calls, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = fleet.traffic.read();
        ms.push(fleet.expire().await?.as_secs_f64() * 1e3);
        // The lock is released after the session is used.
        sleep(Duration::from_millis(50)).await;
        let after = fleet.traffic.read();
        calls.push(as_float(after.0 - before.0));
        bytes.push(as_float(after.1 - before.1));
    }
    Ok(Expiry {
        ms: median(ms),
        calls: median(calls),
        bytes: median(bytes),
    })
}

async fn at_rest(program: &PathBuf) -> Result<(), BoxError> {
    let mut table = Table::new(&["8 processes", "follow the store", "store calls", "bytes"]);
    for follows in [false, true] {
        let mut fleet = Fleet::start(program, 8, follows).await?;
        let word = if follows { "yes" } else { "no" };
        let before = fleet.traffic.read();
        for process in &mut fleet.processes {
            process.order("accepted").await?;
        }
        for process in &mut fleet.processes {
            process.hear("accepted").await?;
        }
        let after = fleet.traffic.read();
        let mut row = |what: String, after: (usize, usize), before: (usize, usize)| {
            table.row([
                what,
                word.to_string(),
                (after.0 - before.0).to_string(),
                (after.1 - before.1).to_string(),
            ]);
        };
        row(
            format!("{ACCEPTED} accepted requests of each"),
            after,
            before,
        );
        sleep(REST).await;
        row(
            format!("{} s at rest", REST.as_secs()),
            fleet.traffic.read(),
            after,
        );
    }
    table.keep("fleet_at_rest");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn as_float(number: usize) -> f64 {
    number as f64
}

// === The fleet ===

struct Fleet {
    org: Org,
    _served: Served,
    _redis: Child,
    traffic: Traffic,
    processes: Vec<Process>,
    follows: bool,
}

impl Fleet {
    async fn start(program: &PathBuf, processes: usize, follows: bool) -> Result<Self, BoxError> {
        let (redis, address) = start_redis(program).await?;
        let traffic = Traffic::default();
        let proxy = proxy(address, traffic.clone()).await?;
        let org = Org::new();
        let served = org.serve().await?;
        let part = json!({
            "store": format!("redis://{proxy}"),
            "login_url": org.login_url(),
            "client_id": org.client_id(),
            "client_secret": org.client_secret(),
            "refresh_token": org.authorize().refresh_token(),
            "follows": follows,
        });
        let mut fleet = Self {
            org,
            _served: served,
            _redis: redis,
            traffic,
            processes: Vec::new(),
            follows,
        };
        for _ in 0..processes {
            let mut process = Process::start(&part)?;
            process.order("send").await?;
            process.hear("sent").await?;
            fleet.processes.push(process);
        }
        Ok(fleet)
    }

    /// The session expires. Returns how long after the save the last process has adopted.
    async fn expire(&mut self) -> Result<Duration, BoxError> {
        self.org.expire_sessions();
        let senders = if self.follows {
            1
        } else {
            self.processes.len()
        };
        for process in &mut self.processes[..senders] {
            process.order("send").await?;
        }
        let mut hearing = tokio::task::JoinSet::new();
        for (number, mut process) in self.processes.drain(..).enumerate() {
            let sends = number < senders;
            hearing.spawn(async move {
                let (word, at) = process.hear_session().await?;
                if sends {
                    process.hear("sent").await?;
                }
                Ok::<_, BoxError>((number, process, word, at))
            });
        }
        let (mut refreshed, mut last) = (None, None);
        let mut processes = Vec::new();
        for heard in hearing.join_all().await {
            let (number, process, word, at) = heard?;
            processes.push((number, process));
            if word == "refreshed" {
                refreshed = Some(at);
            } else {
                last = last.max(Some(at));
            }
        }
        processes.sort_by_key(|(number, _)| *number);
        self.processes
            .extend(processes.into_iter().map(|(_, process)| process));
        let refreshed = refreshed.ok_or("no process has refreshed")?;
        let last = last.unwrap_or(refreshed);
        Ok(last.saturating_duration_since(refreshed))
    }
}

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(part: &Value) -> Result<Self, BoxError> {
        let mut child = Command::new(env::current_exe()?)
            .args([PROCESS, &part.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("its output")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self { child, lines })
    }

    async fn order(&mut self, order: &str) -> Result<(), BoxError> {
        let stdin = self.child.stdin.as_mut().ok_or("its input")?;
        Ok(stdin.write_all(format!("{order}\n").as_bytes()).await?)
    }

    async fn line(&mut self) -> Result<String, BoxError> {
        let line = timeout(LIMIT, self.lines.next_line()).await??;
        line.ok_or_else(|| "a process ended early".into())
    }

    /// Waits for this line.
    async fn hear(&mut self, word: &str) -> Result<(), BoxError> {
        while self.line().await? != word {}
        Ok(())
    }

    /// Waits until it has another session, and returns how it got that.
    async fn hear_session(&mut self) -> Result<(String, Instant), BoxError> {
        loop {
            let line = self.line().await?;
            if ["refreshed", "adopted"].contains(&&*line) {
                return Ok((line, Instant::now()));
            }
        }
    }
}

// === A process ===

struct Telling;

impl Observer for Telling {
    fn refresh_succeeded(&self, _: &RefreshSucceeded) {
        println!("refreshed");
    }

    fn session_adopted(&self, _: &SessionAdopted) {
        println!("adopted");
    }
}

async fn process() -> Result<(), BoxError> {
    let part = env::args().next_back().ok_or("no part")?;
    let part: Value = serde_json::from_str(&part)?;
    let text = |name: &str| part[name].as_str().unwrap_or_default().to_owned();
    let app = App::new(text("login_url").parse()?, text("client_id"))
        .client_secret(text("client_secret"));
    let http: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut builder = SessionHandle::builder(RefreshToken::new(http, app, text("refresh_token")))
        .store(RedisStore::new(text("store"))?, "user")
        .observer(Telling);
    if part["follows"] == true {
        builder = builder.follow_store();
    }
    let http: Client<HttpConnector, _> = Client::builder(TokioExecutor::new()).build_http();
    let client = SalesforceAuthLayer::from(builder.build()).layer(http);
    let send = async || {
        let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
        let response = client.clone().oneshot(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        if status != StatusCode::OK {
            return Err(BoxError::from(status.to_string()));
        }
        Ok(())
    };
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        if order == "accepted" {
            for _ in 0..ACCEPTED {
                send().await?;
            }
            println!("accepted");
        } else {
            send().await?;
            println!("sent");
        }
    }
    Ok(())
}

// === The server ===

fn redis_server() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut programs = env::split_paths(&path).map(|directory| directory.join("redis-server"));
    programs.find(|program| program.is_file())
}

/// Starts a server, which ends with the returned value.
async fn start_redis(program: &PathBuf) -> Result<(Child, SocketAddr), BoxError> {
    let address = Listener::bind("127.0.0.1:0")?.local_addr()?;
    let port = address.port().to_string();
    let redis = Command::new(program)
        .args(["--bind", "127.0.0.1", "--port", &port, "--save", ""])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let connecting = async {
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, connecting).await?;
    Ok((redis, address))
}

/// The calls and the bytes that went through a proxy.
#[derive(Clone, Default)]
struct Traffic(Arc<[AtomicU64; 2]>);

impl Traffic {
    fn read(&self) -> (usize, usize) {
        let [calls, bytes] = [0, 1].map(|at| {
            let count = self.0[at].load(Ordering::SeqCst);
            usize::try_from(count).expect("a small number")
        });
        (calls, bytes)
    }
}

async fn proxy(to: SocketAddr, traffic: Traffic) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((process, _)) = listener.accept().await {
            let traffic = traffic.clone();
            tokio::spawn(async move {
                let server = TcpStream::connect(to).await?;
                process.set_nodelay(true)?;
                server.set_nodelay(true)?;
                let (from_process, to_process) = process.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::select! {
                    done = pump(from_process, to_server, &traffic, 1) => done,
                    done = pump(from_server, to_process, &traffic, 0) => done,
                }
            });
        }
    });
    Ok(address)
}

/// Copies and counts. A process sends each call in one piece.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    traffic: &Traffic,
    calls: u64,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        traffic.0[0].fetch_add(calls, Ordering::SeqCst);
        traffic.0[1].fetch_add(length as u64, Ordering::SeqCst);
        to.write_all(&buffer[..length]).await?;
    }
}
