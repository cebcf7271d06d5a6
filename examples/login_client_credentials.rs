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
    println!("An emulated org is at {}.", served.url());

    // Sends the secret in a header, as Salesforce prefers. `.client_secret(…)` sends it in the form.
    let app = App::new(org.login_url().parse()?, org.client_id())
        .client_authentication(ClientAuthentication::secret_basic(org.client_secret()));
    // One HTTP client for the logins, and another for the requests.
    let client = https::client(|http| ClientCredentials::new(http, app))?;
    for n in 1..=2 {
        let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
        let response = client.clone().oneshot(request).await?;
        let counters = org.counters();
        println!(
            "Request {n}: {}. So far: logins {}, requests that the org rejected {}.",
            response.status(),
            counters.token_requests,
            counters.data_rejected
        );
        if n == 1 {
            println!("The session ends at the org. The program does not know yet.");
            org.expire_sessions();
        }
    }
    println!(
        "The org rejected the first try of request 2. The layer logged in again, and sent it once more."
    );
    served.shutdown().await;
    Ok(())
}
