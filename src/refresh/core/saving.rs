//! The save that follows a token call, and what is done if another process was faster.
//!
//! ```text
//! Save ─ superseded ─────────────────────▶ Compare ─ as before ─▶ Save
//!   └─── lock lost ──▶ Release ─▶ Relock ──▲  │
//!                                             └─ another record ─▶ adopt it
//! ```
//!
//! A save replaces the version that was loaded before the call, and no other. If the store has another one, another process has
//! saved or deleted the record: its lock was taken while this one was held for lost.

use crate::refresh::core::{
    decide::Decision,
    effect::Turn,
    record::Relation,
    rules::{Cause, Failure, Rules, Snapshot, Stored},
    run::{Call, Fate, Phase, Refresh, Saving, Step, Then},
    state::Core,
};

/// Whether a record is of another user than the session that was set: it is never adopted.
fn is_foreign<R: Rules>(saving: &Saving<R>, stored: &R::Record) -> bool {
    let session = saving.record.session();
    saving.is_of_set && !session.may_replace(stored.session())
}

impl<R: Rules> Core<R> {
    /// Saves the session in place of the record that the call replaced, if there is a store.
    pub(super) fn save(
        &mut self,
        run: &mut Refresh<R>,
        call: &Call<R>,
        session: R::Session,
        then: Then<R>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        if !self.rules.has_store() {
            return self.resolve(run, then, turn);
        }
        let stored = call.stored.as_ref();
        let saving = Saving {
            record: match stored {
                Some(stored) => stored.followed_by(session),
                None => R::Record::first(session),
            },
            replaces: stored.map(Stored::version),
            then,
            is_second: false,
            is_of_set: call.is_of_set,
        };
        self.write(run, saving, turn)
    }

    fn write(
        &mut self,
        run: &mut Refresh<R>,
        saving: Saving<R>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        self.record.attempt(saving.record.version());
        run.times.drained = turn.now.checked_add(self.rules.refresh_timeout());
        let (record, replaces) = (saving.record.clone(), saving.replaces);
        run.go(Phase::Save(saving), Step::Save { record, replaces })
    }

    pub(super) fn saved(
        &mut self,
        run: &mut Refresh<R>,
        saving: Saving<R>,
        saved: Result<(), R::Failure>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        if run.fate == Fate::LoggedOut {
            let failure = saved.err();
            let is_elsewhere = failure
                .as_ref()
                .is_some_and(|failure| failure.is_superseded() || failure.is_lock_lost());
            turn.retired.extend(failure);
            turn.retired.extend(saving.then.failure());
            if is_elsewhere {
                // The logout deletes what another process has saved, and ends its tokens.
                return run.unlock(Then::End);
            }
            return run.delete(None, Then::End);
        }
        match saved {
            Ok(()) => self.save_done(run, saving),
            Err(failure) if failure.is_superseded() => {
                turn.retired.push(failure);
                run.compare(saving)
            }
            Err(failure) if failure.is_lock_lost() && !saving.is_second => {
                turn.retired.push(failure);
                run.go(Phase::Release(saving), Step::Unlock)
            }
            Err(failure) => self.give_up_save(run, saving.then, failure, turn),
        }
    }

    fn save_done(&mut self, run: &mut Refresh<R>, saving: Saving<R>) -> Option<Step<R>> {
        let is_set = matches!(self.record.relation, Relation::SetByUser { .. });
        self.record_saved(&saving.record, !is_set);
        run.unlock(saving.then)
    }

    fn give_up_save(
        &mut self,
        run: &mut Refresh<R>,
        then: Then<R>,
        failure: R::Failure,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        self.record.not_saved();
        let then = match then {
            Then::Publish(_) if self.rules.requires_save() => Then::Fail(failure),
            then => {
                turn.retired.push(failure);
                then
            }
        };
        run.unlock(then)
    }

    // === After another process was faster ===

    pub(super) fn relocked(
        &mut self,
        run: &mut Refresh<R>,
        saving: Saving<R>,
        locked: Result<(), R::Failure>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        match locked {
            // The logout deletes what is there.
            locked if run.fate == Fate::LoggedOut => {
                turn.retired.extend(locked.err());
                turn.retired.extend(saving.then.failure());
                run.unlock(Then::End)
            }
            Ok(()) => run.compare(saving),
            Err(failure) => self.give_up_save(run, saving.then, failure, turn),
        }
    }

    /// The record was loaded again: by its version, the save is done, is tried once more, or gives way.
    pub(super) fn compared(
        &mut self,
        run: &mut Refresh<R>,
        saving: Saving<R>,
        loaded: Result<Option<R::Record>, R::Failure>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        if run.fate == Fate::LoggedOut {
            turn.retired.extend(loaded.err());
            turn.retired.extend(saving.then.failure());
            return run.unlock(Then::End);
        }
        let stored = match loaded {
            Ok(stored) => stored,
            Err(failure) => return self.give_up_save(run, saving.then, failure, turn),
        };
        let version = stored.as_ref().map(Stored::version);
        if version == Some(saving.record.version()) {
            return self.save_done(run, saving);
        }
        if version == saving.replaces && !saving.is_second {
            return self.write(run, saving.again(), turn);
        }
        match stored {
            Some(stored)
                if self.is_replaced_by_call(run, &stored) || is_foreign(&saving, &stored) =>
            {
                if saving.is_second {
                    let failure = R::Failure::of(Cause::SavedElsewhere);
                    return self.give_up_save(run, saving.then, failure, turn);
                }
                self.write(run, saving.in_place_of(&stored), turn)
            }
            Some(stored) if !stored.version().is_newer_than(saving.replaces) => {
                // The store was restored from a backup, say. Its refresh token is spent.
                let failure = R::Failure::of(Cause::Stale);
                self.give_up_save(run, saving.then, failure, turn)
            }
            Some(stored) => self.give_way(run, saving.then, &stored, turn),
            None => self.found_gone(run, saving.then, turn),
        }
    }

    /// Whether a record has the session or the refresh token that the call replaced.
    fn is_replaced_by_call(&self, run: &Refresh<R>, stored: &R::Record) -> bool {
        let session = stored.session();
        let token = session.refresh_token();
        if token.is_some_and(|token| self.token.is_replaced_by_newest(token)) {
            return true;
        }
        let latest = self.slot.latest();
        let is_of_latest = latest.is_some_and(|latest| latest.session.has_token_of(session));
        // A session that was set since is another one.
        is_of_latest && run.is_wanted()
    }

    /// Goes on with what another process has saved: it had the lock.
    fn give_way(
        &mut self,
        run: &mut Refresh<R>,
        then: Then<R>,
        stored: &R::Record,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        if !run.is_wanted() {
            turn.retired.extend(then.failure());
            return run.unlock(Then::End);
        }
        let failure = then.failure();
        turn.failed(
            run.id,
            failure.unwrap_or_else(|| R::Failure::of(Cause::SavedElsewhere)),
            false,
        );
        match self.adopt(stored) {
            Decision::Adopt(session) => run.unlock(Then::Adopt(session)),
            // The session in memory is no other than the one that was to be replaced.
            Decision::Call => run.unlock(Then::Fail(R::Failure::of(Cause::SavedElsewhere))),
        }
    }

    /// Another process has deleted the record: the session was logged out there.
    fn found_gone(
        &mut self,
        run: &mut Refresh<R>,
        then: Then<R>,
        turn: &mut Turn<R>,
    ) -> Option<Step<R>> {
        if !self.record.is_set_by_user() {
            // From here on, the session is one whose record is gone.
            self.record.relation = Relation::InStore;
        }
        self.record.end_attempt();
        turn.retired.extend(then.failure());
        let then = if run.is_wanted() {
            Then::Fail(R::Failure::of(Cause::Gone))
        } else {
            Then::End
        };
        run.unlock(then)
    }
}
