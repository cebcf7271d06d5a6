//! A refresh by hand waits for no sleep, and gets no failure of before; sleeping is not exchanging (R11).

use std::time::Duration;

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tower_salesforce_auth::{
    Error, LiveSession, SessionHandle, handle::SessionState, observer::StoreOperation,
};

use crate::{
    faulty::{Fault, Faulty},
    rotating::{Answer, Client, Flaw, Server},
};

const SOON: Duration = Duration::from_secs(1);

fn handle(server: &Server) -> SessionHandle {
    let client = Client::new(server, 1);
    SessionHandle::builder(client.flow())
        .initial_session(server.login())
        .build()
}

fn reject(handle: &SessionHandle, server: &Server) {
    server.expire();
    handle.invalidate(handle.try_session().unwrap().generation());
}

/// A caller in a task of its own, whose refresh has begun.
async fn waiting(handle: &SessionHandle) -> JoinHandle<Result<LiveSession, Error>> {
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.session().await }
    });
    sleep(Duration::from_millis(100)).await;
    waiting
}

/// R11: a session that is set during a back-off waits for nothing when it is rejected, nor does a logout.
#[tokio::test(start_paused = true)]
async fn r11_a_back_off_holds_up_nothing_that_follows() {
    for is_logout in [false, true] {
        let server = Server::default();
        server.answer([Answer::Busy(Some(25))]);
        let handle = handle(&server);
        reject(&handle, &server);
        let waiting = waiting(&handle).await;
        let since = Instant::now();
        if is_logout {
            handle
                .logout_and_revoke(Client::new(&server, 1))
                .await
                .unwrap();
            assert!(waiting.await.unwrap().is_err());
        } else {
            handle.set(server.login());
            assert!(waiting.await.unwrap().is_ok());
            reject(&handle, &server);
            handle.session().await.unwrap();
        }
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    }
}

/// R11: a manual refresh during a back-off tries at once, for all that wait.
#[tokio::test(start_paused = true)]
async fn r11_a_manual_refresh_ends_a_back_off() {
    let server = Server::default();
    server.answer([Answer::Busy(Some(25))]);
    let handle = handle(&server);
    reject(&handle, &server);
    let waiting = waiting(&handle).await;
    let since = Instant::now();
    handle.refresh().await.unwrap();
    waiting.await.unwrap().unwrap();
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}

/// R11: the same if the refresh that it joins has not begun to sleep, and if that waits for an earlier one.
#[tokio::test(start_paused = true)]
async fn r11_a_manual_refresh_does_not_inherit_a_back_off() {
    // A caller starts a refresh, which would wait.
    let server = Server::default();
    server.answer([Answer::Busy(Some(20))]);
    let handle = handle(&server);
    assert!(handle.refresh().await.is_err());
    reject(&handle, &server);
    let since = Instant::now();
    let (waiting, refreshed) = tokio::join!(handle.session(), handle.refresh());
    assert!(waiting.is_ok() && refreshed.is_ok());
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());

    // The refresh before drains, and fails.
    let server = Server::default();
    server.answer([Answer::Busy(Some(29)), Answer::slow(20_000, 0)]);
    let handle = self::handle(&server);
    reject(&handle, &server);
    assert!(
        handle.session().await.is_err(),
        "the callers have waited for 30 s"
    );
    server.revoke_all();
    let waiting = self::waiting(&handle).await;
    let refresh = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await.map(|_| ()) }
    });
    sleep(25 * SOON).await;
    assert!(waiting.await.unwrap().is_err() && refresh.await.unwrap().is_err());
    assert_eq!(server.exchanges(), 2, "one for the refresh by hand");
}

/// R11: several manual refreshes end one sleep, and the next attempt waits again.
#[tokio::test(start_paused = true)]
async fn r11_manual_refreshes_skip_one_back_off_only() {
    let server = Server::default();
    server.answer([Answer::Busy(Some(10)), Answer::Busy(Some(10))]);
    let handle = handle(&server);
    reject(&handle, &server);
    let waiting = waiting(&handle).await;
    let since = Instant::now();
    let (first, second, third) = tokio::join!(handle.refresh(), handle.refresh(), handle.refresh());
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    waiting.await.unwrap().unwrap();
    assert!(since.elapsed() >= 10 * SOON, "{:?}", since.elapsed());
}

/// R10: a manual refresh that meets a search of the store makes a token call.
#[tokio::test(start_paused = true)]
async fn r10_a_manual_refresh_that_meets_a_search_tries() {
    for at in [0, 50, 150] {
        let server = Server::default();
        let client = Client::new(&server, 1);
        let store = Faulty::new(&client);
        let handle = SessionHandle::builder(client.flow())
            .store(store.clone(), "user")
            .build();
        handle.set(server.login());
        handle.save().await.unwrap();
        server.answer([Answer::Unusable(Flaw::ForeignInstance, Duration::ZERO)]);
        reject(&handle, &server);
        assert!(handle.session().await.is_err());
        let state = handle.subscribe().state();
        assert!(
            matches!(state, SessionState::ReauthenticationRequired(_)),
            "{state:?}"
        );
        sleep(60 * SOON).await;
        store.fault(
            StoreOperation::Load,
            [Fault::Takes(Duration::from_millis(200))],
        );
        let waiting = tokio::spawn({
            let handle = handle.clone();
            async move { handle.session().await }
        });
        sleep(Duration::from_millis(at)).await;
        handle.refresh().await.unwrap();
        waiting.await.unwrap().unwrap();
        assert_eq!((server.exchanges(), server.reuses()), (2, 0));
    }
}
