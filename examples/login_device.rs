//! The device flow: a program without a browser, and a user who has one elsewhere.
//!
//! ```sh
//! cargo run --example login_device
//! ```
//!
//! In Salesforce: enable the device flow for the app. Here the emulated user enters the code after the first poll.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, SalesforceAuthLayer, SessionHandle, emulator::Org, flow::DeviceAuthorization,
    https::HttpsClient, oauth::App,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A real org has its own login URL and app.
    let org = Org::new();
    let served = org.serve().await?;

    let app =
        App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
    let flow = DeviceAuthorization::new(HttpsClient::new()?, app).scope("api refresh_token");
    let code = flow.begin().await?;
    println!(
        "Go to {} and enter {}.",
        code.verification_uri(),
        code.user_code()
    );
    println!("(or open {})", code.verification_uri_complete());
    let user = tokio::spawn({
        let (org, code) = (org.clone(), code.user_code().to_owned());
        async move { org.approve_device(&code) }
    });
    println!(
        "Waiting, and polling every {} s …",
        code.interval().as_secs()
    );
    let session = flow.wait(&code).await?;
    println!(
        "The user {} the code, and the device has a session.",
        if user.await? {
            "entered"
        } else {
            "could not enter"
        }
    );

    // From here on the flow refreshes the session with the refresh token of the login.
    let handle = SessionHandle::builder(flow)
        .initial_session(session)
        .build();
    let layer = SalesforceAuthLayer::from(handle);
    let client = layer.layer(HttpsClient::new()?);
    org.expire_sessions();
    let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
    let response = client.oneshot(request).await?;
    println!(
        "The session ended at once, and was refreshed for the first request: {}",
        response.status()
    );

    served.shutdown().await;
    Ok(())
}
