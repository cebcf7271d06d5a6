//! What is stored of a session, as far as its handle knows: whether to go on with it, how it is saved, and how it is deleted.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    error::{RefreshError, RefreshErrorKind},
    refresh::shared::{Departure, Life, Logout, Shared, Standing, superseded},
    report::{
        event::{StoreFailed, StoreOperation},
        observer::Event,
        trace,
    },
    session::{live::LiveSession, session::Session},
    store::{Record, StoreError, StoreErrorKind, StoreKey, StoreLock},
};

/// How often it is tried to save a session, and how long after the first try it is tried again. Each further pause is twice
/// as long.
const SAVES: u32 = 3;
const SAVE_PAUSE: Duration = Duration::from_millis(200);

/// What to do, going by what is stored.
pub(crate) enum Choice {
    Adopt(Box<Session>),
    Exchange,
}

impl Shared {
    /// Asks the store for something, until `deadline`, and tells whoever watches if it fails.
    pub(crate) async fn ask<T>(
        &self,
        place: &StoreKey,
        operation: StoreOperation,
        deadline: Option<Instant>,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let since = Instant::now();
        let answer = within(deadline, answer).await;
        if let Err(error) = &answer {
            self.announce_store_failed(place, operation, 1, since, error);
        }
        answer
    }

    fn announce_store_failed(
        &self,
        place: &StoreKey,
        operation: StoreOperation,
        attempts: u32,
        since: Instant,
        error: &StoreError,
    ) {
        self.announce(&[Event::StoreFailed(StoreFailed {
            operation,
            key: Arc::clone(&place.key),
            attempts,
            duration: since.elapsed(),
            error: error.clone(),
        })]);
    }

    /// Takes note of what is stored, and chooses.
    pub(crate) fn choose(
        &self,
        departure: Departure,
        stored: Option<&Record>,
    ) -> Result<Choice, RefreshError> {
        let mut life = self.lock();
        if life.epoch != departure.epoch {
            return Err(superseded());
        }
        let Some(record) = stored else {
            if life.seen.is_some()
                && life.refresh_token.is_some()
                && life.standing == Standing::Stored
            {
                // It was deleted. The refresh token may not be the last that was there.
                return Err(gone());
            }
            return Ok(Choice::Exchange);
        };
        if !record.revision().is_newer_than(life.seen) {
            return match life.seen {
                Some(seen) if seen != record.revision() => Err(stale().into()),
                _ => Ok(Choice::Exchange),
            };
        }
        let latest = life.latest.as_ref().filter(|_| life.standing.is_by_hand());
        if let Some(latest) = latest
            && !latest.gives_way_to(record.session())
        {
            if latest.refresh_token().is_none() && latest.may_replace(record.session()) {
                take_refresh_token(&mut life, record);
            }
            life.seen = Some(record.revision());
            return Ok(Choice::Exchange);
        }
        Ok(take(&mut life, record))
    }

    /// Chooses again after the refresh token was refused, if there is another to go on with.
    pub(crate) fn choose_again(
        &self,
        departure: Departure,
        stored: Option<&Record>,
    ) -> Option<Choice> {
        let record = stored?;
        let refresh_token = record.session().refresh_token()?;
        let mut life = self.lock();
        let is_another = life.refresh_token.as_ref() != Some(refresh_token)
            && record.revision().is_newer_than(life.seen)
            && !is_foreign(&life, record);
        (is_another && life.epoch == departure.epoch).then(|| take(&mut life, record))
    }

    /// Chooses after a failure for good, if there is anything to go on with: what somebody stored since, after logging in
    /// elsewhere.
    pub(crate) fn choose_after(
        &self,
        departure: Departure,
        failure: &RefreshError,
        stored: Option<Record>,
    ) -> Option<Choice> {
        let mut life = self.lock();
        if life.epoch != departure.epoch {
            return None;
        }
        let is_another = |record: &Record| {
            record.revision().is_newer_than(life.seen) && !is_foreign(&life, record)
        };
        match stored.filter(is_another) {
            Some(record) => Some(take(&mut life, &record)),
            // Whatever was wrong with the store is mended.
            None if failure.kind() == RefreshErrorKind::Store => Some(Choice::Exchange),
            None => None,
        }
    }

    /// What to store if nothing came of an exchange but a refresh token: the session before, with that.
    pub(crate) fn with_rotated(
        &self,
        error: &RefreshError,
        stored: Option<&Session>,
    ) -> Option<Session> {
        let rotated = error.rotated_refresh_token()?;
        let session = match stored {
            Some(stored) => stored.clone(),
            None => Session::clone(self.lock().latest.as_deref()?),
        };
        Some(session.with_refresh_token(rotated.clone()))
    }

    /// Saves a record, and waits for that until `deadline`. It goes on afterwards, with the lock, for as long as a refresh
    /// may take: neither a caller nor a flight that is over stops it.
    pub(crate) async fn save_within(
        self: &Arc<Self>,
        departure: Departure,
        deadline: Option<Instant>,
        place: &StoreKey,
        lock: Box<dyn StoreLock>,
        record: Record,
    ) -> Result<(), StoreError> {
        let saving = Arc::clone(self).save(departure.epoch, place.clone(), lock, record);
        // A store that used the session would wait for itself.
        let saving = self.owner.take_aboard(trace::in_current_span(saving));
        let saving = tokio::spawn(saving);
        within(deadline, async {
            saving.await.unwrap_or_else(|_stopped| {
                let error = stopped();
                self.note_unsaved(departure.epoch);
                self.announce_store_failed(place, StoreOperation::Save, 1, Instant::now(), &error);
                Err(error)
            })
        })
        .await
    }

    /// Saves a record of this epoch, in a few tries, and releases the lock.
    pub(crate) async fn save(
        self: Arc<Self>,
        epoch: u64,
        place: StoreKey,
        mut lock: Box<dyn StoreLock>,
        record: Record,
    ) -> Result<(), StoreError> {
        let since = Instant::now();
        let deadline = since.checked_add(self.settings.refresh_timeout);
        let mut attempts = 0;
        let saved = within(deadline, async {
            loop {
                if epoch < self.lock().logged_out {
                    // Nobody is to come upon a session that was logged out.
                    break Ok(());
                }
                attempts += 1;
                let saved = lock.save(&record).await;
                if saved.is_ok() || attempts == SAVES {
                    break saved;
                }
                sleep(SAVE_PAUSE * 2_u32.pow(attempts - 1)).await;
            }
        })
        .await;
        match &saved {
            Ok(()) => self.note_saved(epoch, &record),
            Err(error) => {
                self.note_unsaved(epoch);
                self.announce_store_failed(&place, StoreOperation::Save, attempts, since, error);
            }
        }
        release(lock, deadline).await;
        saved
    }

    fn note_unsaved(&self, epoch: u64) {
        let mut life = self.lock();
        if epoch >= life.logged_out {
            life.standing.saved_in(epoch, Standing::Unsaved);
        }
    }

    fn note_saved(&self, epoch: u64, record: &Record) {
        let mut life = self.lock();
        if epoch < life.logged_out {
            return;
        }
        life.seen = Some(record.revision());
        life.standing.saved_in(epoch, Standing::Stored);
        let refresh_token = record.session().refresh_token();
        if life.refresh_token.as_ref() == refresh_token {
            life.saved_refresh_token = refresh_token.cloned();
        }
    }

    /// Deletes what is stored of the sessions that were logged out, up to this epoch, and takes note of what others had
    /// stored meanwhile: that ends as well.
    pub(crate) async fn delete_stored(&self, up_to: u64) -> Result<(), StoreError> {
        loop {
            let pending = self.lock().logouts.iter().find_map(|logout| {
                let place = logout.place.clone().filter(|_| logout.epoch <= up_to)?;
                Some((logout.epoch, place))
            });
            match pending {
                Some((epoch, place)) => self.delete_stored_of(epoch, &place).await?,
                None => return Ok(()),
            }
        }
    }

    async fn delete_stored_of(&self, epoch: u64, place: &StoreKey) -> Result<(), StoreError> {
        let deadline = Instant::now().checked_add(self.settings.refresh_timeout);
        let locking = place.store.lock(&place.key);
        let mut lock = self
            .ask(place, StoreOperation::Lock, deadline, locking)
            .await?;
        let loading = lock.load();
        let loaded = self
            .ask(place, StoreOperation::Load, deadline, loading)
            .await;
        let (stored, unreadable) = match loaded {
            Ok(stored) => (stored, None),
            // It is deleted, but nobody knows what has to be ended.
            Err(error) if error.is_terminal() => (None, Some(error)),
            Err(error) => return Err(error),
        };
        // What was stored from here after the logout is another login.
        let revision = stored.as_ref().map(Record::revision);
        let is_another_login = revision.is_some() && self.lock().seen == revision;
        if !is_another_login {
            let deleting = lock.delete();
            self.ask(place, StoreOperation::Delete, deadline, deleting)
                .await?;
        }
        let is_it = |logout: &&mut Logout| logout.epoch == epoch;
        if let Some(logout) = self.lock().logouts.iter_mut().find(is_it) {
            logout.place = None;
            if let Some(record) = stored.filter(|_| !is_another_login) {
                logout.add(record);
            }
        }
        release(lock, deadline).await;
        unreadable.map_or(Ok(()), Err)
    }
}

impl Logout {
    /// Adds what was stored of the session that was logged out.
    fn add(&mut self, record: Record) {
        let is_news = record.revision().is_newer_than(self.seen);
        let session = record.into_session();
        if let Some(refresh_token) = session.refresh_token()
            && !self.refresh_tokens.contains(refresh_token)
        {
            match self.standing {
                // The one that is stored is spent.
                Standing::Stored | Standing::Unsaved if !is_news => {}
                // The one that was here is.
                Standing::Stored => self.refresh_tokens = vec![refresh_token.clone()],
                // They are of two logins.
                Standing::ByHand { .. } | Standing::Unsaved => {
                    self.refresh_tokens.push(refresh_token.clone());
                }
            }
        }
        let is_known = |known: &Session| known.access_token() == session.access_token();
        if !self.sessions.iter().any(is_known) {
            self.sessions.push(session);
        }
    }
}

/// Whether it is of another user than the session that was set by hand, and so none of its business.
fn is_foreign(life: &Life, record: &Record) -> bool {
    let latest = life.latest.as_ref().filter(|_| life.standing.is_by_hand());
    latest.is_some_and(|latest| !latest.may_replace(record.session()))
}

/// Goes on with what is stored: with the session, or, if that is the one that is to be replaced, with its refresh token.
///
/// The refresh token counts from here on, whatever becomes of the session: what was seen is not looked at again.
fn take(life: &mut Life, record: &Record) -> Choice {
    let session = record.session();
    life.seen = Some(record.revision());
    life.standing = Standing::Stored;
    take_refresh_token(life, record);
    let is_rejected = |latest: &LiveSession| latest.access_token() == session.access_token();
    if life.latest.as_ref().is_some_and(is_rejected) {
        return Choice::Exchange;
    }
    Choice::Adopt(Box::new(session.clone()))
}

pub(crate) fn take_refresh_token(life: &mut Life, record: &Record) {
    life.has_spent_refresh_token |= record.has_rotated();
    if let Some(refresh_token) = record.session().refresh_token() {
        life.refresh_token = Some(refresh_token.clone());
        life.saved_refresh_token = Some(refresh_token.clone());
    }
}

/// Releases the lock, and waits for that until `deadline`.
pub(crate) async fn release(lock: Box<dyn StoreLock>, deadline: Option<Instant>) {
    // Dropping it releases it, too.
    let _ = within(deadline, async {
        lock.unlock().await;
        Ok(())
    })
    .await;
}

/// What the store answers until `deadline`. It is polled before the time is looked at, so that an answer that is there
/// counts, and ends before the flight that has the same deadline.
async fn within<T>(
    deadline: Option<Instant>,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match deadline {
        None => answer.await,
        Some(deadline) => timeout_at(deadline, answer)
            .await
            .unwrap_or_else(|_elapsed| {
                Err(StoreError::new(
                    StoreErrorKind::Unavailable,
                    "the session store did not answer before the refresh timeout was over",
                ))
            }),
    }
}

/// What a task leaves that did not end by itself. What a panic says may be secret; it went to the panic hook.
pub(crate) fn stopped() -> StoreError {
    StoreError::new(
        StoreErrorKind::Unavailable,
        "the session store panicked, or its runtime was shut down",
    )
}

fn gone() -> RefreshError {
    RefreshError::new(
        RefreshErrorKind::LoggedOut,
        true,
        "what was stored of the session was deleted, as by a logout: set a new session, or reset the handle to go on with what \
         it has; SessionHandle::save puts it back",
    )
}

fn stale() -> StoreError {
    StoreError::new(
        StoreErrorKind::Stale,
        "the store has an older session than it had before: if it was restored from a backup, reset the handle; if it \
         is a replica, load from where sessions are saved",
    )
}
