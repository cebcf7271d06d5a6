//! The files of one key: its record, the lock, and temporary files.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use zeroize::Zeroizing;

use super::access::{
    self, cannot_lock, cannot_read, check_reach, create_for_owner, failed, is_at, open_lock,
    open_record, sync_directory,
};
use crate::error::{StoreError, StoreErrorKind};

/// Longest record in bytes that is saved or read.
pub(super) const LONGEST_RECORD: u64 = 1024 * 1024;

/// Disk space in bytes that a lock reserves. The longest records, with JWTs as tokens, are shorter.
const RESERVED_SPACE: usize = 16 * 1024;

const CANNOT_SAVE: &str = "the session record cannot be saved";

/// What the file of a record has.
pub(super) struct Found {
    pub(super) text: Zeroizing<String>,
    /// An error if other users can read or change the file. It matters once the text turns out to be a record.
    pub(super) reach: Result<(), StoreError>,
}

/// The paths of the files of one key.
#[derive(Clone)]
pub(super) struct RecordFiles {
    directory: Arc<Path>,
    /// What the names of all files of this key begin with.
    name: String,
    pub(super) record: PathBuf,
    pub(super) lock: PathBuf,
}

impl RecordFiles {
    pub(super) fn new(directory: Arc<Path>, name: String) -> Self {
        Self {
            record: directory.join(format!("{name}.json")),
            lock: directory.join(format!("{name}.lock")),
            directory,
            name,
        }
    }

    /// Reads the record. `None` if there is none.
    pub(super) fn read(&self) -> Result<Option<Found>, StoreError> {
        let cannot_read = |error| cannot_read(&self.record, error);
        let Some(file) = open_record(&self.record)? else {
            return Ok(None);
        };
        let len = file.metadata().map_err(cannot_read)?.len();
        if len > LONGEST_RECORD {
            return Err(self.corrupt("is too long for a session record"));
        }
        let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1));
        let reach = check_reach(&file, &self.record);
        file.take(LONGEST_RECORD)
            .read_to_end(&mut text)
            .map_err(cannot_read)?;
        // A crash of the machine leaves files like this.
        if text.iter().all(|byte| *byte == 0) {
            return Err(self.corrupt("is empty"));
        }
        match str::from_utf8(&text) {
            // Editors put a byte order mark before it.
            Ok(text) => Ok(Some(Found {
                text: Zeroizing::new(text.trim_start_matches('\u{feff}').to_owned()),
                reach,
            })),
            Err(_) => Err(self.corrupt("is not text in UTF-8")),
        }
    }

    fn corrupt(&self, what: &str) -> StoreError {
        StoreError::new(
            StoreErrorKind::Corrupt,
            format!(
                "the file {} {what}: restore it, or delete it to log in again",
                self.record.display()
            ),
        )
    }

    /// Removes the temporary files that killed processes left. The caller holds the lock.
    fn remove_temporaries(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let is_temporary = name
                .to_str()
                .and_then(|name| name.strip_prefix(&self.name))
                .is_some_and(|rest| rest.starts_with('.') && rest.strip_suffix(".tmp").is_some());
            if is_temporary {
                // One that cannot be removed does no harm.
                let _ = fs::remove_file(self.directory.join(name));
            }
        }
        Ok(())
    }
}

// === Temporary ===

/// A temporary file. Dropping it removes its path.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    /// Creates a file with a random name, so that no other program can put a file of its own there first.
    fn create(files: &RecordFiles) -> Result<Self, StoreError> {
        let random = getrandom::u64().map_err(|error| {
            StoreError::new(
                StoreErrorKind::Unavailable,
                "the system has no randomness for the name of a file of the session store",
            )
            .with_source(error)
        })?;
        let path = files
            .directory
            .join(format!("{}.{random:016x}.tmp", files.name));
        let file = create_for_owner(&path)?;
        Ok(Self { path, file })
    }

    /// Replaces the content.
    fn fill(&self, text: &[u8]) -> io::Result<()> {
        let mut file = &self.file;
        file.rewind()?;
        file.write_all(text)?;
        file.set_len(text.len() as u64)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a save the path is gone. A file that cannot be removed does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

// === LockFile ===

/// The lock file of a key, locked. Dropping it releases the lock.
pub(super) struct LockFile {
    pub(super) files: RecordFiles,
    /// Closing it releases the lock.
    file: File,
    /// How many saves and deletions were started.
    turns: AtomicU64,
    state: Mutex<LockState>,
}

struct LockState {
    /// The number of the last save or deletion that ran. One whose future was dropped may run late, and is then skipped.
    done: u64,
    /// The file that the next save writes to, with the reserved space. `None` after a save.
    reserved: Option<Temporary>,
}

impl LockFile {
    /// Takes the lock. `None` if it is held elsewhere.
    pub(super) fn try_lock(files: RecordFiles) -> Result<Option<Self>, StoreError> {
        // Programs that clean up may have removed the directory, and others may have made one in its place.
        access::ensure_directory(&files.directory)?;
        let file = open_lock(&files.lock)?;
        let cannot_lock = |error| cannot_lock(&files.lock, error);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(cannot_lock(error)),
        }
        if !is_at(&file, &files.lock).map_err(cannot_lock)? {
            // The previous holder removed the file after it was opened here.
            return Ok(None);
        }
        files.remove_temporaries().map_err(cannot_lock)?;
        // From here on, dropping `held` removes the lock file, also if an error follows.
        let held = Self {
            files,
            file,
            turns: AtomicU64::new(0),
            state: Mutex::new(LockState {
                done: 0,
                reserved: None,
            }),
        };
        held.reserve_space()?;
        Ok(Some(held))
    }

    fn state(&self) -> MutexGuard<'_, LockState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves disk space for a record.
    fn reserve_space(&self) -> Result<(), StoreError> {
        let temporary = Temporary::create(&self.files)?;
        temporary
            .fill(&[b' '; RESERVED_SPACE])
            .map_err(|error| failed(CANNOT_SAVE, &temporary.path, error))?;
        self.state().reserved = Some(temporary);
        Ok(())
    }

    /// The number of the next save or deletion.
    pub(super) fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs a save or deletion, unless a later one has already run.
    fn run(
        &self,
        turn: u64,
        work: impl FnOnce(&Self, &mut LockState) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        if turn < state.done {
            return Ok(());
        }
        state.done = turn;
        if !self.is_held().unwrap_or(false) {
            return Err(StoreError::new(
                StoreErrorKind::LockLost,
                format!(
                    "the lock of the session was lost while it was held: another program removed {}",
                    self.files.lock.display()
                ),
            ));
        }
        work(self, &mut state)
    }

    /// Whether other processes still see this lock file.
    fn is_held(&self) -> io::Result<bool> {
        is_at(&self.file, &self.files.lock)
    }

    /// Saves a record in place of the stored one, if `is_permitted` by what is stored.
    pub(super) fn save(
        &self,
        turn: u64,
        text: &[u8],
        is_permitted: impl FnOnce(&RecordFiles) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.run(turn, |held, state| {
            if !is_permitted(&held.files)? {
                return Ok(());
            }
            let reserved = match state.reserved.take() {
                Some(reserved) if is_at(&reserved.file, &reserved.path).unwrap_or(false) => reserved,
                _ => Temporary::create(&held.files)?,
            };
            let reserved = state.reserved.insert(reserved);
            let replaced = reserved.fill(text).and_then(|()| {
                reserved.file.sync_all()?;
                fs::rename(&reserved.path, &held.files.record)?;
                if !is_at(&reserved.file, &held.files.record)? {
                    return Err(io::Error::other(
                        "another program replaced it during the save: let no other program write to this directory",
                    ));
                }
                sync_directory(&held.files.directory)
            });
            replaced.map_err(|error| failed(CANNOT_SAVE, &held.files.record, error))?;
            state.reserved = None;
            Ok(())
        })
    }

    /// Deletes the record.
    pub(super) fn delete(&self, turn: u64) -> Result<(), StoreError> {
        self.run(turn, |held, _| {
            match fs::remove_file(&held.files.record) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => sync_directory(&held.files.directory),
            }
            .map_err(|error| {
                failed(
                    "the session record cannot be deleted",
                    &held.files.record,
                    error,
                )
            })
        })
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // If the lock was lost, the file belongs to another holder. A file that cannot be removed does no harm.
        if cfg!(unix) && self.is_held().unwrap_or(false) {
            let _ = fs::remove_file(&self.files.lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_that_runs_late_is_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let files = RecordFiles::new(directory.path().into(), "key".to_owned());
        let held = LockFile::try_lock(files).unwrap().unwrap();
        held.save(held.turn(), b"first", |_| Ok(true)).unwrap();
        let (late, last) = (held.turn(), held.turn());
        held.save(last, b"last", |_| Ok(true)).unwrap();
        held.save(late, b"late", |_| Ok(true)).unwrap();
        assert_eq!(fs::read(&held.files.record).unwrap(), b"last");
    }

    #[cfg(unix)]
    #[test]
    fn a_save_uses_the_reserved_space_unless_it_was_removed() {
        use std::os::unix::fs::MetadataExt;

        for is_removed in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let files = RecordFiles::new(directory.path().into(), "key".to_owned());
            let held = LockFile::try_lock(files).unwrap().unwrap();
            let (path, file) = {
                let state = held.state();
                let reserved = state.reserved.as_ref().unwrap();
                (reserved.path.clone(), reserved.file.try_clone().unwrap())
            };
            if is_removed {
                fs::remove_file(path).unwrap();
            }
            held.save(held.turn(), b"saved", |_| Ok(true)).unwrap();
            assert_eq!(fs::read(&held.files.record).unwrap(), b"saved");
            let saved = fs::metadata(&held.files.record).unwrap();
            let is_reserved = saved.ino() == file.metadata().unwrap().ino();
            assert_eq!(is_reserved, !is_removed);
        }
    }
}
