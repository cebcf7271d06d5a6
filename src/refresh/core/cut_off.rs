//! How a refresh is cut off: its callers give up, a session is set, or its driver does not run.
//!
//! A step that cannot be undone is never cut off: the refresh drains.

use crate::refresh::core::{
    effect::{Effect, Turn},
    rules::{Cause, Failure, Rules},
    run::{Fate, Phase, Refresh, RefreshId, Then},
    state::Core,
};

impl<R: Rules> Core<R> {
    /// The callers of a refresh have waited for as long as they may.
    pub(crate) fn late(&mut self, id: RefreshId, turn: &mut Turn<R>) {
        let Some(mut run) = self.refresh.take_if(|refresh| refresh.id == id) else {
            return;
        };
        let phase = std::mem::replace(&mut run.phase, Phase::Start);
        let (phase, session) = match phase {
            Phase::Save {
                record,
                then: Then::Publish(session),
            } if !self.rules.requires_save() => {
                let then = Then::End;
                (Phase::Save { record, then }, Some(session))
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
        } else if let Some(run) = self.take_draining(id) {
            self.report_drained(run, turn);
        }
    }

    /// Ends the wait for the running refresh with `result`: a session was set, or logged out.
    pub(super) fn supersede(
        &mut self,
        fate: Fate,
        result: Result<(), R::Failure>,
        turn: &mut Turn<R>,
    ) {
        for draining in &mut self.draining {
            if draining.fate == Fate::Late || fate == Fate::LoggedOut {
                draining.fate = fate;
            }
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
            if fate == Fate::LoggedOut
                && let Phase::Save {
                    then: Then::Publish(session),
                    ..
                } = &run.phase
            {
                let session = session.clone();
                if let Some(logout) = self.logout_of(run.id, run.lineage) {
                    logout.sessions.push(session);
                }
            }
            self.drain(run, fate);
            return;
        }
        self.report_token(&mut run, turn);
        turn.failed(run.id, failure, false);
        turn.emit(Effect::Abort(run.id));
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
