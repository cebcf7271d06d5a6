//! Compares the stored record with the session in memory: adopt it, or make a token call.

use crate::{
    refresh::core::{
        record::Relation,
        rules::{Cause, Failure, Rules, Snapshot, Stored},
        run::RefreshId,
        state::Core,
        token::Lineage,
    },
    session::live::Generation,
};

/// What a refresh does, going by the record.
pub(crate) enum Decision<S> {
    /// Publish the session of the record.
    Adopt(S),
    /// Make a token call.
    Call,
}

/// What [`SessionHandle::save`](crate::SessionHandle::save) does, going by the record.
pub(crate) enum SaveDecision<T> {
    Save(T, UserSave),
    /// The store has it, or something newer.
    Nothing,
    /// The record of the session was deleted, as by a logout in another process (R30).
    Gone,
}

/// Who wants a session to be saved apart from a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SavedBy {
    User,
    /// The task that goes on after a save that failed.
    Background,
}

/// A save apart from a refresh that is under way.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct UserSave {
    generation: Option<Generation>,
    lineage: Lineage,
    began: RefreshId,
}

impl<R: Rules> Core<R> {
    /// Decides at the beginning of a refresh.
    pub(super) fn decide(
        &mut self,
        stored: Option<&R::Record>,
    ) -> Result<Decision<R::Session>, R::Failure> {
        let last_seen = self.record.last_seen;
        let Some(record) = stored else {
            if self.is_gone() && self.token.newest().is_some() {
                return Err(R::Failure::of(Cause::Gone));
            }
            return Ok(Decision::Call);
        };
        let version = record.version();
        if !version.is_newer_than(last_seen) {
            return match last_seen {
                Some(seen) if seen != version => Err(R::Failure::of(Cause::Stale)),
                _ => Ok(Decision::Call),
            };
        }
        let follows = self.follows(record);
        if self.token.is_ahead_of_store() && !follows {
            // R3: no record is known to follow the token that only this process has.
            return Ok(Decision::Call);
        }
        if let Relation::SetByUser { has_own_token } = self.record.relation
            && let Some(latest) = self.slot.latest()
        {
            let is_given_up = latest.session.gives_way_to(record.session());
            if !is_given_up || !(has_own_token || follows) {
                let takes_token = (!has_own_token && follows) || self.was_attempted(record);
                if takes_token && latest.session.may_replace(record.session()) {
                    self.adopt_token(record);
                }
                self.record.last_seen = Some(version);
                return Ok(Decision::Call);
            }
        }
        Ok(self.adopt(record))
    }

    /// Whether a store without a record means that another process has logged out: the session in memory was stored. The
    /// refresh token in memory may not be the last that was stored.
    fn is_gone(&self) -> bool {
        let is_of_record = match self.record.relation {
            Relation::InStore => true,
            // The session that was set came without a refresh token, and the one in memory is that of the record.
            Relation::SetByUser { has_own_token } => {
                !has_own_token && self.token.newest().is_some() && self.token.is_of_store()
            }
            Relation::NotSaved => self.token.is_of_store(),
        };
        is_of_record && self.record.last_seen.is_some()
    }

    /// Decides after the server refused the refresh token: whether there is another one to go on with (R24).
    pub(super) fn decide_after_refusal(
        &mut self,
        stored: Option<&R::Record>,
    ) -> Option<Decision<R::Session>> {
        let record = stored?;
        let refresh_token = record.session().refresh_token()?;
        let is_another = self.token.newest() != Some(refresh_token);
        (is_another && self.is_news(record)).then(|| self.adopt(record))
    }

    /// Decides after a search of the store, while a failure is latched or the breaker is open.
    pub(super) fn decide_after_search(
        &mut self,
        stored: Option<&R::Record>,
    ) -> Option<Decision<R::Session>> {
        let latched = self.policy.latched();
        let was_refused = latched.is_some_and(Failure::is_invalid_grant);
        let is_store_failure = latched.is_some_and(Failure::is_of_store);
        let is_latched = latched.is_some();
        match stored {
            // A session that the user set is compared with the record by the refresh that follows.
            Some(_) if is_store_failure && self.record.is_set_by_user() => Some(Decision::Call),
            Some(record)
                if self.is_news(record)
                    && (was_refused || !self.token.is_ahead_of_store() || self.follows(record)) =>
            {
                let is_same_token = self.token.newest() == record.session().refresh_token();
                match self.adopt(record) {
                    // R10, R12: only another refresh token is worth a call, and none is while the breaker is open.
                    Decision::Call if !is_store_failure && (is_same_token || !is_latched) => None,
                    decision => Some(decision),
                }
            }
            // What was wrong with the store no longer is.
            _ if is_store_failure => Some(Decision::Call),
            _ => None,
        }
    }

    /// Whether a record that is newer than the one that was seen last follows the newest refresh token. If only this process
    /// has the token, a record of the same login does: the save that failed was done, and others went on from there.
    fn follows(&self, record: &R::Record) -> bool {
        let is_of_login = record.version().is_of_login(self.record.last_seen);
        self.token.is_of_store()
            || (self.token.is_ahead_of_store() && is_of_login)
            || self.was_attempted(record)
    }

    /// Whether a record descends from one whose save failed here, and was done all the same.
    fn was_attempted(&self, record: &R::Record) -> bool {
        record.version().is_of_login(self.record.attempted())
    }

    /// Whether a record is newer than the one that was seen last, and not of another user than the session that was set.
    fn is_news(&self, record: &R::Record) -> bool {
        let is_foreign = self.record.is_set_by_user()
            && self
                .slot
                .latest()
                .is_some_and(|latest| !latest.session.may_replace(record.session()));
        record.version().is_newer_than(self.record.last_seen) && !is_foreign
    }

    /// Goes on with a record: with its session or, if that is the one to replace, with its refresh token.
    ///
    /// The refresh token counts from here on, whether or not the session is published: the record is not news again.
    pub(super) fn adopt(&mut self, record: &R::Record) -> Decision<R::Session> {
        let session = record.session();
        self.adopt_token(record);
        self.record.end_attempt();
        self.record.relation = Relation::InStore;
        match self.slot.latest() {
            Some(latest) if latest.session.has_token_of(session) => Decision::Call,
            _ => Decision::Adopt(session.clone()),
        }
    }

    /// Goes on with the refresh token of a record that is newer than the one that was seen last, and is seen with it.
    fn adopt_token(&mut self, record: &R::Record) {
        let is_of_login = record.version().is_of_login(self.record.last_seen);
        let token = record.session().refresh_token();
        self.token.adopt(token, record.has_rotated(), is_of_login);
        self.record.last_seen = Some(record.version());
    }

    /// Decides what [`SessionHandle::save`](crate::SessionHandle::save) stores in place of `stored`.
    pub(crate) fn decide_save(
        &mut self,
        stored: Option<R::Record>,
        by: SavedBy,
    ) -> SaveDecision<R::Record> {
        let is_logged_out =
            self.undeleted_logout().is_some() && self.is_logged_out_record(stored.as_ref());
        // A user who was told so and saves all the same wants the session in memory to be stored.
        let is_known_to_be_gone =
            by == SavedBy::User && self.policy.latched().is_some_and(Failure::is_gone);
        let stored = if is_logged_out {
            // The record of a session that was logged out is replaced, and its tokens are ended (R30).
            self.add_to_logouts(stored.as_ref());
            None
        } else if stored.is_none() && self.is_gone() && !is_known_to_be_gone {
            return SaveDecision::Gone;
        } else {
            stored
        };
        match self.record_to_save(stored.as_ref()) {
            Some(record) => SaveDecision::Save(
                record,
                UserSave {
                    generation: self.slot.generation(),
                    lineage: self.token.lineage(),
                    began: self.last_id,
                },
            ),
            None => {
                self.find_saved(stored.as_ref());
                SaveDecision::Nothing
            }
        }
    }

    /// A save that failed may have been done, although its answer was lost.
    fn find_saved(&mut self, stored: Option<&R::Record>) {
        let Some(stored) = stored.filter(|stored| self.was_attempted(stored)) else {
            return;
        };
        let session = stored.session();
        if session.refresh_token() == self.token.newest() {
            let latest = self.slot.latest();
            let is_latest = latest.is_some_and(|latest| latest.session.has_token_of(session));
            self.record_saved(stored, is_latest);
        } else if stored.version().is_newer_than(self.record.attempted()) {
            // Another process has gone on from it, and the next refresh adopts what that saved.
            self.record.last_seen = self.record.attempted();
            self.record.end_attempt();
            let newest = self.token.newest().cloned();
            self.token.saved(newest.as_ref());
        }
    }

    fn record_to_save(&mut self, stored: Option<&R::Record>) -> Option<R::Record> {
        let session = self.session_to_save()?;
        let Some(stored) = stored else {
            let first = R::Record::first(session.clone());
            // The record was there before, and is gone. A save that is on its way must not take it for what it replaces.
            let is_seen = !first.version().is_newer_than(self.record.last_seen);
            return Some(if is_seen {
                first.followed_by(session)
            } else {
                first
            });
        };
        let is_seen = self.record.last_seen == Some(stored.version());
        match self.record.relation {
            Relation::SetByUser { has_own_token } => {
                // A session that came without a refresh token leaves the newest one in place: that of the store only if the
                // one in memory is an older one of the store.
                let follows = !has_own_token && self.follows(stored);
                if !is_seen
                    && (follows || self.was_attempted(stored))
                    && session.may_replace(stored.session())
                {
                    self.adopt_token(stored);
                }
                let session = self.session_to_save()?;
                let first = R::Record::first(session.clone());
                // A record of the same version would not be written, and it may differ in more than the tokens.
                let is_same = first.version() == stored.version();
                Some(if is_same {
                    stored.followed_by(session)
                } else {
                    first
                })
            }
            // A refresh saves by itself. What others stored since is newer.
            Relation::NotSaved if is_seen => Some(stored.followed_by(session)),
            Relation::NotSaved | Relation::InStore => None,
        }
    }

    /// A save by the user has succeeded. Returns whether the record has to be deleted, since the session was logged out
    /// meanwhile.
    pub(crate) fn saved_by_user(&mut self, record: &R::Record, save: UserSave) -> bool {
        if self.record.logged_out > save.began {
            return true;
        }
        self.record_deleted(None);
        let is_latest = self.slot.generation() == save.generation;
        // If another session was adopted meanwhile, the record has a login that this process does not use: it is news (R24).
        if is_latest || self.record.is_set_by_user() {
            self.record_saved(record, is_latest);
        }
        false
    }

    /// A save failed. The store may have the record all the same. It is not to replace a login that was set since.
    pub(crate) fn save_failed(&mut self, record: &R::Record, save: UserSave) {
        if self.token.lineage() == save.lineage {
            self.record.attempt(record.version());
        }
    }

    /// The latest session, with the newest refresh token.
    pub(crate) fn session_to_save(&self) -> Option<R::Session> {
        let mut session = self.slot.latest()?.session.clone();
        if let Some(newest) = self.token.newest() {
            session = session.with_refresh_token(newest.clone());
        }
        // A process that adopts the record must not present the token that a flow was made with.
        Some(if self.token.has_spent() {
            session.rotated()
        } else {
            session
        })
    }

    /// Records that a record was saved in place of the last one. `is_latest` if it holds the latest session.
    pub(super) fn record_saved(&mut self, record: &R::Record, is_latest: bool) {
        self.record.last_seen = Some(record.version());
        self.record.end_attempt();
        if is_latest {
            self.record.relation = Relation::InStore;
        }
        self.token.saved(record.session().refresh_token());
    }
}
