//! The backend against the mock of the API server.

use std::time::Duration;

use http::StatusCode;
use tower_salesforce_auth::{
    Session,
    store::{
        Acquired, EncryptionKey, LeaseBackend, LeaseStore, Record, Save, SessionStore,
        StoreErrorKind, conformance,
    },
};

use crate::{backend::KubernetesBackend, mock::MockServer};

const LEASE: Duration = Duration::from_secs(6);

fn store(backend: &KubernetesBackend) -> LeaseStore<KubernetesBackend> {
    LeaseStore::new(backend.clone())
        .lease(LEASE)
        .lock_timeout(Duration::from_millis(500))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_conforms() {
    let mock = MockServer::default();
    let open = || {
        let backend = KubernetesBackend::new(mock.api());
        store(&backend).lock_timeout(Duration::from_millis(50))
    };
    conformance::check(open).await;
    conformance::check(|| open().encryption(EncryptionKey::new([7; 32]))).await;
}

#[tokio::test(start_paused = true)]
async fn the_store_keeps_its_leases() {
    // One process: another one sees the length of a lease from when it sees it first.
    let backend = KubernetesBackend::new(MockServer::default().api());
    conformance::check_leases(|| store(&backend), LEASE).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_taken_over_after_its_length_was_seen() {
    let mock = MockServer::default();
    let [here, there] = [(); 2].map(|()| KubernetesBackend::new(mock.api()));
    let taken =
        async |backend: &KubernetesBackend| backend.acquire("user", "owner", LEASE).await.unwrap();
    assert_eq!(taken(&here).await, Acquired::Taken);
    tokio::time::sleep(2 * LEASE).await;
    // It may have been renewed just now.
    assert_eq!(taken(&there).await, Acquired::HeldFor(LEASE));
    tokio::time::sleep(LEASE / 2).await;
    assert!(here.renew("user", "owner", LEASE).await.unwrap());
    tokio::time::sleep(LEASE / 2).await;
    assert_eq!(taken(&there).await, Acquired::HeldFor(LEASE));
    tokio::time::sleep(LEASE).await;
    assert_eq!(taken(&there).await, Acquired::Taken);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_what_to_do_and_no_secret_is_shown() {
    let mock = MockServer::default();
    let store =
        LeaseStore::new(KubernetesBackend::new(mock.api())).encryption(EncryptionKey::new([7; 32]));
    let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com").unwrap();
    let record = Record::new(session);
    let mut lock = store.lock("user").await.unwrap();
    lock.save(Save::new(&record)).await.unwrap();
    lock.unlock().await;
    assert!(!mock.shown().contains("AQEAQ"));
    mock.fail(StatusCode::FORBIDDEN);
    let error = store.load("user").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("rbac.yaml"), "{error}");
    mock.fail(None);
    assert!(store.load("user").await.unwrap().is_some());
}
