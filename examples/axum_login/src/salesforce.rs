//! The sessions of all users, and the one client that sends their requests.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;
use tower::{ServiceBuilder, ServiceExt, timeout::TimeoutLayer, util::BoxCloneSyncService};
use tower_salesforce_auth::{
    BoxError, Error, LoginUrl, RefreshError, RefreshErrorKind, SalesforceAuthLayer, SessionHandle,
    Sessions,
    flow::AuthorizationCode,
    https::HttpsClient,
    layer::ResponseBody,
    oauth::{App, AuthorizationRequest, Callback, PendingAuthorization, UserInfo},
    request::{AuthOutcome, ReplaySkipped},
    store::SessionStore,
};

use super::failure::Failure;

/// The most sessions in memory. The others are in the store, and are loaded when their user returns.
const AT_HAND: usize = 10_000;

/// The wait for the answer to a login, a refresh or a logout, at most.
const LOGIN_PATIENCE: Duration = Duration::from_secs(10);

/// The wait of a page for the head of one answer, at most, and then for its whole body.
const PATIENCE: Duration = Duration::from_secs(20);

/// The size of an answer, at most. A larger one is not the expected answer.
const LARGEST_ANSWER: usize = 1024 * 1024;

const USER: &str = "/services/oauth2/userinfo";
/// The most contacts that the query returns.
pub(crate) const MOST_CONTACTS: usize = 50;
const CONTACTS: &str = "/services/data/v66.0/query?q=\
                        SELECT+FirstName,+LastName,+Email+FROM+Contact+LIMIT+50";

pub(crate) struct Salesforce {
    login_url: LoginUrl,
    flow: AuthorizationCode<LoginClient>,
    login_client: LoginClient,
    stored: Stored,
    sessions: Sessions<String>,
    client: DataClient,
}

/// For logins, refreshes and logouts, which bypass the layer: through it they would wait for themselves.
type LoginClient = HttpsClient<Full<Bytes>>;

type DataClient =
    BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody<Incoming>>, BoxError>;

impl Salesforce {
    /// # Errors
    ///
    /// Those of [`HttpsClient::new`].
    pub(crate) fn new(
        app: App,
        redirect_uri: &str,
        store: Arc<dyn SessionStore>,
    ) -> Result<Self, Error> {
        let login_client = HttpsClient::new()?;
        let login_url = app.login_url().clone();
        // The scope `refresh_token` allows a refresh without the user.
        let flow = AuthorizationCode::new(login_client.clone(), app, redirect_uri)
            .scope("api openid refresh_token");

        let client = ServiceBuilder::new()
            // Outermost: it bounds the wait of a page for the head of one answer, a refresh and both attempts included. It
            // does not stop the refresh, which other requests may wait for.
            .layer(TimeoutLayer::new(PATIENCE))
            // Then the session of the user, whose handle is among the extensions of the request. One client, with one pool of
            // connections, serves all users. The layer's own flow has no refresh token: a request without a handle fails.
            .layer(SalesforceAuthLayer::new(flow.clone()))
            // Innermost: it sends each attempt.
            .service(HttpsClient::new()?);

        let stored = Stored {
            flow: flow.clone(),
            store,
        };
        let sessions = {
            let stored = stored.clone();
            Sessions::new(AT_HAND, move |id: &String| stored.session(id))
        };
        Ok(Self {
            login_url,
            flow,
            login_client,
            stored,
            sessions,
            client: BoxCloneSyncService::new(client),
        })
    }

    /// The URL to send a user to, and what to keep until the user returns.
    pub(crate) fn authorization(&self) -> Result<AuthorizationRequest, Error> {
        self.flow.authorization_url().build()
    }

    /// Checks that the callback belongs to the pending login, before the login is used up. A user's refusal belongs to it too.
    pub(crate) fn check(
        &self,
        pending: &PendingAuthorization,
        callback: &str,
    ) -> Result<(), Failure> {
        let code = Callback::parse(callback)
            .and_then(|callback| callback.code(pending, &self.login_url).map(drop));
        match code {
            Err(error) if error.kind() == RefreshErrorKind::InvalidCallback => {
                report("a callback was refused", &error);
                Err(Failure::Forged)
            }
            _ => Ok(()),
        }
    }

    /// Exchanges the code of the callback, and stores the session under this new id.
    ///
    /// The session is loaded into memory with its first request only. So visitors with invalid codes cannot displace the
    /// sessions of users.
    pub(crate) async fn log_in(
        &self,
        id: &str,
        pending: &PendingAuthorization,
        callback: &str,
    ) -> Result<(), Failure> {
        let exchange = self.flow.exchange(pending, callback);
        let Ok(exchanged) = timeout(LOGIN_PATIENCE, exchange).await else {
            tracing::warn!("a login took too long");
            return Err(Failure::Unreachable);
        };
        let session = exchanged.map_err(|error| {
            report("a login failed", &error);
            Failure::of_login(&error)
        })?;
        // If only some orgs may use the application, check `session.organization_id()` here.
        let handle = self.stored.session(id);
        handle.set(session);
        if let Err(error) = handle.save().await {
            report("a session could not be saved", &error);
            // Without a record the session is useless: end it at Salesforce too.
            if let Err(error) = handle.logout_and_revoke(self.login_client.clone()).await {
                report("a session could not be ended", &error);
            }
            return Err(Failure::Internal);
        }
        Ok(())
    }

    /// The user of this session, and the contacts visible to the user.
    pub(crate) async fn contacts(&self, id: &String) -> Result<(UserInfo, Vec<Contact>), Failure> {
        let handle = self.session(id)?;
        // Both at once. If the session has ended, both are rejected, one refresh runs, and both are replayed.
        let answers = tokio::try_join!(
            self.get::<UserInfo>(&handle, USER),
            self.get::<QueryResult<Contact>>(&handle, CONTACTS),
        );
        if let Err(Failure::NotRefreshed) = answers {
            // The refusal would be permanent. The user can try again, and a refused refresh token locks no account.
            handle.reset();
        }
        let (user, contacts) = answers?;
        Ok((user, contacts.records))
    }

    /// Ends the session here in any case, and revokes the grant: the refresh token, and the sessions from it.
    pub(crate) async fn log_out(&self, id: &String) -> Result<(), Failure> {
        let handle = self.session(id)?;
        let ended = handle.logout_and_revoke(self.login_client.clone()).await;
        let is_stored =
            |error: &RefreshError| error.kind() == RefreshErrorKind::Store && !error.is_terminal();
        if let Err(error) = &ended {
            report("a session could not be ended", error);
            if error.refresh_error().is_some_and(is_stored) {
                // The handle stays: it remembers the pending logout, and guards the stored record.
                return Err(Failure::NotLoggedOut);
            }
        }
        // Only after the deletion: a request in between would have loaded the session from the store.
        self.sessions.remove(id);
        ended.map_err(|_reported| Failure::NotRevoked)
    }

    fn session(&self, id: &String) -> Result<SessionHandle, Failure> {
        self.sessions.get(id).map_err(|error| {
            report("there is no room for a session", &error);
            Failure::Crowded
        })
    }

    async fn get<T: DeserializeOwned>(
        &self,
        handle: &SessionHandle,
        path: &'static str,
    ) -> Result<T, Failure> {
        // The URI is a path: the layer adds the instance.
        let mut request = Request::new(Full::default());
        *request.uri_mut() = http::Uri::from_static(path);
        request.extensions_mut().insert(handle.clone());
        let answer = self.client.clone().oneshot(request).await;
        let answer = answer.map_err(|error| {
            report("a request failed", &*error);
            Failure::of_request(&error)
        })?;
        let status = answer.status();
        if !status.is_success() {
            tracing::warn!(path, %status, "Salesforce refused a request");
            // New sessions were rejected at once, so the layer pauses its refreshes.
            let is_pausing = answer
                .extensions()
                .get::<AuthOutcome>()
                .is_some_and(|outcome| outcome.replay_skipped() == Some(ReplaySkipped::Fruitless));
            return Err(if is_pausing {
                Failure::Unreachable
            } else {
                Failure::NoData(status)
            });
        }
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER);
        let Ok(body) = timeout(PATIENCE, body.collect()).await else {
            tracing::warn!(path, "an answer took too long");
            return Err(Failure::Unreachable);
        };
        let body = body.map_err(|error| {
            report("an answer broke off", &*error);
            Failure::Unreachable
        })?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| {
            tracing::warn!(path, category = ?error.classify(), "an answer was not as expected");
            Failure::NoData(status)
        })
    }
}

/// Makes the handles of sessions, which are loaded from the store with their first request. A refresh saves the session and
/// its rotated refresh token there, so that a handle can be dropped for another.
#[derive(Clone)]
struct Stored {
    flow: AuthorizationCode<LoginClient>,
    store: Arc<dyn SessionStore>,
}

impl Stored {
    fn session(&self, id: &str) -> SessionHandle {
        SessionHandle::builder(self.flow.clone())
            .refresh_timeout(LOGIN_PATIENCE)
            .store(Arc::clone(&self.store), id)
            .build()
    }
}

/// The answer to a query (REST API, "Query").
#[derive(Deserialize)]
struct QueryResult<T> {
    records: Vec<T>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Contact {
    pub(crate) first_name: Option<String>,
    pub(crate) last_name: Option<String>,
    pub(crate) email: Option<String>,
}

/// Logs an error and its causes, which contain no secret.
fn report(what: &'static str, error: &(dyn std::error::Error + 'static)) {
    let mut shown = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        shown = format!("{shown}: {error}");
        cause = error.source();
    }
    tracing::warn!("{what}: {shown}");
}
