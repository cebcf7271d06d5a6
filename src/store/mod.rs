//! Where sessions outlive the process, and are shared by several.
//!
//! ```
//! use tower_salesforce_auth::{SalesforceAuthLayer, flow::{HttpClient, RefreshToken}, oauth::App, store::MemoryStore};
//!
//! fn layer(http: impl HttpClient, app: App, refresh_token: String, store: MemoryStore) -> SalesforceAuthLayer {
//!     SalesforceAuthLayer::new(RefreshToken::new(http, app, refresh_token)).store(store, "nightly-export")
//! }
//! ```
//!
//! `FileStore` (feature `file-store`) keeps sessions in a directory, for the processes of one machine; a database, or a
//! vault, is an implementation of [`SessionStore`] away.
//!
//! # What the layer does with it
//!
//! - **Start-up.** A layer without a session loads it from the store, without the lock, before it would log in.
//! - **A rejection.** Whoever is rejected [locks](SessionStore::lock) the session's key, loads what is stored, and
//!   adopts that if another process saved it meanwhile. Otherwise the [`RefreshFn`](crate::RefreshFn) is called, and what
//!   it brings is saved before anybody who waits goes on, and before the lock is released. So one refresh token is
//!   presented once, whoever shares it. The lock is not held while requests are sent.
//! - **`invalid_grant`.** Somebody may have renewed the session without the lock. What is stored is loaded once more, and
//!   adopted if it has another refresh token. If not, the failure is for [good](crate::RefreshError::is_terminal).
//! - **A logout** deletes the record, and ends the session that is in it, whoever stored it. Other processes that had it
//!   fail with [`ErrorKind::LoggedOut`] once theirs is rejected, and present nothing; a login that anybody stores afterwards
//!   is for all of them. Where a record was deleted by mistake, [`SessionHandle::save`] puts it back.
//! - **A failure for good** is not the end for those who wait for somebody to log in elsewhere: every ten seconds a request
//!   looks whether there is another session in the store.
//! - **A session that is [set](crate::SessionHandle::set) by hand** is stored by [`SessionHandle::save`], or with its first
//!   refresh. If it is rejected before that, and the store has one of the same user that the handle has not seen, the one that
//!   the server issued later counts, as far as both [tell](crate::Session::issued_at), and otherwise the stored one: so save
//!   what comes of a login by hand. One of another user is none of its business.
//!
//! Each key is for one user of one org. What is stored under it is believed: whoever can write there can make the layer use
//! another session.
//!
//! [`SessionHandle::save`]: crate::SessionHandle::save
//! [`ErrorKind::LoggedOut`]: crate::ErrorKind::LoggedOut
//!
//! # When the store fails
//!
//! | the store | what happens |
//! |---|---|
//! | is slow, or hangs | nobody waits for longer than the refresh timeout. If half of it is over before there is the lock, and what is stored, no exchange begins, since it could be cut off in the middle |
//! | cannot be locked or loaded | the refresh fails in a way that may pass, with [`RefreshErrorKind::Store`]; nothing is presented to the server; it is tried again until half of the refresh timeout is over |
//! | cannot be written to | found out as far as [`lock`](SessionStore::lock) can: then as above, and no token is used up |
//! | cannot be written to after the exchange | three tries, then [`Observer::store_failed`], once; the session is used all the same, unless [`OnSaveFailure::Fail`] is set; it goes to the store with the next refresh, or with [`SessionHandle::save`] |
//! | takes longer to save than the refresh timeout lasts | the session is used; saving goes on for as long again, with the lock |
//! | has a record that is broken, or of a later version | the refresh fails for good, until the record is mended or deleted; it is left as it is |
//! | has an older record than one that was seen | as if it could not be loaded, until the handle is [reset](crate::SessionHandle::reset) |
//! | cannot be written to when the session is logged out | it is over here and at the server; [`logout`](crate::SessionHandle::logout) fails, and deletes what is stored when it is called again |
//!
//! [`RefreshErrorKind::Store`]: crate::RefreshErrorKind::Store
//! [`Observer::store_failed`]: crate::Observer::store_failed
//!
//! While a rotated refresh token is not saved, another process that presents the stored one ends the grant for all: let
//! somebody be told of that.
//!
//! # The window that no client can close
//!
//! Under rotation the server has replaced the refresh token before its answer arrives. A process that is killed, or a
//! machine that loses power, between that moment and the end of the save leaves the old one in the store, and the user has
//! to authorize the app again. With a `FileStore` the save is one small file, two `fsync`s and a rename.

#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod conformance;
#[cfg(feature = "encryption")]
mod encryption;
#[cfg(all(feature = "file-store", not(feature = "encryption")))]
#[path = "no_encryption.rs"]
mod encryption;
#[cfg(feature = "file-store")]
mod file;
mod memory;
mod record;
mod session_store;

pub use crate::error::{StoreError, StoreErrorKind};
#[cfg(feature = "encryption")]
#[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
pub use encryption::EncryptionKey;
#[cfg(feature = "file-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "file-store")))]
pub use file::FileStore;
pub use memory::MemoryStore;
pub use record::Record;
pub(crate) use record::Revision;
pub(crate) use session_store::Place;
pub use session_store::{BoxFuture, OnSaveFailure, SessionStore, StoreLock};
