//! The end of a program (R44).

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_salesforce_auth::{
    ErrorKind, RefreshContext, Session, SessionHandle, observer::StoreOperation,
};

use crate::{
    faulty::{Fault, Faulty},
    rotating::{Answer, Client, Server},
};

fn stored(server: &Server) -> (SessionHandle, Faulty) {
    let client = Client::new(server, 1);
    let store = Faulty::new(&client);
    let handle = SessionHandle::builder(client.flow())
        .store(store.clone(), "user")
        .build();
    (handle, store)
}

/// R44: it waits for a token call and its save that no caller waits for, and starts nothing.
#[tokio::test(start_paused = true)]
async fn r44_quiesce_waits_for_an_abandoned_refresh() {
    let server = Server::default();
    let (handle, store) = stored(&server);
    handle.set(server.login());
    handle.save().await.unwrap();
    handle.quiesce().await.unwrap();
    assert_eq!(server.exchanges(), 0);
    server.answer([Answer::slow(5_000, 5_000)]);
    store.fault(StoreOperation::Save, [Fault::Takes(Duration::from_secs(5))]);
    let refresh = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await }
    });
    sleep(Duration::from_secs(1)).await;
    refresh.abort();
    let since = Instant::now();
    handle.quiesce().await.unwrap();
    assert_eq!(since.elapsed().as_secs(), 14);
    let token = handle.refresh_token().unwrap();
    assert_eq!(
        store.refresh_token("user").await.as_deref(),
        Some(token.expose())
    );
    assert_eq!((server.exchanges(), store.held()), (1, 0));
}

/// R44: the same for a refresh whose session was replaced, and for a save by hand whose caller is gone.
#[tokio::test(start_paused = true)]
async fn r44_quiesce_waits_for_what_was_superseded() {
    let server = Server::default();
    let (handle, store) = stored(&server);
    handle.set(server.login());
    server.answer([Answer::slow(0, 5_000)]);
    let refresh = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await }
    });
    sleep(Duration::from_secs(1)).await;
    handle.set(crate::rotating::session("another"));
    refresh.await.unwrap().unwrap();
    handle.quiesce().await.unwrap();
    let newest = handle.refresh_token().unwrap();
    assert_eq!(
        store.refresh_token("user").await.as_deref(),
        Some(newest.expose())
    );

    store.fault(StoreOperation::Save, [Fault::Takes(Duration::from_secs(5))]);
    let save = tokio::spawn({
        let handle = handle.clone();
        async move { handle.save().await }
    });
    sleep(Duration::from_secs(1)).await;
    save.abort();
    handle.quiesce().await.unwrap();
    assert_eq!(store.access_token("user").await.as_deref(), Some("another"));
}

/// R44: a rotated token that is in this process only is an error, with a store and without.
#[tokio::test(start_paused = true)]
async fn r44_quiesce_reports_an_unsaved_token() {
    let server = Server::default();
    let (handle, store) = stored(&server);
    handle.set(server.login());
    store.fail(StoreOperation::Save, 3);
    handle.refresh().await.unwrap();
    assert_eq!(handle.quiesce().await.unwrap_err().kind(), ErrorKind::Store);
    handle.save().await.unwrap_or_default();
    handle.refresh().await.unwrap();
    handle.quiesce().await.unwrap();

    let handle = SessionHandle::new(Client::new(&server, 2).flow());
    handle.set(server.login());
    handle.quiesce().await.unwrap();
    handle.refresh().await.unwrap();
    assert_eq!(handle.quiesce().await.unwrap_err().kind(), ErrorKind::Store);
    handle.mark_saved(&handle.refresh_token().unwrap());
    handle.quiesce().await.unwrap();
}

/// R44: it bounds itself, even if the call or the store hangs.
#[tokio::test(start_paused = true)]
async fn r44_quiesce_bounds_itself() {
    let server = Server::default();
    for operation in [
        StoreOperation::Lock,
        StoreOperation::Load,
        StoreOperation::Save,
    ] {
        let (handle, store) = stored(&server);
        handle.set(server.login());
        store.fault(operation, std::iter::repeat_n(Fault::Hangs, 9));
        let _waiting = tokio::spawn({
            let handle = handle.clone();
            async move { handle.refresh().await }
        });
        sleep(Duration::from_secs(1)).await;
        let since = Instant::now();
        let _ = handle.quiesce().await;
        assert!(since.elapsed() <= Duration::from_secs(91), "{operation:?}");
    }
    let handle =
        SessionHandle::new(|_: RefreshContext| std::future::pending::<Result<Session, _>>());
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.session().await }
    });
    sleep(Duration::from_secs(1)).await;
    handle.quiesce().await.unwrap();
    assert!(waiting.await.unwrap().is_err());
}
