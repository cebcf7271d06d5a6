//! The sessions of all users, and one client that their requests go through.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;
use tower::{ServiceBuilder, ServiceExt, timeout::TimeoutLayer, util::BoxCloneSyncService};
use tower_salesforce_auth::{
    AuthOutcome, BoxError, Error, RefreshError, RefreshErrorKind, ReplaySkipped, ResponseBody,
    SalesforceAuthLayer, SessionHandle, Sessions,
    flow::AuthorizationCode,
    https::HttpsClient,
    oauth::{App, AuthorizationRequest, PendingAuthorization, UserInfo},
    store::SessionStore,
};

use super::failure::Failure;

/// How many sessions are kept at hand. Others are in the store, and are fetched when their user comes back.
const AT_HAND: usize = 10_000;

/// The longest that Salesforce may take for an answer to a login, a renewal or a logout.
const LOGIN_PATIENCE: Duration = Duration::from_secs(10);

/// The longest that a page waits for the head of one answer, and then for all of its body.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than this is not what was asked for.
const LARGEST_ANSWER: usize = 1024 * 1024;

const USER: &str = "/services/oauth2/userinfo";
/// As many contacts as the query asks for.
pub(crate) const MOST_CONTACTS: usize = 50;
const CONTACTS: &str = "/services/data/v66.0/query?q=\
                        SELECT+FirstName,+LastName,+Email+FROM+Contact+LIMIT+50";

pub(crate) struct Salesforce {
    flow: AuthorizationCode<LoginClient>,
    login_client: LoginClient,
    stored: Stored,
    sessions: Sessions<String>,
    client: DataClient,
}

/// For logins, renewals and logouts, which do not go through the layer: they would wait for themselves.
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
        // With `refresh_token`, so that sessions can be renewed without their user.
        let flow = AuthorizationCode::new(login_client.clone(), app, redirect_uri)
            .scope("api openid refresh_token");

        let client = ServiceBuilder::new()
            // First, and so around all the rest: how long a page waits for the head of one answer. The wait for a renewal
            // counts, and both attempts do. It does not stop the renewal, which others may be waiting for.
            .layer(TimeoutLayer::new(PATIENCE))
            // Then the session: of the user whose handle is among the extensions of the request. One client, and one pool
            // of connections, is for all of them. The layer's own session is nobody's: it has no refresh token, and a
            // request that somebody forgot to put a handle on fails.
            .layer(SalesforceAuthLayer::new(flow.clone()))
            // Last, what is sent: the request, with the session of the moment, once or twice.
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
            flow,
            login_client,
            stored,
            sessions,
            client: BoxCloneSyncService::new(client),
        })
    }

    /// Where to send a user, and what to keep until the user is back.
    pub(crate) fn authorization(&self) -> Result<AuthorizationRequest, Error> {
        self.flow.authorization_url().build()
    }

    /// Exchanges the code of the callback, and stores the session under this new id.
    ///
    /// It is at hand with the first request, and not before: anybody can come with a code that is none, and is not to take
    /// the place of those who are logged in.
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
        // If only some orgs may use the application, `session.organization_id()` is to be looked at here.
        let handle = self.stored.session(id);
        handle.set(session);
        if let Err(error) = handle.save().await {
            report("a session could not be saved", &error);
            // Nobody is to have half of it.
            if let Err(error) = handle.logout_and_revoke(self.login_client.clone()).await {
                report("a session could not be ended", &error);
            }
            return Err(Failure::Internal);
        }
        Ok(())
    }

    /// The user of this session, and the contacts that the user may see.
    pub(crate) async fn contacts(&self, id: &String) -> Result<(UserInfo, Vec<Contact>), Failure> {
        let handle = self.session(id)?;
        // Both at once. If the session has ended, both are turned down, it is renewed once, and both are sent again.
        let answers = tokio::try_join!(
            self.get::<UserInfo>(&handle, USER),
            self.get::<QueryResult<Contact>>(&handle, CONTACTS),
        );
        if let Err(Failure::NotRenewed) = answers {
            // It would stay refused. Whoever tries again does so by hand, and no user is locked out for a refresh token.
            handle.reset();
        }
        let (user, contacts) = answers?;
        Ok((user, contacts.records))
    }

    /// Ends the session here, whatever becomes of the rest, and revokes the grant: the refresh token, and what came of it.
    pub(crate) async fn log_out(&self, id: &String) -> Result<(), Failure> {
        let handle = self.session(id)?;
        let ended = handle.logout_and_revoke(self.login_client.clone()).await;
        let is_stored =
            |error: &RefreshError| error.kind() == RefreshErrorKind::Store && !error.is_terminal();
        if let Err(error) = &ended {
            report("a session could not be ended", error);
            if error.refresh_error().is_some_and(is_stored) {
                // The handle stays: it knows what is left to do, and nobody gets past it to what is stored.
                return Err(Failure::NotLoggedOut);
            }
        }
        // Only now: whoever had asked for it meanwhile would have found it in the store.
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
        // The layer knows the instance.
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
            tracing::warn!(path, %status, "Salesforce said no");
            // New sessions were turned down at once, and there is none for a while.
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

/// Makes the handles of sessions, which are loaded from the store with their first request. What a renewal brings is saved
/// there, the rotated refresh token above all; so nothing is lost when one makes room for another.
#[derive(Clone)]
struct Stored {
    flow: AuthorizationCode<LoginClient>,
    store: Arc<dyn SessionStore>,
}

impl Stored {
    fn session(&self, id: &str) -> SessionHandle {
        SalesforceAuthLayer::new(self.flow.clone())
            .refresh_timeout(LOGIN_PATIENCE)
            .store(Arc::clone(&self.store), id)
            .handle()
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

/// Logs an error and its causes, which hold no secret.
fn report(what: &'static str, error: &(dyn std::error::Error + 'static)) {
    let mut shown = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        shown = format!("{shown}: {error}");
        cause = error.source();
    }
    tracing::warn!("{what}: {shown}");
}
