//! What callers and users ask of the core.

use tokio::time::Instant;

use crate::{
    refresh::core::{
        effect::Turn,
        policy::Permit,
        record::Relation,
        rules::{Rules, Snapshot, TokenOf},
        run::{Fate, RefreshId},
        slot::{self, Slot},
        state::Core,
    },
    report::reason::RefreshReason,
    session::live::{Generation, Live},
};

/// What the core answers to a caller that needs a session.
pub(crate) enum Reply<E> {
    /// The session that was published last.
    Serve,
    /// Wait for this refresh.
    Wait(RefreshId),
    /// A known failure.
    Fail(E),
    LoggedOut,
    /// Nothing can obtain a session.
    NoSession,
    /// The caller is part of the refresh that it would wait for (R13).
    Reentrant,
    /// The caller has no runtime to wait on.
    NoRuntime,
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    /// Whether the caller runs on a runtime.
    pub(crate) has_runtime: bool,
    /// Whether the caller is part of a refresh of this session.
    pub(crate) is_inside: bool,
}

/// A rejected request.
#[derive(Clone, Copy)]
pub(crate) struct Rejection {
    pub(crate) generation: Generation,
    /// Whether the request was not rejected before.
    pub(crate) is_first: bool,
    /// Whether the session was accepted since it was published.
    pub(crate) was_accepted: bool,
    /// Whether it was accepted long enough ago for a rejection to mean that it expired.
    pub(crate) has_served: bool,
}

/// When a proactive refresh is due again.
pub(crate) enum Due {
    Unchanged,
    At(Instant),
    Never,
}

impl<R: Rules> Core<R> {
    // === Callers ===

    /// A request needs a session.
    pub(crate) fn acquire(&mut self, caller: Caller, turn: &mut Turn<R>) -> Reply<R::Failure> {
        match &self.slot {
            Slot::Serving(_) => return Reply::Serve,
            Slot::LoggedOut => return Reply::LoggedOut,
            Slot::Vacant { .. } => {}
        }
        if let Some(refused) = self.refuse(caller) {
            return refused;
        }
        let mut is_search = false;
        if self.refresh.is_none() {
            match self.policy.permit(turn.now) {
                Permit::NotBefore(until, failure)
                    if until - turn.now > self.rules.refresh_timeout() =>
                {
                    return Reply::Fail(failure.clone());
                }
                Permit::Now | Permit::NotBefore(..) => {}
                Permit::Never(failure) => {
                    let failure = failure.clone();
                    if !caller.has_runtime || !self.may_search(turn.now) {
                        return Reply::Fail(failure);
                    }
                    is_search = true;
                }
            }
        }
        let reason = match self.slot.latest() {
            None => RefreshReason::FirstLogin,
            Some(_) => RefreshReason::Rejected,
        };
        self.join(reason, is_search, caller, turn)
    }

    /// A request was rejected that was sent with the session of this generation: for the first time, or after a replay.
    ///
    /// `was_accepted` and `has_served` tell whether the session was accepted since it was published, and long ago.
    pub(crate) fn reject(
        &mut self,
        rejection: Rejection,
        caller: Caller,
        turn: &mut Turn<R>,
    ) -> Reply<R::Failure> {
        let Rejection {
            generation,
            is_first,
            was_accepted,
            has_served,
        } = rejection;
        if is_first {
            self.policy
                .record_rejection(generation, true, was_accepted, turn.now);
        }
        let is_open = is_first && !has_served && self.policy.is_open(turn.now);
        if !is_open {
            self.withdraw(generation, turn);
        }
        if let Some(serving) = self.slot.serving() {
            let is_rejected = serving.generation == generation;
            // Adopting costs no token call, so an open breaker does not keep the store from being searched.
            if is_rejected
                && caller.has_runtime
                && !caller.is_inside
                && self.refresh.is_none()
                && self.may_search(turn.now)
            {
                return self.join(RefreshReason::Rejected, true, caller, turn);
            }
            return Reply::Serve;
        }
        if self.is_logged_out() {
            // R30: a request that was sent before the logout does not log in again.
            return Reply::LoggedOut;
        }
        if let Some(refused) = self.refuse(caller) {
            return refused;
        }
        // A straggler: the refresh that its rejection asks for has failed. Another attempt is for the next request, or a
        // dead grant would cost a token call for each request that was sent before.
        if let Some(failure) = self.failure_of_last_refresh() {
            return Reply::Fail(failure.clone());
        }
        self.join(RefreshReason::Rejected, false, caller, turn)
    }

    /// How the last refresh failed. `None` if one runs, or if none has failed since the rejection.
    fn failure_of_last_refresh(&self) -> Option<&R::Failure> {
        match (&self.refresh, &self.slot) {
            (None, Slot::Vacant { failure, .. }) => failure.as_ref(),
            _ => None,
        }
    }

    /// A replay was rejected, and its request is not sent again.
    pub(crate) fn reject_last(
        &mut self,
        generation: Generation,
        was_accepted: bool,
        turn: &mut Turn<R>,
    ) {
        self.policy
            .record_rejection(generation, false, was_accepted, turn.now);
    }

    /// A replay was accepted.
    pub(crate) fn confirm(&mut self, generation: Generation) {
        self.policy.confirm(generation);
    }

    /// A client without a layer reports a rejection, and waits for nothing.
    pub(crate) fn invalidate(&mut self, generation: Generation, turn: &mut Turn<R>) {
        self.policy
            .record_rejection(generation, true, false, turn.now);
        if !self.policy.is_open(turn.now) {
            self.withdraw(generation, turn);
        }
    }

    /// A caller asks for a refresh.
    pub(crate) fn refresh(&mut self, caller: Caller, turn: &mut Turn<R>) -> Reply<R::Failure> {
        if self.is_logged_out() {
            return Reply::LoggedOut;
        }
        if let Some(refused) = self.refuse(caller) {
            return refused;
        }
        self.join(RefreshReason::Manual, false, caller, turn)
    }

    /// The session is due for a proactive refresh. Returns when it is due again.
    pub(crate) fn refresh_due(
        &mut self,
        generation: Generation,
        caller: Caller,
        turn: &mut Turn<R>,
    ) -> Due {
        let is_current = self
            .slot
            .serving()
            .is_some_and(|live| live.generation == generation);
        if !is_current || self.refresh.is_some() || self.refuse(caller).is_some() {
            return Due::Unchanged;
        }
        match self.policy.permit(turn.now) {
            Permit::Never(_) => Due::Never,
            Permit::NotBefore(until, _) => Due::At(until),
            Permit::Now => {
                self.start(RefreshReason::Proactive, false, turn);
                // If it fails, a later request tries again.
                match turn.now.checked_add(self.rules.refresh_timeout()) {
                    Some(again) => Due::At(again),
                    None => Due::Never,
                }
            }
        }
    }

    fn refuse(&self, caller: Caller) -> Option<Reply<R::Failure>> {
        if !self.rules.can_refresh() {
            return Some(Reply::NoSession);
        }
        caller.is_inside.then_some(Reply::Reentrant)
    }

    fn may_search(&mut self, now: Instant) -> bool {
        self.rules.has_store() && self.policy.may_search(now)
    }

    /// Waits for the running refresh, or starts one.
    fn join(
        &mut self,
        reason: RefreshReason,
        is_search: bool,
        caller: Caller,
        turn: &mut Turn<R>,
    ) -> Reply<R::Failure> {
        if !caller.has_runtime {
            return Reply::NoRuntime;
        }
        if reason == RefreshReason::Manual {
            self.hasten(turn);
        }
        if let Some(refresh) = &mut self.refresh {
            refresh.demand.is_rejected |= reason == RefreshReason::Rejected;
            return Reply::Wait(refresh.id);
        }
        Reply::Wait(self.start(reason, is_search, turn))
    }

    // === The user ===

    /// The user sets a session: from any state to [`Slot::Serving`].
    pub(crate) fn set(&mut self, session: R::Session, turn: &mut Turn<R>) -> Generation {
        let (session, token) = self.without_copied_token(session);
        let live = match self.slot.latest() {
            None => Live::first(session, self.last_generation),
            Some(latest) => slot::replaced(latest, session),
        };
        let lineage = self.token.lineage();
        if self.slot.latest().is_some() && live.is_first_of_its_user() {
            self.token.change_user(token.clone());
        } else if let Some(token) = &token {
            self.token.log_in(token);
        }
        self.record.relation = Relation::SetByUser {
            has_own_token: token.is_some(),
        };
        if self.token.lineage() != lineage {
            self.record.end_attempt();
        }
        self.policy.reset(&mut turn.retired);
        let generation = live.generation;
        self.serve(live, turn);
        self.supersede(Fate::Superseded, Ok(()), turn);
        generation
    }

    /// The session, and the refresh token that it came with. A copy of an earlier session counts as one without: its token
    /// may be spent, here or by another process, and gives way to the newest (R3).
    fn without_copied_token(&self, session: R::Session) -> (R::Session, Option<TokenOf<R>>) {
        let is_of_user = self
            .slot
            .latest()
            .is_none_or(|latest| session.may_replace(&latest.session));
        match (session.refresh_token().cloned(), self.token.newest()) {
            (Some(token), Some(newest)) if is_of_user && self.token.is_copied(&token) => {
                (session.with_refresh_token(newest.clone()), None)
            }
            (token, _) => (session, token),
        }
    }

    /// The user resets the handle: failures are forgotten, a logout too, and what was seen in the store.
    pub(crate) fn reset(&mut self, turn: &mut Turn<R>) {
        self.policy.reset(&mut turn.retired);
        match &mut self.slot {
            Slot::Vacant { failure, .. } => turn.retired.extend(failure.take()),
            Slot::Serving(_) => {}
            Slot::LoggedOut => {
                self.slot = Slot::Vacant {
                    rejected: None,
                    failure: None,
                }
            }
        }
        if self.record.relation == Relation::InStore || self.token.is_of_store() {
            self.record.last_seen = None;
        }
    }

    pub(crate) fn mark_saved(&mut self, refresh_token: &TokenOf<R>) {
        self.token.mark_saved(refresh_token);
    }
}
