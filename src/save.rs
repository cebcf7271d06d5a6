//! Saving a session by hand.

use tokio::time::Instant;

use crate::{
    error::{self, Error, ErrorKind},
    handle::{SessionHandle, runtime},
    life::Shared,
    observer::StoreOperation,
    session::Session,
    store::{Place, Record, StoreError, StoreErrorKind},
};

impl SessionHandle {
    /// Saves the session in its [store](crate::store), in place of what is stored, and the newest refresh token with it.
    ///
    /// For a session that was [set](Self::set), after a login in a browser for one, and for one that could not be saved when
    /// a refresh brought it. What a refresh brings is saved by itself otherwise.
    ///
    /// It is a task of its own: dropping the future does not stop it.
    ///
    /// ```
    /// use tower_salesforce_auth::{Error, SalesforceAuthLayer, Session, store::MemoryStore};
    /// # use tower_salesforce_auth::{RefreshContext, store::SessionStore};
    ///
    /// async fn logged_in(layer: SalesforceAuthLayer, session: Session) -> Result<SalesforceAuthLayer, Error> {
    ///     let layer = layer.session(session);
    ///     layer.handle().save().await?;
    ///     Ok(layer)
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
    /// # let store = MemoryStore::new();
    /// # let layer = SalesforceAuthLayer::with_session(session.clone()).store(store.clone(), "user");
    /// # logged_in(layer, session).await?;
    /// # assert!(store.load("user").await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] if there is no store, or it fails: within the refresh timeout for the lock, and as long again for
    /// the rest. What is stored and cannot be read is left as it is, and is an error, too. [`ErrorKind::NoSession`] if there
    /// is no session, [`ErrorKind::LoggedOut`] after a logout, [`ErrorKind::NoRuntime`] outside of a tokio runtime, and
    /// [`ErrorKind::Reentrant`] in the middle of a refresh of this session, which has the lock.
    pub async fn save(&self) -> Result<(), Error> {
        let Some(place) = self.shared.settings.load().place.clone() else {
            return Err(Error::new(
                ErrorKind::Store,
                "the Salesforce session has no store: give the layer one with SalesforceAuthLayer::store",
            ));
        };
        if self.shared.owner.is_aboard() {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "the refresh would wait for its own lock: what it brings is saved when it returns",
            ));
        }
        // Before anybody is kept waiting.
        self.shared.session_to_save()?;
        let handle = self.clone();
        let saving = runtime()?.spawn(async move { handle.shared.save_latest(place).await });
        saving.await.unwrap_or_else(|_stopped| {
            Err(not_saved(StoreError::new(
                StoreErrorKind::Unavailable,
                "the session store panicked, or its runtime was shut down",
            )))
        })
    }
}

impl Shared {
    async fn save_latest(self: std::sync::Arc<Self>, place: Place) -> Result<(), Error> {
        let deadline = Instant::now().checked_add(self.settings.load().refresh_timeout);
        let locking = place.store.lock(&place.key);
        let mut lock = self
            .ask(&place, StoreOperation::Lock, deadline, locking)
            .await
            .map_err(not_saved)?;
        let stored = self
            .ask(&place, StoreOperation::Load, deadline, lock.load())
            .await
            .map_err(not_saved)?;
        let session = self.session_to_save()?;
        let record = match &stored {
            Some(stored) => stored.followed_by(session),
            None => Record::new(session),
        };
        self.save(place, lock, record).await.map_err(not_saved)
    }

    fn session_to_save(&self) -> Result<Session, Error> {
        let life = self.lock();
        if life.is_logged_out {
            return Err(error::logged_out());
        }
        let Some(latest) = &life.latest else {
            return Err(Error::new(
                ErrorKind::NoSession,
                "there is no Salesforce session to save: set one, or let a request log in",
            ));
        };
        let session = Session::clone(latest);
        Ok(match &life.refresh_token {
            Some(refresh_token) => session.with_refresh_token(refresh_token.clone()),
            None => session,
        })
    }
}

fn not_saved(error: StoreError) -> Error {
    Error::new(
        ErrorKind::Store,
        "the Salesforce session could not be saved",
    )
    .with_source(error)
}
