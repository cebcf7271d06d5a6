//! How a refresh begins, and goes on until its token call: see [`run`](super::run).

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    refresh::core::{
        decide::Decision,
        effect::{Effect, Turn},
        policy::Permit,
        rules::{Cause, Failure, Rules, Stored},
        run::{
            Demand, FIRST_LOGIN_LIMIT, Fate, Input, Phase, Refresh, RefreshId, Step, Then, Times,
        },
        state::Core,
    },
    report::reason::RefreshReason,
};

/// Time for the store to answer.
const ROOM: Duration = Duration::from_millis(500);

impl<R: Rules> Core<R> {
    pub(super) fn start(
        &mut self,
        reason: RefreshReason,
        is_search: bool,
        turn: &mut Turn<R>,
    ) -> RefreshId {
        let id = self.next_id();
        let now = Some(turn.now);
        let (phase, from) = match self.predecessor() {
            // Its callers get their whole time after the predecessor has ended.
            Some(predecessor) => (
                Phase::AwaitPredecessor { is_search },
                predecessor.drained_by().max(now),
            ),
            None if is_search => (Phase::Search, now),
            None => (Phase::Start, now),
        };
        let times = self.times(from);
        self.refresh = Some(Box::new(Refresh {
            id,
            demand: Demand::of(reason),
            phase,
            fate: Fate::Awaited,
            lineage: self.token.lineage(),
            since: self.slot.generation(),
            times,
            unreported: None,
            before: None,
        }));
        turn.emit(Effect::Spawn {
            id,
            reason,
            callers_until: times.callers,
        });
        id
    }

    /// The times of a refresh that begins then.
    pub(super) fn times(&self, from: Option<Instant>) -> Times {
        let after = |limit| from.and_then(|from| from.checked_add(limit));
        Times {
            last_start: after(self.start_limit()),
            callers: after(self.rules.refresh_timeout()),
            drained: None,
        }
    }

    /// How long after its beginning a refresh may begin a token call.
    fn start_limit(&self) -> Duration {
        let share = if self.rules.has_store() { 2 } else { 1 };
        self.rules.refresh_timeout() / share
    }

    /// How long before its limit an attempt begins at the latest. It asks the store first, and without time for that it would
    /// fail, and let the next one wait for longer.
    fn room(&self) -> Duration {
        if self.rules.has_store() {
            ROOM.min(self.start_limit() / 4)
        } else {
            Duration::ZERO
        }
    }

    /// Until when an attempt may begin after a failure of the attempt before, in the same refresh. `None`: later than the clock
    /// can tell.
    pub(super) fn next_attempt(&self, run: &Refresh<R>, failure: &R::Failure) -> Option<Instant> {
        if failure.is_lock_busy() {
            // What another process is about to save can be adopted until the end.
            let end = run.times.callers?;
            return end.checked_sub(self.room()).or(Some(end));
        }
        self.last_attempt(run, failure)
    }

    /// Until when the first attempt of a refresh may begin after this failure. `None`: later than the clock can tell.
    pub(super) fn last_attempt(&self, run: &Refresh<R>, failure: &R::Failure) -> Option<Instant> {
        let last = run.times.last_start?;
        if self.last_generation.is_some() || !failure.is_unreachable() {
            return last.checked_sub(self.room()).or(Some(last));
        }
        // There was no session yet, so the host may be a mistake, and callers learn of it soon.
        let earlier = self.start_limit().saturating_sub(FIRST_LOGIN_LIMIT);
        last.checked_sub(earlier).or(Some(last))
    }

    /// Until when the callers of a refresh wait. `None` if none wait, or without end.
    pub(crate) fn callers_until(&self, id: RefreshId) -> Option<Instant> {
        let refresh = self.refresh.as_ref().filter(|refresh| refresh.id == id)?;
        refresh.times.callers
    }

    /// A draining refresh that has to end before another token call begins: it may be using up the newest refresh token.
    pub(super) fn predecessor(&self) -> Option<&Refresh<R>> {
        let mut draining = self.draining.iter().map(Box::as_ref);
        draining.find(|draining| draining.fate != Fate::Abandoned)
    }

    /// Lets a running refresh serve a caller that asks for one by hand: the caller neither waits for a sleep nor gets the
    /// result of a search.
    pub(super) fn hasten(&mut self, turn: &mut Turn<R>) {
        if let Some(refresh) = &mut self.refresh {
            let is_first = !std::mem::replace(&mut refresh.demand.is_manual, true);
            // A second nudge would end the sleep after the next attempt, too.
            if is_first && matches!(refresh.phase, Phase::Backoff(_)) {
                turn.emit(Effect::Nudge(refresh.id));
            }
        }
    }

    // === How a refresh goes on ===

    /// Answers the driver's last step, and returns its next one.
    pub(crate) fn step(&mut self, id: RefreshId, input: Input<R>, turn: &mut Turn<R>) -> Step<R> {
        let running = self.refresh.take_if(|refresh| refresh.id == id);
        let Some(mut run) = running.or_else(|| self.take_draining(id)) else {
            // It was cut off, and another refresh may be running.
            turn.retired.extend(input.failure());
            return Step::Stop;
        };
        match self.advance(&mut run, input, turn) {
            Some(step) => {
                if run.is_awaited() {
                    self.refresh = Some(run);
                } else {
                    self.draining.push(run);
                }
                step
            }
            None => {
                self.report_drained(run, turn);
                Step::Stop
            }
        }
    }

    pub(super) fn take_draining(&mut self, id: RefreshId) -> Option<Box<Refresh<R>>> {
        let index = self
            .draining
            .iter()
            .position(|draining| draining.id == id)?;
        Some(self.draining.swap_remove(index))
    }

    /// One transition of a refresh. Returns the next step, or none if the refresh has ended.
    pub(super) fn advance(
        &mut self,
        run: &mut Refresh<R>,
        input: Input<R>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        match (std::mem::replace(&mut run.phase, Phase::Start), input) {
            (Phase::AwaitPredecessor { is_search }, _) => {
                self.await_predecessor(run, is_search, turn)
            }
            (Phase::Search, Input::Begin) => run.search(turn.now),
            (Phase::Search, Input::Loaded(loaded)) => self.searched(run, loaded, turn),
            (Phase::Start, Input::Begin) => self.begin(run, turn),
            (Phase::Backoff(failure), Input::Woken) => {
                run.before = Some(failure);
                self.attempt(run, turn)
            }
            (Phase::Look | Phase::Lock, Input::Loaded(loaded)) => self.looked(run, loaded, turn),
            (Phase::Lock, Input::Locked(Ok(()))) => {
                let (is_locked, until) = (true, run.times.last_start);
                run.go(Phase::Load, Step::Load { is_locked, until })
            }
            (Phase::Lock, Input::Locked(Err(failure))) => self.not_locked(run, failure, turn),
            (Phase::LookWhileBusy(failure), Input::Loaded(loaded)) => {
                self.looked_while_busy(run, failure, loaded, turn)
            }
            (Phase::Load, Input::Loaded(loaded)) => self.loaded(run, loaded, turn),
            (Phase::Delete { stored, then }, Input::Deleted(deleted)) => {
                self.deleted(run, deleted, stored.as_ref(), then, turn)
            }
            (Phase::Call(call), Input::Called(called)) => self.called(run, &call, called, turn),
            (Phase::Call(_), Input::NotCalled(failure)) => run.not_called(failure),
            (Phase::Reload(refusal), Input::Loaded(loaded)) => {
                self.reloaded(run, refusal, loaded, turn)
            }
            (Phase::Save(saving), Input::Saved(saved)) => self.saved(run, saving, saved, turn),
            (Phase::Release(saving), Input::Unlocked(released)) => {
                turn.retired.extend(released.err());
                run.relock(saving)
            }
            (Phase::Relock(saving), Input::Locked(locked)) => {
                self.relocked(run, saving, locked, turn)
            }
            (Phase::Compare(saving), Input::Loaded(loaded)) => {
                self.compared(run, saving, loaded, turn)
            }
            (Phase::Unlock(then), Input::Unlocked(unlocked)) => {
                self.unlocked(run, then, unlocked, turn)
            }
            // No driver answers another question than it was asked.
            (phase, input) => {
                turn.retired.extend(input.failure());
                run.phase = phase;
                None
            }
        }
    }

    fn looked(
        &mut self,
        run: &mut Refresh<R>,
        loaded: Result<Option<R::Record>, R::Failure>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        let stored = match loaded {
            Ok(stored) => stored,
            Err(failure) => return self.fail_attempt(run, failure, turn),
        };
        match self.decide(stored.as_ref()) {
            Ok(Decision::Adopt(session)) => self.resolve(run, Then::Adopt(session), turn),
            // What was found without the lock is looked at again under it.
            decision if run.may_start(turn.now) => {
                turn.retired.extend(decision.err());
                run.lock_or_look(stored.as_ref().map(Stored::version))
            }
            decision => {
                turn.retired.extend(decision.err());
                let busy = run.before.take();
                let failure = busy.unwrap_or_else(|| R::Failure::of(Cause::TimedOut));
                self.fail_attempt(run, failure, turn)
            }
        }
    }

    fn not_locked(
        &mut self,
        run: &mut Refresh<R>,
        failure: R::Failure,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        let is_waiting = failure.is_lock_busy() || !run.may_start(turn.now);
        if failure.is_terminal() || !is_waiting || self.undeleted_logout().is_some() {
            return self.fail_attempt(run, failure, turn);
        }
        run.look_while_busy(failure)
    }

    fn looked_while_busy(
        &mut self,
        run: &mut Refresh<R>,
        busy: R::Failure,
        loaded: Result<Option<R::Record>, R::Failure>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        match loaded.and_then(|stored| self.decide(stored.as_ref())) {
            Ok(Decision::Adopt(session)) => {
                turn.retired.push(busy);
                self.resolve(run, Then::Adopt(session), turn)
            }
            looked => {
                turn.retired.extend(looked.err());
                self.fail_attempt(run, busy, turn)
            }
        }
    }

    fn unlocked(
        &mut self,
        run: &mut Refresh<R>,
        then: Then<R>,
        unlocked: Result<(), R::Failure>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        match (then, unlocked) {
            // The store broke off in the middle of an adoption, whose refresh token counts already.
            (Then::Adopt(_), Err(failure)) => self.resolve(run, Then::Fail(failure), turn),
            (then, unlocked) => {
                turn.retired.extend(unlocked.err());
                self.resolve(run, then, turn)
            }
        }
    }

    pub(super) fn await_predecessor(
        &mut self,
        run: &mut Refresh<R>,
        is_search: bool,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        if let Some(predecessor) = self.predecessor() {
            let (id, until) = (predecessor.id, predecessor.drained_by());
            if until.is_none_or(|until| turn.now < until) {
                let step = Step::AwaitPredecessor(id, until);
                return run.go(Phase::AwaitPredecessor { is_search }, step);
            }
            // It has not ended in its time: its driver does not run.
            for draining in self
                .draining
                .iter_mut()
                .filter(|draining| draining.id == id)
            {
                draining.fate = Fate::Abandoned;
            }
            turn.emit(Effect::Abort(id));
        }
        run.times = self.times(Some(turn.now));
        run.lineage = self.token.lineage();
        if let Some(live) = self.slot.serving()
            && Some(live.generation) != run.since
        {
            // The predecessor returned a session after all. Rejected callers wait for it here (R43).
            if run.demand.is_rejected {
                self.policy
                    .start_probation(live.generation, !live.is_adopted, turn.now);
            }
            turn.emit(Effect::Finish(run.id, Ok(())));
            return None;
        }
        if is_search {
            return run.search(turn.now);
        }
        self.begin(run, turn)
    }

    /// Begins the first attempt, if the policy permits one.
    pub(super) fn begin(&mut self, run: &mut Refresh<R>, turn: &mut Turn<R>) -> Option<Step<R>> {
        if run.demand.is_manual {
            // An earlier failure does not keep a caller from trying.
            return self.attempt(run, turn);
        }
        match self.policy.permit(turn.now) {
            Permit::Now => self.attempt(run, turn),
            Permit::NotBefore(until, failure)
                if self
                    .last_attempt(run, failure)
                    .is_none_or(|last| until < last) =>
            {
                run.go(Phase::Backoff(failure.clone()), Step::Sleep(until))
            }
            Permit::NotBefore(_, failure) | Permit::Never(failure) => {
                let failure = failure.clone();
                self.fail(run, failure, turn)
            }
        }
    }

    pub(super) fn attempt(&mut self, run: &mut Refresh<R>, turn: &mut Turn<R>) -> Option<Step<R>> {
        run.demand.is_manual = false;
        if !self.rules.has_store() {
            return self.call(run, None, false, turn);
        }
        if self.undeleted_logout().is_some() {
            return run.lock();
        }
        run.look(turn.now)
    }

    pub(super) fn searched(
        &mut self,
        run: &mut Refresh<R>,
        loaded: Result<Option<R::Record>, R::Failure>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        let stored = loaded.unwrap_or_else(|failure| {
            turn.retired.push(failure);
            None
        });
        let is_free = self.undeleted_logout().is_none();
        match is_free
            .then(|| self.decide_after_search(stored.as_ref()))
            .flatten()
        {
            Some(Decision::Adopt(session)) => self.resolve(run, Then::Adopt(session), turn),
            Some(Decision::Call) if self.slot.serving().is_some() && !run.demand.is_manual => {
                // R12: the breaker is open, and the present session is all there is.
                self.policy.unlatch(&mut turn.retired);
                turn.emit(Effect::Finish(run.id, Ok(())));
                None
            }
            Some(Decision::Call) => {
                self.policy.unlatch(&mut turn.retired);
                self.begin(run, turn)
            }
            None if run.demand.is_manual => {
                run.demand.reason = RefreshReason::Manual;
                self.attempt(run, turn)
            }
            None => {
                // Without a latched failure the breaker is open, and the present session is all there is.
                let result = self.policy.latched().cloned().map_or(Ok(()), Err);
                turn.emit(Effect::Finish(run.id, result));
                None
            }
        }
    }

    pub(super) fn loaded(
        &mut self,
        run: &mut Refresh<R>,
        loaded: Result<Option<R::Record>, R::Failure>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        let is_deleting = self.undeleted_logout().is_some();
        let stored = match loaded {
            Ok(stored) => stored,
            // A record that cannot be read is deleted all the same.
            Err(failure) if is_deleting && failure.is_terminal() => {
                return run.delete(None, Then::Fail(failure));
            }
            Err(failure) => return run.unlock(Then::Fail(failure)),
        };
        if is_deleting {
            if self.is_logged_out_record(stored.as_ref()) {
                // The next login must not find what was logged out.
                return run.delete(stored, Then::Call);
            }
            self.record_deleted(None);
        }
        match self.decide(stored.as_ref()) {
            Ok(Decision::Adopt(session)) => run.unlock(Then::Adopt(session)),
            Ok(Decision::Call) => self.call(run, stored, false, turn),
            Err(failure) => run.unlock(Then::Fail(failure)),
        }
    }

    pub(super) fn deleted(
        &mut self,
        run: &mut Refresh<R>,
        deleted: Result<(), R::Failure>,
        stored: Option<&R::Record>,
        then: Then<R>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        match (deleted, then) {
            (Ok(()), then) => {
                self.record_deleted(stored);
                match then {
                    // No call begins for callers who have given up.
                    Then::Call if run.is_awaited() => self.call(run, None, false, turn),
                    Then::Call => run.unlock(Then::End),
                    then => run.unlock(then),
                }
            }
            (Err(failure), Then::Call) => run.unlock(Then::Fail(failure)),
            (Err(failure), then) => {
                turn.retired.push(failure);
                run.unlock(then)
            }
        }
    }
}
