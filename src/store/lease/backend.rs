//! What a database has to do for a [`LeaseStore`](super::lease_store::LeaseStore).

use std::{future::pending, time::Duration};

use crate::{
    error::StoreError,
    secret::Secret,
    store::{session_store::BoxFuture, version::Version},
};

/// A database that keeps records and leases, as single atomic statements.
///
/// [`LeaseStore`](crate::store::LeaseStore) makes a [`SessionStore`](crate::store::SessionStore) of it. Each key has at most one record, which
/// is a text with a [`Version`], and at most one lease, which has an owner and an end. Both are independent: a lease can exist
/// without a record.
///
/// # Contract
///
/// - **Each call is one atomic step**, and holds nothing afterwards: no connection and no transaction. A future can be dropped
///   at any time; the step is done then, or not.
/// - **Time is the database's.** A lease ends by its clock, not by that of any client.
/// - **A read returns the last write.** Replicas that lag behind do not serve it.
///
/// Each call fails with [`Unavailable`](crate::store::StoreErrorKind::Unavailable) if the database cannot be reached or cannot tell.
/// Errors may show keys, and no texts.
///
/// ```
/// use std::{collections::HashMap, future::ready, sync::{Arc, Mutex}, time::{Duration, Instant}};
/// use tower_salesforce_auth::store::{
///     Acquired, BoxFuture, LeaseBackend, LeaseStore, Put, StoreError, Stored, Version,
/// };
///
/// #[derive(Default)]
/// struct Row { record: Option<Stored>, lease: Option<(String, Instant)> }
///
/// impl Row {
///     fn is_owned_by(&self, owner: &str) -> bool {
///         self.lease.as_ref().is_some_and(|(held, until)| held == owner && *until > Instant::now())
///     }
/// }
///
/// #[derive(Clone, Default)]
/// struct Table(Arc<Mutex<HashMap<String, Row>>>);
///
/// impl Table {
///     fn step<T: Send + 'static>(&self, key: &str, step: impl FnOnce(&mut Row) -> T)
///         -> BoxFuture<'static, Result<T, StoreError>>
///     {
///         Box::pin(ready(Ok(step(self.0.lock().unwrap().entry(key.to_owned()).or_default()))))
///     }
/// }
///
/// impl LeaseBackend for Table {
///     fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
///         self.step(key, |row| row.record.clone())
///     }
///
///     fn acquire<'a>(&'a self, key: &'a str, owner: &'a str, lease: Duration)
///         -> BoxFuture<'a, Result<Acquired, StoreError>>
///     {
///         self.step(key, |row| match &row.lease {
///             Some((_, until)) if *until > Instant::now() => {
///                 Acquired::HeldFor(until.duration_since(Instant::now()))
///             }
///             _ => {
///                 row.lease = Some((owner.to_owned(), Instant::now() + lease));
///                 Acquired::Taken
///             }
///         })
///     }
///
///     fn renew<'a>(&'a self, key: &'a str, owner: &'a str, lease: Duration)
///         -> BoxFuture<'a, Result<bool, StoreError>>
///     {
///         self.step(key, |row| {
///             let is_owned = row.is_owned_by(owner);
///             if is_owned {
///                 row.lease = Some((owner.to_owned(), Instant::now() + lease));
///             }
///             is_owned
///         })
///     }
///
///     fn put<'a>(&'a self, key: &'a str, put: Put<'a>)
///         -> BoxFuture<'a, Result<Option<Version>, StoreError>>
///     {
///         self.step(key, |row| {
///             let stored = row.record.as_ref().map(|record| record.version);
///             if stored != put.replaces {
///                 return stored;
///             }
///             row.record = Some(Stored::new(put.text.clone(), put.version));
///             Some(put.version)
///         })
///     }
///
///     fn delete<'a>(&'a self, key: &'a str, owner: &'a str)
///         -> BoxFuture<'a, Result<bool, StoreError>>
///     {
///         self.step(key, |row| {
///             let is_owned = row.is_owned_by(owner);
///             if is_owned {
///                 row.record = None;
///             }
///             is_owned
///         })
///     }
///
///     fn release<'a>(&'a self, key: &'a str, owner: &'a str)
///         -> BoxFuture<'a, Result<(), StoreError>>
///     {
///         self.step(key, |row| {
///             if row.is_owned_by(owner) {
///                 row.lease = None;
///             }
///         })
///     }
/// }
///
/// let store = LeaseStore::new(Table::default());
/// ```
pub trait LeaseBackend: Send + Sync + 'static {
    /// Returns the record. `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::store::StoreErrorKind::Corrupt) if what is stored has no version.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>>;

    /// Takes the lease of this key for `owner`, if no lease lasts.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable), also if the database could not save a record.
    fn acquire<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>>;

    /// Lets the lease of `owner` last for `lease` from now. Returns whether `owner` still had it.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable).
    fn renew<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Saves a record if the stored one has the version that it replaces, with or without the lease. Returns the version that is
    /// stored afterwards. `None`: there is no record, and none was saved.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable). [`Corrupt`](crate::store::StoreErrorKind::Corrupt) if what is stored has no
    /// version.
    fn put<'a>(
        &'a self,
        key: &'a str,
        put: Put<'a>,
    ) -> BoxFuture<'a, Result<Option<Version>, StoreError>>;

    /// Deletes the record if `owner` has the lease. Returns whether it had.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable).
    fn delete<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Ends the lease if `owner` has it.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable). The lease ends by itself then.
    fn release<'a>(&'a self, key: &'a str, owner: &'a str)
    -> BoxFuture<'a, Result<(), StoreError>>;

    /// Waits until the record may have another version than `since`. See
    /// [`SessionStore::changed`](crate::store::SessionStore::changed). Default: never.
    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        let (_, _) = (key, since);
        Box::pin(pending())
    }
}

/// A record as a [`LeaseBackend`] keeps it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stored {
    /// The text, which is secret.
    pub text: Secret,
    /// The version of the record, in a column of its own.
    pub version: Version,
}

impl Stored {
    /// A record of this text and version.
    pub fn new(text: impl Into<Secret>, version: Version) -> Self {
        Self {
            text: text.into(),
            version,
        }
    }
}

/// A record that a [`LeaseBackend`] is to save.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Put<'a> {
    /// The text, which is secret.
    pub text: &'a Secret,
    /// Its version.
    pub version: Version,
    /// The version that is stored. `None`: there is no record.
    pub replaces: Option<Version>,
    /// How long after the save the record is of use, at most: a hint. `None`: without end.
    pub lifetime: Option<Duration>,
}

/// How an attempt to take a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acquired {
    /// The caller has the lease.
    Taken,
    /// Another owner has it, for this time unless it is renewed.
    HeldFor(Duration),
}
