//! What the drivers of refreshes do, step by step.

use crate::refresh::core::{
    model::{
        mutation::Mutation,
        process::{Asked, Driver, OVERDUE_AFTER, Process},
        properties::{Event, Property::R32ANewerRecordStays},
        server::Answer,
        store::{By, Holder},
        time::now,
        values::{Error, Record, Session, Settings, Token},
        world::{How, World},
    },
    rules::{Cause, Failure, Stored},
    run::{Input, RefreshId, Step},
};

impl World {
    /// Ends the step of a driver, and asks for the next.
    pub(super) fn drive(&mut self, p: usize, id: RefreshId, how: How) {
        let Some(driver) = self.process(p).driver(id) else {
            return;
        };
        let asked = driver.asked.clone();
        let before = driver.lineage;
        let newest = self.process(p).core.refresh_token().copied();
        let input = self.input(p, id, &asked, how);
        let rotated = match &input {
            Input::Called(Ok(session)) => session.refresh_token,
            Input::Called(Err(Error::Untrusted(token))) => *token,
            _ => None,
        };
        let mutation = self.mutation;
        let (step, callers_until) = self.apply(p, Event::Other, |core, turn| {
            let step = match mutation {
                Some(mutation) => {
                    let input = mutation.answer(core, input);
                    mutation.step(core.step(id, input, turn))
                }
                None => core.step(id, input, turn),
            };
            (step, core.callers_until(id))
        });
        if let (Asked::Call { presented, .. }, Some(returned)) = (&asked, rotated)
            && before == Some(self.process(p).core.token.lineage())
        {
            self.check_kept(p, newest, *presented, returned);
        }
        let call = match &step {
            Step::Call { refresh_token, .. } => Some(*refresh_token),
            _ => None,
        };
        let has_lost_lock = self.store.has_lost(Holder::new(p, By::Refresh(id)));
        let process = self.process_mut(p);
        let lineage = process.core.token.lineage();
        let Some(driver) = process.driver_mut(id) else {
            return;
        };
        driver.is_nudged &= asked != Asked::Sleep;
        if driver.ask(&step, callers_until).is_none() {
            return self.drop_driver(p, id);
        }
        if call.is_some() && has_lost_lock {
            // The driver renews the lease before it calls.
            driver.asked = Asked::NotCalled;
            return;
        }
        if let Some(presented) = call {
            driver.lineage = Some(lineage);
            self.check_call(p, id, presented);
            self.check_first_login(p, id);
            self.process_mut(p).attempts.push(id);
        }
    }

    /// How the step of a driver ended, as the core is told.
    fn input(&mut self, p: usize, id: RefreshId, asked: &Asked, how: How) -> Input<Settings> {
        let holder = Holder::new(p, By::Refresh(id));
        let result = match how {
            How::Well => Ok(()),
            How::Busy => Err(Error::LockBusy),
            _ => Err(Error::Store),
        };
        match asked {
            Asked::Begin => Input::Begin,
            Asked::NotCalled => Input::NotCalled(Error::LockLost),
            Asked::AwaitPredecessor(_) => Input::PredecessorEnded,
            Asked::Sleep => Input::Woken,
            Asked::LockOrLoad(_) if how == How::Changed => {
                Input::Loaded(self.loaded(p, id, How::Well))
            }
            Asked::Lock | Asked::LockOrLoad(_) => {
                if how == How::Well && self.mutation != Some(Mutation::TakesNoLock) {
                    self.store.take(holder);
                }
                Input::Locked(result)
            }
            Asked::Load => Input::Loaded(self.loaded(p, id, how)),
            Asked::Delete if self.store.has_lost(holder) => Input::Deleted(Err(Error::LockLost)),
            Asked::Delete => {
                if how.is_done() {
                    self.store.record = None;
                } else {
                    self.lose_unsaved(p);
                }
                Input::Deleted(result)
            }
            Asked::Save { .. } if self.mutation == Some(Mutation::SavesNothing) => {
                Input::Saved(Ok(()))
            }
            Asked::Save { record, replaces } => {
                let permitted = self.store.permits(record, *replaces);
                if let Err(superseded) = permitted
                    && self.mutation != Some(Mutation::SavesWithoutComparing)
                {
                    self.lose_unsaved(p);
                    self.process_mut(p).history.not_saved = Some(record.session.access);
                    return Input::Saved(Err(superseded));
                }
                let is_newer = permitted.is_ok() || !how.is_done();
                self.require(R32ANewerRecordStays, is_newer, || format!("{record:?}"));
                self.saved(p, *record, how);
                Input::Saved(result)
            }
            Asked::Unlock => {
                self.store.release(holder);
                Input::Unlocked(result)
            }
            Asked::Call { presented, answer } => {
                Input::Called(self.called(p, id, *presented, *answer, how))
            }
        }
    }

    fn loaded(&mut self, p: usize, id: RefreshId, how: How) -> Result<Option<Record>, Error> {
        if how == How::Well {
            if self.store.has_lost(Holder::new(p, By::Refresh(id)))
                && let Some(driver) = self.process_mut(p).driver_mut(id)
            {
                // Others may save right after it has loaded.
                driver.refused = None;
            }
            let record = self.store.record;
            let token = record.and_then(|record| record.session().refresh_token);
            self.process_mut(p).learn(token);
            return Ok(record);
        }
        if let Some(driver) = self.process_mut(p).driver_mut(id) {
            driver.refused = None;
        }
        Err(match how {
            How::Unreadable => Error::Unreadable,
            _ => Error::Store,
        })
    }

    fn saved(&mut self, p: usize, record: Record, how: How) {
        if how.is_done() {
            self.save(p, record);
        } else {
            self.lose_unsaved(p);
        }
        if how != How::Well {
            self.process_mut(p).history.not_saved = Some(record.session.access);
        }
        if how == How::FailsButIsDone
            && let Some(token) = record.session.refresh_token
        {
            // Another process may use what this one believes to have alone, and delete the record.
            self.server.lose(token);
        }
    }

    fn called(
        &mut self,
        p: usize,
        id: RefreshId,
        presented: Option<Token>,
        answer: Option<Result<Session, Error>>,
        how: How,
    ) -> Result<Session, Error> {
        if let Some(driver) = self.process_mut(p).driver_mut(id) {
            driver.reached_nothing = answer == Some(Err(Error::Unreachable));
        }
        let result = match answer {
            Some(answer) if how == How::Well => answer,
            answer => {
                self.lose(presented, answer);
                return Err(Error::of(Cause::TimedOut));
            }
        };
        let process = self.process_mut(p);
        let token = match &result {
            Ok(session) => session.refresh_token,
            Err(Error::Untrusted(token)) => *token,
            Err(Error::InvalidGrant) => {
                if let Some(driver) = process.driver_mut(id) {
                    driver.refused = Some(presented);
                }
                None
            }
            Err(_) => None,
        };
        if token.is_some() {
            process.learn(token);
            process.history.unsaved.extend(presented);
        }
        result
    }

    /// The server answers the token call of a driver.
    pub(super) fn serve(&mut self, p: usize, id: RefreshId, answer: Answer) {
        let before = self
            .process(p)
            .latest
            .as_ref()
            .map(|live| live.session.access);
        let Some(Some(presented)) = self.process(p).driver(id).map(Driver::presents) else {
            return;
        };
        let (result, seen) = self.server.call(presented, before, answer);
        self.check_use(p, presented, seen);
        if let Some(driver) = self.process_mut(p).driver_mut(id)
            && let Asked::Call { answer, .. } = &mut driver.asked
        {
            *answer = Some(result);
        }
    }

    /// The answer of a token call never reaches the core.
    pub(super) fn lose(
        &mut self,
        presented: Option<Token>,
        answer: Option<Result<Session, Error>>,
    ) {
        if let (Some(token), Some(Ok(_) | Err(Error::Untrusted(_)))) = (presented, answer) {
            self.server.lose(token);
        }
    }

    /// No other process can know the tokens that this one did not save.
    pub(super) fn lose_unsaved(&mut self, p: usize) {
        for token in self.process(p).history.unsaved.clone() {
            self.server.lose(token);
        }
    }

    /// A record is saved.
    pub(super) fn save(&mut self, p: usize, record: Record) {
        self.store.save(record);
        if let Some(saved) = record.session.refresh_token {
            let history = &mut self.process_mut(p).history;
            history
                .unsaved
                .retain(|token| token.grant != saved.grant || token.number >= saved.number);
        }
        // What other processes have logged out before is there again.
        for q in 0..self.processes().count() {
            if q != p && self.process(q).core.undeleted_logout().is_none() {
                let history = &mut self.process_mut(q).history;
                history.ended.clear();
                history.ended_grants.clear();
            }
        }
    }

    /// The driver of a refresh is gone, with its lock and its step.
    pub(super) fn drop_driver(&mut self, p: usize, id: RefreshId) {
        let process = self.process_mut(p);
        let Some(index) = process.drivers.iter().position(|driver| driver.id == id) else {
            return;
        };
        let driver = process.drivers.remove(index);
        if let Asked::Call { presented, answer } = driver.asked {
            self.lose(presented, answer);
        }
        if let Asked::Save { .. } | Asked::Delete = driver.asked {
            self.lose_unsaved(p);
        }
        let holder = Holder::new(p, By::Refresh(id));
        self.store.release(holder);
        if self.mutation != Some(Mutation::NeverEnds) {
            self.apply(p, Event::Other, |core, turn| core.ended(id, turn));
        }
        self.check_ended(p, id);
    }

    pub(super) fn late(&mut self, p: usize, id: RefreshId) {
        if let Some(driver) = self.process_mut(p).driver_mut(id) {
            driver.callers_until = None;
        }
        self.apply(p, Event::Late, |core, turn| core.late(id, turn));
    }

    pub(super) fn overdue(&mut self, p: usize) {
        if let Some((id, until)) = self.process(p).running
            && until + OVERDUE_AFTER <= now()
        {
            self.apply(p, Event::Overdue, |core, turn| core.overdue(id, turn));
        }
    }

    pub(super) fn kill(&mut self, p: usize) {
        for driver in self.process(p).drivers.clone() {
            if let Asked::Call { presented, answer } = driver.asked {
                self.lose(presented, answer);
            }
        }
        self.lose_unsaved(p);
        self.store.release_all(p);
        let settings = self.process(p).settings;
        *self.process_mut(p) = Process::new(settings);
    }
}
