//! The flows for the Salesforce CLI with the CLI itself, at the emulated org.
//!
//! `tests/interop/run` puts `sf` on the `PATH`, with a home of its own, and tells of the org in `ORG` and `TLS_HOST`. The
//! user is the same in all tests, so each of them logs in again.

use std::process::{Command, Output};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower_salesforce_auth::{
    RefreshErrorKind, RefreshFn, SessionHandle,
    flow::{AuthorizationCode, RefreshToken, SalesforceCli},
    https::{HttpsClient, SalesforceClient},
    oauth::{App, SfdxAuthUrl},
};

use crate::{CALLERS, LIMITS, client, http_client};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name}, which tests/interop/run sets"))
}

/// The org that `run` has started.
struct Org(Value);

impl Org {
    fn new() -> Self {
        Self(serde_json::from_str(&variable("ORG")).unwrap())
    }

    fn told(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap()
    }

    async fn pull(&self, control: &str, parameters: &Value) -> Value {
        let url = format!("{}/emulator/{control}", self.told("base_url"));
        let request = Request::post(url).body(Full::from(parameters.to_string()));
        let response = http_client().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{control}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    async fn expire(&self) {
        self.pull("expire-sessions", &json!({})).await;
    }

    async fn count(&self, name: &str) -> u64 {
        let url = format!("{}/emulator/stats", self.told("base_url"));
        let request = Request::get(url).body(Full::default()).unwrap();
        let response = http_client().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let stats: Value = serde_json::from_slice(&body).unwrap();
        stats[name].as_u64().unwrap()
    }

    /// Logs `sf` in by a key, under this alias.
    fn log_in_by_key(&self, alias: &str) {
        let (user, url) = (self.told("username"), self.told("base_url"));
        let (id, key) = (self.told("client_id"), self.told("jwt_private_key"));
        let by_key = ["org", "login", "jwt", "--alias", alias, "--username", user];
        let at = [
            "--instance-url",
            url,
            "--client-id",
            id,
            "--jwt-key-file",
            key,
        ];
        sf(&[&by_key[..], &at].concat());
    }

    /// Logs `sf` in by an SFDX auth URL with a new refresh token, under this alias.
    async fn log_in_by_url(&self, alias: &str) {
        let (id, secret) = (self.told("client_id"), self.told("client_secret"));
        let login_url = self.told("base_url").parse().unwrap();
        let app = App::new(login_url, id).client_secret(secret);
        let flow = AuthorizationCode::new(http_client(), app, self.told("redirect_uri"));
        let flow = flow.scope("api web refresh_token");
        let request = flow.authorization_url().build().unwrap();
        let approve = json!({ "authorize_url": request.url() });
        let answer = self.pull("approve", &approve).await;
        let redirect = answer["redirect"].as_str().unwrap();
        let session = flow.exchange(request.pending(), redirect).await.unwrap();
        let token = session.refresh_token().unwrap().expose();

        // The key of an earlier log-in would stay. Without one the command fails.
        let user = self.told("username");
        run_sf(&["org", "logout", "--no-prompt", "--target-org", user]);

        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("url");
        let host = variable("TLS_HOST");
        std::fs::write(&file, format!("force://{id}:{secret}:{token}@{host}")).unwrap();
        let file = file.to_str().unwrap();
        sf(&[
            "org",
            "login",
            "sfdx-url",
            "--alias",
            alias,
            "--sfdx-url-file",
            file,
        ]);
    }
}

fn limits() -> Request<Full<Bytes>> {
    Request::get(LIMITS).body(Full::default()).unwrap()
}

async fn status(client: &SalesforceClient) -> StatusCode {
    let answer = client.clone().oneshot(limits()).await;
    answer.unwrap().status()
}

fn run_sf(arguments: &[&str]) -> Output {
    let mut sf = Command::new("sf");
    sf.args(arguments).arg("--json").output().unwrap()
}

/// The output of a command, which succeeds.
fn sf(arguments: &[&str]) -> String {
    let output = run_sf(arguments);
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{arguments:?}: {stdout}\n{stderr}");
    stdout
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the org"]
async fn a_session_of_sf_outlives_its_expiry() {
    let org = Org::new();
    org.log_in_by_key("emulated");
    let flow = SalesforceCli::new().target_org("emulated");
    let client = client(SessionHandle::new(flow));
    let logins = org.count("logins").await;
    assert_eq!(status(&client).await, StatusCode::OK);
    for expiry in 1..=2 {
        org.expire().await;
        assert_eq!(status(&client).await, StatusCode::OK);
        assert_eq!(org.count("logins").await, logins + expiry);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the org"]
async fn two_hundred_callers_cost_one_login_of_sf() {
    let org = Org::new();
    org.log_in_by_key("emulated");
    let user = org.told("username").to_owned();
    let client = client(SessionHandle::new(SalesforceCli::new().target_org(user)));
    assert_eq!(status(&client).await, StatusCode::OK);
    let logins = org.count("logins").await;
    org.expire().await;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(client.clone().oneshot(limits()));
    }
    for answer in callers.join_all().await {
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(org.count("logins").await, logins + 1);
}

#[tokio::test]
#[ignore = "tests/interop/run starts the org"]
async fn sf_without_a_default_org_says_how_to_set_one() {
    let error = SalesforceCli::new().log_in().await.unwrap_err();
    assert_eq!(error.error_code(), Some("NoDefaultEnvError"));
    assert_eq!(error.kind(), RefreshErrorKind::Configuration);
    assert!(error.is_terminal());
    assert!(
        error.to_string().contains("sf org login web --set-default"),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "tests/interop/run starts the org"]
async fn sf_that_does_not_know_an_alias_says_so() {
    let flow = SalesforceCli::new().target_org("unknown");
    let error = flow.log_in().await.unwrap_err();
    assert_eq!(error.error_code(), Some("NamedOrgNotFoundError"));
    assert_eq!(error.kind(), RefreshErrorKind::Configuration);
    assert!(error.is_terminal());
    let told = "No authorization information found for unknown";
    assert!(error.to_string().contains(told), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the org"]
async fn sf_whose_login_was_revoked_says_how_to_log_in() {
    let org = Org::new();
    org.log_in_by_url("revoked").await;
    let flow = SalesforceCli::new().target_org("revoked");
    assert_eq!(
        status(&client(SessionHandle::new(flow.clone()))).await,
        StatusCode::OK
    );
    org.pull("revoke-grants", &json!({})).await;
    org.expire().await;
    let error = flow.log_in().await.unwrap_err();
    println!("{error}");
    assert_eq!(error.kind(), RefreshErrorKind::Refused);
    assert!(error.is_terminal());
    assert!(
        error
            .to_string()
            .contains("log in again with `sf org login web`"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the org"]
async fn an_sfdx_auth_url_of_sf_logs_in_and_refreshes() {
    let org = Org::new();
    org.log_in_by_url("by-url").await;
    let printed = sf(&[
        "org",
        "auth",
        "show-sfdx-auth-url",
        "--target-org",
        "by-url",
    ]);
    // The org tells `sf` its address without TLS.
    let plain = org.told("base_url").replace("http://", "@");
    let url = printed.replace(&plain, &format!("@{}", variable("TLS_HOST")));
    let url: SfdxAuthUrl = url.parse().unwrap();
    assert_eq!(url.client_id(), org.told("client_id"));

    let certificate = std::fs::read(variable("TLS_CERTIFICATE")).unwrap();
    let http = HttpsClient::builder()
        .root_certificates(certificate)
        .unwrap();
    let flow = RefreshToken::from_sfdx_auth_url(http.build().unwrap(), &url);
    let client = client(SessionHandle::new(flow));
    for _ in 0..2 {
        assert_eq!(status(&client).await, StatusCode::OK);
        org.expire().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the org"]
async fn an_sfdx_auth_url_that_sf_redacts_says_how_to_print_it() {
    let org = Org::new();
    org.log_in_by_url("by-url").await;
    let printed = sf(&["org", "display", "--verbose", "--target-org", "by-url"]);
    let error = printed.parse::<SfdxAuthUrl>().unwrap_err();
    assert!(
        error.to_string().contains("sf org auth show-sfdx-auth-url"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/interop/run starts the org"]
async fn live_org_needs_nothing_but_a_login_of_sf() {
    let org = Org::new();
    org.log_in_by_key("emulated");
    org.expire().await;
    let output = Command::new(variable("LIVE_ORG"))
        .env("SF_TARGET_ORG", "emulated")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(said.matches("200 OK: ").count(), 2, "{said}");
    assert!(said.contains("is still valid, and stays"), "{said}");
}
