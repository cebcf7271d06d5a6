//! What can happen next.

use crate::refresh::core::{
    model::{
        process::{Asked, Driver, LogoutStep, OVERDUE_AFTER, Process, Request, SaveTask},
        server::Answer,
        time::now,
        world::{Action, How, World},
    },
    run::RefreshId,
};

impl World {
    /// Everything that can happen next.
    pub(super) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (index, process) in self.processes.iter().enumerate() {
            self.add_steps(index, process, &mut actions);
            self.add_tasks(index, process, &mut actions);
            self.add_callers(index, process, &mut actions);
            self.add_users(index, process, &mut actions);
            self.add_ends(index, process, &mut actions);
        }
        let left = &self.left;
        if left.lost_locks > 0 && self.store.holder.is_some() {
            actions.push(Action::EndLease);
        }
        if left.expiries > 0 && self.server.has_valid_session() {
            actions.push(Action::Expire);
        }
        let stored = self
            .store
            .record
            .and_then(|record| record.session.refresh_token);
        if left.rotations > 0 && stored.is_some_and(|stored| !self.server.is_dead(stored)) {
            actions.push(Action::RotateElsewhere);
        }
        if left.revocations > 0 {
            actions.extend(self.server.grants().map(Action::Revoke));
        }
        if left.passes > 0 {
            self.add_passes(&mut actions);
        }
        actions
    }

    fn add_steps(&self, index: usize, process: &Process, actions: &mut Vec<Action>) {
        if process.is_stalled {
            return;
        }
        for driver in &process.drivers {
            if driver.is_aborted {
                actions.push(Action::Drop(index, driver.id));
                continue;
            }
            let is_over = driver.until.is_some_and(|until| until <= now());
            let ends = self.ends(process, driver, is_over);
            actions.extend(ends.iter().map(|how| Action::Drive(index, driver.id, *how)));
            if matches!(driver.asked, Asked::Call { answer: None, .. }) {
                self.add_answers(index, driver.id, actions);
            }
            if driver.callers_until.is_some_and(|until| until <= now()) {
                actions.push(Action::Late(index, driver.id));
            }
        }
    }

    /// How the step of a driver can end. `is_over` if its time is.
    fn ends(&self, process: &Process, driver: &Driver, is_over: bool) -> Vec<How> {
        let can_fail = self.left.store_faults > 0;
        let (is_possible, failures): (bool, &[How]) = match &driver.asked {
            Asked::Begin | Asked::NotCalled => (true, &[]),
            Asked::AwaitPredecessor(id) => (is_over || !process.core.is_draining(*id), &[]),
            Asked::Sleep => (is_over || driver.is_nudged, &[]),
            Asked::Lock | Asked::LockOrLoad(_) if self.store.holder.is_none() => {
                (true, &[How::Fails])
            }
            Asked::Lock | Asked::LockOrLoad(_) => (false, &[How::Fails, How::Busy]),
            Asked::Load => (true, &[How::Fails, How::Unreadable]),
            Asked::Delete | Asked::Save { .. } => (true, &[How::Fails, How::FailsButIsDone]),
            Asked::Unlock => (true, &[How::Fails]),
            Asked::Call { answer, .. } => (answer.is_some(), &[]),
        };
        let can_time_out = !matches!(
            driver.asked,
            Asked::Begin
                | Asked::NotCalled
                | Asked::AwaitPredecessor(_)
                | Asked::Sleep
                | Asked::Unlock
        );
        // A step that is over does not fail otherwise, unless it writes.
        let writes = matches!(
            driver.asked,
            Asked::Delete | Asked::Save { .. } | Asked::Unlock
        );
        let mut ends = Vec::new();
        ends.extend(is_possible.then_some(How::Well));
        let is_changed =
            matches!(driver.asked, Asked::LockOrLoad(seen) if seen != self.store.version());
        ends.extend((is_changed && !is_over).then_some(How::Changed));
        ends.extend((is_over && can_time_out).then_some(How::TimesOut));
        if can_fail && (writes || !is_over) {
            ends.extend(failures);
        }
        ends
    }

    fn add_answers(&self, index: usize, id: RefreshId, actions: &mut Vec<Action>) {
        let mut add = |answer| actions.push(Action::Serve(index, id, answer));
        add(Answer::Good);
        if self.left.bad_answers > 0 {
            add(Answer::Untrusted);
            add(Answer::Unchanged);
            add(Answer::Busy);
            add(Answer::BusyForLong);
            add(Answer::Unreachable);
            add(Answer::Terminal);
        }
    }

    fn add_tasks(&self, index: usize, process: &Process, actions: &mut Vec<Action>) {
        let can_fail = self.left.store_faults > 0;
        let is_free = self.store.holder.is_none();
        if let Some(save) = &process.save {
            let mut add = |how| actions.push(Action::SaveStep(index, how));
            let (is_possible, is_write) = match save {
                SaveTask::Lock => (is_free, false),
                SaveTask::Load => (true, false),
                SaveTask::Save(..) | SaveTask::Delete(_) => (true, true),
            };
            add_outcomes(is_possible, can_fail, is_write && can_fail, &mut add);
        }
        if let Some(logout) = &process.logout {
            let mut add = |how| actions.push(Action::LogoutStep(index, how));
            let (is_possible, is_write) = match &logout.step {
                LogoutStep::Drain => {
                    if !process.core.drains_for(logout.id) {
                        add(How::Well);
                    }
                    return;
                }
                LogoutStep::Lock => (is_free, false),
                LogoutStep::Load | LogoutStep::End => (true, false),
                LogoutStep::Delete(_) => (true, true),
            };
            add_outcomes(is_possible, can_fail, is_write && can_fail, &mut add);
        }
    }

    fn add_callers(&self, index: usize, process: &Process, actions: &mut Vec<Action>) {
        for (request, state) in process.requests.iter().enumerate() {
            let response = |is_refused| Action::Respond {
                process: index,
                request,
                is_refused,
            };
            match state {
                Request::Asking => actions.push(Action::Ask(index, request)),
                Request::Sent { .. } => {
                    actions.push(response(false));
                    actions.extend((self.left.refusals > 0).then(|| response(true)));
                }
                Request::Waiting(..) => {}
            }
        }
    }

    fn add_users(&self, index: usize, process: &Process, actions: &mut Vec<Action>) {
        let left = &self.left;
        let has_session = process.current.is_some();
        let can_save =
            process.settings.has_store && process.save.is_none() && process.latest.is_some();
        let can_log_out = left.logouts > 0 && process.logout.is_none();
        let log_out = |revokes| Action::LogOut {
            process: index,
            revokes,
        };
        let user = [
            (left.requests > 0, Action::Request(index)),
            (
                left.notices > 0 && process.settings.has_store,
                Action::Notice(index),
            ),
            (left.refreshes > 0, Action::Refresh(index)),
            (left.proactive > 0 && has_session, Action::RefreshDue(index)),
            (
                left.invalidations > 0 && has_session,
                Action::Invalidate(index),
            ),
            (left.logins > 0, Action::LogIn(index)),
            (left.sets > 0, Action::Set(index)),
            (
                left.copies > 0 && has_session && process.history.kept.is_none(),
                Action::Keep(index),
            ),
            (process.history.kept.is_some(), Action::SetKept(index)),
            (left.resets > 0, Action::Reset(index)),
            (left.saves > 0 && can_save, Action::Save(index)),
            (can_log_out, log_out(false)),
            (can_log_out, log_out(true)),
        ];
        let possible = user.into_iter().filter(|(is_possible, _)| *is_possible);
        actions.extend(possible.map(|(_, action)| action));
    }

    fn add_ends(&self, index: usize, process: &Process, actions: &mut Vec<Action>) {
        let left = &self.left;
        let has_drivers = !process.drivers.is_empty();
        let is_overdue = process
            .running
            .is_some_and(|(_, until)| until + OVERDUE_AFTER <= now());
        if is_overdue
            && process
                .requests
                .iter()
                .any(|request| matches!(request, Request::Waiting(..)))
        {
            actions.push(Action::Overdue(index));
        }
        if left.kills > 0 {
            actions.push(Action::Kill(index));
        }
        if process.is_stalled {
            actions.push(Action::Revive(index));
        } else if left.stalls > 0 && has_drivers {
            actions.push(Action::Stall(index));
        }
        if left.shutdowns > 0 && has_drivers {
            actions.push(Action::ShutDown(index));
        }
    }

    fn add_passes(&self, actions: &mut Vec<Action>) {
        if self.processes().any(Process::is_urgent) {
            return;
        }
        actions.push(Action::Pass);
        if self.processes().all(|process| process.drivers.is_empty()) {
            actions.push(Action::PassAnHour);
        }
    }
}

fn add_outcomes(is_possible: bool, can_fail: bool, can_be_done: bool, add: &mut impl FnMut(How)) {
    if is_possible {
        add(How::Well);
    }
    if can_fail {
        add(How::Fails);
    }
    if can_be_done {
        add(How::FailsButIsDone);
    }
}
