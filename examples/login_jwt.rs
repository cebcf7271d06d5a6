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
    let pem = org.jwt_private_key();

    let key = PrivateKey::from_pem(pem)?;
    let app = App::new(org.login_url().parse()?, org.client_id());
    let login = JwtBearer::new(HttpsClient::new()?, app, org.username(), key);

    let layer = SalesforceAuthLayer::new(login);
    let client = layer.layer(HttpsClient::new()?);
    for _ in 0..2 {
        let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
        let response = client.clone().oneshot(request).await?;
        let live = layer.handle().session().await?;
        println!("{}, as user {:?}", response.status(), live.user_id());
        // The second request is rejected first, and then replayed; the caller does not see it.
        org.expire_sessions();
    }

    println!("{} logins", org.counters().logins);
    served.shutdown().await;
    Ok(())
}
