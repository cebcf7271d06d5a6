//! The end of a session: here at once, and at the server as far as that can be reached.

use std::sync::Arc;

use tokio::time::timeout;

use crate::{
    error::{Error, ErrorKind, RefreshError, RefreshErrorKind},
    handle::handle::{SessionHandle, runtime},
    http::transport::HttpClient,
    oauth,
    refresh::{
        shared::{Landed, Logout, Standing},
        task::Flight,
    },
    report::{observer::Event, subscription::SessionState},
    session::{session::Session, url::LoginUrl},
    soap,
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
        let runtime = runtime()?;
        if left.is_aboard {
            // What waits for the refresh is done after it.
            let (handle, client) = (self.clone(), client.clone());
            let left = Left {
                is_aboard: false,
                ..left.clone()
            };
            // Whoever watches is told if the store fails. What failed is done by the next logout.
            runtime.spawn(async move { handle.end(client, extent, left).await });
        }
        let handle = self.clone();
        let task = runtime.spawn(async move { handle.end(client, extent, left).await });
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
        let departed = life.epoch;
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
        life.logged_out = epoch;
        let standing = std::mem::replace(&mut life.standing, Standing::Stored);
        let seen = life.seen.take();
        self.shared.current.store(None);
        self.shared.state.show(SessionState::LoggedOut);
        // The next login waits until its exchange is over.
        let superseded = life.supersede(departed);
        let mut flights: Vec<_> = life.superseded.iter().cloned().collect();
        flights.extend(
            superseded
                .as_ref()
                .map(|superseded| Arc::clone(&superseded.flight)),
        );
        life.logouts.push(Logout {
            epoch,
            grant,
            sessions: session.into_iter().collect(),
            refresh_tokens: refresh_token.into_iter().collect(),
            place: self.shared.settings.place.clone(),
            seen,
            standing,
        });
        drop(life);
        if !was_logged_out {
            self.shared.announce(&[Event::LoggedOut]);
        }
        if let Some(superseded) = superseded {
            superseded.land(Err(RefreshError::new(
                RefreshErrorKind::LoggedOut,
                true,
                "the session was logged out",
            )));
        }
        Left {
            epoch,
            flights,
            is_aboard: self.shared.owner.is_aboard(),
        }
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
        // Whoever is aboard would wait for itself, and has the lock of the store.
        for flight in left.flights.iter().filter(|_| !left.is_aboard) {
            if !flight.ended_in_time().await {
                outcome = Err(unanswered("a refresh that was under way has not ended"));
            }
        }
        let is_settled = outcome.is_ok();
        let limit = self.shared.settings.refresh_timeout;
        if !left.is_aboard
            && let Err(error) = self.shared.delete_stored(left.epoch).await
        {
            outcome = outcome.and(Err(error.into()));
        }
        // The flights of all logouts before this one have ended too: each waits for those before it.
        let logouts: Vec<_> = {
            let mut life = self.shared.lock();
            let concerns = |logout: &mut Logout| logout.epoch <= left.epoch;
            life.logouts.extract_if(.., concerns).collect()
        };
        for mut logout in logouts {
            let ending = end_logout(client.clone(), &mut logout, extent);
            let ended = timeout(limit, ending)
                .await
                .unwrap_or_else(|_elapsed| Err(unanswered("the server did not answer in time")));
            if ended.is_err() || !is_settled || logout.place.is_some() {
                self.shared.lock().logouts.push(logout);
            }
            outcome = outcome.and(ended);
        }
        outcome
    }
}

/// Which logout it is, and the flights whose exchange may not be over.
#[derive(Clone)]
struct Left {
    epoch: u64,
    flights: Vec<Arc<Flight<Landed>>>,
    /// Whether it is part of one of them.
    is_aboard: bool,
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
    let mut remaining = 0;
    while let (Extent::Grant, Some(refresh_token)) = (extent, logout.refresh_tokens.get(remaining))
    {
        let ended = match &url {
            Some(url) => oauth::revoke(client.clone(), url, refresh_token).await,
            None => Err(RefreshError::configuration(
                "there is a refresh token, and no session that would tell where to revoke it",
            )),
        };
        if ended.is_ok() {
            // Its access tokens end with it; others may be of another login.
            let revoked = logout.refresh_tokens.remove(remaining);
            logout
                .sessions
                .retain(|session| session.refresh_token() != Some(&revoked));
        } else {
            remaining += 1;
        }
        outcome = outcome.and(ended);
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
