//! SFDX auth URLs (R45): what is understood, and what is refused with the remedy.

use proptest::prelude::*;
use tower_salesforce_auth::{
    ErrorKind, RefreshFn, SalesforceAuthLayer, emulator::Org, flow::RefreshToken,
    oauth::SfdxAuthUrl,
};

use crate::support::get_limits;

const URL: &str = "force://PlatformCLI::5Aep861secret.token_==@acme.my.salesforce.com";

fn refusal(url: &str) -> String {
    let error = url.parse::<SfdxAuthUrl>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUrl);
    let message = error.to_string();
    let shown = format!("{error:?}");
    assert!(
        !shown.contains("5Aep") && !shown.contains("1955"),
        "{shown}"
    );
    assert!(message.starts_with("the SFDX auth URL "), "{message}");
    message
}

#[tokio::test]
async fn r45_an_sfdx_auth_url_logs_in_and_refreshes() {
    for has_secret in [true, false] {
        let org = Org::new();
        org.require_secret(has_secret);
        let host = org.instance_url().replace("https://", "");
        let secret = if has_secret {
            org.client_secret()
        } else {
            "undefined"
        };
        let (id, token) = (org.client_id(), org.authorize().refresh_token().to_owned());
        let url = format!("force://{id}:{secret}:{token}@{host}")
            .parse()
            .unwrap();
        let flow = RefreshToken::from_sfdx_auth_url(org.clone(), &url);
        let layer = SalesforceAuthLayer::new(flow);
        for logins in 1..=2 {
            assert_eq!(get_limits(&layer, &org).await.unwrap().0, 200);
            assert_eq!(org.counters().token_requests, logins);
            org.expire_sessions();
        }
    }
}

#[test]
fn r45_the_parts_of_an_sfdx_auth_url_are_read() {
    let url: SfdxAuthUrl = "force://3MVG9.id_:1955-secret=:5Aep861==@acme.example.com:8443"
        .parse()
        .unwrap();
    assert_eq!(url.client_id(), "3MVG9.id_");
    assert_eq!(url.client_secret().unwrap().expose(), "1955-secret=");
    assert_eq!(url.refresh_token().expose(), "5Aep861==");
    assert_eq!(url.login_url().to_string(), "https://acme.example.com:8443");
    assert_eq!(url.app().client_id(), "3MVG9.id_");

    for secret in ["", "undefined"] {
        let url = format!("force://PlatformCLI:{secret}:5Aep861@acme.my.salesforce.com");
        assert_eq!(url.parse::<SfdxAuthUrl>().unwrap().client_secret(), None);
    }
}

#[test]
fn r45_an_sfdx_auth_url_is_understood_as_it_is_copied() {
    let json =
        format!(r#"{{"status":0,"result":{{"id":"00D","sfdxAuthUrl":"{URL}"}},"warnings":[]}}"#);
    for text in [
        format!(" {URL}\n"),
        format!("\u{feff}\"{URL}\"\r\n"),
        format!("'{URL}'"),
        format!("{URL}/"),
        json.clone(),
        json.replace("\"force", "\u{1b}[32m\"force")
            .replace("com\"", "com\"\u{1b}[39m"),
        format!("\n{{\"sfdxAuthUrl\": \" {URL}\"}}\n"),
    ] {
        let url: SfdxAuthUrl = text.parse().unwrap();
        assert_eq!(url, URL.parse().unwrap(), "{text}");
    }
}

#[test]
fn r45_an_sfdx_auth_url_is_printed_without_its_secrets() {
    let url: SfdxAuthUrl = "force://3MVG9:1955:5Aep861@acme.my.salesforce.com"
        .parse()
        .unwrap();
    let shown = "force://3MVG9:[redacted]:[redacted]@acme.my.salesforce.com";
    assert_eq!(url.to_string(), shown);
    assert_eq!(format!("{url:?}"), format!("SfdxAuthUrl({shown})"));
    let flow = RefreshToken::from_sfdx_auth_url(Org::new(), &url);
    let shown = format!("{flow:?} {:?}", url.app());
    assert!(
        !shown.contains("5Aep") && !shown.contains("1955"),
        "{shown}"
    );
}

#[test]
fn r45_a_malformed_sfdx_auth_url_says_what_to_do() {
    let log_in = "log in with `sf org login web`";
    for (url, told) in [
        ("", "is empty"),
        (" \n", "is empty"),
        (
            "https://acme.my.salesforce.com",
            "does not begin with force://",
        ),
        ("force://PlatformCLI::5Aep861", "no @"),
        ("force://5Aep861@acme.my.salesforce.com", "older form"),
        ("force://5Aep861@acme.my.salesforce.com", log_in),
        (
            "force://PlatformCLI:5Aep861@acme.my.salesforce.com",
            "2 parts",
        ),
        (
            "force://PlatformCLI::5Aep861:1955@acme.my.salesforce.com",
            "4 parts",
        ),
        ("force://::5Aep861@acme.my.salesforce.com", "no client id"),
        (
            "force://undefined:undefined:5Aep861@acme.my.salesforce.com",
            "no client id",
        ),
        ("force://undefined::5Aep861@acme.my.salesforce.com", log_in),
        (
            "force://PlatformCLI::undefined@acme.my.salesforce.com",
            "no refresh token",
        ),
        ("force://PlatformCLI::@acme.my.salesforce.com", log_in),
        (
            "force://PlatformCLI::5Aep861===@acme.my.salesforce.com",
            "refresh token with a character",
        ),
        (
            "force://PlatformCLI::5Aep 861@acme.my.salesforce.com",
            "refresh token with a character",
        ),
        (
            "force://PlatformCLI:19%3D55:5Aep861@acme.my.salesforce.com",
            "client secret with a character",
        ),
        (
            "force://Platform/CLI::5Aep861@acme.my.salesforce.com",
            "client id with a character",
        ),
        (
            "force://PlatformCLI::5Aep861@https://acme.my.salesforce.com",
            "leave `https://` out",
        ),
        ("force://PlatformCLI::5Aep861@", "a host and a port"),
        (
            "force://PlatformCLI::5Aep861@acme.my.salesforce.com/services",
            "a host and a port",
        ),
        (
            "force://PlatformCLI::5Aep861@acme.my.salesforce.com:99999",
            "port",
        ),
        (
            "force://PlatformCLI::5Aep861@acme.lightning.force.com",
            "acme.my.salesforce.com",
        ),
        (
            "[REDACTED] Use 'sf org auth show-sfdx-auth-url' to view",
            "is redacted",
        ),
        (
            r#"{"result": {"sfdxAuthUrl": "[REDACTED] Use 'sf org auth show-sfdx-auth-url' to view"}}"#,
            "show-sfdx-auth-url",
        ),
        (
            r#"{"result": {"accessToken": "5Aep861"}}"#,
            "not in the JSON",
        ),
        ("{", "not in the JSON"),
    ] {
        let message = refusal(url);
        assert!(message.contains(told), "{url}: {message}");
    }
}

proptest! {
    /// Any damage to a URL leaves its secrets, or an error that repeats none of them.
    #[test]
    fn r45_a_damaged_sfdx_auth_url_is_not_repeated(at in 0..70usize, odd in "\\PC{0,3}|[:@=/\"{}\n ]{1,2}") {
        let mut damaged = "force://3MVG9:1955secret:5Aep861token@acme.my.salesforce.com".to_owned();
        damaged.insert_str(at.min(damaged.len()), &odd);
        match damaged.parse::<SfdxAuthUrl>() {
            Ok(url) => {
                let shown = format!("{url} {url:?}");
                prop_assert!(!shown.contains("secret") && !shown.contains("token"), "{}", shown);
            }
            Err(error) => {
                let shown = format!("{error} {error:?}").replace("refresh token", "").replace("client secret", "");
                prop_assert!(!shown.contains("1955") && !shown.contains("5Aep"), "{}", shown);
            }
        }
    }
}

#[tokio::test]
async fn r45_a_url_of_a_revoked_login_says_so() {
    let org = Org::new();
    let url = format!(
        "force://{}:{}:5Aep861unknown@{}",
        org.client_id(),
        org.client_secret(),
        org.instance_url().replace("https://", "")
    );
    let flow = RefreshToken::from_sfdx_auth_url(org, &url.parse().unwrap());
    let error = flow.log_in().await.unwrap_err();
    assert!(error.is_terminal());
    assert!(
        error.to_string().contains("expired access/refresh token"),
        "{error}"
    );
}
