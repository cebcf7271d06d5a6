//! A session that a caller sets, beside a stored one.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceExt, service_fn};
use tower_salesforce_auth::{
    BoxError, RefreshContext, RefreshError, ReplayBody, SalesforceAuthLayer, Session,
    SessionHandle,
    emulator::{Fault, Org},
    flow::RefreshToken,
    observer::StoreOperation,
    store::MemoryStore,
};

use crate::{
    scripted::{Fate, Scripted},
    setup::{access_only, expired, one_behind},
    support::{
        KEY, app, assert_no_reuse, builder, limits, refreshing, save, session, stored, storing,
    },
};

#[tokio::test(start_paused = true)]
async fn a_set_session_wins_over_an_older_stored_one() {
    let org = Org::new();
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let ids = |session: Session, user| session.with_ids("00Dxx0000001gER", user);
    let old = org.authorize();
    let new = org.authorize();
    let (me, other) = ("005xx000001SwiU", "005xx000001SwiV");
    for (set, kept, is_set_one_kept) in [
        // The set session was issued later, earlier, or at an unknown time.
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
        // The stored session of another user is ignored.
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
                async { Err(RefreshError::terminal("revoked")) }
            }
        };
        let handle = SessionHandle::builder(refresh)
            .store(store, KEY)
            .initial_session(set.clone())
            .build();
        handle.invalidate(handle.try_session().unwrap().generation());
        let obtained = handle.session().await;
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
async fn a_session_set_during_a_refresh_loses_neither_token() {
    let store = Scripted::default();
    let (org, layer, _) = expired(&store).await;
    org.on_token(Fault::Delay(Duration::from_secs(1)));
    let waiting = refreshing(&layer, &org).await;
    // The set session has no refresh token, so the refreshed one is kept.
    let other = org.authorize();
    let set = Session::new(other.access_token(), other.instance_url()).unwrap();
    layer.handle().set(set);
    assert_eq!(waiting.await.unwrap().unwrap(), StatusCode::OK);
    advance(Duration::from_secs(2)).await;
    while store.held() > 0 || store.count(StoreOperation::Save) == 0 {
        tokio::task::yield_now().await;
    }
    // Other processes get the refreshed token.
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

#[tokio::test(start_paused = true)]
async fn a_session_without_a_refresh_token_leaves_the_stored_one() {
    // The set session is saved,
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

    // or was issued later than the stored one,
    let (org, _, behind, _) = one_behind().await;
    let later = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    behind.handle().set(access_only(&org).with_issued_at(later));
    org.expire_sessions();
    limits(&behind, &org).await.unwrap();
    assert_no_reuse(&org);

    // or its flow has a first refresh token, which is spent.
    let (org, store) = (Org::new(), MemoryStore::new());
    let grant = org.authorize();
    let start = || {
        let login = RefreshToken::new(org.clone(), app(&org), grant.refresh_token());
        storing(store.clone(), login)
    };
    limits(&start(), &org).await.unwrap();
    let second = start();
    second.handle().set(access_only(&org).with_issued_at(later));
    org.expire_sessions();
    limits(&second, &org).await.unwrap();
    assert_no_reuse(&org);
}

#[tokio::test(start_paused = true)]
async fn a_set_session_does_not_wait_for_a_hung_store() {
    let (org, store, _, layer) = one_behind().await;
    org.expire_sessions();
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

#[tokio::test(start_paused = true)]
async fn r27_another_users_session_is_never_adopted() {
    let (org, store) = (Org::new(), MemoryStore::new());
    let (me, other) = ("005xx000001SwiU", "005xx000001SwiV");
    let ids = |session: Session, user: &str| session.with_ids("00Dxx0000001gER", user);
    save(&store, ids(session(&org.authorize()), other)).await;
    let mine = ids(session(&org.authorize()), me).with_refresh_token("dead");
    let handle = builder(&org, store.clone()).initial_session(mine).build();
    handle.invalidate(handle.try_session().unwrap().generation());
    handle.session().await.unwrap_err();
    // A later record of that user is not adopted either.
    save(&store, ids(session(&org.authorize()), other)).await;
    advance(Duration::from_secs(20)).await;
    handle.session().await.unwrap_err();
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
    let handle = SessionHandle::builder(refuse)
        .store(store, KEY)
        .initial_session(of("B", "b"))
        .build();
    let layer = SalesforceAuthLayer::from(handle);
    let request = Request::post("https://b.my.salesforce.com/services/data/v66.0/sobjects/Account")
        .body(Full::<Bytes>::from("confidential"))
        .unwrap();
    let _ = layer.layer(service_fn(rejecting)).oneshot(request).await;
    let b = ("b.my.salesforce.com".to_owned(), "Bearer B".to_owned());
    assert_eq!(*sent.lock().unwrap(), [b]);
}
