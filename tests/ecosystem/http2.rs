//! Requests that an HTTP/2 server has not processed are sent again (R29; RFC 9113 §8.7).

use std::{
    net::Ipv4Addr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tower::{ServiceExt, service_fn};
use tower_salesforce_auth::{
    BoxError,
    https::{HttpsClient, Proxy, Roots},
};

use crate::tls;

const REFUSED_STREAM: u32 = 7;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(3, 0, stream, &reason.to_be_bytes())
}

fn go_away(last_stream: u32, reason: u32) -> Vec<u8> {
    frame(
        7,
        0,
        0,
        &[last_stream.to_be_bytes(), reason.to_be_bytes()].concat(),
    )
}

/// What a server by hand does with a stream. `None` answers with 200 once the request has ended.
type Script = fn(number: usize, stream: u32) -> Option<Vec<u8>>;

struct Served {
    url: String,
    root: String,
    /// How many streams began.
    streams: Arc<AtomicUsize>,
    /// The bodies of all requests that were answered.
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A server over HTTP/2, by hand. It closes a connection after a GOAWAY.
async fn serve(script: Script) -> Served {
    let (acceptor, root) = tls::acceptor(&["h2"]).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    let served = Served {
        url,
        root,
        streams: Arc::default(),
        bodies: Arc::default(),
    };
    let (streams, bodies) = (Arc::clone(&served.streams), Arc::clone(&served.bodies));
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, streams, bodies) =
                (acceptor.clone(), Arc::clone(&streams), Arc::clone(&bodies));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(tcp).await else {
                    return;
                };
                let _ = speak(&mut stream, script, &streams, &bodies).await;
            });
        }
    });
    served
}

async fn speak(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    script: Script,
    streams: &AtomicUsize,
    bodies: &Mutex<Vec<Vec<u8>>>,
) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    // SETTINGS and WINDOW_UPDATE: as much as any body needs.
    stream
        .write_all(&frame(4, 0, 0, &[0, 4, 0x3f, 0xff, 0xff, 0xff]))
        .await?;
    stream
        .write_all(&frame(8, 0, 0, &[0x3f, 0xff, 0, 0]))
        .await?;
    let mut head = [0; 9];
    let mut refused = Vec::new();
    let mut body = Vec::new();
    loop {
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await?;
        let ends = head[4] & 1 != 0;
        match head[3] {
            4 if !ends => stream.write_all(&frame(4, 1, 0, &[])).await?,
            6 if !ends => stream.write_all(&frame(6, 1, 0, &payload)).await?,
            1 => {
                let number = streams.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = script(number, id) {
                    stream.write_all(&answer).await?;
                    refused.push(id);
                    if answer[3] == 7 {
                        return stream.shutdown().await;
                    }
                }
            }
            0 if !refused.contains(&id) => body.extend(payload),
            _ => {}
        }
        if matches!(head[3], 0 | 1) && ends && !refused.contains(&id) {
            bodies.lock().unwrap().push(std::mem::take(&mut body));
            // `:status: 200`, END_HEADERS and END_STREAM.
            stream.write_all(&frame(1, 5, id, &[0x88])).await?;
        }
    }
}

fn client<B>(root: &str) -> HttpsClient<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let builder = HttpsClient::builder()
        .roots(Roots::WebPki)
        .proxy(Proxy::none());
    builder.root_certificates(root).unwrap().build().unwrap()
}

async fn post<B>(served: &Served, body: B) -> Result<StatusCode, BoxError>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let request = Request::post(&served.url).body(body).unwrap();
    let response = client::<B>(&served.root).oneshot(request).await?;
    Ok(response.status())
}

/// A body in pieces.
fn in_pieces(
    pieces: usize,
    size: usize,
) -> impl Body<Data = Bytes, Error = BoxError> + Send + Unpin + 'static {
    let frames = (0..pieces).map(move |n| {
        let byte = u8::try_from(n % 251).unwrap();
        Ok(Frame::data(Bytes::from(vec![byte; size])))
    });
    StreamBody::new(futures_util::stream::iter(frames))
}

fn bytes_of(pieces: usize, size: usize) -> Vec<u8> {
    (0..pieces)
        .flat_map(|n| vec![u8::try_from(n % 251).unwrap(); size])
        .collect()
}

/// What says that the first streams were not processed.
const UNPROCESSED: [(&str, Script); 5] = [
    ("REFUSED_STREAM", |n, id| {
        (n == 0).then(|| reset(id, REFUSED_STREAM))
    }),
    ("REFUSED_STREAM three times", |n, id| {
        (n < 3).then(|| reset(id, REFUSED_STREAM))
    }),
    ("GOAWAY", |n, id| (n == 0).then(|| go_away(id - 1, 0))),
    ("GOAWAY before any stream", |n, _| {
        (n == 0).then(|| go_away(0, 0))
    }),
    ("GOAWAY with a reason", |n, _| {
        (n == 0).then(|| go_away(0, 11))
    }),
];

#[tokio::test]
async fn r29_what_was_not_processed_is_sent_again() {
    for (name, script) in UNPROCESSED {
        let served = serve(script).await;
        let request = Request::get(&served.url)
            .body(Full::<Bytes>::default())
            .unwrap();
        let response = client(&served.root).oneshot(request).await;
        assert_eq!(response.unwrap().status(), 200, "{name}");

        for body in [
            Bytes::new(),
            Bytes::from_static(b"{}"),
            vec![7; 300_000].into(),
        ] {
            let served = serve(script).await;
            let status = post(&served, Full::new(body.clone())).await.unwrap();
            assert_eq!(status, 200, "{name}");
            assert_eq!(*served.bodies.lock().unwrap(), [body], "{name}");
        }
    }
}

#[tokio::test]
async fn r29_a_stream_up_to_64_kib_is_sent_again() {
    for (name, script) in UNPROCESSED {
        for (pieces, size) in [(0, 0), (1, 100_000), (3, 10), (64, 1024)] {
            let served = serve(script).await;
            let status = post(&served, in_pieces(pieces, size)).await;
            assert_eq!(status.unwrap(), 200, "{name}, {pieces} pieces");
            let bodies = served.bodies.lock().unwrap();
            assert!(
                *bodies == [bytes_of(pieces, size)],
                "{name}, {pieces} pieces"
            );
        }
    }
}

/// Its beginning is gone: it must not arrive as a part.
#[tokio::test]
async fn r29_a_longer_stream_is_sent_whole_or_fails() {
    for (name, script) in UNPROCESSED {
        let served = serve(script).await;
        let status = post(&served, in_pieces(130, 1024)).await;
        let bodies = served.bodies.lock().unwrap();
        match status {
            Ok(_) => assert!(*bodies == [bytes_of(130, 1024)], "{name}"),
            Err(_) => assert!(bodies.is_empty(), "{name}"),
        }
    }
}

/// The server may have processed these.
#[tokio::test]
async fn r29_what_may_have_been_processed_is_sent_once() {
    let scripts: [(&str, Script); 5] = [
        ("CANCEL", |n, id| (n == 0).then(|| reset(id, 8))),
        ("INTERNAL_ERROR", |n, id| (n == 0).then(|| reset(id, 2))),
        ("NO_ERROR", |n, id| (n == 0).then(|| reset(id, 0))),
        ("GOAWAY above the stream", |n, id| {
            (n == 0).then(|| go_away(id, 0))
        }),
        ("GOAWAY far above", |n, _| {
            (n == 0).then(|| go_away(0x7fff_ffff, 0))
        }),
    ];
    for (name, script) in scripts {
        let served = serve(script).await;
        let result = post(&served, Full::<Bytes>::from("{}")).await;
        assert!(result.is_err(), "{name}");
        assert_eq!(served.streams.load(Ordering::SeqCst), 1, "{name}");
    }
}

#[tokio::test]
async fn r29_a_server_that_always_refuses_is_asked_5_times() {
    let scripts: [Script; 2] = [
        |_, id| Some(reset(id, REFUSED_STREAM)),
        |_, _| Some(go_away(0, 0)),
    ];
    for script in scripts {
        let served = serve(script).await;
        assert!(post(&served, Full::<Bytes>::from("{}")).await.is_err());
        assert_eq!(served.streams.load(Ordering::SeqCst), 5);
    }
}

/// A body that is never sent again is polled by one attempt at a time.
#[tokio::test]
async fn r29_a_body_that_fails_fails_the_request() {
    struct Failing;
    impl Body for Failing {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(Some(Err("the body failed".into())))
        }
    }
    let served = serve(|_, _| None).await;
    assert!(post(&served, Failing).await.is_err());
    assert!(served.bodies.lock().unwrap().is_empty());
}

/// A client learns only from the first frame of a server how many streams it takes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r29_two_hundred_requests_on_a_new_connection_pass() {
    for run in 0..5 {
        let (acceptor, root) = tls::acceptor(&["h2"]).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!(
            "https://localhost:{}/",
            listener.local_addr().unwrap().port()
        );
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let echo = service_fn(async |request: Request<hyper::body::Incoming>| {
                        let body = request.into_body().collect().await?.to_bytes();
                        Ok::<_, hyper::Error>(Response::new(Full::new(body)))
                    });
                    let mut server = auto::Builder::new(TokioExecutor::new());
                    server.http2().max_concurrent_streams(10);
                    let _ = server
                        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(echo))
                        .await;
                });
            }
        });
        let client = client::<Full<Bytes>>(&root);
        let mut requests = JoinSet::new();
        for n in 0..200 {
            let (client, url) = (client.clone(), url.clone());
            requests.spawn(async move {
                let sent = Bytes::from(format!("body {n}"));
                let request = Request::post(url).body(Full::new(sent.clone())).unwrap();
                let response = client.oneshot(request).await?;
                let body = response.into_body().collect().await?.to_bytes();
                Ok::<_, BoxError>(body == sent)
            });
        }
        for result in requests.join_all().await {
            assert!(result.unwrap_or_else(|error| panic!("run {run}: {error:?}")));
        }
    }
}
