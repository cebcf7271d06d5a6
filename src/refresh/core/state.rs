//! The state of a session, what is shown of it, and the transitions that all others are made of.

use crate::{
    refresh::core::{
        effect::{Effect, Turn},
        pending_logout::PendingLogout,
        policy::Policy,
        record::RecordState,
        rules::{Rules, Snapshot, TokenOf},
        run::{Fate, Phase, Refresh, RefreshId},
        slot::Slot,
        token::{Lineage, TokenLineage},
    },
    session::live::{Generation, Live},
};

/// The state of one session.
#[cfg_attr(test, derive(Clone, Debug, Hash))]
pub(crate) struct Core<R: Rules> {
    pub(super) rules: R,
    pub(super) slot: Slot<R>,
    /// The refresh that callers wait for. `None` if none runs.
    pub(super) refresh: Option<Box<Refresh<R>>>,
    /// Refreshes that no caller waits for, and that must not be cut off.
    pub(super) draining: Vec<Box<Refresh<R>>>,
    pub(super) token: TokenLineage<TokenOf<R>>,
    pub(super) record: RecordState,
    pub(super) policy: Policy<R::Failure>,
    pub(super) pending_logouts: Vec<PendingLogout<R>>,
    /// The last generation that was published. Generations only grow.
    pub(super) last_generation: Option<Generation>,
    pub(super) last_id: RefreshId,
}

/// What a subscriber sees.
pub(crate) enum Shown<'a, E> {
    Empty,
    Refreshing,
    BackingOff(&'a E),
    ReauthenticationRequired(&'a E),
    Ready,
    LoggedOut,
}

impl<R: Rules> Core<R> {
    pub(crate) fn new(rules: R) -> Self {
        Self {
            rules,
            slot: Slot::Vacant {
                rejected: None,
                failure: None,
            },
            refresh: None,
            draining: Vec::new(),
            token: TokenLineage::new(),
            record: RecordState::new(),
            policy: Policy::new(),
            pending_logouts: Vec::new(),
            last_generation: None,
            last_id: RefreshId::default(),
        }
    }

    // === What is known ===

    /// The state to show, derived (R42).
    pub(crate) fn state(&self) -> Shown<'_, R::Failure> {
        let failure = match &self.slot {
            Slot::Serving(_) => return Shown::Ready,
            Slot::LoggedOut => return Shown::LoggedOut,
            Slot::Vacant { failure, .. } => failure,
        };
        let refresh = self.refresh.as_ref();
        match refresh.map(|refresh| (&refresh.phase, refresh.demand.is_manual)) {
            Some((Phase::Backoff(failure), _)) => Shown::BackingOff(failure),
            // A search that finds nothing leaves no trace.
            Some((Phase::Search | Phase::AwaitPredecessor { is_search: true }, false)) | None => {
                match (self.policy.latched(), failure) {
                    (Some(latched), _) => Shown::ReauthenticationRequired(latched),
                    (None, Some(failure)) => Shown::BackingOff(failure),
                    (None, None) => Shown::Empty,
                }
            }
            Some(_) => Shown::Refreshing,
        }
    }

    pub(crate) fn refresh_token(&self) -> Option<&TokenOf<R>> {
        self.token.newest()
    }

    /// The chain of refresh tokens. A login and a logout begin another one.
    pub(crate) fn lineage(&self) -> Lineage {
        self.token.lineage()
    }

    pub(crate) fn is_logged_out(&self) -> bool {
        matches!(self.slot, Slot::LoggedOut)
    }

    pub(crate) fn has_unsaved_refresh_token(&self) -> bool {
        self.token.is_unsaved()
    }

    /// Whether no refresh runs or drains.
    pub(crate) fn is_idle(&self) -> bool {
        self.refresh.is_none() && self.draining.is_empty()
    }

    /// Whether nothing is lost if the handle is dropped.
    pub(crate) fn is_dispensable(&self) -> bool {
        self.is_idle() && !self.token.is_unsaved() && self.pending_logouts.is_empty()
    }

    pub(crate) fn is_draining(&self, id: RefreshId) -> bool {
        self.draining.iter().any(|draining| draining.id == id)
    }

    /// The draining refreshes that concern a logout: their results are ended with it.
    pub(crate) fn drains_for(&self, logout: RefreshId) -> bool {
        self.draining
            .iter()
            .any(|draining| draining.id < logout && draining.fate != Fate::Abandoned)
    }

    // === Transitions ===

    /// All times, so that the model can let time pass.
    #[cfg(test)]
    pub(super) fn times_mut(&mut self) -> impl Iterator<Item = &mut tokio::time::Instant> {
        let refreshes = self.refresh.iter_mut().chain(&mut self.draining);
        refreshes
            .flat_map(|refresh| refresh.times_mut())
            .chain(self.policy.times_mut())
    }

    pub(super) fn next_id(&mut self) -> RefreshId {
        self.last_id = self.last_id.next();
        self.last_id
    }

    /// Sends requests with this session from now on.
    pub(super) fn serve(&mut self, live: Live<R::Session>, turn: &mut Turn<R>) {
        self.last_generation = Some(live.generation);
        turn.emit(Effect::Publish {
            live: live.clone(),
            is_watched: self.policy.is_watching(),
        });
        self.replace_slot(Slot::Serving(live), turn);
    }

    /// Stops sending requests with the session of this generation.
    pub(super) fn withdraw(&mut self, generation: Generation, turn: &mut Turn<R>) {
        if let Slot::Serving(live) = &self.slot
            && live.generation == generation
        {
            let rejected = Some(live.clone());
            self.slot = Slot::Vacant {
                rejected,
                failure: None,
            };
            turn.emit(Effect::Withdraw);
        }
    }

    pub(super) fn replace_slot(&mut self, slot: Slot<R>, turn: &mut Turn<R>) {
        if let Slot::Vacant {
            failure: Some(failure),
            ..
        } = std::mem::replace(&mut self.slot, slot)
        {
            turn.retired.push(failure);
        }
    }

    /// A refresh failed: callers who were rejected before it failed get its failure.
    pub(super) fn fail_slot(&mut self, failure: R::Failure, turn: &mut Turn<R>) {
        if let Slot::Vacant {
            failure: before, ..
        } = &mut self.slot
        {
            turn.retired.extend(before.replace(failure));
        } else {
            turn.retired.push(failure);
        }
    }

    /// Gives the latest session the newest refresh token, so that observers who keep sessions keep it too.
    pub(super) fn amend(&mut self, turn: &mut Turn<R>) {
        let Some(newest) = self.token.newest().cloned() else {
            return;
        };
        let live = match &mut self.slot {
            Slot::Serving(live)
            | Slot::Vacant {
                rejected: Some(live),
                ..
            } => live,
            Slot::Vacant { rejected: None, .. } | Slot::LoggedOut => return,
        };
        live.session = live.session.clone().with_refresh_token(newest);
        turn.emit(Effect::Amend(live.session.clone()));
        turn.emit(Effect::SessionChanged);
    }
}
