//! Saving a session by hand.

use std::sync::Arc;

use crate::{
    error::{Error, ErrorKind},
    handle::handle::{SessionHandle, runtime},
    refresh::{
        core::decide::SavedBy,
        save::{check_session, not_saved, save},
    },
    store::{StoreError, StoreErrorKind},
};

impl SessionHandle {
    /// Saves the session in its [store](crate::store), and the newest refresh token with it.
    ///
    /// Use it in two cases:
    ///
    /// - A session was [set](Self::set), for example after a login in a browser. It replaces the stored one. If it came without
    ///   a refresh token, the newest refresh token of the same user stays: the stored one, or one that was set before and not
    ///   saved.
    /// - A refreshed session could not be saved, and has to be stored now. It is saved unless another process has stored a newer
    ///   one since.
    ///
    /// A refresh saves its session by itself. If that fails and the refresh token is new, the layer tries again in the background:
    /// soon, then ever more seldom, and each 5 s at least. There is nothing to do otherwise.
    ///
    /// The save runs as a task: dropping the future does not stop it.
    ///
    /// ```
    /// use tower_salesforce_auth::{Error, Session, SessionHandle};
    /// # use tower_salesforce_auth::{handle::SessionHandleBuilder, store::{MemoryStore, SessionStore}};
    ///
    /// async fn logged_in(handle: &SessionHandle, session: Session) -> Result<(), Error> {
    ///     handle.set(session);
    ///     handle.save().await
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
    /// # let store = MemoryStore::new();
    /// # let handle = SessionHandleBuilder::fixed(session.clone()).store(store.clone(), "user").build();
    /// # logged_in(&handle, session).await?;
    /// # assert!(store.load("user").await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Store`] if there is no store, or if it fails. The lock has to be taken within the refresh timeout, and the
    ///   rest takes as long again at most. A record that cannot be read is an error, and is left as it is.
    /// - [`ErrorKind::NoSession`] if there is no session.
    /// - [`ErrorKind::LoggedOut`] after a logout, here or in another process, which deletes the record. To store the session in
    ///   memory all the same, for example after the store was cleared, [reset](Self::reset) the handle first. If a refresh has
    ///   already failed because the record is gone, a save stores the session again.
    /// - [`ErrorKind::NoRuntime`] outside of a tokio runtime.
    /// - [`ErrorKind::Reentrant`] inside a refresh of this session, which holds the lock.
    pub async fn save(&self) -> Result<(), Error> {
        let Some(store) = self.shared.settings.store.clone() else {
            return Err(Error::new(
                ErrorKind::Store,
                "the Salesforce session has no store: give it one with SessionHandleBuilder::store",
            ));
        };
        if self.shared.owner.is_inside() {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "the refresh would wait for its own lock: what it returns is saved afterwards",
            ));
        }
        check_session(&self.shared)?;
        let (shared, saving) = (Arc::clone(&self.shared), self.shared.begin_save());
        let task = runtime()?.spawn(async move {
            let saved = save(&shared, &store, SavedBy::User).await;
            drop(saving);
            saved
        });
        task.await.unwrap_or_else(|_stopped| {
            Err(not_saved(StoreError::new(
                StoreErrorKind::Unavailable,
                "the session store panicked, or its runtime was shut down",
            )))
        })
    }
}
