//! Signed assertions, verified by another implementation.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};
use tower_salesforce_auth::{
    ErrorKind, LoginUrl, RefreshErrorKind, RefreshFn, SalesforceAuthLayer,
    emulator::Org,
    flow::{ClientCredentials, JwtBearer},
    oauth::{App, ClientAuthentication, PrivateKey},
};

use crate::support::{form_of, get_limits, public_app, recorded};

/// The time of these tests, in seconds since the epoch.
const NOW: u64 = 1_750_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// The claims of a JWS that the org's app has signed.
fn verified(org: &Org, jws: &str) -> Value {
    assert_eq!(decode_header(jws).unwrap().alg, Algorithm::RS256);
    let key = DecodingKey::from_rsa_pem(org.jwt_public_key().as_bytes()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    // The clock of the test is not that of the machine.
    validation.validate_exp = false;
    validation.validate_aud = false;
    decode::<Value>(jws, &key, &validation).unwrap().claims
}

#[tokio::test]
async fn r30_clock_a_jwt_expires_after_120_s_by_the_given_clock() {
    let org = Org::new();
    org.set_clock(now);
    for pem in [org.jwt_private_key(), org.jwt_private_key_pkcs1()] {
        let key = PrivateKey::from_pem(pem).unwrap();
        let (client, requests) = recorded(org.clone());
        let flow = JwtBearer::new(client, public_app(&org), org.username(), key).clock(now);
        flow.log_in().await.unwrap();
        let form = form_of(&requests.take());
        let names: Vec<_> = form.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["grant_type", "assertion"], "and nothing else");
        assert_eq!(form[0].1, "urn:ietf:params:oauth:grant-type:jwt-bearer");
        assert_eq!(
            verified(&org, &form[1].1),
            json!({
                "iss": org.client_id(),
                "sub": org.username(),
                "aud": "https://login.salesforce.com",
                "exp": NOW + 120,
            })
        );
    }
}

#[tokio::test]
async fn r30_clock_a_jump_of_an_hour_costs_no_refresh() {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };

    let org = Org::new();
    let jump = Arc::new(AtomicI64::new(0));
    let clock = {
        let jump = Arc::clone(&jump);
        move || {
            let now = i64::try_from(NOW).unwrap() + jump.load(Ordering::Relaxed);
            UNIX_EPOCH + Duration::from_secs(now.unsigned_abs())
        }
    };
    org.set_clock(clock.clone());
    let key = PrivateKey::from_pem(org.jwt_private_key()).unwrap();
    let flow = JwtBearer::new(org.clone(), public_app(&org), org.username(), key).clock(clock);
    let layer = SalesforceAuthLayer::new(flow);
    for seconds in [0, 3600, -3600] {
        jump.store(seconds, Ordering::Relaxed);
        let (status, outcome) = get_limits(&layer, &org).await.unwrap();
        assert_eq!((status, outcome.is_none()), (StatusCode::OK, true));
    }
    assert_eq!(org.counters().token_requests, 1);
}

#[tokio::test]
async fn a_jwt_audience_follows_the_login_host_unless_set() {
    let org = Org::new();
    let key = PrivateKey::from_pem(org.jwt_private_key()).unwrap();
    for (login_url, audience) in [
        (
            "https://login.salesforce.com",
            "https://login.salesforce.com",
        ),
        ("https://test.salesforce.com", "https://test.salesforce.com"),
        (
            "https://MyDomainName.my.salesforce.com",
            "https://login.salesforce.com",
        ),
        (
            "https://MyDomainName.develop.my.salesforce.com",
            "https://login.salesforce.com",
        ),
        (
            "https://MyDomainName--dev.sandbox.my.salesforce.com",
            "https://test.salesforce.com",
        ),
        (
            "https://MyDomainName.scratch.my.salesforce.com",
            "https://test.salesforce.com",
        ),
        (
            "https://MyDomainName.my.site.com/partners",
            "https://mydomainname.my.site.com/partners",
        ),
        (
            "https://MyDomainName--uat.my.salesforce.com",
            "https://test.salesforce.com",
        ),
        // Hosts of instances, from a token response or an old bookmark.
        (
            "https://na139.salesforce.com",
            "https://login.salesforce.com",
        ),
        ("https://EU5.salesforce.com", "https://login.salesforce.com"),
        (
            "https://um1.my.salesforce.com",
            "https://login.salesforce.com",
        ),
        ("https://cs12.salesforce.com", "https://test.salesforce.com"),
        (
            "https://cs12.my.salesforce.com",
            "https://test.salesforce.com",
        ),
        (
            "https://MyDomainName--uat.cs5.my.salesforce.com",
            "https://test.salesforce.com",
        ),
        (
            "https://cs12.my.salesforce.com.example.com",
            "https://cs12.my.salesforce.com.example.com",
        ),
        ("https://login.example.com", "https://login.example.com"),
        (
            "https://notmy.salesforce.com.example.com",
            "https://notmy.salesforce.com.example.com",
        ),
    ] {
        let (client, requests) = recorded(org.clone());
        let app = App::new(login_url.parse().unwrap(), org.client_id());
        let flow = JwtBearer::new(client, app, org.username(), key.clone());
        let _ = flow.log_in().await;
        assert_eq!(
            verified(&org, &form_of(&requests.take())[1].1)["aud"],
            audience,
            "{login_url}"
        );

        // The audience and the token endpoint are set independently.
        let (client, requests) = recorded(org.clone());
        let endpoint = "https://gateway.example.com/token";
        let app = App::new(
            LoginUrl::production()
                .with_token_endpoint(endpoint)
                .unwrap(),
            org.client_id(),
        );
        let flow = JwtBearer::new(client, app, org.username(), key.clone()).audience(audience);
        let _ = flow.log_in().await;
        let [request] = requests.take().try_into().unwrap();
        assert_eq!(request.uri(), endpoint);
        let form: Vec<_> = form_urlencoded::parse(request.body())
            .into_owned()
            .collect();
        assert_eq!(verified(&org, &form[1].1)["aud"], audience);
    }
}

#[tokio::test]
async fn an_assertion_signed_elsewhere_is_sent_unchanged() {
    let org = Org::new();
    org.set_clock(now);
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(org.jwt_private_key().as_bytes()).unwrap();
    let claims = json!({
        "iss": org.client_id(), "sub": org.username(), "aud": "https://login.salesforce.com", "exp": NOW + 60,
    });
    let header = jsonwebtoken::Header::new(Algorithm::RS256);
    let assertion = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    let login_url: LoginUrl = org.login_url().parse().unwrap();
    let flow = JwtBearer::from_assertion(org.clone(), login_url, assertion);
    let layer = SalesforceAuthLayer::new(flow);
    assert_eq!(get_limits(&layer, &org).await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn an_app_authenticates_with_a_signed_client_assertion() {
    let org = Org::new();
    org.set_clock(now);
    let key = PrivateKey::from_pem(org.jwt_private_key()).unwrap();
    let authentication = ClientAuthentication::private_key_jwt(key).clock(now);
    let (client, requests) = recorded(org.clone());
    let app = public_app(&org).client_authentication(authentication);
    ClientCredentials::new(client, app).log_in().await.unwrap();
    let form = form_of(&requests.take());
    let value = |wanted: &str| &form.iter().find(|(name, _)| name == wanted).unwrap().1;
    assert_eq!(value("client_id"), org.client_id());
    assert_eq!(
        value("client_assertion_type"),
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    );
    let mut claims = verified(&org, value("client_assertion"));
    // 256 random bits.
    let id = claims.as_object_mut().unwrap().remove("jti").unwrap();
    assert_eq!(id.as_str().unwrap().len(), 43);
    assert_eq!(
        claims,
        json!({
            "iss": org.client_id(),
            "sub": org.client_id(),
            "aud": org.token_url(),
            "exp": NOW + 120,
        })
    );
}

#[tokio::test]
async fn a_refused_assertion_is_an_error_with_a_remedy() {
    let org = Org::new();
    let key = || PrivateKey::from_pem(org.jwt_private_key()).unwrap();
    let flow = |key| JwtBearer::new(org.clone(), public_app(&org), org.username(), key);
    let an_hour_late = || SystemTime::UNIX_EPOCH;
    let refused = flow(key()).clock(an_hour_late).log_in().await.unwrap_err();
    assert!(refused.is_terminal());
    assert!(
        refused.to_string().contains("this machine's clock"),
        "{refused}"
    );
    let refused = flow(key())
        .audience("https://test.salesforce.com")
        .log_in()
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("for a sandbox"), "{refused}");
    let out_of_range = flow(key()).assertion_lifetime(Duration::MAX);
    let refused = out_of_range.log_in().await.unwrap_err();
    assert_eq!(refused.kind(), RefreshErrorKind::Configuration);
}

#[test]
fn a_pem_without_an_rsa_key_is_refused_with_what_it_is() {
    let org = Org::new();
    let pem = org.jwt_private_key();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    for (pem, reason) in [
        (String::new(), "there is no PEM block"),
        ("hush".to_owned(), "there is no PEM block"),
        (org.jwt_public_key(), "it is a public key"),
        (
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned(),
            "it is a certificate",
        ),
        (
            format!(
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\n{body}\n-----END ENCRYPTED PRIVATE KEY-----\n"
            ),
            "it is encrypted",
        ),
        (
            format!(
                "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                &body[..64]
            ),
            "no RSA key",
        ),
        (
            format!(
                "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n",
                &body[..64]
            ),
            "elliptic curve",
        ),
        (
            format!("-----BEGIN PRIVATE KEY-----\n{body}"),
            "there is no PEM block",
        ),
    ] {
        let error = PrivateKey::from_pem(pem.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!format!("{error:?}").contains(&body[..32]));
    }
    // Text around the PEM block is ignored.
    let bundle =
        format!("Bag Attributes\n    friendlyName: sf\n{pem}\nmore\n").replace('\n', "\r\n");
    PrivateKey::from_pem(bundle).unwrap();
}
