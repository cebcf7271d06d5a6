//! The end of a session: here at once, and at the server as far as that can be reached.

use std::sync::Arc;

use tokio::time::timeout;

use crate::{
    endpoint::LoginUrl,
    error::{Error, ErrorKind, RefreshError, RefreshErrorKind},
    event::SessionState,
    handle::{SessionHandle, runtime},
    life::{Landed, Logout},
    oauth,
    refresh::single_flight::Flight,
    session::Session,
    soap,
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
    /// Here the session is over at once, whatever becomes of the rest. What happens at the server is a task of its own:
    /// dropping the future does not stop it. Dropping the last handle, on the other hand, logs nobody out.
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
    /// [`ErrorKind::Logout`] if the server refused or could not be reached: the tokens may live on there.
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
        let ending = self.leave();
        let handle = self.clone();
        let task = runtime()?.spawn(async move {
            match handle.remains(ending).await {
                Some(remains) => end(client, remains, extent).await,
                None => Ok(()),
            }
        });
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
                "the session is over here, but may live on at the server",
            )
            .with_source(error)
        })
    }

    /// Ends the session here.
    fn leave(&self) -> Ending {
        let mut life = self.shared.lock();
        life.epoch += 1;
        let epoch = life.epoch;
        let grant = life.grant;
        // Whatever comes back from the exchange under way is of a grant that is none of ours any more.
        life.grant += 1;
        life.is_logged_out = true;
        life.failure = None;
        let session = life.latest.take().map(|live| live.0.session.clone());
        let refresh_token = life.refresh_token.take();
        self.shared.current.store(None);
        self.shared.state.send_replace(SessionState::LoggedOut);
        let mut flights: Vec<_> = life.superseded.iter().cloned().collect();
        if let Some(flight) = life.flight.take() {
            flight.land(Err(RefreshError::new(
                RefreshErrorKind::LoggedOut,
                true,
                "the session was logged out",
            )));
            // The next login waits until its exchange is over.
            life.superseded = Some(Arc::clone(&flight));
            flights.push(flight);
        }
        life.logouts.push(Logout {
            epoch,
            grant,
            sessions: session.into_iter().collect(),
            refresh_token,
        });
        if self.shared.owner.is_aboard() {
            // In the middle of the refresh: it would wait for itself.
            flights.clear();
        }
        Ending { epoch, flights }
    }

    /// What there is to be ended at the server, once nothing more can come.
    async fn remains(&self, ending: Ending) -> Option<Logout> {
        let limit = self.shared.settings.load().refresh_timeout;
        for flight in ending.flights {
            // Later than that it brings nothing any more.
            let _ = timeout(limit, flight.ended()).await;
        }
        let mut life = self.shared.lock();
        let position = life
            .logouts
            .iter()
            .position(|logout| logout.epoch == ending.epoch)?;
        Some(life.logouts.swap_remove(position))
    }
}

/// How much is ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Session,
    Grant,
}

/// Which logout it is, and what it has to wait for.
struct Ending {
    epoch: u64,
    flights: Vec<Arc<Flight<Landed>>>,
}

/// Ends what lives on at the server. A failure does not keep the rest from being tried.
async fn end(client: impl HttpClient, remains: Logout, extent: Extent) -> Result<(), RefreshError> {
    if let (Extent::Grant, Some(refresh_token)) = (extent, &remains.refresh_token) {
        let Some(newest) = remains.sessions.last() else {
            return Err(RefreshError::configuration(
                "there is a refresh token, and no session that would tell where to revoke it",
            ));
        };
        // Its access tokens end with it.
        return oauth::revoke(client, &revocation_url(newest), refresh_token).await;
    }
    let mut outcome = Ok(());
    for session in &remains.sessions {
        let ended = if session.is_soap() {
            soap::logout(client.clone(), session).await
        } else {
            oauth::revoke(
                client.clone(),
                &revocation_url(session),
                session.access_token(),
            )
            .await
        };
        outcome = outcome.and(ended);
    }
    outcome
}

/// Where the session was obtained, or, if nobody knows, its instance, which revokes as well.
fn revocation_url(session: &Session) -> LoginUrl {
    match session.login_url() {
        Some(login_url) => login_url.clone(),
        None => LoginUrl::from(session.instance_url()),
    }
}
