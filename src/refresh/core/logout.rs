//! The transitions of a logout.

use crate::refresh::core::{
    effect::{Effect, Turn},
    pending_logout::{PendingLogout, ServerEnd},
    record::RecordState,
    rules::{Cause, Failure, Rules, Stored},
    run::{Fate, RefreshId},
    slot::Slot,
    state::Core,
    token::Lineage,
};

impl<R: Rules> Core<R> {
    /// Logs out: from any state to [`Slot::LoggedOut`]. Ends the grant too if it `revokes`.
    pub(crate) fn log_out(&mut self, revokes: bool, turn: &mut Turn<R>) -> RefreshId {
        let id = self.next_id();
        let was_logged_out = matches!(self.slot, Slot::LoggedOut);
        let lineage = self.token.lineage();
        let session = self.slot.latest().map(|live| live.session.clone());
        let token = self.token.end();
        if revokes {
            self.token.spend();
        }
        let record = std::mem::replace(&mut self.record, RecordState::after_logout(id));
        self.pending_logouts.push(PendingLogout {
            id,
            lineage,
            sessions: session.into_iter().collect(),
            refresh_tokens: token.into_iter().collect(),
            record: self.rules.has_store().then_some(record),
            server: ServerEnd::Pending,
        });
        self.policy.reset(&mut turn.retired);
        self.replace_slot(Slot::LoggedOut, turn);
        turn.emit(Effect::Withdraw);
        if !was_logged_out {
            turn.emit(Effect::LoggedOut);
        }
        self.supersede(Fate::LoggedOut, Err(R::Failure::of(Cause::LoggedOut)), turn);
        id
    }

    /// The logout that a refresh of this id and lineage concerns: the first one after it began.
    pub(super) fn logout_of(
        &mut self,
        id: RefreshId,
        lineage: Lineage,
    ) -> Option<&mut PendingLogout<R>> {
        self.pending_logouts
            .iter_mut()
            .find(|logout| id < logout.id && logout.lineage == lineage)
    }

    /// The first logout whose record is not deleted.
    pub(crate) fn undeleted_logout(&self) -> Option<RefreshId> {
        self.pending_logouts
            .iter()
            .find(|logout| logout.record.is_some())
            .map(|logout| logout.id)
    }

    /// Whether a record is that of a session that was logged out: unless it was saved here after the logout, as another
    /// login.
    pub(crate) fn is_logged_out_record(&self, stored: Option<&R::Record>) -> bool {
        stored.is_none_or(|record| self.record.last_seen != Some(record.version()))
    }

    /// Hands what is stored to the logouts that have not deleted it, so that its tokens are ended.
    pub(crate) fn add_to_logouts(&mut self, stored: Option<&R::Record>) {
        if let Some(record) = stored {
            for logout in &mut self.pending_logouts {
                logout.add(record);
            }
        }
    }

    /// The record of all logouts so far is deleted or replaced. `stored` is what it held.
    pub(crate) fn record_deleted(&mut self, stored: Option<&R::Record>) {
        self.add_to_logouts(stored);
        for logout in &mut self.pending_logouts {
            logout.record = None;
        }
        self.pending_logouts.retain(|logout| !logout.is_done());
    }

    /// The logouts up to `up_to` that a task is to end at the server now.
    pub(crate) fn begin_ending(&mut self, up_to: RefreshId) -> Vec<RefreshId> {
        let mut ids = Vec::new();
        for logout in &mut self.pending_logouts {
            if logout.id <= up_to && logout.server == ServerEnd::Pending {
                logout.server = ServerEnd::Running;
                ids.push(logout.id);
            }
        }
        ids
    }

    /// A task has ended a logout at the server, or not.
    pub(crate) fn ended_at_server(&mut self, id: RefreshId, is_done: bool) {
        if let Some(logout) = self.pending_logout(id) {
            logout.server = if is_done {
                ServerEnd::Done
            } else {
                ServerEnd::Pending
            };
        }
        self.pending_logouts.retain(|logout| !logout.is_done());
    }

    pub(crate) fn pending_logout(&mut self, id: RefreshId) -> Option<&mut PendingLogout<R>> {
        self.pending_logouts
            .iter_mut()
            .find(|logout| logout.id == id)
    }
}
