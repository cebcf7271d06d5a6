//! A service on loopback, on its own thread and runtime, and its clients.
#![allow(dead_code, reason = "each bench needs a part of it")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
    sync::oneshot,
};
use tower::{BoxError, Service, ServiceExt};

/// The most concurrent requests on one HTTP/2 connection.
const STREAMS: u32 = 200_000;

/// The largest flow-control window (RFC 9113 §6.9.1), so that no request waits for an update of it.
const WINDOW: u32 = (1 << 31) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

impl Protocol {
    pub(crate) const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

pub(crate) struct Loopback {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Loopback {
    pub(crate) fn serve<S>(service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<Full<Bytes>>>,
        S: Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
    {
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            current_thread().block_on(async move {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                    .await
                    .expect("a free port");
                ready
                    .send(listener.local_addr().expect("an address"))
                    .expect("a receiver");
                tokio::select! {
                    () = accept(listener, service) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address: address.recv().expect("a server"),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client with no connections yet.
    pub(crate) fn client<B>(protocol: Protocol) -> Client<HttpConnector, B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Client::builder(TokioExecutor::new())
            .http2_only(protocol == Protocol::Http2)
            .http2_initial_connection_window_size(WINDOW)
            .build(connector)
    }
}

/// Stops the server, and waits until it has stopped: the next bench must have the machine to itself.
impl Drop for Loopback {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The panic message was printed by the thread.
            let _ = thread.join();
        }
    }
}

pub(crate) fn current_thread() -> Runtime {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn accept<S>(listener: TcpListener, service: S)
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>>,
    S: Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http2()
        .max_concurrent_streams(STREAMS)
        .initial_connection_window_size(WINDOW);
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let server = server.clone();
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            // A client may close its connection at any time.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

// === Clients ===

pub(crate) trait HttpClient<B>:
    Service<Request<B>, Response = Response<Self::Answer>, Error: Into<BoxError>, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
    type Answer: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send;
}

impl<B, C, Answer> HttpClient<B> for C
where
    C: Service<Request<B>, Response = Response<Answer>, Error: Into<BoxError>, Future: Send>,
    C: Clone + Send + Sync + 'static,
    Answer: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send,
{
    type Answer = Answer;
}

/// Sends a request, and reads the whole answer.
pub(crate) async fn send<B, C: HttpClient<B>>(
    client: &mut C,
    request: Request<B>,
) -> Result<Response<Bytes>, BoxError> {
    let client = client.ready().await.map_err(Into::into)?;
    let answer = client.call(request).await.map_err(Into::into)?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    Ok(Response::from_parts(head, body))
}
