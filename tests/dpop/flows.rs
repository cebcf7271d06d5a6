//! Every flow gets a bound session from an app that requires DPoP, and every call has a proof.

use http::{Method, StatusCode};
use tower_salesforce_auth::{
    RefreshContext, RefreshFn, SalesforceAuthLayer, Session, SessionHandle,
    emulator::Org,
    flow::{
        AuthorizationCode, ClientCredentials, DeviceAuthorization, ExtensionGrant, JwtBearer,
        RefreshToken, SamlBearer, SubjectTokenType, TokenExchange, UsernamePassword,
    },
    oauth::{self, App, AuthorizationUrl, Dpop, DpopKey, PendingAuthorization, PrivateKey},
    observer::RefreshReason,
};

use crate::support::{
    Proof, answer, app, app_per_grant, ath, bound_app, get, recorded, requiring_org, scripted,
    whole,
};

/// Has the user authorize the app.
async fn authorized(org: &Org, app: &App) -> Session {
    let flow = AuthorizationCode::new(org.clone(), app.clone(), org.redirect_uri());
    let request = flow.authorization_url().build().unwrap();
    let callback = org.approve(request.url()).unwrap();
    flow.exchange(request.pending(), &callback).await.unwrap()
}

#[tokio::test]
async fn r35_every_flow_gets_a_bound_session() {
    let org = requiring_org();
    org.require_security_token(false);
    org.trust_subject_token("eyJ.subject.token");
    let key = PrivateKey::from_pem(org.jwt_private_key()).unwrap();
    for (app, is_fixed) in [(bound_app(&org).0, true), (app_per_grant(&org), false)] {
        // The grants of new keys all meet a demand for a nonce.
        org.require_dpop_nonce(!is_fixed);
        let client = || org.clone();
        let jwt = JwtBearer::new(client(), app.clone(), org.username(), key.clone());
        let password = UsernamePassword::new(client(), app.clone(), org.username(), org.password());
        let kind = SubjectTokenType::Jwt;
        let exchange = TokenExchange::new(client(), app.clone(), "eyJ.subject.token", kind);
        let extension = ExtensionGrant::new(client(), app.clone(), "client_credentials");
        let sessions = [
            ClientCredentials::new(client(), app.clone()).log_in().await,
            jwt.log_in().await,
            password.log_in().await,
            exchange.log_in().await,
            extension.log_in().await,
            Ok(authorized(&org, &app).await),
        ];
        let mut thumbprints: Vec<_> = sessions
            .into_iter()
            .map(|session| session.unwrap().dpop_key().unwrap().thumbprint().to_owned())
            .collect();
        thumbprints.sort_unstable();
        thumbprints.dedup();
        assert_eq!(thumbprints.len(), if is_fixed { 1 } else { 6 });
    }
}

#[tokio::test]
async fn r35_a_saml_assertion_gets_a_bound_session() {
    let org = requiring_org();
    org.require_dpop_nonce(true);
    let assertion = format!(
        r#"<Assertion xmlns="urn:oasis:names:tc:SAML:2.0:assertion"><Subject><NameID>{}</NameID></Subject></Assertion>"#,
        org.username()
    );
    let flow = || {
        SamlBearer::new(
            org.clone(),
            org.login_url().parse().unwrap(),
            assertion.clone(),
        )
    };
    let error = flow().log_in().await.unwrap_err();
    assert!(error.to_string().contains("SamlBearer::dpop"), "{error}");
    let key = DpopKey::generate().unwrap();
    let session = flow().dpop(key.clone()).log_in().await.unwrap();
    assert_eq!(session.dpop_key(), Some(&key));
    let session = flow().dpop(Dpop::per_grant()).log_in().await.unwrap();
    assert!(session.dpop_key().is_some_and(|made| *made != key));
}

#[tokio::test(start_paused = true)]
async fn r35_a_device_gets_a_bound_session() {
    let org = requiring_org();
    org.require_dpop_nonce(true);
    let flow = DeviceAuthorization::new(org.clone(), bound_app(&org).0);
    let code = flow.begin().await.unwrap();
    assert!(org.approve_device(code.user_code()));
    let session = flow.wait(&code).await.unwrap();
    assert!(session.dpop_key().is_some());
}

#[tokio::test]
async fn r35_each_call_has_a_proof_of_its_own() {
    let org = requiring_org();
    let (client, requests) = recorded(org.clone());
    let (app, key) = bound_app(&org);
    let session = authorized(&org, &app).await;
    let flow = RefreshToken::new(client.clone(), app.clone(), "none");
    let context = RefreshContext::new(RefreshReason::Manual)
        .with_refresh_token(session.refresh_token().unwrap().clone())
        .with_dpop_key(key.clone());
    let session = flow.refresh(context).await.unwrap();
    let token = session.access_token().clone();
    oauth::identity(client.clone(), &session).await.unwrap();
    oauth::userinfo(client.clone(), &session).await.unwrap();
    let known = oauth::introspect(client.clone(), &app, &token).await;
    assert!(known.unwrap().active);
    let layer = SalesforceAuthLayer::fixed(session);
    assert_eq!(get(&layer, whole(client.clone())).await, StatusCode::OK);
    oauth::revoke(client.clone(), &app, &token).await.unwrap();

    let mut ids = std::collections::HashSet::new();
    let expected = [
        ("/services/oauth2/token", Method::POST, false),
        ("/id/00D", Method::GET, true),
        ("/services/oauth2/userinfo", Method::GET, true),
        ("/services/oauth2/introspect", Method::POST, false),
        ("/services/data/v66.0/limits", Method::GET, true),
        ("/services/oauth2/revoke", Method::POST, false),
    ];
    let requests = requests.take();
    assert_eq!(requests.len(), expected.len());
    for (request, (path, method, has_token)) in requests.iter().zip(expected) {
        assert!(request.uri().path().starts_with(path), "{request:?}");
        assert_eq!(request.method(), method);
        let proof = Proof::of(request.headers());
        assert_eq!(proof.thumbprint, key.thumbprint());
        assert_eq!(proof.claim("htm"), method.as_str());
        assert_eq!(proof.claim("htu"), request.uri().to_string());
        assert!(proof.claims["iat"].as_u64().is_some());
        assert!(ids.insert(proof.claim("jti").to_owned()));
        let authorization = request.headers().get("authorization");
        if has_token {
            assert_eq!(proof.claim("ath"), ath(token.expose()));
            let expected = format!("DPoP {}", token.expose());
            assert_eq!(authorization.unwrap(), expected.as_str());
        } else {
            assert!(proof.claims.get("ath").is_none());
        }
    }
    let counters = org.counters();
    assert_eq!(
        (counters.dpop_proofs_refused, counters.dpop_nonces_demanded),
        (0, 0)
    );
}

#[tokio::test]
async fn r35_without_dpop_no_request_is_changed() {
    let org = Org::new();
    let (client, requests) = recorded(org.clone());
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(client.clone(), app(&org)));
    assert_eq!(get(&layer, whole(client)).await, StatusCode::OK);
    let session = layer.handle().try_session().unwrap();
    let bearer = format!("Bearer {}", session.access_token().expose());
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}",
        org.client_id(),
        org.client_secret()
    );
    let expected = [
        (
            vec![
                ("accept", "application/json"),
                ("content-type", "application/x-www-form-urlencoded"),
            ],
            form.as_str(),
        ),
        (vec![("authorization", bearer.as_str())], ""),
    ];
    let requests = requests.take();
    assert_eq!(requests.len(), expected.len());
    for (request, (headers, body)) in requests.iter().zip(expected) {
        let mut found: Vec<_> = request.headers().iter().collect();
        found.sort_by_key(|(name, _)| name.as_str());
        assert!(
            found
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes()))
                .eq(headers
                    .iter()
                    .map(|(name, value)| (*name, value.as_bytes())))
        );
        assert_eq!(request.body(), body);
    }
}

#[tokio::test]
async fn r35_a_code_is_bound_to_the_key_of_its_authorization() {
    let org = Org::new();
    let app = app_per_grant(&org);
    let flow = AuthorizationCode::new(org.clone(), app.clone(), org.redirect_uri());
    let request = flow.authorization_url().build().unwrap();
    let key = request.pending().dpop_key().unwrap();
    let jkt = format!("&dpop_jkt={}", key.thumbprint());
    assert!(request.url().ends_with(&jkt), "{}", request.url());

    // The key is one of the secrets to keep.
    let pending = request.pending();
    let (state, verifier) = (pending.state().clone(), pending.code_verifier().clone());
    let restored = PendingAuthorization::new(state.clone(), verifier.clone()).unwrap();
    let callback = org.approve(request.url()).unwrap();
    let error = flow.exchange(&restored, &callback).await.unwrap_err();
    assert_eq!(error.error_code(), Some("invalid_dpop_proof"));

    let request = flow.authorization_url().build().unwrap();
    let pending = request.pending();
    let (state, verifier) = (pending.state().clone(), pending.code_verifier().clone());
    let pem = pending.dpop_key().unwrap().to_pem();
    let restored = PendingAuthorization::new(state, verifier).unwrap();
    let restored = restored.with_dpop_key(DpopKey::from_pem(pem.expose()).unwrap());
    assert_eq!(restored, *pending);
    let callback = org.approve(request.url()).unwrap();
    assert!(flow.exchange(&restored, &callback).await.is_ok());
}

#[tokio::test]
async fn r35_a_key_of_the_app_needs_no_place_of_its_own() {
    let org = requiring_org();
    let (app, key) = bound_app(&org);
    let uri = org.redirect_uri();
    let request = AuthorizationUrl::new(&app, &uri).build().unwrap();
    assert!(request.url().contains(key.thumbprint()));
    assert_eq!(request.pending().dpop_key(), None);
    assert_eq!(authorized(&org, &app).await.dpop_key(), Some(&key));
}

#[test]
fn r35_the_url_takes_no_other_thumbprint() {
    let org = Org::new();
    let (app, _) = bound_app(&org);
    let uri = org.redirect_uri();
    let url = AuthorizationUrl::new(&app, &uri).parameter("dpop_jkt", "another");
    assert!(url.build().unwrap_err().to_string().contains("dpop_jkt"));
}

#[test]
fn r35_a_login_cookie_keeps_the_key_of_its_authorization() {
    use http::{HeaderMap, header::COOKIE};
    use std::time::SystemTime;
    use tower_salesforce_auth::{oauth::LoginCookie, store::EncryptionKey};
    let org = Org::new();
    let app = app_per_grant(&org);
    let uri = org.redirect_uri();
    let cookie = LoginCookie::new(EncryptionKey::new([7; 32]), &uri);
    let url = AuthorizationUrl::new(&app, &uri).state("a state\nwith lines");
    let (_, pending) = url.build().unwrap().into_parts();
    let now = SystemTime::UNIX_EPOCH;
    let set = cookie.set(&pending, now).unwrap();
    let value = set
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let headers = HeaderMap::from_iter([(COOKIE, value)]);
    let read = cookie.read(&headers, now).unwrap();
    assert_eq!(read, pending);
    assert_eq!(read.dpop_key(), pending.dpop_key());
    assert!(read.dpop_key().is_some());
}

#[tokio::test]
async fn r35_a_bearer_grant_is_migrated_by_an_authorization() {
    let org = Org::new();
    let bearer = authorized(&org, &app(&org)).await;
    assert_eq!(bearer.dpop_key(), None);
    let bound = app_per_grant(&org);
    let flow = RefreshToken::new(org.clone(), bound.clone(), "none");
    let handle = SessionHandle::builder(flow).initial_session(bearer).build();
    // A refresh leaves the grant what it is.
    let session = handle.refresh().await.unwrap();
    assert_eq!(session.dpop_key(), None);
    handle.set(authorized(&org, &bound).await);
    let session = handle.refresh().await.unwrap();
    assert!(session.dpop_key().is_some());
    let layer = SalesforceAuthLayer::from(handle);
    assert_eq!(get(&layer, whole(org)).await, StatusCode::OK);
}

#[tokio::test]
async fn r35_a_logout_proves_its_revocations() {
    let org = requiring_org();
    let app = app_per_grant(&org);
    let session = authorized(&org, &app).await;
    let thumbprint = session.dpop_key().unwrap().thumbprint().to_owned();
    let (client, requests) = recorded(org.clone());
    let flow = RefreshToken::new(org.clone(), app, "none");
    let handle = SessionHandle::builder(flow)
        .initial_session(session)
        .build();
    org.require_dpop_nonce(true);
    handle.logout_and_revoke(client).await.unwrap();
    assert_eq!(org.counters().tokens_revoked, 1);
    let requests = requests.take();
    assert_eq!(requests.len(), 2, "one more for the nonce");
    for request in requests {
        assert_eq!(Proof::of(request.headers()).thumbprint, thumbprint);
    }
}

#[tokio::test]
async fn r35_a_server_may_know_itself_by_another_url() {
    let org = Org::new();
    let dpop = Dpop::per_grant().htu(format!("{}/services", org.login_url()), "https://inside/a");
    let app = app(&org).dpop(dpop);
    let (client, requests) = recorded(org.clone());
    let error = ClientCredentials::new(client, app)
        .log_in()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("htu is not the URI"), "{error}");
    let proof = Proof::of(requests.take()[0].headers());
    assert_eq!(proof.claim("htu"), "https://inside/a/oauth2/token");
}

#[tokio::test]
async fn r35_the_token_type_decides_in_any_case() {
    for (token_type, is_bound) in [
        (r#""DPoP""#, Some(true)),
        (r#""dpop""#, Some(true)),
        (r#""DPOP""#, Some(true)),
        (r#""Bearer""#, Some(false)),
        (r#""bearer""#, Some(false)),
        ("null", Some(false)),
        (r#""""#, Some(false)),
        (r#""mac""#, None),
        (r#""DPoP, Bearer""#, None),
    ] {
        let body = format!(
            r#"{{"access_token":"T0","instance_url":"https://a.my.salesforce.com","token_type":{token_type}}}"#
        );
        let (server, _) = scripted(move |_, _| answer(200, &[], &body));
        let session = ClientCredentials::new(server, bound_app(&Org::new()).0)
            .log_in()
            .await;
        let found = session.ok().map(|session| session.dpop_key().is_some());
        assert_eq!(found, is_bound, "{token_type}");
    }
}

#[tokio::test]
async fn r35_a_kept_refresh_token_needs_the_key_of_the_app() {
    let org = requiring_org();
    let (app, key) = bound_app(&org);
    let token = authorized(&org, &app)
        .await
        .refresh_token()
        .unwrap()
        .clone();
    let flow = RefreshToken::new(org.clone(), app_per_grant(&org), token.clone());
    let error = flow.log_in().await.unwrap_err();
    assert_eq!(error.error_code(), Some("invalid_dpop_proof"));
    assert!(
        error.to_string().contains("bound to another key"),
        "{error}"
    );
    // The refusal has not used it up.
    let session = RefreshToken::new(org.clone(), app, token)
        .log_in()
        .await
        .unwrap();
    assert_eq!(session.dpop_key(), Some(&key));
    assert_eq!(org.counters().refresh_token_reuses, 0);
}
