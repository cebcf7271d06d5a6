//! Saving a session by hand.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    error::{self, Error, ErrorKind},
    handle::handle::{SessionHandle, runtime},
    refresh::{
        record::{release, stopped, take_refresh_token},
        shared::{Shared, Standing},
    },
    report::event::StoreOperation,
    session::session::Session,
    store::{Record, StoreError, StoreKey},
};

impl SessionHandle {
    /// Saves the session in its [store](crate::store), and the newest refresh token with it.
    ///
    /// For a session that was [set](Self::set), after a login in a browser for one: it takes the place of what is stored,
    /// whatever that is. If it came without a refresh token, and is of the same user, the one that is stored stays. For one,
    /// too, that could not be saved when a refresh brought it, unless another process has stored a newer one since. What a
    /// refresh brings is saved by itself otherwise, and there is nothing to do.
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
    /// # let layer = SalesforceAuthLayer::from(SessionHandleBuilder::fixed(session.clone()).store(store.clone(), "user").build());
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
        let Some(place) = self.shared.settings.place.clone() else {
            return Err(Error::new(
                ErrorKind::Store,
                "the Salesforce session has no store: give it one with SessionHandleBuilder::store",
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
        saving
            .await
            .unwrap_or_else(|_stopped| Err(not_saved(stopped())))
    }
}

impl Shared {
    async fn save_latest(self: Arc<Self>, place: StoreKey) -> Result<(), Error> {
        let deadline = Instant::now().checked_add(self.settings.refresh_timeout);
        let locking = place.store.lock(&place.key);
        let mut lock = self
            .ask(&place, StoreOperation::Lock, deadline, locking)
            .await
            .map_err(not_saved)?;
        let stored = self
            .ask(&place, StoreOperation::Load, deadline, lock.load())
            .await
            .map_err(not_saved)?;
        let Some((epoch, record)) = self.record_to_save(stored)? else {
            release(lock, deadline).await;
            return Ok(());
        };
        self.save(epoch, place, lock, record)
            .await
            .map_err(not_saved)
    }

    /// What there is to be stored in place of `stored`. None: nothing that is newer, as far as that is known.
    fn record_to_save(&self, stored: Option<Record>) -> Result<Option<(u64, Record)>, Error> {
        let mut session = self.session_to_save()?;
        let mut life = self.lock();
        let epoch = life.epoch;
        let Some(stored) = stored else {
            return Ok(Some((epoch, Record::new(session))));
        };
        let is_seen = life.seen == Some(stored.revision());
        // One that was set, or that was here before there was a store, is another login than what is stored.
        if life.standing.is_by_hand() {
            let came_without = life
                .latest
                .as_ref()
                .is_some_and(|latest| latest.refresh_token().is_none());
            if came_without && !is_seen && session.may_replace(stored.session()) {
                take_refresh_token(&mut life, &stored);
                if let Some(refresh_token) = stored.session().refresh_token() {
                    session = session.with_refresh_token(refresh_token.clone());
                }
            }
            return Ok(Some((epoch, Record::new(session))));
        }
        // What a refresh brought is stored by that. What others stored since is newer.
        let is_needed = life.standing == Standing::Unsaved && is_seen;
        Ok(is_needed.then(|| (epoch, stored.followed_by(session))))
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
