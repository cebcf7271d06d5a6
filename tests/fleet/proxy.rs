//! A network between the processes and their database, which a test can cut, mute and silence.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the network does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Open,
    /// The database gets what is sent, and its answers wait until the network is open.
    Mute,
    /// Nothing arrives in either direction until the network is open, and no connection breaks.
    Silent,
    /// Connections break, and new ones are refused.
    Cut,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToDatabase,
    ToProcess,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    database: SocketAddr,
    network: watch::Sender<Network>,
    /// Answers that wait for an open network.
    held: watch::Sender<u64>,
}

impl Proxy {
    pub(crate) async fn start(database: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            database,
            network: watch::Sender::new(Network::Open),
            held: watch::Sender::new(0),
        });
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((process, _)) = listener.accept().await {
                    tokio::spawn(connect(process, Arc::clone(&shared)));
                }
            }
        });
        Self {
            address,
            shared,
            accepting,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, network: Network) {
        self.shared.network.send_replace(network);
    }

    /// Waits until the database has answered something that the muted network holds.
    pub(crate) async fn holds_an_answer(&self) {
        let mut held = self.shared.held.subscribe();
        held.wait_for(|held| *held > 0).await.unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Network::Cut);
    }
}

/// Connects a process to the database, until either closes or the network is cut.
async fn connect(process: TcpStream, shared: Arc<Shared>) {
    if *shared.network.borrow() == Network::Cut {
        return;
    }
    let Ok(database) = TcpStream::connect(shared.database).await else {
        return;
    };
    let _ = (process.set_nodelay(true), database.set_nodelay(true));
    let (from_process, to_process) = process.into_split();
    let (from_database, to_database) = database.into_split();
    tokio::select! {
        () = pump(from_process, to_database, &shared, Way::ToDatabase) => {}
        () = pump(from_database, to_process, &shared, Way::ToProcess) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    way: Way,
) {
    let mut network = shared.network.subscribe();
    let mut cut = shared.network.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = cut.wait_for(|network| *network == Network::Cut) => return,
        };
        let Ok(length @ 1..) = read else { return };
        let _held = Held::of(shared, way);
        let passes = network.wait_for(|network| match network {
            Network::Open | Network::Cut => true,
            Network::Mute => way == Way::ToDatabase,
            Network::Silent => false,
        });
        let is_open = passes.await.is_ok_and(|network| *network != Network::Cut);
        if !is_open {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Counts an answer that does not pass.
struct Held<'a>(Option<&'a Shared>);

impl<'a> Held<'a> {
    fn of(shared: &'a Shared, way: Way) -> Self {
        let is_held = way == Way::ToProcess && *shared.network.borrow() == Network::Mute;
        if is_held {
            shared.held.send_modify(|held| *held += 1);
        }
        Self(is_held.then_some(shared))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(shared) = self.0 {
            shared.held.send_modify(|held| *held -= 1);
        }
    }
}
