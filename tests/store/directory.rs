//! `FileStore`: what cleaners, editors, crashes and other users do to its directory and files.

use std::{error::Error as StdError, fs, path::Path, time::Duration};

use tower_salesforce_auth::{
    RefreshContext, Session, SessionHandle,
    store::{FileStore, Record, Save, SessionStore, StoreError, StoreErrorKind},
};

use crate::support::{KEY, save, stored, write_record};

fn session(token: &str) -> Session {
    Session::new(token, "https://example.my.salesforce.com")
        .unwrap()
        .with_refresh_token("R0")
}

fn open(directory: impl AsRef<Path>) -> FileStore {
    let store = FileStore::open(directory.as_ref()).unwrap();
    store.lock_timeout(Duration::from_millis(50))
}

fn handle(store: FileStore) -> SessionHandle {
    SessionHandle::builder(async |_: RefreshContext| Ok(session("T1")))
        .store(store, KEY)
        .build()
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += " <- ";
        text += &error.to_string();
        cause = error.source();
    }
    text
}

async fn lock_error(store: &FileStore) -> StoreError {
    match store.lock(KEY).await {
        Ok(_) => panic!("it was locked"),
        Err(error) => error,
    }
}

// === Cleaners ===

/// `systemd-tmpfiles` and its like remove directories of programs that run (systemd/systemd#30760).
#[tokio::test]
async fn a_directory_that_was_removed_is_made_again() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("far/away");
    let store = open(&directory);
    for removed in [directory.as_path(), directory.parent().unwrap()] {
        save(&store, session("T0")).await;
        fs::remove_dir_all(removed).unwrap();
        assert!(store.load(KEY).await.unwrap().is_none());
        save(&store, session("T0")).await;
        assert!(stored(&store).await.is_some());
    }
    fs::remove_dir_all(&directory).unwrap();
    let mut lock = store.lock(KEY).await.unwrap();
    lock.delete().await.unwrap();
    lock.unlock().await;
    // Before the first lock, too.
    let directory = parent.path().join("another");
    let store = open(&directory);
    fs::remove_dir(&directory).unwrap();
    save(&store, session("T0")).await;
    assert!(stored(&store).await.is_some());
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_removed_under_a_lock_loses_no_session() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("sessions");
    let store = open(&directory);
    let mut lock = store.lock(KEY).await.unwrap();
    fs::remove_dir_all(&directory).unwrap();
    let record = Record::new(session("T0"));
    let error = lock.save(Save::new(&record)).await.unwrap_err();
    assert!(error.to_string().contains("lock of the session was lost"));
    lock.unlock().await;

    // A handle takes the lock again, and saves what the call returned.
    let removed = directory.clone();
    let refresh = move |_: RefreshContext| {
        let _ = fs::remove_dir_all(&removed);
        async { Ok(session("T1")) }
    };
    let handle = SessionHandle::builder(refresh)
        .store(store.clone(), KEY)
        .build();
    handle.session().await.unwrap();
    assert!(!handle.has_unsaved_refresh_token());
    assert_eq!(stored(&store).await.unwrap().access_token().expose(), "T1");
}

#[tokio::test]
async fn a_file_in_place_of_the_directory_is_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("sessions");
    let store = open(&directory);
    fs::remove_dir(&directory).unwrap();
    fs::write(&directory, "a file").unwrap();
    let error = lock_error(&store).await;
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("sessions"), "{error}");
    store.load(KEY).await.unwrap_err();
}

// === Crashes and editors ===

/// A crash of the machine may leave an empty file, or one of NULs. The error says which file to delete.
#[tokio::test]
async fn a_broken_record_is_named_with_its_file() {
    let whole = Record::new(session("T0")).encode().expose().to_owned();
    let utf_16 = whole.encode_utf16().flat_map(u16::to_le_bytes);
    for content in [
        Vec::new(),
        vec![0; 512],
        b"{\"format\":".to_vec(),
        b"\n".to_vec(),
        b"null".to_vec(),
        b"{\"format\":\"other\",\"version\":1}".to_vec(),
        whole[..whole.len() / 2].into(),
        [whole.as_bytes(), &[0; 16]].concat(),
        [&b"\xff\xfe"[..], &utf_16.collect::<Vec<_>>()].concat(),
        vec![b' '; 2 * 1024 * 1024],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        fs::write(store.path(KEY), &content).unwrap();
        let error = store.load(KEY).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
        let name = store.path(KEY).file_name().unwrap().to_owned();
        let name = name.to_string_lossy().into_owned();
        let of_the_handle = chain(&handle(store.clone()).session().await.unwrap_err());
        for told in [error.to_string(), of_the_handle] {
            assert!(told.contains(&name) && told.contains("delete it"), "{told}");
        }
        assert_eq!(fs::read(store.path(KEY)).unwrap(), content);
    }
}

#[tokio::test]
async fn a_record_that_an_editor_saved_is_used() {
    let whole = Record::new(session("T0")).encode().expose().to_owned();
    for content in [
        format!("\u{feff}{whole}"),
        format!("{whole}\n"),
        format!("{whole}\r\n"),
        format!("\n  {whole}  \n\n"),
        whole.replace(",\"", ",\r\n\t\"").replace("\":", "\" : "),
        format!("\u{feff}{}\r\n", whole.replace(",\"", ",\r\n\"")),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        write_record(&store.path(KEY), &content);
        let session = stored(&store).await.unwrap();
        assert_eq!(session.access_token().expose(), "T0", "{content}");
        // Editors leave copies beside it.
        for copy in ["json~", "json.bak", "json.swp"] {
            fs::write(store.path(KEY).with_extension(copy), "an old copy").unwrap();
        }
        save(&store, crate::directory::session("T1")).await;
        assert_eq!(stored(&store).await.unwrap().access_token().expose(), "T1");
    }
}

#[tokio::test]
async fn temporaries_of_killed_processes_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let record = store.path(KEY);
    for left in ["tmp", "0123456789abcdef.tmp", "fedcba9876543210.tmp"] {
        fs::write(record.with_extension(left), "half of a rec").unwrap();
    }
    let of_others = store.path("another").with_extension("0123.tmp");
    fs::write(&of_others, "under another lock").unwrap();
    save(&store, session("T0")).await;
    let left = fs::read_dir(&directory).unwrap().count();
    assert_eq!(left, if cfg!(unix) { 2 } else { 3 });
    assert!(of_others.exists());
}

// === Other users ===

#[cfg(unix)]
mod access {
    use std::os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        net::UnixListener,
    };

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    /// Puts something that is no regular file at `path`. Its target, for a link, is `elsewhere`.
    fn put(kind: &str, path: &Path, elsewhere: &Path) {
        match kind {
            "link" => symlink(elsewhere, path).unwrap(),
            "dangling link" => symlink(elsewhere.join("nothing"), path).unwrap(),
            "directory" => fs::create_dir(path).unwrap(),
            "socket" => drop(UnixListener::bind(path).unwrap()),
            _ => {
                let made = std::process::Command::new("mkfifo").arg(path).status();
                assert!(made.unwrap().success());
            }
        }
    }

    const KINDS: [&str; 5] = ["link", "dangling link", "directory", "socket", "pipe"];

    #[tokio::test]
    async fn a_record_that_is_no_regular_file_is_refused() {
        for kind in KINDS {
            let elsewhere = tempfile::tempdir().unwrap();
            save(&open(&elsewhere), session("T0")).await;
            let directory = tempfile::tempdir().unwrap();
            let store = open(&directory);
            put(kind, &store.path(KEY), &open(&elsewhere).path(KEY));
            let error = store.load(KEY).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Untrusted, "{kind}: {error}");
            assert!(error.is_terminal() && error.to_string().contains("Delete it"));
            let told = match kind {
                "link" | "dangling link" => "it is a link,",
                "directory" => "it is a directory,",
                _ => "it is a pipe, a socket or a device,",
            };
            assert!(error.to_string().contains(told), "{kind}: {error}");
            let mut lock = store.lock(KEY).await.unwrap();
            let error = lock.load().await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Untrusted, "{kind}: {error}");
            // A save does not replace what is there. A deletion does not follow a link.
            let record = Record::new(session("T1"));
            let error = lock.save(Save::new(&record)).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Untrusted, "{kind}: {error}");
            if kind != "directory" {
                lock.delete().await.unwrap();
                lock.save(Save::new(&record)).await.unwrap();
                assert_eq!(stored(&store).await.unwrap().access_token().expose(), "T1");
            }
            let kept = stored(&open(&elsewhere)).await.unwrap();
            assert_eq!(kept.access_token().expose(), "T0");
        }
    }

    #[tokio::test]
    async fn a_lock_that_is_no_regular_file_is_refused() {
        for kind in KINDS {
            let directory = tempfile::tempdir().unwrap();
            let store = open(&directory);
            let elsewhere = directory.path().join("elsewhere");
            fs::write(&elsewhere, "as it was").unwrap();
            let lock = store.path(KEY).with_extension("lock");
            put(kind, &lock, &elsewhere);
            let error = lock_error(&store).await;
            assert_eq!(error.kind(), StoreErrorKind::Untrusted, "{kind}: {error}");
            assert!(error.to_string().contains(".lock"), "{error}");
            assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "as it was");
        }
    }

    /// The names of temporary files were once known in advance.
    #[tokio::test]
    async fn a_temporary_file_that_waits_gets_no_token() {
        for kind in ["link", "dangling link", "file"] {
            let directory = tempfile::tempdir().unwrap();
            set_mode(directory.path(), 0o770);
            let store = open(&directory);
            let elsewhere = directory.path().join("elsewhere");
            fs::create_dir(&elsewhere).unwrap();
            let trap = store.path(KEY).with_extension("tmp");
            if kind == "file" {
                fs::write(&trap, "").unwrap();
                set_mode(&trap, 0o666);
            } else {
                let target = elsewhere.join("stolen");
                if kind == "link" {
                    fs::write(&target, "").unwrap();
                }
                symlink(&target, &trap).unwrap();
            }
            let mut lock = store.lock(KEY).await.unwrap();
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                assert!(path == elsewhere || mode(&path) == 0o600, "{path:?}");
            }
            let first = Record::new(session("T0"));
            let second = first.followed_by(session("T1"));
            lock.save(Save::new(&first)).await.unwrap();
            lock.save(Save::new(&second).replacing(first.version()))
                .await
                .unwrap();
            lock.unlock().await;
            assert_eq!(mode(&store.path(KEY)), 0o600);
            for entry in fs::read_dir(&elsewhere).unwrap() {
                assert_eq!(fs::read(entry.unwrap().path()).unwrap(), b"");
            }
        }
    }

    #[tokio::test]
    async fn a_record_that_others_can_reach_is_refused() {
        for (directory_mode, record_mode) in [
            (0o755, 0o644),
            (0o755, 0o604),
            (0o711, 0o606),
            (0o750, 0o640),
            (0o770, 0o660),
            (0o775, 0o644),
            (0o2775, 0o664),
            (0o2770, 0o640),
        ] {
            let directory = tempfile::tempdir().unwrap();
            set_mode(directory.path(), directory_mode);
            let store = open(&directory);
            save(&store, session("SECRET-token")).await;
            set_mode(&store.path(KEY), record_mode);
            let case = format!("{record_mode:o} in {directory_mode:o}");
            let error = store.load(KEY).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Untrusted, "{case}: {error}");
            let told = error.to_string();
            assert!(
                told.contains(&format!("(mode {record_mode:o})")) && told.contains("chmod 600")
            );
            let error = handle(store.clone()).session().await.unwrap_err();
            let told = chain(&error);
            assert!(
                told.contains("chmod 600") && !told.contains("SECRET"),
                "{told}"
            );
            // The remedy helps.
            set_mode(&store.path(KEY), 0o600);
            assert!(stored(&store).await.is_some());
        }
    }

    #[tokio::test]
    async fn a_record_that_its_directory_protects_is_used() {
        for (directory_mode, record_mode) in [
            (0o700, 0o644),
            (0o700, 0o666),
            (0o755, 0o600),
            (0o770, 0o600),
            (0o775, 0o400),
            // Kubernetes, when a pod with an `fsGroup` starts.
            (0o2770, 0o660),
            (0o2775, 0o660),
        ] {
            let directory = tempfile::tempdir().unwrap();
            set_mode(directory.path(), directory_mode);
            let store = open(&directory);
            save(&store, session("T0")).await;
            set_mode(&store.path(KEY), record_mode);
            assert!(stored(&store).await.is_some());
            save(&store, session("T1")).await;
            assert_eq!(mode(&store.path(KEY)), 0o600);
        }
    }

    #[tokio::test]
    async fn a_directory_that_everyone_can_write_to_is_refused() {
        for open_mode in [0o777, 0o1777, 0o702, 0o2777] {
            let directory = tempfile::tempdir().unwrap();
            let store = open(&directory);
            set_mode(directory.path(), open_mode);
            let at_the_lock = lock_error(&store).await;
            let at_once = FileStore::open(directory.path()).unwrap_err();
            for error in [at_once, at_the_lock] {
                assert_eq!(error.kind(), StoreErrorKind::Unavailable);
                assert!(chain(&error).contains("separate directory"), "{error:?}");
            }
            // A directory below it is safe.
            let below = open(directory.path().join("sessions"));
            save(&below, session("T0")).await;
        }
    }

    /// Only the superuser can make files of others.
    #[tokio::test]
    async fn files_of_another_user_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(parent.path()).unwrap();
        if metadata.uid() != 0 {
            return;
        }
        let store = open(parent.path().join("sessions"));
        save(&store, session("T0")).await;
        chown(store.path(KEY), Some(4711), None).unwrap();
        let error = store.load(KEY).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Untrusted);
        assert!(error.to_string().contains("user 4711"), "{error}");
        chown(store.path(KEY), Some(0), None).unwrap();
        assert!(stored(&store).await.is_some());

        let lock = store.path(KEY).with_extension("lock");
        fs::write(&lock, "").unwrap();
        chown(&lock, Some(4711), None).unwrap();
        let error = lock_error(&store).await;
        assert_eq!(error.kind(), StoreErrorKind::Untrusted);
        assert!(error.to_string().contains("user 4711"), "{error}");
    }

    #[tokio::test]
    async fn a_directory_of_another_user_needs_a_common_group() {
        let parent = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(parent.path()).unwrap();
        if metadata.uid() != 0 {
            return;
        }
        let directory = parent.path().join("sessions");
        let store = open(&directory);
        chown(&directory, Some(4711), Some(4711)).unwrap();
        let error = FileStore::open(&directory).unwrap_err();
        assert!(chain(&error).contains("user 4711"), "{error:?}");
        assert!(chain(&lock_error(&store).await).contains("user 4711"));
        chown(&directory, Some(4711), Some(metadata.gid())).unwrap();
        set_mode(&directory, 0o2775);
        save(&store, session("T0")).await;
        assert!(stored(&store).await.is_some());
    }
}
