//! A server on loopback. Knows no org.

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
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tower_service::Service;

use crate::error::BoxError;

/// Connections that may wait to be accepted: thousands of clients may connect at the same moment.
const BACKLOG: u32 = 16_384;

/// The largest flow-control window there is (RFC 9113 §6.9.1).
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// How long to leave the listener alone after it failed, for want of file descriptors as a rule.
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
    // A port of choice is to be had again at once. On Windows it always is, and the option would
    // let others take it as well.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `service`, and calls `accepted` for each connection.
pub(super) fn serve<S>(
    listener: TcpListener,
    url: String,
    service: S,
    accepted: impl Fn() + Send + 'static,
) -> Served
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    let (stop, stopped) = oneshot::channel();
    let accepting = tokio::spawn(accept(listener, service, accepted, stopped));
    Served {
        url,
        _stop: stop,
        accepting,
    }
}

/// An org being served on loopback. Dropping it ends that, as [`shutdown`](Self::shutdown) does.
#[derive(Debug)]
#[must_use = "the org is no longer served when this is dropped"]
pub struct Served {
    url: String,
    /// Never sent on: dropping it is the signal.
    _stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Served {
    /// `http://127.0.0.1:PORT`, or what else it was served on, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops accepting, ends all connections at once, and returns when they are closed. Calls that
    /// are not answered by then never will be.
    pub async fn shutdown(self) {
        let Self {
            _stop: stop,
            accepting,
            ..
        } = self;
        drop(stop);
        // An error would be a panic of the task, and there is nobody to tell.
        let _ = accepting.await;
    }
}

async fn accept<S>(
    listener: TcpListener,
    service: S,
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
                    tasks.execute(serve_connection(service.clone(), stream, tasks.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(listener);
    tasks.end().await;
}

async fn serve_connection<S>(service: S, stream: TcpStream, tasks: Tasks)
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    // Small answers on a warm connection would otherwise wait for the peer's delayed ACK.
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(tasks);
    // The defaults protect a server from its clients. Here the client is the one under test: on one
    // connection it may open and abandon as many streams as it likes, and send on all of them at
    // once. (With a small window, thousands of bodies arrive in scraps, which h2 takes for an
    // attack.)
    builder
        .http2()
        .initial_connection_window_size(LARGEST_WINDOW)
        .max_concurrent_streams(None)
        .max_pending_accept_reset_streams(usize::MAX)
        .max_local_error_reset_streams(None);
    let service = TowerToHyperService::new(service);
    // A connection that ends in an error is the client's to notice.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Everything that runs for one served org: its connections, and the streams of its HTTP/2
/// connections, which would outlive them for a moment if they were only spawned.
#[derive(Clone, Default)]
struct Tasks {
    running: Arc<Mutex<JoinSet<()>>>,
}

impl Tasks {
    /// Ends all tasks and waits until they are gone.
    async fn end(&self) {
        // A connection that is being polled right now can still begin a stream: look again.
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
        // Forgets those that have ended, which is cheap when done every time.
        while running.try_join_next().is_some() {}
        running.spawn(task);
    }
}
