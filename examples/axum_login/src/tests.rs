//! The example `axum_login` as a service, for cases that a browser cannot easily produce. `tests/browser` has the others.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Form, Router, extract::State, routing};
use axum_extra::extract::cookie::Key;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tower::ServiceExt;
use tower_salesforce_auth::{
    emulator::{Fault, Org, Served},
    oauth::{self, App, LoginCookie},
    store::{BoxFuture, MemoryStore, Record, SessionStore, StoreError, StoreErrorKind, StoreLock},
};

use crate::{
    app::{self, Settings},
    logins::Logins,
};

const HTTPS: &str = "https://app.example.com/callback";
const LOOPBACK: &str = "http://localhost:3000/callback";

// === The cookies ===

#[tokio::test]
async fn cookies_are_signed_http_only_and_same_site() {
    for (redirect_uri, prefix, secure) in [(LOOPBACK, "", ""), (HTTPS, "__Host-", " Secure;")] {
        let site = Site::at(redirect_uri).await;
        let mut browser = site.browser();

        let began = browser.get("/login").await;
        assert_eq!(began.status, StatusCode::SEE_OTHER);
        let [cookie] = &*began.set_cookies else {
            panic!("{:?}", began.set_cookies)
        };
        let (pair, attributes) = cookie.split_once(';').unwrap();
        let is_secure = if secure.is_empty() { "" } else { "; Secure" };
        assert_eq!(
            attributes,
            format!(" Path=/; Max-Age=600; HttpOnly; SameSite=Lax{is_secure}")
        );
        assert!(pair.starts_with(&format!("{prefix}salesforce-login=")));
        let state = state(&began);
        assert!(!cookie.contains(&state), "the cookie is encrypted");

        let callback = site.org.approve(&began.location).unwrap();
        let returned = browser.get(path_and_query(&callback)).await;
        assert_eq!(
            (returned.status, &*returned.location),
            (StatusCode::SEE_OTHER, "/contacts")
        );
        let mut set: Vec<_> = returned.set_cookies.clone();
        set.sort();
        let [ended, begun] = &*set else {
            panic!("{set:?}")
        };
        assert!(
            ended.starts_with(&format!("{prefix}salesforce-login=;"))
                && ended.contains("Max-Age=0"),
            "{ended}"
        );
        let (pair, attributes) = begun.split_once(';').unwrap();
        assert_eq!(
            attributes,
            format!(" HttpOnly; SameSite=Lax;{secure} Path=/")
        );
        let value = pair.strip_prefix(&format!("{prefix}session=")).unwrap();
        let (_, id) = value.split_once("session.").unwrap();
        // 256 bits, other than the state of the login.
        assert_eq!(id.len(), 43);
        assert_ne!(id, state);
        assert_eq!(browser.get("/contacts").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_tampered_cookie_is_refused() {
    let mut site = Site::at(LOOPBACK).await;
    let mut browser = site.browser();
    let began = browser.get("/login").await;
    let callback = site.org.approve(&began.location).unwrap();
    let login = browser.cookies["salesforce-login"].clone();
    for forged in forgeries(&login) {
        browser
            .cookies
            .insert("salesforce-login".to_owned(), forged);
        let refused = browser.get(path_and_query(&callback)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.body.contains("did not begin here"));
    }
    assert_eq!(site.org.counters().token_requests, 0);
    browser
        .cookies
        .insert("salesforce-login".to_owned(), login.clone());
    browser.get(path_and_query(&callback)).await;

    let session = browser.cookies["session"].clone();
    assert_eq!(browser.get("/contacts").await.status, StatusCode::OK);
    let store = Arc::new(Broken::default());
    site.store = store.clone();
    browser.router = site.router(&site.key);
    // The last one is the cookie of a login, which every visitor gets.
    for forged in forgeries(&session).into_iter().chain([login]) {
        browser.cookies.insert("session".to_owned(), forged);
        let refused = browser.get("/contacts").await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert_eq!(
            store.asked.load(Ordering::Relaxed),
            0,
            "the store is not called"
        );
    }
    // With the key of another run.
    browser.cookies.insert("session".to_owned(), session);
    browser.router = site.router(&Key::generate());
    assert_eq!(
        browser.get("/contacts").await.status,
        StatusCode::UNAUTHORIZED
    );
}

/// The cookie with each character changed, truncated, unsigned, and empty.
fn forgeries(value: &str) -> Vec<String> {
    let changed = (0..value.len()).map(|at| {
        let mut bytes = value.as_bytes().to_vec();
        // Another letter that also changes bits at the end, where Base64 ignores some.
        bytes[at] = if bytes[at] == b'Q' { b'x' } else { b'Q' };
        String::from_utf8(bytes).unwrap()
    });
    let others = [
        value[..value.len() - 1].to_owned(),
        unsigned(value),
        String::new(),
    ];
    let forged = changed.chain(others);
    forged.filter(|forged| forged != value).collect()
}

/// A login cookie has no signature beside its value.
fn unsigned(value: &str) -> String {
    value[value.find("session.").unwrap_or_default()..].to_owned()
}

// === Logins ===

#[tokio::test]
async fn a_callback_in_another_browser_is_refused() {
    let site = Site::at(LOOPBACK).await;
    let (mut one, mut two) = (site.browser(), site.browser());
    let began = one.get("/login").await;
    let callback = site.org.approve(&began.location).unwrap();
    // Without a cookie, and with that of another login.
    for _ in 0..2 {
        let refused = two.get(path_and_query(&callback)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.body.contains("did not begin here"));
        two.get("/login").await;
    }
    assert_eq!(site.org.counters().token_requests, 0);
    // The browser that began the login still succeeds.
    let returned = one.get(path_and_query(&callback)).await;
    assert_eq!(returned.location, "/contacts");
}

#[tokio::test]
async fn a_login_continues_after_a_restart_of_the_application() {
    let site = Site::at(LOOPBACK).await;
    let mut browser = site.browser();
    let began = browser.get("/login").await;
    let callback = site.org.approve(&began.location).unwrap();
    browser.router = site.router(&site.key);
    let returned = browser.get(path_and_query(&callback)).await;
    assert_eq!(returned.location, "/contacts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_copies_of_a_callback_at_once_are_exchanged_once() {
    let site = Site::at(LOOPBACK).await;
    let mut browser = site.browser();
    let began = browser.get("/login").await;
    let callback = site.org.approve(&began.location).unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let (mut browser, callback) = (browser.clone(), callback.clone());
        callers.spawn(async move { browser.get(path_and_query(&callback)).await });
    }
    let answers = callers.join_all().await;
    let logged_in = answers.iter().filter(|it| it.location == "/contacts");
    assert_eq!(logged_in.count(), 1);
    for refused in answers.iter().filter(|it| it.location.is_empty()) {
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.body.contains("was used already"));
    }
    assert_eq!(site.org.counters().token_requests, 1);
}

#[test]
fn a_used_login_is_remembered_and_their_number_is_bounded() {
    let began = Instant::now();
    let logins = Logins::default();
    assert!(!logins.is_used("state-1"));
    assert!(logins.use_up("state-1", began));
    assert!(logins.is_used("state-1") && !logins.use_up("state-1", began));
    // By then its cookie has ended.
    assert!(logins.use_up("state-2", began + LoginCookie::LIFETIME));
    assert!(!logins.is_used("state-1"));

    let logins = Logins::default();
    for n in 0..10_001 {
        assert!(logins.use_up(&format!("state-{n}"), began));
    }
    assert!(!logins.is_used("state-0"));
    assert!(logins.is_used("state-1") && logins.is_used("state-10000"));
}

#[tokio::test]
async fn a_refused_login_is_explained_without_salesforces_words() {
    let site = Site::at(LOOPBACK).await;
    let refuse = |status: u16, error: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        Fault::refuse(status, error, "<script>alert(1)</script>")
    };
    for (fault, status, title) in [
        (refuse(400, "invalid_grant"), 400, "was used already"),
        (refuse(400, "invalid_client"), 502, "did not let you in"),
        (refuse(400, "<b>"), 502, "did not let you in"),
        (refuse(503, "server_error"), 502, "cannot be reached"),
        (Fault::Maintenance, 502, "cannot be reached"),
        (Fault::LoseAnswer, 502, "cannot be reached"),
    ] {
        let mut browser = site.browser();
        let began = browser.get("/login").await;
        let callback = site.org.approve(&began.location).unwrap();
        site.org.on_token(fault.clone());
        let refused = browser.get(path_and_query(&callback)).await;
        assert_eq!(refused.status.as_u16(), status, "{fault:?}");
        assert!(refused.body.contains(title), "{fault:?}: {}", refused.body);
        assert!(!refused.body.contains("alert") && !refused.body.contains("<b>"));
        assert!(browser.cookies.is_empty(), "{fault:?}");
        // The refused callback has used up the login.
        site.org.on_token(Fault::None);
        let again = browser.get(path_and_query(&callback)).await;
        assert!(again.body.contains("was used already"));
    }

    let mut browser = site.browser();
    let began = browser.get("/login").await;
    let state = state(&began);
    let denied = format!(
        "/callback?error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E&state={state}"
    );
    let refused = browser.get(&denied).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.body.contains("did not allow it") && !refused.body.contains("alert"));
}

// === Sessions ===

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_many_users_sees_their_own_data() {
    const USERS: usize = 100;
    let salesforce = ManyUsers::serve().await;
    let router = salesforce.router();
    let mut users = JoinSet::new();
    for n in 0..USERS {
        let mut browser = Browser::of(&router);
        let salesforce = salesforce.clone();
        users.spawn(async move {
            let began = browser.get("/login").await;
            let state = state(&began);
            let callback = format!("/callback?code=user-{n}&state={state}");
            assert_eq!(browser.get(&callback).await.location, "/contacts");
            for round in 0..10 {
                // Each session expires in some of the rounds.
                if round % 3 == n % 3 {
                    salesforce.expire(n);
                }
                let page = browser.get("/contacts").await;
                assert_eq!(page.status, StatusCode::OK);
                assert!(page.body.contains(&format!(">user-{n}<")), "{}", page.body);
                assert!(page.body.contains(&format!(">Contact of user-{n}<")));
                assert_eq!(page.body.matches("user-").count(), 3, "{}", page.body);
            }
            browser
        });
    }
    let browsers = users.join_all().await;

    // One user logs out, and the others stay logged in.
    let mut browsers = browsers.into_iter();
    let mut first = browsers.next().unwrap();
    assert_eq!(first.post("/logout", &[]).await.location, "/logged-out");
    for mut browser in browsers {
        assert_eq!(browser.get("/contacts").await.status, StatusCode::OK);
    }
    assert_eq!(
        first.get("/contacts").await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(salesforce.misuses(), 0, "refresh tokens presented twice");
}

#[tokio::test]
async fn a_session_survives_a_restart_with_the_newest_refresh_token() {
    let site = Site::at(LOOPBACK).await;
    let mut browser = site.logged_in().await;
    for _ in 0..3 {
        site.org.expire_sessions();
        browser.router = site.router(&site.key);
        assert_eq!(browser.get("/contacts").await.status, StatusCode::OK);
    }
    let counters = site.org.counters();
    assert_eq!(
        (counters.token_requests, counters.refresh_token_reuses),
        (4, 0)
    );
}

#[tokio::test]
async fn a_login_that_cannot_be_saved_is_revoked() {
    let mut site = Site::at(LOOPBACK).await;
    site.store = Arc::new(Broken::default());
    let mut browser = site.browser();
    let began = browser.get("/login").await;
    let callback = site.org.approve(&began.location).unwrap();
    let failed = browser.get(path_and_query(&callback)).await;
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(browser.cookies.is_empty());
    let counters = site.org.counters();
    assert_eq!((counters.tokens_issued, counters.tokens_revoked), (1, 1));
}

/// The paused clock advances when all tasks are idle.
#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_reported_in_time_and_ends_no_session() {
    let site = Site::at(LOOPBACK).await;
    let mut browser = site.logged_in().await;
    let is_unreachable = |page: &Page| {
        assert_eq!(page.status, StatusCode::BAD_GATEWAY);
        assert!(page.body.contains("Salesforce cannot be reached"));
        assert!(page.set_cookies.is_empty());
    };
    site.org.on_data(Fault::Hang);
    is_unreachable(&browser.get("/contacts").await);
    site.org.on_data(Fault::None);

    for trouble in [Fault::Maintenance, Fault::Hang] {
        site.org.expire_sessions();
        site.org.on_token(trouble);
        is_unreachable(&browser.get("/contacts").await);
        site.org.on_token(Fault::None);
        // The longest back-off.
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!(browser.get("/contacts").await.status, StatusCode::OK);
        // The new session was accepted, so one that ends at once was not useless: it is refreshed without a pause.
        site.org.expire_sessions();
        assert_eq!(browser.get("/contacts").await.status, StatusCode::OK);
    }

    // While each new session is rejected at once, refreshes pause.
    site.org.refuse_sessions("Session expired or invalid");
    assert_ne!(browser.get("/contacts").await.status, StatusCode::OK);
    is_unreachable(&browser.get("/contacts").await);
    site.org.refuse_sessions(None);
    tokio::time::advance(Duration::from_secs(120)).await;
    assert_eq!(browser.get("/contacts").await.status, StatusCode::OK);

    let mut other = site.browser();
    let began = other.get("/login").await;
    let callback = site.org.approve(&began.location).unwrap();
    site.org.on_token(Fault::Hang);
    let page = other.get(path_and_query(&callback)).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert!(page.body.contains("Salesforce cannot be reached"));

    site.org.on_revoke(Fault::Hang);
    let page = browser.post("/logout", &[]).await;
    assert!(page.body.contains("logged out here only"));
    assert!(browser.cookies.is_empty());
}

/// The head of an answer comes, and its body never does.
#[tokio::test(start_paused = true)]
async fn a_stalled_answer_times_out() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stalled = || axum::body::Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let tokens = json!({
        "access_token": "00Dxx0000001gEF!AQEAQ",
        "refresh_token": "5Aep861",
        "instance_url": url,
        "token_type": "Bearer",
    });
    let token = async move |Form(form): Form<HashMap<String, String>>| match &*form["code"] {
        "stalled" => stalled(),
        _ => tokens.to_string().into(),
    };
    let org = Router::new()
        .route("/services/oauth2/token", routing::post(token))
        .fallback(async move || stalled());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, org).await });
    let router = app::router(Settings {
        app: App::new(url.parse().unwrap(), "3MVG9"),
        redirect_uri: LOOPBACK.to_owned(),
        cookie_key: Key::generate(),
        store: Arc::new(MemoryStore::new()),
    });

    let mut browser = Browser::of(&router.unwrap());
    for (code, path) in [("stalled", ""), ("good", "/contacts")] {
        let began = browser.get("/login").await;
        let state = state(&began);
        let callback = format!("/callback?code={code}&state={state}");
        let mut page = browser.get(&callback).await;
        assert_eq!(page.location, path);
        if !path.is_empty() {
            page = browser.get(path).await;
        }
        assert_eq!(page.status, StatusCode::BAD_GATEWAY);
        assert!(page.body.contains("Salesforce cannot be reached"));
    }
}

#[tokio::test]
async fn a_wrong_app_or_a_broken_store_ends_no_session() {
    let refuse = |error: &str| Fault::refuse(StatusCode::BAD_REQUEST, error, "no");
    for code in ["invalid_client", "invalid_client_id", "app_blocked"] {
        let site = Site::at(LOOPBACK).await;
        let mut browser = site.logged_in().await;
        site.org.expire_sessions();
        site.org.on_token(refuse(code));
        let page = browser.get("/contacts").await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{code}");
        assert!(page.body.contains("Your session is not refreshed"));
        assert!(page.set_cookies.is_empty());
        assert_eq!(site.org.counters().tokens_revoked, 0);
        // Fixed without a restart of the application.
        site.org.on_token(Fault::None);
        assert_eq!(browser.get("/contacts").await.status, StatusCode::OK);
    }

    for trouble in [
        StoreErrorKind::UnsupportedVersion,
        StoreErrorKind::Unavailable,
    ] {
        let mut site = Site::at(LOOPBACK).await;
        let store = Arc::new(Moody::default());
        site.store = store.clone();
        let mut browser = site.logged_in().await;
        browser.router = site.router(&site.key);
        store.fail_with(trouble);
        let page = browser.get("/contacts").await;
        assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(page.set_cookies.is_empty(), "{trouble:?}");
        store.fail_with(None);
        browser.router = site.router(&site.key);
        assert_eq!(browser.get("/contacts").await.status, StatusCode::OK);
    }

    // No server answers.
    let mut site = Site::at(LOOPBACK).await;
    let mut browser = site.logged_in().await;
    site.served.take().unwrap().shutdown().await;
    let page = browser.get("/contacts").await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert!(page.body.contains("Salesforce cannot be reached"));
    assert!(page.set_cookies.is_empty());
}

/// More failed logins than sessions in memory.
#[tokio::test]
async fn failed_logins_displace_no_session() {
    let mut site = Site::at(LOOPBACK).await;
    let store = Arc::new(Moody::default());
    site.store = store.clone();
    let mut browser = site.logged_in().await;
    assert_eq!(browser.get("/contacts").await.status, StatusCode::OK);
    let asked = store.asked.load(Ordering::Relaxed);
    let mut stranger = Browser::of(&browser.router);
    for _ in 0..10_000 {
        let began = stranger.get("/login").await;
        let state = state(&began);
        let denied = format!("/callback?error=access_denied&state={state}");
        assert_eq!(stranger.get(&denied).await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(browser.get("/contacts").await.status, StatusCode::OK);
    assert_eq!(store.asked.load(Ordering::Relaxed), asked);
}

// === Logging out ===

#[tokio::test]
async fn a_logout_that_fails_in_the_store_says_so_and_can_be_retried() {
    let mut site = Site::at(LOOPBACK).await;
    let store = Arc::new(Moody::default());
    site.store = store.clone();
    let mut browser = site.logged_in().await;
    // After a restart, no session is in memory, so the logout needs the store.
    browser.router = site.router(&site.key);
    let kept = browser.cookies.clone();
    store.fail_with(StoreErrorKind::Unavailable);
    let page = browser.post("/logout", &[]).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.body.contains("You are not logged out"));
    assert_eq!(browser.cookies, kept);
    assert_eq!(site.org.counters().tokens_revoked, 0);

    store.fail_with(None);
    assert_eq!(browser.post("/logout", &[]).await.location, "/logged-out");
    assert_eq!(site.org.counters().tokens_revoked, 1);
    site.is_forgotten(browser, kept).await;
}

#[tokio::test]
async fn a_logout_without_salesforce_still_forgets_the_session() {
    let refuse = Fault::refuse(StatusCode::BAD_REQUEST, "unsupported_token_type", "no");
    for trouble in [Fault::Maintenance, Fault::LoseAnswer, refuse] {
        let site = Site::at(LOOPBACK).await;
        let mut browser = site.logged_in().await;
        let kept = browser.cookies.clone();
        assert!(site.stored(&kept).await.is_some());
        site.org.on_revoke(trouble);
        let page = browser.post("/logout", &[]).await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY);
        assert!(page.body.contains("logged out here only"));
        site.is_forgotten(browser, kept).await;
    }

    let mut site = Site::at(LOOPBACK).await;
    let mut browser = site.logged_in().await;
    let kept = browser.cookies.clone();
    site.served.take().unwrap().shutdown().await;
    let page = browser.post("/logout", &[]).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    site.is_forgotten(browser, kept).await;
}

#[tokio::test]
async fn a_logout_revokes_the_grant_and_a_second_one_is_harmless() {
    let site = Site::at(LOOPBACK).await;
    let mut browser = site.logged_in().await;
    let kept = browser.cookies.clone();
    let stored = site.stored(&kept).await.unwrap();
    let mut double_click = browser.clone();
    let (one, other) = tokio::join!(
        browser.post("/logout", &[]),
        double_click.post("/logout", &[])
    );
    assert_eq!([one.location, other.location], ["/logged-out"; 2]);
    assert_eq!(site.org.counters().tokens_revoked, 1);
    let refresh_token = stored.session().refresh_token().unwrap();
    let revoked = oauth::refresh_token(site.org.clone(), &site.app(), refresh_token).await;
    assert_eq!(revoked.unwrap_err().error_code(), Some("invalid_grant"));
    site.is_forgotten(browser.clone(), kept).await;
    assert_eq!(browser.post("/logout", &[]).await.location, "/logged-out");
}

#[tokio::test]
async fn a_logout_from_another_origin_is_refused() {
    let site = Site::at(LOOPBACK).await;
    let mut browser = site.logged_in().await;
    let host = ("host", "localhost:3000");
    for headers in [
        [host, ("sec-fetch-site", "cross-site")],
        [host, ("sec-fetch-site", "same-site")],
        [host, ("origin", "http://localhost:4000")],
        [host, ("origin", "https://evil.example.com")],
        [host, ("origin", "null")],
    ] {
        let refused = browser.post("/logout", &headers).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{headers:?}");
        assert!(refused.body.contains("did not come from here"));
    }
    assert_eq!(browser.get("/logout").await.location, "/");
    assert_eq!(browser.get("/contacts").await.status, StatusCode::OK);
    for headers in [
        [host, ("sec-fetch-site", "same-origin")],
        [host, ("origin", "http://localhost:3000")],
        // Behind a proxy that sends another host.
        [("host", "backend:80"), ("origin", "http://localhost:3000")],
    ] {
        let mut browser = site.logged_in().await;
        assert_eq!(
            browser.post("/logout", &headers).await.location,
            "/logged-out",
            "{headers:?}"
        );
    }
}

// === Every page ===

#[tokio::test]
async fn pages_have_no_secret_and_cannot_be_cached_or_framed() {
    let site = Site::at(LOOPBACK).await;
    let mut browser = site.browser();
    let mut pages = vec![browser.get("/").await];
    let began = browser.get("/login").await;
    let callback = site.org.approve(&began.location).unwrap();
    let (_, code) = callback.split_once("code=").unwrap();
    let (code, state) = code.split_once("&state=").unwrap();
    pages.push(browser.get("/callback?code=x&state=y").await);
    pages.push(browser.get(path_and_query(&callback)).await);
    pages.push(browser.get(path_and_query(&callback)).await);
    pages.push(browser.get("/contacts").await);
    let id = browser.cookies["session"].clone();
    site.org.on_data(Fault::LoseAnswer);
    pages.push(browser.get("/contacts").await);
    site.org.on_data(Fault::None);
    site.org.on_revoke(Fault::Maintenance);
    pages.push(browser.post("/logout", &[]).await);
    pages.push(
        browser
            .post("/logout", &[("sec-fetch-site", "cross-site")])
            .await,
    );
    pages.push(browser.get("/logged-out").await);
    pages.push(browser.get("/nothing").await);
    pages.push(browser.post("/", &[]).await);
    assert_eq!(pages.len(), 11);
    for page in pages {
        for secret in [
            code,
            code.trim_end_matches("%3D"),
            state,
            &id,
            &unsigned(&id),
            unsigned(&id).strip_prefix("session.").unwrap(),
            site.org.client_secret(),
            // The prefixes of the access tokens and the refresh tokens of the org.
            "00Dxx0000001gEF!",
            "5Aep",
        ] {
            assert!(!page.body.contains(secret), "{secret}: {}", page.body);
        }
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "strict-origin"),
            ("x-content-type-options", "nosniff"),
            ("strict-transport-security", "max-age=31536000"),
        ] {
            assert_eq!(page.headers[name], value);
        }
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("script") && !policy.contains("unsafe"));
    }
}

#[test]
fn a_redirect_uri_without_the_callback_path_is_refused() {
    for redirect_uri in ["https://app.example.com/other", "/callback", "callback", ""] {
        let settings = Settings {
            app: App::new("https://login.salesforce.com".parse().unwrap(), "3MVG9"),
            redirect_uri: redirect_uri.to_owned(),
            cookie_key: Key::generate(),
            store: Arc::new(MemoryStore::new()),
        };
        assert!(app::router(settings).is_err(), "{redirect_uri}");
    }
}

// === A site, and its browsers ===

/// The application, and the org behind it.
struct Site {
    org: Org,
    served: Option<Served>,
    redirect_uri: &'static str,
    key: Key,
    store: Arc<dyn SessionStore>,
}

impl Site {
    async fn at(redirect_uri: &'static str) -> Self {
        let org = Org::new();
        org.set_redirect_uri(redirect_uri);
        Self {
            served: Some(org.serve().await.unwrap()),
            org,
            redirect_uri,
            key: Key::generate(),
            store: Arc::new(MemoryStore::new()),
        }
    }

    fn app(&self) -> App {
        let login_url = self.org.login_url().parse().unwrap();
        App::new(login_url, self.org.client_id()).client_secret(self.org.client_secret())
    }

    /// Starts the application.
    fn router(&self, key: &Key) -> Router {
        app::router(Settings {
            app: self.app(),
            redirect_uri: self.redirect_uri.to_owned(),
            cookie_key: key.clone(),
            store: Arc::clone(&self.store),
        })
        .unwrap()
    }

    fn browser(&self) -> Browser {
        Browser::of(&self.router(&self.key))
    }

    async fn logged_in(&self) -> Browser {
        let mut browser = self.browser();
        let began = browser.get("/login").await;
        let callback = self.org.approve(&began.location).unwrap();
        let returned = browser.get(path_and_query(&callback)).await;
        assert_eq!(returned.location, "/contacts");
        browser
    }

    async fn stored(&self, cookies: &BTreeMap<String, String>) -> Option<Record> {
        let (_, id) = cookies["session"].split_once("session.").unwrap();
        self.store.load(id).await.unwrap()
    }

    /// Asserts that the browser has no session, and that its former cookie is useless.
    async fn is_forgotten(&self, mut browser: Browser, kept: BTreeMap<String, String>) {
        assert!(browser.cookies.is_empty());
        assert!(self.stored(&kept).await.is_none());
        browser.cookies = kept;
        let page = browser.get("/contacts").await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        assert!(page.body.contains("Your session is over"));
        assert!(browser.cookies.is_empty());
    }
}

/// A minimal browser: it keeps cookies, and follows no redirect.
#[derive(Clone)]
struct Browser {
    router: Router,
    cookies: BTreeMap<String, String>,
}

struct Page {
    status: StatusCode,
    headers: HeaderMap,
    /// The header `Location`; empty without one.
    location: String,
    set_cookies: Vec<String>,
    body: String,
}

impl Browser {
    fn of(router: &Router) -> Self {
        Self {
            router: router.clone(),
            cookies: BTreeMap::new(),
        }
    }

    async fn get(&mut self, path: &str) -> Page {
        self.send(Request::get(path)).await
    }

    async fn post(&mut self, path: &str, headers: &[(&str, &str)]) -> Page {
        let request = headers
            .iter()
            .fold(Request::post(path), |request, (name, value)| {
                request.header(*name, *value)
            });
        self.send(request).await
    }

    async fn send(&mut self, request: http::request::Builder) -> Page {
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let request = request.header(header::COOKIE, cookies.join("; "));
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let set_cookies: Vec<_> = head
            .headers
            .get_all(header::SET_COOKIE)
            .iter()
            .map(|cookie| cookie.to_str().unwrap().to_owned())
            .collect();
        for cookie in &set_cookies {
            let (name, rest) = cookie.split_once('=').unwrap();
            let (value, attributes) = rest.split_once(';').unwrap();
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let location = head.headers.get(header::LOCATION);
        Page {
            status: head.status,
            location: location.map_or(String::new(), |it| it.to_str().unwrap().to_owned()),
            set_cookies,
            body: String::from_utf8(body.to_vec()).unwrap(),
            headers: head.headers,
        }
    }
}

/// The `state` in the redirect to Salesforce.
fn state(began: &Page) -> String {
    let (_, state) = began.location.split_once("&state=").unwrap();
    state.split('&').next().unwrap().to_owned()
}

fn path_and_query(url: &str) -> &str {
    let at = url.find("/callback").unwrap();
    &url[at..]
}

/// A store that keeps nothing, and counts its calls.
#[derive(Default)]
struct Broken {
    asked: AtomicUsize,
}

impl SessionStore for Broken {
    fn load<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(None) })
    }

    fn lock<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let error = StoreError::new(StoreErrorKind::Unavailable, "the disk is full");
        Box::pin(async { Err(error) })
    }
}

/// A store that fails on demand, and counts its calls.
#[derive(Default)]
struct Moody {
    inner: MemoryStore,
    trouble: Mutex<Option<StoreErrorKind>>,
    asked: AtomicUsize,
}

impl Moody {
    fn fail_with(&self, trouble: impl Into<Option<StoreErrorKind>>) {
        *self.trouble.lock().unwrap() = trouble.into();
    }

    fn ask(&self) -> Result<(), StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match *self.trouble.lock().unwrap() {
            Some(kind) => Err(StoreError::new(kind, "the disk is gone")),
            None => Ok(()),
        }
    }
}

impl SessionStore for Moody {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.ask()?;
            self.inner.load(key).await
        })
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            self.ask()?;
            self.inner.lock(key).await
        })
    }
}

// === A Salesforce with many users ===

/// A server with many users, since the emulated org has one. The code `user-7` belongs to the user of this name.
#[derive(Clone)]
struct ManyUsers {
    url: String,
    users: Arc<Mutex<HashMap<String, User>>>,
}

#[derive(Default)]
struct User {
    /// The number at the end of the valid tokens.
    turn: u64,
    is_expired: bool,
    misuses: u64,
}

#[expect(
    clippy::unused_async,
    reason = "axum takes async functions for handlers"
)]
impl ManyUsers {
    async fn serve() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let this = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            users: Arc::default(),
        };
        let router = Router::new()
            .route("/services/oauth2/token", routing::post(Self::token))
            .route("/services/oauth2/revoke", routing::post(async || ""))
            .route("/services/oauth2/userinfo", routing::get(Self::userinfo))
            .route("/services/data/v66.0/query", routing::get(Self::query))
            .with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        this
    }

    fn router(&self) -> Router {
        app::router(Settings {
            app: App::new(self.url.parse().unwrap(), "3MVG9"),
            redirect_uri: LOOPBACK.to_owned(),
            cookie_key: Key::generate(),
            store: Arc::new(MemoryStore::new()),
        })
        .unwrap()
    }

    fn expire(&self, n: usize) {
        let mut users = self.users.lock().unwrap();
        users.get_mut(&format!("user-{n}")).unwrap().is_expired = true;
    }

    fn misuses(&self) -> u64 {
        let users = self.users.lock().unwrap();
        users.values().map(|user| user.misuses).sum()
    }

    async fn token(State(this): State<Self>, Form(form): Form<HashMap<String, String>>) -> String {
        let (name, presented) = match form.get("refresh_token") {
            Some(token) => token.split_once('/').unwrap(),
            None => (&*form["code"], "0"),
        };
        let mut users = this.users.lock().unwrap();
        let user = users.entry(name.to_owned()).or_default();
        if presented != user.turn.to_string() {
            user.misuses += 1;
        }
        user.turn += 1;
        user.is_expired = false;
        let turn = user.turn;
        json!({
            "access_token": format!("{name}/{turn}"),
            "refresh_token": format!("{name}/{turn}"),
            "instance_url": this.url,
            "token_type": "Bearer",
        })
        .to_string()
    }

    /// The user of the session, if the token is valid.
    fn user(&self, headers: &HeaderMap) -> Result<String, StatusCode> {
        let token = headers[header::AUTHORIZATION].to_str().unwrap();
        let (name, turn) = token
            .strip_prefix("Bearer ")
            .unwrap()
            .split_once('/')
            .unwrap();
        let users = self.users.lock().unwrap();
        let user = &users[name];
        if user.is_expired || turn != user.turn.to_string() {
            return Err(StatusCode::UNAUTHORIZED);
        }
        Ok(name.to_owned())
    }

    async fn userinfo(State(this): State<Self>, headers: HeaderMap) -> Result<String, StatusCode> {
        let name = this.user(&headers)?;
        Ok(json!({ "preferred_username": name, "name": name }).to_string())
    }

    async fn query(State(this): State<Self>, headers: HeaderMap) -> Result<String, StatusCode> {
        let contact = format!("Contact of {}", this.user(&headers)?);
        Ok(json!({ "records": [{ "LastName": contact, "Email": null }] }).to_string())
    }
}
