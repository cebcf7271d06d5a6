//! Revocation, introspection and logout authenticate the app as the flows do (RFC 7009 §2.1, RFC 7662 §2.1).

use std::collections::HashMap;

use tower_salesforce_auth::{
    Error, ErrorKind, LoginUrl, RefreshFn, Secret, Session, SessionHandle,
    emulator::Org,
    flow::{ClientCredentials, JwtBearer, RefreshToken},
    oauth::{self, App, ClientAuthentication},
};

use crate::support::{app, form_of, granted, key, public_app, recorded};

/// An org that takes no token from an app that does not authenticate.
fn strict() -> Org {
    let org = Org::new();
    org.require_authentication_to_revoke(true);
    org
}

/// The app with each way to authenticate, by the field or header that shows it.
fn apps(org: &Org) -> [(&'static str, App); 3] {
    let by = |authentication| public_app(org).client_authentication(authentication);
    let secret = org.client_secret();
    [
        ("client_secret", by(ClientAuthentication::secret(secret))),
        (
            "authorization",
            by(ClientAuthentication::secret_basic(secret)),
        ),
        (
            "client_assertion",
            by(ClientAuthentication::private_key_jwt(key(org))),
        ),
    ]
}

fn handle(org: &Org, app: App, session: Session) -> SessionHandle {
    let refresh_token = session.refresh_token().unwrap().clone();
    SessionHandle::builder(RefreshToken::new(org.clone(), app, refresh_token))
        .initial_session(session)
        .build()
}

#[tokio::test]
async fn each_authentication_of_an_app_revokes_and_introspects() {
    let org = strict();
    for (shown, app) in apps(&org) {
        let session = granted(&org);
        let (client, requests) = recorded(org.clone());
        let token = session.access_token();
        let before = oauth::introspect(client.clone(), &app, token)
            .await
            .unwrap();
        assert!(before.active, "{shown}");
        oauth::revoke(client.clone(), &app, token).await.unwrap();
        let after = oauth::introspect(client.clone(), &app, token)
            .await
            .unwrap();
        assert!(!after.active, "{shown}");
        for request in requests.take() {
            let fields: HashMap<_, _> = form_of(std::slice::from_ref(&request))
                .into_iter()
                .collect();
            let is_shown = fields.contains_key(shown) || request.headers().contains_key(shown);
            assert!(is_shown, "{shown}: {}", request.uri());
        }
    }
}

#[tokio::test]
async fn r30_logout_authenticates_the_app_of_its_flow() {
    for whole_grant in [false, true] {
        let org = strict();
        for (shown, app) in apps(&org) {
            let before = org.counters().tokens_revoked;
            let handle = handle(&org, app, granted(&org));
            if whole_grant {
                handle.logout_and_revoke(org.clone()).await.unwrap();
            } else {
                handle.logout(org.clone()).await.unwrap();
            }
            assert!(org.counters().tokens_revoked > before, "{shown}");
        }
    }
}

#[tokio::test]
async fn r30_logout_of_each_login_without_a_user_is_authenticated() {
    let org = strict();
    let app = app(&org);
    let by_secret = ClientCredentials::new(org.clone(), app.clone());
    let by_key = JwtBearer::new(org.clone(), app, org.username(), key(&org));
    for handle in [SessionHandle::new(by_secret), SessionHandle::new(by_key)] {
        handle.session().await.unwrap();
        let before = org.counters().tokens_revoked;
        handle.logout(org.clone()).await.unwrap();
        assert_eq!(org.counters().tokens_revoked, before + 1);
    }
}

#[tokio::test]
async fn a_public_app_revokes_with_its_client_id_alone() {
    let org = strict();
    org.require_secret(false);
    let (client, requests) = recorded(org.clone());
    let session = granted(&org);
    let token = session.access_token();
    oauth::revoke(client.clone(), &public_app(&org), token)
        .await
        .unwrap();
    let sent = form_of(&requests.take());
    let expected = [("token", token.expose()), ("client_id", org.client_id())];
    assert_eq!(
        sent,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    let handle = handle(&org, public_app(&org), granted(&org));
    handle.logout_and_revoke(client).await.unwrap();
    assert_eq!(org.counters().tokens_revoked, 2);
}

#[tokio::test]
async fn a_refused_app_is_told_and_the_logout_can_be_repeated() {
    let org = strict();
    let session = granted(&org);
    let wrong = app(&org).client_secret("hush");
    let error = oauth::revoke(org.clone(), &wrong, session.access_token())
        .await
        .unwrap_err();
    assert_eq!(error.error_code(), Some("invalid_client"));
    assert!(error.to_string().contains("token revocation"), "{error}");
    let error = oauth::introspect(org.clone(), &wrong, session.access_token())
        .await
        .unwrap_err();
    assert_eq!(error.error_code(), Some("invalid_client"));

    let handle = handle(&org, wrong, session);
    for _ in 0..2 {
        let error: Error = handle.logout_and_revoke(org.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Logout);
        let refusal = error.refresh_error().unwrap();
        assert_eq!(refusal.error_code(), Some("invalid_client"));
        assert!(!format!("{error} {error:?}").contains("hush"));
    }
    assert_eq!(org.counters().tokens_revoked, 0);
    // The server takes the token alone: the logout that was left ends it.
    org.require_authentication_to_revoke(false);
    handle.logout_and_revoke(org.clone()).await.unwrap();
    assert_eq!(org.counters().tokens_revoked, 1);
}

#[tokio::test]
async fn an_app_without_a_client_id_sends_the_token_alone() {
    let org = strict();
    let (client, requests) = recorded(org.clone());
    let app = App::new(org.login_url().parse().unwrap(), "").client_secret("hush");
    let token = Secret::from("5Aep861");
    let error = oauth::revoke(client.clone(), &app, &token)
        .await
        .unwrap_err();
    assert_eq!(error.error_code(), Some("invalid_client_id"), "{error}");
    assert_eq!(
        form_of(&requests.take()),
        [("token".to_owned(), "5Aep861".to_owned())]
    );
    // Introspection has no such form.
    assert!(oauth::introspect(client, &app, &token).await.is_err());
    assert_eq!(requests.take().len(), 0);
}

/// The session of another login server is ended there, without the client secret of the flow's app.
#[tokio::test]
async fn r30_logout_shows_another_server_no_secret() {
    let (org, flows) = (Org::new(), Org::new());
    let session = granted(&org).with_login_url(LoginUrl::sandbox());
    let (client, requests) = recorded(org.clone());
    for (_, app) in apps(&flows) {
        let handle = handle(&flows, app, session.clone());
        handle.logout_and_revoke(client.clone()).await.unwrap();
        for request in requests.take() {
            assert_eq!(request.uri().host(), Some("test.salesforce.com"));
            assert!(!request.headers().contains_key("authorization"));
            assert_eq!(form_of(&[request]).len(), 1);
        }
    }
}

/// A session by hand does not tell where it was obtained: its refresh token goes where a refresh would present it.
#[tokio::test]
async fn r30_logout_of_a_session_by_hand_is_authenticated() {
    let org = strict();
    let grant = org.authorize();
    let session = Session::new(grant.access_token(), grant.instance_url()).unwrap();
    let handle = handle(
        &org,
        app(&org),
        session.with_refresh_token(grant.refresh_token()),
    );
    handle.logout_and_revoke(org.clone()).await.unwrap();
    assert_eq!(org.counters().tokens_revoked, 1);

    // Without a flow, the instance gets the token alone.
    org.require_authentication_to_revoke(false);
    let grant = org.authorize();
    let session = Session::new(grant.access_token(), grant.instance_url()).unwrap();
    SessionHandle::fixed(session)
        .logout(org.clone())
        .await
        .unwrap();
    assert_eq!(org.counters().tokens_revoked, 2);
}

#[test]
fn a_function_and_a_shared_flow_tell_of_their_app() {
    let org = Org::new();
    let flow = std::sync::Arc::new(ClientCredentials::new(org.clone(), app(&org)));
    assert_eq!(flow.app().unwrap().client_id(), org.client_id());
    let function = |_: tower_salesforce_auth::RefreshContext| async {
        Session::new("00Dxx!AQEAQ", "https://example.my.salesforce.com")
            .map_err(tower_salesforce_auth::RefreshError::terminal)
    };
    assert!(function.app().is_none());
}
