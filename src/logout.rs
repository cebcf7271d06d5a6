//! The end of a session: here at once, and at the server as far as that can be reached.

use std::sync::Arc;

use tokio::time::{Instant, timeout};

use crate::{
    endpoint::LoginUrl,
    error::{Error, ErrorKind, RefreshError, RefreshErrorKind},
    event::SessionState,
    handle::{SessionHandle, runtime},
    life::{Landed, Logout, Shared},
    oauth,
    observer::{News, StoreOperation},
    procedure::release,
    refresh::single_flight::Flight,
    session::Session,
    soap,
    store::StoreError,
    transport::HttpClient,
};

impl SessionHandle {
    /// Ends the session, here and at the server, by revoking the access token (RFC 7009), or by a SOAP `logout()` if it
    /// came of a SOAP login.
    ///
    /// From then on requests fail with [`ErrorKind::LoggedOut`], those that wait for a refresh included, and cost no
    /// refresh. What a refresh that is under way brings is waited for, and ended too. A refresh token stays good at the
    /// server, for whoever kept it: [`logout_and_revoke`](Self::logout_and_revoke) ends that as well.
    /// [`set`](Self::set) and [`reset`](Self::reset) begin again.
    ///
    /// Here the session is over as soon as the future is first polled, whatever becomes of the rest. What happens at the
    /// server is a task of its own: dropping the future does not stop it. Dropping the last handle, on the other hand, logs
    /// nobody out.
    ///
    /// If there is a [store](crate::store), what is stored is deleted, and ended too, whichever process saved it. Others that
    /// still have the session find it ended when they use it.
    ///
    /// It ends what the handle knows of: the session in use, not one that a refresh replaced before it was over, and not a
    /// refresh token that a flow was made with and that was never presented.
    ///
    /// A session id may be shared: SOAP logins of the same user can be given the same one, and it ends for all of them.
    ///
    /// ```no_run
    /// # use bytes::Bytes;
    /// # use http_body_util::Full;
    /// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// # async fn example(layer: tower_salesforce_auth::SalesforceAuthLayer) -> Result<(), tower_salesforce_auth::Error> {
    /// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// layer.handle().logout(client).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Logout`] if the server refused, could not be reached, or did not answer within the refresh timeout: the
    /// tokens may live on there. Likewise if what is stored could not be deleted. Log out once more to try again.
    /// [`ErrorKind::NoRuntime`] outside of a tokio runtime. Here the session is over in either case.
    pub async fn logout(&self, client: impl HttpClient) -> Result<(), Error> {
        self.log_out(client, Extent::Session).await
    }

    /// Ends the session as [`logout`](Self::logout) does, and the whole grant with it: the refresh token is revoked, and
    /// every access token that came of it. Without a refresh token it is the same as `logout`.
    ///
    /// # Errors
    ///
    /// As for [`logout`](Self::logout).
    pub async fn logout_and_revoke(&self, client: impl HttpClient) -> Result<(), Error> {
        self.log_out(client, Extent::Grant).await
    }

    async fn log_out(&self, client: impl HttpClient, extent: Extent) -> Result<(), Error> {
        let left = self.leave(extent);
        let handle = self.clone();
        let task = runtime()?.spawn(async move { handle.end(client, extent, left).await });
        let ended = task.await.unwrap_or_else(|error| {
            Err(RefreshError::new(
                RefreshErrorKind::Cancelled,
                false,
                "the task that asked the server was stopped",
            )
            .with_source(error))
        });
        ended.map_err(|error| {
            Error::new(
                ErrorKind::Logout,
                "the session is over here, but may live on at the server: log out once more to try again",
            )
            .with_source(error)
        })
    }

    /// Ends the session here.
    fn leave(&self, extent: Extent) -> Left {
        let mut life = self.shared.lock();
        life.epoch += 1;
        let (epoch, grant) = (life.epoch, life.grant);
        // Whatever comes back from the exchange under way is of a grant that is none of ours any more.
        life.grant += 1;
        let was_logged_out = std::mem::replace(&mut life.is_logged_out, true);
        life.has_spent_refresh_token |= extent == Extent::Grant;
        life.failure = None;
        life.policy.reset();
        let session = life.latest.take().map(|live| live.0.session.clone());
        let refresh_token = life.refresh_token.take();
        life.seen = None;
        self.shared.current.store(None);
        self.shared.state.send_replace(SessionState::LoggedOut);
        let mut flights: Vec<_> = life.superseded.iter().cloned().collect();
        let flight = life.flight.take();
        if let Some(flight) = &flight {
            // The next login waits until its exchange is over.
            life.superseded = Some(Arc::clone(flight));
            flights.push(Arc::clone(flight));
        }
        let is_aboard = self.shared.owner.is_aboard();
        // In the middle of the refresh, that has the lock of the store, and deletes what is stored.
        let place = self
            .shared
            .settings
            .load()
            .place
            .clone()
            .filter(|_| !is_aboard);
        life.logouts.push(Logout {
            epoch,
            grant,
            sessions: session.into_iter().collect(),
            refresh_token,
            place,
        });
        drop(life);
        if !was_logged_out {
            self.shared.announce(&[News::LoggedOut]);
        }
        if let Some(flight) = flight {
            flight.land(Err(RefreshError::new(
                RefreshErrorKind::LoggedOut,
                true,
                "the session was logged out",
            )));
        }
        if is_aboard {
            // It would wait for itself.
            flights.clear();
        }
        Left { epoch, flights }
    }

    /// Ends at the server whatever was logged out here, once nothing more can come of it. What could not be ended is kept
    /// for the next time.
    async fn end(
        &self,
        client: impl HttpClient,
        extent: Extent,
        left: Left,
    ) -> Result<(), RefreshError> {
        let mut outcome = Ok(());
        for flight in left.flights {
            if !flight.ended_in_time().await {
                outcome = Err(unanswered("a refresh that was under way has not ended"));
            }
        }
        let is_settled = outcome.is_ok();
        let limit = self.shared.settings.load().refresh_timeout;
        // The flights of all logouts before this one have ended too: each waits for those before it.
        let logouts: Vec<_> = {
            let mut life = self.shared.lock();
            let concerns = |logout: &mut Logout| logout.epoch <= left.epoch;
            life.logouts.extract_if(.., concerns).collect()
        };
        for mut logout in logouts {
            let deleted = self.shared.delete_stored(&mut logout).await;
            let ending = end_logout(client.clone(), &mut logout, extent);
            let ended = timeout(limit, ending)
                .await
                .unwrap_or_else(|_elapsed| Err(unanswered("the server did not answer in time")));
            let ended = deleted.map_err(RefreshError::from).and(ended);
            if ended.is_err() || !is_settled {
                self.shared.lock().logouts.push(logout);
            }
            outcome = outcome.and(ended);
        }
        outcome
    }
}

impl Shared {
    /// Deletes what is stored of a session that was logged out, and takes note of what another process had stored: that ends
    /// as well.
    async fn delete_stored(&self, logout: &mut Logout) -> Result<(), StoreError> {
        let Some(place) = &logout.place else {
            return Ok(());
        };
        let deadline = Instant::now().checked_add(self.settings.load().refresh_timeout);
        let locking = place.store.lock(&place.key);
        let mut lock = self
            .ask(place, StoreOperation::Lock, deadline, locking)
            .await?;
        // What cannot be read is deleted all the same.
        let stored = self
            .ask(place, StoreOperation::Load, deadline, lock.load())
            .await;
        if let Ok(Some(record)) = stored {
            let session = record.into_session();
            let is_known = |known: &Session| known.access_token() == session.access_token();
            if !logout.sessions.iter().any(is_known) {
                logout.refresh_token = session
                    .refresh_token()
                    .cloned()
                    .or(logout.refresh_token.take());
                logout.sessions.push(session);
            }
        }
        let deleting = lock.delete();
        self.ask(place, StoreOperation::Delete, deadline, deleting)
            .await?;
        release(lock, deadline).await;
        logout.place = None;
        Ok(())
    }
}

/// Which logout it is, and the flights whose exchange may not be over.
struct Left {
    epoch: u64,
    flights: Vec<Arc<Flight<Landed>>>,
}

/// How much is ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Session,
    Grant,
}

/// Ends the tokens of a logout at the server, and forgets each that has ended. A failure does not keep the rest from being
/// tried.
async fn end_logout(
    client: impl HttpClient,
    logout: &mut Logout,
    extent: Extent,
) -> Result<(), RefreshError> {
    let mut outcome = Ok(());
    let url = logout.sessions.last().map(revocation_url);
    if let (Extent::Grant, Some(refresh_token)) = (extent, &logout.refresh_token) {
        let ended = match &url {
            Some(url) => oauth::revoke(client.clone(), url, refresh_token).await,
            None => Err(RefreshError::configuration(
                "there is a refresh token, and no session that would tell where to revoke it",
            )),
        };
        match ended {
            Ok(()) => {
                // Its access tokens end with it; others may be of another login.
                let revoked = logout.refresh_token.take();
                logout
                    .sessions
                    .retain(|session| session.refresh_token() != revoked.as_ref());
            }
            failed => outcome = failed,
        }
    }
    // Each is forgotten where it has ended: this may be cut off at any of them.
    let mut remaining = 0;
    while let Some(session) = logout.sessions.get(remaining) {
        let ended = if session.is_soap() && !session.is_jwt() {
            soap::logout(client.clone(), session).await
        } else {
            let url = revocation_url(session);
            oauth::revoke(client.clone(), &url, session.access_token()).await
        };
        outcome = outcome.and(ended);
        if outcome.is_ok() {
            logout.sessions.remove(remaining);
        } else {
            // It also tells where to revoke the refresh token.
            remaining += 1;
        }
    }
    outcome
}

fn unanswered(message: &'static str) -> RefreshError {
    RefreshError::new(RefreshErrorKind::TimedOut, false, message)
}

/// Where the session was obtained, or, if nobody knows, its instance, which revokes as well.
fn revocation_url(session: &Session) -> LoginUrl {
    match session.login_url() {
        Some(login_url) => login_url.clone(),
        None => LoginUrl::from(session.instance_url()),
    }
}
