//! Saving a session: before any waiter sends (R6), and by hand.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::StatusCode;
use tokio::{
    runtime,
    time::{Instant, advance},
};
use tower_salesforce_auth::{
    ErrorKind, RefreshContext, RefreshError, RefreshErrorKind, SalesforceAuthLayer, Secret,
    Session, SessionHandle,
    emulator::{Fault, Org},
    handle::{SessionHandleBuilder, SessionState},
    observer::StoreOperation,
    store::{MemoryStore, OnSaveFailure, StoreErrorKind},
};

use crate::{
    events::Events,
    scripted::{Fate, Scripted},
    setup::{
        TIMEOUT, assert_stored, expired, expired_with, many, one_behind, org_with_session,
        refresh_error, store_error, token_calls,
    },
    support::{
        app, assert_no_reuse, builder, layer, limits, refresh_token, refreshing, save, session,
        stored, storing,
    },
};

// === Before any waiter goes on ===
#[tokio::test(start_paused = true)]
async fn r06_a_session_is_saved_once_before_any_waiter_sends() {
    let store = Scripted::default();
    let (org, layer, events) = expired(&store).await;
    let saves_take = Duration::from_millis(200);
    store.on(StoreOperation::Save, Fate::After(saves_take));
    let accepted = org.counters().data_accepted;

    let mut requests = many(20, &layer, &org);
    advance(Duration::from_millis(199)).await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        (token_calls(&org), store.count(StoreOperation::Save)),
        (1, 1)
    );
    assert_eq!(org.counters().data_accepted, accepted);
    assert!(layer.handle().try_session().is_none());
    // The lock is held until the session is saved.
    assert_eq!(store.held(), 1);
    while let Some(answer) = requests.join_next().await {
        assert_eq!(answer.unwrap().unwrap(), StatusCode::OK);
    }
    assert_eq!(
        (token_calls(&org), store.count(StoreOperation::Save)),
        (1, 1)
    );
    assert_eq!(store.held(), 0);
    assert_eq!(events.take(), ["started"]);

    let kept = stored(&store).await.unwrap();
    let live = layer.handle().try_session().unwrap();
    assert_eq!(kept.access_token(), live.access_token());
    assert_eq!(kept.refresh_token(), live.refresh_token());
    assert_eq!(
        kept.refresh_token(),
        layer.handle().refresh_token().as_ref()
    );
    assert_eq!(kept.instance_url(), live.instance_url());
    assert_eq!(kept.login_url(), Some(app(&org).login_url()));
    assert!(kept.issued_at().is_some());
    assert_eq!(kept.issued_at(), live.issued_at());
    assert!(!layer.handle().has_unsaved_refresh_token());
}

#[tokio::test(start_paused = true)]
async fn r06_a_failing_save_is_tried_3_times_and_reported_once() {
    let store = Scripted::default();
    let (org, layer, events) = expired(&store).await;
    store.fail(StoreOperation::Save);
    for answer in many(20, &layer, &org).join_all().await {
        assert_eq!(answer.unwrap(), StatusCode::OK);
    }
    assert_eq!(
        (token_calls(&org), store.count(StoreOperation::Save)),
        (1, 3)
    );
    assert_eq!(events.take(), ["started", "Save Unavailable 3"]);
    assert_eq!(store.held(), 0);
    assert!(layer.handle().has_unsaved_refresh_token());

    // The session in memory is used, and the next refresh saves.
    org.expire_sessions();
    store.on(StoreOperation::Save, Fate::Done);
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert!(!layer.handle().has_unsaved_refresh_token());
    assert_stored(&store, &layer).await;
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r06_a_save_that_fails_twice_still_succeeds() {
    let store = Scripted::default();
    let (org, layer, events) = expired(&store).await;
    store.on(StoreOperation::Save, Fate::FailsFor(2));
    let started = Instant::now();
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    // The callers wait for the pauses: 200 ms, then 400 ms.
    assert_eq!(started.elapsed(), Duration::from_millis(600));
    assert_eq!(events.take(), ["started"]);
    assert!(!layer.handle().has_unsaved_refresh_token());
}

#[tokio::test(start_paused = true)]
async fn r06_an_unsaved_session_can_be_saved_by_hand() {
    let store = Scripted::default();
    let (org, layer, events) = expired(&store).await;
    store.fail(StoreOperation::Save);
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    let error = layer.handle().save().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert_eq!(
        events.take(),
        ["started", "Save Unavailable 3", "Save Unavailable 3"]
    );
    store.on(StoreOperation::Save, Fate::Done);
    layer.handle().save().await.unwrap();
    assert!(!layer.handle().has_unsaved_refresh_token());
    // A handle does not adopt its own record.
    org.expire_sessions();
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(events.take(), ["started"]);
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r06_an_unsaved_session_is_not_used_if_so_configured() {
    let store = Scripted::default();
    let settings = |builder: SessionHandleBuilder| builder.on_save_failure(OnSaveFailure::Fail);
    let (org, layer, _) = expired_with(&store, settings).await;
    store.fail(StoreOperation::Save);
    let error = limits(&layer, &org).await.unwrap_err();
    assert_eq!(store_error(&error).kind(), StoreErrorKind::Unavailable);
    assert!(!refresh_error(&error).is_terminal());
    assert!(layer.handle().try_session().is_none());
    // The rotated token is kept, and saved by the next refresh.
    advance(TIMEOUT).await;
    store.on(StoreOperation::Save, Fate::Done);
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_stored(&store, &layer).await;
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r06_a_refresh_token_without_a_session_is_saved() {
    let store = MemoryStore::new();
    let org = org_with_session(&store).await;
    let useless = move |context: RefreshContext| {
        let presented = context
            .refresh_token()
            .map_or("none", Secret::expose)
            .to_owned();
        async move {
            // This host is not trusted.
            let session = Session::new("T1", "https://salesforce.example.com").unwrap();
            Ok(session.with_refresh_token(format!("{presented}+")))
        }
    };
    let layer = storing(store.clone(), useless);
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    let before = stored(&store).await.unwrap();
    org.expire_sessions();
    let error = limits(&layer, &org).await.unwrap_err();
    assert_eq!(
        refresh_error(&error).kind(),
        RefreshErrorKind::UntrustedInstance
    );
    let kept = stored(&store).await.unwrap();
    assert_eq!(kept.access_token(), before.access_token());
    assert_eq!(refresh_token(&kept), format!("{}+", refresh_token(&before)));
    assert!(!layer.handle().has_unsaved_refresh_token());
}

#[tokio::test(start_paused = true)]
async fn r04_a_save_outlives_its_callers() {
    let store = Scripted::default();
    let (org, layer, events) = expired(&store).await;
    store.on(
        StoreOperation::Save,
        Fate::After(Duration::from_millis(500)),
    );
    let mut requests = many(10, &layer, &org);
    while store.count(StoreOperation::Save) == 0 {
        tokio::task::yield_now().await;
    }
    requests.abort_all();
    while requests.join_next().await.is_some() {}
    assert_eq!(store.held(), 1);
    let mut states = layer.handle().subscribe();
    while !matches!(states.state(), SessionState::Ready(_)) {
        states.changed().await;
    }
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(
        (token_calls(&org), store.count(StoreOperation::Save)),
        (1, 1)
    );
    assert_eq!(events.take(), ["started"]);
    assert_stored(&store, &layer).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_slow_to_save_is_used_and_saved() {
    let store = Scripted::default();
    let (org, layer, events) = expired(&store).await;
    store.on(
        StoreOperation::Save,
        Fate::After(TIMEOUT + Duration::from_secs(10)),
    );
    org.on_token(Fault::Delay(Duration::from_secs(20)));
    let started = Instant::now();
    for answer in many(20, &layer, &org).join_all().await {
        assert_eq!(answer.unwrap(), StatusCode::OK);
    }
    assert_eq!(started.elapsed(), TIMEOUT);
    // The save goes on with the lock, for as long as a refresh may take.
    assert_eq!(store.held(), 1);
    assert!(layer.handle().has_unsaved_refresh_token());
    advance(Duration::from_secs(19)).await;
    assert_eq!(
        (store.held(), events.take()),
        (1, vec!["started".to_owned()])
    );
    advance(Duration::from_secs(1)).await;
    while store.held() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(events.take(), ["Save Unavailable 1"]);
    assert!(layer.handle().has_unsaved_refresh_token());

    store.on(StoreOperation::Save, Fate::After(Duration::from_secs(25)));
    org.expire_sessions();
    let started = Instant::now();
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(started.elapsed(), TIMEOUT);
    advance(Duration::from_secs(15)).await;
    while store.held() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(!layer.handle().has_unsaved_refresh_token());
    assert_eq!(events.take(), ["started"]);
    assert_no_reuse(&org);
}

#[test]
fn an_observer_gets_a_token_whose_save_was_cut_off() {
    let rt = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (store, events) = (Scripted::default(), Events::default());
    let org = Org::new();
    rt.block_on(save(&store.store, session(&org.authorize())));
    let handle = builder(&org, store.clone()).observer(events.clone());
    let layer = SalesforceAuthLayer::from(handle.build());
    rt.block_on(limits(&layer, &org)).unwrap();
    org.expire_sessions();
    store.on(StoreOperation::Save, Fate::Hangs);
    rt.spawn({
        let (layer, org) = (layer.clone(), org.clone());
        async move { limits(&layer, &org).await }
    });
    while store.count(StoreOperation::Save) == 0 {
        std::thread::yield_now();
    }
    rt.shutdown_background();
    let newest = loop {
        if let Some(token) = events.last_refresh_token() {
            break token;
        }
        std::thread::yield_now();
    };
    assert_eq!(layer.handle().refresh_token(), Some(newest));
    assert!(layer.handle().has_unsaved_refresh_token());
}

// === By hand ===
#[tokio::test(start_paused = true)]
async fn saving_needs_a_store_and_a_session() {
    let org = Org::new();
    let bare = SalesforceAuthLayer::fixed(session(&org.authorize()));
    assert_eq!(
        bare.handle().save().await.unwrap_err().kind(),
        ErrorKind::Store
    );
    let layer = layer(&org, MemoryStore::new());
    assert_eq!(
        layer.handle().save().await.unwrap_err().kind(),
        ErrorKind::NoSession
    );
    layer.handle().set(session(&org.authorize()));
    layer.handle().logout(org.clone()).await.unwrap();
    assert_eq!(
        layer.handle().save().await.unwrap_err().kind(),
        ErrorKind::LoggedOut
    );

    // A save inside a refresh would wait for itself.
    let handle = Arc::new(OnceLock::<SessionHandle>::new());
    let inside = handle.clone();
    let layer = storing(MemoryStore::new(), move |_: RefreshContext| {
        let handle = inside.get().unwrap().clone();
        async move {
            let error = handle.save().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Reentrant);
            Err(RefreshError::terminal(error))
        }
    });
    handle.set(layer.handle()).unwrap();
    layer.handle().session().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_set_session_is_stored_by_save() {
    let store = MemoryStore::new();
    let org = org_with_session(&store).await;
    let here = layer(&org, store.clone());
    let elsewhere = layer(&org, store.clone());
    assert_eq!(limits(&elsewhere, &org).await.unwrap(), StatusCode::OK);

    let login = session(&org.authorize());
    here.handle().set(login.clone());
    here.handle().save().await.unwrap();
    assert_eq!(
        stored(&store).await.unwrap().access_token(),
        login.access_token()
    );
    // Other processes adopt the session when theirs is rejected.
    let handle = elsewhere.handle();
    handle.invalidate(handle.try_session().unwrap().generation());
    let live = handle.session().await.unwrap();
    assert_eq!(live.access_token(), login.access_token());
    assert_eq!(token_calls(&org), 0);
}

#[tokio::test(start_paused = true)]
async fn a_save_by_a_handle_that_is_behind_changes_nothing() {
    let (org, store, behind, ahead) = one_behind().await;
    let newest = stored(&store).await.unwrap();
    for _ in 0..2 {
        behind.handle().save().await.unwrap();
        let kept = stored(&store).await.unwrap();
        assert_eq!(kept.refresh_token(), newest.refresh_token());
        behind.handle().reset();
    }
    org.expire_sessions();
    limits(&ahead, &org).await.unwrap();
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn an_initial_session_is_stored_by_save() {
    let (org, store) = (Org::new(), MemoryStore::new());
    let first = session(&org.authorize());
    let handle = builder(&org, store.clone()).initial_session(first);
    let layer = SalesforceAuthLayer::from(handle.build());
    limits(&layer, &org).await.unwrap();
    assert!(stored(&store).await.is_none());
    layer.handle().save().await.unwrap();
    assert_stored(&store, &layer).await;
}

#[tokio::test(start_paused = true)]
async fn a_save_by_hand_does_not_disturb_a_refresh() {
    let (org, store, layer, _) = one_behind().await;
    org.expire_sessions();
    limits(&layer, &org).await.unwrap();
    org.expire_sessions();
    org.on_token(Fault::Delay(Duration::from_secs(1)));
    let waiting = refreshing(&layer, &org).await;
    layer.handle().save().await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_stored(&store, &layer).await;
}

#[tokio::test]
async fn r06_a_session_set_again_with_the_same_tokens_is_saved() {
    let store = MemoryStore::new();
    let login = Session::new("T0", "https://MyDomainName.my.salesforce.com").unwrap();
    let login = login.with_refresh_token("R0");
    let handle = SessionHandleBuilder::fixed(login.clone())
        .store(store.clone(), "example")
        .build();
    handle.set(login.clone());
    handle.save().await.unwrap();
    let lifetime = Duration::from_secs(3_600);
    handle.set(login.with_lifetime(lifetime));
    handle.save().await.unwrap();
    assert_eq!(stored(&store).await.unwrap().lifetime(), Some(lifetime));
}
