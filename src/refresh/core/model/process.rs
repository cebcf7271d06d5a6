//! One process: a core, and its shell as plain data.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    refresh::core::{
        decide::UserSave,
        model::{
            time::{now, shift},
            values::{Error, Record, Session, Settings, TIMEOUT, Token},
        },
        run::{RefreshId, Step},
        state::Core,
        token::Lineage,
    },
    session::live::{Generation, Live},
    store::Version,
};

/// The refresh token of a token call. `None` if the call presents none.
pub(super) type Presented = Option<Token>;

#[derive(Clone, Debug, Hash)]
pub(super) struct Process {
    pub(super) core: Core<Settings>,
    pub(super) settings: Settings,
    /// The session that requests are sent with.
    pub(super) current: Option<Live<Session>>,
    pub(super) latest: Option<Live<Session>>,
    pub(super) published: Published,
    /// The refresh that callers can wait for, and until when.
    pub(super) running: Option<(RefreshId, Instant)>,
    pub(super) drivers: Vec<Driver>,
    /// Refreshes whose attempt was started and not ended.
    pub(super) attempts: Vec<RefreshId>,
    pub(super) requests: Vec<Request>,
    pub(super) save: Option<SaveTask>,
    pub(super) logout: Option<LogoutTask>,
    /// Whether the runtime of the drivers does not run.
    pub(super) is_stalled: bool,
    pub(super) history: History,
}

/// The publication of the latest session.
#[derive(Clone, Debug, Hash)]
pub(super) struct Published {
    pub(super) since: Instant,
    /// Whether acceptances are recorded.
    pub(super) is_watched: bool,
    /// Whether a request was accepted with it.
    pub(super) is_accepted: bool,
    /// Whether a token call returned it.
    pub(super) is_refreshed: bool,
}

/// What the properties need to know of the past.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct History {
    /// The newest token of each grant that this process was given.
    pub(super) known: Vec<Token>,
    /// Tokens that this process used up, and whose successor is not in the store.
    pub(super) unsaved: Vec<Token>,
    /// A session that the user keeps. `None` once another login could have made it worthless.
    pub(super) kept: Option<Session>,
    /// The session that this process could not save.
    pub(super) not_saved: Option<u8>,
    /// Whether the session was logged out, and neither set nor reset since.
    pub(super) is_logged_out: bool,
    /// Access tokens and grants that were logged out.
    pub(super) ended: Vec<u8>,
    pub(super) ended_grants: Vec<u8>,
    /// Whether the user has reset the handle.
    pub(super) is_reset: bool,
    /// The token of the call that failed with a terminal failure, until something changed.
    pub(super) dead: Option<Presented>,
    /// Whether a terminal failure was reported, until something changed.
    pub(super) is_reported: bool,
    /// When the next call may be made.
    pub(super) not_before: Option<Instant>,
    /// The last generation with which the breaker was open, or was reset.
    pub(super) useless: Option<Generation>,
}

#[derive(Clone, Debug, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that a property asks for"
)]
pub(super) struct Driver {
    pub(super) id: RefreshId,
    pub(super) asked: Asked,
    /// When the step times out, or when the sleep is over.
    pub(super) until: Option<Instant>,
    /// Until when the callers wait. `None` if none wait, or if the driver has said that it is late.
    pub(super) callers_until: Option<Instant>,
    pub(super) is_nudged: bool,
    pub(super) is_aborted: bool,
    /// Whether a caller asked for it by hand.
    pub(super) is_manual: bool,
    /// Whether it was started while the breaker was open, and with which token.
    pub(super) searches: Option<Presented>,
    /// The lineage of the token that it presented.
    pub(super) lineage: Option<Lineage>,
    /// The version that was seen last when it was started.
    pub(super) last_seen: Option<Version>,
    /// The token that the server refused.
    pub(super) refused: Option<Presented>,
    /// Whether the last call did not reach the server.
    pub(super) reached_nothing: bool,
}

/// What a driver was asked for.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(super) enum Asked {
    Begin,
    AwaitPredecessor(RefreshId),
    Sleep,
    Load,
    Lock,
    /// The version of the record that was loaded before.
    LockOrLoad(Option<Version>),
    Delete,
    /// Nothing: the driver finds that its lock was lost, and makes no call.
    NotCalled,
    Call {
        presented: Option<Token>,
        /// `None` until the server has answered.
        answer: Option<Result<Session, Error>>,
    },
    Save {
        record: Record,
        replaces: Option<Version>,
    },
    Unlock,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) enum Request {
    /// It needs a session.
    Asking,
    Sent {
        generation: Generation,
        access: u8,
        /// Whether it was rejected before, and waited for this session.
        replay: Replay,
    },
    Waiting(RefreshId, Purpose),
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) enum Replay {
    No,
    /// The session was there.
    AtOnce,
    AfterWaiting,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) enum Purpose {
    Send,
    /// It was rejected with this session.
    Replay(Generation, u8),
    Manual,
}

/// A save by the user, and what it does next.
#[derive(Clone, Debug, Hash)]
pub(super) enum SaveTask {
    Lock,
    Load,
    Save(Record, Option<Version>, UserSave),
    Delete(Record),
}

/// A logout, and what it does next.
#[derive(Clone, Debug, Hash)]
pub(super) struct LogoutTask {
    pub(super) id: RefreshId,
    pub(super) revokes: bool,
    pub(super) step: LogoutStep,
}

#[derive(Clone, Debug, Hash)]
pub(super) enum LogoutStep {
    Drain,
    Lock,
    Load,
    Delete(Option<Record>),
    End,
}

impl Process {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            core: Core::new(settings),
            settings,
            current: None,
            latest: None,
            published: Published {
                since: now(),
                is_watched: false,
                is_accepted: false,
                is_refreshed: false,
            },
            running: None,
            drivers: Vec::new(),
            attempts: Vec::new(),
            requests: Vec::new(),
            save: None,
            logout: None,
            is_stalled: false,
            history: History::default(),
        }
    }

    /// The user keeps the session in use.
    pub(super) fn keep(&mut self) {
        self.history.kept = self.current.as_ref().map(|live| live.session);
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        for instant in self.core.times_mut() {
            shift(instant, time);
        }
        shift(&mut self.published.since, time);
        let history = &mut self.history;
        let running = self.running.iter_mut().map(|(_, until)| until);
        let drivers = self.drivers.iter_mut();
        let others = running
            .chain(
                drivers.flat_map(|driver| driver.until.iter_mut().chain(&mut driver.callers_until)),
            )
            .chain(&mut history.not_before);
        for instant in others {
            shift(instant, time);
        }
    }

    /// When something is due.
    pub(super) fn deadlines(&self) -> Vec<Instant> {
        let running = self.running.map(|(_, until)| until + OVERDUE_AFTER);
        let drivers = self.drivers.iter();
        let times = drivers.flat_map(|driver| [driver.until, driver.callers_until]);
        let mut deadlines: Vec<_> = times.chain([running]).flatten().collect();
        deadlines.extend(self.core.policy.deadlines());
        deadlines.retain(|deadline| *deadline > now());
        deadlines
    }

    /// Whether the runtime has something to do before time passes.
    pub(super) fn is_urgent(&self) -> bool {
        let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= now());
        !self.is_stalled
            && self.drivers.iter().any(|driver| {
                is_over(driver.until)
                    || is_over(driver.callers_until)
                    || driver.is_aborted
                    || driver.is_nudged
                    || driver.asked == Asked::Begin
            })
    }

    pub(super) fn driver(&self, id: RefreshId) -> Option<&Driver> {
        self.drivers.iter().find(|driver| driver.id == id)
    }

    pub(super) fn driver_mut(&mut self, id: RefreshId) -> Option<&mut Driver> {
        self.drivers.iter_mut().find(|driver| driver.id == id)
    }
}

/// How long after the callers' time a refresh counts as not driven.
pub(super) const OVERDUE_AFTER: Duration = Duration::from_secs(2);

impl Driver {
    pub(super) fn new(id: RefreshId, last_seen: Option<Version>) -> Self {
        Self {
            id,
            asked: Asked::Begin,
            until: None,
            callers_until: None,
            is_nudged: false,
            is_aborted: false,
            is_manual: false,
            searches: None,
            lineage: None,
            last_seen,
            refused: None,
            reached_nothing: false,
        }
    }

    /// Takes the next step on. Returns `None` if the refresh has ended.
    pub(super) fn ask(
        &mut self,
        step: &Step<Settings>,
        callers_until: Option<Instant>,
    ) -> Option<()> {
        let (asked, until) = match *step {
            Step::AwaitPredecessor(id, until) => (Asked::AwaitPredecessor(id), until),
            Step::Sleep(until) => (Asked::Sleep, Some(until)),
            Step::Load { until, .. } => (Asked::Load, until),
            Step::Lock(until) => (Asked::Lock, until),
            Step::LockOrLoad { seen, until } => (Asked::LockOrLoad(seen), until),
            Step::Delete => (Asked::Delete, Some(now() + TIMEOUT)),
            Step::Call { refresh_token, .. } => (
                Asked::Call {
                    presented: refresh_token,
                    answer: None,
                },
                Some(now() + TIMEOUT),
            ),
            Step::Save { record, replaces } => {
                (Asked::Save { record, replaces }, Some(now() + TIMEOUT))
            }
            Step::Unlock => (Asked::Unlock, Some(now() + TIMEOUT)),
            Step::Stop => return None,
        };
        self.asked = asked;
        self.until = until;
        self.callers_until = callers_until;
        Some(())
    }

    /// A token call that the server may be answering.
    pub(super) fn presents(&self) -> Option<Presented> {
        match &self.asked {
            Asked::Call { presented, .. } => Some(*presented),
            _ => None,
        }
    }
}
