//! Both stores keep to the contract.

use std::time::Duration;

use tower_salesforce_auth::store::{EncryptionKey, FileStore, MemoryStore, conformance};

const SOON: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_store_conforms() {
    let store = MemoryStore::new().lock_timeout(SOON);
    conformance::check(|| store.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    conformance::check(|| {
        FileStore::open(directory.path())
            .unwrap()
            .lock_timeout(SOON)
    })
    .await;
    // Nothing is left of it, in the directory or beside it.
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_encrypted_file_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let store = FileStore::open(directory.path())
            .unwrap()
            .lock_timeout(SOON);
        store.encryption(EncryptionKey::new([7; 32]))
    };
    conformance::check(open).await;
}
