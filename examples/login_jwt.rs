//! JWT bearer: a server logs in as a user, without the user.
//!
//! ```sh
//! cargo run --example login_jwt
//! ```
//!
//! In Salesforce: upload the certificate of the key to the app ("Use digital signatures"), let administrators approve its
//! users, and assign it to the user's profile or permission set. `openssl req -x509 -newkey rsa:2048 -nodes -days 365
//! -keyout server.key -out server.crt` makes both.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, SalesforceAuthLayer,
    emulator::Org,
    flow::JwtBearer,
    https::HttpsClient,
    oauth::{App, PrivateKey},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A real org has its own login URL, app and key.
    let org = Org::new();
    let served = org.serve().await?;
    println!("An emulated org is at {}.", served.url());
    let pem = org.jwt_private_key();

    let key = PrivateKey::from_pem(pem)?;
    let app = App::new(org.login_url().parse()?, org.client_id());
    let login = JwtBearer::new(HttpsClient::new()?, app, org.username(), key);

    let layer = SalesforceAuthLayer::new(login);
    let client = layer.layer(HttpsClient::new()?);
    for n in 1..=2 {
        let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
        let response = client.clone().oneshot(request).await?;
        let live = layer.handle().session().await?;
        let counters = org.counters();
        println!(
            "Request {n}: {}, as the user {}. So far: logins {}, requests that the org rejected {}.",
            response.status(),
            live.user_id().unwrap_or("without an id"),
            counters.logins,
            counters.data_rejected
        );
        if n == 1 {
            println!("The session ends at the org. The program does not know yet.");
            org.expire_sessions();
        }
    }
    println!(
        "The org rejected the first try of request 2. The layer signed another assertion, and sent it once more."
    );
    served.shutdown().await;
    Ok(())
}
