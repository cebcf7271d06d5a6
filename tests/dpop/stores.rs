//! The key of a grant goes with its record (R36).

use http::StatusCode;
use tower_salesforce_auth::{
    SalesforceAuthLayer, Session, SessionHandle,
    emulator::Org,
    flow::{AuthorizationCode, ClientCredentials, RefreshToken},
    oauth::{App, DpopKey},
    store::{EncryptionKey, MemoryStore, Record, SessionStore, StoreErrorKind},
};

use crate::support::{
    Notices, Proof, answer, app_per_grant, bound_app, get, requiring_org, scripted, whole,
};

const KEY: &str = "user";

/// Has the user authorize the app.
pub(crate) async fn authorized(org: &Org, app: &App) -> Session {
    let flow = AuthorizationCode::new(org.clone(), app.clone(), org.redirect_uri());
    let request = flow.authorization_url().build().unwrap();
    let callback = org.approve(request.url()).unwrap();
    flow.exchange(request.pending(), &callback).await.unwrap()
}

/// A process that shares the store.
fn process(org: &Org, app: &App, store: &MemoryStore) -> SessionHandle {
    let flow = RefreshToken::new(org.clone(), app.clone(), "none");
    SessionHandle::builder(flow)
        .store(store.clone(), KEY)
        .build()
}

#[tokio::test]
async fn r36_a_bound_grant_survives_a_restart() {
    let org = requiring_org();
    let store = MemoryStore::new();
    let first = process(&org, &app_per_grant(&org), &store);
    let session = authorized(&org, &app_per_grant(&org)).await;
    let key = session.dpop_key().unwrap().clone();
    first.set(session);
    first.save().await.unwrap();
    first.refresh().await.unwrap();
    drop(first);
    for _ in 0..3 {
        let next = process(&org, &app_per_grant(&org), &store);
        let layer = SalesforceAuthLayer::from(next.clone());
        assert_eq!(get(&layer, whole(org.clone())).await, StatusCode::OK);
        org.expire_sessions();
        assert_eq!(get(&layer, whole(org.clone())).await, StatusCode::OK);
        assert_eq!(next.session().await.unwrap().dpop_key(), Some(&key));
    }
    let counters = org.counters();
    assert_eq!(
        (counters.refresh_token_reuses, counters.dpop_proofs_refused),
        (0, 0)
    );
}

#[tokio::test]
async fn r36_processes_that_share_a_grant_share_its_key() {
    let org = requiring_org();
    let store = MemoryStore::new();
    let processes: Vec<_> = (0..3)
        .map(|_| process(&org, &app_per_grant(&org), &store))
        .collect();
    processes[0].set(authorized(&org, &app_per_grant(&org)).await);
    processes[0].save().await.unwrap();
    for round in 0..6 {
        let layer = SalesforceAuthLayer::from(processes[round % 3].clone());
        assert_eq!(get(&layer, whole(org.clone())).await, StatusCode::OK);
        org.expire_sessions();
    }
    let counters = org.counters();
    assert_eq!(counters.refresh_token_reuses, 0);
    assert_eq!(counters.token_refusals, 0);
    assert_eq!(counters.dpop_proofs_refused, 0);
}

#[tokio::test]
async fn r36_a_record_with_another_key_is_used_and_told() {
    let org = requiring_org();
    let store = MemoryStore::new();
    let (ours, our_key) = bound_app(&org);
    let first = process(&org, &ours, &store);
    first.set(authorized(&org, &ours).await);
    first.save().await.unwrap();
    // Another process with a key of its own.
    let (theirs, their_key) = bound_app(&org);
    let notices = Notices::default();
    let flow = RefreshToken::new(org.clone(), theirs, "none");
    let second = SessionHandle::builder(flow)
        .store(store.clone(), KEY)
        .observer(notices.clone())
        .build();
    let layer = SalesforceAuthLayer::from(second.clone());
    for _ in 0..3 {
        assert_eq!(get(&layer, whole(org.clone())).await, StatusCode::OK);
        org.expire_sessions();
    }
    assert_eq!(second.try_session().unwrap().dpop_key(), Some(&our_key));
    let notices = notices.0.lock().unwrap();
    assert_eq!(notices.len(), 1);
    let told = notices[0].to_string();
    assert!(
        told.contains(our_key.thumbprint()) && told.contains(their_key.thumbprint()),
        "{told}"
    );
    assert_eq!(org.counters().token_refusals, 0);
}

#[tokio::test]
async fn r36_a_login_without_a_user_keeps_its_key() {
    let org = requiring_org();
    let store = MemoryStore::new();
    let login = || ClientCredentials::new(org.clone(), app_per_grant(&org));
    let mut keys = Vec::new();
    for _ in 0..3 {
        let handle = SessionHandle::builder(login())
            .store(store.clone(), KEY)
            .build();
        let layer = SalesforceAuthLayer::from(handle.clone());
        assert_eq!(get(&layer, whole(org.clone())).await, StatusCode::OK);
        org.expire_sessions();
        assert_eq!(get(&layer, whole(org.clone())).await, StatusCode::OK);
        keys.push(handle.session().await.unwrap().dpop_key().unwrap().clone());
    }
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn r36_a_record_keeps_the_keys_and_shows_none() {
    let url = "https://MyDomainName.my.salesforce.com";
    let (key, other) = (DpopKey::generate().unwrap(), DpopKey::generate().unwrap());
    let bound = || {
        Session::new("00Dxx!AQEAQ", url)
            .unwrap()
            .with_dpop_key(key.clone())
    };
    for session in [bound(), bound().with_refresh_token("5Aep861")] {
        let record = Record::new(session);
        let text = record.encode();
        let read = Record::decode(text.expose()).unwrap();
        assert_eq!(read.session().dpop_key(), Some(&key));
        assert_eq!(read.followed_by(bound()).session().dpop_key(), Some(&key));
        let shown = format!("{record:?} {read:?}");
        let encoded = text.expose().split(r#""dpop_key":""#).nth(1).unwrap();
        let encoded = encoded.split('"').next().unwrap();
        assert!(encoded.len() > 100 && !shown.contains(encoded));

        let sealed = EncryptionKey::new([1; 32]).seal(KEY, &record).unwrap();
        assert!(!sealed.contains(encoded));
        let opened = EncryptionKey::new([1; 32]).open(KEY, &sealed).unwrap();
        assert_eq!(opened.session().dpop_key(), Some(&key));
    }
    let unbound = Record::new(Session::new("00Dxx!AQEAQ", url).unwrap());
    assert!(!unbound.encode().expose().contains("key"));
    assert_ne!(key, other);
}

#[test]
fn r36_a_record_with_a_damaged_key_is_an_error() {
    let url = "https://MyDomainName.my.salesforce.com";
    let session = Session::new("00Dxx!AQEAQ", url).unwrap();
    let record = Record::new(session.with_dpop_key(DpopKey::generate().unwrap()));
    let text = record
        .encode()
        .expose()
        .replace(r#""dpop_key":"M"#, r#""dpop_key":"SECRET"#);
    let error = Record::decode(&text).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains("DPoP key"), "{error}");
    assert!(!error.to_string().contains("SECRET"), "{error}");
}

#[tokio::test]
async fn r36_a_record_of_version_one_still_loads() {
    let text = r#"{"format":"tower-salesforce-auth session","version":1,"line":"0000000000000000000000000000002a","number":3,"access_token":"T7","instance_url":"https://a.my.salesforce.com","is_soap":false,"has_rotated":false}"#;
    let record = Record::decode(text).unwrap();
    assert_eq!(record.session().dpop_key(), None);
    let store = MemoryStore::new();
    assert!(store.load(KEY).await.unwrap().is_none());
}

#[test]
fn r36_a_bound_record_without_its_key_is_an_error() {
    let url = "https://MyDomainName.my.salesforce.com";
    let session = Session::new("T0", url).unwrap().with_refresh_token("R0");
    let record = Record::new(session.with_dpop_key(DpopKey::generate().unwrap()));
    let mut text: serde_json::Value = serde_json::from_str(record.encode().expose()).unwrap();
    text.as_object_mut().unwrap().remove("dpop_key").unwrap();
    let error = Record::decode(&text.to_string()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains("DPoP key"), "{error}");
}

/// The answer to a refresh is of no use but for its refresh token.
#[tokio::test]
async fn r36_a_rotated_token_alone_is_stored_with_its_key() {
    for body in [
        r#"{"refresh_token":"R1","token_type":"DPoP"}"#,
        r#"{"access_token":"T1","refresh_token":"R1","token_type":"DPoP","instance_url":"https://evil.example"}"#,
        r#"{"error":"invalid_request","refresh_token":"R1"}"#,
    ] {
        let org = requiring_org();
        let app = app_per_grant(&org);
        let key = DpopKey::generate().unwrap();
        let session = Session::new("T0", &org.instance_url()).unwrap();
        let session = session.with_refresh_token("R0").with_dpop_key(key.clone());
        let store = MemoryStore::new();
        let (server, requests) = scripted(move |_, _| answer(200, &[], body));
        let flow = RefreshToken::new(server.clone(), app.clone(), "none");
        let handle = SessionHandle::builder(flow)
            .store(store.clone(), KEY)
            .build();
        handle.set(session);
        handle.save().await.unwrap();
        handle.refresh().await.unwrap_err();
        let stored = store.load(KEY).await.unwrap().unwrap();
        let token = stored.session().refresh_token().unwrap();
        assert_eq!(token.expose(), "R1", "{body}");
        // Another process presents it with the same key.
        let flow = RefreshToken::new(server, app, "none");
        let other = SessionHandle::builder(flow).store(store, KEY).build();
        other.session().await.unwrap();
        drop(other.refresh().await);
        let requests = requests.take();
        assert_eq!(requests.len(), 2, "{body}");
        assert!(String::from_utf8_lossy(requests[1].body()).contains("refresh_token=R1"));
        for request in &requests {
            assert_eq!(Proof::of(request.headers()).thumbprint, key.thumbprint());
        }
    }
}
