//! Handles that follow their store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::time::sleep;
use tower_salesforce_auth::{
    SalesforceAuthLayer,
    observer::StoreOperation,
    store::{
        BoxFuture, FileStore, LeaseStore, MemoryStore, Record, SessionStore, StoreError,
        StoreErrorKind, StoreLock,
    },
};

use crate::{
    events::Events,
    lease_table::LeaseTable,
    scripted::{Fate, Scripted},
    setup::{org_with_session, token_calls},
    support::{assert_no_reuse, builder, layer, limits, save, session},
};

/// Long enough for every task that has something to do.
const SOON: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn r34_what_one_process_saves_is_sent_by_all_that_follow() {
    let table = LeaseTable::new();
    let store = || LeaseStore::new(table.clone());
    let org = org_with_session(&store()).await;
    let following = |_| SalesforceAuthLayer::from(builder(&org, store()).follow_store().build());
    let layers: Vec<_> = (0..5).map(following).collect();
    for _ in 0..3 {
        for layer in &layers {
            assert_eq!(limits(layer, &org).await.unwrap(), StatusCode::OK);
        }
        org.expire_sessions();
        let rejected = org.counters().data_rejected;
        assert_eq!(limits(&layers[0], &org).await.unwrap(), StatusCode::OK);
        sleep(SOON).await;
        for layer in &layers {
            assert_eq!(limits(layer, &org).await.unwrap(), StatusCode::OK);
        }
        assert_eq!(org.counters().data_rejected, rejected + 1);
    }
    assert_eq!(token_calls(&org), 3);
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r34_what_one_process_saves_in_a_file_is_sent_by_others() {
    let directory = tempfile::tempdir().unwrap();
    let store = || FileStore::open(directory.path()).unwrap();
    let org = org_with_session(&store()).await;
    let following = |_| SalesforceAuthLayer::from(builder(&org, store()).follow_store().build());
    let layers: Vec<_> = (0..5).map(following).collect();
    for layer in &layers {
        assert_eq!(limits(layer, &org).await.unwrap(), StatusCode::OK);
    }
    org.expire_sessions();
    assert_eq!(limits(&layers[0], &org).await.unwrap(), StatusCode::OK);
    // The default of the interval, and time to read the file.
    sleep(Duration::from_millis(600)).await;
    for layer in &layers {
        assert_eq!(limits(layer, &org).await.unwrap(), StatusCode::OK);
    }
    assert_eq!(org.counters().data_rejected, 1);
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn a_handle_follows_only_if_it_is_told_to() {
    let store = MemoryStore::new();
    let org = org_with_session(&store).await;
    let events = Events::default();
    let follows = builder(&org, store.clone())
        .observer(events.clone())
        .follow_store()
        .build();
    let (follows, other) = (
        SalesforceAuthLayer::from(follows),
        layer(&org, store.clone()),
    );
    for layer in [&follows, &other] {
        limits(layer, &org).await.unwrap();
    }
    save(&store, session(&org.authorize())).await;
    sleep(SOON).await;
    assert_eq!(events.take(), ["adopted FirstLogin", "adopted Followed"]);
    let token = |layer: &SalesforceAuthLayer| {
        let live = layer.handle().try_session().unwrap();
        live.access_token().expose().to_owned()
    };
    assert_ne!(token(&follows), token(&other));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_set_or_logged_out_is_not_replaced() {
    let store = MemoryStore::new();
    let org = org_with_session(&store).await;
    let handle = builder(&org, store.clone()).follow_store().build();
    handle.session().await.unwrap();
    handle.logout(org.clone()).await.unwrap();
    save(&store, session(&org.authorize())).await;
    sleep(SOON).await;
    assert!(handle.try_session().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_task_that_follows_ends_with_the_last_handle() {
    let store = Arc::new(MemoryStore::new());
    let org = org_with_session(&store).await;
    let handle = builder(&org, Arc::clone(&store)).follow_store().build();
    handle.session().await.unwrap();
    let clone = handle.clone();
    drop(handle);
    sleep(SOON).await;
    assert!(Arc::strong_count(&store) > 1);
    drop(clone);
    sleep(SOON).await;
    assert_eq!(Arc::strong_count(&store), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_asked_less_and_less() {
    let store = Scripted::default();
    let org = org_with_session(&store.store).await;
    store.on(
        StoreOperation::Load,
        Fate::Fails(StoreErrorKind::Unavailable),
    );
    let handle = builder(&org, store.clone()).follow_store().build();
    sleep(Duration::from_secs(60)).await;
    let loads = store.count(StoreOperation::Load);
    assert!((5..20).contains(&loads), "{loads}");
    // It goes on once the store works again.
    store.on(StoreOperation::Load, Fate::Done);
    sleep(Duration::from_secs(60)).await;
    assert!(handle.try_session().is_some());
}

/// A store whose first load panics, and before it returns a future.
struct Panics(MemoryStore, AtomicBool);

impl SessionStore for Panics {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        assert!(self.1.swap(true, Ordering::SeqCst), "as scripted");
        self.0.load(key)
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        self.0.lock(key)
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_is_followed_all_the_same() {
    let store = MemoryStore::new();
    let org = org_with_session(&store).await;
    let panics = Panics(store, AtomicBool::new(false));
    let handle = builder(&org, panics).follow_store().build();
    sleep(Duration::from_secs(1)).await;
    assert!(handle.try_session().is_some());
}
