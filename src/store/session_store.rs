//! The contract of a session store.

use std::{
    fmt,
    future::{Future, pending, ready},
    pin::Pin,
    sync::Arc,
};

use super::{
    record::Record,
    save::{Lease, Save},
    version::Version,
};
use crate::error::StoreError;

/// A boxed future that is [`Send`]. It is the same type as
/// [`futures_util::future::BoxFuture`](https://docs.rs/futures-util/latest/futures_util/future/type.BoxFuture.html).
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps one session record for each key, for all processes that share the store.
///
/// Any string is a key, including the empty string. Keys that differ in any character are different keys. Keys are not
/// secret, and errors may show them. Records are secret.
///
/// # Contract
///
/// - **A read returns the last write.** A [load](StoreLock::load) under the lock returns the record of the last completed
///   [save](StoreLock::save), by any process, or fails. A replica that lags behind must not serve it: the layer would present
///   a refresh token that was used before, and that ends the grant. The layer notices a record that is older than one it has
///   seen, and refuses it. It cannot notice other stale records.
/// - **A save is atomic and durable.** A save may fail or be dropped, or the machine may stop. Afterwards the store has the
///   previous record or the new one, whole.
/// - **A save is a compare-and-swap.** A [save](StoreLock::save) names the [version](Version) that it
///   [replaces](Save::replaces). It succeeds only if the store still has that version, and fails with [`Superseded`]
///   otherwise. If the store already has the record itself, the save succeeds: an earlier answer may have been lost. Comparison
///   and save are one atomic step.
/// - **A lock has one holder.** A lock is held until it is [unlocked](StoreLock::unlock) or dropped, or until its process
///   ends in any way. The layer holds it during the whole token call. A lock whose store cannot see the end of a process has
///   a [lease](StoreLock::lease), which the layer [renews](StoreLock::renew) each third of its length. A store takes no lock
///   away from its holder before the lease is over, and a holder that is late releases no lock but its own.
/// - **A lost lock is told.** A holder whose lock may belong to another one gets [`LockLost`]. Where saves compare versions
///   atomically without the lock, a save may still succeed: if no other holder has saved, its refresh token is the newest one.
/// - **Busy is not unavailable.** If the lock is held elsewhere, [`lock`](Self::lock) waits for a time that the store
///   chooses, and then fails with [`LockBusy`]. That time is shorter than the refresh timeout (default: 30 s). If the store
///   cannot tell, because its backend is unreachable, `lock` fails with [`Unavailable`]. In both cases nothing is refreshed.
/// - **A lock permits a save**, as far as the store can tell in advance. A store that is full or read-only fails in `lock`,
///   before a refresh token is used.
/// - **Nothing else is held.** Between two calls, a lock holds no connection and no transaction: a token call takes up to the
///   refresh timeout, and waiters of many processes would use up the connections of a pool.
/// - **Unreadable records stay.** A record that is broken, has a later format, or is encrypted in another way is an
///   error of that [kind](super::StoreErrorKind), also for a save. The store does not delete or replace it.
/// - **Futures can be dropped** at any time. A dropped wait for the lock does not hold the lock afterwards.
///
/// The feature `conformance` adds `store::conformance`, which checks this contract on an implementation.
///
/// ```
/// use std::{
///     collections::HashMap,
///     future::ready,
///     sync::{Arc, Mutex},
///     time::Duration,
/// };
/// use tower_salesforce_auth::store::{
///     BoxFuture, Record, Save, SessionStore, StoreError, StoreErrorKind, StoreLock,
/// };
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
///     fn load<'a>(
///         &'a self,
///         key: &'a str,
///     ) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
///         Box::pin(async move {
///             let row = self.row(key);
///             let text = row.lock().await;
///             text.as_deref().map(Record::decode).transpose()
///         })
///     }
///
///     fn lock<'a>(
///         &'a self,
///         key: &'a str,
///     ) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
///         Box::pin(async move {
///             let row = self.row(key).lock_owned();
///             let locked = tokio::time::timeout(Duration::from_secs(10), row).await;
///             let locked = locked.map_err(|elapsed| {
///                 let message = "another process holds the lock of the row";
///                 StoreError::new(StoreErrorKind::LockBusy, message).with_source(elapsed)
///             })?;
///             Ok(Box::new(Row(locked)) as Box<dyn StoreLock>)
///         })
///     }
/// }
///
/// impl StoreLock for Row {
///     fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
///         let record = self.0.as_deref().map(Record::decode).transpose();
///         Box::pin(ready(record))
///     }
///
///     fn save<'a>(&'a mut self, save: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
///         Box::pin(async move {
///             let stored = self.load().await?;
///             if save.is_permitted(stored.as_ref().map(Record::version))? {
///                 *self.0 = Some(save.record().encode().expose().to_owned());
///             }
///             Ok(())
///         })
///     }
///
///     fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
///         *self.0 = None;
///         Box::pin(ready(Ok(())))
///     }
/// }
/// ```
///
/// [`LockBusy`]: super::StoreErrorKind::LockBusy
/// [`LockLost`]: super::StoreErrorKind::LockLost
/// [`Superseded`]: super::StoreErrorKind::Superseded
/// [`Unavailable`]: super::StoreErrorKind::Unavailable
pub trait SessionStore: Send + Sync + 'static {
    /// Loads the record of this key without the lock. The record is whole, and was current at some moment during the call.
    ///
    /// # Errors
    ///
    /// Any [`StoreErrorKind`](super::StoreErrorKind) but `LockBusy`.
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>>;

    /// Takes the lock of this key. If another holder has it, in this process or another, the call waits for a limited time.
    ///
    /// # Errors
    ///
    /// [`LockBusy`](super::StoreErrorKind::LockBusy) or [`Unavailable`](super::StoreErrorKind::Unavailable).
    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>>;

    /// Waits until the record of this key may have another version than `since`. `None`: there was no record.
    ///
    /// It is a notice, and may be lost or come without a change. Default: it never comes, and other processes notice a change
    /// when the server rejects their session.
    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        let (_, _) = (key, since);
        Box::pin(pending())
    }
}

/// The lock of one key. While it is held, only its holder saves, deletes, or loads the record under the lock.
///
/// Dropping it releases the lock.
pub trait StoreLock: Send + 'static {
    /// Loads the record. Returns `None` if there is none.
    ///
    /// # Errors
    ///
    /// Any [`StoreErrorKind`](super::StoreErrorKind) but `LockBusy`.
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;

    /// Saves a record, if the store has the version that the save [replaces](Save::replaces).
    ///
    /// # Errors
    ///
    /// - [`Superseded`](super::StoreErrorKind::Superseded) if the store has another version. It keeps that one.
    /// - [`LockLost`](super::StoreErrorKind::LockLost) if the lock may belong to another holder. Nothing was saved.
    /// - [`Unavailable`](super::StoreErrorKind::Unavailable). The caller may try again.
    /// - Any terminal [`StoreErrorKind`](super::StoreErrorKind) if the stored record cannot be read.
    fn save<'a>(&'a mut self, save: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Deletes the record, if there is one.
    ///
    /// # Errors
    ///
    /// - [`LockLost`](super::StoreErrorKind::LockLost) if the lock may belong to another holder. Nothing was deleted.
    /// - [`Unavailable`](super::StoreErrorKind::Unavailable). The caller may try again.
    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// How long the lock is held unless it is renewed. Default: `None`, it is held until it is released.
    fn lease(&self) -> Option<Lease> {
        None
    }

    /// Renews the lease. The layer does so when [a third of it](Lease::length) has passed. Default: does nothing.
    ///
    /// # Errors
    ///
    /// - [`LockLost`](super::StoreErrorKind::LockLost) if the lock may belong to another holder.
    /// - [`Unavailable`](super::StoreErrorKind::Unavailable). The layer tries again until the lease is over.
    fn renew(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }

    /// Releases the lock, and completes when it is released.
    ///
    /// Default: drops the lock. That is enough if a drop releases it without waiting.
    fn unlock(self: Box<Self>) -> BoxFuture<'static, ()> {
        drop(self);
        Box::pin(ready(()))
    }
}

impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        S::load(self, key)
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        S::lock(self, key)
    }

    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        S::changed(self, key, since)
    }
}

/// What happens to a refreshed session that cannot be saved. Default: [`Continue`](Self::Continue).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnSaveFailure {
    /// This process uses the session. [`Observer::store_failed`](crate::observer::Observer::store_failed) reports the failure.
    #[default]
    Continue,
    /// The refresh fails with a transient error. A rotated refresh token stays in memory for the next attempt.
    Fail,
}

/// A key of a store: where one session is kept.
#[derive(Clone)]
pub(crate) struct StoreKey {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) key: Arc<str>,
    /// Whether its failures were told already.
    pub(crate) is_quiet: bool,
}

impl StoreKey {
    pub(crate) fn new(store: Arc<dyn SessionStore>, key: Arc<str>) -> Self {
        Self {
            store,
            key,
            is_quiet: false,
        }
    }

    /// The same, of whose failures no event tells.
    pub(crate) fn quiet(&self) -> Self {
        Self {
            is_quiet: true,
            ..self.clone()
        }
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreKey")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

// Both traits stay dyn-compatible.
const _: fn(&dyn SessionStore, &dyn StoreLock) = |_, _| {};
