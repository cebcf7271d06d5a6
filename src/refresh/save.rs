//! Saving a session apart from a refresh.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    error::{self, Error, ErrorKind},
    refresh::{
        core::decide::{SaveDecision, SavedBy},
        shared::{SessionCore, Shared},
        store_calls::release,
    },
    report::event::StoreOperation,
    store::{Record, StoreError, StoreKey, StoreLock},
};

/// Fails if there is no session that can be saved.
pub(crate) fn check_session(shared: &Shared) -> Result<(), Error> {
    if shared.read(SessionCore::is_logged_out) {
        return Err(error::logged_out());
    }
    if shared.read(|core| core.session_to_save().is_none()) {
        return Err(Error::new(
            ErrorKind::NoSession,
            "there is no Salesforce session to save: set one, or let a request log in",
        ));
    }
    Ok(())
}

/// Saves the session, unless the store has a newer one.
pub(crate) async fn save(shared: &Arc<Shared>, store: &StoreKey, by: SavedBy) -> Result<(), Error> {
    match try_save(shared, store, by).await {
        // Another process had the lock meanwhile. What it stored is compared as if it had been there before.
        Err(NotSaved::Store(error)) if error.is_of_lost_lock() => {
            try_save(shared, store, by).await.map_err(Error::from)
        }
        saved => saved.map_err(Error::from),
    }
}

async fn try_save(shared: &Arc<Shared>, store: &StoreKey, by: SavedBy) -> Result<(), NotSaved> {
    let until = Instant::now().checked_add(shared.settings.refresh_timeout);
    let (mut lock, stored) = lock_and_load(shared, store, until).await?;
    check_session(shared)?;
    let replaces = stored.as_ref().map(Record::version);
    let (record, save) = match shared.apply(|core, _| core.decide_save(stored, by)) {
        SaveDecision::Save(record, save) => (record, save),
        SaveDecision::Nothing => {
            release(lock, until).await;
            return Ok(());
        }
        SaveDecision::Gone => {
            release(lock, until).await;
            return Err(gone().into());
        }
    };
    let mut saved = shared
        .save_record(store, &mut *lock, &record, replaces)
        .await;
    // The save has its own time.
    let until = Instant::now().checked_add(shared.settings.refresh_timeout);
    let is_logged_out = saved.is_ok() && shared.apply(|core, _| core.saved_by_user(&record, save));
    if is_logged_out {
        let deleting = lock.delete();
        saved = shared
            .ask_store(store, StoreOperation::Delete, until, deleting)
            .await;
        if saved.is_ok() {
            shared.apply(|core, _| core.record_deleted(Some(&record)));
        }
    }
    if saved.is_err() {
        // An earlier try may have been done, although its answer was lost.
        shared.apply(|core, _| core.save_failed(&record, save));
    }
    release(lock, until).await;
    match saved {
        Err(error) if is_logged_out && error.is_of_lost_lock() => {
            Ok(take_back(shared, store, &record).await?)
        }
        saved => Ok(saved?),
    }
}

async fn lock_and_load(
    shared: &Shared,
    store: &StoreKey,
    until: Option<Instant>,
) -> Result<(Box<dyn StoreLock>, Option<Record>), StoreError> {
    let locking = store.store.lock(&store.key);
    let mut lock = shared
        .ask_store(store, StoreOperation::Lock, until, locking)
        .await?;
    let stored = shared
        .ask_store(store, StoreOperation::Load, until, lock.load())
        .await?;
    Ok((lock, stored))
}

/// Deletes a record that was saved after the logout of its session, which may have found none.
async fn take_back(
    shared: &Arc<Shared>,
    store: &StoreKey,
    record: &Record,
) -> Result<(), StoreError> {
    let until = Instant::now().checked_add(shared.settings.refresh_timeout);
    let (mut lock, stored) = lock_and_load(shared, store, until).await?;
    if stored.is_some_and(|stored| stored.version() == record.version()) {
        shared
            .ask_store(store, StoreOperation::Delete, until, lock.delete())
            .await?;
        shared.apply(|core, _| core.record_deleted(Some(record)));
    }
    release(lock, until).await;
    Ok(())
}

/// Why a session was not saved.
enum NotSaved {
    Store(StoreError),
    /// There was nothing to save.
    Session(Error),
}

impl From<StoreError> for NotSaved {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Error> for NotSaved {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

impl From<NotSaved> for Error {
    fn from(not_saved: NotSaved) -> Self {
        match not_saved {
            NotSaved::Store(error) => self::not_saved(error),
            NotSaved::Session(error) => error,
        }
    }
}

fn gone() -> Error {
    Error::new(
        ErrorKind::LoggedOut,
        "the stored record of the session was deleted, as by a logout in another process: set a new session, or reset the \
         handle and save again to keep the one in memory",
    )
}

pub(crate) fn not_saved(error: StoreError) -> Error {
    Error::new(
        ErrorKind::Store,
        "the Salesforce session could not be saved",
    )
    .with_source(error)
}
