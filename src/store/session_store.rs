//! The contract of a store.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use super::record::Record;
use crate::error::StoreError;

/// A future that can be sent to another thread, of whatever type.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps session records, one for each key, for the processes that share it.
///
/// Any string is a key, the empty one included; keys that differ in anything are different keys. They are not secret, and
/// may be shown in errors. The records are secret.
///
/// # Contract
///
/// - **Reads are of the last write.** A [load](StoreLock::load) under the lock returns what the last
///   [save](StoreLock::save) that was reported as done left, by whichever process, or fails. A replica that lags behind is
///   no place to load from: a refresh token that was used before would be used again, and that ends the grant. The layer
///   notices records that are older than those it has seen, and refuses them; it cannot notice the others.
/// - **A save is all or nothing, and durable.** If it fails, or is dropped half-way, or the machine stops, the record
///   before it or the new one is there afterwards, whole.
/// - **One holder.** A lock is held until it is [unlocked](StoreLock::unlock) or dropped, or its process ends, however. It
///   is held for the whole of an exchange with the server: a lock with a lease has to outlast twice the refresh timeout, or
///   to be renewed. A lock that somebody holds is never taken away.
/// - **Busy is not down.** If the lock is held elsewhere, [`lock`](Self::lock) waits for a while that the store chooses,
///   shorter than the refresh timeout (30 s by default), and fails with [`LockBusy`]. If that cannot be told, since the
///   backend is out of reach, it fails with [`Unavailable`]. In neither case is anything refreshed.
/// - **A lock that was had can be saved with**, as far as that can be told beforehand: a store that is full, or
///   read-only, fails in `lock`, where nothing has been used up yet.
/// - **Whatever is not understood is left alone.** A record that is broken, of a later version, or encrypted otherwise is an
///   error of that [kind](super::StoreErrorKind), and no reason to delete it; saving replaces it.
/// - **Futures can be dropped** at any time. One that waited for the lock does not hold it afterwards.
///
/// The feature `conformance` adds `store::conformance`, which tries all that on an implementation.
///
/// ```
/// use std::{collections::HashMap, sync::{Arc, Mutex}};
/// use tower_salesforce_auth::store::{BoxFuture, Record, SessionStore, StoreError, StoreErrorKind, StoreLock};
///
/// /// A table of keys and texts, each row with a lock.
/// #[derive(Clone, Default)]
/// struct Table(Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<String>>>>>>);
///
/// struct Row(tokio::sync::OwnedMutexGuard<Option<String>>);
///
/// impl Table {
///     fn row(&self, key: &str) -> Arc<tokio::sync::Mutex<Option<String>>> {
///         self.0.lock().unwrap().entry(key.to_owned()).or_default().clone()
///     }
/// }
///
/// impl SessionStore for Table {
///     fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
///         Box::pin(async move {
///             let row = self.row(key);
///             let text = row.lock().await;
///             text.as_deref().map(Record::decode).transpose()
///         })
///     }
///
///     fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
///         Box::pin(async move {
///             let row = self.row(key).lock_owned();
///             let locked = tokio::time::timeout(std::time::Duration::from_secs(10), row).await;
///             let locked = locked.map_err(|elapsed| {
///                 StoreError::new(StoreErrorKind::LockBusy, "another process holds the row").with_source(elapsed)
///             })?;
///             Ok(Box::new(Row(locked)) as Box<dyn StoreLock>)
///         })
///     }
/// }
///
/// impl StoreLock for Row {
///     fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
///         let record = self.0.as_deref().map(Record::decode).transpose();
///         Box::pin(std::future::ready(record))
///     }
///
///     fn save<'a>(&'a mut self, record: &'a Record) -> BoxFuture<'a, Result<(), StoreError>> {
///         *self.0 = Some(record.encode().expose().to_owned());
///         Box::pin(std::future::ready(Ok(())))
///     }
///
///     fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
///         *self.0 = None;
///         Box::pin(std::future::ready(Ok(())))
///     }
/// }
/// ```
///
/// [`LockBusy`]: super::StoreErrorKind::LockBusy
/// [`Unavailable`]: super::StoreErrorKind::Unavailable
pub trait SessionStore: Send + Sync + 'static {
    /// Loads what is stored of this key, without the lock: what was there at some moment since the call, whole.
    ///
    /// # Errors
    ///
    /// Any [`StoreErrorKind`](super::StoreErrorKind) but `LockBusy`.
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>>;

    /// Takes the lock of this key, and waits for it if somebody has it, in this process or another, but not for ever.
    ///
    /// # Errors
    ///
    /// [`LockBusy`](super::StoreErrorKind::LockBusy), and [`Unavailable`](super::StoreErrorKind::Unavailable).
    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>>;
}

/// The record of one key, locked: nobody else loads it under the lock, saves or deletes it. Dropping it releases the lock.
pub trait StoreLock: Send + 'static {
    /// Loads what is stored.
    ///
    /// # Errors
    ///
    /// Any [`StoreErrorKind`](super::StoreErrorKind) but `LockBusy`.
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;

    /// Saves a record in place of what is stored, whatever that is.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](super::StoreErrorKind::Unavailable). It may be called again then.
    fn save<'a>(&'a mut self, record: &'a Record) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Deletes what is stored, if anything is.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](super::StoreErrorKind::Unavailable). It may be called again then.
    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Releases the lock, and completes when that is done. By default it drops the lock, which is enough where that takes
    /// no waiting.
    fn unlock(self: Box<Self>) -> BoxFuture<'static, ()> {
        drop(self);
        Box::pin(std::future::ready(()))
    }
}

impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        S::load(self, key)
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        S::lock(self, key)
    }
}

/// What becomes of a session that a refresh brought, if it cannot be saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnSaveFailure {
    /// It is used, by this process, and whoever watches is [told](crate::Observer::store_failed).
    #[default]
    Continue,
    /// The refresh fails, in a way that may pass. A rotated refresh token is kept in memory, for the next attempt.
    Fail,
}

/// The place of one session in a store.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) key: Arc<str>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

const _: fn(&dyn SessionStore, &dyn StoreLock) = |_, _| {};
