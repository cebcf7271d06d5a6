//! Ways in which a refresh token could be presented twice, or lost, and a session end up with the wrong user.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use proptest::prelude::*;
use tokio::{
    runtime,
    time::{Instant, advance, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, RefreshContext, RefreshError, RefreshErrorKind, RefreshFn,
    RefreshReason, ReplayBody, SalesforceAuthLayer, Session, SessionHandle, SessionState,
    StoreOperation,
    emulator::{Fault, Org},
    flow::RefreshToken,
    store::{FileStore, MemoryStore, SessionStore, StoreErrorKind},
};

use crate::{
    scripted::{Fate, Log, Scripted},
    support::{KEY, app, assert_no_reuse, layer, limits, refreshing, save, session, stored},
};

/// Two handles that share a store. The second has renewed the session since the first looked.
async fn one_behind() -> (Org, Scripted, SalesforceAuthLayer, SalesforceAuthLayer) {
    let (org, store) = (Org::new(), Scripted::default());
    save(&store.store, session(&org.authorize())).await;
    let (behind, ahead) = (layer(&org, store.clone()), layer(&org, store.clone()));
    limits(&behind, &org).await.unwrap();
    org.expire_sessions();
    limits(&ahead, &org).await.unwrap();
    (org, store, behind, ahead)
}

/// A handle whose newest refresh token could not be saved.
async fn one_unsaved() -> (Org, Scripted, SalesforceAuthLayer) {
    let (org, store) = (Org::new(), Scripted::default());
    save(&store.store, session(&org.authorize())).await;
    let layer = layer(&org, store.clone());
    limits(&layer, &org).await.unwrap();
    store.on(
        StoreOperation::Save,
        Fate::Fails(StoreErrorKind::Unavailable),
    );
    org.expire_sessions();
    limits(&layer, &org).await.unwrap();
    store.on(StoreOperation::Save, Fate::Done);
    assert!(layer.handle().has_unsaved_refresh_token());
    (org, store, layer)
}

/// An access token of the same user, without a refresh token.
fn access_only(org: &Org) -> Session {
    Session::new(org.authorize().access_token(), &org.instance_url()).unwrap()
}

fn kind(error: &BoxError) -> ErrorKind {
    error
        .downcast_ref()
        .map(Error::kind)
        .expect("an error of the layer")
}

async fn is_good(org: &Org, refresh_token: &tower_salesforce_auth::Secret) -> bool {
    let flow = RefreshToken::new(org.clone(), app(org), refresh_token.clone());
    flow.refresh(RefreshContext::new(RefreshReason::Manual))
        .await
        .is_ok()
}

// === Nothing older takes the place of something newer ===

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
async fn a_session_older_than_its_store_is_saved_by_hand() {
    let (org, store) = (Org::new(), MemoryStore::new());
    let login = RefreshToken::new(org.clone(), app(&org), org.authorize().refresh_token());
    let layer = SalesforceAuthLayer::new(login);
    limits(&layer, &org).await.unwrap();
    let layer = layer.store(store.clone(), KEY);
    layer.handle().save().await.unwrap();
    let live = layer.handle().current().unwrap();
    let kept = stored(&store).await.unwrap();
    assert_eq!(kept.access_token(), live.access_token());
    assert_eq!(kept.refresh_token(), live.refresh_token());
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_refresh_token_leaves_the_stored_one() {
    // Whether it is saved,
    let (org, store, behind, _) = one_behind().await;
    let newest = stored(&store).await.unwrap();
    let set = access_only(&org);
    behind.handle().set(set.clone());
    behind.handle().save().await.unwrap();
    let kept = stored(&store).await.unwrap();
    assert_eq!(kept.access_token(), set.access_token());
    assert_eq!(kept.refresh_token(), newest.refresh_token());
    org.expire_sessions();
    limits(&behind, &org).await.unwrap();
    assert_no_reuse(&org);

    // or was issued later than what is stored,
    let (org, _, behind, _) = one_behind().await;
    let later = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    behind.handle().set(access_only(&org).with_issued_at(later));
    org.expire_sessions();
    limits(&behind, &org).await.unwrap();
    assert_no_reuse(&org);

    // and although the flow has one to begin with, which is spent.
    let (org, store) = (Org::new(), MemoryStore::new());
    let grant = org.authorize();
    let start = || {
        let login = RefreshToken::new(org.clone(), app(&org), grant.refresh_token());
        SalesforceAuthLayer::new(login).store(store.clone(), KEY)
    };
    limits(&start(), &org).await.unwrap();
    let second = start().session(access_only(&org).with_issued_at(later));
    org.expire_sessions();
    limits(&second, &org).await.unwrap();
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r24_an_unsaved_token_is_kept_over_the_one_it_replaced() {
    let (org, _, layer) = one_unsaved().await;
    let newest = layer.handle().refresh_token();
    org.expire_sessions();
    // It has nothing to do with the token.
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
async fn a_save_by_hand_does_not_disturb_a_refresh() {
    let (org, store, layer, _) = one_behind().await;
    org.expire_sessions();
    limits(&layer, &org).await.unwrap();
    org.expire_sessions();
    org.on_token(Fault::Delay(Duration::from_secs(1)));
    let waiting = refreshing(&layer, &org).await;
    layer.handle().save().await.unwrap();
    waiting.await.unwrap().unwrap();
    let live = layer.handle().current().unwrap();
    assert_eq!(
        stored(&store).await.unwrap().access_token(),
        live.access_token()
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_login_is_never_stale() {
    let (org, store, here, _) = one_behind().await;
    let backup = store.store.load(KEY).await.unwrap().unwrap();
    for _ in 0..5 {
        org.expire_sessions();
        limits(&here, &org).await.unwrap();
    }
    store.lock(KEY).await.unwrap().save(&backup).await.unwrap();
    let login = session(&org.authorize());
    let elsewhere = layer(&org, store.clone()).session(login.clone());
    elsewhere.handle().save().await.unwrap();
    let handle = here.handle();
    handle.invalidate(handle.current().unwrap().generation());
    assert_eq!(
        handle.token().await.unwrap().access_token(),
        login.access_token()
    );
}

// === What is cut off ===

#[tokio::test(start_paused = true)]
async fn an_adoption_cut_off_at_unlock_keeps_the_refresh_token() {
    let (org, store, behind, _) = one_behind().await;
    store.panic_at_unlock();
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
    let handle = SalesforceAuthLayer::new(refresh)
        .store(store.clone(), KEY)
        .handle();
    let live = handle.token().await.unwrap();
    for held_for in [14_500, 29_300] {
        handle.invalidate(live.generation());
        let held = store.lock(KEY).await.unwrap();
        let holder = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(held_for)).await;
            drop(held);
        });
        let _ = handle.token().await;
        let _ = handle.token().await;
        holder.await.unwrap();
        if let Some(live) = handle.current() {
            handle.invalidate(live.generation());
        }
    }
    advance(Duration::from_secs(60)).await;
    handle.token().await.unwrap();
    let presented = presented.lock().unwrap();
    assert!(presented.len() > 1);
    let mut once = presented.clone();
    once.dedup();
    assert_eq!(*presented, once);
}

/// A current-thread runtime whose `block_on` has returned: the refresh stands still, and nobody drives it any more.
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
    let layer = SalesforceAuthLayer::new(never)
        .refresh_timeout(limit)
        .store(store.clone(), KEY);
    let handle = layer.handle();
    still.block_on(async {
        let _ = timeout(limit / 3, handle.token()).await;
    });
    assert_eq!(store.held(), 1);
    // Whoever comes later waits until it is overdue, which tells that nobody drives it.
    driven.block_on(async {
        while store.held() > 0 {
            let _ = handle.token().await;
        }
    });
    drop(still);
}

#[test]
fn an_observer_gets_a_token_whose_save_was_cut_off() {
    let rt = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (store, log) = (Scripted::default(), Log::default());
    let org = Org::new();
    rt.block_on(save(&store.store, session(&org.authorize())));
    let layer = layer(&org, store.clone()).observer(log.clone());
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
        if let Some(token) = log.last_refresh_token() {
            break token;
        }
        std::thread::yield_now();
    };
    assert_eq!(layer.handle().refresh_token(), Some(newest));
    assert!(layer.handle().has_unsaved_refresh_token());
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
                let error = handle.get().unwrap().token().await.unwrap_err();
                *said.lock().unwrap() = Some(error.kind());
            })
        }
    });
    let login = |_: RefreshContext| async {
        Session::new("T1", "https://example.my.salesforce.com").map_err(RefreshError::terminal)
    };
    let layer = SalesforceAuthLayer::new(login).store(store, KEY);
    handle.set(layer.handle()).unwrap();
    let started = Instant::now();
    layer.handle().token().await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(*said.lock().unwrap(), Some(ErrorKind::Reentrant));
}

#[tokio::test(start_paused = true)]
async fn a_set_session_does_not_wait_for_a_hung_store() {
    let (org, store, layer, _) = one_behind().await;
    store.on(StoreOperation::Lock, Fate::Hangs);
    let waiting = tokio::spawn({
        let (layer, org) = (layer.clone(), org.clone());
        async move { limits(&layer, &org).await }
    });
    while store.count(StoreOperation::Lock) < 2 {
        tokio::task::yield_now().await;
    }
    layer.handle().set(session(&org.authorize()));
    assert_eq!(waiting.await.unwrap().unwrap(), StatusCode::OK);
    org.expire_sessions();
    let started = Instant::now();
    limits(&layer, &org).await.unwrap_err();
    assert!(started.elapsed() <= Duration::from_secs(30));
}

// === A record that is gone ===

#[tokio::test(start_paused = true)]
async fn a_session_logged_out_elsewhere_is_not_used_again() {
    let (org, store, behind, ahead) = one_behind().await;
    let newest = ahead.handle().refresh_token().unwrap();
    ahead.handle().logout(org.clone()).await.unwrap();
    let error = limits(&behind, &org).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::LoggedOut);
    assert!(stored(&store).await.is_none());
    assert_no_reuse(&org);
    // Its owner was told that it stays good.
    assert!(is_good(&org, &newest).await);
    // A login elsewhere is for all.
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

#[tokio::test(start_paused = true)]
async fn an_older_record_is_refused_after_a_deletion_too() {
    let (org, store, _, ahead) = one_behind().await;
    let backup = store.store.load(KEY).await.unwrap().unwrap();
    org.expire_sessions();
    limits(&ahead, &org).await.unwrap();
    store.lock(KEY).await.unwrap().delete().await.unwrap();
    org.expire_sessions();
    limits(&ahead, &org).await.unwrap_err();
    store.lock(KEY).await.unwrap().save(&backup).await.unwrap();
    advance(Duration::from_secs(60)).await;
    limits(&ahead, &org).await.unwrap_err();
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn r03_a_token_rotated_before_a_restart_is_not_presented() {
    let directory = tempfile::tempdir().unwrap();
    let org = Org::new();
    let grant = org.authorize();
    let start = || {
        let login = RefreshToken::new(org.clone(), app(&org), grant.refresh_token());
        let store = FileStore::open(directory.path()).unwrap();
        SalesforceAuthLayer::new(login).store(store, KEY).handle()
    };
    start().token().await.unwrap();
    let second = start();
    let newest = second
        .token()
        .await
        .unwrap()
        .refresh_token()
        .cloned()
        .unwrap();
    second.logout(org.clone()).await.unwrap();
    second.reset();
    let error = second.token().await.unwrap_err();
    assert_eq!(
        error.refresh_error().map(RefreshError::kind),
        Some(RefreshErrorKind::NoRefreshToken)
    );
    assert!(is_good(&org, &newest).await);
    assert_no_reuse(&org);
}

// === Logging out ===

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
    let layer = layer(&org, store.clone()).session(set.clone());
    layer.handle().logout_and_revoke(org.clone()).await.unwrap();
    assert!(stored(&store).await.is_none());
    for session in [set, kept] {
        assert!(!is_good(&org, session.refresh_token().unwrap()).await);
    }
}

#[tokio::test(start_paused = true)]
async fn r30_logout_inside_a_failing_refresh_leaves_nothing() {
    let (org, store) = (Org::new(), Scripted::default());
    save(&store.store, session(&org.authorize())).await;
    let handle = Arc::new(OnceLock::<SessionHandle>::new());
    let (inside, here) = (handle.clone(), org.clone());
    let refresh = move |_: RefreshContext| {
        let (handle, org) = (inside.get().unwrap().clone(), here.clone());
        async move {
            handle.logout(org).await.map_err(RefreshError::terminal)?;
            Err(RefreshError::terminal("the user is gone"))
        }
    };
    let layer = SalesforceAuthLayer::new(refresh).store(store.clone(), KEY);
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
    // It waits for the refresh.
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
    // It has nothing to log in with.
    next.await.unwrap().unwrap_err();
    assert!(stored(&store).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn r30_logout_keeps_a_record_that_cannot_be_loaded() {
    let (org, store, behind, ahead) = one_behind().await;
    store.on(
        StoreOperation::Load,
        Fate::Fails(StoreErrorKind::Unavailable),
    );
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

// === Whose session it is ===

#[tokio::test(start_paused = true)]
async fn r27_another_users_session_is_never_adopted() {
    let (org, store) = (Org::new(), MemoryStore::new());
    let (me, other) = ("005xx000001SwiU", "005xx000001SwiV");
    let ids = |session: Session, user: &str| session.with_ids("00Dxx0000001gER", user);
    save(&store, ids(session(&org.authorize()), other)).await;
    let mine = ids(session(&org.authorize()), me).with_refresh_token("dead");
    let handle = layer(&org, store.clone()).session(mine).handle();
    handle.invalidate(handle.current().unwrap().generation());
    handle.token().await.unwrap_err();
    // Nor later on.
    save(&store, ids(session(&org.authorize()), other)).await;
    advance(Duration::from_secs(20)).await;
    handle.token().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn r27_a_request_does_not_follow_a_stored_session_elsewhere() {
    let store = MemoryStore::new();
    let of =
        |token, host| Session::new(token, &format!("https://{host}.my.salesforce.com")).unwrap();
    save(&store, of("A", "a")).await;
    let sent = Arc::new(Mutex::new(Vec::new()));
    let rejecting = {
        let sent = sent.clone();
        move |request: Request<ReplayBody<Full<Bytes>>>| {
            let token = request.headers()["authorization"]
                .to_str()
                .unwrap()
                .to_owned();
            sent.lock()
                .unwrap()
                .push((request.uri().host().unwrap().to_owned(), token));
            let rejection = Response::builder()
                .status(401)
                .body(Full::<Bytes>::from("[]"));
            async { rejection.map_err(BoxError::from) }
        }
    };
    let refuse = |_: RefreshContext| async { Err(RefreshError::terminal("no")) };
    let layer = SalesforceAuthLayer::new(refuse)
        .store(store, KEY)
        .session(of("B", "b"));
    let request = Request::post("https://b.my.salesforce.com/services/data/v66.0/sobjects/Account")
        .body(Full::<Bytes>::from("confidential"))
        .unwrap();
    let _ = layer.layer(service_fn(rejecting)).oneshot(request).await;
    let b = ("b.my.salesforce.com".to_owned(), "Bearer B".to_owned());
    assert_eq!(*sent.lock().unwrap(), [b]);
}

// === A random walk ===

#[derive(Clone, Debug)]
enum Step {
    Request(usize),
    Refresh(usize),
    RefreshBehind(usize),
    Save(usize),
    Expire,
    Lock(Fate),
    SaveFate(Fate),
    Token(Fault),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let fate = |longest: u64| {
        prop_oneof![
            Just(Fate::Done),
            Just(Fate::FailsFor(2)),
            (0..longest).prop_map(|millis| Fate::After(Duration::from_millis(millis))),
        ]
    };
    let fault = prop_oneof![
        Just(Fault::None),
        Just(Fault::Maintenance),
        (0_u64..8).prop_map(|seconds| Fault::Delay(Duration::from_secs(seconds))),
    ];
    prop_oneof![
        (0_usize..3).prop_map(Step::Request),
        (0_usize..3).prop_map(Step::Refresh),
        (0_usize..3).prop_map(Step::RefreshBehind),
        (0_usize..3).prop_map(Step::Save),
        Just(Step::Expire),
        fate(300).prop_map(Step::Lock),
        fate(6_000).prop_map(Step::SaveFate),
        fault.prop_map(Step::Token),
        (0_u64..5_000).prop_map(Step::Wait),
    ]
}

async fn walk(steps: Vec<Step>) {
    let (org, store) = (Org::new(), Scripted::default());
    save(&store.store, session(&org.authorize())).await;
    let log = Log::default();
    let layers = [(); 3].map(|()| layer(&org, store.clone()).observer(log.clone()));
    for step in steps {
        match step {
            Step::Request(n) => drop(limits(&layers[n], &org).await),
            Step::Refresh(n) => drop(layers[n].handle().refresh().await),
            Step::RefreshBehind(n) => {
                let handle = layers[n].handle();
                tokio::spawn(async move { handle.refresh().await.map(drop) });
            }
            Step::Save(n) => drop(layers[n].handle().save().await),
            Step::Expire => org.expire_sessions(),
            Step::Lock(fate) => store.on(StoreOperation::Lock, fate),
            Step::SaveFate(fate) => store.on(StoreOperation::Save, fate),
            Step::Token(fault) => org.on_token(fault),
            Step::Wait(millis) => advance(Duration::from_millis(millis)).await,
        }
        if log.take().iter().any(|told| told.starts_with("Save")) {
            // A token that cannot be saved is the one thing that others do not get to know.
            return;
        }
        assert_no_reuse(&org);
    }
    // Whatever is under way ends, and everybody goes on.
    store.on(StoreOperation::Lock, Fate::Done);
    store.on(StoreOperation::Save, Fate::Done);
    org.on_token(Fault::None);
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(store.held(), 0);
    org.expire_sessions();
    for layer in &layers {
        assert_eq!(limits(layer, &org).await.unwrap(), StatusCode::OK);
    }
    assert_no_reuse(&org);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// R3, R7: whatever happens to the store and the server, short of a token that cannot be saved at all.
    #[test]
    fn r03_no_refresh_token_is_presented_twice_in_a_random_walk(
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let rt = runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        rt.block_on(walk(steps));
    }
}
