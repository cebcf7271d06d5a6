//! Session stores: sessions outlive the process, and several processes share them.
//!
//! ```
//! use tower_salesforce_auth::{
//!     SalesforceAuthLayer, SessionHandle,
//!     flow::{HttpClient, RefreshToken},
//!     oauth::App,
//!     store::MemoryStore,
//! };
//!
//! fn layer(
//!     http: impl HttpClient,
//!     app: App,
//!     refresh_token: String,
//!     store: MemoryStore,
//! ) -> SalesforceAuthLayer {
//!     let login = RefreshToken::new(http, app, refresh_token);
//!     SessionHandle::builder(login).store(store, "nightly-export").build().into()
//! }
//! ```
//!
//! `FileStore` (feature `file-store`) keeps sessions in a directory, for the processes of one machine. `RedisStore` (feature
//! `redis-store`) keeps them in Redis or Valkey, and `PostgresStore` (feature `postgres-store`) in PostgreSQL, for the processes of
//! many machines. For another database write a [`LeaseBackend`] for [`LeaseStore`]. For anything else implement
//! [`SessionStore`].
//!
//! # How the layer uses a store
//!
//! - **Start-up.** A layer without a session loads the record, without the lock, before it logs in.
//! - **Rejection.** After a rejection, the layer loads the record, without the lock. If another process has saved a newer
//!   session, the layer adopts it. Otherwise it [locks](SessionStore::lock) the session's key, and loads and compares once
//!   more. If there is still nothing to adopt, it calls the [`RefreshFn`](crate::RefreshFn). It saves the new session before
//!   any waiter continues, and before it releases the lock. So all processes together present each refresh token once. The
//!   lock is not held while requests are sent.
//! - **Another process holds the lock.** The layer loads the record again and again, and adopts what that process saves, for as
//!   long as callers wait. The pauses grow with the wait, up to 2 s; with `follow_store` a notice ends them. So processes that
//!   wait do not take the lock one after another. A token call of their own begins only in the first half of the refresh timeout.
//! - **Notices.** With [`follow_store`](crate::handle::SessionHandleBuilder::follow_store), the layer adopts what other processes
//!   save as soon as the store [tells of it](SessionStore::changed).
//! - **Leases.** The layer renews the [lease](StoreLock::lease) of a lock during the token call. If the lease is over before
//!   the call begins, there is no call. If it is over during the call, the save finds out whether another process has saved.
//! - **A save that comes too late.** A save replaces the version that was loaded before the token call. If another process has
//!   saved meanwhile, the layer adopts that session. If another process has deleted the record, the session was logged out.
//! - **`invalid_grant`.** Another program may have refreshed the session without the lock. The layer loads the record once
//!   more, and adopts it if it has another refresh token. Otherwise the failure is
//!   [terminal](crate::RefreshError::is_terminal).
//! - **Logout.** A logout deletes the record and ends the session in it, whichever process saved it. Other processes that
//!   use this session fail with [`ErrorKind::LoggedOut`] at their next rejection, and present nothing. A login that any
//!   process saves later serves all of them. If a record was deleted by mistake, [`SessionHandle::save`] restores it.
//! - **Terminal failure.** After a terminal failure, a request checks the store for another session every 10 s. So a
//!   login in another process ends the failure here too.
//! - **A session that is [set](crate::SessionHandle::set).** It is saved by [`SessionHandle::save`], or with its first
//!   refresh. It may be rejected before that, while the store has a record of the same user that the handle has not seen.
//!   Then the session that the server issued later is used, if both have [`issued_at`](crate::Session::issued_at), and
//!   otherwise the stored one. So save a session that you set. A record of another user is ignored.
//!
//! Each key is for one user of one org. The layer trusts the record: any program that can write to the store can make the
//! layer use another session.
//!
//! [`SessionHandle::save`]: crate::SessionHandle::save
//! [`ErrorKind::LoggedOut`]: crate::ErrorKind::LoggedOut
//!
//! # When the store fails
//!
//! | the store | what happens |
//! |---|---|
//! | is slow, or hangs | No caller waits longer than the refresh timeout. If the lock and the record take more than half of it, no token call starts, because the timeout could interrupt it. |
//! | has lost the lock, at a save | The layer takes the lock again and compares. It saves if no other process has saved, and adopts the record otherwise. |
//! | cannot be locked or loaded | The layer presents nothing to the server. It retries until half of the refresh timeout has passed; then the refresh fails with a transient [`RefreshErrorKind::Store`]. |
//! | cannot be written to | [`lock`](SessionStore::lock) detects this as far as it can: then as above, and no token is used. |
//! | cannot be written to after the token call | The layer tries to save three times, then calls [`Observer::store_failed`] once. It uses the session anyway, unless [`OnSaveFailure::Fail`] is set. If its refresh token is new, it tries again in the background: soon, then ever more seldom, and each 5 s at least. The next refresh, or [`SessionHandle::save`], saves it as well. |
//! | takes longer to save than the refresh timeout lasts | The layer uses the session. The save continues for the same time again, with the lock held. |
//! | has a broken record, or one of a later version | The refresh fails with a terminal error until the record is repaired or deleted. The layer does not change it. |
//! | has an older record than the handle has seen | The refresh fails as if the record could not be loaded, until the handle is [reset](crate::SessionHandle::reset). |
//! | cannot be written to at a logout | The session ends here and at the server. [`logout`](crate::SessionHandle::logout) fails, and deletes the record when it is called again. |
//!
//! [`RefreshErrorKind::Store`]: crate::RefreshErrorKind::Store
//! [`Observer::store_failed`]: crate::observer::Observer::store_failed
//!
//! While a rotated refresh token is not saved, the store still has the old one. If another process presents that, the grant
//! ends for all of them. So alert an operator in [`Observer::store_failed`].
//!
//! # The window that no client can close
//!
//! Under rotation the server has replaced the refresh token before its answer arrives. If the process is killed, or the
//! machine loses power, between that moment and the end of the save, the store keeps the old token. Then the user has to
//! authorize the app again. With a `FileStore` the save is one small file, two `fsync`s and a rename.

#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod conformance;
mod encoding;
#[cfg(feature = "encryption")]
mod encryption;
#[cfg(not(feature = "encryption"))]
#[path = "no_encryption.rs"]
mod encryption;
#[cfg(feature = "file-store")]
mod file;
mod lease;
mod memory;
#[cfg(feature = "postgres-store")]
mod postgres;
mod record;
#[cfg(feature = "redis-store")]
mod redis;
mod save;
mod session_store;
mod version;

pub use crate::error::{StoreError, StoreErrorKind};
#[cfg(feature = "encryption")]
#[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
pub use encryption::EncryptionKey;
#[cfg(feature = "file-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "file-store")))]
pub use file::FileStore;
pub use lease::{
    backend::{Acquired, LeaseBackend, Put, Stored},
    lease_store::LeaseStore,
};
pub use memory::MemoryStore;
#[cfg(feature = "postgres-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres-store")))]
pub use postgres::PostgresStore;
pub use record::Record;
#[cfg(feature = "redis-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis-store")))]
pub use redis::RedisStore;
pub use save::{Lease, Save};
pub(crate) use session_store::StoreKey;
pub use session_store::{BoxFuture, OnSaveFailure, SessionStore, StoreLock};
pub use version::Version;
