//! `FileStore`: records, their directory, a full disk, and encryption.

use std::{
    fs,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use tower_salesforce_auth::{
    LoginUrl, RefreshContext, SalesforceAuthLayer, Session, SessionHandle,
    store::{EncryptionKey, FileStore, Record, Save, SessionStore, StoreError, StoreErrorKind},
};

use crate::support::{KEY, Program, part, save, say, stored, storing};

fn open(directory: impl AsRef<Path>) -> FileStore {
    let store = FileStore::open(directory.as_ref()).unwrap();
    store.lock_timeout(Duration::from_millis(50))
}

/// A session with every field.
fn whole_session() -> Session {
    let login_url = LoginUrl::sandbox()
        .with_authorization_endpoint("https://gateway.example.com/authorize?x=1")
        .and_then(|url| url.with_token_endpoint("https://gateway.example.com/token"))
        .and_then(|url| url.with_revocation_endpoint("https://gateway.example.com/revoke"));
    let server_url = "https://example.my.salesforce.com/services/Soap/u/64.0/00Dxx0000001gER";
    Session::from_session_id("SECRET-access", server_url)
        .unwrap()
        .with_refresh_token("SECRET-refresh")
        .with_login_url(login_url.unwrap())
        .with_identity_url("https://test.salesforce.com/id/00Dxx0000001gEREAY/005xx000001SwiUAAS")
        .with_scope("api refresh_token")
        .with_issued_at(UNIX_EPOCH + Duration::from_millis(1_750_000_000_123))
        .with_lifetime(Duration::from_millis(7_200_500))
}

async fn kind(store: &FileStore) -> StoreErrorKind {
    let unlocked = store.load(KEY).await.unwrap_err();
    let mut lock = store.lock(KEY).await.unwrap();
    let locked = lock.load().await.unwrap_err();
    assert_eq!(unlocked.kind(), locked.kind());
    locked.kind()
}

#[tokio::test]
async fn a_stored_session_is_loaded_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let before = whole_session();
    save(&open(&directory), before.clone()).await;
    let after = stored(&open(&directory)).await.unwrap();
    assert_eq!(after.access_token(), before.access_token());
    assert_eq!(after.refresh_token(), before.refresh_token());
    assert_eq!(after.instance_url(), before.instance_url());
    assert_eq!(after.login_url(), before.login_url());
    assert_eq!(after.identity_url(), before.identity_url());
    assert_eq!(after.organization_id(), before.organization_id());
    assert_eq!(after.user_id(), before.user_id());
    assert_eq!(after.scope(), before.scope());
    assert_eq!(after.issued_at(), before.issued_at());
    assert_eq!(after.lifetime(), before.lifetime());
    // The record also says that the session ends by a SOAP logout.
    assert_eq!(Record::new(after).encode(), Record::new(before).encode());
    let text = fs::read_to_string(open(&directory).path(KEY)).unwrap();
    assert!(
        text.contains(r#""is_soap":true"#) && text.contains(r#""version":2"#),
        "{text}"
    );
}

#[test]
fn a_session_issued_before_1970_is_read_as_it_was_saved() {
    let issued = UNIX_EPOCH - Duration::from_millis(1_500);
    let record = Record::new(whole_session().with_issued_at(issued));
    let read = Record::decode(record.encode().expose()).unwrap();
    assert_eq!(read.session().issued_at(), Some(issued));
}

/// Later versions of the crate have to read this exact text.
#[tokio::test]
async fn a_record_of_version_1_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let text = r#"{"format":"tower-salesforce-auth session","version":1,
        "line":"0123456789abcdef0123456789abcdef","number":7,"access_token":"T7","refresh_token":"R7",
        "instance_url":"https://example.my.salesforce.com","login_url":{"url":"https://login.salesforce.com"},
        "identity_url":"https://login.salesforce.com/id/00Dxx0000001gEREAY/005xx000001SwiUAAS",
        "scope":"api","issued_at":1750000000123,"lifetime":7200000,"organization_id":"00Dxx0000001gEREAY",
        "user_id":"005xx000001SwiUAAS","is_soap":false,"has_rotated":true,"of_a_later_time":{"that":["is not known"]}}"#;
    crate::support::write_record(&store.path(KEY), text);
    let session = stored(&store).await.unwrap();
    assert_eq!(session.access_token().expose(), "T7");
    assert_eq!(session.login_url(), Some(&LoginUrl::production()));
    assert_eq!(session.lifetime(), Some(Duration::from_secs(7_200)));
}

#[test]
fn a_record_of_another_key_names_both_keys() {
    let (old, new) = (EncryptionKey::new([1; 32]), EncryptionKey::new([2; 32]));
    let text = old.seal(KEY, &Record::new(whole_session())).unwrap();
    let error = new.open(KEY, &text).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Undecryptable);
    let told = error.to_string();
    assert!(
        told.contains(&old.id()) && told.contains(&new.id()),
        "{told}"
    );
    // What an attacker writes there is not repeated.
    let forged = text.replacen(&old.id(), "<SECRET-script>", 1);
    let told = new.open(KEY, &forged).unwrap_err().to_string();
    assert!(!told.contains("SECRET"), "{told}");
    // A record of version 1 does not name its key.
    let named = format!(r#""key_id":"{}","#, old.id());
    let first = text
        .replacen(&named, "", 1)
        .replacen(r#""version":2"#, r#""version":1"#, 1);
    assert_ne!(first, text);
    assert!(old.open(KEY, &first).is_ok());
}

#[tokio::test]
async fn a_broken_record_is_an_error_and_is_left_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let record = |changed: &str, to: &str| {
        let text = Record::new(whole_session()).encode().expose().to_owned();
        assert!(text.contains(changed), "{changed}");
        text.replacen(changed, to, 1)
    };
    let mut cut_off = record("{", "{");
    cut_off.truncate(cut_off.len() - 20);
    let broken: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\0\0\0\0\0\0".to_vec(),
        b"SECRET-text".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"\xff\xfe".to_vec(),
        br#"{"format":"SECRET-format","version":1}"#.to_vec(),
        br#"{"format":"tower-salesforce-auth session","version":"SECRET-one"}"#.to_vec(),
        cut_off.into_bytes(),
        record(r#""number":1"#, r#""number":"SECRET-number""#).into_bytes(),
        record(r#""is_soap":true"#, r#""is_soap":"SECRET-soap""#).into_bytes(),
        record("SECRET-access", "SECRET access").into_bytes(),
        record("https://example.my", "http://SECRET.example.my").into_bytes(),
        record(r#""login":""#, r#""login":"SECRET"#).into_bytes(),
        vec![b' '; 2 * 1024 * 1024],
    ];
    for text in broken {
        fs::write(store.path(KEY), &text).unwrap();
        let shown = String::from_utf8_lossy(&text)
            .chars()
            .take(60)
            .collect::<String>();
        assert_eq!(kind(&store).await, StoreErrorKind::Corrupt, "{shown}");
        let error = store.load(KEY).await.unwrap_err();
        let output = format!("{error} {error:?} {:?}", chain(&error));
        assert!(!output.contains("SECRET"), "{output}");
        assert_eq!(fs::read(store.path(KEY)).unwrap(), text);
    }
    let later = record(r#""version":2"#, r#""version":3"#);
    fs::write(store.path(KEY), &later).unwrap();
    assert_eq!(kind(&store).await, StoreErrorKind::UnsupportedVersion);
    assert_eq!(fs::read_to_string(store.path(KEY)).unwrap(), later);
    // Nor does a save replace it.
    let mut lock = store.lock(KEY).await.unwrap();
    let record = Record::new(whole_session());
    let error = lock.save(Save::new(&record)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::UnsupportedVersion);
    assert_eq!(fs::read_to_string(store.path(KEY)).unwrap(), later);
    lock.delete().await.unwrap();
    lock.save(Save::new(&record)).await.unwrap();
    assert!(lock.load().await.unwrap().is_some());
}

fn chain(error: &StoreError) -> Vec<String> {
    let causes = error.causes();
    causes.map(|error| format!("{error} {error:?}")).collect()
}

#[tokio::test]
async fn a_broken_record_is_not_replaced_by_a_login() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    fs::write(store.path(KEY), "broken").unwrap();
    let layer = storing(store.clone(), |_: RefreshContext| async {
        Ok(whole_session())
    });
    layer.handle().session().await.unwrap_err();
    assert_eq!(fs::read_to_string(store.path(KEY)).unwrap(), "broken");
    // The error names this remedy.
    fs::remove_file(store.path(KEY)).unwrap();
    layer.handle().reset();
    layer.handle().session().await.unwrap();
    assert!(stored(&store).await.is_some());
}

// === The directory ===

#[tokio::test]
async fn no_key_leads_out_of_the_directory() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("sessions");
    let store = open(&directory);
    for key in [
        "../escaped",
        "/etc/escaped",
        "a/../../escaped",
        "..",
        "con",
        "\0",
        "\u{202e}",
    ] {
        assert_eq!(
            store.path(key).parent(),
            Some(directory.as_path()),
            "{key:?}"
        );
        let mut lock = store.lock(key).await.unwrap();
        let record = Record::new(whole_session());
        lock.save(Save::new(&record)).await.unwrap();
        assert!(store.path(key).is_file());
    }
    assert_eq!(fs::read_dir(&parent).unwrap().count(), 1);
    let name = store.path("Nightly export").file_name().unwrap().to_owned();
    assert!(
        name.to_string_lossy().starts_with("nightly_export-"),
        "{name:?}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_a_stored_session() {
    use std::os::unix::fs::PermissionsExt;

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("far/away");
    let store = open(&directory);
    assert_eq!(
        (mode(&directory), mode(directory.parent().unwrap())),
        (0o700, 0o700)
    );
    let mut lock = store.lock(KEY).await.unwrap();
    for entry in fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let record = Record::new(whole_session());
    lock.save(Save::new(&record)).await.unwrap();
    assert_eq!(mode(&store.path(KEY)), 0o600);

    // A directory that others can write to is refused: they could store a session of their own.
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let error = FileStore::open(&directory).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(chain(&error)[0].contains("chmod 700"), "{error:?}");
    let error = FileStore::open(store.path(KEY)).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn files_of_a_killed_process_do_not_block_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    save(&store, whole_session()).await;
    for left in ["tmp", "lock"] {
        fs::write(store.path(KEY).with_extension(left), "half of a rec").unwrap();
    }
    let mut lock = store.lock(KEY).await.unwrap();
    let before = lock.load().await.unwrap().unwrap();
    let next = before.followed_by(whole_session());
    lock.save(Save::new(&next).replacing(before.version()))
        .await
        .unwrap();
    lock.unlock().await;
    assert!(stored(&store).await.is_some());
    let left = fs::read_dir(&directory).unwrap().count();
    assert_eq!(left, if cfg!(unix) { 1 } else { 2 });
}

/// Unlocking removes the lock's file. A process that opened the file before must not take it for the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lock_has_one_holder_even_as_its_file_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).lock_timeout(Duration::from_secs(30));
    let holders = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, holders) = (store.clone(), holders.clone());
        tasks.spawn(async move {
            for _ in 0..100 {
                let lock = store.lock(KEY).await.unwrap();
                let others = holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::task::yield_now().await;
                holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                assert_eq!(others, 0);
                lock.unlock().await;
            }
        });
    }
    tasks.join_all().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_lock_whose_file_was_removed_saves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let file = store.path(KEY).with_extension("lock");
    let record = Record::new(whole_session());
    let mut lost = store.lock(KEY).await.unwrap();
    fs::remove_file(&file).unwrap();
    for error in [
        lost.save(Save::new(&record)).await.unwrap_err(),
        lost.delete().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::LockLost);
        assert!(error.to_string().contains("lost"), "{error}");
    }
    // What another process has locked since is left to it.
    let mut held = store.lock(KEY).await.unwrap();
    lost.save(Save::new(&record)).await.unwrap_err();
    lost.unlock().await;
    assert!(file.exists());
    held.save(Save::new(&record)).await.unwrap();
}

/// What cannot be read is not taken for a session that was logged out, and what cannot be deleted not for deleted.
#[cfg(unix)]
#[tokio::test]
async fn a_record_that_cannot_be_reached_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("sessions");
    let store = open(&directory);
    fs::create_dir(store.path(KEY)).unwrap();
    let mut lock = store.lock(KEY).await.unwrap();
    assert_eq!(
        lock.delete().await.unwrap_err().kind(),
        StoreErrorKind::Unavailable
    );
    drop(lock);
    fs::remove_dir_all(&directory).unwrap();
    assert!(store.load(KEY).await.unwrap().is_none());
    fs::write(&directory, "no directory").unwrap();
    assert_eq!(
        store.load(KEY).await.unwrap_err().kind(),
        StoreErrorKind::Unavailable
    );
}

#[tokio::test]
async fn the_longest_record_is_one_mebibyte() {
    const LONGEST: usize = 1024 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let of = |length: usize| {
        let session = Session::new("T".repeat(length), "https://example.my.salesforce.com");
        Record::new(session.unwrap())
    };
    let around = of(1).encode().expose().len() - 1;
    let mut lock = store.lock(KEY).await.unwrap();
    let longest = of(LONGEST - around);
    lock.save(Save::new(&longest)).await.unwrap();
    assert!(lock.load().await.unwrap().is_some());
    let longer = of(LONGEST - around + 1);
    let save = Save::new(&longer).replacing(longest.version());
    let error = lock.save(save).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);

    // Nor is a longer one read in part.
    let mut text = fs::read(store.path(KEY)).unwrap();
    assert_eq!(text.len(), LONGEST);
    text.push(b' ');
    fs::write(store.path(KEY), text).unwrap();
    assert_eq!(
        lock.load().await.unwrap_err().kind(),
        StoreErrorKind::Corrupt
    );
}

// === A disk that is full ===

/// A process that cannot write fails when it takes the lock, before it presents a refresh token.
#[cfg(unix)]
#[tokio::test]
async fn a_full_disk_is_detected_before_a_token_is_presented() {
    let directory = tempfile::tempdir().unwrap();
    let org = tower_salesforce_auth::emulator::Org::new();
    let served = org.serve().await.unwrap();
    save(&open(&directory), crate::support::session(&org.authorize())).await;
    org.expire_sessions();
    let before = fs::read(open(&directory).path(KEY)).unwrap();
    let nothing = serde_json::json!({});
    let mut program =
        Program::start_without_disk("file::without_disk", &org, directory.path(), &nothing);
    let said = program.hear().await;
    assert!(said.starts_with("Store Some(Unavailable)"), "{said}");
    program.end().await;
    assert_eq!(org.counters().token_requests, 0);
    assert_eq!(fs::read(open(&directory).path(KEY)).unwrap(), before);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    served.shutdown().await;
}

#[tokio::test]
#[ignore = "a process of another test"]
async fn without_disk() {
    let Some(part) = part() else { return };
    let store = FileStore::open(part["directory"].as_str().unwrap()).unwrap();
    let handle = SessionHandle::builder(crate::support::flow(&part))
        .refresh_timeout(Duration::from_millis(500))
        .store(store, KEY)
        .build();
    let layer = SalesforceAuthLayer::from(handle);
    let error = crate::support::get_limits(&layer).await.unwrap_err();
    let error: &tower_salesforce_auth::Error = error.downcast_ref().unwrap();
    let error = error.refresh_error().unwrap();
    let cause = error.store_error();
    say(format_args!(
        "{:?} {:?} {cause:?}",
        error.kind(),
        cause.map(StoreError::kind)
    ));
}

// === Encryption ===

fn encrypted(directory: impl AsRef<Path>, key: u8) -> FileStore {
    open(directory).encryption(EncryptionKey::new([key; 32]))
}

#[tokio::test]
async fn an_encrypted_session_can_be_read_only_with_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let store = encrypted(&directory, 1);
    save(&store, whole_session()).await;
    let text = fs::read_to_string(store.path(KEY)).unwrap();
    assert!(
        !text.contains("SECRET") && !text.contains("salesforce.com"),
        "{text}"
    );
    assert_eq!(
        stored(&store).await.unwrap().access_token().expose(),
        "SECRET-access"
    );

    assert_eq!(
        kind(&encrypted(&directory, 2)).await,
        StoreErrorKind::Undecryptable
    );
    assert_eq!(kind(&open(&directory)).await, StoreErrorKind::Undecryptable);
    // Two saves of the same record have different ciphertexts.
    save(&store, whole_session()).await;
    let again = fs::read_to_string(store.path(KEY)).unwrap();
    let ciphertext = |text: &str| text.split(r#""ciphertext":""#).nth(1).unwrap()[..40].to_owned();
    assert_ne!(ciphertext(&text), ciphertext(&again));
}

#[tokio::test]
async fn an_encrypted_session_cannot_be_changed_or_moved() {
    let directory = tempfile::tempdir().unwrap();
    let store = encrypted(&directory, 1);
    save(&store, whole_session()).await;
    let text = fs::read_to_string(store.path(KEY)).unwrap();
    // Every change of one character is detected.
    let key = EncryptionKey::new([1; 32]);
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let Ok(changed) = String::from_utf8(changed) else {
            continue;
        };
        let error = key.open(KEY, &changed).expect_err(&changed);
        assert!(error.is_terminal(), "{error:?}");
    }
    fs::copy(store.path(KEY), store.path("another user")).unwrap();
    let error = store.load("another user").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Undecryptable);

    // Text that is no record is not called one without encryption.
    fs::write(store.path(KEY), "no record").unwrap();
    assert_eq!(kind(&store).await, StoreErrorKind::Corrupt);

    // A record without encryption is refused.
    let plain = Record::new(whole_session()).encode();
    fs::write(store.path(KEY), plain.expose()).unwrap();
    assert_eq!(kind(&store).await, StoreErrorKind::Undecryptable);
}
