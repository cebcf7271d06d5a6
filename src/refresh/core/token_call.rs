//! The token call of a refresh, and what follows it: save, publish, or fail.

use crate::{
    refresh::core::{
        decide::Decision,
        effect::{Effect, Turn},
        policy::Permit,
        record::Relation,
        rules::{Failure, Rules, Snapshot, Stored, TokenOf},
        run::{Call, Fate, Phase, Refresh, RefreshId, Step, Then},
        slot,
        state::Core,
    },
    session::live::Live,
};

impl<R: Rules> Core<R> {
    pub(super) fn call(
        &mut self,
        run: &mut Refresh<R>,
        stored: Option<R::Record>,
        is_second: bool,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        let presented = self.token.newest().cloned();
        run.lineage = self.token.lineage();
        run.times.drained = turn.now.checked_add(self.rules.refresh_timeout());
        let step = Step::Call {
            reason: run.demand.reason,
            attempt: self.policy.begin_attempt(),
            refresh_token: presented.clone(),
            has_spent_refresh_token: self.token.has_spent(),
        };
        let call = Call {
            presented,
            stored,
            is_second,
            is_of_set: self.record.is_set_by_user(),
        };
        run.go(Phase::Call(call), step)
    }

    /// Whether the token call of a refresh may begin, although time has passed since its step. It gets its whole time then.
    pub(crate) fn begin_call(&mut self, id: RefreshId, turn: &Turn<R>) -> bool {
        let timeout = self.rules.refresh_timeout();
        let Some(run) = self.refresh.as_mut().filter(|run| run.id == id) else {
            return false;
        };
        let is_second = matches!(&run.phase, Phase::Call(call) if call.is_second);
        let may_begin = is_second || run.may_start(turn.now);
        if may_begin {
            run.times.drained = turn.now.checked_add(timeout);
        }
        may_begin
    }

    pub(super) fn called(
        &mut self,
        run: &mut Refresh<R>,
        call: &Call<R>,
        called: Result<R::Session, R::Failure>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        let is_refused = called.as_ref().err().is_some_and(Failure::is_invalid_grant);
        if let Some(stored) = &call.stored
            && run.fate != Fate::LoggedOut
            && !is_refused
        {
            // The call has replaced this record, even if the handle was reset since. After a refusal the record may be another
            // login, to go on with (R24).
            self.record.last_seen = Some(stored.version());
        }
        let checked = called.and_then(|session| {
            if session.is_rotated() {
                self.token.spend();
            }
            match session.refresh_token() {
                Some(token) if session.keeps_refresh_token() => self.token.keep(run.lineage, token),
                Some(token) => self.note_token(run, call, token),
                None => {}
            }
            let known = self.slot.latest().map(|live| &live.session);
            self.rules.check(session, known)
        });
        match checked {
            Ok(session) => self.returned(run, call, session, turn),
            Err(mut failure) => {
                let rotated = failure.take_refresh_token();
                if let Some(token) = &rotated {
                    self.token.spend();
                    self.note_token(run, call, token);
                }
                self.refused(run, call, failure, rotated, turn)
            }
        }
    }

    /// Keeps the token that a call returned, before anything else can go wrong (R3).
    pub(super) fn note_token(&mut self, run: &mut Refresh<R>, call: &Call<R>, token: &TokenOf<R>) {
        let presented = call.presented.as_ref();
        if self.token.advance(run.lineage, presented, token) {
            run.unreported = Some(token.clone());
            if self.rules.has_store() {
                self.record.token_not_saved();
            }
        } else if run.lineage != self.token.lineage()
            && let Some(logout) = self.logout_of(run.id, run.lineage)
        {
            logout.advance(presented, token);
            run.unreported = Some(token.clone());
        }
    }

    /// A call returned a session.
    pub(super) fn returned(
        &mut self,
        run: &mut Refresh<R>,
        call: &Call<R>,
        session: R::Session,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        if run.fate == Fate::LoggedOut {
            if let Some(logout) = self.logout_of(run.id, run.lineage) {
                logout.sessions.push(session);
            }
            return self.end_logged_out(run, call, turn);
        }
        let then = if run.is_wanted() {
            if self.rules.has_store() {
                // It replaces the session, even one that the user has set.
                self.record.relation = Relation::NotSaved;
            }
            Then::Publish(session.clone())
        } else {
            Then::End
        };
        self.save(run, call, session, then, turn)
    }

    /// A call failed.
    pub(super) fn refused(
        &mut self,
        run: &mut Refresh<R>,
        call: &Call<R>,
        failure: R::Failure,
        rotated: Option<TokenOf<R>>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        let is_refused = failure.is_invalid_grant() && !call.is_second && run.is_awaited();
        if is_refused && self.rules.has_store() {
            let (is_locked, until) = (true, run.times.callers);
            return run.go(Phase::Reload(failure), Step::Load { is_locked, until });
        }
        let then = if run.is_wanted() {
            Then::Fail(failure)
        } else {
            turn.failed(run.id, failure, false);
            Then::End
        };
        if run.fate == Fate::LoggedOut {
            return self.end_logged_out(run, call, turn);
        }
        let stored = call.stored.as_ref().map(Stored::session);
        let latest = self.slot.latest().map(|live| &live.session);
        // The stored session may be of another login, or of another user.
        let before = if run.is_wanted() {
            latest.or(stored)
        } else {
            stored.or(latest)
        };
        match (rotated, before) {
            // The answer was useless but for its refresh token.
            (Some(token), Some(before)) => {
                let session = before.clone().with_refresh_token(token);
                self.save(run, call, session, then, turn)
            }
            _ => run.unlock(then),
        }
    }

    /// The session was logged out during the call: its record is not left behind.
    fn end_logged_out(
        &mut self,
        run: &mut Refresh<R>,
        call: &Call<R>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        if !self.rules.has_store() {
            return self.resolve(run, Then::End, turn);
        }
        // If the call presented the stored token, that one is spent. Another one is ended with the logout.
        let stored = call.stored.clone();
        let presented = call.presented.as_ref();
        let stored = stored.filter(|stored| stored.session().refresh_token() != presented);
        run.delete(stored, Then::End)
    }

    pub(super) fn reloaded(
        &mut self,
        run: &mut Refresh<R>,
        refusal: R::Failure,
        loaded: Result<Option<R::Record>, R::Failure>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        // What the server said is not hidden by a store that fails now.
        let stored = loaded.unwrap_or_else(|failure| {
            turn.retired.push(failure);
            None
        });
        match self.decide_after_refusal(stored.as_ref()) {
            None => run.unlock(Then::Fail(refusal)),
            Some(Decision::Adopt(session)) => {
                turn.failed(run.id, refusal, false);
                run.unlock(Then::Adopt(session))
            }
            Some(Decision::Call) => {
                turn.failed(run.id, refusal, true);
                self.call(run, stored, true, turn)
            }
        }
    }

    // === After the call ===

    /// Does what was to follow the last step with the store.
    pub(super) fn resolve(
        &mut self,
        run: &mut Refresh<R>,
        then: Then<R>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        match then {
            then if !run.is_wanted() => turn.retired.extend(then.failure()),
            Then::Publish(session) => self.publish(run, session, false, turn),
            Then::Adopt(session) => {
                let known = self.slot.latest().map(|live| &live.session);
                match self.rules.check(session, known) {
                    Ok(session) => self.publish(run, session, true, turn),
                    Err(mut failure) => {
                        // Its refresh token is the newest one already.
                        drop(failure.take_refresh_token());
                        return self.fail(run, failure, turn);
                    }
                }
            }
            Then::Fail(failure) => return self.fail_attempt(run, failure, turn),
            Then::Call | Then::End => {}
        }
        None
    }

    /// Publishes the session that a refresh returned or adopted.
    pub(super) fn publish(
        &mut self,
        run: &mut Refresh<R>,
        session: R::Session,
        is_adopted: bool,
        turn: &mut Turn<R>,
    ) {
        let live = match self.slot.latest() {
            None => Live::first(session, self.last_generation),
            Some(latest) if is_adopted => slot::replaced(latest, session),
            Some(latest) => slot::refreshed(latest, session),
        };
        let live = Live { is_adopted, ..live };
        if self.slot.latest().is_some() && live.is_first_of_its_user() {
            self.token
                .change_user(live.session.refresh_token().cloned());
        }
        let (id, reason, generation) = (run.id, run.demand.reason, live.generation);
        self.policy.succeed(&mut turn.retired);
        if !is_adopted && live.is_unchanged() {
            self.policy.record_useless_refresh(turn.now);
        } else if run.demand.is_rejected {
            self.policy
                .start_probation(generation, !is_adopted, turn.now);
        }
        run.unreported = None;
        self.serve(live, turn);
        turn.emit(Effect::SessionChanged);
        turn.emit(Effect::Succeeded { id, generation });
        if is_adopted {
            turn.emit(Effect::Adopted {
                id,
                reason,
                generation,
            });
        }
        turn.emit(Effect::Finish(id, Ok(())));
    }

    /// An attempt failed: another one follows, or the refresh ends.
    pub(super) fn fail_attempt(
        &mut self,
        run: &mut Refresh<R>,
        failure: R::Failure,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        let failure = more_informative(run, failure, turn);
        if failure.is_terminal() {
            return self.fail(run, failure, turn);
        }
        self.back_off(&failure, turn);
        // While a session is in use there is no hurry. The call may have reached the server, and a second one would end the
        // grant of the session that is in use.
        let is_last = failure.ends_refresh() || self.slot.serving().is_some() || !run.is_awaited();
        let next_attempt = self.next_attempt(run, &failure);
        match self.policy.permit(turn.now) {
            Permit::NotBefore(until, _)
                if !is_last && next_attempt.is_none_or(|last| until < last) =>
            {
                turn.failed(run.id, failure.clone(), true);
                run.demand.is_manual = false;
                run.go(Phase::Backoff(failure), Step::Sleep(until))
            }
            _ => self.fail(run, failure, turn),
        }
    }

    /// Ends a refresh that failed.
    pub(super) fn fail(
        &mut self,
        run: &mut Refresh<R>,
        failure: R::Failure,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        self.report_token(run, turn);
        turn.failed(run.id, failure.clone(), false);
        // R10: the store may work again, and what was latched before still holds then.
        let latched = self.policy.latched();
        let is_lesser =
            failure.is_of_store() && latched.is_some_and(|latched| !latched.is_of_store());
        if failure.is_terminal()
            && !is_lesser
            && self.policy.latch(failure.clone(), &mut turn.retired)
        {
            turn.emit(Effect::ReauthenticationRequired(failure.clone()));
        }
        self.fail_slot(failure.clone(), turn);
        turn.emit(Effect::Finish(run.id, Err(failure)));
        None
    }

    pub(super) fn back_off(&mut self, failure: &R::Failure, turn: &mut Turn<R>) {
        let delay = failure.retry_after();
        self.policy.back_off(
            failure.clone(),
            delay,
            turn.jitter,
            turn.now,
            &mut turn.retired,
        );
    }
}

/// If the last attempt only ran out of time at the store, returns the failure before it.
fn more_informative<R: Rules>(
    run: &mut Refresh<R>,
    failure: R::Failure,
    turn: &mut Turn<R>,
) -> R::Failure {
    let is_too_late = !run.may_start(turn.now);
    let Some(before) = run.before.take() else {
        return failure;
    };
    let (told, retired) = if is_too_late && failure.is_of_store() {
        (before, failure)
    } else {
        (failure, before)
    };
    turn.retired.push(retired);
    told
}
