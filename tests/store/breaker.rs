//! The breaker, with a store and with requests that cannot be replayed (R12, R43).

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};
use tower_salesforce_auth::{SalesforceAuthLayer, SessionHandle, request::NoReplay};

use crate::{
    faulty::Faulty,
    rotating::{Answer, Client, INSTANCE, Server},
};

const KEY: &str = "user";

/// Sends a request. Its answer takes its time, so that callers meet.
async fn send(handle: &SessionHandle, server: &Server, is_replayable: bool) -> StatusCode {
    let server = server.clone();
    let api = service_fn(move |request: Request<_>| {
        let access = request.headers()[AUTHORIZATION].to_str().unwrap();
        let is_accepted = server.accepts(access.trim_start_matches("Bearer "));
        async move {
            sleep(Duration::from_millis(10)).await;
            let mut response = Response::new(Full::<Bytes>::default());
            if !is_accepted {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut request = Request::get(format!("{INSTANCE}/services/data"))
        .body(Full::<Bytes>::default())
        .unwrap();
    if !is_replayable {
        request.extensions_mut().insert(NoReplay);
    }
    let service = SalesforceAuthLayer::from(handle.clone()).layer(api);
    service.oneshot(request).await.unwrap().status()
}

/// Opens the breaker: the session of each refresh ends before its first use.
async fn open_breaker(handle: &SessionHandle, server: &Server) {
    for _ in 0..3 {
        server.expire();
        server.answer([Answer::slow(0, 100)]);
        let ending = tokio::spawn({
            let server = server.clone();
            async move {
                sleep(Duration::from_millis(60)).await;
                server.expire();
            }
        });
        assert_eq!(send(handle, server, true).await, StatusCode::UNAUTHORIZED);
        ending.await.unwrap();
    }
}

/// R12: while the breaker is open, a session that another process stored is adopted, and its acceptance closes the breaker.
#[tokio::test(start_paused = true)]
async fn r12_an_open_breaker_does_not_keep_from_adopting() {
    let server = Server::default();
    let (a, b) = (Client::new(&server, 1), Client::new(&server, 2));
    let store = Faulty::new(&a);
    let process = |client: &Client| {
        SessionHandle::builder(client.flow())
            .store(store.of(client), KEY)
            .build()
    };
    let (a, b) = (process(&a), process(&b));
    b.set(server.login());
    b.save().await.unwrap();
    open_breaker(&b, &server).await;
    let exchanges = server.exchanges();
    assert_eq!(send(&b, &server, true).await, StatusCode::UNAUTHORIZED);
    assert_eq!(server.exchanges(), exchanges, "the breaker is open");
    a.session().await.unwrap();
    a.refresh().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(send(&b, &server, true).await, StatusCode::OK);
    assert_eq!(
        server.exchanges(),
        exchanges + 1,
        "that of the other process"
    );
    // It is closed: an expiry causes a refresh at once.
    server.expire();
    assert_eq!(send(&b, &server, true).await, StatusCode::OK);
    assert_eq!(server.reuses(), 0);
}

/// R12: a refresh for a request that cannot be replayed says nothing of the next rejection.
#[tokio::test(start_paused = true)]
async fn r12_an_unreplayed_request_opens_no_breaker() {
    let server = Server::default();
    let handle = SessionHandle::new(Client::new(&server, 1).flow());
    handle.set(server.login());
    for _ in 0..3 {
        server.expire();
        assert_eq!(
            send(&handle, &server, false).await,
            StatusCode::UNAUTHORIZED
        );
        // The new session ends within moments.
        server.expire();
        assert_eq!(send(&handle, &server, true).await, StatusCode::OK);
    }
}

/// R12: such requests alone open it, or each would cost a token call.
#[tokio::test(start_paused = true)]
async fn r12_unreplayed_requests_alone_open_the_breaker() {
    let server = Server::default();
    let handle = SessionHandle::new(Client::new(&server, 1).flow());
    handle.set(server.login());
    for _ in 0..1_000 {
        server.expire();
        assert_eq!(
            send(&handle, &server, false).await,
            StatusCode::UNAUTHORIZED
        );
        sleep(Duration::from_millis(600)).await;
    }
    assert!(server.exchanges() <= 12, "{}", server.exchanges());
}

/// R43: rejected callers that join a manual refresh count for the breaker.
#[tokio::test(start_paused = true)]
async fn r43_callers_that_join_a_refresh_count_for_the_breaker() {
    let server = Server::default();
    let handle = SessionHandle::new(Client::new(&server, 1).flow());
    handle.set(server.login());
    for _ in 0..100 {
        server.expire();
        server.answer([Answer::slow(0, 100)]);
        let is_first = server.exchanges() == 0;
        let refresh = tokio::spawn({
            let (handle, is_manual) = (handle.clone(), is_first);
            async move { is_manual && handle.refresh().await.is_ok() }
        });
        let rejected = tokio::spawn({
            let (handle, server) = (handle.clone(), server.clone());
            async move { send(&handle, &server, true).await }
        });
        sleep(Duration::from_millis(60)).await;
        server.expire();
        assert_eq!(rejected.await.unwrap(), StatusCode::UNAUTHORIZED);
        refresh.await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    // The joined refresh was useless, so the breaker opened after it: 1, 2, 4 and 8 s in 20 s.
    assert!(server.exchanges() <= 6, "{}", server.exchanges());
}
