//! Answers that mislead: echoes, envelopes, gateways and placeholders.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use tower::service_fn;
use tower_salesforce_auth::{
    LoginUrl, RefreshError, RefreshErrorKind, RefreshFn, Secret, Session,
    flow::{RefreshToken, SoapLogin, UsernamePassword},
    oauth::{self, App},
};

use crate::support::answering;

const MY_DOMAIN: &str = "https://acme.my.salesforce.com";
const TOKENS: &str = r#"{"access_token":"00Dxx0000001gEF!AQEAQtoken","refresh_token":"5Aep862","instance_url":"https://acme.my.salesforce.com","token_type":"Bearer","issued_at":"1700000000000"}"#;

fn app() -> App {
    App::new(MY_DOMAIN.parse().unwrap(), "3MVG9key")
}
async fn refreshed(status: u16, body: impl Into<Bytes>) -> Result<Session, RefreshError> {
    RefreshToken::new(answering(status, &[], body), app(), "5Aep861")
        .log_in()
        .await
}

fn refresh_token(session: &Session) -> Option<&str> {
    session.refresh_token().map(Secret::expose)
}

const REFUSAL: &str =
    r#"{"error":"invalid_grant","error_description":"expired access/refresh token"}"#;

/// What a server says of the request, with the token that was presented.
const ECHO: &str = r#"{"grant_type":"refresh_token","refresh_token":"5Aep861"}"#;

fn repeating(answer: &str) -> Vec<String> {
    vec![
        format!("{{\"request\":{ECHO},\"response\":{answer}}}"),
        format!("{{\"response\":{answer},\"request\":{ECHO}}}"),
        format!("[{ECHO},{answer}]"),
        format!("{ECHO}\n{answer}"),
        format!("{answer}\n{ECHO}"),
        format!("{{\"request\":{ECHO},bad,\"response\":{answer}}}"),
        format!("grant_type=refresh_token&refresh_token=5Aep861\r\n\r\n{answer}"),
    ]
}

/// The answer as a JSON string, alone or as the `body` that a gateway passes on.
fn in_a_string(answer: &str) -> Vec<String> {
    let text = serde_json::to_string(answer).unwrap();
    let slashes = text.replace('/', "\\/");
    vec![
        text.clone(),
        slashes.clone(),
        format!("{{\"statusCode\":200,\"body\":{text}}}"),
        format!("{{\"body\":{slashes},\"headers\":{{}}}}"),
        format!("[{{\"message\":{text}}}]"),
    ]
}

#[tokio::test]
async fn r39_a_repeated_request_hides_no_token_and_no_refusal() {
    for body in [repeating(TOKENS), in_a_string(TOKENS)].concat() {
        let session = refreshed(200, body.clone()).await.expect(&body);
        assert_eq!(refresh_token(&session), Some("5Aep862"), "{body}");
        assert_eq!(
            session.access_token().expose(),
            "00Dxx0000001gEF!AQEAQtoken"
        );
    }
    for body in [repeating(REFUSAL), in_a_string(REFUSAL)].concat() {
        let error = refreshed(400, body.clone()).await.unwrap_err();
        assert!(error.is_terminal(), "{body}: {error}");
        assert_eq!(error.error_code(), Some("invalid_grant"), "{body}");
        assert_eq!(error.rotated_refresh_token(), None, "{body}");
    }
    for (status, body) in [
        (200, "Bad: grant_type=refresh_token&refresh_token=5Aep861&x"),
        (502, "grant_type=refresh_token&refresh_token=5Aep861&x"),
        (503, ECHO),
    ] {
        let error = refreshed(status, body).await.unwrap_err();
        assert!(!error.is_terminal(), "{body}: {error}");
        assert_eq!(error.rotated_refresh_token(), None, "{body}");
    }
}

#[tokio::test]
async fn r39_a_word_for_nothing_is_no_token_and_no_error() {
    for word in ["null", "undefined", "None", "nil", "NaN", "false", "0"] {
        let session = refreshed(200, TOKENS.replace("5Aep862", word))
            .await
            .unwrap();
        assert_eq!(refresh_token(&session), Some("5Aep861"), "{word}");
        for field in ["refresh_token", "access_token", "error"] {
            for body in [
                TOKENS.replacen('{', &format!("{{\"{field}\":\"{word}\","), 1),
                TOKENS.replace("\"}", &format!("\",\"{field}\":\"{word}\"}}")),
            ] {
                let session = refreshed(200, body.clone()).await.expect(&body);
                assert_eq!(refresh_token(&session), Some("5Aep862"), "{body}");
            }
        }
    }
}

#[tokio::test]
async fn r39_the_message_of_a_gateway_is_no_refusal_of_the_grant() {
    for (status, body) in [
        (
            503,
            r#"{"message":"no upstream, see https://status.example.com"}"#,
        ),
        (
            503,
            r#"{"error_description":"see https://status.example.com"}"#,
        ),
        (502, r#"{"message":"Proxy authentication failure"}"#),
        (403, r#"{"message":"audience not allowed"}"#),
        (500, r#"{"message":"IP restricted"}"#),
        (408, r#"{"status":408,"error":"Request Timeout"}"#),
        (421, r#"{"error":"Misdirected Request"}"#),
    ] {
        let error = refreshed(status, body).await.unwrap_err();
        assert!(!error.is_terminal(), "{body}: {error}");
    }
}

#[tokio::test]
async fn r39_the_scripts_of_a_page_hold_no_tokens() {
    for script in [
        r#"{"access_token":"00Dxx!A","x":1}"#,
        r#"{"refresh_token":"of-the-page"}"#,
        r#"{"access_token":"a","refresh_token":"of-the-page"}"#,
        r#"{"instance_url":"https://acme.my.salesforce.com","refresh_token":"of-the-page"}"#,
    ] {
        for status in [200, 503] {
            let page = format!("<html><script>var config = {script};</script></html>");
            let error = refreshed(status, page).await.unwrap_err();
            assert!(!error.is_terminal(), "{script}: {error}");
            assert!(error.to_string().contains("HTML"), "{error}");
            assert_eq!(error.rotated_refresh_token(), None, "{script}");
        }
    }
    let page = format!("<html><body><pre>{TOKENS}</pre></body></html>");
    let session = refreshed(200, page).await.unwrap();
    assert_eq!(refresh_token(&session), Some("5Aep862"));
}

#[tokio::test]
async fn r17_a_refusal_that_repeats_its_new_tokens_is_redacted() {
    for body in [
        r#"{"error":"invalid_grant","error_description":"not 5Aep862-hush","refresh_token":"5Aep862-hush"}"#,
        r#"{"error":"5Aep862-hush","refresh_token":"5Aep862-hush"}"#,
        r#"{"error":"invalid_grant","error_description":"not 5Aep862-hush","access_token":"5Aep862-hush"}"#,
    ] {
        let error = refreshed(400, body).await.unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("5Aep862-hush"),
            "{error}"
        );
    }
}

/// Each would take hours if each byte were followed by a search of the rest.
#[tokio::test]
async fn r39_an_array_without_end_is_read_in_time() {
    for name in ["refresh_token", "error", "x"] {
        for filling in ["x", "é", "1", "-"] {
            let body = format!(
                "{{\"{name}\":[{}",
                filling.repeat(1_000_000 / filling.len())
            );
            assert!(refreshed(400, body).await.is_err());
        }
    }
}

#[tokio::test]
async fn r39_a_body_of_empty_frames_without_end_is_given_up() {
    let client = service_fn(|_: Request<Full<Bytes>>| async {
        let frames = stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::new())));
        Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
    });
    let error = RefreshToken::new(client, app(), "5Aep861").log_in().await;
    assert_eq!(error.unwrap_err().kind(), RefreshErrorKind::Transport);
}

// === Passwords ===

#[tokio::test]
async fn r39_a_soap_refusal_below_the_code_of_a_gateway_is_terminal() {
    let login_url: LoginUrl = MY_DOMAIN.parse().unwrap();
    for code in ["soap:Server", "Server", "soap:Client", "e:Receiver"] {
        let fault = format!(
            "<e:Envelope><e:Body><e:Fault><faultcode>{code}</faultcode><faultstring>INVALID_LOGIN: Invalid username, \
             password, security token; or user locked out.</faultstring></e:Fault></e:Body></e:Envelope>"
        );
        let flow = SoapLogin::new(answering(500, &[], fault), login_url.clone(), "u@x", "hush");
        let error = flow.log_in().await.unwrap_err();
        assert!(error.is_terminal(), "{code}: {error}");
        assert_eq!(error.error_code(), Some("INVALID_LOGIN"), "{code}");
    }
}

#[tokio::test]
async fn too_many_logins_wait_an_hour_unless_a_time_is_named() {
    const BODY: &str = r#"{"error":"invalid_grant","error_description":"login rate exceeded"}"#;
    for (value, seconds) in [("0", 3_600), ("-1", 3_600), ("soon", 3_600), ("60", 60)] {
        let client = service_fn(move |_: Request<Full<Bytes>>| async move {
            let response = Response::builder().status(400).header("retry-after", value);
            response.body(Full::new(Bytes::from(BODY)))
        });
        let flow = UsernamePassword::new(client, app(), "u@x", "hush");
        let error = flow.log_in().await.unwrap_err();
        let delay = Some(Duration::from_secs(seconds));
        assert_eq!(error.retry_after(), delay, "{value}");
    }
}

// === Calls ===

#[tokio::test]
async fn r39_an_object_without_a_user_is_no_identity() {
    let session = Session::new("00Dxx!AQEAQ", MY_DOMAIN).unwrap();
    let id = "https://login.salesforce.com/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS";
    let session = session.with_identity_url(id);
    for body in [
        "{}",
        r#"{"error":"x"}"#,
        r#"{"errorCode":"X","message":"m"}"#,
        r#"{"user_id":null}"#,
        "<html>{\"id\":\"x\"}</html>",
    ] {
        let identity = oauth::identity(answering(200, &[], body), &session).await;
        assert!(identity.is_err(), "{body}: {identity:?}");
        let user = oauth::userinfo(answering(200, &[], body), &session).await;
        assert!(user.is_err(), "{body}: {user:?}");
    }
}
