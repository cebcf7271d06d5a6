//! Logout: at once here, and at the server (R30).

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, OnceLock},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_salesforce_auth::{
    Error, ErrorKind, LiveSession, RefreshContext, RefreshError, RefreshErrorKind, ReplayBody,
    SalesforceAuthLayer, Session, SessionHandle,
    emulator::{Fault, Org},
    flow::{ClientCredentials, RefreshToken, SoapLogin},
    handle::SessionState,
    oauth,
    observer::Observer,
};

use crate::support::{answering, app, get_limits, granted, layer, recorded};

async fn is_good(org: &Org, session: &Session) -> bool {
    let layer = SalesforceAuthLayer::fixed(session.clone());
    get_limits(&layer, org).await.unwrap().0 == StatusCode::OK
}

async fn assert_logged_out(layer: &SalesforceAuthLayer, org: &Org) {
    let before = org.counters();
    for _ in 0..3 {
        let error = get_limits(layer, org).await.unwrap_err();
        let error: &Error = error.downcast_ref().unwrap();
        assert_eq!(error.kind(), ErrorKind::LoggedOut);
    }
    let handle = layer.handle();
    assert_eq!(
        handle.session().await.unwrap_err().kind(),
        ErrorKind::LoggedOut
    );
    assert_eq!(
        handle.refresh().await.unwrap_err().kind(),
        ErrorKind::LoggedOut
    );
    assert!(handle.try_session().is_none() && handle.refresh_token().is_none());
    assert!(matches!(
        handle.subscribe().state(),
        SessionState::LoggedOut
    ));
    let after = org.counters();
    assert_eq!(after.token_requests, before.token_requests);
    assert_eq!(after.data_requests, before.data_requests);
}

#[tokio::test]
async fn r30_logout_ends_the_access_token_and_leaves_the_grant() {
    let org = Org::new();
    let layer = layer(&org);
    let session = (*layer.handle().try_session().unwrap()).clone();
    layer.handle().logout(org.clone()).await.unwrap();
    assert_logged_out(&layer, &org).await;
    assert!(!is_good(&org, &session).await);
    assert_eq!(org.counters().revoke_requests, 1);
    let again = RefreshToken::new(
        org.clone(),
        app(&org),
        session.refresh_token().unwrap().clone(),
    );
    assert_eq!(
        get_limits(&SalesforceAuthLayer::new(again), &org)
            .await
            .unwrap()
            .0,
        StatusCode::OK
    );
    // A second logout has nothing left to revoke.
    layer.handle().logout(org.clone()).await.unwrap();
    assert_eq!(org.counters().revoke_requests, 1);
}

#[tokio::test]
async fn r30_logout_and_revoke_ends_the_grant_and_its_sessions() {
    let org = Org::new();
    let layer = layer(&org);
    let first = (*layer.handle().try_session().unwrap()).clone();
    layer.handle().refresh().await.unwrap();
    let second = (*layer.handle().try_session().unwrap()).clone();
    layer.handle().logout_and_revoke(org.clone()).await.unwrap();
    assert_logged_out(&layer, &org).await;
    assert!(!is_good(&org, &first).await && !is_good(&org, &second).await);
    let newest = second.refresh_token().unwrap().clone();
    let dead = SalesforceAuthLayer::new(RefreshToken::new(org.clone(), app(&org), newest));
    get_limits(&dead, &org).await.unwrap_err();
    let counters = org.counters();
    assert_eq!(
        (counters.revoke_requests, counters.refresh_token_reuses),
        (1, 0)
    );
}

#[tokio::test]
async fn r30_logout_without_refresh_token_revokes_the_access_token() {
    let org = Org::new();
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), app(&org)));
    get_limits(&layer, &org).await.unwrap();
    let session = (*layer.handle().try_session().unwrap()).clone();
    layer.handle().logout_and_revoke(org.clone()).await.unwrap();
    assert_logged_out(&layer, &org).await;
    assert!(!is_good(&org, &session).await);
}

#[tokio::test]
async fn r30_logout_of_a_soap_session_is_a_soap_call() {
    let org = Org::new();
    let login_url = org.login_url().parse().unwrap();
    let flow = SoapLogin::new(org.clone(), login_url, org.username(), org.password())
        .security_token(org.security_token());
    let layer = SalesforceAuthLayer::new(flow);
    get_limits(&layer, &org).await.unwrap();
    let session = (*layer.handle().try_session().unwrap()).clone();
    let (client, requests) = recorded(org.clone());
    layer.handle().logout(client.clone()).await.unwrap();
    assert_logged_out(&layer, &org).await;
    assert!(!is_good(&org, &session).await);
    assert_eq!(
        (org.counters().soap_logouts, org.counters().revoke_requests),
        (1, 0)
    );
    let [request] = requests.take().try_into().unwrap();
    assert_eq!(request.uri().path(), "/services/Soap/u/64.0");

    // A second SOAP logout of the same session is no error.
    layer.handle().set(session);
    layer.handle().logout_and_revoke(client).await.unwrap();
    assert_logged_out(&layer, &org).await;
}

#[tokio::test]
async fn r30_logout_clears_local_state_if_revocation_fails() {
    let org = Org::new();
    for (fault, kind) in [
        (
            Fault::refuse(StatusCode::BAD_REQUEST, "unsupported_token_type", ""),
            RefreshErrorKind::Refused,
        ),
        (Fault::Maintenance, RefreshErrorKind::InvalidResponse),
        (Fault::LoseAnswer, RefreshErrorKind::Transport),
    ] {
        for revoke in [false, true] {
            org.on_revoke(fault.clone());
            let layer = layer(&org);
            let handle = layer.handle();
            let error = if revoke {
                handle.logout_and_revoke(org.clone()).await.unwrap_err()
            } else {
                handle.logout(org.clone()).await.unwrap_err()
            };
            assert_eq!(error.kind(), ErrorKind::Logout);
            assert_eq!(error.refresh_error().unwrap().kind(), kind);
            assert_logged_out(&layer, &org).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r30_logout_discards_a_running_refresh_and_revokes_it() {
    for revoke in [false, true] {
        let org = Org::new();
        let layer = layer(&org);
        org.expire_sessions();
        org.on_token(Fault::Hang);
        let waiting = join_all((0..50).map(|_| {
            let (layer, org) = (layer.clone(), org.clone());
            tokio::spawn(async move { get_limits(&layer, &org).await.map(drop) })
        }));
        while org.counters().token_requests == 0 {
            tokio::task::yield_now().await;
        }
        let handle = layer.handle();
        let logout = tokio::spawn({
            let (handle, org) = (handle.clone(), org.clone());
            async move {
                if revoke {
                    handle.logout_and_revoke(org).await
                } else {
                    handle.logout(org).await
                }
            }
        });
        // Every waiter fails at once. Only the logout waits for the token call.
        for waiter in waiting.await {
            let error = waiter.unwrap().unwrap_err();
            let error: &Error = error.downcast_ref().unwrap();
            assert_eq!(error.kind(), ErrorKind::LoggedOut);
        }
        assert_logged_out(&layer, &org).await;
        assert_eq!(org.counters().revoke_requests, 0);
        org.on_token(Fault::None);
        logout.await.unwrap().unwrap();
        assert_logged_out(&layer, &org).await;
        let counters = org.counters();
        assert_eq!((counters.token_requests, counters.tokens_issued), (1, 1));
        assert_eq!(counters.refresh_token_reuses, 0);
        // Revoked are the expired access token, and the new one or its grant.
        assert_eq!(counters.revoke_requests, 2);
        assert_eq!(counters.tokens_revoked, 1);
    }
}

/// A dropped logout still clears the session here and revokes it at the server.
#[tokio::test]
async fn r30_logout_goes_on_if_its_caller_is_dropped() {
    for polls in 1..6 {
        let org = Org::new();
        let layer = layer(&org);
        let session = (*layer.handle().try_session().unwrap()).clone();
        let handle = layer.handle();
        {
            let mut logout = pin!(handle.logout_and_revoke(org.clone()));
            for _ in 0..polls {
                let polled = poll_fn(|cx| Poll::Ready(logout.as_mut().poll(cx))).await;
                if polled.is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        assert_logged_out(&layer, &org).await;
        while org.counters().tokens_revoked == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!is_good(&org, &session).await);
    }
}

#[tokio::test(start_paused = true)]
async fn r30_logout_waits_for_a_hung_refresh_until_its_timeout() {
    let org = Org::new();
    let layer = layer(&org);
    org.expire_sessions();
    org.on_token(Fault::Hang);
    let request = tokio::spawn({
        let (layer, org) = (layer.clone(), org.clone());
        async move { get_limits(&layer, &org).await.map(drop) }
    });
    while org.counters().token_requests == 0 {
        tokio::task::yield_now().await;
    }
    let started = tokio::time::Instant::now();
    layer.handle().logout_and_revoke(org.clone()).await.unwrap();
    assert!(started.elapsed() <= Duration::from_secs(30));
    request.await.unwrap().unwrap_err();
    assert_eq!(org.counters().tokens_revoked, 1);
}

#[tokio::test]
async fn r30_logout_is_undone_by_a_session_or_a_reset() {
    let org = Org::new();
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), app(&org)));
    get_limits(&layer, &org).await.unwrap();
    layer.handle().logout(org.clone()).await.unwrap();
    assert_logged_out(&layer, &org).await;
    layer.handle().reset();
    assert!(matches!(
        layer.handle().subscribe().state(),
        SessionState::Empty
    ));
    assert_eq!(get_limits(&layer, &org).await.unwrap().0, StatusCode::OK);
    assert_eq!(org.counters().token_requests, 2);

    layer.handle().logout(org.clone()).await.unwrap();
    let grant = org.authorize();
    layer
        .handle()
        .set(Session::new(grant.access_token(), grant.instance_url()).unwrap());
    assert_eq!(get_limits(&layer, &org).await.unwrap().0, StatusCode::OK);
    assert_eq!(org.counters().token_requests, 2);
}

#[tokio::test]
async fn r30_logout_of_a_fixed_session_revokes_it() {
    let org = Org::new();
    let grant = org.authorize();
    let session = Session::new(grant.access_token(), grant.instance_url()).unwrap();
    let layer = SalesforceAuthLayer::fixed(session.clone());
    // The login URL is unknown, so the instance is asked to revoke.
    layer.handle().logout(org.clone()).await.unwrap();
    assert_logged_out(&layer, &org).await;
    assert!(!is_good(&org, &session).await);
}

#[tokio::test]
async fn dropping_the_layer_does_not_log_out() {
    let org = Org::new();
    let layer = layer(&org);
    let session = (*layer.handle().try_session().unwrap()).clone();
    drop(layer);
    tokio::task::yield_now().await;
    assert_eq!(org.counters().revoke_requests, 0);
    assert!(is_good(&org, &session).await);
}

#[test]
fn r30_logout_outside_a_runtime_clears_local_state() {
    let org = Org::new();
    let layer = layer(&org);
    let logout = layer.handle();
    let logout = logout.logout(org.clone());
    let error = futures_util::FutureExt::now_or_never(logout)
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRuntime);
    assert!(layer.handle().try_session().is_none());
}

/// A logout waits for the running refresh, which here would wait for the logout.
#[tokio::test(start_paused = true)]
async fn a_refresh_fn_that_logs_out_does_not_wait_for_itself() {
    use std::sync::{Arc, OnceLock};
    use tower_salesforce_auth::{RefreshContext, RefreshError, SessionHandle};

    let org = Org::new();
    let known: Arc<OnceLock<SessionHandle>> = Arc::default();
    let handle = SessionHandle::new({
        let (known, org) = (Arc::clone(&known), org.clone());
        move |_: RefreshContext| {
            let (known, org) = (Arc::clone(&known), org.clone());
            async move {
                known
                    .get()
                    .unwrap()
                    .logout(org)
                    .await
                    .map_err(RefreshError::terminal)?;
                Err(RefreshError::terminal("enough"))
            }
        }
    });
    known.set(handle.clone()).unwrap();
    let started = tokio::time::Instant::now();
    assert_eq!(
        handle.session().await.unwrap_err().kind(),
        ErrorKind::LoggedOut
    );
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn r30_logout_and_revoke_ends_another_logins_session_too() {
    let org = Org::new();
    let handle = SessionHandle::new(ClientCredentials::new(org.clone(), app(&org)));
    handle.set(granted(&org));
    let lone = granted(&org);
    let lone = Session::new(lone.access_token().clone(), &org.instance_url()).unwrap();
    handle.set(lone.clone());
    handle.logout_and_revoke(org.clone()).await.unwrap();
    assert!(!is_good(&org, &lone).await);
}

#[tokio::test]
async fn r30_logout_can_be_repeated_after_a_failure() {
    for revoke in [false, true] {
        let org = Org::new();
        let handle = SessionHandle::fixed(granted(&org));
        let session = (*handle.try_session().unwrap()).clone();
        org.on_revoke(Fault::Maintenance);
        let log_out = async || {
            if revoke {
                handle.logout_and_revoke(org.clone()).await
            } else {
                handle.logout(org.clone()).await
            }
        };
        assert_eq!(log_out().await.unwrap_err().kind(), ErrorKind::Logout);
        assert!(is_good(&org, &session).await);
        assert_eq!(log_out().await.unwrap_err().kind(), ErrorKind::Logout);
        org.on_revoke(Fault::None);
        log_out().await.unwrap();
        assert!(!is_good(&org, &session).await);
        let refresh_token = session.refresh_token().unwrap();
        let refreshed = oauth::refresh_token(org.clone(), &app(&org), refresh_token).await;
        assert_eq!(refreshed.is_err(), revoke);
        let before = org.counters().revoke_requests;
        log_out().await.unwrap();
        assert_eq!(org.counters().revoke_requests, before, "nothing is left");
    }
}

#[tokio::test(start_paused = true)]
async fn r30_logout_at_a_silent_server_times_out() {
    let org = Org::new();
    org.on_revoke(Fault::Hang);
    let session = granted(&org);
    let handle = SessionHandle::fixed(session.clone());
    let started = tokio::time::Instant::now();
    let error = handle.logout(org.clone()).await.unwrap_err();
    assert_eq!(
        error.refresh_error().unwrap().kind(),
        RefreshErrorKind::TimedOut
    );
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    // A logout that timed out can be repeated.
    org.on_revoke(Fault::None);
    assert!(is_good(&org, &session).await);
    handle.logout(org.clone()).await.unwrap();
    assert!(!is_good(&org, &session).await);
}

#[tokio::test]
async fn r30_logout_by_an_observer_discards_the_new_session() {
    #[derive(Clone, Default)]
    struct Leaver(Arc<OnceLock<(SessionHandle, Org)>>);

    impl Observer for Leaver {
        fn session_changed(&self, _: &LiveSession) {
            if let Some((handle, org)) = self.0.get() {
                let _ = handle.logout(org.clone()).now_or_never();
            }
        }
    }

    let org = Org::new();
    let leaver = Leaver::default();
    let flow = ClientCredentials::new(org.clone(), app(&org));
    let handle = SessionHandle::builder(flow)
        .observer(leaver.clone())
        .build();
    assert!(leaver.0.set((handle.clone(), org.clone())).is_ok());
    let error = handle.session().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoggedOut);
}

#[tokio::test]
async fn r16_a_request_before_a_logout_is_not_replayed_after_it() {
    let alice = "005xx0000000001";
    let session = |user: &str, token| {
        let session = Session::new(token, "https://example.my.salesforce.com");
        session.unwrap().with_ids("00Dxx0000000001", user)
    };
    for second_user in [alice, "005xx0000000002"] {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        let answered = answered.shared();
        let inner = {
            let sent = Arc::clone(&sent);
            service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
                let token = request.headers()["authorization"].to_str().unwrap();
                sent.lock().unwrap().push(token.to_owned());
                let answered = answered.clone();
                async move {
                    let _ = answered.await;
                    let response = Response::builder().status(StatusCode::UNAUTHORIZED);
                    response.body(Full::<Bytes>::default())
                }
            })
        };
        let layer = SalesforceAuthLayer::new(async |_: RefreshContext| {
            Err::<Session, _>(RefreshError::terminal("none"))
        });
        let handle = layer.handle();
        handle.set(session(alice, "FIRST"));
        let before = handle.try_session().unwrap().generation();
        let request = Request::post("/")
            .body(Full::<Bytes>::from("alice's"))
            .unwrap();
        let mut asked = std::pin::pin!(layer.layer(inner).oneshot(request));
        assert!(asked.as_mut().now_or_never().is_none());

        handle.logout(answering(200, &[], "")).await.unwrap();
        handle.set(session(second_user, "SECOND"));
        assert!(handle.try_session().unwrap().generation() > before);
        answer.send(()).unwrap();

        assert_eq!(asked.await.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(*sent.lock().unwrap(), ["Bearer FIRST"]);
        // The old generation does not invalidate the new session.
        handle.invalidate(before);
        assert!(handle.try_session().is_some());
    }
}
