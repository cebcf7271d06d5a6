//! What users do, and how the model carries out an action: as the handle of the crate does.

use std::time::Duration;

use crate::refresh::core::{
    decide::{SaveDecision, SavedBy},
    model::{
        process::{Driver, LogoutStep, LogoutTask, Process, Request, SaveTask},
        properties::Event,
        server::Answer,
        store::{By, Holder},
        time::now,
        values::{Record, Session},
        world::{Action, How, World},
    },
    record::Relation,
    rules::Stored,
    state::Core,
};

impl World {
    /// Does what happens next.
    pub(super) fn act(&mut self, action: Action) {
        self.count(action);
        match action {
            Action::Request(p) => self.ask(p),
            Action::Ask(p, request) => {
                self.process_mut(p).requests.remove(request);
                self.ask(p);
            }
            Action::Respond {
                process,
                request,
                is_refused,
            } => self.respond(process, request, is_refused),
            Action::Refresh(p) => self.refresh(p),
            Action::RefreshDue(p) => self.refresh_due(p),
            Action::Invalidate(p) => self.invalidate(p),
            Action::LogIn(p) => self.set(p, true),
            Action::Set(p) => self.set(p, false),
            Action::Keep(p) => self.process_mut(p).keep(),
            Action::SetKept(p) => self.set_kept(p),
            Action::Reset(p) => self.reset(p),
            Action::LogOut { process, revokes } => self.log_out(process, revokes),
            Action::Save(p) => {
                if !self.process(p).core.is_logged_out() {
                    self.process_mut(p).save = Some(SaveTask::Lock);
                }
            }
            Action::Drive(p, id, how) => self.drive(p, id, how),
            Action::Serve(p, id, answer) => self.serve(p, id, answer),
            Action::Late(p, id) => self.late(p, id),
            Action::Overdue(p) => self.overdue(p),
            Action::Drop(p, id) => self.drop_driver(p, id),
            Action::SaveStep(p, how) => self.step_save(p, how),
            Action::LogoutStep(p, how) => self.step_logout(p, how),
            Action::EndLease => self.end_lease(),
            Action::Notice(p) => self.notice(p),
            Action::Expire => self.server.expire(),
            Action::RotateElsewhere => self.rotate_elsewhere(),
            Action::Revoke(grant) => self.server.revoke(grant),
            Action::Kill(p) => self.kill(p),
            Action::Stall(p) => self.process_mut(p).is_stalled = true,
            Action::Revive(p) => self.process_mut(p).is_stalled = false,
            Action::ShutDown(p) => self.shut_down(p),
            Action::Pass => {
                if let Some(next) = self.processes().flat_map(Process::deadlines).min() {
                    self.pass(next - now());
                }
            }
            Action::PassAnHour => self.pass(Duration::from_secs(3600)),
        }
    }

    /// Counts what may not happen for ever.
    fn count(&mut self, action: Action) {
        let left = &mut self.left;
        let counted = match action {
            Action::Request(_) => &mut left.requests,
            Action::Respond {
                is_refused: true, ..
            } => &mut left.refusals,
            Action::Refresh(_) => &mut left.refreshes,
            Action::RefreshDue(_) => &mut left.proactive,
            Action::Invalidate(_) => &mut left.invalidations,
            Action::LogIn(_) => &mut left.logins,
            Action::Set(_) => &mut left.sets,
            Action::Keep(_) => &mut left.copies,
            Action::Reset(_) => &mut left.resets,
            Action::LogOut { .. } => &mut left.logouts,
            Action::Save(_) => &mut left.saves,
            Action::Serve(_, _, answer) if answer != Answer::Good => &mut left.bad_answers,
            Action::Drive(_, _, How::Fails | How::Busy | How::FailsButIsDone | How::Unreadable)
            | Action::SaveStep(_, How::Fails | How::FailsButIsDone)
            | Action::LogoutStep(_, How::Fails | How::FailsButIsDone) => &mut left.store_faults,
            Action::Kill(_) => &mut left.kills,
            Action::Stall(_) => &mut left.stalls,
            Action::ShutDown(_) => &mut left.shutdowns,
            Action::EndLease => &mut left.lost_locks,
            Action::Notice(_) => &mut left.notices,
            Action::Expire => &mut left.expiries,
            Action::RotateElsewhere => &mut left.rotations,
            Action::Revoke(_) => &mut left.revocations,
            Action::Pass | Action::PassAnHour => &mut left.passes,
            _ => return,
        };
        *counted = counted.saturating_sub(1);
    }

    fn rotate_elsewhere(&mut self) {
        let Some(stored) = self.store.record else {
            return;
        };
        let presented = stored.session.refresh_token;
        if let (Ok(session), _) = self.server.call(presented, None, Answer::Good) {
            self.store.save(stored.followed_by(session));
            if let Some(token) = presented {
                self.server.lose(token);
            }
        }
    }

    /// A process that follows the store hears of a record.
    fn notice(&mut self, p: usize) {
        let stored = self.store.record;
        let token = stored.and_then(|record| record.session().refresh_token);
        if !self.process(p).core.is_logged_out() {
            self.process_mut(p).learn(token);
        }
        self.apply(p, Event::Other, |core, turn| {
            core.offer(stored.as_ref(), core.lineage(), turn);
        });
    }

    /// The lease of the lock ends. A second call beside that of its holder is one that no client can prevent.
    fn end_lease(&mut self) {
        let Some(holder) = self.store.holder else {
            return;
        };
        self.store.end_lease();
        self.lose_unsaved(holder.process);
        if let By::Refresh(id) = holder.by
            && let Some(Some(Some(presented))) = self
                .process(holder.process)
                .driver(id)
                .map(Driver::presents)
        {
            self.server.lose(presented);
        }
    }

    fn pass(&mut self, time: Duration) {
        for p in 0..self.processes().count() {
            self.process_mut(p).pass(time);
        }
    }

    fn shut_down(&mut self, p: usize) {
        let drivers = &self.process(p).drivers;
        for id in drivers.iter().map(|driver| driver.id).collect::<Vec<_>>() {
            self.drop_driver(p, id);
        }
    }

    // === The user ===

    /// The user sets a session: of a new login, or an access token only.
    pub(super) fn set(&mut self, p: usize, is_login: bool) {
        let mut session = self.server.log_in();
        if is_login {
            // The user has no reason to set a session of the login before.
            self.process_mut(p).history.kept = None;
        } else {
            session.refresh_token = None;
            session.has_time = false;
        }
        self.set_session(p, session);
    }

    fn set_kept(&mut self, p: usize) {
        if let Some(session) = self.process_mut(p).history.kept.take() {
            self.set_session(p, session);
        }
    }

    fn set_session(&mut self, p: usize, session: Session) {
        let process = self.process_mut(p);
        process.history.is_logged_out = false;
        process.forget_failures();
        self.apply(p, Event::Set, |core, turn| core.set(session, turn));
    }

    fn reset(&mut self, p: usize) {
        let process = self.process_mut(p);
        process.history.is_logged_out = false;
        process.history.is_reset = true;
        process.history.useless = process.latest.as_ref().map(|latest| latest.generation);
        process.forget_failures();
        self.apply(p, Event::Other, Core::reset);
    }

    fn log_out(&mut self, p: usize, revokes: bool) {
        let process = self.process_mut(p);
        let token = process.core.refresh_token().copied();
        let history = &mut process.history;
        history.is_logged_out = true;
        history.kept = None;
        if let Some(latest) = &process.latest {
            history.ended.push(latest.session.access);
            history.ended.sort_unstable();
        }
        history.ended_grants.extend(token.map(|token| token.grant));
        process.forget_failures();
        let id = self.apply(p, Event::Other, |core, turn| core.log_out(revokes, turn));
        self.process_mut(p).logout = Some(LogoutTask {
            id,
            revokes,
            step: LogoutStep::Drain,
        });
    }

    fn step_save(&mut self, p: usize, how: How) {
        let Some(save) = self.process_mut(p).save.take() else {
            return;
        };
        let holder = Holder::new(p, By::Save);
        let is_done = how != How::Fails;
        let next = match save {
            SaveTask::Lock if is_done => {
                self.store.take(holder);
                Some(SaveTask::Load)
            }
            SaveTask::Load if is_done && !self.process(p).core.is_logged_out() => {
                self.decide_save(p)
            }
            SaveTask::Save(record, replaces, _)
                if self.store.permits(&record, replaces).is_err() =>
            {
                // It begins again, as if the user had asked for it later.
                self.store.release(holder);
                Some(SaveTask::Lock)
            }
            SaveTask::Save(record, _, save) => {
                if is_done {
                    self.save(p, record);
                }
                let must_delete = self.apply(p, Event::Other, |core, _| {
                    if how == How::Well {
                        return core.saved_by_user(&record, save);
                    }
                    core.save_failed(&record, save);
                    false
                });
                must_delete.then_some(SaveTask::Delete(record))
            }
            SaveTask::Delete(record) => {
                let how = if self.store.has_lost(holder) {
                    How::Fails
                } else {
                    how
                };
                let is_done = how != How::Fails;
                if is_done {
                    self.store.record = None;
                }
                if how == How::Well {
                    self.apply(p, Event::Other, |core, _| {
                        core.record_deleted(Some(&record));
                    });
                }
                None
            }
            SaveTask::Lock | SaveTask::Load => None,
        };
        if next.is_none() {
            self.store.release(holder);
        }
        self.process_mut(p).save = next;
    }

    fn decide_save(&mut self, p: usize) -> Option<SaveTask> {
        let stored = self.store.record;
        let session = self.process(p).core.session_to_save()?;
        let is_login = self.process(p).core.record.relation
            == Relation::SetByUser {
                has_own_token: true,
            };
        let decision = self.apply(p, Event::Other, |core, _| {
            core.decide_save(stored, SavedBy::User)
        });
        if stored.is_none()
            && !is_login
            && matches!(decision, SaveDecision::Save(..))
            && let Some(token) = session.refresh_token
        {
            // After a reset the user goes on with what is in memory, though the record is gone.
            self.server.save_again(token);
        }
        match decision {
            SaveDecision::Save(record, save) => {
                let replaces = stored.as_ref().map(Stored::version);
                Some(SaveTask::Save(record, replaces, save))
            }
            SaveDecision::Nothing | SaveDecision::Gone => None,
        }
    }

    fn step_logout(&mut self, p: usize, how: How) {
        let Some(mut logout) = self.process_mut(p).logout.take() else {
            return;
        };
        let holder = Holder::new(p, By::Logout);
        let is_done = how != How::Fails;
        let has_record = self.process(p).core.undeleted_logout().is_some();
        let next = match logout.step {
            LogoutStep::Drain if self.process(p).settings.has_store && has_record => {
                LogoutStep::Lock
            }
            LogoutStep::Lock if is_done => {
                self.store.take(holder);
                LogoutStep::Load
            }
            LogoutStep::Load if is_done => self.load_for_logout(p),
            LogoutStep::Delete(_) if self.store.has_lost(holder) => {
                self.store.release(holder);
                LogoutStep::Lock
            }
            LogoutStep::Delete(stored) => {
                if is_done {
                    self.store.record = None;
                }
                if how == How::Well {
                    self.apply(p, Event::Other, |core, _| {
                        core.record_deleted(stored.as_ref());
                    });
                }
                LogoutStep::End
            }
            LogoutStep::End => {
                self.end_at_server(p, &logout, is_done);
                return;
            }
            LogoutStep::Drain | LogoutStep::Lock | LogoutStep::Load => LogoutStep::End,
        };
        if matches!(next, LogoutStep::End) {
            self.store.release(holder);
        }
        logout.step = next;
        self.process_mut(p).logout = Some(logout);
    }

    fn load_for_logout(&mut self, p: usize) -> LogoutStep {
        let stored: Option<Record> = self.store.record;
        if self.process(p).core.is_logged_out_record(stored.as_ref()) {
            return LogoutStep::Delete(stored);
        }
        self.apply(p, Event::Other, |core, _| core.record_deleted(None));
        LogoutStep::End
    }

    fn end_at_server(&mut self, p: usize, logout: &LogoutTask, is_done: bool) {
        let ids = self.apply(p, Event::Other, |core, _| core.begin_ending(logout.id));
        for id in ids {
            let pending = self.process_mut(p).core.pending_logout(id);
            let Some((sessions, tokens)) =
                pending.map(|logout| (logout.sessions.clone(), logout.refresh_tokens.clone()))
            else {
                continue;
            };
            if is_done {
                if logout.revokes {
                    for token in tokens {
                        self.server.revoke(token.grant);
                    }
                }
                for session in sessions {
                    self.server.end_session(session.access);
                }
            }
            self.apply(p, Event::Other, |core, _| core.ended_at_server(id, is_done));
        }
    }

    /// What happens next if nothing goes wrong. `None` once nothing is left to do.
    pub(super) fn cooperate(&self) -> Option<Action> {
        let is_good = |action: &Action| {
            matches!(
                action,
                Action::Ask(..)
                    | Action::Respond {
                        is_refused: false,
                        ..
                    }
                    | Action::Drive(_, _, How::Well | How::Changed | How::TimesOut)
                    | Action::Serve(_, _, Answer::Good)
                    | Action::Late(..)
                    | Action::Overdue(_)
                    | Action::Drop(..)
                    | Action::SaveStep(_, How::Well)
                    | Action::LogoutStep(_, How::Well)
                    | Action::Revive(_)
            )
        };
        if let Some(action) = self.actions().into_iter().find(is_good) {
            return Some(action);
        }
        let is_waiting = self.processes().any(|process| {
            !process.drivers.is_empty()
                || process.save.is_some()
                || process.logout.is_some()
                || process
                    .requests
                    .iter()
                    .any(|request| matches!(request, Request::Waiting(..)))
        });
        is_waiting.then_some(Action::Pass)
    }
}
