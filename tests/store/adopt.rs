//! The stored session: adopted, refreshed, or refused.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::{task::JoinSet, time::advance};
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, RefreshContext, RefreshError, RefreshFn, SalesforceAuthLayer, Session, SessionHandle,
    Sessions,
    emulator::{Fault, Org},
    flow::{ClientCredentials, RefreshToken},
    handle::SessionState,
    observer::StoreOperation,
    store::{MemoryStore, SessionStore, StoreErrorKind},
};

use crate::{
    events::Events,
    scripted::{Fate, Scripted},
    setup::{
        TIMEOUT, expired, many, one_behind, one_unsaved, org_with_session, refresh_error,
        store_error, token_calls,
    },
    support::{
        KEY, LIMITS, app, assert_no_reuse, builder, layer, limits, put, save, session, stored,
        storing,
    },
};

// === At the start ===
#[tokio::test(start_paused = true)]
async fn a_layer_without_a_session_starts_with_the_stored_one() {
    let store = Scripted::default();
    let org = org_with_session(&store.store).await;
    // Another process may hold the lock for a refresh. A layer that starts does not wait for it.
    let held = store.store.lock(KEY).await.unwrap();
    let events = Events::default();
    let handle = builder(&org, store.clone()).observer(events.clone());
    let layer = SalesforceAuthLayer::from(handle.build());
    for answer in many(20, &layer, &org).join_all().await {
        assert_eq!(answer.unwrap(), StatusCode::OK);
    }
    assert_eq!(
        (token_calls(&org), store.count(StoreOperation::Load)),
        (0, 1)
    );
    assert_eq!(events.take(), ["adopted FirstLogin"]);
    assert!(!layer.handle().has_unsaved_refresh_token());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_stored_session_that_has_expired_is_refreshed() {
    let store = Scripted::default();
    let org = org_with_session(&store.store).await;
    org.expire_sessions();
    let layer = layer(&org, store.clone());
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(
        (token_calls(&org), store.count(StoreOperation::Save)),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_costs_one_login_for_all_layers() {
    let store = MemoryStore::new();
    let org = Org::new();
    let layers: Vec<_> = (0..5)
        .map(|_| {
            let login = ClientCredentials::new(org.clone(), app(&org));
            storing(store.clone(), login)
        })
        .collect();
    let mut requests = JoinSet::new();
    for layer in &layers {
        let (layer, org) = (layer.clone(), org.clone());
        requests.spawn(async move { limits(&layer, &org).await });
    }
    for answer in requests.join_all().await {
        assert_eq!(answer.unwrap(), StatusCode::OK);
    }
    assert_eq!(token_calls(&org), 1);
    let kept = stored(&store).await.unwrap();
    for layer in &layers {
        assert_eq!(
            layer.handle().try_session().unwrap().access_token(),
            kept.access_token()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn r27_an_evicted_session_is_loaded_again() {
    let store = MemoryStore::new();
    let org = Org::new();
    let grants = [org.authorize(), org.authorize()];
    let sessions = {
        let (store, org) = (store.clone(), org.clone());
        Sessions::new(1, move |tenant: &usize| {
            let first = grants[*tenant].refresh_token();
            let login = RefreshToken::new(org.clone(), app(&org), first);
            SessionHandle::builder(login)
                .store(store.clone(), tenant.to_string())
                .build()
        })
    };
    let sessionless = SalesforceAuthLayer::new(|_: RefreshContext| async {
        Err(RefreshError::terminal("requests carry their handles"))
    });
    for round in 0..6 {
        let uri = format!("{}{LIMITS}", org.instance_url());
        let mut request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
        request
            .extensions_mut()
            .insert(sessions.get(&(round % 2)).unwrap());
        let response = sessionless
            .layer(org.clone())
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        if round % 3 == 0 {
            org.expire_sessions();
        }
    }
    assert_no_reuse(&org);
    assert_eq!(org.counters().token_refusals, 0);
}

// === Adopt or refresh ===
#[tokio::test(start_paused = true)]
async fn r03_two_handles_present_each_refresh_token_once() {
    let store = MemoryStore::new();
    let org = org_with_session(&store).await;
    let layers = [layer(&org, store.clone()), layer(&org, store.clone())];
    for round in 0..50 {
        org.expire_sessions();
        // Sometimes both handles send a request, sometimes only one.
        let both = round % 3 == 0;
        for layer in &layers[..=usize::from(both || round % 7 == 0)] {
            assert_eq!(limits(layer, &org).await.unwrap(), StatusCode::OK);
        }
        assert_no_reuse(&org);
    }
    assert_eq!((token_calls(&org), org.counters().token_refusals), (50, 0));
}

#[tokio::test(start_paused = true)]
async fn an_adopted_dead_session_costs_no_caller_a_rejection() {
    let store = Scripted::default();
    let (org, here, events) = expired(&store).await;
    // Another process refreshes, and the new session expires before this process sends a request.
    let elsewhere = layer(&org, store.clone());
    assert_eq!(limits(&elsewhere, &org).await.unwrap(), StatusCode::OK);
    org.expire_sessions();
    for answer in many(20, &here, &org).join_all().await {
        assert_eq!(answer.unwrap(), StatusCode::OK);
    }
    assert_eq!(events.take(), ["adopted Rejected", "started"]);
    assert_eq!(token_calls(&org), 2);
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r01_adoptions_are_bounded_per_request() {
    // After every rejection there is another session in the store, which is also rejected.
    let store = MemoryStore::new();
    let org = Org::new();
    org.refuse_sessions("Session expired or invalid");
    save(&store, session(&org.authorize())).await;
    let saved = Arc::new(AtomicUsize::new(0));
    let dead = {
        let (store, saved) = (store.clone(), saved.clone());
        let instance = org.instance_url();
        move |request: Request<_>| {
            let (store, saved, instance) = (store.clone(), saved.clone(), instance.clone());
            async move {
                let _: Request<tower_salesforce_auth::ReplayBody<Full<Bytes>>> = request;
                let n = saved.fetch_add(1, Ordering::SeqCst);
                save(&store, Session::new(format!("T{n}"), &instance).unwrap()).await;
                let mut response = http::Response::new(Full::<Bytes>::from("[]"));
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                Ok::<_, BoxError>(response)
            }
        }
    };
    let layer = layer(&org, store.clone());
    let request = Request::get(LIMITS).body(Full::<Bytes>::default()).unwrap();
    let response = layer
        .layer(tower::service_fn(dead))
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    // The attempts are the first one, one with a free adoption, and one with an adoption instead of a refresh.
    assert_eq!((saved.load(Ordering::SeqCst), token_calls(&org)), (3, 0));
}

// === After a refusal ===
/// A layer that refreshes like the flow. During its first token call, `other` is stored without the lock. Also returns
/// its events.
fn overtaken(org: &Org, store: &Scripted, other: Option<Session>) -> (SalesforceAuthLayer, Events) {
    let flow = Arc::new(RefreshToken::new(org.clone(), app(org), "none"));
    let (scripted, other) = (store.clone(), Arc::new(Mutex::new(other)));
    let refresh = move |context: RefreshContext| {
        let (flow, scripted) = (flow.clone(), scripted.clone());
        let other = other.lock().unwrap().take();
        async move {
            if let Some(other) = other {
                let stored = scripted.store.load(KEY).await.unwrap().unwrap();
                scripted.overwrite(stored.followed_by(other));
            }
            flow.refresh(context).await
        }
    };
    let events = Events::default();
    let handle = SessionHandle::builder(refresh)
        .store(store.clone(), KEY)
        .observer(events.clone())
        .build();
    (handle.into(), events)
}

/// An org, a store, and its stored session, which has expired and whose grant is revoked.
async fn revoked() -> (Org, Scripted, Session) {
    let (org, store) = (Org::new(), Scripted::default());
    let session = session(&org.authorize());
    save(&store.store, session.clone()).await;
    org.expire_sessions();
    org.revoke_grants();
    (org, store, session)
}

#[tokio::test(start_paused = true)]
async fn r24_a_session_replaced_elsewhere_is_adopted() {
    let (org, store, _) = revoked().await;
    let other = session(&org.authorize());
    let (layer, events) = overtaken(&org, &store, Some(other.clone()));
    for answer in many(20, &layer, &org).join_all().await {
        assert_eq!(answer.unwrap(), StatusCode::OK);
    }
    assert_eq!(
        events.take(),
        [
            "adopted FirstLogin",
            "started",
            "failed Refused",
            "adopted Rejected"
        ]
    );
    assert_eq!((token_calls(&org), store.held()), (1, 0));
    assert_eq!(
        layer.handle().refresh_token().as_ref(),
        other.refresh_token()
    );
    assert!(!layer.handle().has_unsaved_refresh_token());
    // The record is loaded at the start, before the lock, under it, and after the refusal.
    assert_eq!(store.count(StoreOperation::Load), 4);
}

#[tokio::test(start_paused = true)]
async fn r24_a_refresh_token_replaced_alone_is_presented() {
    let (org, store, before) = revoked().await;
    let grant = org.authorize();
    let other = before.with_refresh_token(grant.refresh_token());
    let (layer, events) = overtaken(&org, &store, Some(other));
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(
        events.take(),
        ["adopted FirstLogin", "started", "failed Refused", "started"]
    );
    assert_eq!((token_calls(&org), store.held()), (2, 0));
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r24_an_equal_stored_token_is_a_terminal_failure() {
    let (org, store, _) = revoked().await;
    let (layer, events) = overtaken(&org, &store, None);
    for answer in many(20, &layer, &org).join_all().await {
        let error = answer.unwrap_err();
        assert_eq!(refresh_error(&error).error_code(), Some("invalid_grant"));
        assert!(refresh_error(&error).is_terminal());
    }
    assert_eq!(
        events.take(),
        ["adopted FirstLogin", "started", "failed Refused"]
    );
    assert_eq!((token_calls(&org), store.held()), (1, 0));
    assert_eq!(store.count(StoreOperation::Load), 4);
}

#[tokio::test(start_paused = true)]
async fn r24_a_store_failure_does_not_hide_the_servers_error() {
    let (org, store, _) = revoked().await;
    let scripted = store.clone();
    let flow = Arc::new(RefreshToken::new(org.clone(), app(&org), "none"));
    let refresh = move |context: RefreshContext| {
        let flow = flow.clone();
        scripted.on(
            StoreOperation::Load,
            Fate::Fails(StoreErrorKind::Unavailable),
        );
        async move { flow.refresh(context).await }
    };
    let layer = storing(store, refresh);
    let error = limits(&layer, &org).await.unwrap_err();
    assert_eq!(refresh_error(&error).error_code(), Some("invalid_grant"));
}

#[tokio::test(start_paused = true)]
async fn r24_an_unsaved_token_is_kept_over_the_one_it_replaced() {
    let (org, _, layer) = one_unsaved().await;
    let newest = layer.handle().refresh_token();
    org.expire_sessions();
    // The refusal is not about the refresh token.
    org.on_token(Fault::refuse(
        StatusCode::BAD_REQUEST,
        "invalid_grant",
        "ip restricted",
    ));
    limits(&layer, &org).await.unwrap_err();
    assert_eq!(layer.handle().refresh_token(), newest);
    assert!(layer.handle().has_unsaved_refresh_token());
    org.on_token(Fault::None);
    layer.handle().reset();
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r10_a_dead_grant_rereads_the_store_and_presents_nothing() {
    let (org, store, _) = revoked().await;
    let layer = layer(&org, store.clone());
    limits(&layer, &org).await.unwrap_err();
    let mut states = layer.handle().subscribe();
    let loads = store.count(StoreOperation::Load);
    for _ in 0..1_000 {
        let error = limits(&layer, &org).await.unwrap_err();
        assert_eq!(refresh_error(&error).error_code(), Some("invalid_grant"));
        advance(Duration::from_millis(600)).await;
    }
    assert_eq!(token_calls(&org), 1);
    let looks = store.count(StoreOperation::Load) - loads;
    assert!((50..=61).contains(&looks), "{looks}");
    // Loading an unchanged record emits no event.
    assert!(matches!(
        states.state(),
        SessionState::ReauthenticationRequired(_)
    ));
    assert!(futures_util::FutureExt::now_or_never(states.changed()).is_none());

    // Another process logs in.
    save(&store.store, session(&org.authorize())).await;
    advance(Duration::from_secs(10)).await;
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(token_calls(&org), 1);
    org.expire_sessions();
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
}

// === Older records ===
#[tokio::test(start_paused = true)]
async fn a_record_older_than_the_last_seen_is_refused() {
    let store = MemoryStore::new();
    let org = org_with_session(&store).await;
    let backup = store.load(KEY).await.unwrap().unwrap();
    let layer = layer(&org, store.clone());
    org.expire_sessions();
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(token_calls(&org), 1);

    put(&store, &backup).await;
    org.expire_sessions();
    let error = limits(&layer, &org).await.unwrap_err();
    assert_eq!(store_error(&error).kind(), StoreErrorKind::Stale);
    // The older refresh token is spent: presenting it would revoke the grant.
    assert_eq!(token_calls(&org), 1);
    assert_no_reuse(&org);
    // A new login is accepted although its record has a lower number.
    advance(TIMEOUT).await;
    store.lock(KEY).await.unwrap().delete().await.unwrap();
    save(&store, session(&org.authorize())).await;
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(token_calls(&org), 1);
}

#[tokio::test(start_paused = true)]
async fn an_older_record_is_refused_after_a_deletion_too() {
    let (org, store, _, ahead) = one_behind().await;
    let backup = store.store.load(KEY).await.unwrap().unwrap();
    org.expire_sessions();
    limits(&ahead, &org).await.unwrap();
    store.lock(KEY).await.unwrap().delete().await.unwrap();
    org.expire_sessions();
    limits(&ahead, &org).await.unwrap_err();
    put(&store, &backup).await;
    advance(Duration::from_secs(60)).await;
    limits(&ahead, &org).await.unwrap_err();
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn a_new_login_is_never_stale() {
    let (org, store, here, _) = one_behind().await;
    let backup = store.store.load(KEY).await.unwrap().unwrap();
    for _ in 0..5 {
        org.expire_sessions();
        limits(&here, &org).await.unwrap();
    }
    put(&store, &backup).await;
    let login = session(&org.authorize());
    let elsewhere = builder(&org, store.clone()).initial_session(login.clone());
    elsewhere.build().save().await.unwrap();
    let handle = here.handle();
    handle.invalidate(handle.try_session().unwrap().generation());
    assert_eq!(
        handle.session().await.unwrap().access_token(),
        login.access_token()
    );
}
