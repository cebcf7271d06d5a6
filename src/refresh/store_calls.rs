//! The calls of a store: within a time, and with an event if they fail.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    refresh::{
        panic::{Panicked, catch_panic},
        shared::Shared,
    },
    report::{
        event::{StoreFailed, StoreOperation},
        observer::Event,
    },
    store::{Record, Save, StoreError, StoreErrorKind, StoreKey, StoreLock, Version},
};

/// How often a save is tried, and how long after the first try it is tried again. Each further pause is twice as long.
const SAVES: u32 = 3;
const SAVE_PAUSE: Duration = Duration::from_millis(200);

impl Shared {
    /// Asks the store for something, until then, and emits an event if it fails.
    pub(crate) async fn ask_store<T>(
        &self,
        store: &StoreKey,
        operation: StoreOperation,
        until: Option<Instant>,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let since = Instant::now();
        let answer = within(until, answer).await;
        if let Err(error) = &answer {
            self.announce_store_failed(store, operation, 1, since, error);
        }
        answer
    }

    /// Saves a record in place of the one of that version, in a few tries, within the refresh timeout.
    pub(crate) async fn save_record(
        &self,
        store: &StoreKey,
        lock: &mut dyn StoreLock,
        record: &Record,
        replaces: Option<Version>,
    ) -> Result<(), StoreError> {
        let save = Save::new(record)
            .replacing(replaces)
            .with_lifetime(self.settings.record_lifetime);
        let since = Instant::now();
        let until = since.checked_add(self.settings.refresh_timeout);
        let mut tries = 0;
        let saving = within(until, async {
            loop {
                tries += 1;
                match lock.save(save).await {
                    Err(error) if error.kind() == StoreErrorKind::Unavailable && tries < SAVES => {}
                    saved => return saved,
                }
                sleep(SAVE_PAUSE * 2_u32.pow(tries - 1)).await;
                if lock.lease().is_some_and(|lease| lease.is_due()) {
                    // Saves are compared by version, so a lock that is lost shows in the next try.
                    // A call that hangs must not take the time of the next tries.
                    drop(timeout(SAVE_PAUSE, lock.renew()).await);
                }
            }
        });
        let saved = catch_panic(saving).await.unwrap_or_else(|Panicked| {
            Err(StoreError::new(
                StoreErrorKind::Unavailable,
                "the session store panicked; the panic message went to the panic hook",
            ))
        });
        if let Err(error) = &saved {
            self.announce_store_failed(store, StoreOperation::Save, tries, since, error);
        }
        saved
    }

    fn announce_store_failed(
        &self,
        store: &StoreKey,
        operation: StoreOperation,
        attempts: u32,
        since: Instant,
        error: &StoreError,
    ) {
        if store.is_quiet {
            return;
        }
        self.announce(&[Event::StoreFailed(StoreFailed {
            operation,
            key: Arc::clone(&store.key),
            attempts,
            duration: since.elapsed(),
            error: error.clone(),
        })]);
    }
}

/// Releases the lock, and waits for that until then. Dropping it releases it too.
pub(crate) async fn release(lock: Box<dyn StoreLock>, until: Option<Instant>) {
    let released = within(until, async {
        lock.unlock().await;
        Ok(())
    });
    drop(released.await);
}

/// What the store answers until then. The answer is polled before the time is looked at, so that one that is there counts.
async fn within<T>(
    until: Option<Instant>,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match until {
        None => answer.await,
        Some(until) => timeout_at(until, answer).await.unwrap_or_else(|_elapsed| {
            Err(StoreError::new(
                StoreErrorKind::Unavailable,
                "the session store did not answer before the refresh timeout was over",
            ))
        }),
    }
}
