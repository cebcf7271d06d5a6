//! A file that is sent as it was when it was first looked at, or not at all.

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

/// The body of every request of this program: a `BodyFactory` is found by the type of the body that it makes.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How much is read at a time, and so about all that is in memory.
pub(crate) const PIECE: usize = 64 * 1024;

/// A file to upload. Clones are the same upload.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    path: Arc<Path>,
    stamp: Stamp,
    /// The transport reports a body that failed in its own words, or not at all. Here is what it was.
    changed: Arc<OnceLock<Changed>>,
}

/// What a file is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    length: u64,
    modified: SystemTime,
}

impl Stamp {
    async fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path).await?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        Ok(Self {
            length: metadata.len(),
            modified: metadata.modified()?,
        })
    }
}

impl Source {
    /// Looks at the file. What is sent is this file as it is now.
    pub(crate) async fn look_at(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let stamp = Stamp::of(&path)
            .await
            .map_err(|error| naming(&path, &error))?;
        Ok(Self {
            path: path.into(),
            stamp,
            changed: Arc::default(),
        })
    }

    /// Its `Content-Length`.
    pub(crate) fn length(&self) -> u64 {
        self.stamp.length
    }

    /// Whether an attempt to send it has found another file in its place.
    pub(crate) fn changed(&self) -> Option<&Changed> {
        self.changed.get()
    }

    /// The file from its beginning. It is opened when the body is first polled, and `sent` is told of every piece that is
    /// handed to the transport.
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
        file.map_err(|error| naming(&self.path, &error))
    }

    /// Whether the file is still what it was.
    async fn check(&self) -> io::Result<()> {
        let found = Stamp::of(&self.path).await;
        let found = found.map_err(|error| naming(&self.path, &error))?;
        if found == self.stamp {
            return Ok(());
        }
        Err(self.has_changed(found.length))
    }

    fn has_changed(&self, found: u64) -> io::Error {
        let changed = self.changed.get_or_init(|| Changed {
            path: Arc::clone(&self.path),
            expected: self.length(),
            found,
        });
        io::Error::other(changed.clone())
    }
}

/// A file that is being sent.
struct Reading {
    source: Source,
    pieces: ReaderStream<File>,
    /// How many bytes the org still waits for.
    left: u64,
}

impl Reading {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        let Some(piece) = self.pieces.next().await.transpose()? else {
            // It was cut off meanwhile.
            return match self.left {
                0 => Ok(None),
                left => Err(self.source.has_changed(self.source.length() - left)),
            };
        };
        let length = piece.len() as u64;
        let Some(left) = self.left.checked_sub(length) else {
            let found = self.source.length() - self.left + length;
            return Err(self.source.has_changed(found));
        };
        self.left = left;
        if left == 0 {
            // With the last piece the org has all that it was promised. It does not get it if any of it may be wrong.
            self.source.check().await?;
        }
        Ok(Some((piece, self)))
    }
}

fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The file is not any more what its upload began with.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    path: Arc<Path>,
    expected: u64,
    found: u64,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            expected,
            found,
        } = self;
        let path = path.display();
        write!(f, "{path} changed while it was being uploaded: ")?;
        if expected == found {
            write!(f, "it was written to, and still has {found} bytes")?;
        } else {
            write!(f, "it had {expected} bytes, and {found} were found")?;
        }
        f.write_str("; upload it when nobody writes to it, or upload a copy")
    }
}

impl error::Error for Changed {}
