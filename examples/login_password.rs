//! A user's password, over SOAP without an app, and over OAuth with one; and how to log out.
//!
//! ```sh
//! cargo run --example login_password
//! ```
//!
//! Salesforce is withdrawing both: they are for existing programs. In new orgs they have to be enabled (Setup, OAuth and
//! OpenID Connect Settings; Setup, User Interface).

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, RefreshFn, SalesforceAuthLayer,
    emulator::Org,
    flow::{SoapLogin, UsernamePassword},
    https::HttpsClient,
    oauth::{self, App},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A real org has its own login URL, app and users.
    let org = Org::new();
    let served = org.serve().await?;
    let http = HttpsClient::new()?;

    let soap = SoapLogin::new(
        http.clone(),
        org.login_url().parse()?,
        org.username(),
        org.password(),
    )
    .security_token(org.security_token());
    use_session("SOAP login", soap, http.clone()).await?;

    let app =
        App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
    let password = UsernamePassword::new(http.clone(), app, org.username(), org.password())
        .security_token(org.security_token());
    use_session("username-password", password, http).await?;

    served.shutdown().await;
    Ok(())
}

async fn use_session(
    name: &str,
    login: impl RefreshFn,
    http: HttpsClient<Full<Bytes>>,
) -> Result<(), BoxError> {
    let layer = SalesforceAuthLayer::new(login);
    let client = layer.layer(HttpsClient::new()?);
    let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
    let response = client.clone().oneshot(request).await?;

    let handle = layer.handle();
    let live = handle.session().await?;
    let user = oauth::userinfo(http.clone(), &live).await?;
    println!(
        "{name}: {}, as {}",
        response.status(),
        user.preferred_username.as_deref().unwrap_or("a user")
    );
    if let Some(timeout) = live.lifetime() {
        println!(
            "  the session ends after {} s without a request",
            timeout.as_secs()
        );
    }

    // The session has ended here and at the server. A request now gets an error, and starts no login.
    handle.logout(http).await?;
    let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
    if let Err(error) = client.oneshot(request).await {
        println!("  after logout: {error}");
    }
    Ok(())
}
