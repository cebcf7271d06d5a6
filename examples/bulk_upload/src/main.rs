//! A large CSV file streamed to Bulk API 2.0, and the session ends on the way: the file is opened anew, and sent again.
//!
//! ```sh
//! cargo run -p bulk_upload
//! cargo run -p bulk_upload -- --size 20
//! cargo run -p bulk_upload -- --file accounts.csv --object Account
//! ```
//!
//! Nothing of the file is kept for the second attempt: a [`BodyFactory`] opens it when it is needed. The same upload without
//! one follows for contrast. The org is an emulator on loopback, which turns the session down when half of the file has
//! come, and the file is made up: 100 MiB of accounts, unless `--size` says otherwise.
//!
//! With `SF_LOGIN_URL`, `SF_CLIENT_ID` and `SF_CLIENT_SECRET` in the environment, `--file` goes to a real org, by the client
//! credentials flow, and its records are inserted there.

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
    BodyFactory, BoxError, Observer, RefreshReason, RefreshStarted, SalesforceAuthLayer,
    flow::ClientCredentials,
};

use self::{
    ingest::{Ingest, Job, MAX_LENGTH, Patience, Uploaded},
    org::Org,
    progress::Progress,
    source::{Body, Source},
};

const USAGE: &str = "usage: bulk_upload [--size MIB | --file PATH] [--object NAME]";

/// What is not much longer than the `replay_limit` may be kept in full before it is rejected.
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
        return Err("a real org gets a file of yours, and no made-up accounts: give --file".into());
    }
    // It goes away with this, whatever happens.
    let directory = tempfile::tempdir()?;
    let path = match arguments.file {
        Some(path) => path,
        None => {
            let path = directory.path().join("accounts.csv");
            let bytes = arguments.size * 1024 * 1024;
            let to = path.clone();
            let accounts =
                tokio::task::spawn_blocking(move || generate::accounts(&to, bytes)).await??;
            println!("Made up {accounts} accounts.");
            path
        }
    };
    let source = Source::look_at(path).await?;

    let refreshes = Refreshes::default();
    // The flow has an HTTP client of its own: what it sends must not wait for itself.
    let is_emulated = org.emulated.is_some();
    let login = ClientCredentials::new(http_client(is_emulated), org.app.clone());
    let auth = SalesforceAuthLayer::new(login).observer(refreshes.clone());
    let client = ServiceBuilder::new()
        // Outermost, how long a call may take: an upload, the refresh, and the upload once more. There is no retry layer out
        // here. A PUT that broke off may have arrived, and a job takes its content once: what is safe is another job.
        .timeout(TIMEOUT)
        // A layer that turns bodies into others (`map_request_body`) would go here, and the factory would have to make
        // what it makes: the session finds a factory by the type of the body that gets to it.
        //
        // The session. A rejected upload begins anew from here on, with another body; what is outside sees one request.
        .layer(auth)
        // Layers that are to see every attempt, tracing for one, would go here. None of them may collect the body.
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
        println!("The same without one:");
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

    // It is asked once for every attempt, and must not block: the body opens the file when it is first polled.
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
        Ok(Uploaded::Rejected(outcome)) => {
            format!("the session was turned down: {outcome:?}").into()
        }
        Err(error) => error,
    };
    give_up(ingest, &job).await;
    Err(problem)
}

/// The same upload with a body that can be sent once. Says whether it was rejected for that.
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
    // The session was renewed all the same: this request is a good one.
    give_up(ingest, &job).await;
    Ok(was_rejected)
}

/// A problem here is not the one that there is to report.
async fn give_up<S, ResBody>(ingest: &Ingest<S>, job: &Job)
where
    S: Service<Request<Body>, Response = Response<ResBody>, Error = BoxError> + Clone,
    ResBody: http_body::Body<Error: Into<BoxError>>,
{
    match ingest.abort(&job.id).await {
        Ok(job) => println!("  job        {}", job.state),
        Err(error) => println!("  job        {} is left as it is: {error}", job.id),
    }
}

/// A real org takes seconds to hours. The emulated one is done when it was looked at twice.
fn patience(org: &Org) -> Patience {
    let first_pause = Duration::from_millis(if org.emulated.is_some() { 50 } else { 2_000 });
    Patience {
        first_pause,
        longest_pause: Duration::from_secs(60),
        looks: 120,
    }
}

/// Counts the sessions that took the place of one that was turned down.
#[derive(Clone, Default)]
struct Refreshes(Arc<AtomicU64>);

impl Refreshes {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Observer for Refreshes {
    fn refresh_started(&self, event: &RefreshStarted) {
        if event.reason == RefreshReason::Rejected {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// TLS, and plain HTTP for the emulated org.
///
/// Over HTTP/2 an answer that comes early ends no more than the stream. Over HTTP/1.1 it ends the connection, and may be lost
/// in that. By TLS the two sides agree on it; without, it has to be known.
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
    /// Of the file to make up, in MiB.
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
                return Err(format!("{name} is not known"));
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
