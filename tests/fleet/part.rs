//! What a process of a fleet is told, and what it tells.

use serde::{Deserialize, Serialize};

/// The environment variable that makes a process of this binary a worker.
pub(crate) const PART: &str = "FLEET_PART";

/// The key that the session is stored under.
pub(crate) const KEY: &str = "integration-user";

/// The part of a process.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) store_url: String,
    pub(crate) login_url: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    /// The first refresh token. It is spent once the store has a record.
    pub(crate) refresh_token: String,
    pub(crate) follows: bool,
    pub(crate) lease_ms: u64,
    pub(crate) lock_timeout_ms: u64,
    pub(crate) refresh_timeout_ms: u64,
}

impl Part {
    /// The part of this process. `None` if this is no worker.
    pub(crate) fn of_this_process() -> Option<Self> {
        let part = std::env::var(PART).ok()?;
        Some(serde_json::from_str(&part).unwrap())
    }
}

/// A step of a refresh, at which a worker can halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Before the lock is taken.
    Lock,
    /// The lock is taken, and the record is not loaded.
    Locked,
    /// The server has answered the token call.
    Called,
    /// Before the save.
    Save,
    /// The session is saved, and the lock is held.
    Release,
}

impl Step {
    pub(crate) const ALL: [Self; 5] = [
        Self::Lock,
        Self::Locked,
        Self::Called,
        Self::Save,
        Self::Release,
    ];
}

/// A line of the standard input of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Sends this many requests at once.
    Send(usize),
    /// Sends a request in each of this many tasks, again and again until it is answered with success.
    SendUntilGood(usize),
    /// Halts at the next such step. `None`: at none.
    Halt(Option<Step>),
    /// Ends the halt.
    Go,
    /// Tells the counts.
    Count,
}

/// A line of the standard output of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Ready,
    At(Step),
    /// A token call begins.
    Calls,
    /// A save was done.
    Saved,
    Adopted(String),
    /// An operation of the store failed: its name, the kind of the error, and how often it was tried.
    StoreFailed(String, String, u32),
    /// All requests of an order are answered.
    Sent(Sent),
    Counted(Counts),
}

/// The answers to the requests of one order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) succeeded: usize,
    pub(crate) failed: usize,
    /// The longest time of one request.
    pub(crate) slowest_ms: u64,
    /// Why a request failed. `None` if none did.
    pub(crate) failure: Option<String>,
}

/// What a process has done since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Loads without the lock.
    pub(crate) loads: u64,
    /// Locks that were taken.
    pub(crate) locks: u64,
    pub(crate) calls: u64,
    /// Token calls that began without the lock.
    pub(crate) unlocked_calls: u64,
    pub(crate) saves: u64,
    pub(crate) renewed: u64,
    pub(crate) adoptions: u64,
}
