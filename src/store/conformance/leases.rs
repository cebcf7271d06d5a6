//! Checks of locks that have leases.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    KEY, MAX_WAIT, SAVE, assert_busy_of, bare, delete, load, loaded, lock, patient_lock_of, text,
};
use crate::{
    error::StoreErrorKind,
    store::{
        record::Record,
        save::Save,
        session_store::{SessionStore, StoreLock},
    },
};

/// How many locks one process holds at once. More than the connections of any pool.
const LOCKS: usize = 64;

/// Checks what holds for a store whose locks have leases, beside what [`check`](super::check) checks.
///
/// `open` opens the store. Each call stands for another process. `lease` is the length of the leases: the checks wait for
/// several of them, so open the store with a short one. It must be longer than the store takes for a few calls, and several
/// times its lock timeout.
///
/// Each check names the mistake that it found: a lease that nothing renews, a lock that someone else released, a save that came
/// too late, a token call without the lock, and connections that are held during a token call.
///
/// # Panics
///
/// - If the store breaks the contract. The message names the mistake.
/// - Outside of a tokio runtime with a time driver.
pub async fn check_leases<S: SessionStore>(open: impl Fn() -> S, lease: Duration) {
    // They mostly wait, each with a key of its own.
    let ends = Box::pin(a_lease_ends_unless_it_is_renewed(&open, lease));
    let lasts = Box::pin(a_renewed_lease_lasts(&open, lease));
    let releases = Box::pin(a_late_holder_releases_no_other_lock(&open, lease));
    let replaces = Box::pin(a_late_holder_replaces_no_newer_record(&open, lease));
    let deletes = Box::pin(a_late_holder_deletes_nothing(&open, lease));
    both(both(both(ends, lasts), both(releases, replaces)), deletes).await;
    locks_hold_no_connections(&open).await;
}

/// Awaits both.
async fn both(first: impl Future<Output = ()>, second: impl Future<Output = ()>) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut is_first_over, mut is_second_over) = (false, false);
    poll_fn(|cx| {
        is_first_over = is_first_over || first.as_mut().poll(cx).is_ready();
        is_second_over = is_second_over || second.as_mut().poll(cx).is_ready();
        if is_first_over && is_second_over {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

async fn a_lease_ends_unless_it_is_renewed<S: SessionStore>(
    open: &impl Fn() -> S,
    lease: Duration,
) {
    let key = "conformance ends";
    delete(&open(), key).await;
    let held = lock(&open(), key).await;
    let told = held.lease().map(|lease| lease.length());
    assert_eq!(
        told,
        Some(lease),
        "a lease that nothing renews: the lock does not tell the length of its lease"
    );
    assert_busy_of(&open(), key).await;
    sleep(lease * 3 / 2).await;
    // Its process may have been killed.
    lock(&open(), key).await.unlock().await;
    held.unlock().await;
}

async fn a_renewed_lease_lasts<S: SessionStore>(open: &impl Fn() -> S, lease: Duration) {
    let key = "conformance lasts";
    let mut held = lock(&open(), key).await;
    for _ in 0..9 {
        sleep(lease / 3).await;
        held.renew()
            .await
            .unwrap_or_else(|error| panic!("a lease that nothing renews: {error:?}"));
    }
    let is_over = held.lease().is_none_or(|lease| lease.is_over());
    assert!(
        !is_over,
        "a lease that nothing renews: it does not tell its new end"
    );
    assert_busy_of(&open(), key).await;
    held.unlock().await;
}

/// A lock whose lease is over.
async fn late<S: SessionStore>(
    open: &impl Fn() -> S,
    key: &str,
    lease: Duration,
) -> Box<dyn StoreLock> {
    let late = patient_lock_of(&open(), key).await;
    sleep(lease * 3 / 2).await;
    late
}

async fn a_late_holder_releases_no_other_lock<S: SessionStore>(
    open: &impl Fn() -> S,
    lease: Duration,
) {
    let key = "conformance releases";
    for is_dropped in [false, true] {
        let mut late = late(open, key, lease).await;
        let mut held = lock(&open(), key).await;
        let renewed = late.renew().await;
        let kind = renewed.err().map(|error| error.kind());
        assert_eq!(
            kind,
            Some(StoreErrorKind::LockLost),
            "a lock that someone else released: a late holder renewed the lease of another one"
        );
        if is_dropped {
            drop(late);
        } else {
            late.unlock().await;
        }
        let renewed = held.renew().await;
        renewed.unwrap_or_else(|error| {
            panic!("a lock that someone else released: a late holder released it: {error:?}")
        });
        assert_busy_of(&open(), key).await;
        held.unlock().await;
    }
}

async fn a_late_holder_replaces_no_newer_record<S: SessionStore>(
    open: &impl Fn() -> S,
    lease: Duration,
) {
    let key = "conformance replaces";
    for is_deleted in [false, true] {
        delete(&open(), key).await;
        let first = Record::new(bare("first"));
        super::save(&open(), key, &first).await;
        let mut late = late(open, key, lease).await;
        assert_eq!(
            loaded(&mut *late).await.as_ref().map(text),
            Some(text(&first))
        );

        let mut held = lock(&open(), key).await;
        let newer = first.followed_by(bare("newer"));
        if is_deleted {
            held.delete()
                .await
                .unwrap_or_else(|error| panic!("{error:?}"));
        } else {
            let saved = held
                .save(Save::new(&newer).replacing(first.version()))
                .await;
            saved.unwrap_or_else(|error| panic!("{SAVE}: {error:?}"));
        }
        let own = first.followed_by(bare("late"));
        let saved = late.save(Save::new(&own).replacing(first.version())).await;
        let kind = saved.err().map(|error| error.kind());
        assert!(
            matches!(
                kind,
                Some(StoreErrorKind::Superseded | StoreErrorKind::LockLost)
            ),
            "a save that came too late replaced a newer record, or failed with {kind:?}"
        );
        let expected = (!is_deleted).then(|| text(&newer));
        assert_eq!(
            load(&open(), key).await,
            expected,
            "a save that came too late replaced a newer record"
        );
        late.unlock().await;
        held.unlock().await;
    }
    delete(&open(), key).await;
}

async fn a_late_holder_deletes_nothing<S: SessionStore>(open: &impl Fn() -> S, lease: Duration) {
    let key = "conformance deletes";
    let first = Record::new(bare("first"));
    super::save(&open(), key, &first).await;
    let mut late = late(open, key, lease).await;
    let held = lock(&open(), key).await;
    let deleted = late.delete().await;
    let kind = deleted.err().map(|error| error.kind());
    assert_eq!(
        kind,
        Some(StoreErrorKind::LockLost),
        "a save that came too late: a late holder deleted a record"
    );
    assert_eq!(load(&open(), key).await, Some(text(&first)));
    late.unlock().await;
    held.unlock().await;
    delete(&open(), key).await;
}

async fn locks_hold_no_connections<S: SessionStore>(open: &impl Fn() -> S) {
    let store = open();
    let keys: Vec<_> = (0..LOCKS).map(|number| format!("{KEY} {number}")).collect();
    let mut locks = Vec::new();
    for key in &keys {
        let locked = timeout(MAX_WAIT, store.lock(key)).await;
        let locked = locked.ok().and_then(Result::ok);
        locks.push(locked.unwrap_or_else(|| {
            panic!("connections that are held during a token call: none was left for {key:?}")
        }));
    }
    let loaded = timeout(MAX_WAIT, store.load(KEY)).await;
    assert!(
        loaded.is_ok_and(|loaded| loaded.is_ok()),
        "connections that are held during a token call: none was left for a load"
    );
    for lock in locks {
        lock.unlock().await;
    }
}

/// Checks that a store tells of changes ([`SessionStore::changed`]).
///
/// # Panics
///
/// - If no notice of a save or of a deletion comes, or if one does not come at once for a change that was before it.
/// - Outside of a tokio runtime with a time driver.
pub async fn check_notices<S: SessionStore>(open: impl Fn() -> S) {
    delete(&open(), KEY).await;
    let (reader, writer) = (open(), open());
    let first = Record::new(bare("first"));
    notified(&reader, None, super::save(&writer, KEY, &first)).await;
    // One that was before the call.
    notified(&reader, None, std::future::ready(())).await;
    let next = first.followed_by(bare("next"));
    notified(&reader, Some(&first), super::save(&writer, KEY, &next)).await;
    notified(&reader, Some(&next), delete(&writer, KEY)).await;
}

/// Waits for the notice of a change.
async fn notified(
    reader: &impl SessionStore,
    since: Option<&Record>,
    change: impl Future<Output = ()>,
) {
    let mut notice = reader.changed(KEY, since.map(Record::version));
    // It waits before the change is made, if it waits at all.
    let is_told = poll_fn(|cx| Poll::Ready(notice.as_mut().poll(cx).is_ready())).await;
    change.await;
    if is_told {
        return;
    }
    let told = timeout(MAX_WAIT, notice).await;
    assert!(told.is_ok(), "no notice of a change came");
}
