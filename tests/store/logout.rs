//! Logout deletes the record for all processes that share the store (R30).

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::StatusCode;
use tokio::time::{Instant, advance, sleep};
use tower_salesforce_auth::{
    Error, ErrorKind, RefreshContext, RefreshError, RefreshErrorKind, SessionHandle,
    emulator::{Fault, Org},
    flow::RefreshToken,
    handle::SessionState,
    observer::StoreOperation,
    store::{FileStore, MemoryStore, SessionStore},
};

use crate::{
    scripted::{Fate, Scripted},
    setup::{
        TIMEOUT, expired, is_good, kind, one_behind, one_unsaved, org_with_session, token_calls,
    },
    support::{
        KEY, app, assert_no_reuse, builder, layer, limits, refreshing, save, session, stored,
        storing,
    },
};

// === The record ===
#[tokio::test(start_paused = true)]
async fn r30_logout_deletes_the_stored_record() {
    let store = Scripted::default();
    let (org, layer, _) = expired(&store).await;
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    layer.handle().logout(org.clone()).await.unwrap();
    assert!(stored(&store).await.is_none());
    assert_eq!((store.held(), org.counters().tokens_revoked), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn r30_a_slow_save_overtaken_by_a_logout_is_deleted() {
    let store = Scripted::default();
    let (org, layer, _) = expired(&store).await;
    let handle = layer.handle();
    handle.set(session(&org.authorize()));
    // They take longer than the refresh timeout together, and each of them less.
    store.on(StoreOperation::Lock, Fate::After(TIMEOUT * 2 / 3));
    store.on(StoreOperation::Save, Fate::After(TIMEOUT * 2 / 3));
    store.on(StoreOperation::Delete, Fate::After(TIMEOUT / 6));
    let saving = tokio::spawn({
        let handle = handle.clone();
        async move { handle.save().await }
    });
    sleep(TIMEOUT).await;
    handle.logout(org.clone()).await.unwrap();
    saving.await.unwrap().unwrap();
    assert!(stored(&store.store).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn r30_logout_ends_a_session_stored_by_another_process() {
    let store = Scripted::default();
    let (org, here, _) = expired(&store).await;
    let elsewhere = layer(&org, store.clone());
    assert_eq!(limits(&elsewhere, &org).await.unwrap(), StatusCode::OK);
    here.handle().logout_and_revoke(org.clone()).await.unwrap();
    assert!(stored(&store).await.is_none());
    // The logout revoked the newest refresh token, which this handle had never loaded. The other handle finds no record,
    // and makes no token call.
    let before = token_calls(&org);
    let error = limits(&elsewhere, &org).await.unwrap_err();
    let error: &Error = error.downcast_ref().unwrap();
    assert_eq!(
        (error.kind(), token_calls(&org)),
        (ErrorKind::LoggedOut, before)
    );
}

#[tokio::test(start_paused = true)]
async fn r30_logout_deletes_an_undeleted_record_next_time() {
    for operation in [StoreOperation::Lock, StoreOperation::Delete] {
        let store = Scripted::default();
        let (org, layer, events) = expired(&store).await;
        assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
        events.take();
        store.fail(operation);
        let error = layer.handle().logout(org.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Logout);
        assert_eq!(
            error.refresh_error().unwrap().kind(),
            RefreshErrorKind::Store
        );
        assert_eq!(events.take(), [format!("{operation:?} Unavailable 1")]);
        // The token is revoked all the same.
        assert_eq!(org.counters().tokens_revoked, 1);
        assert!(stored(&store).await.is_some());
        store.on(operation, Fate::Done);
        layer.handle().logout(org.clone()).await.unwrap();
        assert!(stored(&store).await.is_none());
        assert_eq!(store.held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn r30_logout_keeps_a_record_that_cannot_be_loaded() {
    let (org, store, behind, ahead) = one_behind().await;
    store.fail(StoreOperation::Load);
    behind.handle().set(session(&org.authorize()));
    let error = behind
        .handle()
        .logout_and_revoke(org.clone())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Logout);
    store.on(StoreOperation::Load, Fate::Done);
    assert!(stored(&store).await.is_some());
    behind
        .handle()
        .logout_and_revoke(org.clone())
        .await
        .unwrap();
    assert!(stored(&store).await.is_none());
    assert_eq!(
        kind(&limits(&ahead, &org).await.unwrap_err()),
        ErrorKind::LoggedOut
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_logged_out_elsewhere_is_not_used_again() {
    let (org, store, behind, ahead) = one_behind().await;
    let newest = ahead.handle().refresh_token().unwrap();
    ahead.handle().logout(org.clone()).await.unwrap();
    let error = limits(&behind, &org).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::LoggedOut);
    assert!(stored(&store).await.is_none());
    assert_no_reuse(&org);
    // A logout without revocation leaves the refresh token valid.
    assert!(is_good(&org, &newest).await);
    // A login of another process is adopted.
    save(&store.store, session(&org.authorize())).await;
    advance(Duration::from_secs(10)).await;
    assert_eq!(limits(&behind, &org).await.unwrap(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_record_deleted_by_mistake_can_be_saved_again() {
    let (org, store, _, ahead) = one_behind().await;
    store.lock(KEY).await.unwrap().delete().await.unwrap();
    org.expire_sessions();
    let error = limits(&ahead, &org).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::LoggedOut);
    ahead.handle().save().await.unwrap();
    ahead.handle().reset();
    assert_eq!(limits(&ahead, &org).await.unwrap(), StatusCode::OK);
    assert_no_reuse(&org);
}

// === Tokens ===
#[tokio::test(start_paused = true)]
async fn r30_logout_revokes_a_token_that_could_not_be_saved() {
    let (org, _, layer) = one_unsaved().await;
    let newest = layer.handle().refresh_token().unwrap();
    layer.handle().logout_and_revoke(org.clone()).await.unwrap();
    assert!(!is_good(&org, &newest).await);
}

#[tokio::test(start_paused = true)]
async fn r30_logout_revokes_a_refresh_token_stored_elsewhere() {
    let (org, store) = (Org::new(), MemoryStore::new());
    let first = session(&org.authorize());
    save(&store, first.clone()).await;
    let layer = layer(&org, store.clone());
    limits(&layer, &org).await.unwrap();
    let newer = session(&org.authorize()).refresh_token().cloned().unwrap();
    save(&store, first.with_refresh_token(newer.clone())).await;
    layer.handle().logout_and_revoke(org.clone()).await.unwrap();
    assert!(!is_good(&org, &newer).await);
}

#[tokio::test(start_paused = true)]
async fn r30_logout_ends_both_the_set_and_the_stored_login() {
    let (org, store) = (Org::new(), MemoryStore::new());
    let (set, kept) = (session(&org.authorize()), session(&org.authorize()));
    save(&store, kept.clone()).await;
    let handle = builder(&org, store.clone()).initial_session(set.clone());
    handle.build().logout_and_revoke(org.clone()).await.unwrap();
    assert!(stored(&store).await.is_none());
    for session in [set, kept] {
        assert!(!is_good(&org, session.refresh_token().unwrap()).await);
    }
}

#[tokio::test(start_paused = true)]
async fn r03_a_token_rotated_before_a_restart_is_not_presented() {
    let directory = tempfile::tempdir().unwrap();
    let org = Org::new();
    let grant = org.authorize();
    let start = || {
        let login = RefreshToken::new(org.clone(), app(&org), grant.refresh_token());
        let store = FileStore::open(directory.path()).unwrap();
        SessionHandle::builder(login).store(store, KEY).build()
    };
    start().session().await.unwrap();
    let second = start();
    let newest = second
        .session()
        .await
        .unwrap()
        .refresh_token()
        .cloned()
        .unwrap();
    second.logout(org.clone()).await.unwrap();
    second.reset();
    let error = second.session().await.unwrap_err();
    assert_eq!(
        error.refresh_error().map(RefreshError::kind),
        Some(RefreshErrorKind::NoRefreshToken)
    );
    assert!(is_good(&org, &newest).await);
    assert_no_reuse(&org);
}

// === Beside a refresh or a login ===
#[tokio::test(start_paused = true)]
async fn r30_logout_during_a_refresh_leaves_nothing_stored() {
    for fault in [Fault::Delay(Duration::from_secs(1)), Fault::None] {
        let store = Scripted::default();
        let (org, layer, _) = expired(&store).await;
        if fault == Fault::None {
            store.on(StoreOperation::Save, Fate::After(Duration::from_secs(1)));
        }
        org.on_token(fault);
        let waiting = refreshing(&layer, &org).await;
        layer.handle().logout_and_revoke(org.clone()).await.unwrap();
        waiting.await.unwrap().unwrap_err();
        assert!(stored(&store).await.is_none());
        assert_eq!(store.held(), 0);
        assert_no_reuse(&org);
    }
}

#[tokio::test(start_paused = true)]
async fn r30_logout_inside_a_refresh_leaves_nothing_stored() {
    let store = Scripted::default();
    let org = org_with_session(&store.store).await;
    let handle = Arc::new(OnceLock::<SessionHandle>::new());
    let (inside, here) = (handle.clone(), org.clone());
    let layer = storing(store.clone(), move |_: RefreshContext| {
        let (handle, org) = (inside.get().unwrap().clone(), here.clone());
        async move {
            handle
                .logout(org.clone())
                .await
                .map_err(RefreshError::terminal)?;
            Ok(session(&org.authorize()))
        }
    });
    handle.set(layer.handle()).unwrap();
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    org.expire_sessions();
    let started = Instant::now();
    limits(&layer, &org).await.unwrap_err();
    while store.held() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert!(stored(&store).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn r30_logout_inside_a_failing_refresh_leaves_nothing() {
    let store = Scripted::default();
    let org = org_with_session(&store.store).await;
    let handle = Arc::new(OnceLock::<SessionHandle>::new());
    let (inside, here) = (handle.clone(), org.clone());
    let refresh = move |_: RefreshContext| {
        let (handle, org) = (inside.get().unwrap().clone(), here.clone());
        async move {
            handle.logout(org).await.map_err(RefreshError::terminal)?;
            Err(RefreshError::terminal("the user is gone"))
        }
    };
    let layer = storing(store.clone(), refresh);
    handle.set(layer.handle()).unwrap();
    limits(&layer, &org).await.unwrap();
    org.expire_sessions();
    limits(&layer, &org).await.unwrap_err();
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(stored(&store).await.is_none());
    assert_eq!(store.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn r30_logout_does_not_end_a_later_login() {
    let (org, store, layer, _) = one_behind().await;
    limits(&layer, &org).await.unwrap();
    org.expire_sessions();
    org.on_token(Fault::Delay(Duration::from_secs(1)));
    let waiting = refreshing(&layer, &org).await;
    // The logout waits for the refresh.
    let logout = tokio::spawn({
        let (handle, org) = (layer.handle(), org.clone());
        async move { handle.logout_and_revoke(org).await }
    });
    while !matches!(layer.handle().subscribe().state(), SessionState::LoggedOut) {
        tokio::task::yield_now().await;
    }
    layer.handle().set(session(&org.authorize()));
    layer.handle().save().await.unwrap();
    logout.await.unwrap().unwrap();
    let _ = waiting.await.unwrap();
    org.on_token(Fault::None);
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert!(stored(&store).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn r30_logout_in_progress_is_not_adopted_by_the_next_login() {
    let (org, store, layer, _) = one_behind().await;
    let held = store.store.lock(KEY).await.unwrap();
    let logout = tokio::spawn({
        let (handle, org) = (layer.handle(), org.clone());
        async move { handle.logout(org).await }
    });
    while !matches!(layer.handle().subscribe().state(), SessionState::LoggedOut) {
        tokio::task::yield_now().await;
    }
    layer.handle().reset();
    let next = tokio::spawn({
        let (layer, org) = (layer.clone(), org.clone());
        async move { limits(&layer, &org).await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    held.unlock().await;
    logout.await.unwrap().unwrap();
    // The next login has no refresh token.
    next.await.unwrap().unwrap_err();
    assert!(stored(&store).await.is_none());
}
