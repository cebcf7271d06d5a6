//! Deliberate faults of the core, each of which the model has to find.
//!
//! The core has no switch for them. A fault stands between the core and its shell: it changes what the core holds, what it is
//! told, or what it asks for.

use crate::refresh::core::{
    callers::Rejection,
    effect::Effect,
    model::{
        properties::Event,
        time::now,
        values::{Error, Record, Settings},
    },
    rules::Stored,
    run::{Fate, Input, Phase, Step},
    slot::Slot,
    state::Core,
};
use crate::report::reason::RefreshReason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    AwaitsNoPredecessor,
    BelievesEachRefusal,
    ComparesNoRecord,
    CountsOnlyWhoStarts,
    CutsOffAnyStep,
    ForgetsLateCallers,
    ForgetsLogouts,
    ForgetsRotatedTokens,
    IgnoresTheLatch,
    MistakesAnUnreachableServer,
    NeverEnds,
    NeverSleeps,
    RefreshesAfterALogout,
    RefreshesForEachRejection,
    ReportsFailuresTwice,
    ReportsNoFailure,
    SavesNothing,
    SavesWithoutComparing,
    StartsNoDriver,
    TakesNoLock,
    TrustsEachRefresh,
    WithdrawsAnySession,
    WithdrawsNothing,
}

impl Mutation {
    /// Changes what the core holds before a transition.
    pub(super) fn prepare(self, core: &mut Core<Settings>, event: Event) {
        match self {
            Self::AwaitsNoPredecessor => {
                for draining in &mut core.draining {
                    draining.fate = Fate::Abandoned;
                }
            }
            Self::CutsOffAnyStep if event == Event::Late => {
                if let Some(refresh) = &mut core.refresh {
                    refresh.phase = Phase::Start;
                }
            }
            Self::ForgetsLogouts => {
                for logout in &mut core.pending_logouts {
                    logout.record = None;
                }
            }
            Self::IgnoresTheLatch => core.policy.unlatch(&mut Vec::new()),
            Self::CountsOnlyWhoStarts => {
                if let Some(refresh) = &mut core.refresh {
                    refresh.demand.is_rejected = refresh.demand.reason == RefreshReason::Rejected;
                }
            }
            _ => {}
        }
    }

    /// Changes what the core asks for after a transition.
    pub(super) fn change(
        self,
        core: &mut Core<Settings>,
        effects: &mut Vec<Effect<Settings>>,
        event: Event,
    ) {
        let is_dropped = |effect: &Effect<Settings>| match self {
            Self::ForgetsLateCallers => {
                event == Event::Late && matches!(effect, Effect::Finish(..))
            }
            Self::ReportsNoFailure => matches!(
                effect,
                Effect::Failed {
                    will_retry: false,
                    ..
                }
            ),
            Self::StartsNoDriver => matches!(effect, Effect::Spawn { .. }),
            Self::WithdrawsNothing => matches!(effect, Effect::Withdraw),
            _ => false,
        };
        effects.retain(|effect| !is_dropped(effect));
        let mut again = Vec::new();
        for effect in &mut *effects {
            match (self, effect) {
                (Self::TrustsEachRefresh, Effect::Publish { live, .. }) => {
                    live.since = live.generation;
                    core.slot = Slot::Serving(live.clone());
                }
                (Self::ReportsFailuresTwice, Effect::ReauthenticationRequired(failure)) => {
                    again.push(Effect::ReauthenticationRequired(*failure));
                }
                _ => {}
            }
        }
        effects.append(&mut again);
    }

    /// Changes a rejection that the core is told of.
    pub(super) fn reject(self, core: &mut Core<Settings>, rejection: Rejection) -> Rejection {
        match (self, core.slot.generation()) {
            (Self::RefreshesForEachRejection, _) => Rejection {
                has_served: true,
                ..rejection
            },
            (Self::WithdrawsAnySession, Some(generation)) => Rejection {
                generation,
                ..rejection
            },
            (Self::RefreshesAfterALogout, _) if core.is_logged_out() => {
                core.slot = Slot::Vacant {
                    rejected: None,
                    failure: None,
                };
                rejection
            }
            _ => rejection,
        }
    }

    /// Changes how a step ended, as the core is told.
    pub(super) fn answer(
        self,
        core: &mut Core<Settings>,
        input: Input<Settings>,
    ) -> Input<Settings> {
        match (self, input) {
            (Self::ComparesNoRecord, Input::Loaded(Ok(Some(record)))) => {
                core.record.last_seen = Some(record.version());
                Input::Loaded(Ok(Some(record)))
            }
            (Self::ForgetsRotatedTokens, Input::Called(Ok(mut session))) => {
                session.refresh_token = None;
                Input::Called(Ok(session))
            }
            (Self::MistakesAnUnreachableServer, Input::Called(Err(Error::Unreachable))) => {
                Input::Called(Err(Error::Busy {
                    asks_for_time: false,
                }))
            }
            (Self::BelievesEachRefusal, Input::Loaded(loaded)) => {
                Input::Loaded(believe(core, loaded))
            }
            (_, input) => input,
        }
    }

    /// Changes the next step of a driver.
    pub(super) fn step(self, step: Step<Settings>) -> Step<Settings> {
        match (self, step) {
            (Self::NeverSleeps, Step::Sleep(_)) => Step::Sleep(now()),
            (_, step) => step,
        }
    }
}

/// Finds nothing in the store after a refusal.
fn believe(
    core: &Core<Settings>,
    loaded: Result<Option<Record>, Error>,
) -> Result<Option<Record>, Error> {
    let phase = core.refresh.as_ref().map(|refresh| &refresh.phase);
    match phase {
        Some(Phase::Reload(_)) => Ok(None),
        _ => loaded,
    }
}
