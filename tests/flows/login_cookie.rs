//! The cookie that keeps a pending authorization in a browser.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, header::COOKIE};
use tower_salesforce_auth::{
    ErrorKind, RefreshErrorKind, Session,
    emulator::Org,
    flow::AuthorizationCode,
    oauth::{LoginCookie, PendingAuthorization},
    store::{EncryptionKey, Record},
};

use crate::support::app;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const REDIRECT_URI: &str = "https://app.example.com/callback";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_750_000_000)
}

fn key(byte: u8) -> EncryptionKey {
    EncryptionKey::new([byte; 32])
}

fn cookie() -> LoginCookie {
    LoginCookie::new(key(7), REDIRECT_URI)
}

fn pending(state: &str) -> PendingAuthorization {
    PendingAuthorization::new(state, VERIFIER).unwrap()
}

fn headers(cookies: &[&str]) -> HeaderMap {
    let value = |cookie: &&str| (COOKIE, HeaderValue::from_str(cookie).unwrap());
    cookies.iter().map(value).collect()
}

/// The cookie as a browser sends it back.
fn sent(header: &HeaderValue) -> &str {
    header.to_str().unwrap().split(';').next().unwrap()
}

fn refusal(cookie: &LoginCookie, headers: &HeaderMap, now: SystemTime) -> String {
    let error = cookie.read(headers, now).unwrap_err();
    assert_eq!(error.kind(), RefreshErrorKind::InvalidCallback);
    assert!(error.to_string().contains("begin again"), "{error}");
    assert!(!format!("{error} {error:?}").contains(VERIFIER));
    error.to_string()
}

#[test]
fn a_login_cookie_returns_what_was_set() {
    for state in ["xyzzy", "two\nlines; and = more", "ü"] {
        let set = cookie().set(&pending(state), now()).unwrap();
        assert!(set.is_sensitive());
        let text = sent(&set);
        let others = format!("a=1; {text}; b=2");
        let quoted = text.replacen('=', "=\"", 1) + "\"";
        for headers in [
            headers(&[text]),
            headers(&[&others]),
            headers(&["a=1", text, "b=2"]),
            headers(&[&quoted]),
        ] {
            assert_eq!(cookie().read(&headers, now()).unwrap(), pending(state));
        }
    }
}

#[test]
fn a_login_cookie_is_bound_to_https_and_hidden_from_scripts() {
    let set = cookie().set(&pending("xyzzy"), now()).unwrap();
    let attributes = "; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure";
    assert!(
        set.to_str()
            .unwrap()
            .starts_with("__Host-salesforce-login=")
    );
    assert!(set.to_str().unwrap().ends_with(attributes));
    let removal = "__Host-salesforce-login=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure";
    assert_eq!(cookie().removal(), removal);
    for (redirect_uri, is_secure) in [
        ("http://localhost:3000/callback", false),
        ("http://127.0.0.1/callback", false),
        ("http://[::1]:80/callback", false),
        ("http://app.example.com/callback", true),
        ("http://localhost.example.com/callback", true),
        ("https://localhost/callback", true),
        ("no URL", true),
    ] {
        let set = LoginCookie::new(key(7), redirect_uri).set(&pending("xyzzy"), now());
        let set = set.unwrap().to_str().unwrap().to_owned();
        assert_eq!(set.ends_with("; Secure"), is_secure, "{redirect_uri}");
        assert_eq!(set.starts_with("__Host-"), is_secure, "{redirect_uri}");
    }
}

#[test]
fn a_login_cookie_shows_neither_state_nor_verifier() {
    let set = |at| cookie().set(&pending("xyzzy"), at).unwrap();
    let shown = format!("{:?} {:?} {}", cookie(), set(now()), sent(&set(now())));
    for secret in ["xyzzy", VERIFIER, "070707", "7, 7"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    // Each one has another nonce.
    assert_ne!(sent(&set(now())), sent(&set(now())));
}

#[test]
fn a_login_cookie_ends_after_ten_minutes() {
    let set = cookie().set(&pending("xyzzy"), now()).unwrap();
    let headers = headers(&[sent(&set)]);
    for seconds in [0, 1, 599] {
        let later = now() + Duration::from_secs(seconds);
        cookie().read(&headers, later).unwrap();
    }
    for seconds in [600, 601, 86_400] {
        let told = refusal(&cookie(), &headers, now() + Duration::from_secs(seconds));
        assert!(told.contains("minutes ago"), "{told}");
    }
    // The clock of the process that set it was ahead.
    cookie()
        .read(&headers, now() - Duration::from_secs(5))
        .unwrap();
}

#[test]
fn a_login_cookie_that_is_missing_changed_or_of_others_is_refused() {
    let set = cookie().set(&pending("xyzzy"), now()).unwrap();
    let text = sent(&set);
    for cookies in [
        &[][..],
        &["a=1"],
        &["salesforce-login=x"],
        &["__Host-salesforce-login"],
    ] {
        let told = refusal(&cookie(), &headers(cookies), now());
        assert!(told.contains("has no cookie"), "{told}");
    }
    let (name, value) = text.split_once('=').unwrap();
    for at in 0..value.len() {
        let mut changed = value.as_bytes().to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = format!("{name}={}", str::from_utf8(&changed).unwrap());
        let told = refusal(&cookie(), &headers(&[&changed]), now());
        assert!(told.contains("cannot be decrypted"), "{told}");
    }
    for end in 0..value.len() {
        let cut = format!("{name}={}", &value[..end]);
        refusal(&cookie(), &headers(&[&cut]), now());
    }
    for other in [
        LoginCookie::new(key(8), REDIRECT_URI),
        LoginCookie::new(key(7), "https://app.example.com/other"),
    ] {
        let told = refusal(&other, &headers(&[text]), now());
        assert!(told.contains("another key"), "{told}");
    }
    // A session record of the same key is no login.
    let session = Session::new("00Dxx!AQ", "https://example.my.salesforce.com").unwrap();
    let record = key(7).seal("user", &Record::new(session)).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let record = format!("{name}={}", record["ciphertext"].as_str().unwrap());
    refusal(&cookie(), &headers(&[&record]), now());
}

#[test]
fn r38_a_login_cookie_outlasts_a_change_of_keys() {
    let (old, new) = (key(7), key(8));
    let deployments = [
        old.clone(),
        old.clone().or(new.clone()),
        new.clone().or(old),
        new,
    ];
    // A process of each deployment reads the cookies of the one before it, and those of the one after it.
    for pair in deployments.windows(2) {
        let [one, other] = [0, 1].map(|at| LoginCookie::new(pair[at].clone(), REDIRECT_URI));
        for (sets, reads) in [(&one, &other), (&other, &one)] {
            let set = sets.set(&pending("xyzzy"), now()).unwrap();
            let read = reads.read(&headers(&[sent(&set)]), now());
            // The last deployment begins when the cookies of the first key have ended.
            assert_eq!(read.unwrap(), pending("xyzzy"));
        }
    }
    let [first, last] = [0, 3].map(|at| LoginCookie::new(deployments[at].clone(), REDIRECT_URI));
    let set = first.set(&pending("xyzzy"), now()).unwrap();
    let told = refusal(&last, &headers(&[sent(&set)]), now());
    assert!(told.contains("another key"), "{told}");
}

#[test]
fn a_state_too_long_for_a_cookie_is_refused() {
    cookie().set(&pending(&"x".repeat(1_000)), now()).unwrap();
    let error = cookie()
        .set(&pending(&"x".repeat(4_000)), now())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    assert!(error.to_string().contains("too long"), "{error}");
}

#[tokio::test]
async fn a_forged_callback_leaves_the_login_in_its_cookie() {
    let org = Org::new();
    let flow = AuthorizationCode::new(org.clone(), app(&org), org.redirect_uri());
    let cookie = LoginCookie::new(key(7), org.redirect_uri());
    let request = flow.authorization_url().build().unwrap();
    let set = cookie.set(request.pending(), now()).unwrap();
    let headers = headers(&[sent(&set)]);
    let callback = org.approve(request.url()).unwrap();
    let forged = callback.replace("state=", "state=x");
    for (callback, is_good) in [(forged, false), (callback, true)] {
        let pending = cookie.read(&headers, now()).unwrap();
        let exchanged = flow.exchange(&pending, &callback).await;
        assert_eq!(exchanged.is_ok(), is_good);
    }
    assert_eq!(org.counters().token_requests, 1);
}
