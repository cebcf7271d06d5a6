//! Waits until another process has saved: beside the wait for the store lock.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    refresh::panic::catch_panic,
    session::jitter::with_jitter,
    store::{Record, StoreKey, Version},
};

/// Longest pause before the record is loaded for the first time. Each further pause is as long as the wait so far, up to
/// `LONGEST_PAUSE`: a call that takes twice as long costs one load more, and what it saved is found after twice its time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Awaits `locking`, or a record of another version than `seen`, which is the error: what comes first.
pub(super) async fn unless_another_record<T>(
    locking: impl Future<Output = T>,
    store: &StoreKey,
    seen: Option<Version>,
    has_notices: bool,
) -> Result<T, Option<Record>> {
    let mut locking = pin!(locking);
    let mut loading = pin!(another_record(store, seen, has_notices));
    poll_fn(|cx| match locking.as_mut().poll(cx) {
        Poll::Ready(locked) => Poll::Ready(Ok(locked)),
        Poll::Pending => loading.as_mut().poll(cx).map(Err),
    })
    .await
}

/// Loads the record without the lock, again and again, until it has another version than `seen`. Of each pause, a random half is
/// left out. With `has_notices` a notice ends a pause, and the pauses are the longest ones.
///
/// A store that fails is asked again: its lock fails too.
async fn another_record(
    store: &StoreKey,
    seen: Option<Version>,
    has_notices: bool,
) -> Option<Record> {
    let first = if has_notices {
        LONGEST_PAUSE
    } else {
        FIRST_PAUSE
    };
    let since = Instant::now();
    loop {
        let pause = since.elapsed().clamp(first, LONGEST_PAUSE);
        let until = Instant::now() + with_jitter(pause);
        if has_notices {
            // The store is called when these futures are polled, and not before, so that a panic is caught.
            let changed = catch_panic(async { store.store.changed(&store.key, seen).await });
            drop(timeout_at(until, changed).await);
        } else {
            sleep_until(until).await;
        }
        let loading = catch_panic(async { store.store.load(&store.key).await });
        if let Ok(Ok(stored)) = loading.await
            && stored.as_ref().map(Record::version) != seen
        {
            return stored;
        }
        // The notice was of no change.
        sleep_until(until).await;
    }
}
