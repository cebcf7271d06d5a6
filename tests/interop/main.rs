//! The flows of the crate at authorization servers of other authors: oauth2-mock-server and oidc-provider. The flows for
//! the Salesforce CLI are in `cli`.
//!
//! `tests/interop/run` starts the servers, and runs these tests with their URLs in `SERVERS`. A plain `cargo test`
//! ignores them.

#[cfg(unix)]
mod cli;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    Error, ErrorKind, RefreshErrorKind, RefreshFn, SalesforceAuthLayer, Session, SessionHandle,
    flow::{AuthorizationCode, ClientCredentials, RefreshToken},
    https::{self, HttpsClient, SalesforceClient},
    oauth::{self, App, ClientAuthentication, DpopKey, PrivateKey, Prompt},
};

const LIMITS: &str = "/services/data/v66.0/limits";
const EXPIRIES: u64 = 12;
const CALLERS: u64 = 200;

/// The servers that `run` has started.
struct Servers(Value);

impl Servers {
    fn new() -> Self {
        let servers = std::env::var("SERVERS").expect("SERVERS, which tests/interop/run sets");
        Self(serde_json::from_str(&servers).unwrap())
    }

    fn told(&self, name: &str) -> String {
        self.0[name].as_str().unwrap().to_owned()
    }

    /// The app at one of the servers, whose endpoints the server names itself.
    async fn app(&self, server: &str) -> App {
        let issuer = self.told(server).parse().unwrap();
        let discovery = oauth::discover(http_client(), &issuer).await.unwrap();
        let login_url = discovery.login_url().unwrap();
        App::new(login_url, self.told("client_id")).client_secret(self.told("client_secret"))
    }

    async fn control(&self, name: &str, body: &str) -> Value {
        let url = format!("{}/control/{name}", self.told("instance"));
        let request = Request::post(url).body(Full::new(Bytes::from(body.to_owned())));
        let response = http_client().oneshot(request.unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    async fn expire(&self) {
        self.control("expire", "").await;
    }

    /// A number that the servers have counted.
    async fn count(&self, name: &str) -> u64 {
        self.control("stats", "").await[name].as_u64().unwrap()
    }

    /// What the user of a browser does: log in, and allow access.
    async fn authorize(&self, server: &str) -> (App, Session) {
        let app = self.app(server).await;
        let session = self.authorize_app(&app).await;
        (app, session)
    }

    async fn authorize_app(&self, app: &App) -> Session {
        let callback = self.told("redirect_uri");
        let flow = AuthorizationCode::new(http_client(), app.clone(), callback);
        let flow = flow.scope("openid offline_access");
        // oidc-provider grants offline access to those who are asked for consent.
        let request = flow
            .authorization_url()
            .prompt([Prompt::Consent])
            .build()
            .unwrap();
        let answer = self.control("approve", request.url()).await;
        let redirect = answer["redirect"].as_str().unwrap();
        flow.exchange(request.pending(), redirect).await.unwrap()
    }

    /// The apps that authenticate in another way: the server takes each in that way only.
    async fn apps(&self) -> [App; 4] {
        let app = self.app("oidc").await;
        let (id, secret) = (self.told("client_id"), self.told("client_secret"));
        let key = PrivateKey::from_pem(self.told("private_key")).unwrap();
        let named = |kind, authentication| {
            App::new(app.login_url().clone(), format!("{id}-{kind}"))
                .client_authentication(authentication)
        };
        [
            app.clone(),
            named("basic", ClientAuthentication::secret_basic(secret)),
            named("key", ClientAuthentication::private_key_jwt(key)),
            named("public", ClientAuthentication::none()),
        ]
    }
}

fn http_client() -> HttpsClient<Full<Bytes>> {
    HttpsClient::new().unwrap()
}

fn client(handle: SessionHandle) -> SalesforceClient {
    SalesforceAuthLayer::from(handle).layer(HttpsClient::new().unwrap())
}

fn limits(body: u64) -> Request<Full<Bytes>> {
    let body = Bytes::from(body.to_string());
    Request::post(LIMITS).body(Full::new(body)).unwrap()
}

async fn status(client: &SalesforceClient) -> StatusCode {
    let answer = client.clone().oneshot(limits(0)).await;
    answer.unwrap().status()
}

// === one log-in at each server ===

async fn client_credentials(server: &str) {
    let servers = Servers::new();
    let app = servers.app(server).await;
    let client: SalesforceClient = https::client(|http| ClientCredentials::new(http, app)).unwrap();
    assert_eq!(status(&client).await, StatusCode::OK);
    servers.expire().await;
    assert_eq!(status(&client).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn the_mock_server_takes_client_credentials() {
    client_credentials("mock").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn oidc_provider_takes_client_credentials() {
    client_credentials("oidc").await;
}

async fn web_server_flow(server: &str) {
    let servers = Servers::new();
    let (app, session) = servers.authorize(server).await;
    let flow = RefreshToken::new(
        http_client(),
        app,
        session.refresh_token().unwrap().expose(),
    );
    let client = client(
        SessionHandle::builder(flow)
            .initial_session(session)
            .build(),
    );
    for _ in 0..3 {
        assert_eq!(status(&client).await, StatusCode::OK);
        servers.expire().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn the_mock_server_takes_a_code_with_pkce() {
    web_server_flow("mock").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn oidc_provider_takes_a_code_with_pkce() {
    web_server_flow("oidc").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn an_access_token_of_the_mock_server_has_an_expiry() {
    let (_, session) = Servers::new().authorize("mock").await;
    assert!(session.is_jwt());
    assert!(session.expires_at().is_some());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn a_denied_secret_is_told_as_oidc_provider_told_it() {
    let app = Servers::new().app("oidc").await.client_secret("wrong");
    let client: SalesforceClient = https::client(|http| ClientCredentials::new(http, app)).unwrap();
    let error = client.oneshot(limits(0)).await.unwrap_err();
    let error = error.downcast_ref::<Error>().unwrap();
    let refusal = error.refresh_error().unwrap();
    assert_eq!(refusal.error_code(), Some("invalid_client"));
}

// === calls by hand ===

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn oidc_provider_revokes_for_an_app_that_authenticates() {
    let servers = Servers::new();
    for app in servers.apps().await {
        let session = servers.authorize_app(&app).await;
        let token = session.refresh_token().unwrap();
        let known = oauth::introspect(http_client(), &app, token).await.unwrap();
        assert!(known.active, "{app:?}");
        oauth::revoke(http_client(), &app, token).await.unwrap();
        let known = oauth::introspect(http_client(), &app, token).await.unwrap();
        assert!(!known.active, "{app:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn oidc_provider_ends_the_grant_of_a_logout() {
    let servers = Servers::new();
    for app in servers.apps().await {
        let session = servers.authorize_app(&app).await;
        let refresh_token = session.refresh_token().unwrap().clone();
        let flow = RefreshToken::new(http_client(), app.clone(), refresh_token.clone());
        let handle = SessionHandle::builder(flow)
            .initial_session(session)
            .build();
        handle.logout_and_revoke(http_client()).await.unwrap();
        let error = oauth::refresh_token(http_client(), &app, &refresh_token).await;
        assert_eq!(error.unwrap_err().error_code(), Some("invalid_grant"));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn oidc_provider_refuses_the_token_alone() {
    let servers = Servers::new();
    let (app, session) = servers.authorize("oidc").await;
    let alone = App::new(app.login_url().clone(), "");
    let error = oauth::revoke(http_client(), &alone, session.access_token()).await;
    assert_eq!(error.unwrap_err().error_code(), Some("invalid_request"));
    let wrong = app.client_secret("wrong");
    let error = oauth::introspect(http_client(), &wrong, session.access_token()).await;
    assert_eq!(error.unwrap_err().error_code(), Some("invalid_client"));
}

/// oidc-provider names itself in each callback (RFC 9207).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn oidc_provider_is_the_issuer_of_its_callbacks() {
    let servers = Servers::new();
    let app = servers.app("oidc").await;
    let flow = AuthorizationCode::new(http_client(), app.clone(), servers.told("redirect_uri"));
    let flow = flow.scope("openid");
    let request = flow.authorization_url().build().unwrap();
    let answer = servers.control("approve", request.url()).await;
    let redirect = answer["redirect"].as_str().unwrap();
    assert!(redirect.contains("iss="), "{redirect}");
    // The same server at another login URL.
    let elsewhere = app
        .login_url()
        .to_string()
        .replace("127.0.0.1", "localhost");
    let other = App::new(elsewhere.parse().unwrap(), app.client_id());
    let mixed_up = AuthorizationCode::new(http_client(), other, servers.told("redirect_uri"));
    let error = mixed_up.exchange(request.pending(), redirect).await;
    assert_eq!(error.unwrap_err().kind(), RefreshErrorKind::InvalidCallback);
    flow.exchange(request.pending(), redirect).await.unwrap();
}

// === DPoP ===

/// The app that gets bound tokens only.
async fn bound_app(servers: &Servers) -> App {
    let app = servers.app("oidc").await;
    let id = format!("{}-dpop", servers.told("client_id"));
    App::new(app.login_url().clone(), id)
        .client_secret(servers.told("client_secret"))
        .dpop(DpopKey::generate().unwrap())
}

/// Proofs are read by oidc-provider, and by jose at the resource server.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn oidc_provider_and_jose_accept_proofs() {
    let servers = Servers::new();
    let app = bound_app(&servers).await;
    for demands_nonce in ["false", "true"] {
        servers.control("demand-nonce", demands_nonce).await;
        let before = servers.count("proofs").await;
        let session = servers.authorize_app(&app).await;
        assert!(session.dpop_key().is_some());
        let flow = RefreshToken::new(http_client(), app.clone(), "none");
        let handle = SessionHandle::builder(flow)
            .initial_session(session)
            .build();
        let client = client(handle);
        for _ in 0..3 {
            assert_eq!(status(&client).await, StatusCode::OK, "{demands_nonce}");
            servers.expire().await;
        }
        assert_eq!(servers.count("proofs").await, before + 3);
    }
    servers.control("demand-nonce", "false").await;
    assert_eq!(servers.count("nonces").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn oidc_provider_refuses_an_app_without_its_key() {
    let servers = Servers::new();
    let bound = bound_app(&servers).await;
    let app = App::new(bound.login_url().clone(), bound.client_id())
        .client_secret(servers.told("client_secret"));
    let error = ClientCredentials::new(http_client(), app).log_in().await;
    let error = error.unwrap_err();
    assert!(error.is_terminal(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn oidc_provider_revokes_and_introspects_with_a_proof() {
    let servers = Servers::new();
    let app = bound_app(&servers).await;
    let session = servers.authorize_app(&app).await;
    let token = session.refresh_token().unwrap();
    let known = oauth::introspect(http_client(), &app, token).await.unwrap();
    assert!(known.active);
    oauth::revoke(http_client(), &app, token).await.unwrap();
    let known = oauth::introspect(http_client(), &app, token).await.unwrap();
    assert!(!known.active);
}

// === rotation ===

/// 200 callers meet each of twelve expiries, and present each refresh token once.
async fn storm(server: &str) {
    let servers = Servers::new();
    let (app, session) = servers.authorize(server).await;
    let first = session.refresh_token().unwrap().clone();
    let flow = RefreshToken::new(http_client(), app, first.expose());
    let handle = SessionHandle::builder(flow)
        .initial_session(session)
        .build();
    let client = client(handle.clone());
    let before = servers.count("refreshes").await;
    let failed_before = servers.count("refused").await + servers.count("reuses").await;
    for expiry in 1..=EXPIRIES {
        servers.expire().await;
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            callers.spawn(client.clone().oneshot(limits(caller)));
        }
        for answer in callers.join_all().await {
            assert_eq!(answer.unwrap().status(), StatusCode::OK, "expiry {expiry}");
        }
        let refreshes = servers.count("refreshes").await - before;
        assert_eq!(refreshes, expiry);
    }
    let failed = servers.count("refused").await + servers.count("reuses").await;
    assert_eq!(failed, failed_before);
    let last = handle.session().await.unwrap();
    assert_ne!(last.refresh_token(), Some(&first));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn two_hundred_callers_outlive_rotation_at_the_mock_server() {
    storm("mock").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn two_hundred_callers_outlive_rotation_at_oidc_provider() {
    storm("oidc").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the servers"]
async fn a_spent_token_of_another_ends_the_grant_at_oidc_provider() {
    let servers = Servers::new();
    let (app, session) = servers.authorize("oidc").await;
    let first = session.refresh_token().unwrap().expose().to_owned();
    let flow = RefreshToken::new(http_client(), app.clone(), first.clone());
    let ours = client(
        SessionHandle::builder(flow)
            .initial_session(session)
            .build(),
    );
    servers.expire().await;
    assert_eq!(status(&ours).await, StatusCode::OK);

    // A copy of the configuration presents the first refresh token, and the server revokes all of them.
    let flow = RefreshToken::new(http_client(), app, first);
    let theirs = client(SessionHandle::builder(flow).build());
    for client in [&theirs, &ours] {
        let refreshes = servers.count("refreshes").await;
        servers.expire().await;
        for _ in 0..3 {
            let error = client.clone().oneshot(limits(0)).await.unwrap_err();
            let error = error.downcast_ref::<Error>().unwrap();
            assert_eq!(error.kind(), ErrorKind::Refresh);
            let code = error.refresh_error().and_then(|error| error.error_code());
            assert_eq!(code, Some("invalid_grant"));
        }
        assert_eq!(servers.count("refreshes").await, refreshes + 1);
    }
}
