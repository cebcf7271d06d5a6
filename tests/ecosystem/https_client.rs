//! `HttpsClient`: TLS, proxies, and what it refuses to do.

use std::{
    net::Ipv4Addr,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tower::{ServiceBuilder, ServiceExt};
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, ReplayBody, SalesforceAuth, SalesforceAuthLayer, Session,
    SessionHandle,
    emulator::Org,
    flow::{HttpClient, RefreshToken},
    https::{HttpsClient, HttpsClientBuilder, Proxy, ResponseFuture, Roots},
    oauth::App,
};

use crate::{
    support::{all_at_once, read_head, redirecting_server},
    tls,
};

const LIMITS: &str = "/services/data/v66.0/limits";
const BOTH: [&str; 2] = ["h2", "http/1.1"];
/// `user` and `p@ss`, as in [`CREDENTIALS`].
const BASIC: &str = "Basic dXNlcjpwQHNz";
const CREDENTIALS: &str = "user:p%40ss";

// === TLS ===

#[tokio::test]
async fn alpn_chooses_http2_or_http1() {
    for roots in [Roots::Platform, Roots::WebPki] {
        for (protocols, expected) in [
            (&BOTH[..], Version::HTTP_2),
            (&BOTH[1..], Version::HTTP_11),
            (&[], Version::HTTP_11),
        ] {
            let org = Org::new();
            let served = tls::serve(&org, protocols).await.unwrap();
            let https = trusting(&[&served.root_pem]).roots(roots);
            let response = get(&https, &format!("{}{LIMITS}", served.url))
                .await
                .unwrap();
            assert_eq!(response.version(), expected, "{roots:?} {protocols:?}");
            // The request had no token, so the org answers this.
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        }
    }
}

#[tokio::test]
async fn an_untrusted_root_is_refused() {
    let org = Org::new();
    let served = tls::serve(&org, &BOTH).await.unwrap();
    // A certificate of the same name with another key.
    let (_, another_root) = tls::acceptor(&BOTH).unwrap();
    for (https, expected) in [
        (trusting(&[]).roots(Roots::WebPki), "UnknownIssuer"),
        (
            trusting(&[&another_root]).roots(Roots::WebPki),
            "BadSignature",
        ),
        (trusting(&[&another_root]), "BadSignature"),
    ] {
        let error = get(&https, &served.url).await.unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Connect);
        let told = chain(&error);
        assert!(told.contains(expected), "{told}");
    }
    assert_eq!(org.counters().requests, 0);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let org = Org::new();
    let served = tls::serve(&org, &BOTH).await.unwrap();
    let https = trusting(&[&served.root_pem]);
    let url = served.url.replace("localhost", "127.0.0.1");
    let error = get(&https, &url).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Connect);
    let told = chain(&error);
    assert!(told.contains("not valid for name"), "{told}");
    assert_eq!(org.counters().requests, 0);
}

#[test]
fn a_root_that_is_no_certificate_is_an_error() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let begun = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (pem, expected) in [
        ("", "no root certificate"),
        (&*key, "no root certificate"),
        (begun, "not PEM"),
        (nonsense, "cannot be read"),
    ] {
        let error = HttpsClient::builder().root_certificates(pem).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidCertificate);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_private_key_among_the_roots_is_not_shown() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    // As it often is in environment variables.
    let in_one_line = key.replace('\n', "");
    let begun = key.replace("-----END", "-----ENDED");
    let broken = key.replace("KEY-----\n", "KEY----\n");
    for pem in [in_one_line, begun, broken] {
        let error = HttpsClient::builder().root_certificates(&pem).unwrap_err();
        let told = format!("{error:?} {}", chain(&error.clone().into()));
        let secret = &key.lines().nth(1).unwrap()[..16];
        let secret_as_numbers = format!("{:?}", secret.as_bytes());
        for secret in [secret, secret_as_numbers.trim_matches(['[', ']'])] {
            assert!(!told.contains(secret), "{told}");
        }
    }
}

// === Plain HTTP ===

#[tokio::test]
async fn plain_http_beyond_loopback_is_refused_before_it_connects() {
    // This address is no loopback address, but it reaches the listener.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = ConnectProxy::start(None).await;
    let https = HttpsClient::builder().proxy(Proxy::url(seen.url()).unwrap());
    for https in [https.clone(), https.proxy(Proxy::none())] {
        for url in [
            &format!("http://0.0.0.0:{port}/"),
            "http://MyDomainName.my.salesforce.com/",
            "http://user:secret@localhost.example.com/",
        ] {
            let error = tokio::select! {
                response = get(&https, url) => response.unwrap_err(),
                _ = listener.accept() => panic!("{url} was connected to"),
            };
            assert_eq!(kind(&error), ErrorKind::InvalidUrl, "{url}");
            let told = chain(&error);
            assert!(told.contains("over https only"), "{told}");
            assert!(!told.contains("secret"), "{told}");
        }
    }
    assert!(listener.accept().now_or_never().is_none());
    assert_eq!(seen.requests(), [] as [String; 0]);
}

#[tokio::test]
async fn plain_http_to_loopback_uses_no_proxy() {
    let org = Org::new();
    let served = org.serve().await.unwrap();
    let proxy = ConnectProxy::start(None).await;
    let https = HttpsClient::builder().proxy(Proxy::url(proxy.url()).unwrap());
    let response = get(&https, served.url()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(proxy.requests(), [] as [String; 0]);
}

// === Proxies ===

#[tokio::test]
async fn a_request_through_a_proxy_uses_one_tunnel() {
    let org = Org::new();
    let served = tls::serve(&org, &BOTH).await.unwrap();
    let proxy = ConnectProxy::start(None).await;
    for (url, authorization) in [
        (proxy.url(), None),
        (proxy.url().replace("http://", ""), None),
        (proxy.url_with(CREDENTIALS), Some(BASIC)),
    ] {
        let https = trusting(&[&served.root_pem]).proxy(Proxy::url(url).unwrap());
        let client = https.build().unwrap();
        // Two requests, one tunnel.
        for _ in 0..2 {
            let response = send(&client, &served.url).await.unwrap();
            assert_eq!(response.version(), Version::HTTP_2);
            response.into_body().collect().await.unwrap();
        }
        let request = &proxy.take_requests()[..];
        let [request] = request else {
            panic!("{request:?}");
        };
        let authority = served.url.strip_prefix("https://").unwrap();
        let first_line = format!("CONNECT {authority} HTTP/1.1\r\n");
        assert!(request.starts_with(&first_line), "{request}");
        assert_eq!(proxy_authorization(request), authorization);
    }
    assert_eq!(org.counters().requests, 6);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let org = Org::new();
    let served = tls::serve(&org, &BOTH).await.unwrap();
    let proxy = ConnectProxy::start(Some(BASIC)).await;
    let https = trusting(&[&served.root_pem]);

    let known = https
        .clone()
        .proxy(Proxy::url(proxy.url_with(CREDENTIALS)).unwrap());
    assert!(get(&known, &served.url).await.is_ok());

    let unknown = Proxy::url(proxy.url_with("stranger:hunter2")).unwrap();
    let https = https.proxy(unknown.clone());
    let error = get(&https, &served.url).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Connect);
    let told = chain(&error);
    assert!(told.contains("proxy authorization required"), "{told}");
    let named = format!("no way through the proxy {}", proxy.url());
    assert!(told.contains(&named), "{told}");

    let client: HttpsClient<Full<Bytes>> = https.build().unwrap();
    let shown = format!("{told} {error:?} {unknown:?} {https:?} {client:?}");
    for secret in ["hunter2", "stranger", "c3RyYW5nZXI6aHVudGVyMg"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert_eq!(org.counters().requests, 1);
}

#[tokio::test]
async fn a_proxy_with_tls_is_used_if_its_root_is_trusted() {
    let org = Org::new();
    let served = tls::serve(&org, &BOTH).await.unwrap();
    // A proxy that offers HTTP/2 gets HTTP/1.1: CONNECT is sent over HTTP/1.1.
    let (acceptor, proxy_root) = tls::acceptor(&BOTH).unwrap();
    let proxy = ConnectProxy::start_with(Some(BASIC), move |stream| {
        let accepting = acceptor.accept(stream);
        async move {
            let stream = accepting.await?;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            Ok(stream)
        }
    })
    .await;
    let url = proxy.url_with(CREDENTIALS).replace("http://", "https://");
    let url = url.replace("127.0.0.1", "localhost");
    let proxied = trusting(&[&served.root_pem, &proxy_root]).proxy(Proxy::url(&*url).unwrap());
    let response = get(&proxied, &served.url).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(proxy.take_requests().len(), 1);

    let suspicious = trusting(&[&served.root_pem]).proxy(Proxy::url(&*url).unwrap());
    let error = get(&suspicious, &served.url).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Connect);
    assert_eq!(proxy.requests(), [] as [String; 0]);
}

#[tokio::test]
async fn a_socks5_proxy_gets_the_host_name_and_the_password() {
    let org = Org::new();
    let served = tls::serve(&org, &BOTH).await.unwrap();
    for scheme in ["socks5", "socks5h"] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut proxy = JoinSet::new();
        proxy.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let told = socks5_handshake(&mut stream).await;
            let mut target = TcpStream::connect(("127.0.0.1", told.port)).await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut target).await;
            told
        });
        let url = format!("{scheme}://{CREDENTIALS}@{address}");
        let https = trusting(&[&served.root_pem]).proxy(Proxy::url(url).unwrap());
        let response = get(&https, &served.url).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        drop(response);
        // Dropping the client has closed its connection.
        let told = proxy.join_next().await.unwrap().unwrap();
        assert_eq!(
            (&*told.host, &*told.user, &*told.password),
            ("localhost", "user", "p@ss")
        );
    }
}

#[test]
fn an_unusable_proxy_is_an_error_without_its_secrets() {
    for (url, expected) in [
        (
            "socks4://user:hunter2@proxy.example.com:1080",
            "the scheme socks4",
        ),
        ("ftp://user:hunter2@proxy.example.com", "the scheme ftp"),
        ("http://user:hunter2 @proxy.example.com", "not a URL"),
        ("/hunter2", "no host"),
        ("", "not a URL"),
        // Special characters have to be percent-encoded: otherwise a part of the password could be shown.
        (
            "http://user:p@hunter2@proxy.example.com:3128",
            "percent-encoded",
        ),
        (
            "http://hunter2:12/34@proxy.example.com:3128",
            "percent-encoded",
        ),
        ("hunter2:12/34@proxy.example.com:3128", "not a URL"),
        (
            "http://hunter2:12?34@proxy.example.com:3128",
            "percent-encoded",
        ),
        (
            "http://hunter2:12#34@proxy.example.com:3128",
            "percent-encoded",
        ),
        (
            "http://hunter2:pa/ss@proxy.example.com:3128",
            "percent-encoded",
        ),
        // The port is invalid or missing.
        ("http://user:hunter2@proxy.example.com:3l28", "port"),
        ("http://user:hunter2@proxy.example.com:99999", "port"),
        ("http://user:hunter2@proxy.example.com:", "port"),
        ("socks5://user:hunter2@proxy.example.com", "port"),
    ] {
        let error = Proxy::url(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUrl);
        let told = format!("{error} {error:?}");
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_proxy_url_with_a_host_is_accepted() {
    for url in [
        "http://proxy.example.com",
        "http://proxy.example.com/",
        "proxy.example.com:3128",
        "https://user:p%40ss@proxy.example.com",
        "http://[::1]:3128",
        "http://user:p%40ss@[::1]",
        "socks5://[::1]:1080",
    ] {
        assert!(Proxy::url(url).is_ok(), "{url}");
    }
}

#[tokio::test]
async fn an_excepted_host_is_reached_without_the_proxy() {
    let org = Org::new();
    let served = tls::serve(&org, &BOTH).await.unwrap();
    let proxy = ConnectProxy::start(None).await;
    for (except, tunnels) in [
        ("localhost", 0),
        ("example.com, .localhost", 0),
        ("*", 0),
        ("", 1),
        ("host", 1),
        ("127.0.0.1", 1),
    ] {
        let by_proxy = Proxy::url(proxy.url()).unwrap();
        let by_proxy = by_proxy.except("internal.example.com").except(except);
        let https = trusting(&[&served.root_pem]).proxy(by_proxy);
        get(&https, &served.url).await.unwrap();
        assert_eq!(proxy.take_requests().len(), tunnels, "{except:?}");
    }
}

// === The environment ===

#[tokio::test]
async fn the_environment_names_the_proxy() {
    let org = Org::new();
    let served = tls::serve(&org, &BOTH).await.unwrap();
    let proxy = ConnectProxy::start(None).await;
    let other = ConnectProxy::start(None).await;
    let with_password = proxy.url_with(CREDENTIALS);
    let (url, other_url) = (proxy.url(), other.url());

    let cases: [(&[(&str, &str)], usize); 10] = [
        (&[], 0),
        (&[("HTTPS_PROXY", &with_password)], 1),
        (&[("https_proxy", &url)], 1),
        (&[("ALL_PROXY", &url)], 1),
        (&[("all_proxy", &url)], 1),
        (&[("HTTPS_PROXY", &url), ("ALL_PROXY", &other_url)], 1),
        (&[("HTTPS_PROXY", &url), ("NO_PROXY", "localhost")], 0),
        (
            &[("ALL_PROXY", &url), ("no_proxy", "example.com,localhost")],
            0,
        ),
        (&[("HTTPS_PROXY", ""), ("https_proxy", &url)], 0),
        (&[("HTTP_PROXY", &url), ("http_proxy", &url)], 0),
    ];
    for (variables, tunnels) in cases {
        let said = in_environment(variables, &served).await;
        assert_eq!(said, "404 Not Found", "{variables:?}");
        let requests = proxy.take_requests();
        assert_eq!(requests.len(), tunnels, "{variables:?}");
        if variables
            .first()
            .is_some_and(|(_, value)| *value == with_password)
        {
            assert_eq!(proxy_authorization(&requests[0]), Some(BASIC));
        }
    }
    assert_eq!(other.requests(), [] as [String; 0]);

    // An invalid proxy is an error: going without the proxy could leak requests.
    let before = org.counters().requests;
    for (name, url, expected) in [
        (
            "HTTPS_PROXY",
            "ftp://user:hunter2@proxy.example.com",
            "the scheme ftp",
        ),
        (
            "all_proxy",
            "http://user:hunter2 @proxy.example.com",
            "not a URL",
        ),
    ] {
        let said = in_environment(&[(name, url)], &served).await;
        assert!(said.contains(name) && said.contains(expected), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert_eq!(org.counters().requests, before);
}

const PART: &str = "HTTPS_CLIENT_PART";

/// The result of a request by a default client, in another process with these variables.
async fn in_environment(variables: &[(&str, &str)], served: &tls::TlsServed) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in [
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "REQUEST_METHOD",
    ] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    let output = command
        .args(["--exact", "https_client::in_another_process", "--ignored"])
        .args(["--nocapture", "--test-threads=1"])
        .env(PART, format!("{}\n{}", served.url, served.root_pem))
        .envs(variables.iter().copied())
        .stderr(Stdio::inherit())
        .output()
        .await
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    // The harness prints on the same line before the test runs.
    let said = output.lines().find_map(|line| line.split_once("@@ "));
    said.expect("a result").1.to_owned()
}

#[tokio::test]
#[ignore = "a part of another test, for a separate process"]
async fn in_another_process() {
    // The default provider of the process is useless. The client has its own.
    let provider = CryptoProvider {
        cipher_suites: Vec::new(),
        ..aws_lc_rs::default_provider()
    };
    provider.install_default().unwrap();
    let part = std::env::var(PART).unwrap();
    let (url, root_pem) = part.split_once('\n').unwrap();
    let builder = HttpsClient::builder().root_certificates(root_pem).unwrap();
    let said = match builder.build() {
        Ok(client) => match send(&client, url).await {
            Ok(response) => response.status().to_string(),
            Err(error) => chain(&error),
        },
        Err(error) => error.to_string(),
    };
    println!("@@ {said}");
}

// === Time ===

#[tokio::test(start_paused = true)]
async fn a_silent_server_times_out() {
    // A server that accepts connections and sends nothing: no TLS, and no answer of a proxy.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let directly = format!("https://{address}/");
    let by_proxy = Proxy::url(format!("http://{address}")).unwrap();
    let default = HttpsClient::builder().proxy(Proxy::none());
    let short = default.clone().connect_timeout(Duration::from_secs(3));
    for (https, url, seconds) in [
        (default, &*directly, 10),
        (short.clone(), &*directly, 3),
        (
            short.proxy(by_proxy),
            "https://MyDomainName.my.salesforce.com/",
            3,
        ),
    ] {
        let started = Instant::now();
        let error = get(&https, url).await.unwrap_err();
        assert_eq!(started.elapsed().as_secs(), seconds);
        assert_eq!(kind(&error), ErrorKind::Connect);
        let told = chain(&error);
        assert!(told.contains(&format!("within {seconds}s")), "{told}");
    }
}

// === Redirects ===

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (url, target) = redirecting_server().await;
    let response = get(&HttpsClient::builder(), &url).await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    assert!(target.accept().now_or_never().is_none());
}

// === Below the layer ===

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_rejections_over_tls_costs_one_refresh() {
    const CALLERS: u32 = 200;
    for protocols in [&BOTH[..], &BOTH[1..]] {
        let org = Org::new();
        let served = tls::serve(&org, protocols).await.unwrap();
        let grant = org.authorize();
        let https = trusting(&[&served.root_pem]);
        let app = App::new(served.url.parse().unwrap(), org.client_id())
            .client_secret(org.client_secret());
        let flow = RefreshToken::new(https.build().unwrap(), app, grant.refresh_token());
        let session = Session::new(grant.access_token(), grant.instance_url()).unwrap();
        let handle = SessionHandle::builder(flow)
            .initial_session(session)
            .build();
        let client = ServiceBuilder::new()
            .layer(SalesforceAuthLayer::from(handle))
            .map_future(all_at_once(CALLERS))
            .service(https.build().unwrap());
        org.expire_sessions();

        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let client = client.clone();
            callers.spawn(async move {
                let request = Request::get(LIMITS).body(Full::<Bytes>::default())?;
                let response = client.oneshot(request).await?;
                let status = response.status();
                response.into_body().collect().await?;
                Ok::<_, BoxError>(status)
            });
        }
        for status in callers.join_all().await {
            assert_eq!(status.unwrap(), StatusCode::OK);
        }
        let counters = org.counters();
        assert_eq!(counters.token_requests, 1);
        assert_eq!(counters.data_rejected, u64::from(CALLERS));
        assert_eq!(counters.data_requests, 2 * u64::from(CALLERS));
        assert_eq!(counters.requests_with_several_authorizations, 0);
    }
}

#[test]
fn the_client_types_have_the_bounds_of_a_stack() {
    fn sent<T: Send + 'static>() {}
    fn shared<T: Clone + Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
    fn sends_for_a_flow<C: HttpClient>() {}
    sent::<ResponseFuture>();
    sent::<SalesforceAuth<HttpsClient<ReplayBody<Full<Bytes>>>>>();
    shared::<HttpsClient<Full<Bytes>>>();
    // The body needs neither `Clone` nor `Sync`.
    shared::<HttpsClient<http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>>>();
    shared::<HttpsClientBuilder>();
    shared::<Proxy>();
    sends_for_a_flow::<HttpsClient<Full<Bytes>>>();
}

// === A client ===

/// A client that trusts these roots as well, and uses no proxy.
fn trusting(root_pems: &[&str]) -> HttpsClientBuilder {
    root_pems.iter().fold(
        HttpsClient::builder().proxy(Proxy::none()),
        |builder, pem| builder.root_certificates(pem).unwrap(),
    )
}

async fn get(https: &HttpsClientBuilder, url: &str) -> Result<Response<Incoming>, BoxError> {
    send(&https.build().unwrap(), url).await
}

async fn send(
    client: &HttpsClient<Full<Bytes>>,
    url: &str,
) -> Result<Response<Incoming>, BoxError> {
    let request = Request::get(url).body(Full::default()).unwrap();
    client.clone().oneshot(request).await
}

fn kind(error: &BoxError) -> ErrorKind {
    let error = error.downcast_ref::<Error>();
    error.expect("an error of this crate").kind()
}

fn chain(error: &BoxError) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

// === Test proxies ===

/// An HTTP proxy that makes tunnels, and records its requests.
struct ConnectProxy {
    address: std::net::SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    _accepting: JoinSet<()>,
}

impl ConnectProxy {
    /// Clients have to send `authorization`, if it is `Some`.
    async fn start(authorization: Option<&'static str>) -> Self {
        Self::start_with(authorization, async |stream| Ok(stream)).await
    }

    /// The proxy, over the streams that `accept` makes of connections.
    async fn start_with<S, F>(
        authorization: Option<&'static str>,
        accept: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = std::io::Result<S>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&requests);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut tunnels = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (accepted, heard) = (accept(stream), Arc::clone(&heard));
                tunnels.spawn(async move {
                    let Ok(mut stream) = accepted.await else {
                        return;
                    };
                    let head = read_head(&mut stream).await;
                    let is_known =
                        authorization.is_none_or(|known| proxy_authorization(&head) == Some(known));
                    let authority = head.split(' ').nth(1).unwrap().to_owned();
                    heard.lock().unwrap().push(head);
                    if !is_known {
                        let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
                        stream.write_all(refusal.as_bytes()).await.unwrap();
                        return;
                    }
                    let mut target = TcpStream::connect(authority).await.unwrap();
                    let consent = "HTTP/1.1 200 Connection established\r\n\r\n";
                    stream.write_all(consent.as_bytes()).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut target).await;
                });
            }
        });
        Self {
            address,
            requests,
            _accepting: accepting,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn url_with(&self, credentials: &str) -> String {
        format!("http://{credentials}@{}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

fn proxy_authorization(head: &str) -> Option<&str> {
    head.lines()
        .find_map(|line| line.strip_prefix("Proxy-Authorization: "))
}

/// The request of a client of a SOCKS5 proxy (RFC 1928, RFC 1929).
struct SocksRequest {
    host: String,
    port: u16,
    user: String,
    password: String,
}

async fn socks5_handshake(stream: &mut TcpStream) -> SocksRequest {
    async fn text(stream: &mut TcpStream) -> String {
        let length = stream.read_u8().await.unwrap();
        let mut text = vec![0; length.into()];
        stream.read_exact(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }
    assert_eq!(stream.read_u8().await.unwrap(), 5);
    let methods = text(stream).await;
    assert!(methods.contains('\x02'), "{methods:?}");
    stream.write_all(&[5, 2]).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 1);
    let (user, password) = (text(stream).await, text(stream).await);
    stream.write_all(&[1, 0]).await.unwrap();
    let mut request = [0; 4];
    stream.read_exact(&mut request).await.unwrap();
    // CONNECT, to a name.
    assert_eq!(request, [5, 1, 0, 3]);
    let host = text(stream).await;
    let port = stream.read_u16().await.unwrap();
    let done = [5, 0, 0, 1, 127, 0, 0, 1, 0, 0];
    stream.write_all(&done).await.unwrap();
    SocksRequest {
        host,
        port,
        user,
        password,
    }
}
