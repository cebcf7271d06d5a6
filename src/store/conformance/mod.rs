//! Checks the [contract](super::SessionStore#contract) of a store, in a test of its implementation.
//!
//! ```
//! use std::time::Duration;
//! use tower_salesforce_auth::store::{MemoryStore, conformance};
//!
//! # #[tokio::main]
//! # async fn main() {
//! let store = MemoryStore::new().lock_timeout(Duration::from_millis(100));
//! conformance::check(|| store.clone()).await;
//! # }
//! ```
//!
//! [`check_leases`] checks a store whose locks have leases, and [`check_notices`] one that tells of changes. None of them can
//! check what happens when a process is killed or a machine loses power.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, UNIX_EPOCH},
};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

mod leases;

pub use self::leases::{check_leases, check_notices};
use super::{
    record::Record,
    save::Save,
    session_store::{SessionStore, StoreLock},
};
use crate::{
    error::{StoreError, StoreErrorKind},
    session::{session::Session, url::LoginUrl},
};

/// The key that most checks use.
const KEY: &str = "tower-salesforce-auth conformance";

/// Longest wait for a lock. Any store gives up sooner.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Time in which a dropped save would take effect, if it did.
const LATE_SAVE_DELAY: Duration = Duration::from_millis(100);

/// Checks every clause of the contract that one process can check.
///
/// `open` opens the store. Each call stands for another process: each opened store must see what the others save.
///
/// The checks use keys that begin with `tower-salesforce-auth conformance`, and a few unusual ones (the empty string, `..`,
/// `/`). They delete the records under these keys, before and after. They also wait for a lock that stays held, so give the
/// store a short lock timeout.
///
/// A multi-thread runtime finds more faults.
///
/// # Panics
///
/// - If the store breaks the contract. The message names the fault.
/// - Outside of a tokio runtime with a time driver.
pub async fn check<S: SessionStore>(open: impl Fn() -> S) {
    a_saved_record_is_loaded(&open).await;
    keys_are_independent(&open).await;
    a_lock_has_one_holder(&open).await;
    a_held_lock_is_busy(&open).await;
    a_dropped_wait_holds_no_lock(&open).await;
    a_dropped_save_does_not_replace_a_later_one(&open).await;
    readers_see_whole_records(&open).await;
}

async fn a_saved_record_is_loaded<S: SessionStore>(open: &impl Fn() -> S) {
    delete(&open(), KEY).await;
    assert_eq!(
        load(&open(), KEY).await,
        None,
        "a record was loaded although none was saved"
    );

    let full = Record::new(session("access-1").with_refresh_token("refresh-1"));
    save(&open(), KEY, &full).await;
    let again = open();
    assert_eq!(
        load(&again, KEY).await,
        Some(text(&full)),
        "a loaded record differs from the saved one"
    );
    let mut lock = lock(&again, KEY).await;
    assert_eq!(
        loaded(&mut *lock).await.as_ref().map(text),
        Some(text(&full)),
        "a record loaded under the lock differs from the saved one"
    );

    let bare = full.followed_by(bare("access-2"));
    lock.save(Save::new(&bare).replacing(full.version()))
        .await
        .unwrap_or_else(|error| panic!("{SAVE}: {error:?}"));
    assert_eq!(
        loaded(&mut *lock).await.as_ref().map(text),
        Some(text(&bare)),
        "a record saved under a lock was not loaded under it, or part of the previous record was left"
    );
    lock.unlock().await;

    let long = bare.followed_by(self::bare(&"x".repeat(8_000)));
    save(&open(), KEY, &long).await;
    assert_eq!(
        load(&open(), KEY).await,
        Some(text(&long)),
        "a record with a long token was not kept"
    );
    save(&open(), KEY, &bare).await;
    assert_eq!(
        load(&open(), KEY).await,
        Some(text(&bare)),
        "a shorter record did not replace a longer one"
    );

    delete(&open(), KEY).await;
    assert_eq!(
        load(&open(), KEY).await,
        None,
        "a deleted record was loaded"
    );
    // Deleting a record that does not exist is no error.
    delete(&open(), KEY).await;
}

async fn keys_are_independent<S: SessionStore>(open: &impl Fn() -> S) {
    let long = format!("{KEY} {}", "long ".repeat(200));
    let longer = format!("{long}!");
    let keys = [
        KEY,
        "tower-salesforce-auth conformanc",
        "tower-salesforce-auth conformance ",
        "Tower-Salesforce-Auth Conformance",
        "tower-salesforce-auth conformance/..",
        "../tower-salesforce-auth conformance",
        "tower-salesforce-auth conformance%2F..",
        "tower-salesforce-auth conformance\\..",
        "tower-salesforce-auth conformance\u{fc}",
        "tower-salesforce-auth conformanceu\u{308}",
        "tower-salesforce-auth conformance'; --",
        "tower-salesforce-auth conformance\n",
        "tower-salesforce-auth conformance\0",
        "",
        ".",
        "..",
        "/",
        &long,
        &longer,
    ];
    let store = open();
    for key in keys {
        delete(&store, key).await;
    }
    let mut locks = Vec::new();
    let mut records = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        // The lock of one key does not block the lock of another.
        let mut lock = lock(&store, key).await;
        let record = Record::new(bare(&format!("access-{number}")));
        lock.save(Save::new(&record))
            .await
            .unwrap_or_else(|error| panic!("{SAVE} under {key:?}: {error:?}"));
        locks.push(lock);
        records.push(record);
    }
    let again = open();
    for (key, record) in keys.iter().zip(&records) {
        assert_eq!(
            load(&again, key).await,
            Some(text(record)),
            "the record of {key:?} is missing, or was saved under another key"
        );
    }
    drop(locks);
    for key in keys {
        delete(&store, key).await;
        assert_eq!(
            load(&again, key).await,
            None,
            "the record of {key:?} was not deleted"
        );
    }
}

async fn a_lock_has_one_holder<S: SessionStore>(open: &impl Fn() -> S) {
    const TASKS: usize = 8;
    const TURNS: usize = 10;
    delete(&open(), KEY).await;
    let is_held = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (store, is_held) = (open(), Arc::clone(&is_held));
        tasks.spawn(async move {
            for _ in 0..TURNS {
                let mut lock = patient_lock(&store).await;
                assert!(
                    !is_held.swap(true, Ordering::SeqCst),
                    "a token call without the lock: the lock of one key has two holders"
                );
                let stored = loaded(&mut *lock).await;
                tokio::task::yield_now().await;
                let turn = stored.as_ref().map_or(0, turns) + 1;
                let session = bare("access").with_scope(turn.to_string());
                let record = follow(stored.as_ref(), session);
                let replaces = stored.as_ref().map(Record::version);
                lock.save(Save::new(&record).replacing(replaces))
                    .await
                    .unwrap_or_else(|error| panic!("{SAVE}: {error:?}"));
                is_held.store(false, Ordering::SeqCst);
                lock.unlock().await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap_or_else(|error| panic!("{error}"));
    }
    let stored = record(&open(), KEY).await;
    assert_eq!(
        stored.as_ref().map(turns),
        Some(TASKS * TURNS),
        "a save under the lock was lost"
    );
    delete(&open(), KEY).await;
}

async fn patient_lock(store: &impl SessionStore) -> Box<dyn StoreLock> {
    patient_lock_of(store, KEY).await
}

/// Takes the lock, and tries again while it is busy: a store may release a dropped lock a little later.
async fn patient_lock_of(store: &impl SessionStore, key: &str) -> Box<dyn StoreLock> {
    let locked = timeout(MAX_WAIT, async {
        loop {
            match store.lock(key).await {
                Err(error) if error.kind() == StoreErrorKind::LockBusy => {
                    tokio::task::yield_now().await;
                }
                locked => break locked.unwrap_or_else(|error| panic!("{LOCK}: {error:?}")),
            }
        }
    });
    locked
        .await
        .unwrap_or_else(|_| panic!("{LOCK}, although its holders release it"))
}

async fn a_held_lock_is_busy<S: SessionStore>(open: &impl Fn() -> S) {
    let holder = open();
    let mut held = lock(&holder, KEY).await;
    assert_busy(&holder).await;
    assert_busy(&open()).await;
    // A held lock does not block a load without the lock.
    assert_eq!(
        load(&open(), KEY).await,
        None,
        "no record was saved, but a load without the lock found one"
    );
    // Saves and deletions do not release the lock.
    let record = Record::new(bare("access"));
    let saved = held.save(Save::new(&record)).await;
    saved.unwrap_or_else(|error| panic!("{SAVE}: {error:?}"));
    assert_busy(&open()).await;
    let deleted = held.delete().await;
    deleted.unwrap_or_else(|error| panic!("{DELETE}: {error:?}"));
    assert_busy(&open()).await;
    let saved = held.save(Save::new(&record)).await;
    saved.unwrap_or_else(|error| panic!("{SAVE}: {error:?}"));
    // A lock may be dropped instead of unlocked. A remote store may release it a little later.
    drop(held);
    patient_lock(&open()).await.unlock().await;
    lock(&open(), KEY).await.unlock().await;
    assert_eq!(
        load(&open(), KEY).await,
        Some(text(&record)),
        "a saved record was lost because its lock was dropped instead of unlocked"
    );
    delete(&open(), KEY).await;
}

async fn assert_busy(store: &impl SessionStore) {
    assert_busy_of(store, KEY).await;
}

async fn assert_busy_of(store: &impl SessionStore, key: &str) {
    let Ok(locked) = timeout(MAX_WAIT, store.lock(key)).await else {
        panic!("the store waited longer than {MAX_WAIT:?} for a lock that stays held");
    };
    match locked {
        Ok(_) => panic!("a token call without the lock: the lock of one key has two holders"),
        Err(error) => assert_eq!(
            error.kind(),
            StoreErrorKind::LockBusy,
            "a lock that is held elsewhere must fail with LockBusy, not with {error:?}"
        ),
    }
}

async fn a_dropped_wait_holds_no_lock<S: SessionStore>(open: &impl Fn() -> S) {
    const POLLS: usize = 5;
    for polls in 0..POLLS {
        let held = patient_lock(&open()).await;
        let store = open();
        {
            let mut waiting = pin!(store.lock(KEY));
            for _ in 0..polls {
                let locked = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
                match locked {
                    Poll::Ready(Ok(_)) => {
                        panic!("a token call without the lock: the lock of one key has two holders")
                    }
                    // The store gave up by itself.
                    Poll::Ready(Err(_)) => break,
                    Poll::Pending => tokio::task::yield_now().await,
                }
            }
        }
        held.unlock().await;
        patient_lock(&open()).await.unlock().await;
    }
}

async fn a_dropped_save_does_not_replace_a_later_one<S: SessionStore>(open: &impl Fn() -> S) {
    let first = Record::new(bare("first"));
    let abandoned = first.followed_by(bare(&"abandoned".repeat(1_000)));
    for is_same_lock in [true, false] {
        delete(&open(), KEY).await;
        save(&open(), KEY, &first).await;
        let store = open();
        let mut lock = patient_lock(&store).await;
        {
            let mut saving = pin!(lock.save(Save::new(&abandoned).replacing(first.version())));
            let _ = poll_fn(|cx| Poll::Ready(saving.as_mut().poll(cx).is_ready())).await;
        }
        if !is_same_lock {
            lock.unlock().await;
            lock = patient_lock(&store).await;
        }
        // The dropped save is done or not, but not later.
        let last = replace(&mut *lock, bare("last")).await;
        lock.unlock().await;
        sleep(LATE_SAVE_DELAY).await;
        assert_eq!(
            load(&open(), KEY).await,
            Some(text(&last)),
            "a dropped save replaced a later one"
        );
    }
    delete(&open(), KEY).await;
}

async fn readers_see_whole_records<S: SessionStore>(open: &impl Fn() -> S) {
    const SAVES: usize = 40;
    let sessions = Arc::new([
        bare(&"a".repeat(5_000)),
        session("b").with_refresh_token("refresh-b"),
    ]);
    save(&open(), KEY, &Record::new(sessions[0].clone())).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..2 {
        let (store, sessions) = (open(), Arc::clone(&sessions));
        let (is_over, reads) = (Arc::clone(&is_over), Arc::clone(&reads));
        readers.spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                let loaded = record(&store, KEY).await;
                let loaded = loaded.as_ref().map(Record::session);
                assert!(
                    sessions.iter().any(|session| is_same(session, loaded)),
                    "a load during a save returned neither the old nor the new record"
                );
                reads.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        });
    }
    let store = open();
    let mut saves = 0;
    while saves < SAVES || reads.load(Ordering::SeqCst) < SAVES {
        assert!(readers.len() == 2 || saves < SAVES, "a reader failed");
        let mut lock = patient_lock(&store).await;
        let session = sessions[saves % 2].clone();
        // A save that is dropped half-way leaves the old or the new record.
        if saves % 3 == 0 {
            let stored = loaded(&mut *lock).await;
            let record = follow(stored.as_ref(), session);
            let replaces = stored.as_ref().map(Record::version);
            let mut saving = pin!(lock.save(Save::new(&record).replacing(replaces)));
            let _ = poll_fn(|cx| Poll::Ready(saving.as_mut().poll(cx).is_ready())).await;
        } else {
            replace(&mut *lock, session).await;
        }
        lock.unlock().await;
        saves += 1;
        if let Some(Err(error)) = readers.try_join_next() {
            panic!("{error}");
        }
        tokio::task::yield_now().await;
    }
    is_over.store(true, Ordering::SeqCst);
    while let Some(ended) = readers.join_next().await {
        ended.unwrap_or_else(|error| panic!("{error}"));
    }
    delete(&store, KEY).await;
}

// === Helpers ===

const LOAD: &str = "the store could not load";
const SAVE: &str = "the store could not save";
const LOCK: &str = "the lock could not be taken";
const DELETE: &str = "the store could not delete";

fn bare(access_token: &str) -> Session {
    Session::new(access_token, "https://mydomainname.my.salesforce.com")
        .unwrap_or_else(|error| panic!("{error:?}"))
}

/// A session with a value in every field.
fn session(access_token: &str) -> Session {
    let login_url = LoginUrl::sandbox()
        .with_token_endpoint("https://gateway.example.com/token")
        .unwrap_or_else(|error| panic!("{error:?}"));
    bare(access_token)
        .with_login_url(login_url)
        .with_identity_url("https://test.salesforce.com/id/00Dxx0000001gEREAY/005xx000001SwiUAAS")
        .with_scope("api refresh_token \u{e4}")
        .with_issued_at(UNIX_EPOCH + Duration::from_millis(1_750_000_000_123))
        .with_lifetime(Duration::from_secs(7_200))
}

/// The whole record as text, for comparison.
fn text(record: &Record) -> String {
    record.encode().expose().to_owned()
}

fn turns(record: &Record) -> usize {
    record
        .session()
        .scope()
        .and_then(|turns| turns.parse().ok())
        .unwrap_or_default()
}

/// Whether a loaded session has the tokens of this one.
fn is_same(session: &Session, loaded: Option<&Session>) -> bool {
    loaded.is_some_and(|loaded| {
        loaded.access_token() == session.access_token()
            && loaded.refresh_token() == session.refresh_token()
            && loaded.scope() == session.scope()
    })
}

async fn record(store: &impl SessionStore, key: &str) -> Option<Record> {
    let loaded = store.load(key).await;
    loaded.unwrap_or_else(|error| panic!("{LOAD} {key:?}: {error:?}"))
}

async fn load(store: &impl SessionStore, key: &str) -> Option<String> {
    record(store, key).await.as_ref().map(text)
}

async fn loaded(lock: &mut dyn StoreLock) -> Option<Record> {
    let loaded = lock.load().await;
    loaded.unwrap_or_else(|error| panic!("{LOAD}: {error:?}"))
}

fn follow(stored: Option<&Record>, session: Session) -> Record {
    match stored {
        Some(stored) => stored.followed_by(session),
        None => Record::new(session),
    }
}

/// Saves a session in place of what is stored. A save that was dropped before may still be done, but only once.
async fn replace(lock: &mut dyn StoreLock, session: Session) -> Record {
    let mut saved = try_replace(lock, session.clone()).await;
    if saved
        .as_ref()
        .is_err_and(|error| error.kind() == StoreErrorKind::Superseded)
    {
        saved = try_replace(lock, session).await;
    }
    saved.unwrap_or_else(|error| panic!("{SAVE}: {error:?}"))
}

async fn try_replace(lock: &mut dyn StoreLock, session: Session) -> Result<Record, StoreError> {
    let stored = loaded(lock).await;
    let record = follow(stored.as_ref(), session);
    let save = Save::new(&record).replacing(stored.as_ref().map(Record::version));
    lock.save(save).await.map(|()| record)
}

async fn lock(store: &impl SessionStore, key: &str) -> Box<dyn StoreLock> {
    let locked = store.lock(key).await;
    locked.unwrap_or_else(|error| panic!("{LOCK} of {key:?}: {error:?}"))
}

async fn save(store: &impl SessionStore, key: &str, record: &Record) {
    let mut lock = patient_lock_of(store, key).await;
    let replaces = loaded(&mut *lock).await.as_ref().map(Record::version);
    let saved = lock.save(Save::new(record).replacing(replaces)).await;
    saved.unwrap_or_else(|error| panic!("{SAVE} under {key:?}: {error:?}"));
    lock.unlock().await;
}

async fn delete(store: &impl SessionStore, key: &str) {
    let mut lock = patient_lock_of(store, key).await;
    let deleted = lock.delete().await;
    deleted.unwrap_or_else(|error| panic!("{DELETE} {key:?}: {error:?}"));
    lock.unlock().await;
}
