//! Client credentials: a server logs in as the app itself.
//!
//! ```sh
//! cargo run --example login_client_credentials
//! ```
//!
//! In Salesforce: enable the flow for the app, choose a Run As user in its policies, and log in at the org's My Domain.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::ServiceExt;
use tower_salesforce_auth::{
    BoxError,
    emulator::Org,
    flow::ClientCredentials,
    https,
    oauth::{App, ClientAuthentication},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A real org has its own login URL, app and secret.
    let org = Org::new();
    let served = org.serve().await?;

    // Sends the secret in a header, as Salesforce prefers. `.client_secret(…)` sends it in the form.
    let app = App::new(org.login_url().parse()?, org.client_id())
        .client_authentication(ClientAuthentication::secret_basic(org.client_secret()));
    // One HTTP client for the logins, and another for the requests.
    let client = https::client(|http| ClientCredentials::new(http, app))?;
    for _ in 0..2 {
        let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
        let response = client.clone().oneshot(request).await?;
        println!("{}", response.status());
        // The second request is rejected first, and then replayed; the caller does not see it.
        org.expire_sessions();
    }

    println!("{} token requests", org.counters().token_requests);
    served.shutdown().await;
    Ok(())
}
