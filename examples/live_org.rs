//! A real org: logs in, runs a query, refreshes the session, and runs the query again.
//!
//! ```sh
//! sf org login web --set-default
//! cargo run --example live_org
//! ```
//!
//! Without a login it says what to set up, with the Salesforce CLI or without it.

use std::{env, path::PathBuf, process::ExitCode};

use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt};
use tower_salesforce_auth::{
    BoxError, Error, RefreshContext, RefreshError, RefreshErrorKind, RefreshFn,
    SalesforceAuthLayer, SessionHandle,
    flow::Login,
    https::{HttpsClient, SalesforceClient},
    observer::RefreshReason,
    store::FileStore,
};

const USAGE: &str = "\
Runs a query against a real Salesforce org, refreshes the session, and runs the query again.

With the Salesforce CLI (https://developer.salesforce.com/tools/salesforcecli):
  sf org login web --set-default
  cargo run --example live_org

Without it, set the variables of one login. The first login with all its variables counts:
  SFDX_AUTH_URL           what `sf org auth show-sfdx-auth-url` printed on another machine;
                          needs SF_SESSIONS
  SF_CLIENT_ID            the consumer key of an app, with
    SF_LOGIN_URL            where to log in, https://MyDomainName.my.salesforce.com, and
    SF_JWT_KEY_FILE         the file of the app's private key, with SF_USERNAME; or
    SF_CLIENT_SECRET        the consumer secret, for client credentials
  SF_ACCESS_TOKEN         a session, until it ends, with
    SF_ORG_INSTANCE_URL     its instance
  SF_TARGET_ORG           with the CLI: the alias or user name, if it is not the default org

Further variables:
  SF_SESSIONS             a directory to keep the session of this login in, for the next run and for
                          others: a rotated refresh token replaces that of the URL permanently
  SF_API_VERSION          66.0 by default

To set up an app in Salesforce, for client credentials:
  1. Setup > External Client App Manager > New External Client App
     (or App Manager > New Connected App).
  2. Enable OAuth, with the scope \"Manage user data via APIs (api)\".
  3. Under Flow Enablement, enable the Client Credentials Flow.
  4. In the app's policies, enable the flow again and choose a Run As user with the permission
     \"API Enabled\".
  5. Copy the consumer key and secret from the app's OAuth settings. A new app may need ten
     minutes.
  6. Setup > My Domain shows the login URL. login.salesforce.com does not work for this flow.";

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run().await else {
        return ExitCode::SUCCESS;
    };
    // The error says what Salesforce or its CLI answered, and what to do about it. A client's own error may leave the cause
    // to its sources.
    eprint!("{error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    if is_about_settings(&error) {
        eprintln!("\n{USAGE}");
        return ExitCode::from(2);
    }
    ExitCode::FAILURE
}

/// Whether there is no login, or one that cannot be used.
fn is_about_settings(error: &BoxError) -> bool {
    let of_request = error.downcast_ref().and_then(Error::refresh_error);
    of_request
        .or_else(|| error.downcast_ref::<RefreshError>())
        .is_some_and(|error| error.kind() == RefreshErrorKind::Configuration)
}

async fn run() -> Result<(), BoxError> {
    // The flow has its own HTTP client: its token calls must not wait for the requests that wait for them.
    let login = Login::from_env(HttpsClient::new()?)?;
    let sessions = env::var_os("SF_SESSIONS").map(PathBuf::from);
    if has_refresh_token(&login) && sessions.is_none() {
        return Err("SF_SESSIONS is not set, and a rotated refresh token would be lost: set it to a directory".into());
    }
    let mut builder = SessionHandle::builder(login);
    if let Some(directory) = sessions {
        builder = builder.store(FileStore::open(directory)?, "live_org");
    }
    let handle = builder.build();
    let client = SalesforceAuthLayer::from(handle.clone()).layer(HttpsClient::new()?);

    let version = env::var("SF_API_VERSION").unwrap_or_else(|_| "66.0".to_owned());
    let query = format!("/services/data/v{version}/query?q=SELECT+Name+FROM+Account+LIMIT+5");
    show(&client, &query).await?;

    let before = handle.session().await?;
    let after = handle.refresh().await?;
    let at = after.instance_url();
    if after.access_token() == before.access_token() {
        println!("Asked for another session at {at}: the last one is still valid, and stays.");
    } else {
        println!("Refreshed the session at {at}.");
    }
    show(&client, &query).await
}

fn has_refresh_token(login: &impl RefreshFn) -> bool {
    let first = RefreshContext::new(RefreshReason::FirstLogin);
    let description = login.describe(&first);
    description.is_some_and(|description| description.grant() == "refresh_token")
}

async fn show(client: &SalesforceClient, query: &str) -> Result<(), BoxError> {
    let request = Request::get(query).body(Full::default())?;
    let response = client.clone().ready().await?.call(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    println!("{status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}
