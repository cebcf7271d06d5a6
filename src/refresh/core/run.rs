//! One refresh, step by step.
//!
//! ```text
//! AwaitPredecessor ─▶ Search ─▶ Backoff ─▶ Look ─▶ Lock ─▶ Load ─▶ Delete
//!                       │         ▲          │        │       │       │
//!                       ▼         │ transient▼ adopt  ▼       ▼ adopt ▼
//!                      end ◀──────┴────────────────────────── Call ◀──┘
//!                       ▲                                  refused │  │ Ok, or a rotated token
//!                       │                                  Reload ◀┘  ▼
//!                       └──────────────── Unlock ◀───────────────── Save
//! ```
//!
//! Without a store only `AwaitPredecessor`, `Backoff` and `Call` occur. With one, a token call is made while the store lock is
//! held, and its session is published after it was saved (R6). [`saving`](super::saving) has the rest of `Save`. `Call`, `Save` and `Delete` cannot be undone: a refresh in one
//! of them is never cut off. If its callers give up, or a session is set, it drains: it goes on without callers.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    refresh::core::{
        rules::{Rules, Stored, TokenOf},
        token::Lineage,
    },
    report::reason::RefreshReason,
    session::live::Generation,
    store::Version,
};

/// How long a first login tries to reach its server. A wrong host is told soon, and a network that is just coming up gets a
/// few attempts.
pub(super) const FIRST_LOGIN_LIMIT: Duration = Duration::from_secs(2);

/// How long a search of the store may take, since its callers would most likely get a known failure anyway.
const SEARCH_LIMIT: Duration = Duration::from_secs(1);

/// How much longer than its time a draining refresh is waited for: its driver may be the next to run.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Identifies a refresh or a logout of a handle. Ids only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RefreshId(u64);

impl RefreshId {
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg_attr(test, derive(Clone, Debug, Hash))]
pub(crate) struct Refresh<R: Rules> {
    pub(crate) id: RefreshId,
    pub(super) demand: Demand,
    pub(super) phase: Phase<R>,
    pub(super) fate: Fate,
    /// The lineage whose newest token it presents.
    pub(super) lineage: Lineage,
    /// The latest generation when it began.
    pub(super) since: Option<Generation>,
    pub(super) times: Times,
    /// A rotated token that no event has reported.
    pub(super) unreported: Option<TokenOf<R>>,
    /// The failure of the attempt before.
    pub(super) before: Option<R::Failure>,
}

/// Why a refresh is wanted.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Demand {
    /// The reason that is reported.
    pub(super) reason: RefreshReason,
    /// Whether a rejected caller waits: then the refresh counts for the breaker (R43).
    pub(super) is_rejected: bool,
    /// Whether a caller asked by hand since the last attempt: the next attempt waits for nothing.
    pub(super) is_manual: bool,
}

impl Demand {
    pub(super) fn of(reason: RefreshReason) -> Self {
        Self {
            reason,
            is_rejected: reason == RefreshReason::Rejected,
            is_manual: reason == RefreshReason::Manual,
        }
    }
}

/// The times of a refresh. `None`: later than the clock can tell.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Times {
    /// Until when the store lock may be taken and a token call may begin. With a store, half of the refresh timeout, so that
    /// processes that wait for the lock get their turn. What others save is adopted for as long as callers wait.
    pub(super) last_start: Option<Instant>,
    /// Until when its callers wait.
    pub(super) callers: Option<Instant>,
    /// Until when a step that cannot be undone ends.
    pub(super) drained: Option<Instant>,
}

/// What becomes of the result of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    /// Callers wait for it.
    Awaited,
    /// Its callers have given up. A session that it returns is published all the same.
    Late,
    /// A session was set. Only a rotated refresh token counts.
    Superseded,
    /// The session was logged out. What it returns is ended.
    LoggedOut,
    /// Its driver does not run. A successor does not wait for it.
    Abandoned,
}

/// What a refresh waits for.
#[cfg_attr(test, derive(Clone, Debug, Hash))]
pub(crate) enum Phase<R: Rules> {
    /// The driver was spawned.
    Start,
    AwaitPredecessor {
        is_search: bool,
    },
    /// Whether the store has another session, while a failure is latched or the breaker is open.
    Search,
    Backoff(R::Failure),
    /// The record is loaded without the lock: what can be adopted needs none.
    Look,
    /// Meanwhile a newer record may be found without the lock.
    Lock,
    /// The record is loaded without the lock: another process holds it, and may have saved.
    LookWhileBusy(R::Failure),
    Load,
    Delete {
        stored: Option<R::Record>,
        then: Then<R>,
    },
    Call(Call<R>),
    /// The record is loaded once more: the server refused the refresh token (R24).
    Reload(R::Failure),
    Save(Saving<R>),
    /// The lock was lost during the save. It is released, taken again, and the record compared.
    Release(Saving<R>),
    Relock(Saving<R>),
    Compare(Saving<R>),
    Unlock(Then<R>),
}

/// A token call.
#[cfg_attr(test, derive(Clone, Debug, Hash))]
pub(crate) struct Call<R: Rules> {
    pub(super) presented: Option<TokenOf<R>>,
    /// The record that it replaces.
    pub(super) stored: Option<R::Record>,
    pub(super) is_second: bool,
    /// Whether it replaces a session that the user has set.
    pub(super) is_of_set: bool,
}

/// A save.
#[cfg_attr(test, derive(Clone, Debug, Hash))]
pub(crate) struct Saving<R: Rules> {
    pub(super) record: R::Record,
    /// The version that it replaces. `None`: there was no record.
    pub(super) replaces: Option<Version>,
    pub(super) then: Then<R>,
    /// Whether the store was compared already.
    pub(super) is_second: bool,
    /// Whether the call replaced a session that the user had set.
    pub(super) is_of_set: bool,
}

/// What follows a step with the store.
#[cfg_attr(test, derive(Clone, Debug, Hash))]
pub(crate) enum Then<R: Rules> {
    Publish(R::Session),
    Adopt(R::Session),
    Fail(R::Failure),
    Call,
    /// Nothing: the callers have their result already.
    End,
}

/// How a step of the driver ended.
pub(crate) enum Input<R: Rules> {
    Begin,
    PredecessorEnded,
    Woken,
    Loaded(Result<Option<R::Record>, R::Failure>),
    Locked(Result<(), R::Failure>),
    Called(Result<R::Session, R::Failure>),
    /// The call was not made: the lease of the store lock was over.
    NotCalled(R::Failure),
    Saved(Result<(), R::Failure>),
    Deleted(Result<(), R::Failure>),
    Unlocked(Result<(), R::Failure>),
}

impl<R: Rules> Input<R> {
    pub(super) fn failure(self) -> Option<R::Failure> {
        match self {
            Self::Loaded(loaded) => loaded.err(),
            Self::Locked(done) | Self::Saved(done) | Self::Deleted(done) | Self::Unlocked(done) => {
                done.err()
            }
            Self::Called(called) => called.err(),
            Self::NotCalled(failure) => Some(failure),
            Self::Begin | Self::PredecessorEnded | Self::Woken => None,
        }
    }
}

impl<R: Rules> Then<R> {
    pub(super) fn failure(self) -> Option<R::Failure> {
        match self {
            Self::Fail(failure) => Some(failure),
            Self::Publish(_) | Self::Adopt(_) | Self::Call | Self::End => None,
        }
    }
}

impl<R: Rules> Saving<R> {
    /// The same save once more.
    pub(super) fn again(self) -> Self {
        Self {
            is_second: true,
            ..self
        }
    }

    /// The same session once more, in place of this record.
    pub(super) fn in_place_of(self, stored: &R::Record) -> Self {
        Self {
            record: stored.followed_by(self.record.session().clone()),
            replaces: Some(stored.version()),
            ..self.again()
        }
    }
}

impl<R: Rules> Phase<R> {
    pub(super) fn failure(self) -> Option<R::Failure> {
        match self {
            Self::Backoff(failure) | Self::Reload(failure) | Self::LookWhileBusy(failure) => {
                Some(failure)
            }
            Self::Delete { then, .. }
            | Self::Save(Saving { then, .. })
            | Self::Release(Saving { then, .. })
            | Self::Relock(Saving { then, .. })
            | Self::Compare(Saving { then, .. })
            | Self::Unlock(then) => then.failure(),
            _ => None,
        }
    }

    /// The session that a call returned, and that is not published.
    pub(super) fn returned(&self) -> Option<&R::Session> {
        match self {
            Self::Save(saving)
            | Self::Release(saving)
            | Self::Relock(saving)
            | Self::Compare(saving) => match &saving.then {
                Then::Publish(session) => Some(session),
                _ => None,
            },
            Self::Unlock(Then::Publish(session)) => Some(session),
            _ => None,
        }
    }

    /// Whether the refresh must not be cut off here.
    pub(super) fn is_irrevocable(&self) -> bool {
        matches!(
            self,
            Self::Call(_)
                | Self::Save(_)
                | Self::Release(_)
                | Self::Relock(_)
                | Self::Compare(_)
                | Self::Delete { .. }
                | Self::Unlock(_)
        )
    }
}

impl<R: Rules> Refresh<R> {
    pub(super) fn is_awaited(&self) -> bool {
        self.fate == Fate::Awaited
    }

    /// Whether a token call may still begin.
    pub(super) fn may_start(&self, now: Instant) -> bool {
        self.times.last_start.is_none_or(|last| now < last)
    }

    /// Whether a session that it returns is published.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self.fate, Fate::Awaited | Fate::Late)
    }

    /// When a refresh that drains has to have ended.
    pub(super) fn drained_by(&self) -> Option<Instant> {
        self.times.drained?.checked_add(DRAIN_GRACE)
    }

    /// Goes on with a step. Returns none if the refresh has ended.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "ends a transition, as a return of none does"
    )]
    pub(super) fn go(&mut self, phase: Phase<R>, step: Step<R>) -> Option<Step<R>> {
        self.phase = phase;
        Some(step)
    }

    #[cfg(test)]
    pub(super) fn times_mut(&mut self) -> impl Iterator<Item = &mut Instant> {
        let times = &mut self.times;
        let until = [
            &mut times.last_start,
            &mut times.callers,
            &mut times.drained,
        ];
        until.into_iter().flatten()
    }

    pub(super) fn lock(&mut self) -> Option<Step<R>> {
        self.go(Phase::Lock, Step::Lock(self.times.last_start))
    }

    /// Takes the lock to make a token call. What another process saves meanwhile is looked at without the lock, so that those
    /// who wait do not have to take it one after another.
    pub(super) fn lock_or_look(&mut self, seen: Option<Version>) -> Option<Step<R>> {
        let until = self.times.last_start;
        self.go(Phase::Lock, Step::LockOrLoad { seen, until })
    }

    /// Loads the record without the lock: nothing is used up by adopting, so it waits for no other process.
    pub(super) fn look(&mut self, now: Instant) -> Option<Step<R>> {
        let until = if self.may_start(now) {
            self.times.last_start
        } else {
            self.times.callers
        };
        let is_locked = false;
        self.go(Phase::Look, Step::Load { is_locked, until })
    }

    pub(super) fn look_while_busy(&mut self, busy: R::Failure) -> Option<Step<R>> {
        let (is_locked, until) = (false, self.times.callers);
        let step = Step::Load { is_locked, until };
        self.go(Phase::LookWhileBusy(busy), step)
    }

    /// Takes the lock that was lost once more.
    pub(super) fn relock(&mut self, saving: Saving<R>) -> Option<Step<R>> {
        let until = self.times.drained;
        self.go(Phase::Relock(saving), Step::Lock(until))
    }

    pub(super) fn compare(&mut self, saving: Saving<R>) -> Option<Step<R>> {
        let (is_locked, until) = (true, self.times.drained);
        self.go(Phase::Compare(saving), Step::Load { is_locked, until })
    }

    /// No call was made: others may have saved since the record was loaded.
    pub(super) fn not_called(&mut self, failure: R::Failure) -> Option<Step<R>> {
        self.unlock(if self.is_awaited() {
            Then::Fail(failure)
        } else {
            Then::End
        })
    }

    pub(super) fn search(&mut self, now: Instant) -> Option<Step<R>> {
        let until = now.checked_add(SEARCH_LIMIT);
        let is_locked = false;
        self.go(Phase::Search, Step::Load { is_locked, until })
    }

    pub(super) fn delete(&mut self, stored: Option<R::Record>, then: Then<R>) -> Option<Step<R>> {
        self.go(Phase::Delete { stored, then }, Step::Delete)
    }

    pub(super) fn unlock(&mut self, then: Then<R>) -> Option<Step<R>> {
        self.go(Phase::Unlock(then), Step::Unlock)
    }
}

/// What the driver of a refresh does next. Each but `Stop` is answered by an [`Input`].
pub(crate) enum Step<R: Rules> {
    /// Wait until an earlier refresh has ended, or until then.
    AwaitPredecessor(RefreshId, Option<Instant>),
    /// Sleep until then, or until nudged.
    Sleep(Instant),
    /// Load the record, until then: with the store lock, or without it.
    Load {
        is_locked: bool,
        until: Option<Instant>,
    },
    /// Take the store lock, until then.
    Lock(Option<Instant>),
    /// Take the store lock, until then, or load a record of another version than `seen`, whichever comes first.
    LockOrLoad {
        seen: Option<Version>,
        until: Option<Instant>,
    },
    /// Delete the record, for a logout.
    Delete,
    /// Call the `RefreshFn`.
    Call {
        reason: RefreshReason,
        attempt: u32,
        refresh_token: Option<TokenOf<R>>,
        has_spent_refresh_token: bool,
    },
    /// Save a record in place of the one of that version, in several tries.
    Save {
        record: R::Record,
        replaces: Option<Version>,
    },
    /// Release the store lock, if it is held.
    Unlock,
    /// The refresh has ended.
    Stop,
}
