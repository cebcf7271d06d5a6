//! Carries out what a core asks for, as the shell of the crate does.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    refresh::core::{
        effect::{Effect, Turn},
        model::{
            process::{Asked, Driver, Process, Published, Purpose, Replay, Request},
            properties::{Event, is_dead},
            store::{By, Holder},
            time::now,
            values::{Error, Session, Settings, Token},
            world::World,
        },
        rules::Failure,
        run::RefreshId,
        state::Core,
    },
    session::live::Live,
};

impl World {
    /// Makes one transition of a core.
    pub(super) fn apply<T>(
        &mut self,
        p: usize,
        event: Event,
        transition: impl FnOnce(&mut Core<Settings>, &mut Turn<Settings>) -> T,
    ) -> T {
        let mut turn = Turn::new(now(), 0.0);
        let mutation = self.mutation;
        let core = &mut self.process_mut(p).core;
        if let Some(mutation) = mutation {
            mutation.prepare(core, event);
        }
        let result = transition(core, &mut turn);
        if let Some(mutation) = mutation {
            mutation.change(core, &mut turn.effects, event);
        }
        for effect in turn.effects {
            self.perform(p, event, effect);
        }
        let process = self.process_mut(p);
        if process.core.policy.is_open(now()) {
            process.history.useless = process.latest.as_ref().map(|latest| latest.generation);
        }
        self.check_shown(p);
        result
    }

    fn perform(&mut self, p: usize, event: Event, effect: Effect<Settings>) {
        match effect {
            Effect::Publish { live, is_watched } => {
                self.check_publish(p, &live, event);
                let is_refreshed = event != Event::Set;
                self.process_mut(p).publish(live, is_watched, is_refreshed);
            }
            Effect::Amend(session) => {
                let process = self.process_mut(p);
                let lives = process.latest.iter_mut().chain(&mut process.current);
                lives.for_each(|live| live.session = session);
            }
            Effect::Withdraw => {
                let process = self.process_mut(p);
                process.current = None;
                process.latest.take_if(|_| process.core.is_logged_out());
            }
            Effect::Spawn {
                id, callers_until, ..
            } => self.process_mut(p).spawn(id, callers_until),
            Effect::Nudge(id) => {
                if let Some(driver) = self.process_mut(p).driver_mut(id) {
                    driver.is_nudged = true;
                }
            }
            Effect::Abort(id) => self.abort(p, id, event),
            Effect::Finish(id, result) => self.finish(p, id, result),
            Effect::Succeeded { id, .. } => self.process_mut(p).end_attempt(id),
            Effect::Failed {
                id,
                failure,
                will_retry,
            } => {
                let process = self.process_mut(p);
                process.end_attempt(id);
                if will_retry {
                    process.note_failure(failure);
                }
            }
            Effect::ReauthenticationRequired(failure) => {
                if !failure.is_of_store() {
                    self.check_reported(p);
                }
            }
            Effect::SessionChanged
            | Effect::Adopted { .. }
            | Effect::RefreshTokenChanged(_)
            | Effect::LoggedOut => {}
        }
    }

    fn abort(&mut self, p: usize, id: RefreshId, event: Event) {
        self.check_abort(p, id, event);
        let Some(driver) = self.process_mut(p).driver_mut(id) else {
            return;
        };
        driver.is_aborted = true;
        let call = match driver.asked {
            Asked::Call { presented, answer } => Some((presented, answer)),
            _ => None,
        };
        // The lock is with the step that needs it.
        let is_lent = matches!(
            driver.asked,
            Asked::Load | Asked::Save { .. } | Asked::Delete | Asked::Unlock
        );
        if !is_lent {
            let holder = Holder::new(p, By::Refresh(id));
            self.store.release(holder);
        }
        if let Some((presented, answer)) = call {
            self.lose(presented, answer);
        }
    }

    /// Answers the callers that wait for a refresh.
    fn finish(&mut self, p: usize, id: RefreshId, result: Result<(), Error>) {
        self.check_finish(p, id, result);
        let process = self.process_mut(p);
        process.running.take_if(|(running, _)| *running == id);
        if let Err(failure) = result {
            process.note_failure(failure);
            if is_dead(failure) {
                let presented = process.core.refresh_token().copied();
                process.history.dead = Some(presented);
            }
        }
        let mut replays = Vec::new();
        let latest = process.latest.clone();
        process.requests.retain_mut(|request| match *request {
            Request::Waiting(waited, purpose) if waited == id => match (result, purpose, &latest) {
                (Ok(()), Purpose::Send, _) => {
                    *request = Request::Asking;
                    true
                }
                (Ok(()), Purpose::Replay(generation, access), Some(latest)) => {
                    replays.push((generation, access, latest.clone()));
                    false
                }
                _ => false,
            },
            _ => true,
        });
        for (generation, access, latest) in replays {
            self.replay(p, generation, access, &latest, Replay::AfterWaiting);
        }
    }
}

impl Process {
    fn publish(&mut self, live: Live<Session>, is_watched: bool, is_refreshed: bool) {
        self.published = Published {
            since: now(),
            is_watched,
            is_accepted: false,
            is_refreshed: is_refreshed && !live.is_adopted,
        };
        self.latest = Some(live.clone());
        self.current = Some(live);
        self.forget_failures();
    }

    fn spawn(&mut self, id: RefreshId, callers_until: Option<Instant>) {
        self.running = callers_until.map(|until| (id, until));
        let last_seen = self.core.record.last_seen;
        self.drivers.push(Driver::new(id, last_seen));
    }

    fn end_attempt(&mut self, id: RefreshId) {
        self.attempts.retain(|started| *started != id);
    }

    /// Something changed: everything may be tried again.
    pub(super) fn forget_failures(&mut self) {
        self.history.dead = None;
        self.history.is_reported = false;
        self.history.not_before = None;
    }

    fn note_failure(&mut self, failure: Error) {
        let pause = match failure {
            Error::Busy { .. } | Error::Unreachable => {
                failure.retry_after().unwrap_or(Duration::from_millis(250))
            }
            _ => return,
        };
        let until = now() + pause;
        self.history.not_before = self.history.not_before.max(Some(until));
    }

    /// The process is given a refresh token.
    pub(super) fn learn(&mut self, token: Option<Token>) {
        let Some(token) = token else { return };
        let known = &mut self.history.known;
        match known.iter_mut().find(|known| known.grant == token.grant) {
            Some(known) => *known = token.max(*known),
            None => known.push(token),
        }
        known.sort_unstable();
    }
}
