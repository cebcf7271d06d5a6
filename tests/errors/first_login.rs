//! A first login that reaches no server. Only sockets of loopback are used.

use std::{
    fmt, io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{io::AsyncWriteExt, net::TcpListener, runtime, task::JoinSet, time::Instant};
use tower::{Service, ServiceExt, service_fn};
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, RefreshContext, RefreshError, Session, SessionHandle,
    emulator::Org,
    flow::{ClientCredentials, HttpClient},
    https::{HttpsClient, HttpsClientBuilder, Proxy},
    oauth::App,
    observer::{Observer, RefreshFailed},
    store::{MemoryStore, Record, Save, SessionStore},
};

use crate::{report::check, tls};

/// The longest time of a first login that reaches no server.
const SOON: Duration = Duration::from_secs(3);

/// The attempts that failed.
#[derive(Clone, Default)]
struct Attempts(Arc<Mutex<u32>>);

impl Observer for Attempts {
    fn refresh_failed(&self, _event: &RefreshFailed) {
        *self.0.lock().unwrap() += 1;
    }
}

/// How a login ended.
struct Ended {
    error: Error,
    attempts: u32,
    /// The pauses between the attempts: the clock is paused while a client works.
    pauses: Duration,
}

impl Ended {
    fn is_soon(&self) -> bool {
        // The first pauses are 250, 500 and 1,000 ms at least.
        (2..=4).contains(&self.attempts) && self.pauses < SOON
    }
}

async fn log_in(handle: tower_salesforce_auth::handle::SessionHandleBuilder) -> Ended {
    let attempts = Attempts::default();
    let handle = handle.observer(attempts.clone()).build();
    let began = Instant::now();
    let error = handle.session().await.unwrap_err();
    let attempts = *attempts.0.lock().unwrap();
    Ended {
        error,
        attempts,
        pauses: began.elapsed(),
    }
}

/// Logs in to this URL, with this client, for the first time.
async fn first_login(client: impl HttpClient, login_url: &str) -> Ended {
    let app = App::new(login_url.parse().unwrap(), "3MVG9").client_secret("SECRET-hush");
    log_in(SessionHandle::builder(ClientCredentials::new(client, app))).await
}

/// A client that works on a runtime of its own, whose clock runs. The paused clock waits for it.
fn elsewhere<C>(client: C) -> impl HttpClient
where
    C: Service<Request<Full<Bytes>>, Response = Response<Incoming>> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError>,
{
    service_fn(move |request: Request<Full<Bytes>>| {
        let client = client.clone();
        async move {
            let sending = tokio::task::spawn_blocking(move || {
                let runtime = runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let sent = runtime
                    .block_on(client.oneshot(request))
                    .map_err(Into::into)?;
                Ok::<_, BoxError>(sent.map(|_| Full::<Bytes>::default()))
            });
            sending.await?
        }
    })
}

fn https() -> HttpsClientBuilder {
    HttpsClient::builder().proxy(Proxy::none())
}

/// A port of loopback that refuses.
async fn refused_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

/// A server that begins each connection with these bytes.
async fn serving(bytes: &'static [u8]) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(bytes).await;
            open.push(stream);
        }
    });
    (port, accepting)
}

// === With `HttpsClient` ===

#[tokio::test(start_paused = true)]
async fn r11_a_first_login_to_an_unknown_name_fails_soon() {
    let ended = first_login(elsewhere(https().build().unwrap()), "https://name.invalid").await;
    assert!(ended.is_soon(), "{} {:?}", ended.attempts, ended.pauses);
    let parts = [
        "name.invalid could not be reached",
        "lookup",
        "check the name of the host",
    ];
    let line = check(ended.error, &parts);
    assert!(!line.contains(":443"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn r11_a_first_login_to_a_refused_port_fails_soon() {
    let port = refused_port().await;
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://localhost:{port}");
        let ended = first_login(elsewhere(https().build().unwrap()), &url).await;
        assert!(ended.is_soon(), "{} {:?}", ended.attempts, ended.pauses);
        let host = format!("localhost:{port} could not be reached");
        check(ended.error, &[&host, "refused", "no server listens there"]);
    }
}

#[tokio::test(start_paused = true)]
async fn r11_a_first_login_whose_tls_fails_ends_soon() {
    let org = Org::new();
    let served = tls::serve(&org, &["http/1.1"]).await.unwrap();
    let (port, _plain) = serving(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let trusting = https().root_certificates(&served.root_pem).unwrap();
    let another_name = served.url.replace("localhost", "127.0.0.1");
    let certificate = "trust its root certificate";
    for (client, url, cause, remedy) in [
        (https(), served.url.clone(), "UnknownIssuer", certificate),
        (
            trusting.clone(),
            another_name,
            "not valid for name",
            certificate,
        ),
        (
            trusting,
            format!("https://localhost:{port}"),
            "InvalidContentType",
            "an HTTPS server",
        ),
    ] {
        let ended = first_login(elsewhere(client.build().unwrap()), &url).await;
        assert!(ended.is_soon(), "{} {:?}", ended.attempts, ended.pauses);
        let host = url.strip_prefix("https://").unwrap();
        let host = format!("{host} could not be reached");
        check(ended.error, &[&host, cause, remedy]);
    }
    assert_eq!(org.counters().requests, 0);
}

#[tokio::test(start_paused = true)]
async fn r11_a_first_login_whose_proxy_refuses_ends_soon() {
    let proxy = format!("http://127.0.0.1:{}", refused_port().await);
    let client = HttpsClient::builder().proxy(Proxy::url(&*proxy).unwrap());
    let url = "https://example.my.salesforce.com";
    let ended = first_login(elsewhere(client.build().unwrap()), url).await;
    assert!(ended.is_soon(), "{} {:?}", ended.attempts, ended.pauses);
    let parts = [
        "example.my.salesforce.com could not be reached",
        &proxy,
        "refused",
    ];
    check(ended.error, &parts);
}

/// A handshake that does not go on is a slow network.
#[tokio::test(start_paused = true)]
async fn r11_a_connection_that_takes_long_is_waited_for() {
    let (port, _silent) = serving(b"").await;
    let client = https()
        .connect_timeout(Duration::from_millis(20))
        .build()
        .unwrap();
    let ended = first_login(elsewhere(client), &format!("https://localhost:{port}")).await;
    assert!(
        ended.attempts > 4 && ended.pauses > SOON,
        "{}",
        ended.attempts
    );
    let host = format!("localhost:{port} could not be reached");
    let parts = [&*host, "no connection within 20ms", "check the network"];
    check(ended.error, &parts);
}

// === With other clients ===

#[tokio::test(start_paused = true)]
async fn r11_a_first_login_with_hypers_client_fails_soon() {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let url = format!("http://127.0.0.1:{}", refused_port().await);
    let ended = first_login(elsewhere(client), &url).await;
    assert!(ended.is_soon(), "{} {:?}", ended.attempts, ended.pauses);
    let host = url.replace("http://", "");
    check(
        ended.error,
        &[&format!("{host} could not be reached"), "refused"],
    );
}

/// A client whose requests fail with this error.
fn failing(error: impl Fn() -> BoxError + Clone + Send + Sync + 'static) -> impl HttpClient {
    service_fn(move |_: Request<Full<Bytes>>| {
        let error = error();
        async { Err::<Response<Full<Bytes>>, _>(error) }
    })
}

#[tokio::test(start_paused = true)]
async fn r11_the_kind_of_an_io_error_tells_whether_it_reached() {
    use io::ErrorKind::*;
    let url = "https://example.my.salesforce.com";
    for kind in [
        ConnectionRefused,
        HostUnreachable,
        NetworkUnreachable,
        NetworkDown,
        AddrNotAvailable,
    ] {
        let client = failing(move || io::Error::other(io::Error::from(kind)).into());
        let ended = first_login(client, url).await;
        assert!(
            ended.is_soon(),
            "{kind} {} {:?}",
            ended.attempts,
            ended.pauses
        );
    }
    for kind in [
        TimedOut,
        ConnectionReset,
        BrokenPipe,
        UnexpectedEof,
        NotFound,
    ] {
        let client = failing(move || io::Error::from(kind).into());
        let ended = first_login(client, url).await;
        assert!(
            ended.attempts > 4 && ended.pauses > SOON,
            "{kind} {}",
            ended.attempts
        );
    }
}

/// hyper-util's error below that of another client.
#[derive(Debug)]
struct OfConnection(io::Error);

impl fmt::Display for OfConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("client error (Connect)")
    }
}

impl std::error::Error for OfConnection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn r11_a_connect_error_is_known_by_its_text() {
    for (cause, is_soon) in [
        ("the peer has hung up", true),
        ("operation timed out", false),
    ] {
        let client = failing(move || OfConnection(io::Error::other(cause)).into());
        let ended = first_login(client, "https://example.my.salesforce.com").await;
        assert_eq!(
            ended.is_soon(),
            is_soon,
            "{} {:?}",
            ended.attempts,
            ended.pauses
        );
        let parts = ["example.my.salesforce.com could not be reached", cause];
        check(ended.error, &parts);
    }
}

#[tokio::test(start_paused = true)]
async fn r11_a_refresh_function_that_reaches_nothing_fails_soon() {
    let ended = log_in(SessionHandle::builder(async |_: RefreshContext| {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        Err::<Session, _>(RefreshError::transient(refused))
    }));
    let ended = ended.await;
    assert!(ended.is_soon(), "{} {:?}", ended.attempts, ended.pauses);
    assert_eq!(ended.error.kind(), ErrorKind::Refresh);
}

// === After the first session ===

/// A client that reaches its org until it is unplugged.
fn unpluggable(org: &Org, left: u32) -> impl HttpClient {
    let (org, left) = (org.clone(), Arc::new(AtomicU32::new(left)));
    service_fn(move |request: Request<Full<Bytes>>| {
        let is_plugged = left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        let org = org.clone();
        async move {
            if is_plugged {
                return org.oneshot(request).await;
            }
            Err(io::Error::from(io::ErrorKind::ConnectionRefused).into())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn r11_after_a_session_the_server_is_waited_for() {
    for is_stored in [false, true] {
        let org = Org::new();
        let app = App::new(org.login_url().parse().unwrap(), org.client_id())
            .client_secret(org.client_secret());
        let attempts = Attempts::default();
        // The session comes from the store, or from a first login.
        let flow = ClientCredentials::new(unpluggable(&org, u32::from(!is_stored)), app);
        let mut handle = SessionHandle::builder(flow).observer(attempts.clone());
        if is_stored {
            let store = MemoryStore::new();
            let session =
                Session::new(org.authorize().access_token(), &org.instance_url()).unwrap();
            let mut lock = store.lock("user").await.unwrap();
            let record = Record::new(session);
            lock.save(Save::new(&record)).await.unwrap();
            lock.unlock().await;
            handle = handle.store(store, "user");
        }
        let handle = handle.build();
        let live = handle.session().await.unwrap();
        handle.invalidate(live.generation());
        let began = Instant::now();
        handle.session().await.unwrap_err();
        let attempts = *attempts.0.lock().unwrap();
        assert!(
            attempts > 4 && began.elapsed() > SOON,
            "{is_stored} {attempts}"
        );
    }
}
