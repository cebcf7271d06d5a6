//! A record that another process may have saved, found by following the store.

use crate::{
    refresh::core::{
        decide::Decision,
        effect::Turn,
        rules::{Rules, Stored},
        run::{Demand, Fate, Phase, Refresh},
        state::Core,
        token::Lineage,
    },
    report::reason::RefreshReason,
};

impl<R: Rules> Core<R> {
    /// Another process may have saved a record. It is adopted if it is news, and if no refresh is under way, which compares the
    /// record itself.
    ///
    /// `began` is the lineage when the record began to be loaded. `false` if a logout or a login came in between: the record may
    /// be of the session before, and has to be loaded again.
    pub(crate) fn offer(
        &mut self,
        stored: Option<&R::Record>,
        began: Lineage,
        turn: &mut Turn<R>,
    ) -> bool {
        if self.lineage() != began {
            return false;
        }
        let is_free = self.is_idle() && self.undeleted_logout().is_none() && !self.is_logged_out();
        if let Some(stored) = stored.filter(|_| is_free) {
            self.adopt_offered(stored, turn);
        }
        true
    }

    fn adopt_offered(&mut self, stored: &R::Record, turn: &mut Turn<R>) {
        let known = self.slot.latest().map(|live| &live.session);
        if let Err(failure) = self.rules.check(stored.session().clone(), known) {
            // The next refresh says so to a caller.
            turn.retired.push(failure);
            return;
        }
        match self.decide(Some(stored)) {
            Ok(Decision::Adopt(session)) => {
                let mut run = self.adoption();
                self.publish(&mut run, session, true, turn);
            }
            Ok(Decision::Call) => {}
            Err(failure) => turn.retired.push(failure),
        }
    }

    /// A refresh that does nothing but adopt.
    fn adoption(&mut self) -> Refresh<R> {
        let reason = match self.slot.latest() {
            None => RefreshReason::FirstLogin,
            Some(_) => RefreshReason::Followed,
        };
        Refresh {
            id: self.next_id(),
            demand: Demand::of(reason),
            phase: Phase::Start,
            fate: Fate::Awaited,
            lineage: self.token.lineage(),
            since: self.slot.generation(),
            times: self.times(None),
            unreported: None,
            before: None,
        }
    }
}
