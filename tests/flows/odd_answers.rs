//! Odd answers of the token endpoint: what can be read of them decides.

use std::{io::Write, time::Duration};

use bytes::Bytes;
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use tower_salesforce_auth::{
    LoginUrl, RefreshError, RefreshErrorKind, RefreshFn, Secret, Session,
    flow::{ClientCredentials, ExtensionGrant, RefreshToken, UsernamePassword},
    oauth::{App, TokenResponse},
};

use crate::support::{Ending, answering, answering_in_pieces};

const MY_DOMAIN: &str = "https://acme.my.salesforce.com";

/// A token response with a rotated refresh token.
const TOKENS: &str = r#"{"access_token":"00Dxx0000001gEF!AQEAQtoken","refresh_token":"5Aep862","instance_url":"https://acme.my.salesforce.com","id":"https://login.salesforce.com/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS","token_type":"Bearer","issued_at":"1700000000000"}"#;

const REFUSAL: &str = r#"{"error":"invalid_grant","error_description":"authentication failure"}"#;

fn app() -> App {
    App::new(MY_DOMAIN.parse().unwrap(), "3MVG9key")
}

type Headers = &'static [(&'static str, &'static str)];

async fn refreshed(
    status: u16,
    headers: Headers,
    body: impl Into<Bytes>,
) -> Result<Session, RefreshError> {
    RefreshToken::new(answering(status, headers, body), app(), "5Aep861")
        .log_in()
        .await
}

fn refresh_token(result: &Result<Session, RefreshError>) -> Option<&str> {
    let token = match result {
        Ok(session) => session.refresh_token(),
        Err(error) => error.rotated_refresh_token(),
    };
    token.map(Secret::expose)
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn utf_16(text: &str, mark: bool, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let mark = mark.then_some(0xfeff);
    let units = mark.into_iter().chain(text.encode_utf16());
    units.flat_map(unit).collect()
}

/// The text in every form that servers and what stands before them have been seen to send.
fn dressed(text: &str) -> Vec<(Headers, Vec<u8>)> {
    let latin_1 = text.replacen('{', "{\"name\":\"Zo\u{1}\",", 1);
    let latin_1: Vec<u8> = latin_1
        .bytes()
        .map(|byte| if byte == 1 { 0xeb } else { byte })
        .collect();
    let with = |text: String| (&[][..], text.into_bytes());
    vec![
        with(text.to_owned()),
        with(format!("\u{feff}{text}")),
        with(format!("\u{feff}\u{feff} \r\n{text}")),
        with(format!("\u{200b}\0{text}\0")),
        with(format!(")]}}',\n{text}")),
        with(format!("callback({text});")),
        with(format!("{text}{text}")),
        with(format!("{text}\n<!-- proxy -->")),
        with(format!("{text}}}]")),
        with(format!("[{text}]")),
        with(format!("{{\"data\":{text},\"status\":1}}")),
        with(format!("{{}}{text}")),
        with(text.replace("\",\"", "\",\r\n\t\u{b}\"")),
        with(text.replace("\",\"", "\",\u{1}\u{0}\u{feff}\"")),
        with(text.replace("\",\"", "\",,\"")),
        with(text.replace("\",\"", "\"\"")),
        with(text.replace("\"}", "\",}")),
        with(text.replacen('{', "{\"name\":\"a\u{1}b\nc\",", 1)),
        with(text.replacen('{', "{\"name\":\"a \"quoted\" word\",", 1)),
        with(text.replacen('{', "{\"name\":\"\\x \\ud800 \\u12\",", 1)),
        with(text.replacen('{', "{\"name\":NaN,\"more\":undefined,\"last\":+1,", 1)),
        with(text.replacen(
            '{',
            "{\"deep\":[[[{\"error\":{\"access_token\":[1]}}]]],",
            1,
        )),
        (&[], latin_1.clone()),
        (
            &[("content-type", "application/json;charset=UTF-8")],
            latin_1.clone(),
        ),
        (
            &[("content-type", "application/json; charset=ISO-8859-1")],
            latin_1.clone(),
        ),
        (
            &[("content-type", "application/json; charset=Shift_JIS")],
            latin_1,
        ),
        (&[("content-type", "text/html")], text.as_bytes().to_vec()),
        (
            &[("content-type", "application/json; charset=utf-16")],
            text.as_bytes().to_vec(),
        ),
        (&[], [b"\xff\xfe", text.as_bytes()].concat()),
        (&[], utf_16(text, true, u16::to_le_bytes)),
        (&[], utf_16(text, true, u16::to_be_bytes)),
        (&[], utf_16(text, false, u16::to_le_bytes)),
        (
            &[("content-type", "application/json")],
            utf_16(text, false, u16::to_be_bytes),
        ),
        (&[("content-encoding", "gzip")], gzip(text)),
        (&[("content-encoding", "x-gzip")], gzip(text)),
        (&[], gzip(text)),
        (&[("content-encoding", "deflate")], zlib(text)),
        (&[("content-encoding", "gzip")], text.as_bytes().to_vec()),
        (
            &[("content-encoding", "identity")],
            text.as_bytes().to_vec(),
        ),
    ]
}

// === What can be read decides ===

#[tokio::test]
async fn r39_tokens_in_any_dress_are_kept() {
    for (headers, body) in dressed(TOKENS) {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let session = refreshed(200, headers, body.clone()).await;
        match &session {
            Ok(session) => assert_eq!(
                session.access_token().expose(),
                "00Dxx0000001gEF!AQEAQtoken",
                "{shown}"
            ),
            Err(error) => panic!("{headers:?} {shown}: {error}"),
        }
        assert_eq!(refresh_token(&session), Some("5Aep862"), "{shown}");
    }
}

#[tokio::test]
async fn r39_a_refusal_in_any_dress_is_a_refusal() {
    for (headers, body) in dressed(REFUSAL) {
        for status in [400, 401, 403, 200, 500] {
            let shown = String::from_utf8_lossy(&body).into_owned();
            let error = refreshed(status, headers, body.clone()).await.unwrap_err();
            assert!(error.is_terminal(), "{status} {headers:?} {shown}: {error}");
            assert_eq!(error.error_code(), Some("invalid_grant"), "{shown}");
            assert!(error.to_string().contains("do not repeat"), "{error}");
        }
    }
}

#[tokio::test]
async fn r39_a_refusal_of_another_shape_is_a_refusal() {
    for body in [
        r#"{"error":"invalid_grant","error_description":null}"#,
        r#"{"error":"invalid_grant","error_description":[]}"#,
        r#"{"error":"invalid_grant","error_description":["expired access/refresh token"]}"#,
        r#"{"error":"invalid_grant","error_description":{"message":"no"}}"#,
        r#"{"error":"invalid_grant","error_description":42}"#,
        r#"{"error":"invalid_grant","error_description":"a "quoted" word"}"#,
        r#"{"error":["invalid_grant"]}"#,
        r#"{"error":{"error":"invalid_grant","error_description":"no"}}"#,
        r#"{"error":{"code":"invalid_grant","message":"no"}}"#,
        r#"{"error":" invalid_grant\n"}"#,
        r#"{"error":"invalid_grant","error":null}"#,
        r#"{"error":null,"error":"invalid_grant"}"#,
        r#"{"error":"invalid_grant: expired access/refresh token"}"#,
        r#"{"error":null,"error_description":"expired access/refresh token"}"#,
        r#"{"error":42,"error_description":"authentication failure"}"#,
        r#"{"error_description":"authentication failure"}"#,
        "{'error':'invalid_grant'}",
        r#"{error:"invalid_grant"}"#,
        r#"{"error":invalid_grant}"#,
        r#""error":"invalid_grant","error_description":"no"}"#,
        r#"{"error":"invalid_grant","error_description":"cut of"#,
        r#"{"error":"invalid_grant","#,
        r#"{"error":"invalid_grant""#,
        "error=invalid_grant&error_description=expired%20access%2Frefresh%20token",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><OAuth><error>invalid_grant</error><error_description>no</error_description></OAuth>",
        "<OAuth><error>invalid_grant</error><error_description>A & B",
        "<html><body><pre>{\"error\":\"invalid_grant\",\"error_description\":\"no\"}</pre></body></html>",
    ] {
        let error = refreshed(400, &[], body).await.unwrap_err();
        assert!(error.is_terminal(), "{body}: {error}");
        assert_eq!(error.error_code(), Some("invalid_grant"), "{body}");
        assert_eq!(error.kind(), RefreshErrorKind::Refused, "{body}");
    }
}

/// One odd field costs that field.
#[tokio::test]
async fn r39_an_odd_field_of_a_token_response_costs_that_field() {
    for field in [
        r#""scope":null"#,
        r#""scope":["api"]"#,
        r#""token_type":null"#,
        r#""token_type":7"#,
        r#""token_type":"bearer ""#,
        r#""signature":null"#,
        r#""signature":"""#,
        r#""signature":{}"#,
        r#""issued_at":{}"#,
        r#""issued_at":1e999"#,
        r#""expires_in":null"#,
        r#""expires_in":-1"#,
        r#""expires_in":"soon""#,
        r#""expires_in":18446744073709551616"#,
        r#""id":42"#,
        r#""id_token":[]"#,
        r#""sfdc_site_url":false"#,
        r#""error":null"#,
        r#""error":"""#,
        r#""error":0"#,
        r#""error":false"#,
        r#""access_token":null"#,
        r#""access_token":"""#,
        r#""refresh_token":null"#,
        r#""refresh_token":[]"#,
        r#""instance_url":null"#,
        r#""instance_url":{}"#,
        r#""unknown":[{"a":[]}]"#,
    ] {
        for body in [
            TOKENS.replacen('{', &format!("{{{field},"), 1),
            TOKENS.replace("\"}", &format!("\",{field}}}")),
        ] {
            let session = refreshed(200, &[], body.clone()).await;
            assert!(session.is_ok(), "{body}: {session:?}");
            assert_eq!(refresh_token(&session), Some("5Aep862"), "{body}");
        }
    }
}

/// The tokens come, and the rest does not.
#[tokio::test]
async fn r39_an_answer_that_breaks_off_or_hangs_keeps_its_tokens() {
    let (start, end) = TOKENS.split_at(TOKENS.find(",\"token_type").unwrap());
    for ending in [Ending::Whole, Ending::BreaksOff] {
        for pieces in [vec![TOKENS], vec![start, end], vec![start]] {
            let client = answering_in_pieces(200, pieces.clone(), ending);
            let session = RefreshToken::new(client, app(), "5Aep861").log_in().await;
            assert!(session.is_ok(), "{ending:?} {pieces:?}: {session:?}");
            assert_eq!(refresh_token(&session), Some("5Aep862"));
        }
    }
    for pieces in [
        vec![start, end],
        vec!["\u{feff}", start, end],
        vec![start, end, "\n<!-- proxy -->"],
    ] {
        let client = answering_in_pieces(200, pieces, Ending::Hangs);
        let session = RefreshToken::new(client, app(), "5Aep861").log_in().await;
        assert_eq!(refresh_token(&session), Some("5Aep862"));
    }
    let client = answering_in_pieces(400, [REFUSAL], Ending::Hangs);
    let error = RefreshToken::new(client, app(), "5Aep861").log_in().await;
    assert_eq!(error.unwrap_err().error_code(), Some("invalid_grant"));
}

#[tokio::test]
async fn r39_what_is_missing_of_a_broken_off_answer_may_come_again() {
    for cut in 0..TOKENS.len() {
        let client = answering_in_pieces(200, [&TOKENS[..cut]], Ending::BreaksOff);
        let session = RefreshToken::new(client, app(), "5Aep861").log_in().await;
        let has_token = TOKENS[..cut].contains("\"5Aep862\"");
        match &session {
            Ok(session) => {
                assert_eq!(
                    session.access_token().expose(),
                    "00Dxx0000001gEF!AQEAQtoken"
                );
                assert_eq!(session.refresh_token().unwrap().expose(), "5Aep862");
            }
            // The next attempt presents the rotated token, if it came.
            Err(error) => {
                assert!(!error.is_terminal(), "{cut}: {error}");
                let rotated = error.rotated_refresh_token().map(Secret::expose);
                assert_eq!(rotated, has_token.then_some("5Aep862"), "{cut}: {error}");
            }
        }
    }
    for cut in REFUSAL.find("\",").unwrap() + 1..REFUSAL.len() {
        let client = answering_in_pieces(400, [&REFUSAL[..cut]], Ending::BreaksOff);
        let session = RefreshToken::new(client, app(), "5Aep861").log_in().await;
        let error = session.unwrap_err();
        assert!(error.is_terminal(), "{cut}: {error}");
        assert_eq!(error.error_code(), Some("invalid_grant"));
    }
}

#[tokio::test]
async fn r39_an_answer_that_is_too_long_keeps_its_tokens() {
    let id_token = "a".repeat(70_000);
    let front = format!("{{\"id_token\":\"{id_token}\",");
    let behind = TOKENS.replace("\"}", &format!("\",\"id_token\":\"{id_token}\"}}"));
    let much = "a".repeat(3_000_000);
    for body in [
        TOKENS.replacen('{', &front, 1),
        behind,
        format!("{TOKENS}{much}"),
        format!("{TOKENS}{}", " ".repeat(3_000_000)),
        TOKENS.replace("\"}", &format!("\",\"id_token\":\"{much}\"}}")),
    ] {
        let session = refreshed(200, &[], body).await;
        assert_eq!(refresh_token(&session), Some("5Aep862"), "{session:?}");
        assert!(session.is_ok());
    }
    let refusal = REFUSAL.replace("\"}", &format!("{much}\"}}"));
    let error = refreshed(400, &[], refusal).await.unwrap_err();
    assert_eq!(error.error_code(), Some("invalid_grant"));
    assert!(error.to_string().len() < 1_000);
}

#[tokio::test]
async fn r39_tokens_beside_an_error_or_a_bad_status_are_kept() {
    let with_error = TOKENS.replacen('{', "{\"error\":\"invalid_grant\",", 1);
    for (status, body) in [(200, &with_error), (400, &with_error), (500, &with_error)] {
        let error = refreshed(status, &[], body.clone()).await.unwrap_err();
        assert_eq!(error.error_code(), Some("invalid_grant"), "{status}");
        assert_eq!(error.rotated_refresh_token().unwrap().expose(), "5Aep862");
    }
    for status in [201, 400, 500, 503] {
        let session = refreshed(status, &[], TOKENS).await;
        assert_eq!(refresh_token(&session), Some("5Aep862"), "{status}");
        assert!(session.is_ok(), "{status}");
    }
    // Of another flow, and without an access token.
    let body = r#"{"error":"server_error","refresh_token":"5Aep862"}"#;
    let error = refreshed(500, &[], body).await.unwrap_err();
    assert!(!error.is_terminal());
    assert_eq!(error.rotated_refresh_token().unwrap().expose(), "5Aep862");
}

/// An answer that was made to be hard to read takes no longer than others of its length.
#[tokio::test]
async fn r39_a_hostile_answer_is_given_up_in_time() {
    for part in [
        "{",
        "[",
        "\"",
        "\\\"",
        "'",
        "\"a\":",
        "{\"a\":",
        "{\"a\":[",
        "\"a\":\"",
        "{}",
        "\\",
        "\\u",
        ",",
        "<a>",
        "<a/>",
        "&",
        "a=b&",
        "\"error\":",
        "\"error\":{",
        "\"error\",",
        "\u{feff}",
    ] {
        let body = part.repeat(20_000 / part.len());
        for start in ["", "{\"access_token\":", "{\"a\":\"b\" x ", "<"] {
            let error = refreshed(400, &[], format!("{start}{body}"))
                .await
                .unwrap_err();
            assert!(!error.to_string().is_empty(), "{part}");
        }
    }
}

// === What the error says ===

#[tokio::test]
async fn r39_the_error_names_what_was_odd() {
    const REST: &str =
        r#"[{"errorCode":"NOT_FOUND","message":"The requested resource does not exist"}]"#;
    const XML: &str = "<Errors><Error><errorCode>API_DISABLED_FOR_ORG</errorCode><message>No</message></Error></Errors>";
    const PAGE: &str = "\n<!DOCTYPE html><html><head><title>Down for\n maintenance</title></head><body><a href=\"/?error=x&amp;a=1\"></body></html>";
    for (status, headers, body, parts) in [
        (
            404,
            &[][..],
            REST,
            &["NOT_FOUND", "resource does not exist", "REST API"][..],
        ),
        (200, &[], REST, &["NOT_FOUND", "REST API"]),
        (403, &[], XML, &["API_DISABLED_FOR_ORG", "No", "REST API"]),
        (503, &[], PAGE, &["an HTML page, \"Down for maintenance\""]),
        (
            200,
            &[("content-type", "text/html")],
            PAGE,
            &["an HTML page"],
        ),
        (
            200,
            &[("content-encoding", "br")],
            "\u{b}\u{2}\0",
            &["compressed (br)"],
        ),
        (
            400,
            &[("content-encoding", "zstd")],
            "\u{b}\u{2}\0",
            &["compressed (zstd)"],
        ),
        (200, &[], "", &["an empty body"]),
        (400, &[], "Bad Request", &["neither JSON nor XML"]),
        (400, &[], "[]", &["JSON without"]),
        (400, &[], "<a/>", &["XML without"]),
    ] {
        let error = refreshed(status, headers, body).await.unwrap_err();
        let shown = error.to_string();
        for part in parts {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(shown.contains(&status.to_string()), "{shown}");
        assert!(!error.is_terminal(), "{shown}");
    }
    let gzip = [&gzip(TOKENS)[..10], b"\xff\xff\xff"].concat();
    let error = refreshed(200, &[], gzip).await.unwrap_err();
    assert!(error.to_string().contains("compressed (gzip)"), "{error}");
    let much = vec![b'x'; 3_000_000];
    let error = refreshed(200, &[], much).await.unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
    let client = answering_in_pieces(200, ["<html>"], Ending::BreaksOff);
    let error = RefreshToken::new(client, app(), "R").log_in().await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), RefreshErrorKind::Transport);
    assert!(error.to_string().contains("broke off"), "{error}");
    let error = refreshed(404, &[], REST).await.unwrap_err();
    assert_eq!(error.error_code(), Some("NOT_FOUND"));
}

#[tokio::test]
async fn r17_an_odd_answer_that_repeats_a_secret_is_redacted() {
    for body in [
        r#"[{"errorCode":"NOT_FOUND","message":"no 5Aep861-hush here"}]"#,
        r#"[{"errorCode":"5Aep861-hush","message":"no"}]"#,
        "<html><title>5Aep861-hush</title></html>",
        "5Aep861-hush",
        r#"{"error":["5Aep861-hush"]}"#,
        "<OAuth><error>invalid_grant</error><error_description>5Aep861-hush</error_description></OAuth>",
    ] {
        for status in [200, 400] {
            let flow = RefreshToken::new(answering(status, &[], body), app(), "5Aep861-hush");
            let error = flow.log_in().await.unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hush"), "{status} {body}: {shown}");
        }
    }
}

// === Passwords ===

async fn with_password(status: u16, headers: Headers, body: impl Into<Bytes>) -> RefreshError {
    let client = answering(status, headers, body);
    let flow = UsernamePassword::new(client, app(), "user@example.com", "hush-hush");
    flow.log_in().await.unwrap_err()
}

#[tokio::test]
async fn r39_a_refusal_of_a_password_that_is_garbled_is_terminal() {
    for status in [400, 401, 403, 404, 422] {
        for body in [
            "",
            "\u{b}\u{2}\0\u{3}",
            "Bad Request",
            "[]",
            "<a/>",
            "<html>no</html>",
            "{\"err",
        ] {
            let error = with_password(status, &[], body).await;
            assert!(error.is_terminal(), "{status} {body}: {error}");
            assert!(error.to_string().contains("lockout"), "{error}");
        }
    }
    // It may be a refusal, or a success.
    for status in [200, 500] {
        let error = with_password(status, &[], "\u{b}\u{2}\0\u{3}").await;
        assert!(error.is_terminal(), "{status}: {error}");
    }
    // The same by another flow with the parameter `password`.
    let flow = ExtensionGrant::new(answering(400, &[], "?"), app(), "password");
    let error = flow.parameter("password", "hush-hush").log_in().await;
    assert!(error.unwrap_err().is_terminal());
}

#[tokio::test]
async fn r39_a_page_or_an_overloaded_gateway_delays_a_password() {
    let five_minutes = Some(Duration::from_secs(300));
    for (status, headers, body, delay) in [
        (
            503,
            &[][..],
            "<html>Down for maintenance</html>",
            five_minutes,
        ),
        (503, &[("retry-after", "7")], "", five_minutes),
        (
            503,
            &[("retry-after", "700")],
            "",
            Some(Duration::from_secs(700)),
        ),
        (502, &[], "Bad Gateway", five_minutes),
        (504, &[], "", five_minutes),
        (429, &[], "slow down", five_minutes),
        (200, &[], "<html>Log in to the Wi-Fi</html>", five_minutes),
        (500, &[], "<html>", five_minutes),
        (
            302,
            &[("location", "https://portal.example.com")],
            "",
            five_minutes,
        ),
        (500, &[], r#"{"error":"something_new"}"#, five_minutes),
    ] {
        let error = with_password(status, headers, body).await;
        assert!(!error.is_terminal(), "{status} {body}: {error}");
        assert_eq!(error.retry_after(), delay, "{status} {body}: {error}");
    }
}

// === The fields of a session ===

fn session_of(body: &str) -> Result<Session, RefreshError> {
    let response: TokenResponse = serde_json::from_str(body).unwrap();
    response.into_session(&MY_DOMAIN.parse().unwrap())
}

#[test]
fn a_lifetime_may_be_written_in_many_ways() {
    for expires_in in [
        "7200",
        "\"7200\"",
        "7200.0",
        "\"7200.0\"",
        "7199.9",
        "\" 7200 \"",
        "7.2e3",
        "\"7200\\n\"",
    ] {
        let body = format!(
            r#"{{"access_token":"00Dxx!A","instance_url":"{MY_DOMAIN}","expires_in":{expires_in}}}"#
        );
        let lifetime = session_of(&body).unwrap().lifetime().unwrap_or_default();
        assert!(
            (7199..=7200).contains(&lifetime.as_secs()),
            "{expires_in}: {lifetime:?}"
        );
    }
}

#[tokio::test]
async fn an_empty_signature_is_none() {
    for signature in ["null", "\"\"", "\" \"", "[]", "{}", "7"] {
        let body = TOKENS.replace(
            "\"token_type\"",
            &format!("\"signature\":{signature},\"token_type\""),
        );
        let app = app().client_secret("1955secret");
        let flow = ClientCredentials::new(answering(200, &[], body), app);
        let session = flow.log_in().await;
        assert!(session.is_ok(), "{signature}: {session:?}");
    }
}

#[test]
fn an_instance_may_have_a_path_or_lack_the_scheme() {
    for (instance_url, instance) in [
        ("https://acme.my.salesforce.com/", MY_DOMAIN),
        ("HTTPS://ACME.MY.SALESFORCE.COM", MY_DOMAIN),
        (" https://acme.my.salesforce.com ", MY_DOMAIN),
        ("https://acme.my.salesforce.com:443/", MY_DOMAIN),
        (
            "https://acme.my.salesforce.com/services/data?a=b",
            MY_DOMAIN,
        ),
        (
            "https://acme.my.site.com/partners",
            "https://acme.my.site.com",
        ),
        (
            "https://acme.my.site.com/partners/",
            "https://acme.my.site.com",
        ),
        ("acme.my.salesforce.com", MY_DOMAIN),
        ("ACME.my.salesforce.com/", MY_DOMAIN),
        ("//acme.my.salesforce.com", MY_DOMAIN),
        ("acme.my.site.com/partners", "https://acme.my.site.com"),
        (
            "tenant.c360a.salesforce.com",
            "https://tenant.c360a.salesforce.com",
        ),
        (
            "tenant.c360a.salesforce.com:443/",
            "https://tenant.c360a.salesforce.com",
        ),
    ] {
        let body = format!(r#"{{"access_token":"00Dxx!A","instance_url":"{instance_url}"}}"#);
        let session = session_of(&body).unwrap_or_else(|error| panic!("{instance_url}: {error}"));
        assert_eq!(session.instance_url().to_string(), instance);
    }
    for foreign in [
        "acme.example.com",
        "salesforce.com.evil.example",
        "user@acme.my.salesforce.com",
        "http://acme.my.salesforce.com",
        "acme.lightning.force.com",
        "localhost",
        "acme",
        "",
    ] {
        let body = format!(
            r#"{{"access_token":"00Dxx!A","refresh_token":"5Aep862","instance_url":"{foreign}"}}"#
        );
        let error = session_of(&body).unwrap_err();
        assert_eq!(
            error.rotated_refresh_token().unwrap().expose(),
            "5Aep862",
            "{foreign}"
        );
    }
}

/// Salesforce Help, "Sample Exchange Access Token for Data 360 Token Request and Response".
#[tokio::test]
async fn the_token_of_data_cloud_has_an_instance_without_scheme() {
    let body = r#"{"access_token":"eyJhbGciOiJFUzI1NiJ9.e30.c2ln","instance_url":"abcdefghijklmnopqrstuvwxy.c360a.salesforce.com","token_type":"Bearer","issued_token_type":"urn:ietf:params:oauth:token-type:jwt","expires_in":7193}"#;
    let login_url: LoginUrl = MY_DOMAIN.parse().unwrap();
    let endpoint = "https://acme.my.salesforce.com/services/a360/token";
    let login_url = login_url.with_token_endpoint(endpoint).unwrap();
    let grant = "urn:salesforce:grant-type:external:cdp";
    let flow = ExtensionGrant::new(answering(200, &[], body), App::new(login_url, ""), grant)
        .without_client_id()
        .parameter("subject_token", "00Dxx!AQEAQ");
    let session = flow.log_in().await.unwrap();
    let host = "abcdefghijklmnopqrstuvwxy.c360a.salesforce.com";
    assert_eq!(session.instance_url().host(), host);
    assert_eq!(session.lifetime(), Some(Duration::from_secs(7193)));
}
