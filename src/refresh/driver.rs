//! How a session is obtained: adopted from the store if another process was there first, or exchanged, and saved before
//! anybody uses it.
//!
//! ```text
//! lock ─▶ load ─▶ newer than what was seen? ─ yes ─▶ adopt
//!                     │ no
//!                     ▼
//!                 RefreshFn ─▶ save ─▶ unlock
//!                     │ invalid_grant
//!                     ▼
//!                 load once more ─▶ another refresh token? ─ yes ─▶ adopt
//! ```
//!
//! Without a store there is the call of the [`RefreshFn`](crate::RefreshFn) alone. With one, the refresh token is presented
//! under the lock and at no other time. What a call brought is noted, in memory, before anything else can go wrong.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    error::{self, RefreshError, RefreshErrorKind},
    refresh::{
        attempt::Attempt,
        hook::RefreshContext,
        policy::Permit,
        record::{Choice, release},
        shared::{Brought, Departure, Shared, back_off, superseded},
    },
    report::{
        event::StoreOperation, reason::RefreshReason, subscription::SessionState,
        trace::RefreshSpan,
    },
    secret::Secret,
    session::session::Session,
    store::{OnSaveFailure, Record, StoreKey, StoreLock},
};

/// How long a look at the store may take after a failure for good.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// The time of a flight. None: for ever.
#[derive(Clone, Copy)]
struct Limits {
    /// Until when an exchange may begin. Whoever had to wait for the lock of a store has half of the time left, so that what
    /// uses up a refresh token is not cut off soon after.
    last_start: Option<Instant>,
    end: Option<Instant>,
}

impl Shared {
    /// The operation of a flight: tries to obtain a session, and again while that fails in a way that may pass and there is
    /// time for another attempt.
    pub(crate) async fn obtain(
        self: Arc<Self>,
        departure: Departure,
        deadline: Option<Instant>,
    ) -> Result<Brought, RefreshError> {
        if departure.reason != RefreshReason::Manual
            && let Some(failure) = self.latched()
        {
            match self.look_for_another(departure, &failure).await {
                None => return Err(failure),
                Some(Choice::Adopt(session)) => return Ok(Brought::Adopted(*session)),
                Some(Choice::Exchange) => self.lock().policy.unlatch_if(|_| true),
            }
        }
        let limits = self.limits(departure, deadline);
        // Whoever asks for a refresh by hand does not have to wait for what failed before.
        let mut pause = match departure.reason {
            RefreshReason::Manual => None,
            _ => self.pause(departure, limits.last_start)?,
        };
        let mut failure = None;
        loop {
            if let Some(until) = pause {
                sleep_until(until).await;
            }
            match self.attempt(departure, limits).await {
                Err(error) if !error.is_terminal() => {
                    let error = telling(error, failure, limits.last_start);
                    failure = Some(error.clone());
                    self.note_transient(departure, error.clone())?;
                    pause = self.pause(departure, limits.last_start)?;
                    self.announce_failed(departure, &error, Outlook::Retry);
                }
                ended => return ended,
            }
        }
    }

    fn limits(&self, departure: Departure, end: Option<Instant>) -> Limits {
        let last_start = match &self.settings.place {
            Some(_) => end.and_then(|end| end.checked_sub(departure.limit / 2)),
            None => end,
        };
        Limits { last_start, end }
    }

    /// Until when the next attempt has to wait, if it has to; the failure that it has to wait for, if that is too long.
    fn pause(
        &self,
        departure: Departure,
        deadline: Option<Instant>,
    ) -> Result<Option<Instant>, RefreshError> {
        let life = self.lock();
        match life.policy.permit(Instant::now()) {
            _ if life.epoch != departure.epoch => Err(superseded()),
            Permit::Now => Ok(None),
            Permit::NotBefore(until, failure) => {
                if deadline.is_some_and(|deadline| deadline <= until) {
                    return Err(failure.clone());
                }
                Ok(Some(until))
            }
            Permit::Never(failure) => Err(failure.clone()),
        }
    }

    /// The failure that keeps everything from being tried.
    fn latched(&self) -> Option<RefreshError> {
        match self.lock().policy.permit(Instant::now()) {
            Permit::Never(failure) => Some(failure.clone()),
            _ => None,
        }
    }

    /// Looks whether somebody has stored another session since the last refresh failed for good: after logging in anew
    /// elsewhere.
    async fn look_for_another(
        &self,
        departure: Departure,
        failure: &RefreshError,
    ) -> Option<Choice> {
        let place = self.settings.place.clone()?;
        // Whoever waits is going to hear of a failure that is known, most likely.
        let deadline = Instant::now().checked_add(LOOK_LIMIT);
        let loading = place.store.load(&place.key);
        let stored = self
            .ask(&place, StoreOperation::Load, deadline, loading)
            .await
            .ok()?;
        self.choose_after(departure, failure, stored)
    }

    /// One attempt to obtain a session.
    async fn attempt(
        self: &Arc<Self>,
        departure: Departure,
        limits: Limits,
    ) -> Result<Brought, RefreshError> {
        let Some(place) = self.settings.place.clone() else {
            return self.exchange(departure).await.map(Brought::Obtained);
        };
        // What was logged out is not to be found by anybody who logs in again.
        self.delete_stored(departure.epoch).await?;
        if departure.reason == RefreshReason::FirstLogin {
            // There is nothing to be used up: whoever only starts need not wait until others have done with the lock.
            let loading = place.store.load(&place.key);
            let stored = self
                .ask(&place, StoreOperation::Load, limits.last_start, loading)
                .await?;
            if let Choice::Adopt(session) = self.choose(departure, stored.as_ref())? {
                return Ok(Brought::Adopted(*session));
            }
        }
        let locking = place.store.lock(&place.key);
        let lock = self
            .ask(&place, StoreOperation::Lock, limits.last_start, locking)
            .await?;
        self.adopt_or_exchange(departure, limits, &place, lock)
            .await
    }

    /// What is done under the lock.
    async fn adopt_or_exchange(
        self: &Arc<Self>,
        departure: Departure,
        limits: Limits,
        place: &StoreKey,
        mut lock: Box<dyn StoreLock>,
    ) -> Result<Brought, RefreshError> {
        let mut stored = self
            .ask(place, StoreOperation::Load, limits.last_start, lock.load())
            .await?;
        let mut choice = self.choose(departure, stored.as_ref())?;
        let mut is_second_look = false;
        let exchanged = loop {
            if let Choice::Adopt(session) = choice {
                release(lock, limits.end).await;
                return Ok(Brought::Adopted(*session));
            }
            // Nothing is to be done with it meanwhile, and the RefreshFn may take its time.
            let parked = Parked::new(self, departure, lock);
            let exchanged = self.exchange(departure).await;
            lock = parked.take().ok_or_else(superseded)?;
            let refusal = match exchanged {
                Err(refusal) if is_invalid_grant(&refusal) && !is_second_look => refusal,
                // A session that is not going to be used is not to be stored either.
                exchanged => {
                    break exchanged.and_then(|session| self.check_instance(&self.lock(), session));
                }
            };
            // Somebody may have renewed it without the lock. What the server said is not to be hidden by a store that fails
            // now.
            is_second_look = true;
            let loading = self.ask(place, StoreOperation::Load, limits.end, lock.load());
            let Ok(again) = loading.await else {
                break Err(refusal);
            };
            match self.choose_again(departure, again.as_ref()) {
                Some(next) => {
                    let outlook = match next {
                        Choice::Adopt(_) => Outlook::End,
                        Choice::Exchange => Outlook::Retry,
                    };
                    self.announce_failed(departure, &refusal, outlook);
                    stored = again;
                    choice = next;
                }
                None => break Err(refusal),
            }
        };
        let record = |session| match &stored {
            Some(stored) => stored.followed_by(session),
            None => Record::new(session),
        };
        match exchanged {
            Ok(session) => {
                let saved = self
                    .save_within(departure, limits.end, place, lock, record(session.clone()))
                    .await;
                match (saved, self.settings.on_save_failure) {
                    (Err(error), OnSaveFailure::Fail) => {
                        let rotated = new_refresh_token(&session).cloned();
                        Err(RefreshError::from(error).with_rotated_refresh_token(rotated))
                    }
                    _ => Ok(Brought::Obtained(session)),
                }
            }
            Err(error) => {
                let stored_before = stored.as_ref().map(Record::session);
                match self.with_rotated(&error, stored_before) {
                    // The answer was of no use but for this.
                    Some(session) => {
                        let saving =
                            self.save_within(departure, limits.end, place, lock, record(session));
                        // Whoever watches was told if it failed.
                        let _ = saving.await;
                    }
                    None => release(lock, limits.end).await,
                }
                Err(error)
            }
        }
    }

    // === The exchange ===

    /// Calls the [`RefreshFn`](crate::RefreshFn), once.
    async fn exchange(&self, departure: Departure) -> Result<Session, RefreshError> {
        let Some(refresh_fn) = &self.refresh_fn else {
            // Nothing departs without one.
            return Err(RefreshError::new(
                RefreshErrorKind::Configuration,
                true,
                "there is no RefreshFn",
            ));
        };
        let context = self.begin_attempt(departure)?;
        let description = refresh_fn.describe(&context);
        let span = RefreshSpan::current();
        let attempt = Attempt::new(departure.epoch, &context, description, span.clone());
        let news = attempt.started();
        self.lock().under_way.push(attempt);
        self.announce_in(&span, &[news]);
        let exchanged = refresh_fn.refresh_boxed(context).await;
        self.note_refresh_token(departure, &exchanged);
        exchanged
    }

    fn begin_attempt(&self, departure: Departure) -> Result<RefreshContext, RefreshError> {
        let mut life = self.lock();
        if life.epoch != departure.epoch {
            // Nobody would hear of the session, and its exchange could use up the token of the one that was set.
            return Err(superseded());
        }
        life.attempts = life.attempts.saturating_add(1);
        life.exchanging = Some(departure.epoch);
        Ok(RefreshContext::new(departure.reason)
            .with_previous(life.latest.clone())
            .with_newest_refresh_token(life.refresh_token.clone())
            .with_spent_refresh_token(life.has_spent_refresh_token)
            .with_attempt(life.attempts))
    }

    /// Keeps a refresh token that replaces the one that was presented, whatever becomes of the rest.
    fn note_refresh_token(&self, departure: Departure, exchanged: &Result<Session, RefreshError>) {
        let brought = match exchanged {
            Ok(session) => new_refresh_token(session),
            Err(error) => error.rotated_refresh_token(),
        };
        let mut life = self.lock();
        if let Some(brought) = brought
            && departure.grant == life.grant
            && life.refresh_token.as_ref() != Some(brought)
        {
            life.refresh_token = Some(brought.clone());
            life.noted_refresh_token = Some((departure.epoch, brought.clone()));
        }
    }

    /// Tells of a failed attempt that is not the last that is done.
    fn announce_failed(&self, departure: Departure, error: &RefreshError, outlook: Outlook) {
        let attempt = Attempt::take(&mut self.lock().under_way, departure.epoch);
        if let Some(attempt) = attempt {
            let will_retry = outlook == Outlook::Retry;
            self.announce_in(&attempt.span, &[attempt.failed(error, will_retry)]);
        }
    }

    /// Notes a failure that may pass. It is the flight's, if there is to be no other attempt.
    fn note_transient(
        &self,
        departure: Departure,
        error: RefreshError,
    ) -> Result<(), RefreshError> {
        let mut life = self.lock();
        if life.epoch != departure.epoch {
            return Err(error);
        }
        if let Some(rotated) = error.rotated_refresh_token() {
            // The next attempt has to present it.
            life.has_spent_refresh_token = true;
            self.keep_rotated(&mut life, departure, rotated);
        }
        back_off(&mut life, error.clone());
        if error::is_reentrant(&error) {
            // It would be so again.
            return Err(error);
        }
        if self.current.load().is_some() {
            // There is no hurry, and the exchange may have gone through: the session that is in use would end with its
            // grant if the same refresh token were presented twice.
            return Err(error);
        }
        self.state.show(SessionState::BackingOff(error));
        Ok(())
    }
}

/// The lock of the store, left with the session while a flight has nothing to do with it.
struct Parked<'a> {
    shared: &'a Shared,
    epoch: u64,
}

impl<'a> Parked<'a> {
    fn new(shared: &'a Shared, departure: Departure, lock: Box<dyn StoreLock>) -> Self {
        let epoch = departure.epoch;
        let before = shared.lock().parked_lock.replace((epoch, lock));
        // There is one flight at a time, unless one does not stop in time.
        drop(before);
        Self { shared, epoch }
    }

    /// None if it was released meanwhile.
    fn take(self) -> Option<Box<dyn StoreLock>> {
        self.unpark()
    }

    fn unpark(&self) -> Option<Box<dyn StoreLock>> {
        let mut life = self.shared.lock();
        let parked = life.parked_lock.take_if(|(epoch, _)| *epoch == self.epoch);
        parked.map(|(_, lock)| lock)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        drop(self.unpark());
    }
}

/// What comes after an attempt that failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlook {
    Retry,
    End,
}

/// Of two failures in a row, the one to tell of: that the store was asked in vain until the time was over says less than what
/// it had answered before.
fn telling(
    error: RefreshError,
    before: Option<RefreshError>,
    deadline: Option<Instant>,
) -> RefreshError {
    let is_cut_off = error.kind() == RefreshErrorKind::Store
        && error.rotated_refresh_token().is_none()
        && deadline.is_some_and(|deadline| deadline <= Instant::now());
    match before {
        Some(before) if is_cut_off => before,
        _ => error,
    }
}

fn is_invalid_grant(error: &RefreshError) -> bool {
    error.is_terminal() && error.error_code() == Some("invalid_grant")
}

/// The refresh token that came with a session, unless it is the one that was presented.
fn new_refresh_token(session: &Session) -> Option<&Secret> {
    session
        .refresh_token()
        .filter(|_| !session.keeps_refresh_token())
}
