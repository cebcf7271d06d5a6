//! What the tests of the stores share: sessions, layers, calls, and other processes.

use std::{path::Path, process::Stdio};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
};
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, RefreshFn, SalesforceAuthLayer, Session, SessionHandle,
    emulator::{Grant, Org},
    flow::RefreshToken,
    handle::SessionHandleBuilder,
    oauth::App,
    store::{Record, Save, SessionStore},
};

#[path = "../support/app.rs"]
mod app;
#[path = "../support/call.rs"]
mod call;
#[path = "../support/rest.rs"]
mod rest;
#[path = "../support/socket.rs"]
mod socket;
#[path = "../support/traced.rs"]
mod traced;

pub(crate) use self::{app::app, rest::LIMITS, socket::client, traced::Traced};

/// The key that all sessions are stored under.
pub(crate) const KEY: &str = "example";

/// The session of a grant.
pub(crate) fn session(grant: &Grant) -> Session {
    Session::new(grant.access_token(), grant.instance_url())
        .unwrap()
        .with_refresh_token(grant.refresh_token())
}

pub(crate) async fn save(store: &impl SessionStore, session: Session) {
    let record = match store.load(KEY).await.unwrap() {
        Some(stored) => stored.followed_by(session),
        None => Record::new(session),
    };
    put(store, &record).await;
}

/// Saves a record in place of what is stored.
pub(crate) async fn put(store: &impl SessionStore, record: &Record) {
    let mut lock = store.lock(KEY).await.unwrap();
    let stored = lock.load().await.unwrap();
    let save = Save::new(record).replacing(stored.as_ref().map(Record::version));
    lock.save(save).await.unwrap();
    lock.unlock().await;
}

/// Writes the text of a record, readable for its owner alone.
pub(crate) fn write_record(path: &Path, text: impl AsRef<[u8]>) {
    std::fs::write(path, text).unwrap();
    #[cfg(unix)]
    {
        use std::{fs::Permissions, os::unix::fs::PermissionsExt};
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }
}

pub(crate) async fn stored(store: &impl SessionStore) -> Option<Session> {
    let record = store.load(KEY).await.unwrap();
    record.map(|record| record.session().clone())
}

pub(crate) fn refresh_token(session: &Session) -> &str {
    session.refresh_token().map_or("", |token| token.expose())
}

/// Builds a handle that refreshes with the stored refresh token. The flow's own token is invalid.
pub(crate) fn builder(org: &Org, store: impl SessionStore) -> SessionHandleBuilder {
    let flow = RefreshToken::new(org.clone(), app(org), "none");
    SessionHandle::builder(flow).store(store, KEY)
}

/// A layer that refreshes with the stored refresh token.
pub(crate) fn layer(org: &Org, store: impl SessionStore) -> SalesforceAuthLayer {
    builder(org, store).build().into()
}

/// A layer that refreshes with `refresh_fn` and keeps its session in `store`.
pub(crate) fn storing(store: impl SessionStore, refresh_fn: impl RefreshFn) -> SalesforceAuthLayer {
    SessionHandle::builder(refresh_fn)
        .store(store, KEY)
        .build()
        .into()
}

/// Asks the org for something that needs a session.
pub(crate) async fn limits(layer: &SalesforceAuthLayer, org: &Org) -> Result<StatusCode, BoxError> {
    let (status, _) = call::get_limits(layer, org).await?;
    Ok(status)
}

/// Sends a request, and returns when its refresh has reached the org.
pub(crate) async fn refreshing(
    layer: &SalesforceAuthLayer,
    org: &Org,
) -> JoinHandle<Result<StatusCode, BoxError>> {
    let before = org.counters().token_requests;
    let waiting = tokio::spawn({
        let (layer, org) = (layer.clone(), org.clone());
        async move { limits(&layer, &org).await }
    });
    while org.counters().token_requests == before {
        tokio::task::yield_now().await;
    }
    waiting
}

/// Asks the org for something that needs a session, over a socket.
pub(crate) async fn get_limits(layer: &SalesforceAuthLayer) -> Result<StatusCode, BoxError> {
    let request = Request::get(LIMITS).body(Full::<Bytes>::default())?;
    let response = layer.layer(client()).oneshot(request).await?;
    Ok(response.status())
}

/// Checks that no refresh token was presented twice.
pub(crate) fn assert_no_reuse(org: &Org) {
    let counters = org.counters();
    assert_eq!(
        (counters.refresh_token_reuses, counters.concurrent_refreshes),
        (0, 0)
    );
}

// === Programs ===

/// Another process of this test binary. An environment variable names its part.
pub(crate) struct Program {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

const PART: &str = "SESSION_STORE_PART";

impl Program {
    /// Starts the test of this name, which is otherwise ignored.
    pub(crate) fn start(test: &str, org: &Org, directory: &Path, part: &Value) -> Self {
        let program = Command::new(std::env::current_exe().unwrap());
        Self::start_as(program, test, org, directory, part)
    }

    /// Starts the test with a limit that lets no file grow.
    #[cfg(unix)]
    pub(crate) fn start_without_disk(
        test: &str,
        org: &Org,
        directory: &Path,
        part: &Value,
    ) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"trap '' XFSZ; ulimit -f 0; exec "$@""#, "sh"]);
        shell.arg(std::env::current_exe().unwrap());
        Self::start_as(shell, test, org, directory, part)
    }

    fn start_as(
        mut program: Command,
        test: &str,
        org: &Org,
        directory: &Path,
        part: &Value,
    ) -> Self {
        let part = json!({
            "login_url": org.login_url(),
            "client_id": org.client_id(),
            "client_secret": org.client_secret(),
            "directory": directory,
            "part": part,
        });
        let mut child = program
            .args([
                "--exact",
                test,
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(PART, part.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    /// The next line that the program says, without the output of the test harness.
    pub(crate) async fn hear(&mut self) -> String {
        while let Some(line) = self.said.next_line().await.unwrap() {
            // The harness prints the test's name on the same line.
            if let Some((_, said)) = line.split_once("@@ ") {
                return said.to_owned();
            }
        }
        panic!("the program has ended");
    }

    pub(crate) async fn write(&mut self, what: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin
            .write_all(format!("{what}\n").as_bytes())
            .await
            .unwrap();
    }

    /// SIGKILL, on Unix.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub(crate) async fn end(mut self) {
        while self.said.next_line().await.unwrap().is_some() {}
        assert!(self.child.wait().await.unwrap().success());
    }
}

/// The part of this program. `None` if this is the test itself.
pub(crate) fn part() -> Option<Value> {
    let part = std::env::var(PART).ok()?;
    Some(serde_json::from_str(&part).unwrap())
}

pub(crate) fn say(what: impl std::fmt::Display) {
    println!("@@ {what}");
}

/// Waits for a line of input.
pub(crate) async fn listen() {
    let mut line = String::new();
    BufReader::new(tokio::io::stdin())
        .read_line(&mut line)
        .await
        .unwrap();
}

/// The flow of a program. Its first refresh token is spent once the store has a newer one.
pub(crate) fn flow(part: &Value) -> RefreshToken<Client<HttpConnector, Full<Bytes>>> {
    let text = |name: &str| part[name].as_str().unwrap_or_default().to_owned();
    let app = App::new(text("login_url").parse().unwrap(), text("client_id"))
        .client_secret(text("client_secret"));
    let first = part["part"]["refresh_token"].as_str().unwrap_or("none");
    RefreshToken::new(client(), app, first)
}
