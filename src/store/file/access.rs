//! Who may have access to the directory, the records and the locks of a file store.
//!
//! A path may lead anywhere, and its group may be able to rename what is in the directory. So nothing here trusts a path:
//! each file is opened without following a link, and what was opened is checked.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

use crate::error::{StoreError, StoreErrorKind};

/// Opens a record for reading: a regular file of this user. `None` if there is none.
pub(super) fn open_record(path: &Path) -> Result<Option<File>, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true);
    system::follow_no_link(&mut options);
    match options.open(path) {
        Ok(file) => {
            let metadata = file.metadata();
            let metadata = metadata.map_err(|error| cannot_read(path, error))?;
            system::check_kind_and_owner(path, &metadata)?;
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // The reason for which it cannot be opened may be that it is no record of this process.
        Err(error) => Err(fs::symlink_metadata(path)
            .ok()
            .and_then(|metadata| system::check_kind_and_owner(path, &metadata).err())
            .unwrap_or_else(|| cannot_read(path, error))),
    }
}

/// Fails if other users can read or change this record.
pub(super) fn check_reach(file: &File, path: &Path) -> Result<(), StoreError> {
    let metadata = file.metadata();
    system::check_reach(path, &metadata.map_err(|error| cannot_read(path, error))?)
}

/// Opens the lock file, and creates it if there is none.
pub(super) fn open_lock(path: &Path) -> Result<File, StoreError> {
    let mut options = for_owner();
    options.create(true).truncate(false);
    let opened = options.open(path).and_then(|file| {
        let metadata = file.metadata()?;
        Ok((file, metadata))
    });
    let (file, metadata) = match opened {
        Ok((file, metadata)) => (Ok(file), metadata),
        Err(error) => match fs::symlink_metadata(path) {
            Ok(metadata) => (Err(error), metadata),
            Err(_) => return Err(cannot_lock(path, error)),
        },
    };
    system::check_kind_and_owner(path, &metadata)?;
    file.map_err(|error| cannot_lock(path, error))
}

/// Creates a file that did not exist before, for its owner alone.
pub(super) fn create_for_owner(path: &Path) -> Result<File, StoreError> {
    let failed = |error| failed("a session record could not be saved", path, error);
    let file = for_owner().create_new(true).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let checked = system::check_created(path, &metadata);
    if checked.is_err() {
        let _ = fs::remove_file(path);
    }
    checked.map(|()| file)
}

/// The options that open a file for its owner alone, and follow no link.
fn for_owner() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    system::follow_no_link(&mut options);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes the directory if it does not exist, and checks who can write to it.
pub(super) fn ensure_directory(directory: &Path) -> Result<(), StoreError> {
    make_directory(directory)
        .and_then(|()| system::check_directory(directory))
        .map_err(|error| {
            failed(
                "the directory of the session store cannot be used",
                directory,
                error,
            )
        })
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
    directory.parent().map_or(Ok(()), sync_directory)
}

/// Flushes the entries of a directory to the disk.
#[cfg(unix)]
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
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
pub(super) fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

/// What identifies the file at a path, and its last change. `None` if there is none, or it cannot be looked at.
#[cfg(unix)]
pub(super) fn stamp(path: &Path) -> Option<impl PartialEq + use<>> {
    use std::os::unix::fs::MetadataExt;

    let there = fs::symlink_metadata(path).ok()?;
    let changed = (there.mtime(), there.mtime_nsec());
    Some((there.dev(), there.ino(), there.len(), changed))
}

#[cfg(not(unix))]
pub(super) fn stamp(path: &Path) -> Option<impl PartialEq + use<>> {
    let there = fs::symlink_metadata(path).ok()?;
    Some((there.len(), there.modified().ok()))
}

/// Whether `path` still refers to this file, and not by a link. It does not if there is nothing.
#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        there => there?,
    };
    let here = file.metadata()?;
    Ok((here.dev(), here.ino()) == (there.dev(), there.ino()))
}

#[cfg(not(unix))]
pub(super) fn is_at(_file: &File, _path: &Path) -> io::Result<bool> {
    // On these systems the lock file is never removed.
    Ok(true)
}

pub(super) fn cannot_read(path: &Path, error: io::Error) -> StoreError {
    failed("the session record cannot be read", path, error)
}

pub(super) fn cannot_lock(path: &Path, error: io::Error) -> StoreError {
    failed("the lock of the session cannot be taken", path, error)
}

pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> StoreError {
    StoreError::new(
        StoreErrorKind::Unavailable,
        format!("{what}: {}", path.display()),
    )
    .with_source(error)
}

fn untrusted(path: &Path, reason: impl std::fmt::Display) -> StoreError {
    StoreError::new(
        StoreErrorKind::Untrusted,
        format!(
            "the file {} of the session store is not trusted: {reason}",
            path.display()
        ),
    )
}

#[cfg(unix)]
mod system {
    use std::{
        fs::{self, Metadata, OpenOptions},
        io,
        os::unix::fs::{MetadataExt, OpenOptionsExt},
        path::Path,
    };

    use rustix::{
        fs::OFlags,
        process::{getegid, geteuid, getgroups},
    };

    use super::{StoreError, untrusted};

    /// Without `NONBLOCK`, opening a FIFO waits for its other end.
    pub(super) fn follow_no_link(options: &mut OpenOptions) {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        options.custom_flags(flags.bits().cast_signed());
    }

    pub(super) fn check_reach(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
        let directory = path.parent().unwrap_or(path);
        let directory = fs::metadata(directory).map_err(|error| super::cannot_read(path, error))?;
        if is_reachable_by_others(metadata, &directory) {
            let mode = metadata.mode() & 0o7777;
            return Err(untrusted(
                path,
                format!(
                    "other users can read or change it (mode {mode:o}). If its tokens may be known to others, delete it \
                     and log in again; otherwise use `chmod 600`"
                ),
            ));
        }
        Ok(())
    }

    /// Whether the modes of a file and its directory let others than the owner read or change the file.
    fn is_reachable_by_others(file: &Metadata, directory: &Metadata) -> bool {
        let (file_mode, directory_mode) = (file.mode(), directory.mode());
        let everyone = file_mode & 0o006 != 0 && directory_mode & 0o001 != 0;
        // Kubernetes adds these bits to all files of a volume with an `fsGroup`, and these to its directories.
        let is_fs_group = file_mode & 0o077 == 0o060
            && directory_mode & 0o2020 == 0o2020
            && file.gid() == directory.gid();
        let group = file_mode & 0o060 != 0 && directory_mode & 0o010 != 0 && !is_fs_group;
        everyone || group
    }

    pub(super) fn check_kind_and_owner(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
        if !metadata.is_file() {
            let kind = metadata.file_type();
            let kind = match () {
                () if kind.is_symlink() => "a link",
                () if kind.is_dir() => "a directory",
                () => "a pipe, a socket or a device",
            };
            return Err(untrusted(
                path,
                format!("it is {kind}, and a regular file was expected. Delete it"),
            ));
        }
        let user = geteuid().as_raw();
        if metadata.uid() != user {
            return Err(untrusted(
                path,
                format!(
                    "it belongs to user {}, and this process runs as user {user}. Delete it, or use `chown {user}` if you \
                     know who wrote it",
                    metadata.uid()
                ),
            ));
        }
        Ok(())
    }

    /// Some file systems ignore the owner and the mode that a file is created with.
    pub(super) fn check_created(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
        let checked =
            check_kind_and_owner(path, metadata).and_then(|()| check_reach(path, metadata));
        checked.map_err(|error| {
            StoreError::new(
                error.kind(),
                "the file system of the session store does not keep the owner or the mode of new files, so others could \
                 read the sessions",
            )
            .with_source(error)
            .with_remedy("use a directory on another file system")
        })
    }

    pub(super) fn check_directory(directory: &Path) -> io::Result<()> {
        let metadata = fs::metadata(directory)?;
        let (mode, owner, user) = (metadata.mode() & 0o7777, metadata.uid(), geteuid().as_raw());
        let refused = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        if mode & 0o002 != 0 {
            return refused(format!(
                "everyone can write to it (mode {mode:o}): use a separate directory for the sessions, for example one below \
                 it, or restrict it with `chmod 700`"
            ));
        }
        if owner != user && !is_member(metadata.gid())? {
            return refused(format!(
                "it belongs to user {owner} and group {}, and this process runs as user {user} without that group: use a \
                 separate directory for the sessions, or `chown {user}`",
                metadata.gid()
            ));
        }
        Ok(())
    }

    fn is_member(group: u32) -> io::Result<bool> {
        Ok(getegid().as_raw() == group || getgroups()?.iter().any(|own| own.as_raw() == group))
    }
}

#[cfg(not(unix))]
mod system {
    use std::{
        fs::{Metadata, OpenOptions},
        io,
        path::Path,
    };

    use super::{StoreError, untrusted};

    pub(super) fn follow_no_link(_options: &mut OpenOptions) {}

    pub(super) fn check_reach(_path: &Path, _metadata: &Metadata) -> Result<(), StoreError> {
        Ok(())
    }

    pub(super) fn check_kind_and_owner(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
        if metadata.is_file() {
            Ok(())
        } else {
            Err(untrusted(
                path,
                "it is a link or a directory, and a regular file was expected. Delete it",
            ))
        }
    }

    pub(super) fn check_created(_path: &Path, _metadata: &Metadata) -> Result<(), StoreError> {
        Ok(())
    }

    pub(super) fn check_directory(_directory: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_where_its_path_leads() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let file = create_for_owner(&path("one")).unwrap();
        create_for_owner(&path("other")).unwrap();
        assert!(is_at(&file, &path("one")).unwrap());
        assert!(!is_at(&file, &path("other")).unwrap());
        assert!(!is_at(&file, &path("nothing")).unwrap());
        // A path that cannot be followed is not one that leads to nothing.
        is_at(&file, &path("one/below")).unwrap_err();
    }
}
