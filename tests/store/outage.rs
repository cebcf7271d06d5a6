//! A store that is slow, down, broken or locked.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use http::StatusCode;
use tokio::{
    runtime,
    time::{Instant, advance, sleep, timeout},
};
use tower_salesforce_auth::{
    ErrorKind, RefreshContext, RefreshError, RefreshErrorKind, SalesforceAuthLayer, Session,
    SessionHandle,
    emulator::Org,
    observer::StoreOperation,
    store::{MemoryStore, SessionStore, StoreErrorKind},
};

use crate::{
    events::Events,
    scripted::{Fate, Scripted},
    setup::{TIMEOUT, expired, many, one_behind, refresh_error, store_error, token_calls},
    support::{KEY, assert_no_reuse, limits, save, stored, storing},
};

/// How long a store takes to answer.
const LATENCY: Duration = Duration::from_millis(5);

#[tokio::test(start_paused = true)]
async fn r07_without_the_lock_no_token_is_presented() {
    for kind in [
        StoreErrorKind::LockBusy,
        StoreErrorKind::Unavailable,
        StoreErrorKind::Stale,
    ] {
        let store = Scripted::default();
        let (org, layer, events) = expired(&store).await;
        store.on(StoreOperation::Lock, Fate::Fails(kind));
        let started = Instant::now();
        for answer in many(20, &layer, &org).join_all().await {
            let error = answer.unwrap_err();
            assert_eq!(store_error(&error).kind(), kind);
            assert!(!refresh_error(&error).is_terminal());
        }
        assert!(started.elapsed() <= TIMEOUT);
        assert_eq!(token_calls(&org), 0);
        let emitted = events.take();
        assert!(
            emitted.len() > 1
                && emitted
                    .iter()
                    .all(|event| *event == format!("Lock {kind:?} 1")),
            "{emitted:?}"
        );
        // The lock is available again.
        advance(TIMEOUT).await;
        store.on(StoreOperation::Lock, Fate::Done);
        assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
        assert_eq!(token_calls(&org), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn r07_a_lock_held_elsewhere_is_waited_for_until_timeout() {
    let store = Scripted::default();
    let (org, layer, _) = expired(&store).await;
    let held = store.store.lock(KEY).await.unwrap();
    let waiting = tokio::spawn({
        let (layer, org) = (layer.clone(), org.clone());
        async move { limits(&layer, &org).await }
    });
    advance(Duration::from_secs(5)).await;
    held.unlock().await;
    assert_eq!(waiting.await.unwrap().unwrap(), StatusCode::OK);
    assert_eq!(token_calls(&org), 1);

    // A waiter gives up at the refresh timeout.
    org.expire_sessions();
    let held = store.store.lock(KEY).await.unwrap();
    let started = Instant::now();
    let error = limits(&layer, &org).await.unwrap_err();
    assert_eq!(store_error(&error).kind(), StoreErrorKind::LockBusy);
    assert!(started.elapsed() <= TIMEOUT);
    assert_eq!(token_calls(&org), 1);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_hung_store_fails_within_the_refresh_timeout() {
    for operation in [StoreOperation::Lock, StoreOperation::Load] {
        let store = Scripted::default();
        let (org, layer, events) = expired(&store).await;
        store.on(operation, Fate::Hangs);
        let started = Instant::now();
        for answer in many(20, &layer, &org).join_all().await {
            let error = answer.unwrap_err();
            assert_eq!(store_error(&error).kind(), StoreErrorKind::Unavailable);
        }
        // A token call after half of the timeout could be cut off.
        assert_eq!(started.elapsed(), TIMEOUT / 2);
        assert_eq!((token_calls(&org), store.held()), (0, 0));
        assert_eq!(events.take(), [format!("{operation:?} Unavailable 1")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_panic_is_a_store_failure() {
    let store = Scripted::default();
    let (org, layer, events) = expired(&store).await;
    store.on(StoreOperation::Save, Fate::Panics);
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(events.take(), ["started", "Save Unavailable 1"]);
    assert_eq!(store.held(), 0);
    assert!(layer.handle().has_unsaved_refresh_token());
    // The session can be saved by hand.
    store.on(StoreOperation::Save, Fate::Done);
    layer.handle().save().await.unwrap();
    assert!(!layer.handle().has_unsaved_refresh_token());
    org.expire_sessions();
    store.on(StoreOperation::Lock, Fate::Panics);
    let error = limits(&layer, &org).await.unwrap_err();
    assert_eq!(refresh_error(&error).kind(), RefreshErrorKind::Panicked);
    assert_eq!(token_calls(&org), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_record_is_an_error_and_left_alone() {
    for kind in [
        StoreErrorKind::Corrupt,
        StoreErrorKind::UnsupportedVersion,
        StoreErrorKind::Undecryptable,
    ] {
        let store = Scripted::default();
        let (org, layer, events) = expired(&store).await;
        store.on(StoreOperation::Load, Fate::Fails(kind));
        let started = Instant::now();
        for answer in many(20, &layer, &org).join_all().await {
            assert_eq!(store_error(&answer.unwrap_err()).kind(), kind);
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        let saves = store.count(StoreOperation::Save) + store.count(StoreOperation::Delete);
        assert_eq!((token_calls(&org), saves, store.held()), (0, 0, 0));
        assert_eq!(events.take(), [format!("Load {kind:?} 1")]);
        assert!(layer.handle().save().await.is_err());
        // A repaired record is loaded again.
        store.on(StoreOperation::Load, Fate::Done);
        advance(Duration::from_secs(10)).await;
        assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    }
}

/// Requests that come all the time must not leave each attempt too little time for a store that has recovered.
#[tokio::test(start_paused = true)]
async fn r33_steady_traffic_recovers_after_a_long_outage() {
    for kind in [StoreErrorKind::Unavailable, StoreErrorKind::LockBusy] {
        let store = Scripted::default();
        let (org, layer, _) = expired(&store).await;
        store.on(StoreOperation::Lock, Fate::Fails(kind));
        store.on(StoreOperation::Load, Fate::After(LATENCY));
        let since = Instant::now();
        while since.elapsed() < 10 * TIMEOUT {
            limits(&layer, &org).await.unwrap_err();
            tokio::time::sleep(LATENCY).await;
        }
        store.on(StoreOperation::Lock, Fate::After(LATENCY));
        let since = Instant::now();
        while limits(&layer, &org).await.is_err() {
            assert!(since.elapsed() < 2 * TIMEOUT, "{kind:?}");
            tokio::time::sleep(LATENCY).await;
        }
        assert_eq!(token_calls(&org), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_adoption_cut_off_at_unlock_keeps_the_refresh_token() {
    let (org, store, behind, ahead) = one_behind().await;
    // What `behind` has seen without the lock is old by the time it has the lock.
    limits(&behind, &org).await.unwrap();
    org.expire_sessions();
    let (other, script) = (org.clone(), store.clone());
    store.at_next_lock(Box::pin(async move {
        limits(&ahead, &other).await.unwrap();
        script.panic_at_unlock();
    }));
    limits(&behind, &org).await.unwrap_err();
    advance(Duration::from_secs(5)).await;
    assert_eq!(limits(&behind, &org).await.unwrap(), StatusCode::OK);
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn no_token_call_begins_shortly_before_the_timeout() {
    let store = MemoryStore::new();
    let url = "https://example.my.salesforce.com";
    let first = Session::new("T0", url).unwrap().with_refresh_token("R0");
    save(&store, first).await;
    let presented = Arc::new(Mutex::new(Vec::new()));
    let refresh = {
        let presented = presented.clone();
        move |context: RefreshContext| {
            let token = context.refresh_token().unwrap().expose().to_owned();
            presented.lock().unwrap().push(token.clone());
            async move {
                tokio::time::sleep(Duration::from_secs(14)).await;
                let session = Session::new(format!("{token}-access"), url).unwrap();
                Ok(session.with_refresh_token(format!("{token}+")))
            }
        }
    };
    let handle = SessionHandle::builder(refresh)
        .store(store.clone(), KEY)
        .build();
    let live = handle.session().await.unwrap();
    for held_for in [14_500, 29_300] {
        handle.invalidate(live.generation());
        let held = store.lock(KEY).await.unwrap();
        let holder = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(held_for)).await;
            drop(held);
        });
        let _ = handle.session().await;
        let _ = handle.session().await;
        holder.await.unwrap();
        if let Some(live) = handle.try_session() {
            handle.invalidate(live.generation());
        }
    }
    advance(Duration::from_secs(60)).await;
    handle.session().await.unwrap();
    let presented = presented.lock().unwrap();
    assert!(presented.len() > 1);
    let mut once = presented.clone();
    once.dedup();
    assert_eq!(*presented, once);
}

/// The refresh is on a current-thread runtime whose `block_on` has returned, so it is no longer driven.
#[test]
fn r14_an_undriven_refresh_releases_the_store_lock() {
    let limit = Duration::from_millis(300);
    let rt = || {
        runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (still, driven) = (rt(), rt());
    let store = Scripted::default();
    let never = |_: RefreshContext| std::future::pending::<Result<Session, RefreshError>>();
    let handle = SessionHandle::builder(never)
        .refresh_timeout(limit)
        .store(store.clone(), KEY)
        .build();
    still.block_on(async {
        let _ = timeout(limit / 3, handle.session()).await;
    });
    assert_eq!(store.held(), 1);
    // A later caller waits until the refresh is overdue.
    driven.block_on(async {
        while store.held() > 0 {
            let _ = handle.session().await;
        }
    });
    drop(still);
}

#[tokio::test(start_paused = true)]
async fn r13_a_store_that_asks_its_own_session_gets_an_error() {
    let handle = Arc::new(OnceLock::<SessionHandle>::new());
    let store = Scripted::default();
    let said = Arc::new(Mutex::new(None));
    store.at_save({
        let (handle, said) = (handle.clone(), said.clone());
        move || {
            let (handle, said) = (handle.clone(), said.clone());
            Box::pin(async move {
                let error = handle.get().unwrap().session().await.unwrap_err();
                *said.lock().unwrap() = Some(error.kind());
            })
        }
    });
    let login = |_: RefreshContext| async {
        Session::new("T1", "https://example.my.salesforce.com").map_err(RefreshError::terminal)
    };
    let layer = storing(store, login);
    handle.set(layer.handle()).unwrap();
    let started = Instant::now();
    layer.handle().session().await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(*said.lock().unwrap(), Some(ErrorKind::Reentrant));
}

// === What could not be saved ===

/// A session whose refresh token could not be saved, and its events.
async fn unsaved(store: &Scripted) -> (Org, SalesforceAuthLayer, Events) {
    let (org, layer, events) = expired(store).await;
    store.on(
        StoreOperation::Save,
        Fate::Fails(StoreErrorKind::Unavailable),
    );
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert!(layer.handle().has_unsaved_refresh_token());
    (org, layer, events)
}

#[tokio::test(start_paused = true)]
async fn r33_an_unsaved_token_is_saved_when_the_store_is_back() {
    for operation in [
        StoreOperation::Lock,
        StoreOperation::Load,
        StoreOperation::Save,
    ] {
        let store = Scripted::default();
        let (org, layer, events) = unsaved(&store).await;
        let handle = layer.handle();
        let kind = StoreErrorKind::Unavailable;
        store.on(StoreOperation::Save, Fate::Done);
        store.on(operation, Fate::Fails(kind));
        sleep(Duration::from_secs(10 * 60)).await;
        assert!(handle.has_unsaved_refresh_token());
        let told = events.take();
        assert_eq!(told, ["started", "Save Unavailable 3"], "it is told once");
        // No request is needed.
        store.on(operation, Fate::Done);
        sleep(Duration::from_secs(40)).await;
        assert!(!handle.has_unsaved_refresh_token(), "{operation:?}");
        let stored = stored(&store.store).await.unwrap();
        assert_eq!(stored.refresh_token(), handle.refresh_token().as_ref());
        assert_eq!(token_calls(&org), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn r33_an_unsaved_token_is_saved_without_any_handle() {
    let store = Scripted::default();
    let (org, layer, _) = unsaved(&store).await;
    let newest = layer.handle().refresh_token();
    drop(layer);
    store.on(StoreOperation::Save, Fate::Done);
    sleep(Duration::from_secs(10)).await;
    let stored = stored(&store.store).await.unwrap();
    assert_eq!(stored.refresh_token(), newest.as_ref());
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r33_an_unsaved_token_replaces_no_later_login() {
    let store = Scripted::default();
    let (_org, _layer, _) = unsaved(&store).await;
    let other = Session::new("00Dxx!later", "https://mydomainname.my.salesforce.com").unwrap();
    save(&store.store, other.with_refresh_token("later")).await;
    store.on(StoreOperation::Save, Fate::Done);
    sleep(Duration::from_secs(10 * 60)).await;
    let stored = stored(&store.store).await.unwrap();
    assert_eq!(stored.refresh_token().unwrap().expose(), "later");
    // It is given up, and not tried for ever.
    assert!(store.count(StoreOperation::Lock) < 5);
}
