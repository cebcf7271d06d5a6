//! What holds in every state, by the number of its requirement.
//!
//! The window that no client can close is left out: a token call whose answer never reaches a core (the process is killed,
//! the driver is dropped, the call times out), or whose answer is not stored. The tokens that were used up there are *lost*,
//! and a second use of a lost token by a process that cannot know of it is no violation. Neither is one that the user asks for:
//! a reset or a save, by which a process goes on with the session in memory though its record is gone.

use crate::refresh::core::{
    model::{
        process::{Asked, Replay},
        server::Use,
        store::{By, Holder},
        time::now,
        values::{Error, Session, TIMEOUT, Token},
        world::World,
    },
    record::Relation,
    rules::{Cause, Failure, Stored},
    run::{FIRST_LOGIN_LIMIT, RefreshId},
    slot::Slot,
    state::Shown,
};
use crate::session::live::{Generation, Live};

macro_rules! properties {
    ($($property:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Property {
            $($property,)*
        }

        impl Property {
            pub(super) const ALL: [Self; [$(stringify!($property)),*].len()] =
                [$(Self::$property),*];
        }
    };
}

properties! {
    R02OneTokenCallAtATime,
    R03NoRefreshTokenIsPresentedTwice,
    R03ARotatedTokenIsKept,
    R04NoIrrevocableStepIsCutOff,
    R05ALateRejectionChangesNothing,
    R06PublishedAfterSaved,
    R07NoCallWithoutTheLock,
    R10LatchedMeansNoCall,
    R10ATerminalFailureIsReportedOnce,
    R11NoCallDuringABackoff,
    R11AFirstLoginWithoutAServerEndsSoon,
    R12AnOpenBreakerMeansNoCall,
    R14EveryWaiterIsAnswered,
    R14CallersWaitForWhatRuns,
    R19NoReplayWithTheRejectedToken,
    R24ARefusedTokenIsComparedWithTheStore,
    R28EveryAttemptEndsOnce,
    R30NothingIsPublishedAfterALogout,
    R30ALoggedOutSessionNeverComesBack,
    R32ANewerRecordStays,
    R42ServingExactlyIfReady,
    R43JoinedRejectionsCount,
    R44EverythingEndsAndTheLockIsFree,
}

#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) property: Property,
    pub(super) details: String,
}

use Property::*;

/// What the core was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Set,
    Late,
    Overdue,
    Other,
}

impl World {
    pub(super) fn require(
        &mut self,
        property: Property,
        holds: bool,
        details: impl FnOnce() -> String,
    ) {
        if !holds {
            self.violations.push(Violation {
                property,
                details: details(),
            });
        }
    }

    /// A driver is about to make a token call.
    pub(super) fn check_call(&mut self, p: usize, id: RefreshId, presented: Option<Token>) {
        let others: Vec<_> = self
            .processes()
            .enumerate()
            .flat_map(|(q, process)| process.drivers.iter().map(move |driver| (q, driver)))
            .filter(|(q, driver)| {
                (*q, driver.id) != (p, id) && driver.presents().is_some() && !driver.is_aborted
            })
            .filter(|(q, _)| *q == p || self.process(p).settings.has_store)
            .filter(|(q, driver)| !self.store.has_lost(Holder::new(*q, By::Refresh(driver.id))))
            .map(|(q, driver)| (q, driver.id))
            .collect();
        self.require(R02OneTokenCallAtATime, others.is_empty(), || {
            format!("{others:?} runs")
        });

        let has_lock = self.store.holder == Some(Holder::new(p, By::Refresh(id)));
        let has_store = self.process(p).settings.has_store;
        self.require(R07NoCallWithoutTheLock, has_lock || !has_store, String::new);

        let history = &self.process(p).history;
        let is_started = self.process(p).attempts.contains(&id);
        let (dead, not_before) = (history.dead, history.not_before);
        let is_ended = presented.is_some_and(|token| history.ended_grants.contains(&token.grant));
        self.require(R28EveryAttemptEndsOnce, !is_started, || {
            format!("{id:?} has another attempt")
        });
        self.require(R30ALoggedOutSessionNeverComesBack, !is_ended, || {
            format!("{presented:?} is presented")
        });

        let Some(driver) = self.process(p).driver(id) else {
            return;
        };
        let (is_manual, searches) = (driver.is_manual, driver.searches);
        let is_latched = dead == Some(presented) && !is_manual;
        self.require(R10LatchedMeansNoCall, !is_latched, || {
            format!("{presented:?} is presented")
        });
        let is_early = not_before.is_some_and(|until| now() < until) && !is_manual;
        self.require(R11NoCallDuringABackoff, !is_early, String::new);
        let is_search = searches == Some(presented) && !is_manual;
        self.require(R12AnOpenBreakerMeansNoCall, !is_search, String::new);
    }

    /// A driver is about to make another token call.
    pub(super) fn check_first_login(&mut self, p: usize, id: RefreshId) {
        let process = self.process(p);
        let Some(driver) = process.driver(id) else {
            return;
        };
        let is_in_vain = driver.reached_nothing && process.core.last_generation.is_none();
        let limit = driver
            .callers_until
            .map(|until| until - TIMEOUT + FIRST_LOGIN_LIMIT);
        let is_late = limit.is_some_and(|limit| limit <= now()) && !driver.is_manual;
        let holds = !is_in_vain || !is_late;
        self.require(R11AFirstLoginWithoutAServerEndsSoon, holds, String::new);
    }

    /// A token call has reached the server.
    pub(super) fn check_use(&mut self, p: usize, presented: Option<Token>, seen: Use) {
        let Some(token) = presented else { return };
        let known = self
            .process(p)
            .history
            .known
            .iter()
            .find(|known| known.grant == token.grant);
        let is_known = known.is_some_and(|known| known.number > token.number);
        let is_asked_for = self.process(p).history.is_reset && self.store.record.is_none();
        let is_second = (seen == Use::Second && !is_asked_for) || (seen == Use::Lost && is_known);
        self.require(R03NoRefreshTokenIsPresentedTwice, !is_second, || {
            format!("{token:?} by {p}")
        });
    }

    /// A token call has returned a session, or a token only.
    pub(super) fn check_kept(
        &mut self,
        p: usize,
        before: Option<Token>,
        presented: Option<Token>,
        returned: Token,
    ) {
        let is_kept =
            before != presented || self.process(p).core.refresh_token() == Some(&returned);
        self.require(R03ARotatedTokenIsKept, is_kept, || {
            format!("{returned:?} for {presented:?}")
        });
    }

    pub(super) fn check_abort(&mut self, p: usize, id: RefreshId, event: Event) {
        let is_irrevocable = self.process(p).driver(id).is_some_and(|driver| {
            let has_time = driver.until.is_some_and(|until| until > now());
            has_time
                && matches!(
                    driver.asked,
                    Asked::Call { .. } | Asked::Save { .. } | Asked::Delete
                )
        });
        let holds = !is_irrevocable || event == Event::Overdue;
        self.require(R04NoIrrevocableStepIsCutOff, holds, || format!("{id:?}"));
    }

    /// A rejection of a session that is not in use.
    pub(super) fn check_straggler(&mut self, p: usize, before: Option<Generation>, drivers: usize) {
        let process = self.process(p);
        let after = process.current.as_ref().map(|live| live.generation);
        let holds = before == after && drivers == process.drivers.len();
        self.require(R05ALateRejectionChangesNothing, holds, || {
            format!("{before:?} became {after:?}")
        });
    }

    pub(super) fn check_publish(&mut self, p: usize, live: &Live<Session>, event: Event) {
        let history = &self.process(p).history;
        let access = live.session.access;
        let may_be_unsaved = event != Event::Other || !self.process(p).settings.has_store;
        let is_excused =
            history.not_saved == Some(access) && !self.process(p).settings.requires_save;
        let is_saved = self.store.saved.contains(&access);
        let (is_logged_out, is_ended) = (history.is_logged_out, history.ended.contains(&access));
        self.require(
            R06PublishedAfterSaved,
            may_be_unsaved || is_excused || is_saved,
            || format!("{access}"),
        );
        let holds = event == Event::Set || !is_logged_out;
        self.require(R30NothingIsPublishedAfterALogout, holds, || {
            format!("{access}")
        });
        self.require(R30ALoggedOutSessionNeverComesBack, !is_ended, || {
            format!("{access} is published")
        });
    }

    pub(super) fn check_finish(&mut self, p: usize, id: RefreshId, result: Result<(), Error>) {
        let Some(driver) = self.process(p).driver(id) else {
            return;
        };
        let (Some(refused), since) = (driver.refused, driver.last_seen) else {
            return;
        };
        let is_set = matches!(
            self.process(p).core.record.relation,
            Relation::SetByUser { .. }
        );
        if result != Err(Error::InvalidGrant) || is_set {
            return;
        }
        let news = self
            .store
            .record
            .filter(|record| record.version().is_newer_than(since));
        let stored = news.and_then(|record| record.session().refresh_token);
        let holds =
            stored.is_none_or(|stored| Some(stored) == refused || self.server.is_dead(stored));
        self.require(R24ARefusedTokenIsComparedWithTheStore, holds, || {
            format!("{stored:?} is there")
        });
    }

    pub(super) fn check_ended(&mut self, p: usize, id: RefreshId) {
        let has_attempt = self.process(p).attempts.contains(&id);
        self.require(R28EveryAttemptEndsOnce, !has_attempt, || {
            format!("{id:?} has an attempt")
        });
    }

    pub(super) fn check_wait(&mut self, p: usize, id: RefreshId) {
        let running = self.process(p).running.map(|(id, _)| id);
        self.require(R14CallersWaitForWhatRuns, running == Some(id), || {
            format!("{id:?}, {running:?} runs")
        });
    }

    pub(super) fn check_replay(&mut self, rejected: u8, access: u8) {
        self.require(R19NoReplayWithTheRejectedToken, rejected != access, || {
            format!("{access}")
        });
    }

    /// A replay was rejected for the last time.
    pub(super) fn check_rejected_replay(
        &mut self,
        p: usize,
        replay: Replay,
        generation: Generation,
    ) {
        let process = self.process(p);
        let is_latest = process
            .latest
            .as_ref()
            .is_some_and(|latest| latest.generation == generation);
        let counts = replay == Replay::AfterWaiting
            && is_latest
            && process.published.is_refreshed
            && !process.published.is_accepted;
        let is_young = now() - process.published.since < std::time::Duration::from_secs(10);
        let is_open = process.core.policy.is_open(now());
        let counts = counts && is_young && process.history.useless != Some(generation);
        self.require(R43JoinedRejectionsCount, !counts || is_open, || {
            format!("{generation:?}")
        });
    }

    pub(super) fn check_reported(&mut self, p: usize) {
        let is_reported = self.process(p).history.is_reported;
        self.require(R10ATerminalFailureIsReportedOnce, !is_reported, String::new);
        self.process_mut(p).history.is_reported = true;
    }

    /// After every transition of a core.
    pub(super) fn check_shown(&mut self, p: usize) {
        let process = self.process(p);
        let is_ready = matches!(process.core.state(), Shown::Ready);
        let serving = match &process.core.slot {
            Slot::Serving(live) => Some(live),
            Slot::Vacant { .. } | Slot::LoggedOut => None,
        };
        let holds = is_ready == process.current.is_some() && serving == process.current.as_ref();
        self.require(R42ServingExactlyIfReady, holds, String::new);
    }

    /// Once everything has ended that can end.
    pub(super) fn check_end(&mut self) {
        for p in 0..self.processes().count() {
            let process = self.process(p);
            let (requests, drivers) = (process.requests.clone(), process.drivers.clone());
            let is_idle = process.core.is_idle()
                && drivers.is_empty()
                && process.save.is_none()
                && process.logout.is_none();
            self.require(R14EveryWaiterIsAnswered, requests.is_empty(), || {
                format!("{requests:?}")
            });
            self.require(R44EverythingEndsAndTheLockIsFree, is_idle, || {
                format!("{drivers:?}")
            });
        }
        let holder = self.store.holder;
        self.require(R44EverythingEndsAndTheLockIsFree, holder.is_none(), || {
            format!("{holder:?}")
        });
    }
}

/// Whether a failure means that a login is needed. A failure of the store does not.
pub(super) fn is_dead(failure: Error) -> bool {
    failure.is_terminal()
        && !failure.is_of_store()
        && !matches!(failure, Error::Of(Cause::LoggedOut))
}
