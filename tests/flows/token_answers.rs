//! Answers of the token endpoint, and the sessions and errors that a flow makes of them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::service_fn;
use tower_salesforce_auth::{
    BoxError, LoginUrl, RefreshError, RefreshErrorKind, RefreshFn, Secret, Session, SessionHandle,
    flow::{
        ClientCredentials, RefreshToken, SoapLogin, SubjectTokenType, TokenExchange,
        UsernamePassword,
    },
    oauth::App,
};

use crate::support::{answering, production_app};

/// A refresh by a token endpoint that always gives the same answer.
async fn refresh_from(
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: impl Into<Bytes>,
) -> Result<Session, RefreshError> {
    let app = production_app().client_secret("SECRET-hush");
    let flow = RefreshToken::new(answering(status, headers, body), app, "REFRESH-hush");
    flow.log_in().await
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
        let error = refresh_from(200, &[], body).await.unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::InvalidResponse, "{body}");
        assert!(
            error.to_string().contains("login.salesforce.com"),
            "{error}"
        );
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hush"), "{shown}");
    }

    // A body beyond the limit is not read to its end.
    let body = vec![b' '; 1024 * 1024 + 1];
    let error = refresh_from(200, &[], body).await.unwrap_err();
    assert_eq!(error.kind(), RefreshErrorKind::InvalidResponse);
    assert!(error.to_string().contains("too long"), "{error}");
    assert!(!error.is_terminal());

    // A mistyped optional field is ignored, and of two fields of the same name the last one counts.
    let body = r#"{"access_token":"a","access_token":"T1","instance_url":"https://example.my.salesforce.com",
        "scope":["api"],"id":{},"signature":7,"token_type":null,"expires_in":"soon"}"#;
    let session = refresh_from(200, &[("content-type", "text/plain")], body)
        .await
        .unwrap();
    assert_eq!(session.access_token().expose(), "T1");
    assert_eq!((session.scope(), session.lifetime()), (None, None));
    let body = r#"{"access_token":"T1","instance_url":"https://example.my.salesforce.com/","issued_at":1750000000123,
        "sfdc_site_id":null,"id":"https://login.salesforce.com/id/00Dxx/005xx","token_type":"bearer"}"#;
    let session = refresh_from(200, &[], body).await.unwrap();
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
        let session = refresh_from(200, &[], body).await.unwrap();
        assert_eq!(session.issued_at().is_some(), issued_at.starts_with("\"17"));
    }
}

#[tokio::test]
async fn r17_a_server_message_is_shown_with_secrets_redacted() {
    let body = r#"{"error":"invalid_grant","error_description":"REFRESH-hush is\nno token for SECRET-hush"}"#;
    let error = refresh_from(400, &[("retry-after", "7")], body)
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
    let error = refresh_from(400, &[], long).await.unwrap_err();
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
        let error = flow.log_in().await.unwrap_err();
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
        let error = refresh_from(status, headers, "").await.unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::InvalidResponse);
        assert!(error.is_terminal());
        assert!(
            error.to_string().contains("example.my.salesforce.com"),
            "{error}"
        );
    }
}

/// Redaction does not change the meaning of a refusal.
#[tokio::test]
async fn a_refusal_that_contains_a_secret_keeps_its_meaning() {
    let body = r#"{"error":"server_error","error_description":"retry"}"#;
    let flow = UsernamePassword::new(answering(400, &[], body), production_app(), "user", "error");
    let refused = flow.log_in().await.unwrap_err();
    assert_eq!(refused.error_code(), Some("server_error"));
    assert!(!refused.is_terminal());
    let body = r#"{"error":"invalid_request","error_description":"add refresh_token to the app"}"#;
    let flow = TokenExchange::new(
        answering(400, &[], body),
        production_app(),
        "T",
        SubjectTokenType::Jwt,
    );
    let refused = flow.scope("refresh_token").log_in().await.unwrap_err();
    assert!(
        refused.to_string().contains("add the scope refresh_token"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_error_body_with_status_200_is_an_error() {
    let body = r#"{"error":"server_error","error_description":"retry"}"#;
    let flow = ClientCredentials::new(answering(200, &[], body), production_app());
    let refused = flow.log_in().await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.is_terminal()),
        (RefreshErrorKind::Refused, false)
    );
    // The app's own secret is redacted too.
    let body = r#"{"error":"invalid_client","error_description":"SECRET-hush is wrong"}"#;
    let app = production_app().client_secret("SECRET-hush");
    let flow = ClientCredentials::new(answering(200, &[], body), app);
    let refused = flow.log_in().await.unwrap_err();
    assert!(refused.to_string().contains("[redacted]"), "{refused}");
    assert!(!refused.to_string().contains("hush"), "{refused}");
    // A refresh token in the error is kept.
    let body = r#"{"error":"server_error","refresh_token":"R1"}"#;
    let flow = RefreshToken::new(answering(200, &[], body), production_app(), "R0");
    let error = flow.log_in().await.unwrap_err();
    assert_eq!(error.rotated_refresh_token(), Some(&Secret::from("R1")));
    let body =
        "<Fault><faultcode>soapenv:Server</faultcode><faultstring>try later</faultstring></Fault>";
    let flow = SoapLogin::new(
        answering(500, &[], body),
        LoginUrl::production(),
        "user",
        "password",
    );
    assert!(!flow.log_in().await.unwrap_err().is_terminal());
}

/// The server has rotated, and the rest of its answer is unusable.
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
    let _ = handle.session().await;
    handle.reset();
    let _ = handle.session().await;
    let forms = forms.lock().unwrap();
    assert!(forms[1].contains("refresh_token=R1"), "{forms:?}");
}
