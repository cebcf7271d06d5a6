//! Files streamed to Bulk API 2.0, as the example `bulk_upload` does.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tower::Layer;
use tower_salesforce_auth::{
    BoxError, ReplayBody, SalesforceAuth, SalesforceAuthLayer, Session, SessionHandle,
    emulator::{Fault, Grant, Org, Served},
    flow::RefreshToken,
    oauth::App,
    request::{BodyFactory, ReplaySkipped},
};

use crate::{
    generate,
    ingest::{Ingest, Job, MAX_LENGTH, Patience, Uploaded},
    source::{Body, Failure, PIECE, Source},
};

const MIB: u64 = 1024 * 1024;

/// Two polls, as many as the emulated org needs.
const PATIENCE: Patience = Patience {
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(60),
    polls: 2,
};

// === Fixtures ===

/// A file of accounts, with its digest and its number of records.
struct Accounts {
    _directory: TempDir,
    path: PathBuf,
    sha256: String,
    records: u64,
}

impl Accounts {
    fn of(bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("accounts.csv");
        let records = generate::accounts(&path, bytes).unwrap();
        let mut sha256 = String::new();
        for byte in Sha256::digest(fs::read(&path).unwrap()) {
            write!(sha256, "{byte:02x}").unwrap();
        }
        Self {
            _directory: directory,
            path,
            sha256,
            records,
        }
    }

    async fn source(&self) -> Source {
        Source::look_at(&self.path).await.unwrap()
    }

    /// Writes into the file at this position, and sets another modification time.
    fn write_over(&self, at: u64, text: &str) {
        let mut file = OpenOptions::new().write(true).open(&self.path).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }

    fn assert_arrived(&self, org: &Org, job: &str) {
        let upload = org.upload(job).expect("an upload");
        assert_eq!(upload.sha256, self.sha256);
        assert_eq!(upload.records, self.records);
    }
}

/// Counts the bodies of an upload and their bytes.
#[derive(Clone, Default)]
struct Ledger(Arc<Counts>);

#[derive(Default)]
struct Counts {
    made: AtomicU64,
    sent: AtomicU64,
    alive: AtomicUsize,
    most_alive: AtomicUsize,
}

/// The bytes of a piece, counted until the last clone is dropped.
struct Piece {
    bytes: Bytes,
    ledger: Ledger,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let alive = &self.ledger.0.alive;
        alive.fetch_sub(self.bytes.len(), Ordering::SeqCst);
    }
}

impl Ledger {
    fn made(&self) -> u64 {
        self.0.made.load(Ordering::SeqCst)
    }

    fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::SeqCst)
    }

    /// The most bytes in memory at a time.
    fn most_alive(&self) -> usize {
        self.0.most_alive.load(Ordering::SeqCst)
    }

    fn body(&self, source: &Source) -> Body {
        self.0.made.fetch_add(1, Ordering::SeqCst);
        let counts = Arc::clone(&self.0);
        let body = source.body(move |bytes| {
            counts.sent.fetch_add(bytes as u64, Ordering::SeqCst);
        });
        let ledger = self.clone();
        body.map_frame(move |frame| frame.map_data(|bytes| ledger.piece(bytes)))
            .boxed_unsync()
    }

    fn piece(&self, bytes: Bytes) -> Bytes {
        let alive = self.0.alive.fetch_add(bytes.len(), Ordering::SeqCst) + bytes.len();
        self.0.most_alive.fetch_max(alive, Ordering::SeqCst);
        let ledger = self.clone();
        Bytes::from_owner(Piece { bytes, ledger })
    }

    fn factory(&self, source: &Source) -> BodyFactory<Body> {
        let (ledger, source) = (self.clone(), source.clone());
        BodyFactory::new(move || ledger.body(&source))
    }
}

type HttpClient = Client<HttpConnector, ReplayBody<Body>>;

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http1,
    H2,
}

/// An org on loopback, with a session at it.
struct Fixture {
    org: Org,
    _served: Served,
    ingest: Ingest<SalesforceAuth<HttpClient>>,
}

impl Fixture {
    async fn over(protocol: Protocol) -> Self {
        let org = Org::new();
        let served = org.serve().await.unwrap();
        let layer = layer(&org, &org.authorize());
        let mut builder = Client::builder(TokioExecutor::new());
        builder.http2_only(matches!(protocol, Protocol::H2));
        Self {
            org,
            _served: served,
            ingest: Ingest::new(layer.layer(builder.build_http()), "66.0"),
        }
    }

    /// Expires the session. The org rejects the next upload after this many bytes, or after all.
    fn expire(&self, after: Option<u64>) {
        self.org.expire_sessions();
        let after = after.map(|bytes| usize::try_from(bytes).unwrap());
        self.org.answer_early(after);
    }

    /// Uploads the file with a factory whose bodies the ledger counts.
    async fn upload(&self, job: &Job, source: &Source, ledger: &Ledger) -> Uploaded {
        let factory = ledger.factory(source);
        let uploading = self
            .ingest
            .upload(&job.id, source, |head| factory.attach(head));
        uploading.await.unwrap()
    }
}

fn layer(org: &Org, grant: &Grant) -> SalesforceAuthLayer {
    let app = App::new(org.login_url().parse().unwrap(), org.client_id())
        .client_secret(org.client_secret());
    let http = Client::builder(TokioExecutor::new()).build_http();
    let session = Session::new(grant.access_token(), grant.instance_url()).unwrap();
    SessionHandle::builder(RefreshToken::new(http, app, grant.refresh_token()))
        .initial_session(session)
        .build()
        .into()
}

/// The org without a socket. The session is never refreshed.
fn in_process(org: &Org) -> Ingest<SalesforceAuth<Org>> {
    let grant = org.authorize();
    let session = Session::new(grant.access_token(), grant.instance_url()).unwrap();
    Ingest::new(
        SalesforceAuthLayer::fixed(session).layer(org.clone()),
        "66.0",
    )
}

// === An expiring session ===

#[tokio::test]
async fn an_upload_through_an_expiring_session_arrives_unchanged() {
    let accounts = Accounts::of(4 * MIB);
    let half = Some(2 * MIB);
    // Early answers over HTTP/1.1 may be lost with the connection: see `tests/wire/early_answers.rs`.
    for (protocol, after) in [
        (Protocol::H2, Some(0)),
        (Protocol::H2, half),
        (Protocol::H2, None),
        (Protocol::Http1, None),
    ] {
        let case = format!("{protocol:?}, rejected after {after:?}");
        let fixture = Fixture::over(protocol).await;
        let source = accounts.source().await;
        let job = fixture.ingest.create("Account").await.unwrap();
        let before = fixture.org.counters();
        fixture.expire(after);

        let ledger = Ledger::default();
        let uploaded = fixture.upload(&job, &source, &ledger).await;
        assert!(
            matches!(uploaded, Uploaded::Taken { attempts: 2 }),
            "{case}: {uploaded:?}"
        );
        accounts.assert_arrived(&fixture.org, &job.id);
        assert_eq!(ledger.made(), 2, "{case}");
        let counters = fixture.org.counters();
        assert_eq!(counters.data_requests - before.data_requests, 2, "{case}");
        assert_eq!(counters.data_rejected, 1, "{case}");
        assert_eq!(counters.token_requests, 1, "{case}");
        if after.is_none() {
            assert_eq!(ledger.sent(), 2 * source.length(), "{case}");
        } else {
            assert!(ledger.sent() < 2 * source.length(), "{case}");
        }

        let job = fixture.ingest.complete(&job.id).await.unwrap();
        assert_eq!(job.state, "UploadComplete");
    }
}

#[tokio::test]
async fn an_upload_without_an_expiry_is_sent_once() {
    let accounts = Accounts::of(MIB);
    let fixture = Fixture::over(Protocol::Http1).await;
    let source = accounts.source().await;
    let job = fixture.ingest.create("Account").await.unwrap();
    let ledger = Ledger::default();
    let uploaded = fixture.upload(&job, &source, &ledger).await;
    assert!(matches!(uploaded, Uploaded::Taken { attempts: 1 }));
    accounts.assert_arrived(&fixture.org, &job.id);
    assert_eq!((ledger.made(), ledger.sent()), (1, source.length()));
}

#[tokio::test]
async fn an_upload_declares_its_length() {
    let accounts = Accounts::of(1_000);
    let source = accounts.source().await;
    let expected = source.length().to_string();
    let client = tower::service_fn(move |request: Request<Body>| {
        assert_eq!(request.headers()["content-length"], *expected);
        assert_eq!(
            request.uri(),
            "/services/data/v66.0/jobs/ingest/750/batches"
        );
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = StatusCode::CREATED;
        std::future::ready(Ok::<_, BoxError>(response))
    });
    let body = source.body(|_| {});
    let ingest = Ingest::new(client, "66.0");
    let uploaded = ingest.upload("750", &source, |head| head.map(|()| body));
    let uploaded = uploaded.await.unwrap();
    assert!(matches!(uploaded, Uploaded::Taken { attempts: 1 }));
}

#[tokio::test]
async fn an_upload_without_a_factory_is_rejected_after_a_refresh() {
    let accounts = Accounts::of(4 * MIB);
    let fixture = Fixture::over(Protocol::H2).await;
    let source = accounts.source().await;
    let job = fixture.ingest.create("Account").await.unwrap();
    fixture.expire(Some(2 * MIB));

    let ledger = Ledger::default();
    let once = ledger.body(&source);
    let uploaded = fixture
        .ingest
        .upload(&job.id, &source, |head| head.map(|()| once));
    let Uploaded::Rejected(outcome) = uploaded.await.unwrap() else {
        panic!("it was taken");
    };
    assert_eq!(
        outcome.replay_skipped(),
        Some(ReplaySkipped::BodyNotReplayable)
    );
    assert!(outcome.refreshed());
    assert_eq!(fixture.org.upload(&job.id), None);

    // The job still waits for its content, and the session is new.
    let again = ledger.body(&source);
    let uploaded = fixture
        .ingest
        .upload(&job.id, &source, |head| head.map(|()| again));
    assert!(matches!(
        uploaded.await.unwrap(),
        Uploaded::Taken { attempts: 1 }
    ));
    accounts.assert_arrived(&fixture.org, &job.id);
    assert_eq!(fixture.org.counters().token_requests, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_uploads_share_one_refresh() {
    const UPLOADS: usize = 48;
    let accounts = Accounts::of(MIB / 2);
    let fixture = Fixture::over(Protocol::H2).await;
    let source = accounts.source().await;
    let mut jobs = Vec::new();
    for _ in 0..UPLOADS {
        jobs.push(fixture.ingest.create("Account").await.unwrap().id);
    }
    fixture.expire(Some(MIB / 4));
    // The org answers no upload before all have come.
    let before = fixture.org.counters();
    fixture.org.on_data(Fault::Hang);
    let mut uploads = JoinSet::new();
    for job in jobs.clone() {
        let (ingest, source) = (fixture.ingest.clone(), source.clone());
        uploads.spawn(async move {
            let factory = Ledger::default().factory(&source);
            let uploaded = ingest
                .upload(&job, &source, |head| factory.attach(head))
                .await;
            matches!(uploaded.unwrap(), Uploaded::Taken { .. })
        });
    }
    while fixture.org.counters().data_requests < before.data_requests + UPLOADS as u64 {
        tokio::task::yield_now().await;
    }
    fixture.org.on_data(Fault::None);
    assert_eq!(uploads.join_all().await, [true; UPLOADS]);
    for job in &jobs {
        accounts.assert_arrived(&fixture.org, job);
    }
    let counters = fixture.org.counters();
    assert_eq!(counters.data_rejected, UPLOADS as u64);
    assert_eq!(counters.token_requests, 1, "{counters:?}");
    assert_eq!(counters.refresh_token_reuses, 0);
}

#[tokio::test]
async fn a_large_upload_stays_in_bounded_memory() {
    let accounts = Accounts::of(8 * MIB);
    for protocol in [Protocol::Http1, Protocol::H2] {
        let fixture = Fixture::over(protocol).await;
        let source = accounts.source().await;
        let job = fixture.ingest.create("Account").await.unwrap();
        fixture.expire(None);
        let ledger = Ledger::default();
        let uploaded = fixture.upload(&job, &source, &ledger).await;
        assert!(matches!(uploaded, Uploaded::Taken { attempts: 2 }));
        assert_eq!(ledger.sent(), 2 * source.length());
        // The buffers of a connection of hyper.
        let most = ledger.most_alive();
        assert!(
            (PIECE..=2 * 1024 * 1024).contains(&most),
            "{protocol:?}: {most} bytes"
        );
    }
    // Without the buffers of a transport: one piece, and the next.
    let org = Org::new();
    let ingest = in_process(&org);
    let source = accounts.source().await;
    let job = ingest.create("Account").await.unwrap();
    let ledger = Ledger::default();
    let factory = ledger.factory(&source);
    let uploaded = ingest.upload(&job.id, &source, |head| factory.attach(head));
    assert!(matches!(uploaded.await.unwrap(), Uploaded::Taken { .. }));
    accounts.assert_arrived(&org, &job.id);
    assert!(
        ledger.most_alive() <= 2 * PIECE,
        "{} bytes",
        ledger.most_alive()
    );
}

// === A file that changes ===

/// Uploads, and changes the file before the body of the second attempt is made.
async fn upload_and_change(
    accounts: Accounts,
    change: impl Fn(&Accounts, &Source) + Send + Sync + 'static,
) -> Failure {
    let accounts = Arc::new(accounts);
    let fixture = Fixture::over(Protocol::H2).await;
    let source = accounts.source().await;
    let job = fixture.ingest.create("Account").await.unwrap();
    fixture.expire(Some(source.length() / 2));
    let ledger = Ledger::default();
    let sent_before = Arc::new(AtomicU64::new(0));
    let factory = {
        let (ledger, source) = (ledger.clone(), source.clone());
        let (accounts, sent_before) = (Arc::clone(&accounts), Arc::clone(&sent_before));
        BodyFactory::new(move || {
            if ledger.made() == 1 {
                sent_before.store(ledger.sent(), Ordering::SeqCst);
                change(&accounts, &source);
            }
            ledger.body(&source)
        })
    };
    let uploaded = fixture
        .ingest
        .upload(&job.id, &source, |head| factory.attach(head));
    let error = uploaded.await.unwrap_err();
    assert_eq!(ledger.made(), 2);
    // The second attempt sends nothing of the changed file.
    assert_eq!(ledger.sent(), sent_before.load(Ordering::SeqCst));
    assert_eq!(fixture.org.upload(&job.id), None);
    // The job is still open, and can be aborted.
    assert_eq!(
        fixture.ingest.abort(&job.id).await.unwrap().state,
        "Aborted"
    );
    *error.downcast::<Failure>().expect("what is wrong")
}

#[tokio::test]
async fn a_file_that_changed_between_attempts_is_not_sent() {
    let longer = upload_and_change(Accounts::of(MIB), |accounts, source| {
        accounts.write_over(source.length(), "one more,,\n");
    });
    let message = longer.await.to_string();
    assert!(message.contains("accounts.csv changed"), "{message}");
    assert!(message.contains("were found"), "{message}");

    let written_over = upload_and_change(Accounts::of(MIB), |accounts, _| {
        accounts.write_over(0, "Nom");
    });
    let message = written_over.await.to_string();
    assert!(message.contains("it was written to"), "{message}");

    let removed = upload_and_change(Accounts::of(MIB), |accounts, _| {
        fs::remove_file(&accounts.path).unwrap();
    });
    let failure = removed.await;
    assert!(failure.to_string().contains("accounts.csv"), "{failure}");
    let Failure::Unreadable { error, .. } = failure else {
        panic!("{failure}");
    };
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_file_that_changes_during_the_upload_does_not_arrive() {
    // Truncated after the first piece; or written to, when all but the last piece was sent.
    for is_truncated in [true, false] {
        let accounts = Accounts::of(MIB);
        let org = Org::new();
        let ingest = in_process(&org);
        let source = accounts.source().await;
        let job = ingest.create("Account").await.unwrap();
        let (path, length) = (accounts.path.clone(), source.length());
        let left = AtomicU64::new(length);
        let body = source.body(move |bytes| {
            let sent = bytes as u64;
            let left = left.fetch_sub(sent, Ordering::SeqCst) - sent;
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            if is_truncated {
                file.set_len(2 * PIECE as u64).unwrap();
            } else if left <= PIECE as u64 {
                file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }
        });
        let uploaded = ingest.upload(&job.id, &source, |head| head.map(|()| body));
        let error = uploaded.await.unwrap_err();
        let failure = error.downcast_ref();
        assert!(matches!(failure, Some(Failure::Changed { .. })), "{error}");
        assert_eq!(org.upload(&job.id), None);
    }
}

#[tokio::test]
async fn a_missing_file_is_named_in_the_error() {
    let accounts = Accounts::of(100);
    let source = accounts.source().await;
    fs::remove_file(&accounts.path).unwrap();
    let error = Source::look_at(&accounts.path).await.unwrap_err();
    assert!(error.to_string().contains("accounts.csv"), "{error}");
    let directory = accounts.path.parent().unwrap();
    Source::look_at(directory).await.unwrap_err();

    let org = Org::new();
    let ingest = in_process(&org);
    let job = ingest.create("Account").await.unwrap();
    let body = source.body(|_| {});
    let uploaded = ingest.upload(&job.id, &source, |head| head.map(|()| body));
    let error = uploaded.await.unwrap_err();
    assert!(error.to_string().contains("accounts.csv"), "{error}");
}

// === Jobs ===

/// A job with these rows.
async fn filled(org: &Org, ingest: &Ingest<SalesforceAuth<Org>>, rows: &str) -> Job {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.csv");
    fs::write(&path, rows).unwrap();
    let source = Source::look_at(path).await.unwrap();
    let job = ingest.create("Account").await.unwrap();
    let body = source.body(|_| {});
    let uploaded = ingest.upload(&job.id, &source, |head| head.map(|()| body));
    assert!(matches!(uploaded.await.unwrap(), Uploaded::Taken { .. }));
    assert!(org.upload(&job.id).is_some());
    ingest.complete(&job.id).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_job_is_polled_until_it_ends() {
    let org = Org::new();
    let ingest = in_process(&org);
    let job = filled(&org, &ingest, "Name\nAcme\nGlobex\n").await;
    let impatient = Patience {
        polls: 1,
        ..PATIENCE
    };
    let error = ingest.wait(&job.id, &impatient).await.unwrap_err();
    assert!(
        error.to_string().contains("InProgress after 1 polls"),
        "{error}"
    );
    let job = ingest.wait(&job.id, &PATIENCE).await.unwrap();
    assert_eq!(
        (job.number_records_processed, job.number_records_failed),
        (2, 0)
    );

    // A job that failed, and a job that was aborted.
    let job = filled(&org, &ingest, "Name\r\nAcme\r\n").await;
    let error = ingest
        .wait(&job.id, &PATIENCE)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&job.id) && error.contains("LineEnding is invalid"),
        "{error}"
    );
    let job = filled(&org, &ingest, "Name\nAcme\n").await;
    ingest.abort(&job.id).await.unwrap();
    let error = ingest
        .wait(&job.id, &PATIENCE)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("Aborted"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn pauses_between_polls_double_up_to_the_longest() {
    // A job that never ends.
    let client = tower::service_fn(async |_: Request<Body>| {
        let job = r#"{"id":"750","state":"InProgress"}"#;
        Ok::<_, BoxError>(Response::new(Full::new(Bytes::from(job))))
    });
    let ingest = Ingest::new(client, "66.0");
    let patience = Patience {
        first_pause: Duration::from_secs(1),
        longest_pause: Duration::from_secs(5),
        polls: 6,
    };
    let started = tokio::time::Instant::now();
    ingest.wait("750", &patience).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::from_secs(1 + 2 + 4 + 5 + 5));
}

#[tokio::test]
async fn a_refusal_names_the_refused_step() {
    let org = Org::new();
    let ingest = in_process(&org);
    let error = ingest.create("Nothing").await.unwrap_err().to_string();
    assert!(
        error.contains("did not create a job: 400") && error.contains("INVALIDENTITY"),
        "{error}"
    );
    let error = ingest.complete("750").await.unwrap_err().to_string();
    assert!(error.contains("NOT_FOUND"), "{error}");

    // A file that is too large is not sent at all.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.csv");
    fs::File::create(&path)
        .unwrap()
        .set_len(MAX_LENGTH + 1)
        .unwrap();
    let source = Source::look_at(path).await.unwrap();
    let job = ingest.create("Account").await.unwrap();
    let before = org.counters().data_requests;
    let body = source.body(|_| {});
    let uploaded = ingest.upload(&job.id, &source, |head| head.map(|()| body));
    let error = uploaded.await.unwrap_err().to_string();
    assert!(error.contains("split it"), "{error}");
    assert_eq!(org.counters().data_requests, before);
}
