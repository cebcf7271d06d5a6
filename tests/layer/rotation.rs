//! Refresh tokens: the newest one is presented, none is lost or presented twice (R3).

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinHandle};
use tower_salesforce_auth::{
    Error, LiveSession, RefreshContext, RefreshError, RefreshErrorKind, Secret, Session,
    SessionHandle,
    emulator::{Fault, Org},
    flow::{AuthorizationCode, RefreshToken},
    handle::SessionState,
    oauth,
    observer::Observer,
};

use crate::support::{answering, app, granted, production_app, session};

/// A flow whose answers wait for `finish`, and rotate the refresh token. Records the presented tokens.
struct Rotating {
    handle: SessionHandle,
    presented: Arc<Mutex<Vec<Option<String>>>>,
    finish: Arc<Notify>,
}

impl Rotating {
    fn new() -> Self {
        let presented = Arc::new(Mutex::new(Vec::<Option<String>>::new()));
        let finish = Arc::new(Notify::new());
        let handle = {
            let (presented, finish) = (presented.clone(), finish.clone());
            SessionHandle::new(move |context: RefreshContext| {
                let token = context
                    .refresh_token()
                    .map(|token| token.expose().to_owned());
                let n = {
                    let mut presented = presented.lock().unwrap();
                    presented.push(token);
                    presented.len()
                };
                let finish = finish.clone();
                async move {
                    finish.notified().await;
                    Ok(session(&format!("T{n}")).with_refresh_token(format!("R{n}")))
                }
            })
        };
        Self {
            handle,
            presented,
            finish,
        }
    }

    async fn until_presented(&self, n: usize) {
        while self.presented.lock().unwrap().len() < n {
            tokio::task::yield_now().await;
        }
    }

    fn presented(&self) -> Vec<Option<String>> {
        self.presented.lock().unwrap().clone()
    }
}

fn some(tokens: &[&str]) -> Vec<Option<String>> {
    tokens
        .iter()
        .map(|token| Some((*token).to_owned()))
        .collect()
}

/// A manual refresh in a task of its own.
fn refreshing(handle: &SessionHandle) -> JoinHandle<Result<LiveSession, Error>> {
    let handle = handle.clone();
    tokio::spawn(async move { handle.refresh().await })
}

#[tokio::test]
async fn r03_a_session_without_refresh_token_keeps_the_newest() {
    let rotating = Rotating::new();
    let handle = &rotating.handle;
    handle.set(session("T0").with_refresh_token("R0"));
    for _ in 0..3 {
        rotating.finish.notify_one();
        handle.refresh().await.unwrap();
    }
    // This session, for example from a cookie, has no refresh token.
    handle.set(session("T8"));
    rotating.finish.notify_one();
    handle.refresh().await.unwrap();
    assert_eq!(rotating.presented(), some(&["R0", "R1", "R2", "R3"]));
}

#[tokio::test]
async fn r03_a_rotation_overtaken_by_set_is_not_lost() {
    let rotating = Rotating::new();
    let handle = &rotating.handle;
    handle.set(session("T0").with_refresh_token("R0"));
    let refresh = refreshing(handle);
    rotating.until_presented(1).await;
    // While R0 is presented, a copy of the session with R0 is set.
    handle.set(session("T8").with_refresh_token("R0"));
    assert_eq!(
        refresh.await.unwrap().unwrap().access_token().expose(),
        "T8"
    );
    // The next refresh waits for the running token call, and presents the token of its answer.
    let next = refreshing(handle);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        rotating.presented(),
        some(&["R0"]),
        "two exchanges at a time"
    );
    rotating.finish.notify_one();
    rotating.until_presented(2).await;
    rotating.finish.notify_one();
    let live = next.await.unwrap().unwrap();
    assert_eq!(live.access_token().expose(), "T2");
    assert_eq!(rotating.presented(), some(&["R0", "R1"]));
}

#[tokio::test]
async fn r03_a_replaced_grant_does_not_come_back() {
    let rotating = Rotating::new();
    let handle = &rotating.handle;
    handle.set(session("T0").with_refresh_token("R0"));
    let refresh = refreshing(handle);
    rotating.until_presented(1).await;
    // Another user logs in.
    handle.set(session("U0").with_refresh_token("U-R0"));
    refresh.await.unwrap().unwrap();
    rotating.finish.notify_one();
    rotating.finish.notify_one();
    let next = refreshing(handle);
    rotating.until_presented(2).await;
    rotating.finish.notify_one();
    next.await.unwrap().unwrap();
    assert_eq!(rotating.presented(), some(&["R0", "U-R0"]));
}

#[tokio::test]
async fn r03_a_rotated_token_of_an_unusable_session_is_kept() {
    let presented = Arc::new(Mutex::new(Vec::new()));
    let handle = {
        let presented = presented.clone();
        SessionHandle::new(move |context: RefreshContext| {
            presented
                .lock()
                .unwrap()
                .push(context.refresh_token().cloned());
            let n = presented.lock().unwrap().len();
            async move {
                let instance = if n == 1 {
                    "https://example.com"
                } else {
                    crate::support::INSTANCE
                };
                let session = Session::new("T1", instance).map_err(RefreshError::terminal)?;
                Ok(session.with_refresh_token(format!("R{n}")))
            }
        })
    };
    handle.set(session("T0").with_refresh_token("R0"));
    let error = handle.refresh().await.unwrap_err();
    assert_eq!(
        error.refresh_error().unwrap().kind(),
        RefreshErrorKind::UntrustedInstance
    );
    handle.refresh().await.unwrap();
    let expected = ["R0", "R1"].map(|token| Some(Secret::from(token)));
    assert_eq!(*presented.lock().unwrap(), expected);
}

#[tokio::test]
async fn r03_a_rotated_out_refresh_token_is_never_presented() {
    let org = Org::new();
    let grant = org.authorize();
    let flow = RefreshToken::new(org.clone(), app(&org), grant.refresh_token());
    let handle = SessionHandle::new(flow);
    handle.session().await.unwrap();
    handle.logout(org.clone()).await.unwrap();
    handle.reset();
    let error = handle.session().await.unwrap_err();
    assert_eq!(
        error.refresh_error().unwrap().kind(),
        RefreshErrorKind::NoRefreshToken
    );
    handle.set(Session::new("OTHER", "https://other.my.salesforce.com").unwrap());
    handle.refresh().await.unwrap_err();
    assert_eq!(org.counters().refresh_token_reuses, 0);

    // A token that was never rotated still works after a logout.
    org.rotate_refresh_tokens(false);
    let grant = org.authorize();
    let handle = SessionHandle::new(RefreshToken::new(
        org.clone(),
        app(&org),
        grant.refresh_token(),
    ));
    handle.session().await.unwrap();
    handle.logout(org.clone()).await.unwrap();
    handle.reset();
    handle.session().await.unwrap();
    // After a revocation it is not presented again.
    handle.logout_and_revoke(org.clone()).await.unwrap();
    handle.reset();
    let error = handle.session().await.unwrap_err();
    assert_eq!(
        error.refresh_error().unwrap().kind(),
        RefreshErrorKind::NoRefreshToken
    );
}

#[tokio::test]
async fn r03_a_session_of_another_user_keeps_no_refresh_token() {
    let org = Org::new();
    let handle = SessionHandle::new(AuthorizationCode::new(
        org.clone(),
        app(&org),
        org.redirect_uri(),
    ));
    handle.set(granted(&org).with_ids("00Dxx0000000001", "005xx0000000001"));
    let bob = Session::new("BOB", &org.instance_url()).unwrap();
    handle.set(bob.with_ids("00Dxx0000000001AAA", "005xx0000000002AAA"));
    assert!(handle.refresh_token().is_none());
    let error = handle.refresh().await.unwrap_err();
    assert_eq!(
        error.refresh_error().unwrap().kind(),
        RefreshErrorKind::NoRefreshToken
    );
    assert_eq!(org.counters().token_requests, 0);
}

#[tokio::test(start_paused = true)]
async fn r27_a_session_of_another_org_gets_no_old_refresh_token() {
    let of = |org: &str, token: &str| {
        session(token).with_identity_url(format!("https://login.salesforce.com/id/{org}/005xx"))
    };
    let handle = SessionHandle::new(move |context: RefreshContext| async move {
        assert!(context.refresh_token().is_some());
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(of("00DA", "A1").with_refresh_token("RA1"))
    });
    handle.set(of("00DA", "A0").with_refresh_token("RA0"));
    let refresh = refreshing(&handle);
    tokio::time::sleep(Duration::from_millis(1)).await;
    handle.set(of("00DB", "B0"));
    assert_eq!(
        refresh.await.unwrap().unwrap().access_token().expose(),
        "B0"
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(handle.try_session().unwrap().refresh_token(), None);
    assert_eq!(handle.refresh_token(), None);
}

// === What observers and subscribers see ===

/// The refresh tokens that were reported without a session.
#[derive(Clone, Default)]
struct RefreshTokens(Arc<Mutex<Vec<String>>>);

impl Observer for RefreshTokens {
    fn refresh_token_changed(&self, refresh_token: &Secret) {
        self.0
            .lock()
            .unwrap()
            .push(refresh_token.expose().to_owned());
    }
}

#[tokio::test]
async fn r03_a_rotated_token_without_a_session_is_reported() {
    // The answer to a first login cannot be used.
    for body in [
        r#"{"access_token":"A","refresh_token":"R1","instance_url":"https://example.com"}"#,
        r#"{"access_token":"A","refresh_token":"R1"}"#,
        r#"{"access_token":["A"],"scope":["api"],"refresh_token":"R1","instance_url":"https://example.my.salesforce.com"}"#,
        r#"{"refresh_token":"R1","token_type":"DPoP","token_type":"DPoP"} trailing"#,
    ] {
        let kept = RefreshTokens::default();
        let flow = RefreshToken::new(answering(200, &[], body), production_app(), "R0");
        let handle = SessionHandle::builder(flow).observer(kept.clone()).build();
        handle.session().await.unwrap_err();
        assert_eq!(*kept.0.lock().unwrap(), ["R1"], "{body}");
        assert_eq!(handle.refresh_token(), Some(Secret::from("R1")));
    }
    // A logout during a refresh discards its session.
    let org = Org::new();
    let kept = RefreshTokens::default();
    let flow = AuthorizationCode::new(org.clone(), app(&org), org.redirect_uri());
    let handle = SessionHandle::builder(flow)
        .initial_session(granted(&org))
        .observer(kept.clone())
        .build();
    org.on_token(Fault::Hang);
    let refreshing = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await }
    });
    while org.counters().token_requests == 0 {
        tokio::task::yield_now().await;
    }
    let logout = tokio::spawn({
        let (handle, org) = (handle.clone(), org.clone());
        async move { handle.logout(org).await }
    });
    refreshing.await.unwrap().unwrap_err();
    org.on_token(Fault::None);
    logout.await.unwrap().unwrap();
    let token = Secret::from(kept.0.lock().unwrap().pop().unwrap());
    oauth::refresh_token(org.clone(), &app(&org), &token)
        .await
        .unwrap();
    assert_eq!(org.counters().refresh_token_reuses, 0);
}

/// A caller that persists what `subscribe` shows gets the token of a superseded refresh.
#[tokio::test(start_paused = true)]
async fn r03_a_subscriber_sees_a_superseded_refreshs_token() {
    let handle = SessionHandle::new(|_: RefreshContext| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(session("T1").with_refresh_token("R1"))
    });
    handle.set(session("T0").with_refresh_token("R0"));
    let states = handle.subscribe();
    let _refreshing = refreshing(&handle);
    tokio::time::sleep(Duration::from_millis(1)).await;
    handle.set(session("T0b")); // A login by other means has no refresh token.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let seen = match states.state() {
        SessionState::Ready(live) => live.refresh_token().map(|t| t.expose().to_owned()),
        _ => None,
    };
    assert_eq!(seen.as_deref(), Some("R1"));
    assert_eq!(handle.refresh_token(), Some(Secret::from("R1")));
}

// === Superseded refreshes ===

/// A handle whose first refresh hangs, and the refresh tokens that were presented.
fn noting() -> (SessionHandle, Arc<Mutex<Vec<Option<String>>>>) {
    let presented = Arc::new(Mutex::new(Vec::new()));
    let log = presented.clone();
    let handle = SessionHandle::new(move |context: RefreshContext| {
        let token = context
            .refresh_token()
            .map(|token| token.expose().to_owned());
        let n = {
            let mut log = log.lock().unwrap();
            log.push(token);
            log.len()
        };
        async move {
            if n == 1 {
                pending::<()>().await;
            }
            // The token is spent by now, and the answer takes 5 s.
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(session(&format!("T{n}")).with_refresh_token(format!("R{n}")))
        }
    });
    (handle, presented)
}

/// A refresh waits for the superseded one before it. That wait must not shorten its own time: its token call could be
/// cut off, and its rotated token lost.
#[tokio::test(start_paused = true)]
async fn r03_a_refresh_after_a_superseded_one_has_its_full_time() {
    let presented = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&presented);
    let handle = SessionHandle::new(move |context: RefreshContext| {
        let log = Arc::clone(&log);
        async move {
            let n = log.lock().unwrap().len();
            log.lock()
                .unwrap()
                .push(context.refresh_token().map(|t| t.expose().to_owned()));
            if n == 0 {
                pending::<()>().await;
            }
            // The token is spent by now, and the answer takes 2 s.
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(session(&format!("A{n}")).with_refresh_token(format!("R{n}")))
        }
    });
    let hanging = tokio::spawn({
        let handle = handle.clone();
        async move { handle.session().await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let generation = handle.set(session("T0").with_refresh_token("R-new-grant"));
    assert!(hanging.await.unwrap().is_ok());
    tokio::time::sleep(Duration::from_secs(1)).await;
    handle.invalidate(generation);
    let first = handle.session().await;
    let second = handle.session().await;
    let presented = presented.lock().unwrap().clone();
    assert!(
        first.is_ok(),
        "{first:?}, then {second:?}; presented: {presented:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn r03_a_refresh_superseded_before_it_began_spends_nothing() {
    let (handle, presented) = noting();
    handle.set(session("T0").with_refresh_token("R0"));
    let mut refresh = Box::pin(handle.refresh());
    assert!(futures_util::poll!(&mut refresh).is_pending());
    // The task of the refresh has not run yet.
    handle.set(session("T8").with_refresh_token("fresh"));
    assert_eq!(refresh.await.unwrap().access_token().expose(), "T8");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(*presented.lock().unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn r03_a_refresh_superseded_while_it_waits_spends_nothing() {
    let (handle, presented) = noting();
    let mut hanging = Box::pin(handle.session());
    assert!(futures_util::poll!(&mut hanging).is_pending());
    tokio::time::sleep(Duration::from_millis(1)).await;
    handle.invalidate(handle.set(session("T8").with_refresh_token("R0")));
    let mut waiting = Box::pin(handle.session());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    tokio::time::sleep(Duration::from_millis(1)).await;
    handle.set(session("T9").with_refresh_token("fresh"));
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(*presented.lock().unwrap(), [None]);
}

#[tokio::test(start_paused = true)]
async fn r03_no_token_call_is_cut_off_within_its_own_time() {
    let (handle, presented) = noting();
    for n in 0..2 {
        let mut superseded = Box::pin(handle.session());
        assert!(futures_util::poll!(&mut superseded).is_pending());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let session = session(&format!("S{n}"));
        handle.invalidate(handle.set(match n {
            0 => session.with_refresh_token("R0"),
            _ => session,
        }));
    }
    handle.session().await.unwrap();
    let mut presented = presented.lock().unwrap().clone();
    let calls = presented.len();
    presented.dedup();
    assert_eq!(
        presented.len(),
        calls,
        "a refresh token was presented twice"
    );
}
