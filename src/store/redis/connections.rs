//! The connections to the servers: made when they are needed, and thrown away when they fail.

use std::{
    collections::HashMap,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use redis::{AsyncConnectionConfig, ProtocolVersion, Value, aio::MultiplexedConnection};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    address::{Address, Login},
    fault::Fault,
    scripts::Statement,
    slot,
};
use crate::{error::StoreError, tls};

/// How often a call follows a cluster from one server to another.
const MOST_REDIRECTIONS: usize = 5;

/// Which servers there are, and how to connect to them.
#[derive(Clone)]
pub(super) struct Settings {
    /// The servers of the URLs. A cluster names the others.
    pub(super) seeds: Vec<Address>,
    pub(super) login: Login,
    /// What is trusted besides the platform's root certificates.
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// How long a call may take, with connecting.
    pub(super) limit: Duration,
}

/// A statement with its keys and arguments.
pub(super) struct Call<'a> {
    pub(super) statement: &'a Statement,
    /// The keys, all in one slot.
    pub(super) keys: &'a [&'a str],
    pub(super) arguments: &'a [&'a [u8]],
}

/// The connections of a store, one for each server.
pub(super) struct Connections {
    pub(super) settings: Settings,
    servers: Mutex<HashMap<Address, Arc<tokio::sync::Mutex<Option<Connection>>>>>,
    /// The servers that a cluster has named, by slot.
    slots: Mutex<HashMap<u16, Address>>,
    /// The configuration of TLS. Empty until it is needed.
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Connections {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            servers: Mutex::default(),
            slots: Mutex::default(),
            tls: OnceLock::new(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<u16, Address>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server(&self, address: &Address) -> Arc<tokio::sync::Mutex<Option<Connection>>> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(servers.entry(address.clone()).or_default())
    }

    /// Runs a script at the server that has its keys.
    pub(super) async fn run(&self, call: Call<'_>) -> Result<Value, StoreError> {
        let name = call.keys.first().copied().unwrap_or_default();
        let slot = slot::of(name);
        let deadline = Instant::now() + self.settings.limit;
        let mut seeds = self.settings.seeds.iter();
        let named = self.slots().get(&slot).cloned();
        let Some(mut address) = named.or_else(|| seeds.next().cloned()) else {
            return Err(no_server());
        };
        let (mut is_asking, mut redirections) = (false, 0);
        loop {
            let fault = match self.run_at(&address, &call, is_asking, deadline).await {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            };
            let redirected = fault
                .redirection()
                .and_then(|(text, is_asking)| Some((address.redirected(text)?, is_asking)));
            address = match redirected {
                Some((next, is_for_this_call)) if redirections < MOST_REDIRECTIONS => {
                    redirections += 1;
                    is_asking = is_for_this_call;
                    if !is_asking {
                        self.slots().insert(slot, next.clone());
                    }
                    next
                }
                _ => {
                    // What the cluster has named may be gone. Another server knows what is there instead.
                    self.slots().remove(&slot);
                    is_asking = false;
                    let next = seeds.find(|seed| **seed != address);
                    match next.filter(|_| fault.is_broken_connection()) {
                        Some(next) => next.clone(),
                        None => return Err(self.told(fault, &address, name)),
                    }
                }
            };
        }
    }

    fn told(&self, fault: Fault, address: &Address, name: &str) -> StoreError {
        let Settings { login, limit, .. } = &self.settings;
        fault.told(address, login.is_tls, name, *limit)
    }

    /// Runs a script at this server. A connection that broke while it was idle is replaced: every script can be sent twice.
    async fn run_at(
        &self,
        address: &Address,
        call: &Call<'_>,
        is_asking: bool,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        let mut is_first = true;
        loop {
            let (connection, is_new) = self.connection(address, deadline).await?;
            let answer = connection.send(call, is_asking, deadline).await;
            let Err(fault) = answer else { return answer };
            if fault.ends_connection() {
                self.discard(address, &connection, deadline).await;
            }
            if is_new || !is_first || !fault.is_broken_connection() {
                return Err(fault);
            }
            is_first = false;
        }
    }

    /// The connection to this server, and whether it was made for this call.
    async fn connection(
        &self,
        address: &Address,
        deadline: Instant,
    ) -> Result<(Connection, bool), Fault> {
        let server = self.server(address);
        // One connects, and the others wait for it.
        let mut held = late(timeout_at(deadline, server.lock()).await)?;
        if let Some(connection) = &*held {
            return Ok((connection.clone(), false));
        }
        let connecting = Connection::open(self, address, ProtocolVersion::RESP2, None);
        let connected = timeout_at(deadline, connecting).await;
        let connection = connected.map_err(|_| Fault::LateConnection)??;
        *held = Some(connection.clone());
        Ok((connection, true))
    }

    /// Throws a connection away, unless another one has taken its place, or is about to.
    async fn discard(&self, address: &Address, connection: &Connection, deadline: Instant) {
        let server = self.server(address);
        if let Ok(mut held) = timeout_at(deadline, server.lock()).await {
            held.take_if(|held| held.is(connection));
        }
    }
}

fn late<T>(result: Result<T, tokio::time::error::Elapsed>) -> Result<T, Fault> {
    result.map_err(|_| Fault::Late)
}

fn no_server() -> StoreError {
    StoreError::new(
        crate::error::StoreErrorKind::Unavailable,
        "the Redis store has no server: give it a URL at least",
    )
}

// === Connection ===

/// A connection, which many calls share. Its last clone ends it.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) channel: MultiplexedConnection,
    driver: Arc<Driver>,
}

/// The task that reads and writes. Dropping it ends the task.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What receives the notices of a connection.
pub(super) type Receiver = tokio::sync::mpsc::UnboundedSender<redis::PushInfo>;

impl Connection {
    /// Connects, and logs in. It has no time limit of its own.
    pub(super) async fn open(
        connections: &Connections,
        address: &Address,
        protocol: ProtocolVersion,
        receiver: Option<Receiver>,
    ) -> Result<Self, Fault> {
        let stream = stream(connections, address).await?;
        let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
        if let Some(receiver) = receiver {
            config = config.set_push_sender(receiver);
        }
        let handshake = connections.settings.login.handshake(protocol);
        let (channel, driver) =
            MultiplexedConnection::new_with_config(&handshake, stream, config).await?;
        let driver = Arc::new(Driver(tokio::spawn(driver).abort_handle()));
        Ok(Self { channel, driver })
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.driver, &other.driver)
    }

    async fn send(
        &self,
        call: &Call<'_>,
        is_asking: bool,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        if is_asking {
            return late(timeout_at(deadline, self.ask(call)).await)?;
        }
        let sent = late(timeout_at(deadline, self.evaluate(call, false)).await)?;
        match sent {
            Err(fault) if fault.is_unknown_script() => {
                late(timeout_at(deadline, self.evaluate(call, true)).await)?
            }
            sent => sent,
        }
    }

    /// Sends a script by its hash, or as a whole.
    async fn evaluate(&self, call: &Call<'_>, is_whole: bool) -> Result<Value, Fault> {
        let mut channel = self.channel.clone();
        Ok(command(call, is_whole).query_async(&mut channel).await?)
    }

    /// Sends a script to a server that takes over its slot just now.
    async fn ask(&self, call: &Call<'_>) -> Result<Value, Fault> {
        let mut channel = self.channel.clone();
        let mut pipeline = redis::pipe();
        pipeline.cmd("ASKING").ignore();
        pipeline.add_command(command(call, true));
        let (value,) = pipeline.query_async::<(Value,)>(&mut channel).await?;
        Ok(value)
    }
}

fn command(call: &Call<'_>, is_whole: bool) -> redis::Cmd {
    let mut command = if is_whole {
        redis::cmd("EVAL").arg(call.statement.text).to_owned()
    } else {
        redis::cmd("EVALSHA").arg(call.statement.hash()).to_owned()
    };
    command.arg(call.keys.len()).arg(call.keys);
    for argument in call.arguments {
        command.arg(*argument);
    }
    command
}

// === Streams ===

/// A connection of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

type BoxStream = Box<dyn Stream>;

/// Opens a connection. The future is boxed, since that of TLS is large.
fn stream<'a>(
    connections: &'a Connections,
    address: &'a Address,
) -> Pin<Box<dyn Future<Output = Result<BoxStream, Fault>> + Send + 'a>> {
    Box::pin(async move {
        match address {
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                let stream = stream.map_err(Fault::Connect)?;
                stream.set_nodelay(true).map_err(Fault::Connect)?;
                if !connections.settings.login.is_tls {
                    return Ok(Box::new(stream) as BoxStream);
                }
                connections.encrypted(host, stream).await
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path).await;
                Ok(Box::new(stream.map_err(Fault::Connect)?) as BoxStream)
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(Fault::Connect(io::ErrorKind::Unsupported.into())),
        }
    })
}

impl Connections {
    /// Sets up TLS on a connection.
    async fn encrypted(&self, host: &str, stream: TcpStream) -> Result<BoxStream, Fault> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| Fault::Connect(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let connector = TlsConnector::from(self.tls()?);
        let stream = connector.connect(name, stream).await;
        Ok(Box::new(stream.map_err(Fault::Connect)?))
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, Fault> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = tls::platform_config(&self.settings.roots).map_err(Fault::Tls)?;
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::sleep,
    };

    use super::*;
    use crate::store::redis::{address, scripts};

    /// A server that answers the first login, and nothing else.
    async fn serve(listener: TcpListener) {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if open.is_empty() {
                let read = stream.read(&mut [0; 1_024]).await.unwrap();
                assert!(read > 0, "no login");
                stream.write_all(b"+OK\r\n").await.unwrap();
            }
            open.push(stream);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_in_time_while_another_one_connects() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(serve(listener));
        let (address, login) = address::parse(&format!("redis://:pw@127.0.0.1:{port}")).unwrap();
        let connections = Arc::new(Connections::new(Settings {
            seeds: vec![address],
            login,
            roots: Vec::new(),
            limit: Duration::from_secs(5),
        }));
        let call = || {
            let connections = Arc::clone(&connections);
            tokio::spawn(async move {
                let (statement, keys, arguments) = (&scripts::GET, &["key"], &[]);
                let call = Call {
                    statement,
                    keys,
                    arguments,
                };
                connections.run(call).await.map(drop)
            })
        };
        let first = call();
        sleep(Duration::from_secs(2)).await;
        let second = call();
        first.await.unwrap().unwrap_err();
        let third = call();
        sleep(Duration::from_secs(3)).await;
        assert!(second.is_finished() && !third.is_finished());
    }
}
