//! Sessions in a directory.

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

/// How soon to ask again for a lock that somebody has, at first and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// No record is longer.
const LONGEST_RECORD: u64 = 1024 * 1024;

/// What is set aside on the disk before a token is used up. The longest records, with tokens that are JWTs, are shorter.
const ROOM: usize = 16 * 1024;

/// Keeps each session in a file of a directory, for the processes of one machine.
///
/// ```
/// use tower_salesforce_auth::{Session, store::{FileStore, Record, SessionStore}};
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
/// `<key>-<hash>.json` is a record: one line of JSON, with the version of the format in it. The name begins with what is
/// legible of the key, and goes on with a hash of all of it, so that no key leads out of the directory, and no two keys to
/// one file, on any file system. [`path`](Self::path) tells it.
///
/// A save writes `<key>-<hash>.tmp`, has it written to the disk (`fsync`), renames it over the record, and does the same
/// for the directory: whenever the machine stops, there is the old record or the new one. While it is locked there is a
/// `<key>-<hash>.lock`, with an advisory lock of the operating system (`flock`, `LockFileEx`) on it. The operating system
/// releases that when the process ends, however it does; what a killed process leaves of the files is taken over by the
/// next. On Unix an unlocked record has no lock file; elsewhere that stays.
///
/// On Unix the directory is made for its owner only (`0700`), and so are the files (`0600`). A directory that everybody can
/// write to is refused. Elsewhere they get what the directory above them hands down.
///
/// On a network file system it works as far as that has locks which all machines see.
///
/// # The lock
///
/// It is of the open file, not of the process, so that it keeps apart two stores of one process, too. It is asked for again
/// and again for [`lock_timeout`](Self::lock_timeout). Taking it sets aside room for a record, so that a disk that is full,
/// or read-only, fails here, and not after a token was used up.
///
/// All work on files is done on tokio's blocking threads.
#[derive(Clone)]
pub struct FileStore {
    directory: Arc<Path>,
    lock_timeout: Duration,
    encryption: Option<EncryptionKey>,
}

impl FileStore {
    /// A store in this directory, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Unavailable`] if it cannot be made, is no directory, or can be written to by everybody.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let directory = directory.into();
        // It stays where it is, wherever the process goes.
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

    /// How long to wait for a lock that another process has, 10 s by default. Let it be shorter than the refresh timeout.
    #[must_use]
    pub fn lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.lock_timeout = lock_timeout;
        self
    }

    /// Encrypts what is saved. Records that are not encrypted with this key are refused.
    #[cfg(feature = "encryption")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
    #[must_use]
    pub fn encryption(mut self, key: EncryptionKey) -> Self {
        self.encryption = Some(key);
        self
    }

    /// The file that the record of this key is in, if there is one.
    pub fn path(&self, key: &str) -> PathBuf {
        self.files(key).record
    }

    fn files(&self, key: &str) -> Files {
        let legible: String = key
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
                .join(format!("{legible}-{hash:032x}.{extension}"))
        };
        Files {
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

    async fn read(&self, key: &str, files: Files) -> Result<Option<Record>, StoreError> {
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
                if let Some(held) = blocking(move || files.try_lock()).await? {
                    let locked: Box<dyn StoreLock> = Box::new(Locked {
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

/// A record of which this process has the lock.
struct Locked {
    store: FileStore,
    key: String,
    /// Shared with the work that is done under it, so that the lock outlasts that even if nobody waits for it.
    held: Arc<Held>,
}

impl StoreLock for Locked {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(self.store.read(&self.key, self.held.files.clone()))
    }

    fn save<'a>(&'a mut self, record: &'a Record) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let text = self.store.encode(&self.key, record)?;
            if text.len() as u64 > LONGEST_RECORD {
                return Err(record::corrupt("the session is far too long to be stored"));
            }
            let turn = self.held.turn();
            let held = Arc::clone(&self.held);
            blocking(move || held.work(turn, |files| files.replace(text.as_bytes()))).await
        })
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        let turn = self.held.turn();
        let held = Arc::clone(&self.held);
        Box::pin(blocking(move || held.work(turn, Files::delete)))
    }

    fn unlock(self: Box<Self>) -> BoxFuture<'static, ()> {
        // Should the runtime be shut down, dropping it does the same.
        Box::pin(async { drop(spawn_blocking(|| drop(self)).await) })
    }
}

/// Runs work on files where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(StoreError::new(
            StoreErrorKind::Unavailable,
            "the runtime that the session store works on was shut down",
        )
        .with_source(error))
    })
}

// === Files ===

/// The files of one key.
#[derive(Clone)]
struct Files {
    directory: Arc<Path>,
    record: PathBuf,
    temporary: PathBuf,
    lock: PathBuf,
}

/// The lock, as long as it is held.
struct Held {
    files: Files,
    /// Closing it releases the lock.
    file: File,
    /// How many saves and deletions were asked for.
    turns: AtomicU64,
    /// The last of them that was done. One that nobody waits for any more may come to it late, and does nothing then.
    done: Mutex<u64>,
}

impl Held {
    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn work(
        &self,
        turn: u64,
        work: impl FnOnce(&Files) -> Result<(), StoreError>,
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
                    "the lock of the session was taken away while it was held: somebody removed {}",
                    self.files.lock.display()
                ),
            ));
        }
        work(&self.files)
    }

    /// Whether the lock is still what others see.
    fn is_held(&self) -> io::Result<bool> {
        is_at(&self.file, &self.files.lock)
    }
}

impl Files {
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
                "the file of the session record is far too long for one",
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

    /// Takes the lock, if nobody has it.
    fn try_lock(self) -> Result<Option<Held>, StoreError> {
        let cannot_lock =
            |error| failed("the lock of the session cannot be had", &self.lock, error);
        let file = for_owner().open(&self.lock).map_err(cannot_lock)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(cannot_lock(error)),
        }
        if !is_at(&file, &self.lock).map_err(cannot_lock)? {
            // Whoever had it took the file away after it was opened here.
            return Ok(None);
        }
        // From here on the lock file is taken away again, whatever happens.
        let held = Held {
            files: self,
            file,
            turns: AtomicU64::new(0),
            done: Mutex::new(0),
        };
        held.files.make_room().map_err(|error| {
            failed(
                "a session record could not be saved",
                &held.files.temporary,
                error,
            )
        })?;
        Ok(Some(held))
    }

    /// Sets aside room for a record.
    fn make_room(&self) -> io::Result<()> {
        let mut file = for_owner().open(&self.temporary)?;
        file.set_len(0)?;
        file.write_all(&vec![b' '; ROOM])
    }

    /// Replaces the record. Under the lock.
    fn replace(&self, text: &[u8]) -> Result<(), StoreError> {
        let replace = || {
            let mut file = for_owner().open(&self.temporary)?;
            file.write_all(text)?;
            file.set_len(text.len() as u64)?;
            file.sync_all()?;
            drop(file);
            fs::rename(&self.temporary, &self.record)?;
            sync_directory(&self.directory)
        };
        replace().map_err(|error| failed("the session record cannot be saved", &self.record, error))
    }

    /// Deletes the record. Under the lock.
    fn delete(&self) -> Result<(), StoreError> {
        match fs::remove_file(&self.record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_directory(&self.directory),
        }
        .map_err(|error| failed("the session record cannot be deleted", &self.record, error))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What stays behind is in nobody's way. What others have made since is theirs.
        if self.is_held().unwrap_or(false) {
            let _ = fs::remove_file(&self.files.temporary);
            if cfg!(unix) {
                let _ = fs::remove_file(&self.files.lock);
            }
        }
    }
}

/// How files are opened that nobody else is to read.
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
                "everybody can write to it (mode {:o}): make a directory of its own for the sessions, or take that \
                 away with `chmod 700`",
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

/// Has the names in a directory written to the disk.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some network file systems know of no such thing.
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

/// Whether this is the file that is at `path` now.
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
    // It is never taken away.
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
