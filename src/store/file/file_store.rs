//! A session store in a directory.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{
    access::{ensure_directory, stamp},
    record_files::{LONGEST_RECORD, LockFile, RecordFiles},
};
#[cfg(feature = "encryption")]
use crate::store::encryption::EncryptionKey;
use crate::{
    error::{StoreError, StoreErrorKind},
    store::{
        encoding::Encoding,
        record::{self, Record},
        save::Save,
        session_store::{BoxFuture, SessionStore, StoreLock},
        version::Version,
    },
};

const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before the second attempt to take a held lock. It doubles with each attempt, up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

const DEFAULT_NOTICE_INTERVAL: Duration = Duration::from_millis(500);

/// A shorter pause would keep a thread busy.
const SHORTEST_NOTICE_INTERVAL: Duration = Duration::from_millis(10);

/// Keeps each session in a file of a directory, for the processes of one machine.
///
/// ```
/// use tower_salesforce_auth::{
///     Session,
///     store::{FileStore, Record, Save, SessionStore},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let home = tempfile::tempdir()?;
/// # let home = home.path();
/// let store = FileStore::open(home.join("salesforce-sessions"))?;
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// let record = Record::new(session);
/// store.lock("nightly-export").await?.save(Save::new(&record)).await?;
///
/// let again = FileStore::open(home.join("salesforce-sessions"))?;
/// assert!(again.load("nightly-export").await?.is_some());
/// # Ok(())
/// # }
/// ```
///
/// # The files
///
/// `<key>-<hash>.json` is a record: one line of JSON, which includes the version of its format. The name begins with the
/// readable characters of the key, and ends with a hash of the whole key. So no key leads out of the directory, and no
/// two keys share a file, on any file system. [`path`](Self::path) returns the name.
///
/// A save writes `<key>-<hash>.<random>.tmp`, flushes it to the disk (`fsync`), renames it over the record, and flushes the
/// directory. If the machine stops at any moment, the record is the old one or the new one.
///
/// While a record is locked, there is a `<key>-<hash>.lock` with an advisory lock of the operating system (`flock`,
/// `LockFileEx`). The operating system releases it when the process ends in any way. The next holder removes the files
/// that a killed process left. On Unix an unlocked record has no lock file; on other systems the lock file stays.
///
/// A directory that was removed, for example by a program that cleans up, is made again by the next lock. A byte order
/// mark before a record is ignored. A record that cannot be used stays as it is, and the error names its file.
///
/// # Who has access
///
/// On Unix only the owner has access to the directory that the store makes (`0700`) and to the files (`0600`). The store
/// follows no link in the directory, and creates files under names that nothing else had.
///
/// | on Unix | what the store does |
/// |---|---|
/// | a directory that everyone can write to | refuses it: [`StoreErrorKind::Unavailable`] |
/// | a directory of another user, whose group this process does not have | refuses it likewise |
/// | a directory that its group can write to, as those of Kubernetes volumes with an `fsGroup` | uses it: each file is checked |
/// | a record or lock that is a link, a pipe or a directory, or belongs to another user | refuses it: [`StoreErrorKind::Untrusted`] |
/// | a record that other users can read or change, because its mode and the directory's let them | refuses it likewise |
///
/// Kubernetes adds access for the group (`0660`) to every file of a volume with an `fsGroup`, whenever a pod starts. The
/// store uses such a record, if the directory has that group too. On other systems, the files inherit the permissions of
/// the parent directory.
///
/// A network file system works if all machines see its locks.
///
/// # The lock
///
/// The lock belongs to the open file, not to the process. So it also excludes two stores of one process from each other.
/// [`SessionStore::lock`] tries again until [`lock_timeout`](Self::lock_timeout) has passed. It also reserves disk space
/// for a record: a full or read-only disk then fails before a refresh token is used.
///
/// # Notices
///
/// While a handle [follows the store](crate::handle::SessionHandleBuilder::follow_store), the store looks at the record's file
/// at an [interval](Self::notice_interval): at its identity, its length and the time of its last change. It reads the file if one
/// of them is another one.
///
/// All file operations run on tokio's blocking threads.
#[derive(Clone)]
pub struct FileStore {
    directory: Arc<Path>,
    lock_timeout: Duration,
    notice_interval: Duration,
    encoding: Encoding,
}

impl FileStore {
    /// Opens a store in this directory, and creates the directory if it does not exist.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Unavailable`] if the directory cannot be created, is not a directory, or is refused because of
    /// [who has access](Self#who-has-access).
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let directory = directory.into();
        // An absolute path stays valid when the process changes its working directory.
        let directory = std::path::absolute(&directory).unwrap_or(directory);
        ensure_directory(&directory)?;
        Ok(Self {
            directory: directory.into(),
            lock_timeout: DEFAULT_LOCK_TIMEOUT,
            notice_interval: DEFAULT_NOTICE_INTERVAL,
            encoding: Encoding::default(),
        })
    }

    /// Sets how long to wait for a lock that is held elsewhere. Default: 10 s.
    ///
    /// It should be shorter than the refresh timeout.
    #[must_use]
    pub fn lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.lock_timeout = lock_timeout;
        self
    }

    /// Sets how long after a save, at most, another process that follows the store notices it. Default: 500 ms.
    ///
    /// A shorter interval than 10 ms counts as 10 ms.
    #[must_use]
    pub fn notice_interval(mut self, notice_interval: Duration) -> Self {
        self.notice_interval = notice_interval.max(SHORTEST_NOTICE_INTERVAL);
        self
    }

    /// Encrypts saved records. The store refuses records that are not encrypted with this key, or with one of its
    /// [older keys](EncryptionKey::or).
    #[cfg(feature = "encryption")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
    #[must_use]
    pub fn encryption(mut self, key: EncryptionKey) -> Self {
        self.encoding = Encoding::encrypted(key);
        self
    }

    /// The path of the file in which the record of this key is kept.
    pub fn path(&self, key: &str) -> PathBuf {
        self.files(key).record
    }

    fn files(&self, key: &str) -> RecordFiles {
        let readable: String = key
            .chars()
            .take(32)
            .map(|char| match char.to_ascii_lowercase() {
                char @ ('a'..='z' | '0'..='9' | '-' | '_') => char,
                _ => '_',
            })
            .collect();
        let hash = record::fingerprint(key);
        RecordFiles::new(
            Arc::clone(&self.directory),
            format!("{readable}-{hash:032x}"),
        )
    }

    async fn read(&self, key: &str, files: RecordFiles) -> Result<Option<Record>, StoreError> {
        let (store, key) = (self.clone(), key.to_owned());
        blocking(move || store.read_now(&key, &files)).await
    }

    fn read_now(&self, key: &str, files: &RecordFiles) -> Result<Option<Record>, StoreError> {
        let Some(found) = files.read()? else {
            return Ok(None);
        };
        let decoded = self.encoding.decode(key, &found.text).map_err(|error| {
            let message = format!("{error} (the file is {})", files.record.display());
            StoreError::new(error.kind(), message).with_source(error)
        })?;
        found.reach.map(|()| Some(decoded))
    }
}

impl SessionStore for FileStore {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(self.read(key, self.files(key)))
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let since = Instant::now();
            let mut pause = FIRST_PAUSE;
            loop {
                let files = self.files(key);
                if let Some(held) = blocking(move || LockFile::try_lock(files)).await? {
                    let locked: Box<dyn StoreLock> = Box::new(FileStoreLock {
                        store: self.clone(),
                        key: key.to_owned(),
                        held: Arc::new(held),
                    });
                    return Ok(locked);
                }
                if since.elapsed() + pause > self.lock_timeout {
                    return Err(StoreError::new(
                        StoreErrorKind::LockBusy,
                        format!(
                            "another process holds the lock of the session, {}, and did not release it within {:?}",
                            self.files(key).lock.display(),
                            self.lock_timeout
                        ),
                    ));
                }
                sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        })
    }

    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let path = self.path(key);
            let mut last = None;
            loop {
                let path = path.clone();
                // Looked at before it is read: what is saved in between is another file the next time.
                let now = blocking(move || Ok(stamp(&path))).await.ok();
                if last != now {
                    match self.load(key).await {
                        Ok(record) if record.as_ref().map(Record::version) == since => last = now,
                        // A record that cannot be read is told of, too: the load that follows says so.
                        _ => return,
                    }
                }
                sleep(self.notice_interval).await;
            }
        })
    }
}

/// The store lock of one key.
struct FileStoreLock {
    store: FileStore,
    key: String,
    /// Shared with each save and deletion, so that the lock is held until they end, even if their futures are dropped.
    held: Arc<LockFile>,
}

impl StoreLock for FileStoreLock {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(self.store.read(&self.key, self.held.files.clone()))
    }

    fn save<'a>(&'a mut self, save: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let text = self.store.encoding.encode(&self.key, save.record())?;
            if text.expose().len() as u64 > LONGEST_RECORD {
                let message =
                    "the session is too long to be stored: its record has more than 1 MiB";
                return Err(StoreError::new(StoreErrorKind::Corrupt, message));
            }
            let turn = self.held.turn();
            let held = Arc::clone(&self.held);
            let (store, key) = (self.store.clone(), self.key.clone());
            let (record, replaces) = (save.record().clone(), save.replaces());
            blocking(move || {
                held.save(turn, text.expose().as_bytes(), |files| {
                    let stored = store.read_now(&key, files)?;
                    let save = Save::new(&record).replacing(replaces);
                    save.is_permitted(stored.as_ref().map(Record::version))
                })
            })
            .await
        })
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        let turn = self.held.turn();
        let held = Arc::clone(&self.held);
        Box::pin(blocking(move || held.delete(turn)))
    }

    fn unlock(self: Box<Self>) -> BoxFuture<'static, ()> {
        // If the runtime is shut down, the closure is dropped, and the lock with it.
        Box::pin(async { drop(spawn_blocking(|| drop(self)).await) })
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(StoreError::new(
            StoreErrorKind::Unavailable,
            "the runtime of the session store was shut down",
        )
        .with_source(error))
    })
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("directory", &self.directory)
            .field("lock_timeout", &self.lock_timeout)
            .field("notice_interval", &self.notice_interval)
            .finish_non_exhaustive()
    }
}
