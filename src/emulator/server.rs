//! The org on loopback.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::org::Org;

/// Connections that may wait to be accepted: thousands of clients may connect at the same moment.
const BACKLOG: u32 = 16_384;

/// The largest flow-control window there is (RFC 9113 §6.9.1).
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// How long to leave the listener alone after it failed, for want of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

impl Org {
    /// Serves the org on a free port of 127.0.0.1, HTTP/1.1 and HTTP/2 (with prior knowledge) on
    /// the same one.
    ///
    /// From then on the instance URL and the login URL are `http://127.0.0.1:PORT`. Tokens issued
    /// earlier stay good. An org can be served more than once; the newest URL is then the org's.
    ///
    /// # Errors
    ///
    /// Whatever binding the socket yields.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime that has I/O enabled.
    ///
    /// ```
    /// use http::Request;
    /// use http_body_util::Empty;
    /// use hyper_util::client::legacy::Client;
    /// use hyper_util::rt::TokioExecutor;
    /// use tower_salesforce_auth::emulator::Org;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let org = Org::new();
    /// let served = org.serve().await?;
    ///
    /// let client = Client::builder(TokioExecutor::new()).build_http();
    /// let request = Request::get(format!("{}/services/data/", served.url()))
    ///     .body(Empty::<bytes::Bytes>::new())?;
    /// assert_eq!(client.request(request).await?.status(), 200);
    ///
    /// served.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn serve(&self) -> io::Result<Served> {
        self.serve_on((Ipv4Addr::LOCALHOST, 0)).await
    }

    /// Serves the org on an address of choice; otherwise as [`serve`](Self::serve) does.
    ///
    /// # Errors
    ///
    /// Whatever binding the socket yields; [`io::ErrorKind::AddrInUse`] if somebody else has the
    /// port. [`io::ErrorKind::InvalidInput`] if the address is not a loopback address: the org's
    /// secrets are no secrets, and there is no TLS.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime that has I/O enabled.
    ///
    /// ```
    /// use std::net::Ipv6Addr;
    /// use tower_salesforce_auth::emulator::Org;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let refused = Org::new().serve_on((Ipv6Addr::UNSPECIFIED, 8443)).await;
    /// assert!(refused.is_err());
    /// # }
    /// ```
    #[expect(
        clippy::unused_async,
        reason = "listening needs a runtime, and an async function is called where there is one"
    )]
    pub async fn serve_on(&self, address: impl Into<SocketAddr>) -> io::Result<Served> {
        let listener = listen(address.into())?;
        let url = format!("http://{}", listener.local_addr()?);
        {
            let mut state = self.state();
            state.instance_url.clone_from(&url);
            state.login_url.clone_from(&url);
        }
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(self.clone(), listener, stopped));
        Ok(Served {
            url,
            _stop: stop,
            accepting,
        })
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
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

async fn accept(org: Org, listener: TcpListener, mut stopped: oneshot::Receiver<()>) {
    let tasks = Tasks::default();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    org.state().counters.connections += 1;
                    tasks.execute(serve_connection(org.clone(), stream, tasks.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(listener);
    tasks.end().await;
}

async fn serve_connection(org: Org, stream: TcpStream, tasks: Tasks) {
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
    let service = TowerToHyperService::new(org);
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
