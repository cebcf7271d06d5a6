//! A real org: logs in, runs a query, refreshes the session, and runs the query again.
//!
//! ```sh
//! SF_LOGIN_URL=https://MyDomainName.my.salesforce.com SF_CLIENT_ID=… SF_CLIENT_SECRET=… cargo run --example live_org
//! ```
//!
//! Without these it says what to set up in Salesforce.

use std::{env, path::PathBuf, process::ExitCode};

use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt};
use tower_salesforce_auth::{
    BoxError, LoginUrl, SalesforceAuthLayer, SessionHandle,
    flow::{ClientCredentials, RefreshToken},
    https::{HttpsClient, SalesforceClient},
    oauth::App,
    store::FileStore,
};

const USAGE: &str = "\
Runs a query against a real Salesforce org, refreshes the session, and runs the query again.

Environment:
  SF_LOGIN_URL           where to log in, https://MyDomainName.my.salesforce.com
  SF_CLIENT_ID           the consumer key of the app
  SF_CLIENT_SECRET       its consumer secret
  SF_REFRESH_TOKEN       optional: a refresh token, to act for the user who gave it. Without it:
                         client credentials
  SF_SESSIONS            a directory to keep the session in, for the next run and for others;
                         required with a refresh token, since a rotated one replaces it permanently
  SF_API_VERSION         optional, 66.0 by default

To set up in Salesforce, for client credentials:
  1. Setup > External Client App Manager > New External Client App
     (or App Manager > New Connected App).
  2. Enable OAuth, with the scope \"Manage user data via APIs (api)\".
  3. Under Flow Enablement, enable the Client Credentials Flow.
  4. In the app's policies, enable the flow again and choose a Run As user with the permission
     \"API Enabled\".
  5. Copy the consumer key and secret from the app's OAuth settings. A new app may need ten
     minutes.
  6. Setup > My Domain shows the login URL. login.salesforce.com does not work for this flow.

For a refresh token, add the scope \"Perform requests at any time (refresh_token, offline_access)\",
have a user authorize the app, and give the refresh token to the first run. Later runs find the
newest token in the directory.";

#[tokio::main]
async fn main() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let Err(error) = run(config).await else {
        return ExitCode::SUCCESS;
    };
    // The sources have what Salesforce answered, and what to do about it.
    eprint!("{error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

async fn run(config: Config) -> Result<(), BoxError> {
    // The flow has its own HTTP client: its token calls must not wait for the requests that wait for them.
    let http = HttpsClient::new()?;
    let mut builder = match config.refresh_token {
        None => SessionHandle::builder(ClientCredentials::new(http, config.app)),
        Some(refresh_token) => {
            SessionHandle::builder(RefreshToken::new(http, config.app, refresh_token))
        }
    };
    if let Some(directory) = config.sessions {
        builder = builder.store(FileStore::open(directory)?, config.key);
    }
    let handle = builder.build();
    let client = SalesforceAuthLayer::from(handle.clone()).layer(HttpsClient::new()?);

    let version = config.api_version;
    let query = format!("/services/data/v{version}/query?q=SELECT+Name+FROM+Account+LIMIT+5");
    show(&client, &query).await?;

    let live = handle.refresh().await?;
    println!("Refreshed the session at {}.", live.instance_url());
    show(&client, &query).await
}

async fn show(client: &SalesforceClient, query: &str) -> Result<(), BoxError> {
    let request = Request::get(query).body(Full::default())?;
    let response = client.clone().ready().await?.call(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    println!("{status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

struct Config {
    app: App,
    refresh_token: Option<String>,
    sessions: Option<PathBuf>,
    /// The key of the session in the store.
    key: String,
    api_version: String,
}

impl Config {
    fn from_env() -> Result<Self, String> {
        let required = |name: &str| {
            env::var(name)
                .ok()
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("{name} is not set."))
        };
        let login_url: LoginUrl = required("SF_LOGIN_URL")?
            .parse()
            .map_err(|error| format!("SF_LOGIN_URL: {error}."))?;
        let client_id = required("SF_CLIENT_ID")?;
        let client_secret = required("SF_CLIENT_SECRET")?;
        let refresh_token = required("SF_REFRESH_TOKEN").ok();
        let sessions = env::var_os("SF_SESSIONS").map(PathBuf::from);
        if refresh_token.is_some() && sessions.is_none() {
            return Err(
                "SF_SESSIONS is not set, and a rotated refresh token would be lost.".to_owned(),
            );
        }
        let login = if refresh_token.is_some() {
            "user"
        } else {
            "app"
        };
        Ok(Self {
            key: format!("{login} {client_id} {login_url}"),
            app: App::new(login_url, client_id).client_secret(client_secret),
            refresh_token,
            sessions,
            api_version: env::var("SF_API_VERSION").unwrap_or_else(|_| "66.0".to_owned()),
        })
    }
}
