//! Notices of changes: one connection that listens, for all keys and all handles.

use std::{
    collections::HashMap,
    future::pending,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use super::{
    connection::Connection,
    server::Server,
    statement::{Parameter, key_hash},
    table::{CHANNEL, Table},
};
use crate::{session::jitter::with_jitter, store::version::Version};

/// Pause before the first attempt to connect again. It doubles with each, up to `LONGEST_PAUSE`. Of each pause, a random half
/// is left out: a fleet comes back one by one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long the connection stays open without a waiter. A follower comes back as soon as it has loaded the record.
const LINGER: Duration = Duration::from_secs(30);

/// How many keys one statement looks at.
const MOST_KEYS: usize = 1_000;

/// Tells waiters of changes.
pub(super) struct Listener {
    server: Server,
    table: Arc<Table>,
    timeout: Duration,
    state: Mutex<State>,
    /// Tells the task of a new waiter.
    joined: Notify,
}

#[derive(Default)]
struct State {
    waiters: HashMap<u64, Waiter>,
    /// The number of the next waiter.
    next: u64,
    /// The task that listens. `None` if there is none.
    task: Option<JoinHandle<()>>,
}

struct Waiter {
    key_hash: Vec<u8>,
    since: Option<String>,
    /// Dropping it wakes the waiter.
    _woken: oneshot::Sender<()>,
    /// Whether its version was compared since the connection listens.
    is_checked: bool,
}

/// How long a connection was of use.
enum Ended {
    /// No waiter is left, and the task ends.
    Unused,
    /// It broke, after it had begun to listen.
    Lost,
}

impl Listener {
    pub(super) fn new(server: Server, table: Arc<Table>, timeout: Duration) -> Self {
        Self {
            server,
            table,
            timeout,
            state: Mutex::default(),
            joined: Notify::new(),
        }
    }

    /// Waits until the version of a key may differ from `since`. Listens from the first poll on.
    pub(super) async fn changed(self: &Arc<Self>, key: &str, since: Option<Version>) {
        let Ok(runtime) = Handle::try_current() else {
            return pending().await;
        };
        let (woken, waiting) = oneshot::channel();
        let seat = self.join(
            Waiter {
                key_hash: key_hash(key),
                since: since.map(|version| version.to_string()),
                _woken: woken,
                is_checked: false,
            },
            &runtime,
        );
        drop(waiting.await);
        drop(seat);
    }

    fn join(self: &Arc<Self>, waiter: Waiter, runtime: &Handle) -> Seat<'_> {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.waiters.insert(number, waiter);
        if state.task.as_ref().is_none_or(JoinHandle::is_finished) {
            state.task = Some(runtime.spawn(listen(Arc::clone(self))));
        }
        self.joined.notify_one();
        Seat {
            listener: self,
            number,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_waiters(&self) -> bool {
        !self.state().waiters.is_empty()
    }

    /// Ends the task if no waiter is left.
    fn is_over(&self) -> bool {
        let mut state = self.state();
        let is_over = state.waiters.is_empty();
        if is_over {
            state.task = None;
        }
        is_over
    }

    /// Connects, and completes when the server has confirmed that it will send notices.
    async fn connected(&self) -> Option<Connection> {
        let deadline = Instant::now() + self.timeout;
        let connection = Connection::open(&self.server, deadline).await.ok()?;
        let listen = format!("LISTEN {CHANNEL}");
        let confirmed = timeout_at(deadline, connection.query(&listen, &[])).await;
        confirmed.ok()?.ok()?;
        // A notice that came while there was no connection is lost.
        for waiter in self.state().waiters.values_mut() {
            waiter.is_checked = false;
        }
        Some(connection)
    }

    /// Wakes waiters for as long as the connection lasts.
    async fn serve(&self, mut connection: Connection) -> Ended {
        loop {
            if self.check(&connection).await.is_none() {
                return Ended::Lost;
            }
            let is_unused = !self.has_waiters();
            tokio::select! {
                notice = connection.notices.recv() => match notice {
                    Some(notice) => self.wake(&notice),
                    None => return Ended::Lost,
                },
                () = self.joined.notified() => {}
                () = sleep(LINGER), if is_unused => {
                    if self.is_over() {
                        return Ended::Unused;
                    }
                }
            }
        }
    }

    /// Wakes the waiters of the key that a notice names.
    fn wake(&self, notice: &str) {
        let is_named = |waiter: &Waiter| {
            let bytes = waiter.key_hash.iter();
            let digits = bytes.flat_map(|byte| [byte >> 4, byte & 0xf]);
            let digits = digits.map(|digit| char::from_digit(digit.into(), 16));
            digits.eq(notice.chars().map(Some))
        };
        self.state().waiters.retain(|_, waiter| !is_named(waiter));
    }

    /// Compares the versions of new waiters: a change may have been made after they loaded the record, and before the connection
    /// listened. `None` if the server does not say.
    async fn check(&self, connection: &Connection) -> Option<()> {
        loop {
            let asked: Vec<_> = self
                .state()
                .waiters
                .iter()
                .filter(|(_, waiter)| !waiter.is_checked)
                .take(MOST_KEYS)
                .map(|(number, waiter)| (*number, waiter.key_hash.clone()))
                .collect();
            if asked.is_empty() {
                return Some(());
            }
            let hashes = asked.iter().map(|(_, key_hash)| key_hash.clone());
            let hashes = [Parameter::ByteLists(hashes.collect())];
            let deadline = Instant::now() + self.timeout;
            let answered = connection.query(&self.table.versions, &hashes);
            let rows = timeout_at(deadline, answered).await.ok()?.ok()?;
            let mut versions = HashMap::new();
            for row in &rows {
                let key_hash: &[u8] = row.try_get(0).ok()?;
                let version: Option<&str> = row.try_get(1).ok()?;
                versions.insert(key_hash, version);
            }
            let mut state = self.state();
            for (number, key_hash) in &asked {
                let stored = versions.get(&**key_hash).copied().flatten();
                let Some(waiter) = state.waiters.get_mut(number) else {
                    continue;
                };
                waiter.is_checked = true;
                if waiter.since.as_deref() != stored {
                    state.waiters.remove(number);
                }
            }
        }
    }
}

async fn listen(listener: Arc<Listener>) {
    let task = Task(listener);
    let listener = &task.0;
    let mut pause = FIRST_PAUSE;
    while !listener.is_over() {
        if let Some(connection) = listener.connected().await {
            let begun = Instant::now();
            if let Ended::Unused = listener.serve(connection).await {
                return;
            }
            // A server that ends each connection at once is not asked again at once.
            if begun.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
        }
        sleep(with_jitter(pause)).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// The task. If its runtime ends, waiters of other runtimes are woken, and the next call starts another task.
struct Task(Arc<Listener>);

impl Drop for Task {
    fn drop(&mut self) {
        let waiters = mem::take(&mut self.0.state().waiters);
        drop(waiters);
    }
}

/// A waiter's place, until its future is dropped.
struct Seat<'a> {
    listener: &'a Listener,
    number: u64,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let waiter = self.listener.state().waiters.remove(&self.number);
        drop(waiter);
    }
}
