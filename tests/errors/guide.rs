//! The outputs in the guide are those of the errors.

use tower_salesforce_auth::{Error, SessionHandle, flow::ClientCredentials, oauth::App};

use crate::{answering::answering, report::without_backtrace};

const GUIDE: &str = include_str!("../../src/docs/production.md");

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The error of a login with a wrong secret, as Salesforce answers it.
async fn wrong_secret() -> Error {
    let refusal = r#"{"error":"invalid_client","error_description":"invalid client credentials"}"#;
    let login_url = "https://MyDomainName.my.salesforce.com".parse().unwrap();
    let app = App::new(login_url, "3MVG9").client_secret("wrong");
    let flow = ClientCredentials::new(answering(400, &[], refusal), app);
    SessionHandle::new(flow).session().await.unwrap_err()
}

#[tokio::test]
async fn the_guide_prints_errors_as_they_are() {
    let error = wrong_secret().await;
    let context = "the export failed";
    let anyhow = || anyhow::Error::new(error.clone()).context(context);
    let guide = words(GUIDE);
    // A `main` that returns the error prints this after `Error: `.
    assert_eq!(format!("{error:?}"), error.to_string());
    let eyre = eyre::Report::new(error.clone()).wrap_err(context);
    assert_eq!(format!("{eyre:#}"), format!("{:#}", anyhow()));
    for output in [
        error.to_string(),
        format!("{:#}", anyhow()),
        format!("Error: {:?}", anyhow()),
    ] {
        let output = words(without_backtrace(&output));
        assert!(guide.contains(&output), "{output}");
    }
}
