//! The end of a session: here at once, and at the server as far as that can be reached.

use std::{pin::pin, sync::Arc};

use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    error::{Error, ErrorKind, RefreshError, RefreshErrorKind, not_ended},
    handle::handle::{SessionHandle, runtime},
    http::transport::HttpClient,
    oauth::{self, App},
    refresh::{core::run::RefreshId, shared::Shared, store_calls::release},
    report::event::StoreOperation,
    secret::Secret,
    session::{session::Session, url::LoginUrl},
    soap,
    store::{Record, StoreError, StoreKey},
};

/// How much is ended at the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LogoutScope {
    Session,
    Grant,
}

impl SessionHandle {
    /// Ends the session, here and at the server. The access token is revoked (RFC 7009), or a SOAP login ended by a SOAP
    /// `logout()`.
    ///
    /// From then on requests fail with [`ErrorKind::LoggedOut`], those that wait for a refresh included, and cause no refresh.
    /// A session that a running token call returns is waited for, and ended too. The refresh token stays valid at the
    /// server; [`logout_and_revoke`](Self::logout_and_revoke) ends it as well. [`set`](Self::set) and
    /// [`reset`](Self::reset) start again.
    ///
    /// The session is over here as soon as the future is first polled. The rest runs as a task: dropping the future does not
    /// stop it. Dropping the last handle does not log out.
    ///
    /// If there is a [store](crate::store), the record is deleted, and its tokens are ended too, even if another process saved
    /// it. Other processes that still have the session find it ended when they use it.
    ///
    /// The handle ends what it knows of: the session in use. It does not know of sessions that a refresh replaced, nor of a
    /// refresh token that a flow was made with and never presented. SOAP logins of the same user can share a session id, which
    /// ends for all of them.
    ///
    /// The revocation authenticates the app of the flow ([`RefreshFn::app`](crate::RefreshFn::app)), as RFC 7009 §2.1 says.
    /// Only the server at the app's login URL gets its secret: a session that was obtained elsewhere is revoked there by
    /// its token alone, which Salesforce accepts.
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
    /// - [`ErrorKind::Logout`] if the server refused, could not be reached, or did not answer within the refresh timeout: the
    ///   tokens may still be valid there. The same if the record could not be deleted. Log out again to try again.
    /// - [`ErrorKind::NoRuntime`] outside of a tokio runtime.
    ///
    /// Here the session is over in either case.
    pub async fn logout(&self, client: impl HttpClient) -> Result<(), Error> {
        self.log_out(client, LogoutScope::Session).await
    }

    /// Ends the session as [`logout`](Self::logout) does, and the whole grant with it: the refresh token is revoked with all
    /// access tokens that it was exchanged for. Without a refresh token it is the same as `logout`.
    ///
    /// # Errors
    ///
    /// As for [`logout`](Self::logout).
    pub async fn logout_and_revoke(&self, client: impl HttpClient) -> Result<(), Error> {
        self.log_out(client, LogoutScope::Grant).await
    }

    async fn log_out(&self, client: impl HttpClient, scope: LogoutScope) -> Result<(), Error> {
        let revokes = scope == LogoutScope::Grant;
        let id = self.shared.apply(|core, turn| core.log_out(revokes, turn));
        let runtime = runtime()?;
        let is_inside = self.shared.owner.is_inside();
        if is_inside {
            // The refresh that logs out cannot be waited for here: what follows it is done after it. Its store failures are
            // events, and a failure is left to the next logout.
            let (shared, client) = (Arc::clone(&self.shared), client.clone());
            runtime.spawn(async move { end(&shared, client, scope, id, false).await });
        }
        let shared = Arc::clone(&self.shared);
        let task = runtime.spawn(async move { end(&shared, client, scope, id, is_inside).await });
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
                "the session is over here, but may still be valid at the server",
            )
            .with_source(error)
            .with_remedy(Some("log out again to try again"))
        })
    }
}

/// Ends a logout, and those before it, once no refresh can add to them. What could not be ended is left to the next logout.
async fn end(
    shared: &Arc<Shared>,
    client: impl HttpClient,
    scope: LogoutScope,
    id: RefreshId,
    is_inside: bool,
) -> Result<(), RefreshError> {
    let mut outcome = Ok(());
    // Inside a refresh the call would wait for itself, and the refresh holds the store lock.
    if !is_inside {
        outcome = drained(shared, id).await;
    }
    let is_settled = outcome.is_ok();
    if !is_inside
        && let Some(store) = &shared.settings.store
        && let Err(error) = delete_record(shared, store).await
    {
        outcome = outcome.and(Err(error.into()));
    }
    let ids = shared.apply(|core, _| core.begin_ending(id));
    let running = |id| EndingAtServer {
        shared,
        id,
        is_done: false,
    };
    let running: Vec<_> = ids.into_iter().map(running).collect();
    for mut running in running {
        let ending = end_at_server(shared, client.clone(), running.id, scope);
        let ended = timeout(shared.settings.refresh_timeout, ending)
            .await
            .unwrap_or_else(|_elapsed| Err(unanswered()));
        running.is_done = ended.is_ok() && is_settled && !is_inside;
        drop(running);
        outcome = outcome.and(ended);
    }
    outcome
}

/// A logout that a task is ending at the server. If the task is stopped, or the client panics, the next logout ends it.
struct EndingAtServer<'a> {
    shared: &'a Arc<Shared>,
    id: RefreshId,
    is_done: bool,
}

impl Drop for EndingAtServer<'_> {
    fn drop(&mut self) {
        self.shared
            .apply(|core, _| core.ended_at_server(self.id, self.is_done));
    }
}

/// Waits for the token calls that were under way when the session was logged out.
async fn drained(shared: &Arc<Shared>, id: RefreshId) -> Result<(), RefreshError> {
    // A token call and a save may each take the refresh timeout.
    let limit = shared.settings.refresh_timeout.saturating_mul(2);
    let drained = async {
        loop {
            let mut ended = pin!(shared.ended.notified());
            ended.as_mut().enable();
            if !shared.read(|core| core.drains_for(id)) {
                return;
            }
            ended.await;
        }
    };
    match Instant::now().checked_add(limit) {
        Some(until) => timeout_at(until, drained).await.map_err(|_| not_ended()),
        None => {
            drained.await;
            Ok(())
        }
    }
}

/// Deletes the record of all logouts so far, and notes what others had stored meanwhile: that ends as well.
async fn delete_record(shared: &Arc<Shared>, store: &StoreKey) -> Result<(), StoreError> {
    match try_delete_record(shared, store).await {
        // Another process had the lock meanwhile, and may have stored something else.
        Err(error) if error.is_of_lost_lock() => try_delete_record(shared, store).await,
        deleted => deleted,
    }
}

async fn try_delete_record(shared: &Arc<Shared>, store: &StoreKey) -> Result<(), StoreError> {
    if shared.read(|core| core.undeleted_logout().is_none()) {
        return Ok(());
    }
    let until = Instant::now().checked_add(shared.settings.refresh_timeout);
    let locking = store.store.lock(&store.key);
    let mut lock = shared
        .ask_store(store, StoreOperation::Lock, until, locking)
        .await?;
    let loaded = shared
        .ask_store(store, StoreOperation::Load, until, lock.load())
        .await;
    let (stored, unreadable): (Option<Record>, _) = match loaded {
        Ok(stored) => (stored, None),
        // The record is deleted, but the tokens in it cannot be ended.
        Err(error) if error.is_terminal() => (None, Some(error)),
        Err(error) => return Err(error),
    };
    // A save may have replaced the record while this logout waited for the lock.
    let is_of_logout = shared.read(|core| {
        core.undeleted_logout().is_some()
            && (unreadable.is_some() || core.is_logged_out_record(stored.as_ref()))
    });
    if is_of_logout {
        shared
            .ask_store(store, StoreOperation::Delete, until, lock.delete())
            .await?;
    }
    let stored = stored.filter(|_| is_of_logout);
    shared.apply(|core, _| core.record_deleted(stored.as_ref()));
    release(lock, until).await;
    unreadable.map_or(Ok(()), Err)
}

/// Ends the tokens of a logout at the server, and forgets each that has ended. A failure does not keep the others from being
/// tried.
async fn end_at_server(
    shared: &Arc<Shared>,
    client: impl HttpClient,
    id: RefreshId,
    scope: LogoutScope,
) -> Result<(), RefreshError> {
    let mut outcome = Ok(());
    let pending = shared.apply(|core, _| {
        let logout = core.pending_logout(id)?;
        Some((logout.sessions.clone(), logout.refresh_tokens.clone()))
    });
    let Some((sessions, refresh_tokens)) = pending else {
        return Ok(());
    };
    let configured = shared
        .refresh_fn
        .as_ref()
        .and_then(|refresh_fn| refresh_fn.app());
    if scope == LogoutScope::Grant {
        let last = sessions.last().cloned();
        let last = last.map(|session| session.at_port(shared.settings.instance_port));
        let app = revoking_app(last.as_ref(), configured);
        for grant in &refresh_tokens {
            let app = app
                .clone()
                .map(|app| app.proving_with(grant.dpop_key.as_ref()));
            let ended = revoke(client.clone(), app.as_ref(), &grant.token).await;
            if ended.is_ok() {
                shared.apply(|core, _| core.pending_logout(id).map(|logout| logout.revoked(grant)));
            }
            outcome = outcome.and(ended);
        }
    }
    let sessions = shared.apply(|core, _| Some(core.pending_logout(id)?.sessions.clone()));
    for session in sessions.into_iter().flatten() {
        let at_port = session.clone().at_port(shared.settings.instance_port);
        let ended = if session.is_soap() && !session.is_jwt() {
            soap::logout(client.clone(), &at_port).await
        } else {
            let app = revoking_app(Some(&at_port), configured)
                .map(|app| app.proving_with(session.bound_key()));
            revoke(client.clone(), app.as_ref(), session.access_token()).await
        };
        outcome = outcome.and(ended);
        if outcome.is_ok() {
            // After a failure the session stays: it tells where to revoke the refresh token.
            shared.apply(|core, _| {
                core.pending_logout(id)
                    .map(|logout| logout.session_ended(&session))
            });
        }
    }
    outcome
}

async fn revoke(
    client: impl HttpClient,
    app: Option<&App>,
    token: &Secret,
) -> Result<(), RefreshError> {
    match app {
        Some(app) => oauth::revoke(client, app, token).await,
        None => Err(RefreshError::configuration(
            "there is a refresh token, and neither a session nor a flow that tells where to revoke it",
        )),
    }
}

fn unanswered() -> RefreshError {
    RefreshError::new(
        RefreshErrorKind::TimedOut,
        false,
        "the server did not answer in time",
    )
}

/// The app that revokes the tokens of a session: the configured one, at the login URL of the session.
///
/// The app authenticates itself where it logs in only: another server gets the token, and no client secret. A session that
/// does not tell where it was obtained is refreshed with the configured app, so that app revokes it. Without one its instance
/// does, which revokes as well. `None` if nothing tells where.
fn revoking_app(session: Option<&Session>, configured: Option<&App>) -> Option<App> {
    let configured = configured.filter(|app| !app.client_id().is_empty());
    let login_url = session.and_then(Session::login_url);
    match (configured, login_url) {
        (Some(app), None) => Some(app.clone()),
        (Some(app), Some(url)) if app.login_url().is_same_place(url) => Some(app.clone()),
        (_, Some(url)) => Some(without_client_id(url.clone())),
        (None, None) => {
            session.map(|session| without_client_id(LoginUrl::from(session.instance_url())))
        }
    }
}

/// The token is sent alone.
fn without_client_id(login_url: LoginUrl) -> App {
    App::new(login_url, "")
}
