//! Orgs, stores and layers in the states that tests begin with.

use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinSet;
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, RefreshContext, RefreshError, RefreshErrorKind, RefreshFn,
    SalesforceAuthLayer, Session,
    emulator::Org,
    flow::RefreshToken,
    handle::SessionHandleBuilder,
    observer::{RefreshReason, StoreOperation},
    store::{SessionStore, StoreError},
};

use crate::{
    events::Events,
    scripted::{Fate, Scripted},
    support::{app, builder, layer, limits, save, session, stored},
};

/// The default of the refresh timeout.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// An org with one user, whose session is stored.
pub(crate) async fn org_with_session(store: &impl SessionStore) -> Org {
    let org = Org::new();
    save(store, session(&org.authorize())).await;
    org
}

/// Checks that the stored session is the one in use.
pub(crate) async fn assert_stored(store: &impl SessionStore, layer: &SalesforceAuthLayer) {
    let kept = stored(store).await.unwrap();
    let live = layer.handle().try_session().unwrap();
    assert_eq!(kept.access_token(), live.access_token());
    assert_eq!(kept.refresh_token(), live.refresh_token());
}

/// An org with a stored session that has expired, a layer of it, and the layer's events.
pub(crate) async fn expired(store: &Scripted) -> (Org, SalesforceAuthLayer, Events) {
    expired_with(store, |builder| builder).await
}

/// As [`expired`], with more settings of the session.
pub(crate) async fn expired_with(
    store: &Scripted,
    settings: impl FnOnce(SessionHandleBuilder) -> SessionHandleBuilder,
) -> (Org, SalesforceAuthLayer, Events) {
    let org = org_with_session(&store.store).await;
    let events = Events::default();
    let builder = builder(&org, store.clone()).observer(events.clone());
    let layer = SalesforceAuthLayer::from(settings(builder).build());
    assert_eq!(limits(&layer, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(events.take(), ["adopted FirstLogin"]);
    org.expire_sessions();
    (org, layer, events)
}

/// Sends `count` requests at once.
pub(crate) fn many(
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

pub(crate) fn refresh_error(error: &BoxError) -> &RefreshError {
    let error: &Error = error.downcast_ref().expect("an error of the layer");
    error.refresh_error().expect("a failed refresh")
}

/// The store error that made a request fail.
pub(crate) fn store_error(error: &BoxError) -> &StoreError {
    let error = refresh_error(error);
    assert_eq!(error.kind(), RefreshErrorKind::Store);
    error.store_error().expect("a StoreError")
}

pub(crate) fn token_calls(org: &Org) -> u64 {
    org.counters().token_requests
}

/// Two layers that share a store. The second has refreshed since the first loaded the record.
pub(crate) async fn one_behind() -> (Org, Scripted, SalesforceAuthLayer, SalesforceAuthLayer) {
    let store = Scripted::default();
    let org = org_with_session(&store.store).await;
    let (behind, ahead) = (layer(&org, store.clone()), layer(&org, store.clone()));
    limits(&behind, &org).await.unwrap();
    org.expire_sessions();
    limits(&ahead, &org).await.unwrap();
    (org, store, behind, ahead)
}

/// A layer whose newest refresh token could not be saved.
pub(crate) async fn one_unsaved() -> (Org, Scripted, SalesforceAuthLayer) {
    let store = Scripted::default();
    let org = org_with_session(&store.store).await;
    let layer = layer(&org, store.clone());
    limits(&layer, &org).await.unwrap();
    store.fail(StoreOperation::Save);
    org.expire_sessions();
    limits(&layer, &org).await.unwrap();
    store.on(StoreOperation::Save, Fate::Done);
    assert!(layer.handle().has_unsaved_refresh_token());
    (org, store, layer)
}

/// A session of the same user without a refresh token.
pub(crate) fn access_only(org: &Org) -> Session {
    Session::new(org.authorize().access_token(), &org.instance_url()).unwrap()
}

pub(crate) fn kind(error: &BoxError) -> ErrorKind {
    error
        .downcast_ref()
        .map(Error::kind)
        .expect("an error of the layer")
}

pub(crate) async fn is_good(org: &Org, refresh_token: &tower_salesforce_auth::Secret) -> bool {
    let flow = RefreshToken::new(org.clone(), app(org), refresh_token.clone());
    flow.refresh(RefreshContext::new(RefreshReason::Manual))
        .await
        .is_ok()
}
