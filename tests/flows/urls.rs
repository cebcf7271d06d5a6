//! Login URLs and instances as people paste them, and what each family of hosts is good for (R40).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use tower_salesforce_auth::{
    ErrorKind, InstanceUrl, LoginUrl, RefreshFn, Session,
    emulator::Org,
    flow::JwtBearer,
    oauth::{App, PrivateKey},
};

use crate::support::{answering, first_login, form_of, recorded};

const TOKENS: &str =
    r#"{"access_token":"00Dxx!AQ","instance_url":"https://acme.my.salesforce.com"}"#;

#[track_caller]
fn refused(url: &str, words: &[&str]) {
    let error = match url.parse::<LoginUrl>() {
        Ok(login) => panic!("{url} was taken for {login}"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::InvalidUrl);
    let told = error.to_string();
    assert!(
        words.iter().all(|word| told.contains(word)),
        "{url}: {told}"
    );
}

/// A browser shows these hosts; the org's own host has the same name.
#[test]
fn r40_a_host_of_pages_is_refused_with_the_orgs_own() {
    for (url, own) in [
        (
            "https://acme.my.salesforce-setup.com",
            "https://acme.my.salesforce.com",
        ),
        (
            "https://acme.my.salesforce-setup.com/lightning/setup/SetupOneHome/home",
            "https://acme.my.salesforce.com",
        ),
        (
            "https://acme--uat.sandbox.my.salesforce-setup.com",
            "https://acme--uat.sandbox.my.salesforce.com",
        ),
        (
            "https://acme.lightning.force.com/lightning/page/home?0.source=alohaHeader",
            "https://acme.my.salesforce.com",
        ),
        (
            "https://ACME--uat.sandbox.Lightning.Force.com",
            "https://acme--uat.sandbox.my.salesforce.com",
        ),
        (
            "https://acme-dev-ed.develop.lightning.force.com/one/one.app",
            "https://acme-dev-ed.develop.my.salesforce.com",
        ),
        (
            "https://acme.lightning.crmforce.mil",
            "https://acme.my.salesforce.mil",
        ),
        (
            "https://acme.lightning.sfcrmapps.cn",
            "https://acme.my.sfcrmproducts.cn",
        ),
        (
            "https://lightning.force.com",
            "https://<MyDomainName>.my.salesforce.com",
        ),
    ] {
        refused(url, &[own, "Setup > My Domain"]);
        let told = Session::new("00Dxx!AQ", url).unwrap_err().to_string();
        assert!(told.contains(own), "{told}");
    }
}

#[test]
fn r40_a_host_without_logins_is_refused_with_advice() {
    for url in [
        "https://acme.file.force.com/sfc/servlet.shepherd/version/download/068xx",
        "https://acme--c.documentforce.com",
        "https://acme--c.vf.force.com/apex/Page",
        "https://c.na1.visual.force.com/apex/Page",
        "https://acme.my.salesforce-scrt.com",
        "https://acme.builder.salesforce-experience.com",
        "https://api.salesforce.com",
        "https://api.salesforce.com/einstein/platform/v1",
        "https://api.pubsub.salesforce.com:7443",
        "https://abc.c360a.salesforce.com",
        "https://www.salesforce.com/eu",
        "https://salesforce.com",
        "https://help.salesforce.com/s/articleView?id=sf.remoteaccess",
        "https://trailhead.salesforce.com",
    ] {
        refused(url, &["My Domain", "my.salesforce.com"]);
    }
}

/// A My Domain has no sites: a path is what the browser was at.
#[test]
fn r40_a_page_is_no_login_url() {
    for url in [
        "https://acme.my.salesforce.com/lightning/page/home",
        "https://acme.my.salesforce.com/lightning/setup/SetupOneHome/home",
        "https://acme.my.salesforce.com/home/home.jsp",
        "https://acme.my.salesforce.com/001xx000003DGb2AAG",
        "https://login.salesforce.com/setup",
        "https://test.salesforce.com/login.jsp",
        "https://cs91.salesforce.com/home",
        "https://acme--uat.sandbox.my.salesforce.com/_ui/common",
    ] {
        refused(url, &["path", "alone"]);
    }
    for (url, word) in [
        (
            "https://acme.my.salesforce.com/secur/frontdoor.jsp",
            "/secur",
        ),
        (
            "https://login.salesforce.com/secur/login_portal.jsp",
            "/secur",
        ),
        ("https://acme.my.site.com/partners/s", "/s "),
        (
            "https://acme.my.site.com/partners/s/account/Account/Default",
            "/s ",
        ),
        ("https://acme.my.site.com/partners/login", "/login"),
        ("https://acme.force.com/partners/apex/Page", "/apex"),
        (
            "https://acme.my.salesforce.com/?ec=302&startURL=%2Fhome",
            "question mark",
        ),
    ] {
        refused(url, &["leave out", word]);
    }
}

/// The documents and endpoints of OpenID and OAuth, pasted whole.
#[test]
fn r40_an_endpoint_is_no_login_url() {
    for url in [
        "https://login.salesforce.com/services/oauth2/token",
        "https://login.salesforce.com/services/oauth2/authorize",
        "https://login.salesforce.com/services/Soap/u/58.0",
        "https://acme.my.salesforce.com/.well-known/openid-configuration",
        "https://acme.my.salesforce.com/services",
        "https://acme.my.salesforce.com/services/data/v66.0/",
        "https://acme.my.site.com/partners/services/oauth2/token",
        "https://acme.my.site.com/partners/.well-known/openid-configuration",
        "https://login.example.com/services/oauth2/token",
        "http://localhost:8080/services/oauth2",
    ] {
        refused(url, &["leave out"]);
    }
}

#[test]
fn r40_a_pasted_login_url_is_understood() {
    for (pasted, expected) in [
        (
            " https://acme.my.salesforce.com \n",
            "https://acme.my.salesforce.com",
        ),
        (
            "\"https://acme.my.salesforce.com\"",
            "https://acme.my.salesforce.com",
        ),
        (
            "<https://acme.my.salesforce.com/>",
            "https://acme.my.salesforce.com",
        ),
        (
            "\u{feff}https://acme.my.salesforce.com\u{200b}",
            "https://acme.my.salesforce.com",
        ),
        (
            "https://ACME.My.Salesforce.com:443/",
            "https://acme.my.salesforce.com",
        ),
        (
            "https://acme.my.salesforce.com/#top",
            "https://acme.my.salesforce.com",
        ),
        (
            "'https://acme.my.site.com/partners/'",
            "https://acme.my.site.com/partners",
        ),
        (
            "https://login.example.com/partners",
            "https://login.example.com/partners",
        ),
        (
            "https://acme.my.salesforce.mil",
            "https://acme.my.salesforce.mil",
        ),
        (
            "https://na139.salesforce.com",
            "https://na139.salesforce.com",
        ),
    ] {
        let url: LoginUrl = pasted
            .parse()
            .unwrap_or_else(|error| panic!("{pasted:?}: {error}"));
        assert_eq!(url.to_string(), expected);
    }
    for url in [
        "acme.my.salesforce.com",
        "http://acme.my.salesforce.com",
        "https:/acme",
        "",
        "https://",
    ] {
        let error = url.parse::<LoginUrl>().unwrap_err();
        assert!(error.to_string().contains("https"), "{error}");
    }
}

#[test]
fn r40_an_instance_is_where_apis_are() {
    for (url, word) in [
        ("https://login.salesforce.com", "instance_url"),
        ("https://test.salesforce.com/", "instance_url"),
        ("https://acme.file.force.com", "My Domain"),
        ("https://www.salesforce.com", "My Domain"),
        (
            "https://acme.my.salesforce.com/lightning/page/home",
            "alone",
        ),
        ("https://acme.my.salesforce.com/services/data", "alone"),
    ] {
        let error = Session::new("00Dxx!AQ", url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUrl);
        assert!(error.to_string().contains(word), "{url}: {error}");
    }
    for url in [
        "\"https://acme.my.salesforce.com\"\n",
        "https://na139.salesforce.com",
        "https://acme.my.site.com",
        "https://api.salesforce.com",
        "https://abc.c360a.salesforce.com",
        "https://gateway.example.com",
        "http://localhost:8080",
    ] {
        url.parse::<InstanceUrl>()
            .unwrap_or_else(|error| panic!("{url}: {error}"));
    }
}

// === The audience of an assertion ===

async fn audience(url: &str) -> String {
    let (client, requests) = recorded(answering(200, &[], TOKENS));
    let key = PrivateKey::from_pem(Org::new().jwt_private_key()).unwrap();
    let app = App::new(url.parse().unwrap(), "key");
    let flow = JwtBearer::new(client, app, "user@example.com", key);
    flow.refresh(first_login()).await.unwrap();
    let form = form_of(&requests.take());
    let (_, assertion) = form.iter().find(|(name, _)| name == "assertion").unwrap();
    let claims = URL_SAFE_NO_PAD
        .decode(assertion.split('.').nth(1).unwrap())
        .unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims["aud"].as_str().unwrap().to_owned()
}

/// forcedotcom/sfdx-core: the classic hosts of instances, which scratch orgs and sandboxes still had.
#[tokio::test]
async fn r40_the_audience_of_an_instance_is_the_shared_host() {
    const PRODUCTION: &str = "https://login.salesforce.com";
    const SANDBOX: &str = "https://test.salesforce.com";
    for (url, expected) in [
        ("https://cs91.salesforce.com", SANDBOX),
        ("https://CS5.salesforce.com", SANDBOX),
        ("https://usa2s.salesforce.com", SANDBOX),
        ("https://na139.salesforce.com", PRODUCTION),
        ("https://eu25.salesforce.com", PRODUCTION),
        ("https://usa123.salesforce.com", PRODUCTION),
        ("https://acme.my.salesforce.com", PRODUCTION),
        ("https://acme-dev-ed.develop.my.salesforce.com", PRODUCTION),
        ("https://acme--uat.sandbox.my.salesforce.com", SANDBOX),
        ("https://acme--uat.my.salesforce.com", SANDBOX),
        (
            "https://page-site-1234-dev-ed.cs91.my.salesforce.com",
            SANDBOX,
        ),
        ("https://acme.scratch.my.salesforce.com", SANDBOX),
        (
            "https://acme.my.site.com/partners",
            "https://acme.my.site.com/partners",
        ),
        ("https://login.example.com", "https://login.example.com"),
    ] {
        assert_eq!(audience(url).await, expected, "{url}");
    }
}

proptest! {
    /// Any host within the families either has logins, or its refusal names a host that has.
    #[test]
    fn r40_every_refusal_of_a_host_names_another(
        name in "[a-z][a-z0-9]{0,8}(--[a-z]{1,4})?",
        domain in prop::sample::select(vec![
            "my.salesforce.com", "sandbox.my.salesforce.com", "lightning.force.com", "sandbox.lightning.force.com",
            "my.salesforce-setup.com", "my.site.com", "file.force.com", "vf.force.com", "my.salesforce.mil",
            "lightning.crmforce.mil", "my.sfcrmproducts.cn", "lightning.sfcrmapps.cn", "c360a.salesforce.com",
        ]),
        page in "(/[a-z]{2,8}){0,3}",
    ) {
        let url = format!("https://{name}.{domain}{page}");
        match url.parse::<LoginUrl>() {
            Ok(login) => prop_assert_eq!(login.to_string(), url),
            Err(error) => {
                let told = error.to_string();
                let has_advice = told.contains(".my.s") || told.contains("leave out");
                prop_assert!(has_advice, "{}: {}", url, told);
                // The advice is good.
                if let Some((_, own)) = told.split_once("https://").filter(|_| !told.contains('<')) {
                    let own = format!("https://{}", own.split([' ', ',']).next().unwrap());
                    prop_assert!(own.parse::<LoginUrl>().is_ok(), "{}", own);
                }
            }
        }
    }
}
