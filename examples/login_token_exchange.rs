//! A token of another identity provider, exchanged for a session: token exchange, SAML bearer, and any other grant.
//!
//! ```sh
//! cargo run --example login_token_exchange
//! ```
//!
//! In Salesforce: token exchange needs an Apex token exchange handler, and works at the org's My Domain; SAML bearer needs
//! the certificate of the identity provider at the app.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, RefreshFn, SalesforceAuthLayer,
    emulator::Org,
    flow::{ExtensionGrant, SamlBearer, SubjectTokenType, TokenExchange},
    https::HttpsClient,
    oauth::App,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A real org has its own login URL, app and users.
    let org = Org::new();
    let served = org.serve().await?;
    let http = HttpsClient::new()?;
    let app =
        App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
    // The emulated org accepts a subject token that was registered, and any SAML assertion of its user.
    let id_token = "eyJraWQiOiJleGFtcGxlIn0.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl";
    org.trust_subject_token(id_token);
    let assertion = format!(
        r#"<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"><saml:Subject><saml:NameID>{}</saml:NameID></saml:Subject></saml:Assertion>"#,
        org.username()
    );

    let exchange = TokenExchange::new(
        http.clone(),
        app.clone(),
        id_token,
        SubjectTokenType::IdToken,
    );
    use_session("token exchange", exchange).await?;

    let saml = SamlBearer::new(http.clone(), org.login_url().parse()?, assertion);
    use_session("SAML bearer", saml).await?;

    // Any other grant type, with its parameters.
    let grant = ExtensionGrant::new(http, app, "urn:ietf:params:oauth:grant-type:token-exchange")
        .parameter("subject_token", id_token)
        .parameter(
            "subject_token_type",
            "urn:ietf:params:oauth:token-type:id_token",
        );
    use_session("extension grant", grant).await?;

    served.shutdown().await;
    Ok(())
}

async fn use_session(name: &str, login: impl RefreshFn) -> Result<(), BoxError> {
    let layer = SalesforceAuthLayer::new(login);
    let client = layer.layer(HttpsClient::new()?);
    let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
    let response = client.oneshot(request).await?;
    let live = layer.handle().session().await?;
    println!(
        "{name}: a request is answered with {}. The session has the scopes {}.",
        response.status(),
        live.scope().unwrap_or("of the app")
    );
    Ok(())
}
