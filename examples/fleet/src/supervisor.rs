//! Starts the processes, expires their session, and counts.

use std::{
    env, io,
    process::{ExitCode, Stdio},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};
use tower_salesforce_auth::{
    BoxError,
    emulator::{Fault, Org},
};

use crate::{
    options::Options,
    shared_store::{KEY, Place},
    worker::{NEW_SESSION, Report, TASKS, Task},
};

/// The number of times that the session expires.
const EXPIRIES: u64 = 20;

pub(crate) async fn supervise(options: &Options) -> Result<ExitCode, BoxError> {
    let org = Org::new();
    let served = org.serve().await?;
    // A token call over the internet takes a while.
    org.on_token(Fault::Delay(Duration::from_millis(20)));
    let directory = tempfile::tempdir()?;
    let task = Task {
        login_url: org.login_url(),
        client_id: org.client_id().to_owned(),
        client_secret: org.client_secret().to_owned(),
        refresh_token: org.authorize().refresh_token().to_owned(),
        place: match &options.url {
            Some(url) => Place::Redis(url.clone()),
            None => Place::Directory(directory.path().display().to_string()),
        },
        // Each run begins with an empty store.
        prefix: format!("fleet-example:{}:", served.url()),
    };
    // A URL that is wrong is told before anything starts.
    let store = task.place.open(&task.prefix)?;
    store.load(KEY).await?;
    let processes = options.processes;
    println!(
        "{processes} processes share the session in {}.",
        task.place.describe()
    );
    let mut workers = Vec::new();
    for _ in 0..processes {
        workers.push(Worker::start(&task).await?);
    }
    expire_again_and_again(&org, &mut workers).await?;
    let total = stop(workers).await?;
    let mut lock = store.lock(KEY).await?;
    lock.delete().await?;
    lock.unlock().await;
    let counters = org.counters();
    println!(
        "The org issued {} sessions, and saw {} refresh tokens presented twice. Of {} adoptions, {} came before a rejection.",
        counters.tokens_issued, counters.refresh_token_reuses, total.adoptions, total.unrejected
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

/// The first exchange is the login. From then on each expiry costs one exchange.
async fn expire_again_and_again(org: &Org, workers: &mut [Worker]) -> Result<(), BoxError> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} sessions, {msg}")?;
    let progress = ProgressBar::new(EXPIRIES + 1).with_style(style);
    for session in 1..=EXPIRIES + 1 {
        if session > 1 {
            org.expire_sessions();
        }
        // The next session ends once every task uses this one, however fast the machine is.
        for worker in &mut *workers {
            timeout(Duration::from_secs(60), worker.uses_new_session()).await??;
        }
        progress.set_message(format!("{} requests", org.counters().data_accepted));
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

/// Stops the processes, shows what each has done, and returns the sum.
async fn stop(workers: Vec<Worker>) -> Result<Report, BoxError> {
    let mut total = Report::default();
    println!("process  requests  exchanges  adoptions  failures");
    for (number, worker) in workers.into_iter().enumerate() {
        let report = worker.stop().await?;
        show(&format!("{:>7}", number + 1), &report);
        total.requests += report.requests;
        total.exchanges += report.exchanges;
        total.adoptions += report.adoptions;
        total.unrejected += report.unrejected;
        total.failures += report.failures;
    }
    show("  total", &total);
    Ok(total)
}

fn show(who: &str, report: &Report) {
    println!(
        "{who}  {:>8}  {:>9}  {:>9}  {:>8}",
        report.requests, report.exchanges, report.adoptions, report.failures
    );
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

    /// Waits until each task of the worker has had an answer with the session that is new.
    async fn uses_new_session(&mut self) -> Result<(), BoxError> {
        for _ in 0..TASKS {
            let line = self.lines.next_line().await?;
            line.ok_or("a worker ended early")?;
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
