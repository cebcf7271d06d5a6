//! A token call that has begun is not cut off, however late it began (R3, R14).

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_salesforce_auth::{RefreshErrorKind, SessionHandle};

use crate::rotating::{Answer, Client, Server};

/// A session without a store that has expired.
fn expired(server: &Server, timeout: Duration) -> SessionHandle {
    let client = Client::new(server, 1);
    let handle = SessionHandle::builder(client.flow())
        .initial_session(server.login())
        .refresh_timeout(timeout)
        .build();
    server.expire();
    handle.invalidate(handle.try_session().unwrap().generation());
    handle
}

/// R3: a call that begins just before the timeout ends, and its token is the newest.
#[tokio::test(start_paused = true)]
async fn r03_a_call_begun_just_before_the_timeout_ends() {
    for (before, after) in [(0, 300), (300, 0), (15_000, 14_000)] {
        let server = Server::default();
        server.answer([Answer::Busy(Some(29)), Answer::slow(before, after)]);
        let handle = expired(&server, Duration::from_secs(30));
        let since = Instant::now();
        let first = handle.session().await;
        assert!(since.elapsed() <= Duration::from_secs(30));
        if let Err(error) = first {
            let kind = error.refresh_error().unwrap().kind();
            assert_eq!(kind, RefreshErrorKind::TimedOut);
        }
        // The next caller waits for the call, and makes none of its own.
        let live = handle.session().await.unwrap();
        assert_eq!(server.exchanges(), 1);
        assert!(server.accepts(live.access_token().expose()));
        server.expire();
        handle.refresh().await.unwrap();
        assert_eq!(server.reuses(), 0);
    }
}

/// R3: the endpoint is down for a while, and takes its time after that: no grant is lost by chance.
#[tokio::test(start_paused = true)]
async fn r03_an_endpoint_that_comes_back_costs_no_grant() {
    for run in 0..300 {
        let server = Server::default();
        server.always(Answer::Busy(None));
        let handle = expired(&server, Duration::from_secs(30));
        let back = Duration::from_millis(14_000 + 50 * run);
        tokio::spawn({
            let server = server.clone();
            async move {
                sleep(back).await;
                server.always(Answer::slow(0, 1_500));
            }
        });
        for _ in 0..3 {
            if handle.session().await.is_ok() {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(server.reuses(), 0, "back after {back:?}");
    }
}

/// R3: a session that is set, and rejected, while a late call drains: the next call waits for it.
#[tokio::test(start_paused = true)]
async fn r03_a_late_call_is_waited_for_after_a_set() {
    let server = Server::default();
    server.answer([Answer::Busy(Some(4)), Answer::slow(1_000, 3_000)]);
    let handle = expired(&server, Duration::from_secs(5));
    assert!(handle.session().await.is_err());
    // The copy has the token that the call is using up.
    let copy = handle.refresh_token().unwrap();
    let generation = handle.set(crate::rotating::session("another").with_refresh_token(copy));
    handle.invalidate(generation);
    handle.session().await.unwrap();
    assert_eq!((server.reuses(), server.faults()), (0, Vec::new()));
}
