//! A session store in a directory.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use zeroize::Zeroizing;

use super::{
    encryption::EncryptionKey,
    record::{self, Record},
    session_store::{BoxFuture, SessionStore, StoreLock},
};
use crate::error::{StoreError, StoreErrorKind};

const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before the second attempt to take a held lock. It doubles with each attempt, up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Longest record in bytes that is saved or read.
const LONGEST_RECORD: u64 = 1024 * 1024;

/// Disk space in bytes that a lock reserves. The longest records, with JWTs as tokens, are shorter.
const RESERVED_SPACE: usize = 16 * 1024;

/// Keeps each session in a file of a directory, for the processes of one machine.
///
/// ```
/// use tower_salesforce_auth::{
///     Session,
///     store::{FileStore, Record, SessionStore},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let home = tempfile::tempdir()?;
/// # let home = home.path();
/// let store = FileStore::open(home.join("salesforce-sessions"))?;
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// store.lock("nightly-export").await?.save(&Record::new(session)).await?;
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
/// A save writes `<key>-<hash>.tmp`, flushes it to the disk (`fsync`), renames it over the record, and flushes the
/// directory. If the machine stops at any moment, the record is the old one or the new one.
///
/// While a record is locked, there is a `<key>-<hash>.lock` with an advisory lock of the operating system (`flock`,
/// `LockFileEx`). The operating system releases it when the process ends in any way. The next holder takes over the files
/// that a killed process left. On Unix an unlocked record has no lock file; on other systems the lock file stays.
///
/// On Unix only the owner has access to the directory (`0700`) and to the files (`0600`). A directory that everyone can
/// write to is refused. On other systems, both inherit the permissions of the parent directory.
///
/// A network file system works if all machines see its locks.
///
/// # The lock
///
/// The lock belongs to the open file, not to the process. So it also excludes two stores of one process from each other.
/// [`SessionStore::lock`] tries again until [`lock_timeout`](Self::lock_timeout) has passed. It also reserves disk space
/// for a record: a full or read-only disk then fails before a refresh token is used.
///
/// All file operations run on tokio's blocking threads.
#[derive(Clone)]
pub struct FileStore {
    directory: Arc<Path>,
    lock_timeout: Duration,
    encryption: Option<EncryptionKey>,
}

impl FileStore {
    /// Opens a store in this directory, and creates the directory if it does not exist.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Unavailable`] if the directory cannot be created, is not a directory, or everyone can write to it.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let directory = directory.into();
        // An absolute path stays valid when the process changes its working directory.
        let directory = std::path::absolute(&directory).unwrap_or(directory);
        make_directory(&directory)
            .and_then(|()| check_directory(&directory))
            .map_err(|error| {
                failed(
                    "the directory of the session store cannot be used",
                    &directory,
                    error,
                )
            })?;
        Ok(Self {
            directory: directory.into(),
            lock_timeout: DEFAULT_LOCK_TIMEOUT,
            encryption: None,
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

    /// Encrypts saved records. The store refuses records that are not encrypted with this key.
    #[cfg(feature = "encryption")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
    #[must_use]
    pub fn encryption(mut self, key: EncryptionKey) -> Self {
        self.encryption = Some(key);
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
        let file = |extension| {
            self.directory
                .join(format!("{readable}-{hash:032x}.{extension}"))
        };
        RecordFiles {
            directory: Arc::clone(&self.directory),
            record: file("json"),
            temporary: file("tmp"),
            lock: file("lock"),
        }
    }

    fn encode(&self, key: &str, record: &Record) -> Result<Zeroizing<String>, StoreError> {
        match &self.encryption {
            Some(encryption) => encryption.seal(key, record).map(Zeroizing::new),
            None => Ok(Zeroizing::new(record.encode().expose().to_owned())),
        }
    }

    fn decode(&self, key: &str, text: &str) -> Result<Record, StoreError> {
        match &self.encryption {
            Some(encryption) => encryption.open(key, text),
            None => Record::decode(text),
        }
    }

    async fn read(&self, key: &str, files: RecordFiles) -> Result<Option<Record>, StoreError> {
        let text = blocking(move || files.read()).await?;
        text.map(|text| self.decode(key, &text)).transpose()
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

    fn save<'a>(&'a mut self, record: &'a Record) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let text = self.store.encode(&self.key, record)?;
            if text.len() as u64 > LONGEST_RECORD {
                return Err(record::corrupt("the session is too long to be stored"));
            }
            let turn = self.held.turn();
            let held = Arc::clone(&self.held);
            blocking(move || held.run(turn, |held| held.replace(text.as_bytes()))).await
        })
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        let turn = self.held.turn();
        let held = Arc::clone(&self.held);
        Box::pin(blocking(move || held.run(turn, LockFile::delete)))
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

// === RecordFiles ===

/// The paths of the files of one key.
#[derive(Clone)]
struct RecordFiles {
    directory: Arc<Path>,
    record: PathBuf,
    temporary: PathBuf,
    lock: PathBuf,
}

impl RecordFiles {
    fn read(&self) -> Result<Option<Zeroizing<String>>, StoreError> {
        let cannot_read = |error| failed("the session record cannot be read", &self.record, error);
        let file = match File::open(&self.record) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot_read(error)),
        };
        let len = file.metadata().map_err(cannot_read)?.len();
        if len > LONGEST_RECORD {
            return Err(record::corrupt(
                "the file of the session record is too long",
            ));
        }
        let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1));
        file.take(LONGEST_RECORD)
            .read_to_end(&mut text)
            .map_err(cannot_read)?;
        match str::from_utf8(&text) {
            Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
            Err(_) => Err(record::corrupt(
                "the file of the session record is not text",
            )),
        }
    }
}

// === LockFile ===

/// The lock file of a key, locked. Dropping it releases the lock.
struct LockFile {
    files: RecordFiles,
    /// Closing it releases the lock.
    file: File,
    /// How many saves and deletions were started.
    turns: AtomicU64,
    /// The number of the last save or deletion that ran. One whose future was dropped may run late, and is then skipped.
    done: Mutex<u64>,
}

impl LockFile {
    /// Takes the lock. `None` if it is held elsewhere.
    fn try_lock(files: RecordFiles) -> Result<Option<Self>, StoreError> {
        let cannot_lock = |error| {
            failed(
                "the lock of the session cannot be taken",
                &files.lock,
                error,
            )
        };
        let file = for_owner().open(&files.lock).map_err(cannot_lock)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(cannot_lock(error)),
        }
        if !is_at(&file, &files.lock).map_err(cannot_lock)? {
            // The previous holder removed the file after it was opened here.
            return Ok(None);
        }
        // From here on, dropping `held` removes the lock file, also if an error follows.
        let held = Self {
            files,
            file,
            turns: AtomicU64::new(0),
            done: Mutex::new(0),
        };
        held.reserve_space().map_err(|error| {
            failed(
                "a session record could not be saved",
                &held.files.temporary,
                error,
            )
        })?;
        Ok(Some(held))
    }

    /// The number of the next save or deletion.
    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Runs a save or deletion, unless a later one has already run.
    fn run(
        &self,
        turn: u64,
        work: impl FnOnce(&Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if turn < *done {
            return Ok(());
        }
        *done = turn;
        if !self.is_held().unwrap_or(false) {
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                format!(
                    "the lock of the session was lost while it was held: another program removed {}",
                    self.files.lock.display()
                ),
            ));
        }
        work(self)
    }

    /// Whether other processes still see this lock file.
    fn is_held(&self) -> io::Result<bool> {
        is_at(&self.file, &self.files.lock)
    }

    /// Reserves disk space for a record.
    fn reserve_space(&self) -> io::Result<()> {
        let mut file = for_owner().open(&self.files.temporary)?;
        file.set_len(0)?;
        file.write_all(&vec![b' '; RESERVED_SPACE])
    }

    /// Replaces the record.
    fn replace(&self, text: &[u8]) -> Result<(), StoreError> {
        let replace = || {
            let mut file = for_owner().open(&self.files.temporary)?;
            file.write_all(text)?;
            file.set_len(text.len() as u64)?;
            file.sync_all()?;
            drop(file);
            fs::rename(&self.files.temporary, &self.files.record)?;
            sync_directory(&self.files.directory)
        };
        replace().map_err(|error| {
            failed(
                "the session record cannot be saved",
                &self.files.record,
                error,
            )
        })
    }

    /// Deletes the record.
    fn delete(&self) -> Result<(), StoreError> {
        match fs::remove_file(&self.files.record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_directory(&self.files.directory),
        }
        .map_err(|error| {
            failed(
                "the session record cannot be deleted",
                &self.files.record,
                error,
            )
        })
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // If the lock was lost, the files belong to another holder. A file that cannot be removed does no harm.
        if self.is_held().unwrap_or(false) {
            let _ = fs::remove_file(&self.files.temporary);
            if cfg!(unix) {
                let _ = fs::remove_file(&self.files.lock);
            }
        }
    }
}

// === File system ===

/// The options that open a file for its owner alone.
fn for_owner() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn check_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let mode = fs::metadata(directory)?.permissions().mode();
    if mode & 0o002 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "everyone can write to it (mode {:o}): use a separate directory for the sessions, or restrict it with \
                 `chmod 700`",
                mode & 0o7777
            ),
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

/// Flushes the entries of a directory to the disk.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some network file systems cannot flush a directory.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether `path` still refers to this file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    let there = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        there => there?,
    };
    let here = file.metadata()?;
    Ok((here.dev(), here.ino()) == (there.dev(), there.ino()))
}

#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> io::Result<bool> {
    // On these systems the lock file is never removed.
    Ok(true)
}

fn failed(what: &str, path: &Path, error: io::Error) -> StoreError {
    StoreError::new(
        StoreErrorKind::Unavailable,
        format!("{what}: {}", path.display()),
    )
    .with_source(error)
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("directory", &self.directory)
            .field("lock_timeout", &self.lock_timeout)
            .finish_non_exhaustive()
    }
}
