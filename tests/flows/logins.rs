//! Every flow logs in and refreshes its session by itself (R26).

use std::sync::Arc;

use http::StatusCode;
use tower_salesforce_auth::{
    Error, ErrorKind, RefreshContext, RefreshErrorKind, RefreshFn, SalesforceAuthLayer, Session,
    emulator::Org,
    flow::{
        AuthorizationCode, ClientCredentials, DeviceAuthorization, ExtensionGrant, JwtBearer,
        RefreshToken, SamlBearer, SoapLogin, SubjectTokenType, TokenExchange, UsernamePassword,
    },
    oauth::ClientAuthentication,
    observer::RefreshReason,
    refresh::from_service,
    request::ReplaySkipped,
};

use crate::support::{app, first_login, get_limits, key, login_calls, public_app, starting_with};

const SAML: &str = r#"<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"><saml:Subject><saml:NameID>USERNAME</saml:NameID></saml:Subject></saml:Assertion>"#;

pub(crate) fn saml(org: &Org) -> String {
    SAML.replace("USERNAME", org.username())
}

fn password(org: &Org) -> UsernamePassword<Org> {
    UsernamePassword::new(org.clone(), app(org), org.username(), org.password())
}

fn soap(org: &Org) -> SoapLogin<Org> {
    let login_url = org.login_url().parse().unwrap();
    SoapLogin::new(org.clone(), login_url, org.username(), org.password())
}

/// A layer for each way to log in without a user, by name.
pub(crate) fn layers(org: &Org) -> Vec<(&'static str, SalesforceAuthLayer)> {
    let grant = org.authorize();
    let client = || org.clone();
    let credentials = |authentication| {
        let app = public_app(org).client_authentication(authentication);
        SalesforceAuthLayer::new(ClientCredentials::new(client(), app))
    };
    let by_form = ClientAuthentication::secret(org.client_secret());
    let by_header = ClientAuthentication::secret_basic(org.client_secret());
    let by_assertion = ClientAuthentication::private_key_jwt(key(org));
    org.trust_subject_token("eyJ.subject.token");
    let exchange = TokenExchange::new(
        client(),
        app(org),
        "eyJ.subject.token",
        SubjectTokenType::Jwt,
    );
    let extension = ExtensionGrant::new(
        client(),
        public_app(org),
        "urn:ietf:params:oauth:grant-type:saml2-bearer",
    )
    .without_client_id()
    .parameter("assertion", base64(&saml(org)));
    let login_url = || org.login_url().parse().unwrap();
    vec![
        (
            "refresh token",
            SalesforceAuthLayer::new(RefreshToken::new(client(), app(org), grant.refresh_token())),
        ),
        ("client credentials, form", credentials(by_form)),
        ("client credentials, Basic", credentials(by_header)),
        ("client credentials, assertion", credentials(by_assertion)),
        (
            "JWT bearer",
            SalesforceAuthLayer::new(JwtBearer::new(
                client(),
                public_app(org),
                org.username(),
                key(org),
            )),
        ),
        (
            "username-password",
            SalesforceAuthLayer::new(password(org).security_token(org.security_token())),
        ),
        (
            "SOAP login",
            SalesforceAuthLayer::new(soap(org).security_token(org.security_token())),
        ),
        ("token exchange", SalesforceAuthLayer::new(exchange)),
        (
            "SAML bearer",
            SalesforceAuthLayer::new(SamlBearer::new(client(), login_url(), saml(org))),
        ),
        ("extension grant", SalesforceAuthLayer::new(extension)),
    ]
}

fn base64(text: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(text)
}

#[tokio::test]
async fn r26_every_flow_logs_in_and_refreshes_with_one_call() {
    let org = Org::new();
    for (name, layer) in layers(&org) {
        // The calls are the first login and two refreshes.
        for call in 1..=3 {
            let before = login_calls(&org);
            let (status, _) = get_limits(&layer, &org).await.unwrap();
            assert_eq!(status, StatusCode::OK, "{name}");
            assert_eq!(login_calls(&org), before + 1, "{name}, call {call}");
            org.expire_sessions();
        }
        let live = layer.handle().try_session().unwrap();
        assert_eq!(live.organization_id(), Some("00Dxx0000001gEFEAY"), "{name}");
        assert_eq!(live.user_id(), Some("005xx000001SwiUAAS"), "{name}");
        assert_eq!(
            live.login_url().unwrap().to_string(),
            org.login_url(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn r26_a_user_flow_refreshes_the_session_it_began() {
    let org = Org::new();
    let scope = "api refresh_token";
    let code = AuthorizationCode::new(org.clone(), app(&org), org.redirect_uri()).scope(scope);
    let request = code.authorization_url().build().unwrap();
    let callback = org.approve(request.url()).unwrap();
    let by_code = code.exchange(request.pending(), &callback).await.unwrap();

    tokio::time::pause();
    let device = DeviceAuthorization::new(org.clone(), app(&org)).scope(scope);
    let device_code = device.begin().await.unwrap();
    assert!(org.approve_device(device_code.user_code()));
    let by_device = device.wait(&device_code).await.unwrap();
    tokio::time::resume();

    for layer in [
        starting_with(by_code, code),
        starting_with(by_device, device),
    ] {
        for _ in 0..2 {
            org.expire_sessions();
            let before = login_calls(&org);
            let (status, _) = get_limits(&layer, &org).await.unwrap();
            assert_eq!(status, StatusCode::OK);
            assert_eq!(login_calls(&org), before + 1);
        }
    }
    assert_eq!(org.counters().refresh_token_reuses, 0);
}

#[tokio::test]
async fn r26_a_flow_without_a_refresh_token_fails_without_a_call() {
    let org = Org::new();
    let code = AuthorizationCode::new(org.clone(), app(&org), org.redirect_uri());
    let error = code.log_in().await.unwrap_err();
    assert_eq!(error.kind(), RefreshErrorKind::NoRefreshToken);
    assert!(error.to_string().contains("have the user authorize"));
    assert_eq!(login_calls(&org), 0);
}

#[tokio::test]
async fn r26_a_fixed_session_is_used_until_it_expires() {
    let org = Org::new();
    let grant = org.authorize();
    let server_url = format!(
        "{}/services/Soap/u/64.0/00Dxx0000001gEF",
        org.instance_url()
    );
    let sessions = [
        Session::new(grant.access_token(), &org.instance_url()).unwrap(),
        Session::from_session_id(grant.access_token(), &server_url).unwrap(),
    ];
    let layers = sessions.map(SalesforceAuthLayer::fixed);
    for layer in &layers {
        assert_eq!(get_limits(layer, &org).await.unwrap().0, StatusCode::OK);
    }
    org.expire_sessions();
    for layer in &layers {
        let (status, outcome) = get_limits(layer, &org).await.unwrap();
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(
            outcome.unwrap().replay_skipped(),
            Some(ReplaySkipped::NotConfigured)
        );
    }
    assert_eq!(login_calls(&org), 0);
}

/// Each attempt counts towards a lockout.
#[tokio::test]
async fn r26_a_wrong_password_is_tried_once_until_a_reset() {
    let org = Org::new();
    org.lock_out_after(3);
    let login_url = || org.login_url().parse().unwrap();
    let flows = [
        SalesforceAuthLayer::new(UsernamePassword::new(
            org.clone(),
            app(&org),
            org.username(),
            "wrong",
        )),
        SalesforceAuthLayer::new(SoapLogin::new(
            org.clone(),
            login_url(),
            org.username(),
            "wrong",
        )),
    ];
    for layer in flows {
        let before = org.counters().failed_logins;
        for _ in 0..20 {
            let error = get_limits(&layer, &org).await.unwrap_err();
            let error: &Error = error.downcast_ref().unwrap();
            assert_eq!(error.kind(), ErrorKind::Refresh);
            assert!(error.refresh_error().unwrap().is_terminal());
        }
        assert_eq!(org.counters().failed_logins, before + 1);

        layer.handle().reset();
        for _ in 0..20 {
            get_limits(&layer, &org).await.unwrap_err();
        }
        assert_eq!(org.counters().failed_logins, before + 2);
        org.unlock_user();

        // A session that is set ends the latch.
        let session = Session::new(org.authorize().access_token(), &org.instance_url());
        layer.handle().set(session.unwrap());
        assert_eq!(get_limits(&layer, &org).await.unwrap().0, StatusCode::OK);
    }
}

#[tokio::test]
async fn r26_an_expired_password_is_an_error_without_a_session() {
    let org = Org::new();
    org.expire_password(true);
    let layer = SalesforceAuthLayer::new(soap(&org).security_token(org.security_token()));
    for _ in 0..3 {
        let error = get_limits(&layer, &org).await.unwrap_err();
        let error: &Error = error.downcast_ref().unwrap();
        let error = error.refresh_error().unwrap();
        assert!(error.is_terminal());
        assert_eq!(
            error.error_code(),
            Some("INVALID_OPERATION_WITH_EXPIRED_PASSWORD")
        );
        assert!(error.to_string().contains("set a new one"), "{error}");
    }
    assert!(layer.handle().try_session().is_none());
    assert_eq!(org.counters().soap_requests, 1);
}

#[tokio::test]
async fn a_login_without_a_required_security_token_is_refused() {
    let org = Org::new();
    let refused = password(&org).log_in().await.unwrap_err();
    assert_eq!(refused.error_code(), Some("invalid_grant"));
    assert!(refused.to_string().contains("security token"), "{refused}");
    let refused = soap(&org).log_in().await.unwrap_err();
    assert!(refused.is_terminal());
    org.require_security_token(false);
    assert!(password(&org).log_in().await.is_ok());
    assert!(soap(&org).log_in().await.is_ok());
}

#[tokio::test]
async fn client_credentials_off_the_my_domain_name_the_remedy() {
    let org = Org::new();
    org.act_as_shared_login_host(true);
    let flow = ClientCredentials::new(org.clone(), app(&org));
    let refused = flow.log_in().await.unwrap_err();
    assert!(refused.is_terminal());
    assert!(
        refused
            .to_string()
            .contains("https://<MyDomainName>.my.salesforce.com"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_blocked_unapproved_or_limited_login_is_explained() {
    let org = Org::new();
    org.block_password_flow(true);
    let flow = password(&org).security_token(org.security_token());
    let refused = flow.log_in().await.unwrap_err();
    assert!(refused.to_string().contains("blocked flow"), "{refused}");

    let org = Org::new();
    org.preauthorize(false);
    let jwt = JwtBearer::new(org.clone(), public_app(&org), org.username(), key(&org));
    let refused = jwt.log_in().await.unwrap_err();
    assert!(
        refused.to_string().contains("pre-authorize the user"),
        "{refused}"
    );

    let org = Org::new();
    org.limit_logins(0);
    let flow = soap(&org).security_token(org.security_token());
    let refused = flow.log_in().await.unwrap_err();
    assert!(!refused.is_terminal());
    assert_eq!(
        refused.retry_after().map(|pause| pause.as_secs()),
        Some(3600)
    );
    let flow = password(&org).security_token(org.security_token());
    let refused = flow.log_in().await.unwrap_err();
    assert!(!refused.is_terminal(), "{refused}");
    assert_eq!(
        refused.retry_after().map(|pause| pause.as_secs()),
        Some(3600)
    );
}

#[tokio::test]
async fn a_parameter_set_twice_is_sent_once() {
    let org = Org::new();
    org.trust_subject_token("eyJ.subject.token");
    let (client, token) = (org.clone(), "eyJ.subject.token");
    let exchange = TokenExchange::new(client, app(&org), token, SubjectTokenType::Jwt);
    // The org refuses a repeated parameter.
    let exchange = exchange.scope("full").scope("api");
    let session = exchange.log_in().await.unwrap();
    assert_eq!(session.scope(), Some("api"));
}

#[tokio::test]
async fn a_flow_works_in_an_arc_and_in_a_cloned_service() {
    let org = Org::new();
    let flow = Arc::new(ClientCredentials::new(org.clone(), app(&org)));
    assert!(flow.describe(&first_login()).is_some());
    assert_eq!(
        Arc::clone(&flow).describe(&first_login()),
        ClientCredentials::clone(&flow).describe(&first_login())
    );
    let service = from_service(tower::service_fn(move |context| {
        let flow = Arc::clone(&flow);
        async move { flow.refresh(context).await }
    }));
    for layer in [
        SalesforceAuthLayer::new(service.clone()),
        SalesforceAuthLayer::new(Arc::new(service)),
    ] {
        let (status, _) = get_limits(&layer, &org).await.unwrap();
        assert_eq!(status, StatusCode::OK);
    }
    assert_eq!(org.counters().token_requests, 2);
}

#[tokio::test]
async fn a_login_without_a_layer_has_the_context_of_a_first_one() {
    let org = Org::new();
    let flow = Arc::new(ClientCredentials::new(org.clone(), app(&org)));
    let login = {
        let flow = Arc::clone(&flow);
        move |context: RefreshContext| {
            assert_eq!(context.reason(), RefreshReason::FirstLogin);
            assert_eq!(context.attempt(), 1);
            assert!(context.previous().is_none() && context.refresh_token().is_none());
            assert!(!context.has_spent_refresh_token());
            let flow = Arc::clone(&flow);
            async move { flow.refresh(context).await }
        }
    };
    for session in [login.log_in().await, flow.log_in().await] {
        let layer = SalesforceAuthLayer::fixed(session.unwrap());
        let (status, _) = get_limits(&layer, &org).await.unwrap();
        assert_eq!(status, StatusCode::OK);
    }
    assert_eq!(login_calls(&org), 2);
}
