//! Notices of changes: one subscription for all keys and handles of a store.
//!
//! The subscription begins with the first wait. A key that nothing waits for is left out after a while, and when none is left,
//! the connection ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{ProtocolVersion, PushInfo, PushKind, RedisResult, Value};
use tokio::{
    runtime,
    sync::{Notify, mpsc, watch},
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::connections::{Connection, Connections};
use crate::session::jitter::with_jitter;

/// Pause after a subscription that failed. It doubles with each, up to `LONGEST_PAUSE`. A random half is left out, so that the
/// processes of a fleet come back one by one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How often the connection is tried, and keys that nothing waits for are left out.
const TICK: Duration = Duration::from_secs(15);

/// What was told of a key.
#[derive(Clone, Debug, Default)]
struct Told {
    /// The number of the subscription. Notices before it may have been lost.
    subscription: u64,
    is_subscribed: bool,
    /// How many notices came.
    notices: u64,
    /// The version that the last notice named.
    version: Arc<str>,
}

struct Channel {
    waiters: usize,
    /// Whether nothing waited for it at the last tick.
    was_idle: bool,
    told: watch::Sender<Told>,
}

#[derive(Default)]
struct State {
    channels: HashMap<String, Channel>,
    subscriptions: u64,
    /// The task, and its number. `None` while none runs.
    task: Option<(u64, AbortHandle)>,
    tasks: u64,
}

/// The notices of a store. Dropping them ends the subscription.
pub(super) struct Notices(Arc<Hub>);

struct Hub {
    connections: Arc<Connections>,
    state: Mutex<State>,
    /// There is a channel without a subscription.
    wanted: Notify,
}

impl Notices {
    pub(super) fn new(connections: Arc<Connections>) -> Self {
        Self(Arc::new(Hub {
            connections,
            state: Mutex::default(),
            wanted: Notify::new(),
        }))
    }

    /// Waits for a notice of another version than `known` on this channel.
    pub(super) fn wait<'a>(&'a self, channel: &'a str, known: &'a str) -> Wait<'a> {
        Wait {
            waiter: Waiter::join(&self.0, channel),
            known,
            asked: None,
        }
    }
}

/// What a wait has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A subscription begins. A change before it has no notice, so the store has to be asked for the version.
    Ask,
    /// A notice of another version came.
    Changed,
}

/// A wait for a notice.
pub(super) struct Wait<'a> {
    waiter: Waiter<'a>,
    known: &'a str,
    /// The subscription for which the store was asked, and the number of notices before. `None` before the first one.
    asked: Option<(u64, u64)>,
}

impl Wait<'_> {
    /// Waits for the next step.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            let told = self.waiter.told.borrow_and_update().clone();
            match self.asked {
                _ if !told.is_subscribed => self.waiter.hub.start(),
                Some((subscription, notices)) if subscription == told.subscription => {
                    if told.notices != notices && *told.version != *self.known {
                        return Next::Changed;
                    }
                }
                _ => {
                    self.asked = Some((told.subscription, told.notices));
                    return Next::Ask;
                }
            }
            if self.waiter.told.changed().await.is_err() {
                return Next::Changed;
            }
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        if let Some((_, task)) = self.0.state().task.take() {
            task.abort();
        }
    }
}

/// One wait. Dropping it ends the wait.
struct Waiter<'a> {
    hub: &'a Arc<Hub>,
    channel: &'a str,
    told: watch::Receiver<Told>,
}

impl<'a> Waiter<'a> {
    fn join(hub: &'a Arc<Hub>, channel: &'a str) -> Self {
        let mut state = hub.state();
        let entry = state
            .channels
            .entry(channel.to_owned())
            .or_insert_with(|| Channel {
                waiters: 0,
                was_idle: false,
                told: watch::Sender::default(),
            });
        entry.waiters += 1;
        entry.was_idle = false;
        let told = entry.told.subscribe();
        drop(state);
        hub.wanted.notify_one();
        Self { hub, channel, told }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.hub.state().channels.get_mut(self.channel) {
            entry.waiters -= 1;
        }
    }
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the task, if none runs. Outside of a runtime nothing happens.
    fn start(self: &Arc<Self>) {
        let mut state = self.state();
        if state.task.is_some() {
            return;
        }
        if let Ok(runtime) = runtime::Handle::try_current() {
            state.tasks += 1;
            let number = state.tasks;
            let running = Running {
                hub: Arc::clone(self),
                number,
            };
            state.task = Some((number, runtime.spawn(running.run()).abort_handle()));
        }
    }

    /// The channels without a subscription.
    fn unsubscribed(&self) -> Vec<String> {
        let state = self.state();
        let channels = state.channels.iter();
        channels
            .filter(|(_, channel)| !channel.told.borrow().is_subscribed)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Tells the waiters of these channels that their subscription begins.
    fn subscribed(&self, names: &[String]) {
        let mut state = self.state();
        state.subscriptions += 1;
        let subscription = state.subscriptions;
        for name in names {
            if let Some(channel) = state.channels.get(name) {
                channel.told.send_modify(|told| {
                    told.subscription = subscription;
                    told.is_subscribed = true;
                });
            }
        }
    }

    /// Tells all waiters that there is no subscription.
    fn lost(&self) {
        for channel in self.state().channels.values() {
            channel.told.send_modify(|told| told.is_subscribed = false);
        }
    }

    fn notice(&self, push: &PushInfo) {
        let [Value::BulkString(name), Value::BulkString(version)] = &push.data[..] else {
            return;
        };
        let (name, version) = (
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(version),
        );
        if let Some(channel) = self.state().channels.get(&*name) {
            channel.told.send_modify(|told| {
                told.notices += 1;
                told.version = version.into();
            });
        }
    }

    /// Leaves out the channels for which nothing has waited since the last time, and returns them.
    fn leave_out(&self) -> Vec<String> {
        let mut state = self.state();
        let mut left_out = Vec::new();
        state.channels.retain(|name, channel| {
            let is_idle = channel.waiters == 0;
            if is_idle && channel.was_idle {
                left_out.push(name.clone());
                return false;
            }
            channel.was_idle = is_idle;
            true
        });
        left_out
    }

    /// Whether the task of this number is to end, since there is no channel. Another one may begin then.
    fn ends(&self, task: u64) -> bool {
        let mut state = self.state();
        let ends = state.channels.is_empty();
        if ends {
            state.forget(task);
        }
        ends
    }
}

impl State {
    /// Forgets the task of this number. Returns whether it was the last one.
    fn forget(&mut self, number: u64) -> bool {
        self.task.take_if(|(own, _)| *own == number).is_some()
    }
}

/// The task that subscribes. If it is dropped with its runtime, waiters start another one.
struct Running {
    hub: Arc<Hub>,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        let was_last = self.hub.state().forget(self.number);
        if was_last {
            self.hub.lost();
        }
    }
}

impl Running {
    async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            // It ends with the connection, of which the waiters learn nothing more.
            let _ = self.follow().await;
            if self.hub.ends(self.number) {
                return;
            }
            self.hub.lost();
            self.hub.leave_out();
            if begun.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            sleep(with_jitter(pause)).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Subscribes, and passes on what comes, until the connection breaks or nothing waits. `None` if it broke.
    async fn follow(&self) -> Option<()> {
        let (sender, mut pushes) = mpsc::unbounded_channel();
        let connection = self.connect(&sender).await?;
        drop(sender);
        let mut channel = connection.channel.clone();
        let limit = self.hub.connections.settings.limit;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            let unsubscribed = self.hub.unsubscribed();
            if !unsubscribed.is_empty() {
                answered(timeout(limit, channel.subscribe(&unsubscribed)).await)?;
                self.hub.subscribed(&unsubscribed);
            }
            tokio::select! {
                push = pushes.recv() => {
                    let push = push?;
                    match push.kind {
                        PushKind::Disconnection => return None,
                        PushKind::Message => self.hub.notice(&push),
                        _ => {}
                    }
                }
                () = self.hub.wanted.notified() => {}
                _ = ticks.tick() => {
                    let left_out = self.hub.leave_out();
                    if self.hub.ends(self.number) {
                        return Some(());
                    }
                    if !left_out.is_empty() {
                        answered(timeout(limit, channel.unsubscribe(&left_out)).await)?;
                    }
                    let ping = redis::cmd("PING");
                    let ping = ping.query_async::<()>(&mut channel);
                    answered(timeout(limit, ping).await)?;
                }
            }
        }
    }

    /// Connects to the first server that can be reached. In a cluster, each of them has the notices of all.
    async fn connect(&self, sender: &mpsc::UnboundedSender<PushInfo>) -> Option<Connection> {
        let connections = &self.hub.connections;
        let settings = &connections.settings;
        for address in &settings.seeds {
            let protocol = ProtocolVersion::RESP3;
            let opening = Connection::open(connections, address, protocol, Some(sender.clone()));
            if let Ok(Ok(connection)) = timeout(settings.limit, opening).await {
                return Some(connection);
            }
        }
        None
    }
}

/// `None` if the answer was an error, or if none came in time.
fn answered<T>(answer: Result<RedisResult<T>, tokio::time::error::Elapsed>) -> Option<T> {
    answer.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::{address, connections::Settings};

    #[test]
    fn a_channel_is_left_out_after_a_while_without_waiters() {
        let (address, login) = address::parse("redis://127.0.0.1").unwrap();
        let notices = Notices::new(Arc::new(Connections::new(Settings {
            seeds: vec![address],
            login,
            roots: Vec::new(),
            limit: Duration::from_secs(1),
        })));
        let hub = &notices.0;
        let first = notices.wait("channel", "1");
        let second = notices.wait("channel", "1");
        drop(first);
        assert!(hub.leave_out().is_empty() && hub.leave_out().is_empty());
        drop(second);
        assert!(hub.leave_out().is_empty());
        // A follower waits again after it has loaded.
        drop(notices.wait("channel", "2"));
        assert!(hub.leave_out().is_empty());
        assert!(!hub.ends(1));
        assert_eq!(hub.leave_out(), ["channel"]);
        assert!(hub.ends(1));
    }
}
