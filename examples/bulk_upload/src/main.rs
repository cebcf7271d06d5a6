//! A large CSV file streamed to Bulk API 2.0. The session ends during the upload: the file is opened again, and sent again.
//!
//! ```sh
//! cargo run -p bulk_upload
//! cargo run -p bulk_upload -- --size 20
//! cargo run -p bulk_upload -- --file accounts.csv --object Account
//! ```
//!
//! The layer keeps nothing of the file for the second attempt: a [`BodyFactory`] opens the file again. The same upload
//! without a factory follows for contrast. The org is an emulator on loopback, which rejects the session after half of the
//! file. The file is generated: 100 MiB of accounts, or the size of `--size`.
//!
//! With `SF_LOGIN_URL`, `SF_CLIENT_ID` and `SF_CLIENT_SECRET` in the environment, `--file` goes to a real org, by the client
//! credentials flow, and inserts its records there.

mod generate;
mod ingest;
mod org;
mod progress;
mod source;
#[cfg(test)]
mod tests;

use std::{
    env,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{Service, ServiceBuilder};
use tower_salesforce_auth::{
    BoxError, SalesforceAuthLayer, SessionHandle,
    flow::ClientCredentials,
    observer::{Observer, RefreshReason, RefreshStarted},
    request::BodyFactory,
};

use self::{
    ingest::{Ingest, Job, MAX_LENGTH, Patience, Uploaded},
    org::Org,
    progress::Progress,
    source::{Body, Source},
};

const USAGE: &str = "usage: bulk_upload [--size MIB | --file PATH] [--object NAME]";

/// A file up to this size may be replayed without a factory: the layer may have kept all of it before the rejection.
const SMALL: u64 = 256 * 1024;

/// Long enough for a slow line and a large file, twice.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::read(env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprint!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, BoxError> {
    let org = Org::from_env().await?;
    if org.emulated.is_none() && arguments.file.is_none() {
        return Err("a real org gets no generated accounts: give --file".into());
    }
    // Deleted on drop.
    let directory = tempfile::tempdir()?;
    let path = match arguments.file {
        Some(path) => path,
        None => {
            let path = directory.path().join("accounts.csv");
            let bytes = arguments.size * 1024 * 1024;
            let to = path.clone();
            let accounts =
                tokio::task::spawn_blocking(move || generate::accounts(&to, bytes)).await??;
            println!("Generated {accounts} accounts.");
            path
        }
    };
    let source = Source::look_at(path).await?;

    let refreshes = Refreshes::default();
    // The flow has its own HTTP client: its token calls must not wait for the requests that wait for them.
    let is_emulated = org.emulated.is_some();
    let login = ClientCredentials::new(http_client(is_emulated), org.app.clone());
    let handle = SessionHandle::builder(login)
        .observer(refreshes.clone())
        .build();
    let auth = SalesforceAuthLayer::from(handle);
    let client = ServiceBuilder::new()
        // Outermost: it bounds a call, with an upload, the refresh, and the second upload. There is no retry layer: an
        // interrupted PUT may have arrived, and a job takes its content once. A new job is safe.
        .timeout(TIMEOUT)
        // A layer that changes the type of bodies (`map_request_body`) would go here. The factory would then have to make the
        // new type: the layer finds a factory by the type of the body that it gets.
        //
        // The session. A rejected upload starts again here, with another body; layers outside see one request.
        .layer(auth)
        // Layers that should see every attempt, for example tracing, would go here. They must not collect the body.
        //
        // Innermost, the HTTP client. It polls the body when the connection takes more, so that a slow line slows the
        // reading of the file.
        .service(http_client(is_emulated));
    let ingest = Ingest::new(client, &org.api_version);

    println!(
        "An upload of {} bytes, with a body factory:",
        source.length()
    );
    let progress = Progress::new(source.length())?;
    let job = load(&ingest, &org, &arguments.object, &source, &progress).await?;
    println!("  sent       {} bytes", progress.bytes());
    println!("  refreshes  {}", refreshes.count());
    println!("  processed  {} records", job.number_records_processed);
    println!("  failed     {} records", job.number_records_failed);

    if job.number_records_failed > 0 {
        println!("GET …/jobs/ingest/{}/failedResults says why.", job.id);
        return Ok(ExitCode::FAILURE);
    }
    let Some(emulated) = &org.emulated else {
        return Ok(ExitCode::SUCCESS);
    };
    let upload = emulated.upload(&job.id);
    let mut is_as_promised = upload.is_some_and(|upload| upload.length == source.length())
        && progress.attempts() == 2
        && refreshes.count() == 1;

    if source.length() > SMALL {
        println!("The same without a factory:");
        let was_rejected = contrast(&ingest, &org, &arguments.object, &source).await?;
        println!("  refreshes  {}", refreshes.count() - 1);
        is_as_promised &= was_rejected && refreshes.count() == 2;
    }
    if is_as_promised {
        return Ok(ExitCode::SUCCESS);
    }
    let counters = emulated.counters();
    println!("That is not what was promised. The org counted: {counters:?}");
    Ok(ExitCode::FAILURE)
}

/// Creates a job, gives it the file, and waits until it is done.
async fn load<S, ResBody>(
    ingest: &Ingest<S>,
    org: &Org,
    object: &str,
    source: &Source,
    progress: &Progress,
) -> Result<Job, BoxError>
where
    S: Service<Request<Body>, Response = Response<ResBody>, Error = BoxError> + Clone,
    ResBody: http_body::Body<Error: Into<BoxError>>,
{
    let job = ingest.create(object).await?;
    org.expire_after(source.length() / 2);

    // The layer calls it once for every attempt, and it must not block: the body opens the file at its first poll.
    let (file, bar) = (source.clone(), progress.clone());
    let factory = BodyFactory::new(move || {
        bar.begin();
        let bar = bar.clone();
        file.body(move |bytes| bar.sent(bytes))
    });
    let uploaded = ingest
        .upload(&job.id, source, |head| factory.attach(head))
        .await;
    progress.finish();
    let problem = match uploaded {
        Ok(Uploaded::Taken { attempts }) => {
            println!("  attempts   {attempts}");
            match ingest.complete(&job.id).await {
                Ok(job) => return ingest.wait(&job.id, &patience(org)).await,
                Err(error) => error,
            }
        }
        Ok(Uploaded::Rejected(outcome)) => format!("the session was rejected: {outcome:?}").into(),
        Err(error) => error,
    };
    give_up(ingest, &job).await;
    Err(problem)
}

/// The same upload with a body that can be sent once. Returns whether the upload was rejected for that.
async fn contrast<S, ResBody>(
    ingest: &Ingest<S>,
    org: &Org,
    object: &str,
    source: &Source,
) -> Result<bool, BoxError>
where
    S: Service<Request<Body>, Response = Response<ResBody>, Error = BoxError> + Clone,
    ResBody: http_body::Body<Error: Into<BoxError>>,
{
    let job = ingest.create(object).await?;
    org.expire_after(source.length() / 2);
    let once = source.body(|_| {});
    let uploaded = ingest
        .upload(&job.id, source, |head| head.map(|()| once))
        .await?;
    let was_rejected = match uploaded {
        Uploaded::Taken { .. } => false,
        Uploaded::Rejected(outcome) => {
            if let Some(reason) = outcome.replay_skipped() {
                println!("  rejected   {reason:?}");
            }
            true
        }
    };
    // The session was refreshed all the same: this request succeeds.
    give_up(ingest, &job).await;
    Ok(was_rejected)
}

/// Aborts the job. An error is printed only, since the caller reports the first problem.
async fn give_up<S, ResBody>(ingest: &Ingest<S>, job: &Job)
where
    S: Service<Request<Body>, Response = Response<ResBody>, Error = BoxError> + Clone,
    ResBody: http_body::Body<Error: Into<BoxError>>,
{
    match ingest.abort(&job.id).await {
        Ok(job) => println!("  job        {}", job.state),
        Err(error) => println!("  job        {} was not aborted: {error}", job.id),
    }
}

/// The polls for the end of a job. A real org takes seconds to hours, the emulated org two polls.
fn patience(org: &Org) -> Patience {
    let first_pause = Duration::from_millis(if org.emulated.is_some() { 50 } else { 2_000 });
    Patience {
        first_pause,
        longest_pause: Duration::from_secs(60),
        polls: 120,
    }
}

/// Counts the refreshes after a rejection.
#[derive(Clone, Default)]
struct Refreshes(Arc<AtomicU64>);

impl Refreshes {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Observer for Refreshes {
    fn refresh_started(&self, event: &RefreshStarted) {
        if event.reason() == RefreshReason::Rejected {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// TLS, and plain HTTP for the emulated org.
///
/// Over HTTP/2 an early answer ends only its stream. Over HTTP/1.1 it ends the connection, and may be lost. With TLS, ALPN
/// chooses the protocol; without TLS it has to be set.
fn http_client<B>(is_emulated: bool) -> Client<HttpsConnector<HttpConnector>, B>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .build();
    Client::builder(TokioExecutor::new())
        .http2_only(is_emulated)
        .build(connector)
}

struct Arguments {
    /// The MiB of the generated file.
    size: u64,
    file: Option<PathBuf>,
    object: String,
}

impl Arguments {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut read = Self {
            size: 100,
            file: None,
            object: "Account".to_owned(),
        };
        while let Some(name) = arguments.next() {
            if !matches!(&*name, "--size" | "--file" | "--object") {
                return Err(format!("{name} is not an option"));
            }
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            match &*name {
                "--size" => {
                    let most = MAX_LENGTH / (1024 * 1024);
                    let size = value.parse().ok().filter(|size| (1..=most).contains(size));
                    read.size = size.ok_or(format!(
                        "--size {value} is no number of MiB from 1 to {most}"
                    ))?;
                }
                "--file" => read.file = Some(value.into()),
                _ => read.object = value,
            }
        }
        Ok(read)
    }
}
