//! Lock, load, adopt or exchange, save, unlock: in one process, step by step.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::{
    task::JoinSet,
    time::{Instant, advance},
};
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, RefreshContext, RefreshError, RefreshErrorKind, RefreshFn,
    SalesforceAuthLayer, Secret, Session, SessionState, Sessions, StoreOperation,
    emulator::{Fault, Org},
    flow::{ClientCredentials, RefreshToken},
    store::{MemoryStore, OnSaveFailure, SessionStore, StoreError, StoreErrorKind},
};

use crate::{
    scripted::{Fate, Log, Scripted},
    support::{
        KEY, LIMITS, app, assert_no_reuse, layer, limits, refresh_token, refreshing, save, session,
        stored,
    },
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A layer of an org that has a session, which is stored, and has expired.
async fn expired(store: &Scripted) -> (Org, SalesforceAuthLayer, Log) {
    let org = Org::new();
    save(&store.store, session(&org.authorize())).await;
    let log = Log::default();
    let layer = layer(&org, store.clone()).observer(Arc::new(log.clone()));
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(log.take(), ["adopted FirstLogin"]);
    org.expire_sessions();
    (org, layer, log)
}

/// Sends so many requests at once.
fn many(
    count: usize,
    layer: &SalesforceAuthLayer,
    org: &Org,
) -> JoinSet<Result<StatusCode, BoxError>> {
    let mut requests = JoinSet::new();
    for _ in 0..count {
        let (layer, org) = (layer.clone(), org.clone());
        requests.spawn(async move { limits(&layer, &org).await });
    }
    requests
}

fn refresh_error(error: &BoxError) -> &RefreshError {
    let error: &Error = error.downcast_ref().expect("an error of the layer");
    error.refresh_error().expect("a failed refresh")
}

/// Why the store failed, if that is why a request did.
fn store_error(error: &BoxError) -> &StoreError {
    let error = refresh_error(error);
    assert_eq!(error.kind(), RefreshErrorKind::Store);
    let source = std::error::Error::source(error).expect("a source");
    source.downcast_ref().expect("a StoreError")
}

fn exchanges(org: &Org) -> u64 {
    org.counters().token_requests
}

// === Save before release ===

#[tokio::test(start_paused = true)]
async fn r06_a_session_is_saved_once_before_any_waiter_sends() {
    let store = Scripted::default();
    let (org, layer, log) = expired(&store).await;
    let saves_take = Duration::from_millis(200);
    store.on(StoreOperation::Save, Fate::After(saves_take));
    let accepted = org.counters().data_accepted;

    let mut requests = many(20, &layer, &org);
    advance(Duration::from_millis(199)).await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!((exchanges(&org), store.count(StoreOperation::Save)), (1, 1));
    assert_eq!(org.counters().data_accepted, accepted);
    assert!(layer.handle().current().is_none());
    // It is locked until it is saved.
    assert_eq!(store.held(), 1);
    while let Some(answer) = requests.join_next().await {
        assert_eq!(answer.unwrap().unwrap(), StatusCode::OK);
    }
    assert_eq!((exchanges(&org), store.count(StoreOperation::Save)), (1, 1));
    assert_eq!(store.held(), 0);
    assert_eq!(log.take(), ["exchange"]);

    let kept = stored(&store).await.unwrap();
    let live = layer.handle().current().unwrap();
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
    let (org, layer, log) = expired(&store).await;
    store.on(
        StoreOperation::Save,
        Fate::Fails(StoreErrorKind::Unavailable),
    );
    for answer in many(20, &layer, &org).join_all().await {
        assert_eq!(answer.unwrap(), StatusCode::OK);
    }
    assert_eq!((exchanges(&org), store.count(StoreOperation::Save)), (1, 3));
    assert_eq!(log.take(), ["exchange", "Save Unavailable 3"]);
    assert_eq!(store.held(), 0);
    assert!(layer.handle().has_unsaved_refresh_token());

    // What is in memory counts, and is saved as soon as it can be.
    org.expire_sessions();
    store.on(StoreOperation::Save, Fate::Done);
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert!(!layer.handle().has_unsaved_refresh_token());
    let live = layer.handle().current().unwrap();
    assert_eq!(
        stored(&store).await.unwrap().refresh_token(),
        live.refresh_token()
    );
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r06_a_save_that_fails_twice_still_succeeds() {
    let store = Scripted::default();
    let (org, layer, log) = expired(&store).await;
    store.on(StoreOperation::Save, Fate::FailsFor(2));
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(log.take(), ["exchange"]);
    assert!(!layer.handle().has_unsaved_refresh_token());
}

#[tokio::test(start_paused = true)]
async fn r06_an_unsaved_session_can_be_saved_by_hand() {
    let store = Scripted::default();
    let (org, layer, log) = expired(&store).await;
    store.on(
        StoreOperation::Save,
        Fate::Fails(StoreErrorKind::Unavailable),
    );
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    let error = layer.handle().save().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert_eq!(
        log.take(),
        ["exchange", "Save Unavailable 3", "Save Unavailable 3"]
    );
    store.on(StoreOperation::Save, Fate::Done);
    layer.handle().save().await.unwrap();
    assert!(!layer.handle().has_unsaved_refresh_token());
    // What this handle saved is nothing new to it.
    org.expire_sessions();
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(log.take(), ["exchange"]);
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r06_an_unsaved_session_is_not_used_if_so_configured() {
    let store = Scripted::default();
    let (org, layer, _) = expired(&store).await;
    let layer = layer.on_save_failure(OnSaveFailure::Fail);
    store.on(
        StoreOperation::Save,
        Fate::Fails(StoreErrorKind::Unavailable),
    );
    let error = limits(&layer, &org).await.unwrap_err();
    assert_eq!(store_error(&error).kind(), StoreErrorKind::Unavailable);
    assert!(!refresh_error(&error).is_terminal());
    assert!(layer.handle().current().is_none());
    // The rotated token is not lost for that.
    advance(TIMEOUT).await;
    store.on(StoreOperation::Save, Fate::Done);
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    let live = layer.handle().current().unwrap();
    assert_eq!(
        stored(&store).await.unwrap().refresh_token(),
        live.refresh_token()
    );
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r06_a_refresh_token_without_a_session_is_saved() {
    let store = MemoryStore::new();
    let org = Org::new();
    save(&store, session(&org.authorize())).await;
    let useless = move |context: RefreshContext| {
        let presented = context
            .refresh_token()
            .map_or("none", Secret::expose)
            .to_owned();
        async move {
            // A host that nobody trusts.
            let session = Session::new("T1", "https://salesforce.example.com").unwrap();
            Ok(session.with_refresh_token(format!("{presented}+")))
        }
    };
    let layer = SalesforceAuthLayer::new(useless).store(store.clone(), KEY);
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
    let (org, layer, log) = expired(&store).await;
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
    assert_eq!((exchanges(&org), store.count(StoreOperation::Save)), (1, 1));
    assert_eq!(log.take(), ["exchange"]);
    let live = layer.handle().current().unwrap();
    assert_eq!(
        stored(&store).await.unwrap().access_token(),
        live.access_token()
    );
}

// === A store that is slow, down, or full ===

#[tokio::test(start_paused = true)]
async fn r07_without_the_lock_no_token_is_presented() {
    for kind in [
        StoreErrorKind::LockBusy,
        StoreErrorKind::Unavailable,
        StoreErrorKind::Stale,
    ] {
        let store = Scripted::default();
        let (org, layer, log) = expired(&store).await;
        store.on(StoreOperation::Lock, Fate::Fails(kind));
        let started = Instant::now();
        for answer in many(20, &layer, &org).join_all().await {
            let error = answer.unwrap_err();
            assert_eq!(store_error(&error).kind(), kind);
            assert!(!refresh_error(&error).is_terminal());
        }
        assert!(started.elapsed() <= TIMEOUT);
        assert_eq!(exchanges(&org), 0);
        let told = log.take();
        assert!(
            told.len() > 1 && told.iter().all(|told| *told == format!("Lock {kind:?} 1")),
            "{told:?}"
        );
        // And then it can be had again.
        advance(TIMEOUT).await;
        store.on(StoreOperation::Lock, Fate::Done);
        assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
        assert_eq!(exchanges(&org), 1);
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
    assert_eq!(exchanges(&org), 1);

    // Not for longer than a refresh may take, however.
    org.expire_sessions();
    let held = store.store.lock(KEY).await.unwrap();
    let started = Instant::now();
    let error = limits(&layer, &org).await.unwrap_err();
    assert_eq!(store_error(&error).kind(), StoreErrorKind::LockBusy);
    assert!(started.elapsed() <= TIMEOUT);
    assert_eq!(exchanges(&org), 1);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_hung_store_fails_within_the_refresh_timeout() {
    for operation in [StoreOperation::Lock, StoreOperation::Load] {
        let store = Scripted::default();
        let (org, layer, log) = expired(&store).await;
        store.on(operation, Fate::Hangs);
        let started = Instant::now();
        for answer in many(20, &layer, &org).join_all().await {
            let error = answer.unwrap_err();
            assert_eq!(store_error(&error).kind(), StoreErrorKind::Unavailable);
        }
        // An exchange that began now would be cut off soon.
        assert_eq!(started.elapsed(), TIMEOUT / 2);
        assert_eq!((exchanges(&org), store.held()), (0, 0));
        assert_eq!(log.take(), [format!("{operation:?} Unavailable 1")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_slow_to_save_is_used_and_saved() {
    let store = Scripted::default();
    let (org, layer, log) = expired(&store).await;
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
    // It goes on, with the lock, for as long as a refresh may take.
    assert_eq!(store.held(), 1);
    assert!(layer.handle().has_unsaved_refresh_token());
    advance(Duration::from_secs(19)).await;
    assert_eq!((store.held(), log.take()), (1, vec!["exchange".to_owned()]));
    advance(Duration::from_secs(1)).await;
    while store.held() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.take(), ["Save Unavailable 1"]);
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
    assert_eq!(log.take(), ["exchange"]);
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn a_store_panic_is_a_store_failure() {
    let store = Scripted::default();
    let (org, layer, log) = expired(&store).await;
    store.on(StoreOperation::Save, Fate::Panics);
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(log.take(), ["exchange", "Save Unavailable 1"]);
    assert_eq!(store.held(), 0);
    assert!(layer.handle().has_unsaved_refresh_token());
    // It can be saved by hand, like any other that was not.
    store.on(StoreOperation::Save, Fate::Done);
    layer.handle().save().await.unwrap();
    assert!(!layer.handle().has_unsaved_refresh_token());
    org.expire_sessions();
    store.on(StoreOperation::Lock, Fate::Panics);
    let error = limits(&layer, &org).await.unwrap_err();
    assert_eq!(refresh_error(&error).kind(), RefreshErrorKind::Panicked);
    assert_eq!(exchanges(&org), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_record_is_an_error_and_left_alone() {
    for kind in [
        StoreErrorKind::Corrupt,
        StoreErrorKind::UnsupportedVersion,
        StoreErrorKind::Undecryptable,
    ] {
        let store = Scripted::default();
        let (org, layer, log) = expired(&store).await;
        store.on(StoreOperation::Load, Fate::Fails(kind));
        let started = Instant::now();
        for answer in many(20, &layer, &org).join_all().await {
            assert_eq!(store_error(&answer.unwrap_err()).kind(), kind);
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        let saves = store.count(StoreOperation::Save) + store.count(StoreOperation::Delete);
        assert_eq!((exchanges(&org), saves, store.held()), (0, 0, 0));
        assert_eq!(log.take(), [format!("Load {kind:?} 1")]);
        assert!(layer.handle().save().await.is_err());
        // Until somebody has done something about it.
        store.on(StoreOperation::Load, Fate::Done);
        advance(Duration::from_secs(10)).await;
        assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_older_than_the_last_seen_is_refused() {
    let store = MemoryStore::new();
    let org = Org::new();
    save(&store, session(&org.authorize())).await;
    let backup = store.load(KEY).await.unwrap().unwrap();
    let layer = layer(&org, store.clone());
    org.expire_sessions();
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(exchanges(&org), 1);

    store.lock(KEY).await.unwrap().save(&backup).await.unwrap();
    org.expire_sessions();
    let error = limits(&layer, &org).await.unwrap_err();
    assert_eq!(store_error(&error).kind(), StoreErrorKind::Stale);
    // Its refresh token is spent, and to present it would be the end of the grant.
    assert_eq!(exchanges(&org), 1);
    assert_no_reuse(&org);
    // Another login is another story, however few times it was saved.
    advance(TIMEOUT).await;
    store.lock(KEY).await.unwrap().delete().await.unwrap();
    save(&store, session(&org.authorize())).await;
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(exchanges(&org), 1);
}

// === Start-up ===

#[tokio::test(start_paused = true)]
async fn a_layer_without_a_session_starts_with_the_stored_one() {
    let store = Scripted::default();
    let org = Org::new();
    save(&store.store, session(&org.authorize())).await;
    // Others may be in the middle of a refresh: a layer that only starts does not wait for them.
    let held = store.store.lock(KEY).await.unwrap();
    let log = Log::default();
    let layer = layer(&org, store.clone()).observer(Arc::new(log.clone()));
    for answer in many(20, &layer, &org).join_all().await {
        assert_eq!(answer.unwrap(), StatusCode::OK);
    }
    assert_eq!((exchanges(&org), store.count(StoreOperation::Load)), (0, 1));
    assert_eq!(log.take(), ["adopted FirstLogin"]);
    assert!(!layer.handle().has_unsaved_refresh_token());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_stored_session_that_has_expired_is_refreshed() {
    let store = Scripted::default();
    let org = Org::new();
    save(&store.store, session(&org.authorize())).await;
    org.expire_sessions();
    let layer = layer(&org, store.clone());
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!((exchanges(&org), store.count(StoreOperation::Save)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_costs_one_login_for_all_layers() {
    let store = MemoryStore::new();
    let org = Org::new();
    let layers: Vec<_> = (0..5)
        .map(|_| {
            let login = ClientCredentials::new(org.clone(), app(&org));
            SalesforceAuthLayer::new(login).store(store.clone(), KEY)
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
    assert_eq!(exchanges(&org), 1);
    let kept = stored(&store).await.unwrap();
    for layer in &layers {
        assert_eq!(
            layer.handle().current().unwrap().access_token(),
            kept.access_token()
        );
    }
}

// === Adopt or exchange ===

#[tokio::test(start_paused = true)]
async fn r03_two_handles_present_each_refresh_token_once() {
    let store = MemoryStore::new();
    let org = Org::new();
    save(&store, session(&org.authorize())).await;
    let layers = [layer(&org, store.clone()), layer(&org, store.clone())];
    for round in 0..50 {
        org.expire_sessions();
        // In turn, at once, and one of them for a while alone.
        let both = round % 3 == 0;
        for layer in &layers[..=usize::from(both || round % 7 == 0)] {
            assert_eq!(limits(layer, &org).await.unwrap(), StatusCode::OK);
        }
        assert_no_reuse(&org);
    }
    assert_eq!((exchanges(&org), org.counters().token_refusals), (50, 0));
}

#[tokio::test(start_paused = true)]
async fn an_adopted_dead_session_costs_no_caller_a_rejection() {
    let store = Scripted::default();
    let (org, here, log) = expired(&store).await;
    // Another process renews the session, and that ends too, before this one sends anything.
    let elsewhere = layer(&org, store.clone());
    assert_eq!(limits(&elsewhere, &org).await.unwrap(), StatusCode::OK);
    org.expire_sessions();
    for answer in many(20, &here, &org).join_all().await {
        assert_eq!(answer.unwrap(), StatusCode::OK);
    }
    assert_eq!(log.take(), ["adopted Rejected", "exchange"]);
    assert_eq!(exchanges(&org), 2);
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r01_adoptions_are_bounded_per_request() {
    // Every time that the session is rejected, there is another in the store, as dead as that.
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
    // The first, one that cost nothing, and one instead of a refresh.
    assert_eq!((saved.load(Ordering::SeqCst), exchanges(&org)), (3, 0));
}

/// Renews sessions like the flow. During the first exchange somebody stores `other`, who does not know of the lock.
fn overtaken(org: &Org, store: &Scripted, other: Option<Session>) -> SalesforceAuthLayer {
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
    SalesforceAuthLayer::new(refresh).store(store.clone(), KEY)
}

/// An org, and a store with a session of it that has ended with its grant.
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
    let log = Log::default();
    let layer = overtaken(&org, &store, Some(other.clone())).observer(log.clone());
    for answer in many(20, &layer, &org).join_all().await {
        assert_eq!(answer.unwrap(), StatusCode::OK);
    }
    assert_eq!(
        log.take(),
        [
            "adopted FirstLogin",
            "exchange",
            "failed Refused",
            "adopted Rejected"
        ]
    );
    assert_eq!((exchanges(&org), store.held()), (1, 0));
    assert_eq!(
        layer.handle().refresh_token().as_ref(),
        other.refresh_token()
    );
    assert!(!layer.handle().has_unsaved_refresh_token());
    // It was looked at once for the start, once under the lock, and once more.
    assert_eq!(store.count(StoreOperation::Load), 3);
}

#[tokio::test(start_paused = true)]
async fn r24_a_refresh_token_replaced_alone_is_presented() {
    let (org, store, before) = revoked().await;
    let grant = org.authorize();
    let other = before.with_refresh_token(grant.refresh_token());
    let log = Log::default();
    let layer = overtaken(&org, &store, Some(other)).observer(log.clone());
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(
        log.take(),
        [
            "adopted FirstLogin",
            "exchange",
            "failed Refused",
            "exchange"
        ]
    );
    assert_eq!((exchanges(&org), store.held()), (2, 0));
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r24_an_equal_stored_token_is_a_terminal_failure() {
    let (org, store, _) = revoked().await;
    let log = Log::default();
    let layer = overtaken(&org, &store, None).observer(log.clone());
    for answer in many(20, &layer, &org).join_all().await {
        let error = answer.unwrap_err();
        assert_eq!(refresh_error(&error).error_code(), Some("invalid_grant"));
        assert!(refresh_error(&error).is_terminal());
    }
    assert_eq!(
        log.take(),
        ["adopted FirstLogin", "exchange", "failed Refused"]
    );
    assert_eq!((exchanges(&org), store.held()), (1, 0));
    assert_eq!(store.count(StoreOperation::Load), 3);
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
    let layer = SalesforceAuthLayer::new(refresh).store(store, KEY);
    let error = limits(&layer, &org).await.unwrap_err();
    assert_eq!(refresh_error(&error).error_code(), Some("invalid_grant"));
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
    assert_eq!(exchanges(&org), 1);
    let looks = store.count(StoreOperation::Load) - loads;
    assert!((50..=61).contains(&looks), "{looks}");
    // A look that finds nothing is no news.
    assert!(matches!(
        states.state(),
        SessionState::ReauthenticationRequired(_)
    ));
    assert!(futures_util::FutureExt::now_or_never(states.changed()).is_none());

    // Somebody logs in elsewhere.
    save(&store.store, session(&org.authorize())).await;
    advance(Duration::from_secs(10)).await;
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(exchanges(&org), 1);
    org.expire_sessions();
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
}

// === A session that is set ===

#[tokio::test(start_paused = true)]
async fn a_set_session_wins_over_an_older_stored_one() {
    let org = Org::new();
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let ids = |session: Session, user| session.with_ids("00Dxx0000001gER", user);
    let old = org.authorize();
    let new = org.authorize();
    let (me, other) = ("005xx000001SwiU", "005xx000001SwiV");
    for (set, kept, is_set_one_kept) in [
        // Issued later, by the server's clock; earlier; and at an unknown time.
        (
            session(&new).with_issued_at(at(2)),
            session(&old).with_issued_at(at(1)),
            true,
        ),
        (
            session(&new).with_issued_at(at(1)),
            session(&old).with_issued_at(at(2)),
            false,
        ),
        (session(&new), session(&old).with_issued_at(at(2)), false),
        (session(&new), session(&old), false),
        // Somebody else's is none of its business.
        (ids(session(&new), me), ids(session(&old), other), true),
        (ids(session(&new), me), ids(session(&old), me), false),
    ] {
        let store = MemoryStore::new();
        save(&store, kept.clone()).await;
        let presented = Arc::new(Mutex::new(Vec::new()));
        let refresh = {
            let presented = presented.clone();
            move |context: RefreshContext| {
                presented
                    .lock()
                    .unwrap()
                    .push(context.refresh_token().cloned());
                async { Err(RefreshError::terminal("no more")) }
            }
        };
        let layer = SalesforceAuthLayer::new(refresh)
            .store(store, KEY)
            .session(set.clone());
        let handle = layer.handle();
        handle.invalidate(handle.current().unwrap().generation());
        let obtained = handle.token().await;
        if is_set_one_kept {
            obtained.unwrap_err();
            assert_eq!(*presented.lock().unwrap(), [set.refresh_token().cloned()]);
        } else {
            assert_eq!(obtained.unwrap().access_token(), kept.access_token());
            assert!(presented.lock().unwrap().is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_session_is_stored_by_save() {
    let store = MemoryStore::new();
    let org = Org::new();
    save(&store, session(&org.authorize())).await;
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
    // Others find it when theirs has ended.
    let handle = elsewhere.handle();
    handle.invalidate(handle.current().unwrap().generation());
    let live = handle.token().await.unwrap();
    assert_eq!(live.access_token(), login.access_token());
    assert_eq!(exchanges(&org), 0);
}

#[tokio::test(start_paused = true)]
async fn saving_needs_a_store_and_a_session() {
    let org = Org::new();
    let bare = SalesforceAuthLayer::with_session(session(&org.authorize()));
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

    // In the middle of a refresh it would wait for itself.
    let handle = Arc::new(std::sync::OnceLock::<tower_salesforce_auth::SessionHandle>::new());
    let inside = handle.clone();
    let layer = SalesforceAuthLayer::new(move |_: RefreshContext| {
        let handle = inside.get().unwrap().clone();
        async move {
            let error = handle.save().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Reentrant);
            Err(RefreshError::terminal(error))
        }
    });
    let layer = layer.store(MemoryStore::new(), KEY);
    handle.set(layer.handle()).unwrap();
    layer.handle().token().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_session_set_during_a_refresh_loses_neither_token() {
    let store = Scripted::default();
    let (org, layer, _) = expired(&store).await;
    org.on_token(Fault::Delay(Duration::from_secs(1)));
    let waiting = refreshing(&layer, &org).await;
    // The same login, without its refresh token: the one that the refresh brings is the one to go on with.
    let other = org.authorize();
    let set = Session::new(other.access_token(), other.instance_url()).unwrap();
    layer.handle().set(set);
    assert_eq!(waiting.await.unwrap().unwrap(), StatusCode::OK);
    advance(Duration::from_secs(2)).await;
    while store.held() > 0 || store.count(StoreOperation::Save) == 0 {
        tokio::task::yield_now().await;
    }
    // The others who share the store get what was brought.
    let kept = stored(&store).await.unwrap();
    assert_eq!(
        layer.handle().refresh_token().as_ref(),
        kept.refresh_token()
    );
    org.on_token(Fault::None);
    org.expire_sessions();
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_no_reuse(&org);
    assert_eq!(org.counters().token_refusals, 0);
}

// === Logging out ===

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
async fn r30_logout_ends_a_session_stored_by_another_process() {
    let store = Scripted::default();
    let (org, here, _) = expired(&store).await;
    let elsewhere = layer(&org, store.clone());
    assert_eq!(limits(&elsewhere, &org).await.unwrap(), StatusCode::OK);
    here.handle().logout_and_revoke(org.clone()).await.unwrap();
    assert!(stored(&store).await.is_none());
    // The newest refresh token was revoked, and with it the session that this handle never saw. Whoever has it finds that
    // there is nothing to go on with, and asks the server for nothing.
    let exchanged = exchanges(&org);
    let error = limits(&elsewhere, &org).await.unwrap_err();
    let error: &Error = error.downcast_ref().unwrap();
    assert_eq!(
        (error.kind(), exchanges(&org)),
        (ErrorKind::LoggedOut, exchanged)
    );
}

#[tokio::test(start_paused = true)]
async fn r30_logout_deletes_an_undeleted_record_next_time() {
    for operation in [StoreOperation::Lock, StoreOperation::Delete] {
        let store = Scripted::default();
        let (org, layer, log) = expired(&store).await;
        assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
        log.take();
        store.on(operation, Fate::Fails(StoreErrorKind::Unavailable));
        let error = layer.handle().logout(org.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Logout);
        assert_eq!(
            error.refresh_error().unwrap().kind(),
            RefreshErrorKind::Store
        );
        assert_eq!(log.take(), [format!("{operation:?} Unavailable 1")]);
        // At the server it is over all the same.
        assert_eq!(org.counters().tokens_revoked, 1);
        assert!(stored(&store).await.is_some());
        store.on(operation, Fate::Done);
        layer.handle().logout(org.clone()).await.unwrap();
        assert!(stored(&store).await.is_none());
        assert_eq!(store.held(), 0);
    }
}

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
    let org = Org::new();
    save(&store.store, session(&org.authorize())).await;
    let handle = Arc::new(std::sync::OnceLock::<tower_salesforce_auth::SessionHandle>::new());
    let (inside, here) = (handle.clone(), org.clone());
    let layer = SalesforceAuthLayer::new(move |_: RefreshContext| {
        let (handle, org) = (inside.get().unwrap().clone(), here.clone());
        async move {
            handle
                .logout(org.clone())
                .await
                .map_err(RefreshError::terminal)?;
            Ok(session(&org.authorize()))
        }
    });
    let layer = layer.store(store.clone(), KEY);
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

// === Many orgs ===

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
            SalesforceAuthLayer::new(login)
                .store(store.clone(), tenant.to_string())
                .handle()
        })
    };
    let nobody = SalesforceAuthLayer::new(|_: RefreshContext| async {
        Err(RefreshError::terminal("requests bring their handles"))
    });
    for round in 0..6 {
        let uri = format!("{}{LIMITS}", org.instance_url());
        let mut request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
        request
            .extensions_mut()
            .insert(sessions.get(&(round % 2)).unwrap());
        let response = nobody.layer(org.clone()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        if round % 3 == 0 {
            org.expire_sessions();
        }
    }
    assert_no_reuse(&org);
    assert_eq!(org.counters().token_refusals, 0);
}
