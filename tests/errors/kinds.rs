//! Every kind of error, made through the public surface: its line, and what reports of it say.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    future::pending,
    io,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, LoginUrl, RefreshContext, RefreshError, RefreshErrorKind,
    RefreshFn, SalesforceAuthLayer, Session, SessionHandle, Sessions,
    emulator::{Fault, Org},
    flow::{AuthorizationCode, ClientCredentials, JwtBearer, SoapLogin, UsernamePassword},
    handle::SessionHandleBuilder,
    https::{HttpsClient, Proxy},
    oauth::{self, App, Callback, PendingAuthorization, PrivateKey},
    store::{
        EncryptionKey, FileStore, MemoryStore, Record, Save, SessionStore, StoreError,
        StoreErrorKind,
    },
};

use crate::{
    answering::answering,
    report::{Any, check},
};

const INSTANCE: &str = "https://example.my.salesforce.com";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// The errors that were checked, by kind: each with its line.
#[derive(Default)]
struct Table {
    lines: BTreeMap<String, String>,
}

impl Table {
    fn add<K: Debug>(&mut self, kind: K, error: impl Into<Any>, parts: &[&str]) {
        let line = check(error, parts);
        assert!(!line.contains("hush"), "{line}");
        self.lines.insert(format!("{kind:?}"), line);
    }

    fn layer(&mut self, error: Error, parts: &[&str]) {
        self.add(error.kind(), error, parts);
    }

    fn refresh(&mut self, error: RefreshError, parts: &[&str]) {
        self.add(error.kind(), error, parts);
    }

    fn store(&mut self, error: StoreError, parts: &[&str]) {
        self.add(error.kind(), error, parts);
    }

    /// Checks that these kinds are there, and no others.
    fn has(&self, kinds: &[impl Debug]) {
        let mut kinds: Vec<_> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
        kinds.sort();
        let found: Vec<_> = self.lines.keys().cloned().collect();
        assert_eq!(found, kinds, "{:#?}", self.lines);
    }
}

fn session(token: &str) -> Session {
    Session::new(token, INSTANCE).unwrap()
}

fn app(org: &Org) -> App {
    App::new(org.login_url().parse().unwrap(), org.client_id()).client_secret(org.client_secret())
}

fn production() -> App {
    App::new(LoginUrl::production(), "3MVG9").client_secret("SECRET-hush")
}

async fn failed(handle: SessionHandleBuilder) -> Error {
    handle.build().session().await.unwrap_err()
}

/// The error of a handle whose refresh fails.
async fn failing(error: RefreshError) -> Error {
    let refresh_fn = move |_: RefreshContext| {
        let error = error.clone();
        async { Err::<Session, _>(error) }
    };
    failed(SessionHandle::builder(refresh_fn)).await
}

async fn send(layer: &SalesforceAuthLayer, uri: &str) -> Error {
    let accepting = service_fn(|_: Request<_>| async {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    });
    let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
    let error = layer.layer(accepting).oneshot(request).await.unwrap_err();
    *error.downcast().unwrap()
}

// === Error ===

#[tokio::test(start_paused = true)]
async fn every_kind_of_error_says_its_cause_on_one_line() {
    let mut table = Table::default();
    let error = Session::new("00D", "http://example.my.salesforce.com").unwrap_err();
    table.layer(error, &["the instance URL", "https"]);
    let error = Session::new("", INSTANCE).unwrap_err();
    table.layer(error, &["the access token is empty"]);
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let error = PrivateKey::from_pem(key).unwrap_err();
    table.layer(error, &["the private key cannot be used", "RSA"]);
    let error = HttpsClient::builder().root_certificates("").unwrap_err();
    table.layer(error, &["no root certificate"]);

    let fixed = SalesforceAuthLayer::fixed(session("T0"));
    table.layer(
        send(&fixed, "*").await,
        &["the request cannot be sent", "a slash"],
    );

    let handle = SessionHandle::fixed(session("T0"));
    handle.invalidate(handle.try_session().unwrap().generation());
    let error = handle.session().await.unwrap_err();
    table.layer(
        error,
        &[
            "there is no Salesforce session",
            "give the layer a RefreshFn",
        ],
    );
    handle.set(session("T1"));
    let error = handle.save().await.unwrap_err();
    table.layer(error, &["has no store", "SessionHandleBuilder::store"]);

    let refused = answering(403, &[], "<html><title>Nothing here</title></html>");
    let error = handle.logout(refused).await.unwrap_err();
    let parts = [
        "the session is over here",
        "Nothing here",
        "log out again to try again",
    ];
    table.layer(error, &parts);
    let error = handle.session().await.unwrap_err();
    table.layer(error, &["was logged out", "set a new one"]);

    table.layer(
        reentrant().await,
        &["through the layer that it refreshes", "SkipAuth"],
    );
    table.layer(other_org().await, &["another org"]);
    table.layer(
        connect(),
        &[
            "localhost:1 could not be reached",
            "refused",
            "no server listens",
        ],
    );
    table.layer(
        outside_of_a_runtime(),
        &["no tokio runtime", "send the request from within"],
    );
    table.layer(full(), &["the `Sessions` keep 1 at most", "make more room"]);

    let error = failing(RefreshError::terminal("the user is locked")).await;
    let parts = [
        "could not be refreshed",
        "the refresh function failed",
        "the user is locked",
    ];
    table.layer(error, &parts);

    table.has(&[
        ErrorKind::InvalidUrl,
        ErrorKind::InvalidToken,
        ErrorKind::InvalidKey,
        ErrorKind::InvalidCertificate,
        ErrorKind::Connect,
        ErrorKind::LoggedOut,
        ErrorKind::OtherOrg,
        ErrorKind::InvalidRequest,
        ErrorKind::NoSession,
        ErrorKind::NoRuntime,
        ErrorKind::Reentrant,
        ErrorKind::Refresh,
        ErrorKind::SessionsFull,
        ErrorKind::Logout,
        ErrorKind::Store,
    ]);
}

/// A refresh asks its own handle for a session.
async fn reentrant() -> Error {
    let own = Arc::new(OnceLock::<SessionHandle>::new());
    let handle = SessionHandle::new({
        let own = Arc::clone(&own);
        move |_: RefreshContext| {
            let own = Arc::clone(&own);
            async move {
                let session = own.get().unwrap().session().await;
                session
                    .map(|live| Session::clone(&live))
                    .map_err(RefreshError::terminal)
            }
        }
    });
    own.set(handle.clone()).unwrap();
    let error = handle.session().await.unwrap_err();
    // The whole error says it too, and once.
    check(
        error.clone(),
        &[
            "could not be refreshed",
            "through the layer that it refreshes",
        ],
    );
    let mut causes = error.causes();
    causes
        .find_map(|cause| cause.downcast_ref::<Error>())
        .unwrap()
        .clone()
}

/// A session of another org is set while a request waits.
async fn other_org() -> Error {
    let handle = SessionHandle::builder(|_: RefreshContext| pending())
        .initial_session(session("T0"))
        .build();
    let layer = SalesforceAuthLayer::from(handle.clone());
    handle.invalidate(handle.try_session().unwrap().generation());
    let mut sending = pin!(send(
        &layer,
        "https://example.my.salesforce.com/services/data"
    ));
    assert!(futures_util::poll!(&mut sending).is_pending());
    handle.set(Session::new("T1", "https://another.my.salesforce.com").unwrap());
    sending.await
}

fn connect() -> Error {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let sending = std::thread::spawn(move || {
        runtime().block_on(async {
            let client = HttpsClient::builder().proxy(Proxy::none()).build().unwrap();
            let request = Request::get("https://localhost:1").body(Full::<Bytes>::default());
            client.oneshot(request.unwrap()).await.unwrap_err()
        })
    });
    *sending.join().unwrap().downcast().unwrap()
}

fn outside_of_a_runtime() -> Error {
    let asking = std::thread::spawn(|| {
        let handle = SessionHandle::new(|_: RefreshContext| pending());
        futures_util::FutureExt::now_or_never(handle.session())
            .unwrap()
            .unwrap_err()
    });
    asking.join().unwrap()
}

fn full() -> Error {
    let sessions = Sessions::new(1, |_: &u8| SessionHandle::fixed(session("T0")));
    let _first = sessions.get(&1).unwrap();
    sessions.get(&2).unwrap_err()
}

// === RefreshError ===

/// An error of a refresh, by itself and as that of a request.
async fn both(table: &mut Table, error: RefreshError, parts: &[&str]) {
    let of_request = failing(error.clone()).await;
    let all: Vec<_> = ["could not be refreshed"]
        .iter()
        .chain(parts)
        .copied()
        .collect();
    if of_request.kind() == ErrorKind::Refresh {
        check(of_request, &all);
    }
    table.refresh(error, parts);
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_refresh_error_says_its_cause_on_one_line() {
    let mut table = Table::default();
    for (error, parts) in refusals().await {
        both(&mut table, error, parts).await;
    }
    for (error, parts) in answers().await {
        both(&mut table, error, parts).await;
    }

    let error = Callback::parse("/callback?x=y").unwrap_err();
    both(&mut table, error, &["neither a `code` nor an `error`"]).await;
    let pending_login = PendingAuthorization::new("xyzzy", VERIFIER).unwrap();
    let refused = Callback::parse("/callback?error=access_denied&error_description=no%0Away");
    let error = refused
        .unwrap()
        .code(&pending_login, &LoginUrl::production())
        .unwrap_err();
    let parts = [
        "without a `state`",
        "access_denied",
        "no way",
        "begin again",
    ];
    both(&mut table, error, &parts).await;

    for (handle, parts) in ends() {
        let error = failed(handle).await;
        let cause = error.refresh_error().unwrap().clone();
        check(error, &["could not be refreshed"]);
        table.refresh(cause, parts);
    }
    table.refresh(cancelled(), &["was shut down"]);
    let other = RefreshError::transient(io::Error::other("the vault is sealed"));
    let parts = ["the refresh function failed", "the vault is sealed"];
    both(&mut table, other, &parts).await;
    let down = StoreError::new(StoreErrorKind::Unavailable, "the database is down")
        .with_source(io::Error::from(io::ErrorKind::NotConnected));
    let parts = [
        "the store of the session failed",
        "the database is down",
        "not connected",
    ];
    let error = RefreshError::from(down);
    assert!(error.store_error().is_some());
    both(&mut table, error, &parts).await;

    table.has(&[
        RefreshErrorKind::Refused,
        RefreshErrorKind::Transport,
        RefreshErrorKind::InvalidResponse,
        RefreshErrorKind::UntrustedInstance,
        RefreshErrorKind::Configuration,
        RefreshErrorKind::InvalidSignature,
        RefreshErrorKind::InvalidCallback,
        RefreshErrorKind::NoRefreshToken,
        RefreshErrorKind::TimedOut,
        RefreshErrorKind::Panicked,
        RefreshErrorKind::Cancelled,
        RefreshErrorKind::Store,
        RefreshErrorKind::Other,
    ]);
}

type Case = (RefreshError, &'static [&'static str]);

fn production_client() -> impl tower_salesforce_auth::flow::HttpClient {
    answering(200, &[], "{}")
}

async fn refusals() -> Vec<Case> {
    let org = Org::new();
    let wrong = App::new(org.login_url().parse().unwrap(), org.client_id()).client_secret("wrong");
    let secret = ClientCredentials::new(org.clone(), wrong).log_in().await;
    let key = PrivateKey::from_pem(org.jwt_private_key()).unwrap();
    let jwt = JwtBearer::new(org.clone(), app(&org), "another@example.com", key)
        .log_in()
        .await;
    let login_url: LoginUrl = org.login_url().parse().unwrap();
    let soap = SoapLogin::new(org.clone(), login_url, "user@example.com", "PASSWORD-hush");
    let soap = soap.log_in().await;
    org.on_token(Fault::refuse(
        StatusCode::BAD_REQUEST,
        "odd_code",
        "line\none",
    ));
    let odd = ClientCredentials::new(org.clone(), app(&org))
        .log_in()
        .await;
    vec![
        (
            secret.unwrap_err(),
            &["invalid_client ", "check the consumer secret"],
        ),
        (jwt.unwrap_err(), &["invalid_grant"]),
        (soap.unwrap_err(), &["INVALID_LOGIN", "check the login URL"]),
        (odd.unwrap_err(), &["odd_code", "line one"]),
    ]
}

/// A redirect to the org.
static MOVED: [(&str, &str); 1] = [("location", "https://example.my.salesforce.com/")];

async fn answers() -> Vec<Case> {
    let log_in = async |client| ClientCredentials::new(client, production()).log_in().await;
    let broken = |error: fn() -> BoxError| {
        service_fn(move |_: Request<Full<Bytes>>| async move {
            Err::<Response<Full<Bytes>>, _>(error())
        })
    };
    let reset = broken(|| io::Error::from(io::ErrorKind::ConnectionReset).into());
    let reset = ClientCredentials::new(reset, production()).log_in().await;
    // A client that repeats what it sent.
    let repeating = broken(|| "cannot send client_secret=SECRET-hush".into());
    let repeating = ClientCredentials::new(repeating, production())
        .log_in()
        .await;
    let page = log_in(answering(
        503,
        &[],
        "<html><title>Down\nfor now</title></html>",
    ))
    .await;
    let moved = ClientCredentials::new(answering(302, &MOVED, ""), production())
        .log_in()
        .await;
    let bad = r#"{"access_token":"T","instance_url":"http://example.my.salesforce.com"}"#;
    let bad = log_in(answering(200, &[], bad)).await;
    let signed = r#"{"access_token":"T","instance_url":"https://example.my.salesforce.com",
        "id":"x","issued_at":"1","signature":"bm8="}"#;
    let signed = log_in(answering(200, &[], signed)).await;
    let offline = AuthorizationCode::new(production_client(), production(), "https://a.b/c");
    let offline = offline.log_in().await;
    let password = UsernamePassword::new(production_client(), production(), "", "PASSWORD-hush");
    let password = password.log_in().await;
    let revoked = oauth::revoke(
        answering(500, &[], ""),
        &App::new(LoginUrl::production(), "3MVG9"),
        &"T".into(),
    )
    .await;
    vec![
        (
            reset.unwrap_err(),
            &["login.salesforce.com", "did not answer", "connection reset"],
        ),
        (
            repeating.unwrap_err(),
            &["login.salesforce.com", "[redacted]"],
        ),
        (page.unwrap_err(), &["503", "Down for now"]),
        (moved.unwrap_err(), &["302", "use it as the login URL"]),
        (
            bad.unwrap_err(),
            &[
                "a session that cannot be used",
                "the instance URL",
                "over https only",
            ],
        ),
        (
            signed.unwrap_err(),
            &["signed with another client secret", "check the secret"],
        ),
        (
            offline.unwrap_err(),
            &["no refresh token", "have the user authorize the app"],
        ),
        (password.unwrap_err(), &["user name"]),
        (revoked.unwrap_err(), &["500", "an empty body"]),
    ]
}

/// Refreshes that end in a way of their own.
fn ends() -> Vec<(SessionHandleBuilder, &'static [&'static str])> {
    let untrusted = async |_: RefreshContext| {
        let session = Session::new("T", "https://example.com");
        session.map_err(RefreshError::terminal)
    };
    let panics = |_: RefreshContext| async { panic!("hush") };
    let never = |_: RefreshContext| pending();
    vec![
        (
            SessionHandle::builder(untrusted),
            &["https://example.com", "allow_origin"],
        ),
        (
            SessionHandle::builder(panics),
            &["the refresh panicked", "panic hook"],
        ),
        (
            SessionHandle::builder(never).refresh_timeout(Duration::from_secs(1)),
            &["within the refresh timeout", "refresh_timeout"],
        ),
    ]
}

/// The error of a refresh whose runtime is gone.
fn cancelled() -> RefreshError {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let asking = std::thread::spawn(move || {
        let (first, second) = (runtime(), runtime());
        let handle = SessionHandle::new(|_: RefreshContext| pending());
        let mut asking = Box::pin(async move { handle.session().await });
        first.block_on(async {
            assert!(futures_util::poll!(asking.as_mut()).is_pending());
        });
        drop(first);
        second.block_on(asking).unwrap_err()
    });
    asking.join().unwrap().refresh_error().unwrap().clone()
}

// === StoreError ===

#[tokio::test(start_paused = true)]
async fn every_kind_of_store_error_says_its_cause_on_one_line() {
    let mut table = Table::default();
    let store = MemoryStore::new().lock_timeout(Duration::from_secs(1));
    let _held = store.lock("user").await.unwrap();
    let error = store.lock("user").await.err().unwrap();
    table.store(
        error,
        &["the lock of the session", "MemoryStore::lock_timeout"],
    );

    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    let path = store.path("user");
    let file = path.display().to_string();
    for (text, parts) in [
        ("broken", &[&*file][..]),
        (
            r#"{"format":"tower-salesforce-auth session","version":99}"#,
            &[&file, "update the crate"],
        ),
    ] {
        write_private(&path, text);
        let error = store.load("user").await.err().unwrap();
        table.store(error, parts);
    }
    let record = Record::new(session("T0"));
    let sealed = EncryptionKey::new([1; 32]).seal("user", &record).unwrap();
    write_private(&path, &sealed);
    let error = store.load("user").await.err().unwrap();
    table.store(error, &["is encrypted", &file]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::remove_file(&path).unwrap();
        store
            .lock("user")
            .await
            .unwrap()
            .save(Save::new(&record))
            .await
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = store.load("user").await.err().unwrap();
        table.store(error, &[&file, "not trusted"]);
    }
    let error = FileStore::open(path.join("below")).err().unwrap();
    table.store(error, &[&format!("{file}/below")]);

    // A lock that was lost, and a record that another process has saved or deleted.
    let store = MemoryStore::new();
    let mut lock = store.lock("user").await.unwrap();
    let next = record.followed_by(session("T1"));
    let error = lock
        .save(Save::new(&next).replacing(record.version()))
        .await;
    table.store(
        error.unwrap_err(),
        &["has deleted the session", "load it again"],
    );
    lock.save(Save::new(&record)).await.unwrap();
    let error = lock.save(Save::new(&next)).await.unwrap_err();
    table.store(error, &["has saved a session", "load it again"]);
    #[cfg(unix)]
    {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path()).unwrap();
        let mut lock = store.lock("user").await.unwrap();
        std::fs::remove_file(store.path("user").with_extension("lock")).unwrap();
        let error = lock.delete().await.unwrap_err();
        table.store(
            error,
            &[
                "the lock of the session was lost",
                "another program removed",
            ],
        );
    }

    // Those of other stores.
    for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Stale] {
        let io = io::Error::other("no route\nto host");
        let error = StoreError::new(kind, "the database is down: start it").with_source(io);
        table.store(error, &["the database is down", "no route to host"]);
    }
    table.has(&[
        StoreErrorKind::LockBusy,
        StoreErrorKind::LockLost,
        StoreErrorKind::Superseded,
        StoreErrorKind::Unavailable,
        StoreErrorKind::Stale,
        StoreErrorKind::Corrupt,
        StoreErrorKind::UnsupportedVersion,
        StoreErrorKind::Undecryptable,
        StoreErrorKind::Untrusted,
    ]);
}

fn write_private(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}
