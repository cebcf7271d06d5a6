//! How a refresh is cut off: its callers give up, a session is set, or its driver does not run.
//!
//! A step that cannot be undone is never cut off: the refresh drains.

use crate::refresh::core::{
    effect::{Effect, Turn},
    rules::{Cause, Failure, Rules},
    run::{Fate, Phase, Refresh, RefreshId, Saving, Then},
    state::Core,
    token::Lineage,
};

impl<R: Rules> Core<R> {
    /// The callers of a refresh have waited for as long as they may.
    pub(crate) fn late(&mut self, id: RefreshId, turn: &mut Turn<R>) {
        let Some(mut run) = self.refresh.take_if(|refresh| refresh.id == id) else {
            return;
        };
        let phase = std::mem::replace(&mut run.phase, Phase::Start);
        let (phase, session) = match phase {
            Phase::Save(Saving {
                then: Then::Publish(session),
                record,
                replaces,
                is_second,
                is_of_set,
            }) if !self.rules.requires_save() => {
                let saving = Saving {
                    then: Then::End,
                    record,
                    replaces,
                    is_second,
                    is_of_set,
                };
                (Phase::Save(saving), Some(session))
            }
            Phase::Unlock(Then::Publish(session)) => (Phase::Unlock(Then::End), Some(session)),
            phase => (phase, None),
        };
        run.phase = phase;
        if let Some(session) = session {
            // All that is missing is the save, and that goes on.
            self.publish(&mut run, session, false, turn);
            self.drain(run, Fate::Superseded);
            return;
        }
        let failure = R::Failure::of(Cause::TimedOut);
        self.time_out(id, &failure, turn);
        self.detach(run, Fate::Late, failure, turn);
    }

    /// A refresh should have ended long ago: the runtime of its driver is not driven.
    pub(crate) fn overdue(&mut self, id: RefreshId, turn: &mut Turn<R>) {
        let Some(mut run) = self.refresh.take_if(|refresh| refresh.id == id) else {
            return;
        };
        let failure = R::Failure::of(Cause::TimedOut);
        self.time_out(id, &failure, turn);
        self.report_token(&mut run, turn);
        turn.failed(id, failure, false);
        // Should its runtime be driven again, it must make no call beside its successor.
        turn.emit(Effect::Abort(id));
        if run.phase.is_irrevocable() {
            self.drain(run, Fate::Abandoned);
        } else {
            retire(*run, turn);
        }
    }

    pub(super) fn time_out(&mut self, id: RefreshId, failure: &R::Failure, turn: &mut Turn<R>) {
        self.back_off(failure, turn);
        self.fail_slot(failure.clone(), turn);
        turn.emit(Effect::Finish(id, Err(failure.clone())));
    }

    /// The driver of a refresh was dropped, with the runtime or by an abort.
    pub(crate) fn ended(&mut self, id: RefreshId, turn: &mut Turn<R>) {
        if let Some(mut run) = self.refresh.take_if(|refresh| refresh.id == id) {
            self.fail(&mut run, R::Failure::of(Cause::Cancelled), turn);
            retire(*run, turn);
        } else if let Some(mut run) = self.take_draining(id) {
            self.report_token(&mut run, turn);
            turn.failed(id, R::Failure::of(Cause::Cancelled), false);
            retire(*run, turn);
        }
    }

    /// Ends the wait for the running refresh with `result`: a session was set, or logged out.
    pub(super) fn supersede(
        &mut self,
        fate: Fate,
        result: Result<(), R::Failure>,
        turn: &mut Turn<R>,
    ) {
        let mut returned = Vec::new();
        for draining in &mut self.draining {
            let is_logged_out = fate == Fate::LoggedOut && draining.fate != Fate::Abandoned;
            if draining.fate == Fate::Late || is_logged_out {
                let is_first = draining.fate != Fate::LoggedOut;
                draining.fate = fate;
                let session = draining
                    .phase
                    .returned()
                    .filter(|_| is_logged_out && is_first);
                returned.extend(
                    session.map(|session| (draining.id, draining.lineage, session.clone())),
                );
            }
        }
        for (id, lineage, session) in returned {
            self.end_returned(id, lineage, session);
        }
        if let Some(run) = self.refresh.take() {
            turn.emit(Effect::Finish(run.id, result));
            self.detach(run, fate, R::Failure::of(Cause::Superseded), turn);
        }
    }

    /// Lets a refresh that must not be cut off go on, and stops any other with `failure`.
    pub(super) fn detach(
        &mut self,
        mut run: Box<Refresh<R>>,
        fate: Fate,
        failure: R::Failure,
        turn: &mut Turn<R>,
    ) {
        if run.phase.is_irrevocable() {
            let returned = run.phase.returned().cloned();
            if let Some(session) = returned.filter(|_| fate == Fate::LoggedOut) {
                self.end_returned(run.id, run.lineage, session);
            }
            self.drain(run, fate);
            return;
        }
        self.report_token(&mut run, turn);
        turn.failed(run.id, failure, false);
        turn.emit(Effect::Abort(run.id));
        retire(*run, turn);
    }

    /// Hands a session that a call returned, and that is not published, to the logout.
    fn end_returned(&mut self, id: RefreshId, lineage: Lineage, session: R::Session) {
        if let Some(logout) = self.logout_of(id, lineage) {
            logout.sessions.push(session);
        }
    }

    pub(super) fn drain(&mut self, mut run: Box<Refresh<R>>, fate: Fate) {
        run.fate = fate;
        self.draining.push(run);
    }

    /// A refresh has ended. If its result was not wanted, its callers never heard of it, but observers do.
    pub(super) fn report_drained(&mut self, mut run: Box<Refresh<R>>, turn: &mut Turn<R>) {
        self.report_token(&mut run, turn);
        if !run.is_wanted() {
            turn.failed(run.id, R::Failure::of(Cause::Superseded), false);
        }
        retire(*run, turn);
    }

    pub(super) fn report_token(&mut self, run: &mut Refresh<R>, turn: &mut Turn<R>) {
        if let Some(token) = run.unreported.take() {
            let is_newest = self.token.newest() == Some(&token);
            turn.emit(Effect::RefreshTokenChanged(token));
            if is_newest {
                self.amend(turn);
            }
        }
    }
}

/// Drops a refresh after the lock is released, since its failures hold values of the user's.
fn retire<R: Rules>(run: Refresh<R>, turn: &mut Turn<R>) {
    turn.retired.extend(run.phase.failure());
    turn.retired.extend(run.before);
}
