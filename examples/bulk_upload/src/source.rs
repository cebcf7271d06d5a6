//! A file that is sent unchanged, or not at all: a change after the first look at it fails the upload.

use std::{
    error, fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use tokio::fs::{self, File};
use tokio_util::io::ReaderStream;

/// The body of every request of this program. The layer finds a `BodyFactory` by the type of its bodies.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The bytes read at a time, and about all that is in memory.
pub(crate) const PIECE: usize = 64 * 1024;

/// A file to upload. Clones belong to the same upload.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    path: Arc<Path>,
    stamp: Stamp,
    /// The error of a failed body. The transport hides it: over HTTP/2 it only reports that the stream was reset.
    failure: Arc<OnceLock<Failure>>,
}

/// The properties that identify the content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    length: u64,
    modified: SystemTime,
}

impl Stamp {
    async fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path).await?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a file"));
        }
        Ok(Self {
            length: metadata.len(),
            modified: metadata.modified()?,
        })
    }
}

impl Source {
    /// Reads the stamp of the file. Uploads send the file as it is now.
    pub(crate) async fn look_at(path: impl Into<PathBuf>) -> Result<Self, Failure> {
        let path: Arc<Path> = path.into().into();
        match Stamp::of(&path).await {
            Ok(stamp) => Ok(Self {
                path,
                stamp,
                failure: Arc::default(),
            }),
            Err(error) => Err(Failure::unreadable(&path, error)),
        }
    }

    /// The length of the file, for `Content-Length`.
    pub(crate) fn length(&self) -> u64 {
        self.stamp.length
    }

    /// The error of a failed body. `None` if no body has failed.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// A body with the whole file, which is opened at the first poll. `sent` gets the length of every piece that the transport
    /// takes.
    pub(crate) fn body(&self, sent: impl Fn(usize) + Send + 'static) -> Body {
        let source = self.clone();
        let pieces = stream::once(async move {
            let file = source.open().await?;
            let reading = Reading {
                left: source.length(),
                pieces: ReaderStream::with_capacity(file, PIECE),
                source,
            };
            Ok::<_, io::Error>(stream::try_unfold(reading, Reading::next))
        });
        let pieces = pieces
            .try_flatten()
            .inspect_ok(move |piece: &Bytes| sent(piece.len()));
        StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync()
    }

    async fn open(&self) -> io::Result<File> {
        self.check().await?;
        let file = File::open(&self.path).await;
        file.map_err(|error| self.is_unreadable(error))
    }

    /// Fails if the file has changed.
    async fn check(&self) -> io::Result<()> {
        match Stamp::of(&self.path).await {
            Ok(found) if found == self.stamp => Ok(()),
            Ok(found) => Err(self.has_changed(found.length)),
            Err(error) => Err(self.is_unreadable(error)),
        }
    }

    fn has_changed(&self, found: u64) -> io::Error {
        self.fail(Failure::Changed {
            path: Arc::clone(&self.path),
            expected: self.length(),
            found,
        })
    }

    fn is_unreadable(&self, error: io::Error) -> io::Error {
        self.fail(Failure::unreadable(&self.path, error))
    }

    fn fail(&self, failure: Failure) -> io::Error {
        io::Error::other(self.failure.get_or_init(|| failure).clone())
    }
}

/// A file during its upload.
struct Reading {
    source: Source,
    pieces: ReaderStream<File>,
    /// The bytes that the org still waits for.
    left: u64,
}

impl Reading {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        let sent = self.source.length() - self.left;
        let piece = match self.pieces.next().await {
            Some(Ok(piece)) => piece,
            Some(Err(error)) => return Err(self.source.is_unreadable(error)),
            None if self.left == 0 => return Ok(None),
            // The file was truncated meanwhile.
            None => return Err(self.source.has_changed(sent)),
        };
        let length = piece.len() as u64;
        let Some(left) = self.left.checked_sub(length) else {
            return Err(self.source.has_changed(sent + length));
        };
        self.left = left;
        if left == 0 {
            // The last piece completes the upload. A changed file must not complete it, so check before.
            self.source.check().await?;
        }
        Ok(Some((piece, self)))
    }
}

/// Why a file was not sent.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The file has changed since the upload began.
    Changed {
        path: Arc<Path>,
        expected: u64,
        found: u64,
    },
    Unreadable {
        path: Arc<Path>,
        error: Arc<io::Error>,
    },
}

impl Failure {
    fn unreadable(path: &Arc<Path>, error: io::Error) -> Self {
        Self::Unreadable {
            path: Arc::clone(path),
            error: Arc::new(error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed {
                path,
                expected,
                found,
            } => {
                let path = path.display();
                write!(f, "{path} changed while it was being uploaded: ")?;
                if expected == found {
                    write!(f, "it was written to, and still has {found} bytes")?;
                } else {
                    write!(f, "it had {expected} bytes, and {found} were found")?;
                }
                f.write_str("; upload it while no program writes to it, or upload a copy")
            }
            Self::Unreadable { path, .. } => write!(f, "{} cannot be read", path.display()),
        }
    }
}

impl error::Error for Failure {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Changed { .. } => None,
            Self::Unreadable { error, .. } => Some(error),
        }
    }
}
