//! A change of the encryption key while processes share the store (R38).

use std::{fs, path::Path, time::Duration};

use http::StatusCode;
use tower_salesforce_auth::{
    emulator::Org,
    store::{
        EncryptionKey, FileStore, LeaseBackend, LeaseStore, Record, Save, SessionStore, StoreError,
        StoreErrorKind,
    },
};

use crate::{
    lease_table::LeaseTable,
    support::{KEY, assert_no_reuse, layer, limits, put, refresh_token, save, session, stored},
};

fn key(byte: u8) -> EncryptionKey {
    EncryptionKey::new([byte; 32])
}

/// The ids of all keys that a message names.
fn names(told: &str, keys: &[&EncryptionKey]) -> bool {
    keys.iter().all(|key| told.contains(&key.id()))
}

/// A store whose encryption key can be chosen, and whose text can be read.
trait Sealing {
    fn with(&self, key: EncryptionKey) -> impl SessionStore + Clone;

    async fn text(&self) -> String;
}

struct Files(tempfile::TempDir);

impl Files {
    fn open(&self) -> FileStore {
        FileStore::open(self.0.path().join("sessions")).unwrap()
    }
}

impl Sealing for Files {
    fn with(&self, key: EncryptionKey) -> impl SessionStore + Clone {
        self.open().encryption(key)
    }

    async fn text(&self) -> String {
        fs::read_to_string(self.open().path(KEY)).unwrap()
    }
}

impl Sealing for LeaseTable {
    fn with(&self, key: EncryptionKey) -> impl SessionStore + Clone {
        LeaseStore::new(self.clone()).encryption(key)
    }

    async fn text(&self) -> String {
        let stored = self.get(KEY).await.unwrap();
        stored.unwrap().text.expose().to_owned()
    }
}

fn files() -> Files {
    Files(tempfile::tempdir().unwrap())
}

/// Encrypts the record again, with the first key of the store.
async fn reseal(store: &impl SessionStore, key: &str) -> Result<(), StoreError> {
    let mut lock = store.lock(key).await?;
    if let Some(record) = lock.load().await? {
        let again = record.followed_by(record.session().clone());
        lock.save(Save::new(&again).replacing(record.version()))
            .await?;
    }
    lock.unlock().await;
    Ok(())
}

async fn reads_both_and_writes_the_new(place: impl Sealing) {
    let org = Org::new();
    let (older, old, new) = (key(1), key(2), key(3));
    for sealed_with in [&older, &old, &new] {
        let before = session(&org.authorize());
        save(
            &place.with(
                sealed_with
                    .clone()
                    .or(older.clone())
                    .or(old.clone())
                    .or(new.clone()),
            ),
            before.clone(),
        )
        .await;
        assert!(names(&place.text().await, &[sealed_with]));
        // In any order, and also as a ring in a ring.
        for ring in [
            new.clone().or(old.clone()).or(older.clone()),
            new.clone().or(older.clone().or(old.clone())),
        ] {
            let loaded = stored(&place.with(ring)).await.unwrap();
            assert_eq!(refresh_token(&loaded), refresh_token(&before));
        }
        let ring = new.clone().or(old.clone()).or(older.clone());
        save(&place.with(ring), session(&org.authorize())).await;
        let text = place.text().await;
        assert!(names(&text, &[&new]), "{text}");
        assert!(stored(&place.with(new.clone())).await.is_some());
    }
}

#[tokio::test]
async fn r38_a_ring_reads_with_any_key_and_writes_with_the_first() {
    reads_both_and_writes_the_new(files()).await;
    reads_both_and_writes_the_new(LeaseTable::new()).await;
}

async fn leaves_the_record_alone(place: impl Sealing) {
    let org = Org::new();
    let (old, new, newer) = (key(1), key(2), key(3));
    save(&place.with(old.clone()), session(&org.authorize())).await;
    let before = place.text().await;

    let store = place.with(newer.clone().or(new.clone()));
    let mut lock = store.lock(KEY).await.unwrap();
    let mut errors = vec![
        store.load(KEY).await.unwrap_err(),
        lock.load().await.unwrap_err(),
    ];
    let record = Record::new(session(&org.authorize()));
    if let Err(error) = lock.save(Save::new(&record)).await {
        errors.push(error);
    }
    lock.unlock().await;
    let error = limits(&layer(&org, store), &org).await.unwrap_err();
    let error: &tower_salesforce_auth::Error = error.downcast_ref().unwrap();
    errors.extend(error.refresh_error().unwrap().store_error().cloned());
    assert!(errors.len() >= 3);
    for error in errors {
        // A compare-and-swap need not read the record.
        if error.kind() == StoreErrorKind::Superseded {
            continue;
        }
        assert_eq!(error.kind(), StoreErrorKind::Undecryptable);
        assert!(error.is_terminal());
        let told = error.to_string();
        assert!(names(&told, &[&old, &new, &newer]), "{told}");
        assert!(told.contains("EncryptionKey::or"), "{told}");
    }
    assert_eq!(place.text().await, before);
    assert_eq!(org.counters().token_requests, 0);
}

#[tokio::test]
async fn r38_a_process_without_the_old_key_leaves_the_record_alone() {
    leaves_the_record_alone(files()).await;
    leaves_the_record_alone(LeaseTable::new()).await;
}

/// Every deployment of the guide, with one process of the deployment before it.
async fn changes_without_a_stop(place: impl Sealing) {
    let org = Org::new();
    let (old, new) = (key(1), key(2));
    save(&place.with(old.clone()), session(&org.authorize())).await;
    let deployments = [
        old.clone(),
        old.clone().or(new.clone()),
        new.clone().or(old.clone()),
        new.clone(),
    ];
    for (number, pair) in deployments.windows(2).enumerate() {
        if number == 2 {
            // Before the old key is taken away.
            reseal(&place.with(pair[0].clone()), KEY).await.unwrap();
        }
        let processes = [0, 1].map(|at| layer(&org, place.with(pair[at].clone())));
        for turn in 0..4 {
            org.expire_sessions();
            let before = org.counters().token_requests;
            for at in [turn % 2, (turn + 1) % 2] {
                let status = limits(&processes[at], &org).await.unwrap();
                assert_eq!(status, StatusCode::OK);
            }
            assert_eq!(org.counters().token_requests, before + 1);
        }
    }
    assert!(names(&place.text().await, &[&new]));
    assert_no_reuse(&org);
}

#[tokio::test]
async fn r38_keys_change_deployment_by_deployment_without_a_stop() {
    changes_without_a_stop(files()).await;
    changes_without_a_stop(LeaseTable::new()).await;
}

#[tokio::test]
async fn r38_a_record_encrypted_again_costs_no_token_call() {
    let (org, place) = (Org::new(), files());
    let (old, new) = (key(1), key(2));
    save(&place.with(old.clone()), session(&org.authorize())).await;
    let ring = place.with(new.clone().or(old));
    let process = layer(&org, ring.clone());
    assert_eq!(limits(&process, &org).await.unwrap(), StatusCode::OK);

    reseal(&ring, KEY).await.unwrap();
    assert!(names(&place.text().await, &[&new]));
    assert_eq!(limits(&process, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(org.counters().token_requests, 0);
    // The same tokens under a newer version are no session to adopt: one token call, as without it.
    org.expire_sessions();
    assert_eq!(limits(&process, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(org.counters().token_requests, 1);
    assert_no_reuse(&org);
    // There is nothing to encrypt under another key of the store.
    reseal(&ring, "another").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn r38_a_process_goes_on_when_its_record_is_encrypted_again() {
    let (org, table) = (Org::new(), LeaseTable::new());
    let (old, new) = (key(1), key(2));
    save(&table.with(old.clone()), session(&org.authorize())).await;
    let early = layer(&org, table.with(new.clone()));
    for _ in 0..3 {
        assert!(limits(&early, &org).await.is_err());
    }
    assert_eq!(org.counters().token_requests, 0);
    reseal(&table.with(new.or(old)), KEY).await.unwrap();
    // After a terminal failure the layer looks at the store now and then.
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(limits(&early, &org).await.unwrap(), StatusCode::OK);
    assert_eq!(org.counters().token_requests, 0);
}

#[test]
fn r38_a_record_that_names_no_key_is_tried_with_each() {
    let (old, new) = (key(1), key(2));
    let record = Record::new(session(&Org::new().authorize()));
    let text = old.seal(KEY, &record).unwrap();
    let first = text
        .replacen(&format!(r#""key_id":"{}","#, old.id()), "", 1)
        .replacen(r#""version":2"#, r#""version":1"#, 1);
    assert!(new.clone().or(old.clone()).open(KEY, &first).is_ok());
    assert!(new.open(KEY, &first).is_err());
    // The key that a record names is the only one that is tried.
    let misnamed = text.replacen(&old.id(), &new.id(), 1);
    assert!(new.or(old).open(KEY, &misnamed).is_err());
}

#[test]
fn r38_a_changed_record_is_refused_by_every_key_of_a_ring() {
    let (old, new) = (key(1), key(2));
    let record = Record::new(session(&Org::new().authorize()));
    let text = old.seal(KEY, &record).unwrap();
    let ring = new.or(old);
    assert!(ring.open(KEY, &text).is_ok());
    assert!(ring.open("another", &text).is_err());
    for at in (0..text.len()).step_by(7) {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(ring.open(KEY, &changed).is_err(), "{changed}");
    }
    let shown = format!("{ring:?}");
    assert_eq!(shown, "EncryptionKey([redacted])");
}

/// What the guide says to search for.
#[tokio::test]
async fn r38_the_records_of_an_old_key_can_be_counted() {
    let place = files();
    let (old, new) = (key(1), key(2));
    let store = place.with(new.clone().or(old.clone()));
    let org = Org::new();
    put(
        &place.with(old.clone()),
        &Record::new(session(&org.authorize())),
    )
    .await;
    let counted = |directory: &Path, key: &EncryptionKey| {
        let wanted = format!(r#""key_id":"{}""#, key.id());
        let texts = fs::read_dir(directory).unwrap();
        let texts = texts.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
        texts.filter(|text| text.contains(&wanted)).count()
    };
    let directory = place.0.path().join("sessions");
    assert_eq!(
        (counted(&directory, &old), counted(&directory, &new)),
        (1, 0)
    );
    reseal(&store, KEY).await.unwrap();
    assert_eq!(
        (counted(&directory, &old), counted(&directory, &new)),
        (0, 1)
    );
}
