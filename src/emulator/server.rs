//! An HTTP server on loopback for any service.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tower_service::Service;

use crate::error::BoxError;

/// The length of the accept queue. Thousands of clients may connect at the same moment.
const BACKLOG: u32 = 16_384;

/// The largest flow-control window there is (RFC 9113 §6.9.1).
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// The pause after a failed `accept`, most often for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        let problem = format!("{} is not a loopback address", address.ip());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A fixed port must be free again at once. Windows does that anyway, and there the option would
    // let other processes share the port.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What begins a connection. Its failure ends the connection without a request.
pub(super) trait Handshake: Clone + Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn begin(self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Plain HTTP.
#[derive(Clone)]
pub(super) struct Plain;

impl Handshake for Plain {
    type Stream = TcpStream;

    async fn begin(self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

/// Serves `service`, and calls `accepted` once for each connection.
pub(super) fn serve<S>(
    listener: TcpListener,
    url: String,
    service: S,
    handshake: impl Handshake,
    accepted: impl Fn() + Send + 'static,
) -> io::Result<Served>
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    let port = listener.local_addr()?.port();
    let (stop, stopped) = oneshot::channel();
    let accepting = tokio::spawn(accept(listener, service, handshake, accepted, stopped));
    Ok(Served {
        url,
        port,
        _stop: stop,
        accepting,
    })
}

/// An org served on loopback. Dropping it ends the server, as [`shutdown`](Self::shutdown) does.
#[derive(Debug)]
#[must_use = "the org is no longer served when this is dropped"]
pub struct Served {
    url: String,
    port: u16,
    /// Dropping the sender is the stop signal. It never sends.
    _stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Served {
    /// The URL of the server, for example `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port of the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops accepting, ends all connections at once, and returns when they are closed. Calls
    /// without an answer by then never get one.
    pub async fn shutdown(self) {
        let Self {
            _stop: stop,
            accepting,
            ..
        } = self;
        drop(stop);
        // An error means that the task panicked. `shutdown` has no way to report that.
        let _ = accepting.await;
    }
}

async fn accept<S>(
    listener: TcpListener,
    service: S,
    handshake: impl Handshake,
    accepted: impl Fn(),
    mut stopped: oneshot::Receiver<()>,
) where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    let tasks = Tasks::default();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            connection = listener.accept() => match connection {
                Ok((stream, _)) => {
                    accepted();
                    let handshake = handshake.clone();
                    tasks.execute(serve_connection(service.clone(), stream, handshake, tasks.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(listener);
    tasks.end().await;
}

async fn serve_connection<S>(service: S, stream: TcpStream, handshake: impl Handshake, tasks: Tasks)
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    // Without it, small answers on a warm connection wait for the peer's delayed ACK.
    let _ = stream.set_nodelay(true);
    // The client sees why its handshake failed.
    let Ok(stream) = handshake.begin(stream).await else {
        return;
    };
    let mut builder = auto::Builder::new(tasks);
    // The defaults protect a server from its clients, but here the client is under test. It may
    // open, abandon and use any number of streams at once on one connection. (With a small window,
    // thousands of bodies arrive in scraps, and h2 takes that for an attack.)
    builder
        .http2()
        .initial_connection_window_size(LARGEST_WINDOW)
        .max_concurrent_streams(None)
        .max_pending_accept_reset_streams(usize::MAX)
        .max_local_error_reset_streams(None);
    let service = TowerToHyperService::new(service);
    // The client sees an error of its connection itself.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The running tasks of one server: its connections and their HTTP/2 streams. A stream that was
/// only spawned would outlive its connection for a moment.
#[derive(Clone, Default)]
struct Tasks {
    running: Arc<Mutex<JoinSet<()>>>,
}

impl Tasks {
    /// Aborts all tasks and waits until they have ended.
    async fn end(&self) {
        // A connection that is polled right now can still begin a stream, so look again.
        loop {
            let mut running = mem::take(&mut *self.running());
            if running.is_empty() {
                break;
            }
            running.shutdown().await;
        }
    }

    fn running(&self) -> MutexGuard<'_, JoinSet<()>> {
        let running = self.running.lock();
        running.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let mut running = self.running();
        // Forgetting ended tasks is cheap when done every time.
        while running.try_join_next().is_some() {}
        running.spawn(task);
    }
}
