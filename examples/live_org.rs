//! The same stack as in `quickstart`, against a real org.
//!
//! ```sh
//! SF_LOGIN_URL=https://MyDomainName.my.salesforce.com SF_CLIENT_ID=… SF_CLIENT_SECRET=… cargo run --example live_org
//! ```
//!
//! Without these it says what to set up in Salesforce.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{Layer, Service, ServiceExt};
use tower_salesforce_auth::{
    BoxError, LoginUrl, RefreshContext, RefreshFn, ReplayBody, SalesforceAuth, SalesforceAuthLayer,
    flow::{ClientCredentials, RefreshToken},
    oauth::App,
};

const USAGE: &str = "\
Runs a query against a real Salesforce org, renews the session, and runs it again.

Environment:
  SF_LOGIN_URL           where to log in, https://MyDomainName.my.salesforce.com
  SF_CLIENT_ID           the consumer key of the app
  SF_CLIENT_SECRET       its consumer secret
  SF_REFRESH_TOKEN_FILE  optional: a file with a refresh token, to act for the user who gave it.
                         A rotated one is written back to it. Without it: client credentials.
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
  6. Setup > My Domain shows the login URL. login.salesforce.com does not do for this flow.

For a refresh token, add the scope \"Perform requests at any time (refresh_token, offline_access)\",
have a user authorize the app, and put the refresh token into the file.";

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return Ok(ExitCode::from(2));
        }
    };

    // A flow has an HTTP client of its own: what it sends must not wait for itself.
    let layer = match &config.refresh_token_file {
        None => SalesforceAuthLayer::new(ClientCredentials::new(https_client(), config.app)),
        Some(path) => {
            let refresh_token = fs::read_to_string(path)?;
            let flow = RefreshToken::new(https_client(), config.app, refresh_token.trim());
            SalesforceAuthLayer::new(saving(flow, path.clone()))
        }
    };
    let handle = layer.handle();
    let client = layer.layer(https_client());

    let version = config.api_version;
    let query = format!("/services/data/v{version}/query?q=SELECT+Name+FROM+Account+LIMIT+5");
    show(&client, &query).await?;

    let live = handle.refresh().await?;
    println!("Renewed the session at {}.", live.instance_url());
    show(&client, &query).await?;
    Ok(ExitCode::SUCCESS)
}

/// Saves a rotated refresh token before anybody uses the session that it came with: the one before it is gone.
fn saving(flow: impl RefreshFn, path: PathBuf) -> impl RefreshFn {
    let flow = Arc::new(flow);
    move |context: RefreshContext| {
        let (flow, path) = (flow.clone(), path.clone());
        async move {
            let session = flow.refresh(context).await?;
            if let Some(refresh_token) = session.refresh_token()
                && let Err(error) = replace(&path, refresh_token.expose())
            {
                // The session is returned all the same: it is where the only refresh token that still works is.
                eprintln!(
                    "{} could not be replaced: {error}. Its token is dead.",
                    path.display()
                );
            }
            Ok(session)
        }
    }
}

/// Replaces a file in one step, so that there is the old content or the new at any time.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::copy(path, &new)?; // with its permissions
    fs::write(&new, content)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(new, path)
}

type HttpsClient<B> = Client<HttpsConnector<HttpConnector>, B>;

fn https_client<B>() -> HttpsClient<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_only()
        .enable_http1()
        .enable_http2()
        .build();
    Client::builder(TokioExecutor::new()).build(connector)
}

async fn show(
    client: &SalesforceAuth<HttpsClient<ReplayBody<Full<Bytes>>>>,
    query: &str,
) -> Result<(), BoxError> {
    let request = Request::get(query).body(Full::default())?;
    let response = client.clone().ready().await?.call(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    println!("{status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

struct Config {
    app: App,
    refresh_token_file: Option<PathBuf>,
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
        Ok(Self {
            app: App::new(login_url, required("SF_CLIENT_ID")?)
                .client_secret(required("SF_CLIENT_SECRET")?),
            refresh_token_file: env::var_os("SF_REFRESH_TOKEN_FILE").map(PathBuf::from),
            api_version: env::var("SF_API_VERSION").unwrap_or_else(|_| "66.0".to_owned()),
        })
    }
}
