//! Tries the [contract](super::SessionStore#contract) of a store on an implementation, in a test of yours.
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
//! What it cannot try is what happens to a process that is killed, and to a machine that loses power; nor how long a lock is
//! held for somebody who takes long, where locks have leases.

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

use super::{
    record::Record,
    session_store::{SessionStore, StoreLock},
};
use crate::{
    error::StoreErrorKind,
    session::{session::Session, url::LoginUrl},
};

/// The key that most of it is done under.
const KEY: &str = "tower-salesforce-auth conformance";

/// Longer than any store waits for a lock.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was given up would come within this time.
const A_WHILE: Duration = Duration::from_millis(100);

/// Tries every clause that can be tried from within one process.
///
/// `open` opens the store, at every call as another process would: what is saved in one has to be seen in the others. The
/// keys that it uses begin with `tower-salesforce-auth conformance`, but for a few odd ones (the empty one, `..`, `/`);
/// what is stored under them is deleted, before and after. It waits for a lock that stays held, so let the store give up
/// soon.
///
/// # Panics
///
/// If the store does not keep to the contract; the message says to what. Outside of a tokio runtime with a time driver. A
/// multi-thread runtime finds out more.
pub async fn check<S: SessionStore>(open: impl Fn() -> S) {
    what_is_saved_is_loaded(&open).await;
    keys_are_independent(&open).await;
    a_lock_has_one_holder(&open).await;
    a_lock_that_is_held_is_busy(&open).await;
    whoever_gives_up_holds_no_lock(&open).await;
    what_is_given_up_does_not_come_later(&open).await;
    readers_see_whole_records(&open).await;
}

async fn what_is_saved_is_loaded<S: SessionStore>(open: &impl Fn() -> S) {
    delete(&open(), KEY).await;
    assert_eq!(
        load(&open(), KEY).await,
        None,
        "nothing was saved, and something was loaded"
    );

    let full = Record::new(session("access-1").with_refresh_token("refresh-1"));
    save(&open(), KEY, &full).await;
    let again = open();
    assert_eq!(
        load(&again, KEY).await,
        Some(text(&full)),
        "a record was not loaded as it was saved"
    );
    let mut lock = lock(&again, KEY).await;
    let loaded = lock
        .load()
        .await
        .unwrap_or_else(|error| panic!("{LOAD}: {error:?}"));
    assert_eq!(
        loaded.as_ref().map(text),
        Some(text(&full)),
        "a record was not loaded under the lock as it was saved"
    );

    let bare = full.followed_by(bare("access-2"));
    lock.save(&bare)
        .await
        .unwrap_or_else(|error| panic!("{SAVE}: {error:?}"));
    let loaded = lock
        .load()
        .await
        .unwrap_or_else(|error| panic!("{LOAD}: {error:?}"));
    assert_eq!(
        loaded.as_ref().map(text),
        Some(text(&bare)),
        "what was saved under a lock was not loaded under it, or something of the record before was left"
    );
    lock.unlock().await;

    let long = bare.followed_by(self::bare(&"x".repeat(8_000)));
    save(&open(), KEY, &long).await;
    assert_eq!(
        load(&open(), KEY).await,
        Some(text(&long)),
        "a long token was not kept"
    );
    save(&open(), KEY, &bare).await;
    assert_eq!(
        load(&open(), KEY).await,
        Some(text(&bare)),
        "a shorter record was not kept"
    );

    delete(&open(), KEY).await;
    assert_eq!(
        load(&open(), KEY).await,
        None,
        "a record was loaded that had been deleted"
    );
    // Nothing is there to be deleted, and that is no error.
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
        // The lock of one is in nobody's way who wants another.
        let mut lock = lock(&store, key).await;
        let record = Record::new(bare(&format!("access-{number}")));
        lock.save(&record)
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
            "{key:?} has a record that was saved under another key, or none"
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
                    "two hold the lock of one key"
                );
                let stored = lock
                    .load()
                    .await
                    .unwrap_or_else(|error| panic!("{LOAD}: {error:?}"));
                tokio::task::yield_now().await;
                let turn = stored.as_ref().map_or(0, turns) + 1;
                let session = bare("access").with_scope(turn.to_string());
                let record = stored.map_or_else(
                    || Record::new(session.clone()),
                    |stored| stored.followed_by(session.clone()),
                );
                lock.save(&record)
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
    let stored = open()
        .load(KEY)
        .await
        .unwrap_or_else(|error| panic!("{LOAD}: {error:?}"));
    assert_eq!(
        stored.as_ref().map(turns),
        Some(TASKS * TURNS),
        "a save was lost that was made under the lock"
    );
    delete(&open(), KEY).await;
}

/// Locks in earnest: whoever is told that it is busy asks again.
async fn patient_lock(store: &impl SessionStore) -> Box<dyn StoreLock> {
    let locked = timeout(PATIENCE, async {
        loop {
            match store.lock(KEY).await {
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

async fn a_lock_that_is_held_is_busy<S: SessionStore>(open: &impl Fn() -> S) {
    let holder = open();
    let mut held = lock(&holder, KEY).await;
    is_busy(&holder).await;
    is_busy(&open()).await;
    assert_eq!(
        load(&open(), KEY).await,
        None,
        "a lock keeps nobody from loading without it"
    );
    // Whatever is done under it, it is the same lock.
    let record = Record::new(bare("access"));
    let saved = held.save(&record).await;
    saved.unwrap_or_else(|error| panic!("{SAVE}: {error:?}"));
    is_busy(&open()).await;
    let deleted = held.delete().await;
    deleted.unwrap_or_else(|error| panic!("{DELETE}: {error:?}"));
    is_busy(&open()).await;
    let saved = held.save(&record).await;
    saved.unwrap_or_else(|error| panic!("{SAVE}: {error:?}"));
    // It need not be unlocked. A drop may have to be told to a server.
    drop(held);
    patient_lock(&open()).await.unlock().await;
    lock(&open(), KEY).await.unlock().await;
    assert_eq!(
        load(&open(), KEY).await,
        Some(text(&record)),
        "a record was lost that had been saved, since the lock was dropped and not unlocked"
    );
    delete(&open(), KEY).await;
}

async fn is_busy(store: &impl SessionStore) {
    let Ok(locked) = timeout(PATIENCE, store.lock(KEY)).await else {
        panic!("a lock that stays held was waited for longer than {PATIENCE:?}");
    };
    match locked {
        Ok(_) => panic!("two hold the lock of one key"),
        Err(error) => assert_eq!(
            error.kind(),
            StoreErrorKind::LockBusy,
            "a lock that is held is LockBusy, and not {error:?}"
        ),
    }
}

async fn whoever_gives_up_holds_no_lock<S: SessionStore>(open: &impl Fn() -> S) {
    const POLLS: usize = 5;
    for polls in 0..POLLS {
        let held = patient_lock(&open()).await;
        let store = open();
        {
            let mut waiting = pin!(store.lock(KEY));
            for _ in 0..polls {
                let locked = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
                match locked {
                    Poll::Ready(Ok(_)) => panic!("two hold the lock of one key"),
                    // It has given up by itself.
                    Poll::Ready(Err(_)) => break,
                    Poll::Pending => tokio::task::yield_now().await,
                }
            }
        }
        held.unlock().await;
        patient_lock(&open()).await.unlock().await;
    }
}

async fn what_is_given_up_does_not_come_later<S: SessionStore>(open: &impl Fn() -> S) {
    let abandoned = Record::new(bare(&"abandoned".repeat(1_000)));
    let last = Record::new(bare("last"));
    for is_same_lock in [true, false] {
        let store = open();
        let mut lock = patient_lock(&store).await;
        {
            let mut saving = pin!(lock.save(&abandoned));
            let _ = poll_fn(|cx| Poll::Ready(saving.as_mut().poll(cx).is_ready())).await;
        }
        if !is_same_lock {
            lock.unlock().await;
            lock = patient_lock(&store).await;
        }
        let saved = lock.save(&last).await;
        saved.unwrap_or_else(|error| panic!("{SAVE}: {error:?}"));
        lock.unlock().await;
        sleep(A_WHILE).await;
        assert_eq!(
            load(&open(), KEY).await,
            Some(text(&last)),
            "a save that was given up took the place of a later one"
        );
    }
    delete(&open(), KEY).await;
}

async fn readers_see_whole_records<S: SessionStore>(open: &impl Fn() -> S) {
    const SAVES: usize = 40;
    let records = Arc::new([
        Record::new(bare(&"a".repeat(5_000))),
        Record::new(session("b").with_refresh_token("refresh-b")),
    ]);
    save(&open(), KEY, &records[0]).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..2 {
        let (store, records) = (open(), Arc::clone(&records));
        let (is_over, reads) = (Arc::clone(&is_over), Arc::clone(&reads));
        readers.spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                let loaded = load(&store, KEY).await;
                assert!(
                    records.iter().any(|record| loaded == Some(text(record))),
                    "while a record was saved, something else than the old or the new one was loaded"
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
        let record = &records[saves % 2];
        // One that is given up half-way leaves the old or the new one.
        if saves % 3 == 0 {
            let mut saving = pin!(lock.save(record));
            let _ = poll_fn(|cx| Poll::Ready(saving.as_mut().poll(cx).is_ready())).await;
        } else {
            lock.save(record)
                .await
                .unwrap_or_else(|error| panic!("{SAVE}: {error:?}"));
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

// === What it is made of ===

const LOAD: &str = "the store could not load";
const SAVE: &str = "the store could not save";
const LOCK: &str = "the lock could not be had";
const DELETE: &str = "the store could not delete";

fn bare(access_token: &str) -> Session {
    Session::new(access_token, "https://mydomainname.my.salesforce.com")
        .unwrap_or_else(|error| panic!("{error:?}"))
}

/// With everything that a session can have.
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

/// All of a record, to compare it.
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

async fn load(store: &impl SessionStore, key: &str) -> Option<String> {
    let loaded = store.load(key).await;
    loaded
        .unwrap_or_else(|error| panic!("{LOAD} {key:?}: {error:?}"))
        .as_ref()
        .map(text)
}

async fn lock(store: &impl SessionStore, key: &str) -> Box<dyn StoreLock> {
    let locked = store.lock(key).await;
    locked.unwrap_or_else(|error| panic!("{LOCK} of {key:?}: {error:?}"))
}

async fn save(store: &impl SessionStore, key: &str, record: &Record) {
    let mut lock = lock(store, key).await;
    let saved = lock.save(record).await;
    saved.unwrap_or_else(|error| panic!("{SAVE} under {key:?}: {error:?}"));
    lock.unlock().await;
}

async fn delete(store: &impl SessionStore, key: &str) {
    let mut lock = lock(store, key).await;
    let deleted = lock.delete().await;
    deleted.unwrap_or_else(|error| panic!("{DELETE} {key:?}: {error:?}"));
    lock.unlock().await;
}
