//! What requests and other callers do.

use std::time::Duration;

use crate::{
    refresh::core::{
        callers::{Caller, Rejection, Reply},
        model::{
            process::{Purpose, Replay, Request},
            properties::Event,
            time::now,
            values::{Error, Session},
            world::World,
        },
    },
    session::live::{Generation, Live},
};

const CALLER: Caller = Caller {
    has_runtime: true,
    is_inside: false,
};

/// How old an accepted session is whose rejection means expiry.
const SERVED: Duration = Duration::from_secs(45);

impl World {
    /// A request asks for a session.
    pub(super) fn ask(&mut self, p: usize) {
        if let Some(current) = self.process(p).current.clone() {
            return self.send(p, &current);
        }
        let reply = self.apply(p, Event::Other, |core, turn| core.acquire(CALLER, turn));
        match reply {
            Reply::Serve => {
                if let Some(latest) = self.process(p).latest.clone() {
                    self.send(p, &latest);
                }
            }
            reply => self.wait(p, &reply, Purpose::Send),
        }
    }

    fn send(&mut self, p: usize, live: &Live<Session>) {
        self.process_mut(p).requests.push(Request::Sent {
            generation: live.generation,
            access: live.session.access,
            replay: Replay::No,
        });
    }

    fn wait(&mut self, p: usize, reply: &Reply<Error>, purpose: Purpose) {
        let Reply::Wait(id) = *reply else { return };
        self.check_wait(p, id);
        let process = self.process_mut(p);
        process.requests.push(Request::Waiting(id, purpose));
        if purpose == Purpose::Manual
            && let Some(driver) = process.driver_mut(id)
        {
            driver.is_manual = true;
        }
    }

    pub(super) fn refresh(&mut self, p: usize) {
        let reply = self.apply(p, Event::Other, |core, turn| core.refresh(CALLER, turn));
        self.wait(p, &reply, Purpose::Manual);
    }

    pub(super) fn refresh_due(&mut self, p: usize) {
        if let Some(generation) = self.process(p).current.as_ref().map(|live| live.generation) {
            self.apply(p, Event::Other, |core, turn| {
                core.refresh_due(generation, CALLER, turn);
            });
        }
    }

    pub(super) fn invalidate(&mut self, p: usize) {
        if let Some(generation) = self.process(p).current.as_ref().map(|live| live.generation) {
            self.apply(p, Event::Other, |core, turn| {
                core.invalidate(generation, turn);
            });
        }
    }

    /// A request gets its response.
    pub(super) fn respond(&mut self, p: usize, request: usize, is_refused: bool) {
        let process = self.process_mut(p);
        let Request::Sent {
            generation,
            access,
            replay,
        } = process.requests.remove(request)
        else {
            return;
        };
        let current = process.current.as_ref().map(|live| live.generation);
        let is_latest = process
            .latest
            .as_ref()
            .is_some_and(|live| live.generation == generation);
        if self.server.accepts(access) && !is_refused {
            if is_latest {
                self.process_mut(p).published.is_accepted = true;
            }
            if replay != Replay::No {
                self.apply(p, Event::Other, |core, _| core.confirm(generation));
            }
            return;
        }
        let process = self.process(p);
        let was_accepted = current == Some(generation)
            && process.published.is_watched
            && process.published.is_accepted;
        let rejection = Rejection {
            generation,
            is_first: true,
            was_accepted,
            has_served: was_accepted && now() - process.published.since >= SERVED,
        };
        if replay != Replay::No {
            self.apply(p, Event::Other, |core, turn| {
                core.reject_last(generation, was_accepted, turn);
            });
            self.check_rejected_replay(p, replay, generation);
            return;
        }
        self.reject(p, rejection, access);
    }

    fn reject(&mut self, p: usize, rejection: Rejection, access: u8) {
        let process = self.process(p);
        let generation = rejection.generation;
        let current = process.current.as_ref().map(|live| live.generation);
        let (drivers, last) = (
            process.drivers.len(),
            process.drivers.last().map(|driver| driver.id),
        );
        let is_open = process.core.policy.is_open(now());
        let mutation = self.mutation;
        let reply = self.apply(p, Event::Other, |core, turn| {
            let told = match mutation {
                Some(mutation) => mutation.reject(core, rejection),
                None => rejection,
            };
            core.reject(told, CALLER, turn)
        });
        if current.is_some() && current != Some(generation) {
            self.check_straggler(p, current, drivers);
        }
        let process = self.process_mut(p);
        if is_open && current == Some(generation) && !rejection.has_served {
            let token = process.core.refresh_token().copied();
            let started = process
                .drivers
                .last_mut()
                .filter(|driver| Some(driver.id) != last);
            if let Some(driver) = started {
                driver.searches = Some(token);
            }
        }
        match (reply, process.latest.clone()) {
            (Reply::Serve, Some(latest)) => {
                self.replay(p, generation, access, &latest, Replay::AtOnce);
            }
            (reply, _) => self.wait(p, &reply, Purpose::Replay(generation, access)),
        }
    }

    /// Sends a rejected request again, unless that is useless.
    pub(super) fn replay(
        &mut self,
        p: usize,
        generation: Generation,
        rejected: u8,
        latest: &Live<Session>,
        replay: Replay,
    ) {
        if latest.generation == generation || generation >= latest.since {
            return;
        }
        if self.process(p).published.is_refreshed {
            self.check_replay(rejected, latest.session.access);
        }
        self.process_mut(p).requests.push(Request::Sent {
            generation: latest.generation,
            access: latest.session.access,
            replay,
        });
    }
}
