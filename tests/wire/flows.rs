//! The flows, against the org's token endpoint.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, service_fn};
use tower_salesforce_auth::{
    BoxError, Error, LoginUrl, RefreshContext, RefreshError, RefreshErrorKind, RefreshFn,
    RefreshReason, SalesforceAuthLayer, Session, SessionHandle,
    emulator::{Fault, Org},
    flow::{ClientCredentials, RefreshToken},
    oauth::App,
};

use crate::support::{
    LIMITS, Protocol, app, client, get, layer, refresh_token, send, token_client,
};

fn first_login() -> RefreshContext {
    RefreshContext::new(RefreshReason::FirstLogin)
}

#[tokio::test]
async fn r03_a_rotated_refresh_token_is_never_lost_or_used_twice() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    let layer = layer(&org, &grant);
    let client = client(&layer, Protocol::H2);
    let mut tokens = vec![grant.refresh_token().to_owned()];
    for _ in 0..50 {
        org.expire_sessions();
        let (status, ..) = send(&client, get(LIMITS)).await.unwrap();
        assert_eq!(status, StatusCode::OK);
        let live = layer.handle().current().unwrap();
        tokens.push(live.refresh_token().unwrap().expose().to_owned());
    }
    let counters = org.counters();
    assert_eq!((counters.token_requests, counters.tokens_issued), (50, 50));
    assert_eq!(counters.refresh_token_reuses, 0);
    tokens.dedup();
    assert_eq!(tokens.len(), 51, "each answer brought another");

    // An answer without one keeps the previous.
    org.rotate_refresh_tokens(false);
    for _ in 0..3 {
        org.expire_sessions();
        send(&client, get(LIMITS)).await.unwrap();
        let live = layer.handle().current().unwrap();
        assert_eq!(live.refresh_token().unwrap().expose(), tokens[50]);
    }
}

#[tokio::test]
async fn a_refusal_names_host_grant_code_and_remedy() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    let flow = refresh_token(&org, &grant);
    // error, description, is it terminal, what the message holds
    for (status, error, description, terminal, text) in [
        (
            400,
            "invalid_grant",
            "expired access/refresh token",
            true,
            "a new authorization is needed",
        ),
        (
            400,
            "invalid_grant",
            "token request is already being processed",
            false,
            "already being processed",
        ),
        (
            400,
            "invalid_client_id",
            "client identifier invalid",
            true,
            "check the consumer key",
        ),
        (
            400,
            "invalid_client",
            "invalid client credentials",
            true,
            "check the consumer secret",
        ),
        (400, "inactive_user", "", true, "inactive_user"),
        (
            400,
            "something_new",
            "nobody knows",
            true,
            "something_new (nobody knows)",
        ),
        (
            400,
            "unknown_error",
            "retry your request",
            false,
            "retry your request",
        ),
        (503, "something_new", "", false, "something_new"),
        (
            503,
            "invalid_grant",
            "expired access/refresh token",
            true,
            "expired",
        ),
        (
            400,
            "rate_limit_exceeded",
            "number of logins exceeded",
            false,
            "rate_limit_exceeded",
        ),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        org.on_token(Fault::refuse(status, error, description));
        let refused = flow.refresh(first_login()).await.unwrap_err();
        assert_eq!(refused.kind(), RefreshErrorKind::Refused, "{error}");
        assert_eq!(refused.error_code(), Some(error));
        assert_eq!(refused.is_terminal(), terminal, "{error}: {description}");
        let message = refused.to_string();
        assert!(
            message.starts_with("127.0.0.1 refused the refresh_token grant: "),
            "{message}"
        );
        assert!(message.contains(text), "{message}");
        let pause = (error == "rate_limit_exceeded").then_some(Duration::from_secs(3_600));
        assert_eq!(refused.retry_after(), pause);
    }
    org.on_token(Fault::refuse(
        StatusCode::BAD_REQUEST,
        "invalid_grant",
        "request not supported on this domain",
    ));
    let flow = ClientCredentials::new(token_client(), app(&org).client_secret("hush"));
    let refused = flow.refresh(first_login()).await.unwrap_err();
    assert!(refused.to_string().contains("My Domain"), "{refused}");

    org.on_token(Fault::Maintenance);
    let refused = flow.refresh(first_login()).await.unwrap_err();
    assert_eq!(refused.kind(), RefreshErrorKind::InvalidResponse);
    assert!(!refused.is_terminal());

    org.on_token(Fault::LoseAnswer);
    let lost = flow.refresh(first_login()).await.unwrap_err();
    assert_eq!(lost.kind(), RefreshErrorKind::Transport);
    assert!(!lost.is_terminal());
}

#[tokio::test]
async fn a_wrong_secret_is_sent_once() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let flow = ClientCredentials::new(token_client(), app(&org).client_secret("hush"));
    let client = client(&SalesforceAuthLayer::new(flow), Protocol::H2);
    let error = send(&client, get(LIMITS)).await.unwrap_err();
    let error: &Error = error.downcast_ref().unwrap();
    assert_eq!(
        error.refresh_error().unwrap().error_code(),
        Some("invalid_client")
    );
    assert_eq!(org.counters().token_requests, 1);
    assert!(!format!("{error:?}").contains("hush"));
}

/// A token endpoint that always answers the same.
fn answering(
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: impl Into<Bytes>,
) -> RefreshToken<
    impl tower::Service<
        Request<Full<Bytes>>,
        Response = Response<Full<Bytes>>,
        Error = BoxError,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static,
> {
    let body = body.into();
    let client = service_fn(move |_: Request<Full<Bytes>>| {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response
            .body(Full::new(body.clone()))
            .map_err(BoxError::from);
        async { response }
    });
    let app = App::new(LoginUrl::production(), "3MVG9").client_secret("SECRET-hush");
    RefreshToken::new(client, app, "REFRESH-hush")
}

#[tokio::test]
async fn a_token_response_without_a_session_is_invalid_and_unquoted() {
    for body in [
        "",
        "<html>We are down for maintenance.</html>",
        r#"{"access_token":"TOKEN-hush","instance_url":"#,
        r#"{"access_token":"TOKEN-hush"}"#,
        r#"{"instance_url":"https://example.my.salesforce.com"}"#,
        r#"{"access_token":{"TOKEN-hush":1},"instance_url":"https://example.my.salesforce.com"}"#,
        r#"["TOKEN-hush"]"#,
        r#"{"access_token":"TOKEN-hush","instance_url":"https://user:TOKEN-hush@example.my.salesforce.com"}"#,
        r#"{"access_token":"TOKEN-hush","instance_url":"http://example.my.salesforce.com"}"#,
        r#"{"access_token":"TOKEN-hush","instance_url":"https://example.my.salesforce.com","token_type":"DPoP"}"#,
        r#"{"access_token":"TOKEN hush","instance_url":"https://example.my.salesforce.com"}"#,
        "\u{feff}TOKEN-hush",
    ] {
        let error = answering(200, &[], body)
            .refresh(first_login())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::InvalidResponse, "{body}");
        assert!(
            error.to_string().contains("login.salesforce.com"),
            "{error}"
        );
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hush"), "{shown}");
    }

    // Too much to read.
    let body = vec![b' '; 64 * 1024 + 1];
    let error = answering(200, &[], body)
        .refresh(first_login())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RefreshErrorKind::Transport);

    // What is more than we need, or not worth a failure, is no failure. Of two fields of a name the last one counts.
    let body = r#"{"access_token":"a","access_token":"T1","instance_url":"https://example.my.salesforce.com",
        "scope":["api"],"id":{},"signature":7,"token_type":null,"expires_in":"soon"}"#;
    let session = answering(200, &[("content-type", "text/plain")], body)
        .refresh(first_login())
        .await
        .unwrap();
    assert_eq!(session.access_token().expose(), "T1");
    assert_eq!((session.scope(), session.lifetime()), (None, None));
    let body = r#"{"access_token":"T1","instance_url":"https://example.my.salesforce.com/","issued_at":1750000000123,
        "sfdc_site_id":null,"id":"https://login.salesforce.com/id/00Dxx/005xx","token_type":"bearer"}"#;
    let session = answering(200, &[], body)
        .refresh(first_login())
        .await
        .unwrap();
    assert_eq!(session.organization_id(), Some("00Dxx"));
    assert_eq!(session.refresh_token().unwrap().expose(), "REFRESH-hush");
    let issued_at = session
        .issued_at()
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH);
    assert_eq!(issued_at.unwrap().as_millis(), 1_750_000_000_123);
    for issued_at in ["\"1750000000123\"", "\"soon\"", "-1", "1e99", "{}"] {
        let body = format!(
            r#"{{"access_token":"T1","instance_url":"https://example.my.salesforce.com","issued_at":{issued_at}}}"#
        );
        let session = answering(200, &[], body)
            .refresh(first_login())
            .await
            .unwrap();
        assert_eq!(session.issued_at().is_some(), issued_at.starts_with("\"17"));
    }
}

#[tokio::test]
async fn r17_a_server_message_is_shown_with_secrets_redacted() {
    let body = r#"{"error":"invalid_grant","error_description":"REFRESH-hush is\nno token for SECRET-hush"}"#;
    let error = answering(400, &[("retry-after", "7")], body)
        .refresh(first_login())
        .await
        .unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hush"), "{shown}");
    assert!(
        error
            .to_string()
            .contains("[redacted] is no token for [redacted]"),
        "{error}"
    );
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    let long = format!(
        r#"{{"error":"x","error_description":"{}"}}"#,
        "y".repeat(60_000)
    );
    let error = answering(400, &[], long)
        .refresh(first_login())
        .await
        .unwrap_err();
    assert!(error.to_string().len() < 500);
}

#[tokio::test]
async fn r17_a_secret_repeated_in_another_form_is_redacted() {
    for (token, secret, echo, rest) in [
        ("5Aep861/+tok", "1955", "5Aep861%2F%2Btok", "Btok"),
        ("5Aep861", "5Aep861LONGER", "5Aep861LONGER", "LONGER"),
        ("a b", "1955", "a+b", "a+b"),
    ] {
        let client = service_fn(move |_: Request<Full<Bytes>>| async move {
            let body = format!(r#"{{"error":"invalid_grant","error_description":"bad: {echo}"}}"#);
            Response::builder()
                .status(400)
                .body(Full::<Bytes>::from(body))
        });
        let flow = RefreshToken::new(
            client,
            App::new(LoginUrl::production(), "id").client_secret(secret),
            token,
        );
        let error = flow.refresh(first_login()).await.unwrap_err();
        assert!(error.to_string().contains("bad: [redacted]"), "{error}");
        assert!(!format!("{error} {error:?}").contains(rest), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_of_the_token_endpoint_is_not_followed() {
    for status in [301, 302, 307, 308] {
        let headers = &[(
            "location",
            "https://example.my.salesforce.com/services/oauth2/token",
        )];
        let error = answering(status, headers, "")
            .refresh(first_login())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::InvalidResponse);
        assert!(error.is_terminal());
        assert!(
            error.to_string().contains("example.my.salesforce.com"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_refresh_fn_may_wrap_a_flow() {
    // To save the rotated token before anybody uses the session, for one.
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    let flow = Arc::new(refresh_token(&org, &grant));
    let saved = Arc::new(Mutex::new(Vec::new()));
    let layer = {
        let saved = saved.clone();
        SalesforceAuthLayer::new(move |context: RefreshContext| {
            let (flow, saved) = (flow.clone(), saved.clone());
            async move {
                let session = flow.refresh(context).await?;
                let token = session.refresh_token().cloned();
                saved.lock().unwrap().push(token);
                Ok::<Session, RefreshError>(session)
            }
        })
    };
    let (status, ..) = send(&client(&layer, Protocol::H2), get(LIMITS))
        .await
        .unwrap();
    assert_eq!(status, StatusCode::OK);
    let live = layer.handle().current().unwrap();
    assert_eq!(*saved.lock().unwrap(), [live.refresh_token().cloned()]);
    let _ = layer.layer(());
}

/// The server rotated, and the rest of its answer is no use.
#[tokio::test(start_paused = true)]
async fn r03_a_rotated_token_in_an_unusable_answer_is_not_lost() {
    let forms = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&forms);
    let client = service_fn(move |request: Request<Full<Bytes>>| {
        let log = Arc::clone(&log);
        async move {
            let form = request.into_body().collect().await.unwrap().to_bytes();
            log.lock()
                .unwrap()
                .push(String::from_utf8_lossy(&form).into_owned());
            Ok::<_, BoxError>(Response::new(Full::<Bytes>::from(
                r#"{"access_token":"A1","refresh_token":"R1","instance_url":"https://x.lightning.force.com","token_type":"Bearer"}"#,
            )))
        }
    });
    let app = App::new(LoginUrl::production(), "id");
    let handle = SessionHandle::new(RefreshToken::new(client, app, "R0"));
    let _ = handle.token().await;
    handle.reset();
    let _ = handle.token().await;
    let forms = forms.lock().unwrap();
    assert!(forms[1].contains("refresh_token=R1"), "{forms:?}");
}
