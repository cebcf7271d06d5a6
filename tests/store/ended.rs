//! Sessions that were logged out do not come back (R30), and what they leave behind is ended.

use std::time::Duration;

use tokio::time::sleep;
use tower_salesforce_auth::{
    BoxError, ErrorKind, SessionHandle, Sessions, observer::StoreOperation, store::OnSaveFailure,
};

use crate::{
    faulty::Fault,
    rotating::{Answer, Client, session},
    world::{KEY, World},
};

fn second() -> Duration {
    Duration::from_secs(1)
}

/// R30: a save of an access token after a logout whose delete failed saves no token of the login that was ended.
#[tokio::test(start_paused = true)]
async fn r30_a_save_after_a_failed_delete_revives_no_token() {
    let world = World::new();
    let handle = world.logged_in(1).await;
    world.store.fail(StoreOperation::Delete, 1);
    assert!(world.logging_out(&handle).await.unwrap().is_err());
    handle.set(session("another"));
    handle.save().await.unwrap();
    assert_eq!(
        (handle.refresh_token().is_none(), world.stored().await),
        (true, None)
    );
    let _ = handle.refresh().await;
    world.assert_no_fault();
}

/// R30: the same with a refresh in place of the save, and after a reset.
#[tokio::test(start_paused = true)]
async fn r30_a_refresh_after_a_failed_delete_adopts_nothing() {
    for is_reset in [false, true] {
        let world = World::new();
        let handle = world.logged_in(1).await;
        world.store.fail(StoreOperation::Delete, 1);
        assert!(world.logging_out(&handle).await.unwrap().is_err());
        if is_reset {
            handle.reset();
        } else {
            handle.set(session("another"));
        }
        assert!(handle.refresh().await.is_err(), "there is no refresh token");
        assert!(handle.refresh_token().is_none());
        assert_eq!(world.stored().await, None);
        world.assert_no_fault();
    }
}

/// R30: while a logout waits for the server, its record hinders no login.
#[tokio::test(start_paused = true)]
async fn r30_a_login_while_a_logout_waits_is_not_lost() {
    for is_saved in [false, true] {
        let world = World::new();
        let handle = world.logged_in(1).await;
        world.store.fail(StoreOperation::Delete, 1);
        world.server.revoking_takes(5 * second());
        let logout = world.logging_out(&handle);
        sleep(second()).await;
        let login = world.server.login();
        let family = login.refresh_token().unwrap().expose()[..3].to_owned();
        handle.set(login);
        if is_saved {
            handle.save().await.unwrap();
        }
        handle.refresh().await.unwrap();
        assert!(logout.await.unwrap().is_err(), "the delete failed");
        let token = handle.refresh_token().unwrap();
        assert!(token.expose().starts_with(&family));
        assert_eq!(world.stored().await.as_deref(), Some(token.expose()));
        world.assert_no_fault();
    }
}

/// R30: what another process has logged out is not saved again, unless the user resets the handle first.
#[tokio::test(start_paused = true)]
async fn r30_a_save_revives_no_session_logged_out_elsewhere() {
    for is_set in [false, true] {
        let world = World::new();
        let (a, b) = (world.logged_in(1).await, world.process(2));
        b.session().await.unwrap();
        world.logging_out(&a).await.unwrap().unwrap();
        if is_set {
            // It came without a refresh token, and a save would store the one that was ended.
            b.set(session("another"));
        }
        let refused = b.save().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LoggedOut);
        assert_eq!(world.stored().await, None);
        b.reset();
        b.save().await.unwrap();
        assert!(world.stored().await.is_some());
    }
}

/// R27, R30: a handle whose logout is not done is not evicted.
#[tokio::test(start_paused = true)]
async fn r30_a_handle_with_a_pending_logout_is_not_evicted() {
    let world = World::new();
    let (server, store) = (world.server.clone(), world.store.clone());
    let sessions = Sessions::new(1, move |key: &String| {
        let client = Client::new(&server, 1);
        SessionHandle::builder(client.flow())
            .store(store.of(&client), key)
            .build()
    });
    let handle = sessions.get(KEY).unwrap();
    handle.set(world.server.login());
    handle.save().await.unwrap();
    world.store.fail(StoreOperation::Delete, 1);
    assert!(world.logging_out(&handle).await.unwrap().is_err());
    drop(handle);
    let full = sessions.get("another").unwrap_err();
    assert_eq!(full.kind(), ErrorKind::SessionsFull);
    let again = sessions.get(KEY).unwrap();
    let refused = again.session().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LoggedOut);
    // Once it is done, there is room.
    again.logout(world.client(1)).await.unwrap();
    drop(again);
    sessions.get("another").unwrap();
}

/// R3, R30: a logout at any moment of a refresh leaves no spent token to a process that waits for the lock.
#[tokio::test(start_paused = true)]
async fn r30_a_logout_during_a_refresh_leaves_no_spent_token() {
    for at in (0..1_200).step_by(50) {
        let world = World::new();
        let (a, b) = (world.logged_in(1).await, world.process(2));
        b.session().await.unwrap();
        world.server.answer([Answer::slow(200, 200)]);
        world.store.fault(
            StoreOperation::Save,
            [Fault::Takes(Duration::from_millis(200))],
        );
        world.store.unlock_takes(Duration::from_millis(200));
        let refreshing = |handle: &SessionHandle| {
            let handle = handle.clone();
            tokio::spawn(async move { handle.refresh().await.is_ok() })
        };
        let (first, second) = (refreshing(&a), refreshing(&b));
        sleep(Duration::from_millis(at)).await;
        let (a, client) = (a.clone(), world.client(1));
        let logout = tokio::spawn(async move { a.logout(client).await });
        let _ = (first.await, second.await, logout.await);
        assert_eq!(world.server.reuses(), 0, "a logout after {at} ms");
    }
}

/// R30: a session that a token call returned is ended, although it was never saved or published.
#[tokio::test(start_paused = true)]
async fn r30_a_logout_ends_a_session_that_was_not_published() {
    let world = World::new();
    let client = world.client(1);
    let handle = SessionHandle::builder(client.flow())
        .store(world.store.of(&client), KEY)
        .on_save_failure(OnSaveFailure::Fail)
        .build();
    handle.set(world.server.login());
    handle.save().await.unwrap();
    world.server.answer([Answer::slow(20_000, 0)]);
    world
        .store
        .fault(StoreOperation::Save, [Fault::Takes(25 * second())]);
    let refresh = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await.is_ok() }
    });
    // The callers have given up, and the save goes on.
    assert!(!refresh.await.unwrap());
    handle.logout(world.client(1)).await.unwrap();
    assert!(
        world.server.revocations().contains(&"A0.3".to_owned()),
        "{:?}",
        world.server.revocations()
    );
    assert_eq!(world.stored().await, None);
}

/// R30: the same while the lock is released after a save that failed.
#[tokio::test(start_paused = true)]
async fn r30_a_logout_ends_a_session_that_was_not_saved() {
    let world = World::new();
    let handle = world.logged_in(1).await;
    world.store.fail(StoreOperation::Save, 3);
    world.store.unlock_takes(5 * second());
    let refresh = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await.is_ok() }
    });
    sleep(2 * second()).await;
    handle.logout(world.client(1)).await.unwrap();
    assert!(!refresh.await.unwrap());
    assert!(
        world.server.revocations().contains(&"A0.3".to_owned()),
        "{:?}",
        world.server.revocations()
    );
}

/// R30: a refresh that deletes the record for a logout hands on the tokens of another login that are in it.
#[tokio::test(start_paused = true)]
async fn r30_a_logout_during_a_refresh_ends_the_stored_login() {
    let world = World::new();
    let (before, handle) = (world.process(2), world.process(1));
    before.set(world.server.login().with_issued_at(std::time::UNIX_EPOCH));
    before.save().await.unwrap();
    // The store has the login before this one, which was not saved.
    handle.set(
        world
            .server
            .login()
            .with_issued_at(std::time::UNIX_EPOCH + Duration::from_secs(2_000_000_000)),
    );
    world.server.answer([Answer::slow(1_000, 0)]);
    let refresh = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await.is_ok() }
    });
    sleep(Duration::from_millis(500)).await;
    handle.logout_and_revoke(world.client(1)).await.unwrap();
    let _ = refresh.await;
    assert_eq!(world.stored().await, None);
    let revoked = world.server.revocations();
    assert!(
        revoked.iter().any(|token| token.starts_with("R0")),
        "{revoked:?}"
    );
}

/// R30: a logout whose client panicked is not done, and the next logout ends its tokens.
#[tokio::test(start_paused = true)]
async fn r30_a_logout_that_was_stopped_is_done_by_the_next() {
    let world = World::new();
    let handle = world.logged_in(1).await;
    let panicking = tower::service_fn(
        |_: http::Request<http_body_util::Full<bytes::Bytes>>| async {
            panic!("the client is broken");
            #[expect(unreachable_code, reason = "it gives the type")]
            Ok::<http::Response<http_body_util::Full<bytes::Bytes>>, BoxError>(
                http::Response::default(),
            )
        },
    );
    assert!(handle.logout_and_revoke(panicking).await.is_err());
    handle.logout_and_revoke(world.client(1)).await.unwrap();
    assert!(world.server.revocations().contains(&"R0.1".to_owned()));
}

/// R30: a process with an access token that the user set does not present a stored token after another process logged out.
#[tokio::test(start_paused = true)]
async fn r30_a_deleted_record_ends_a_session_that_was_set() {
    let world = World::new();
    let (a, b) = (world.logged_in(1).await, world.process(2));
    b.session().await.unwrap();
    b.set(session("another"));
    a.refresh().await.unwrap();
    a.logout(world.client(1)).await.unwrap();
    let refused = b.refresh().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LoggedOut, "{refused:?}");
    world.assert_no_fault();
}

/// R3: a record without a refresh token that another login put in place of the known one ends the token in memory.
#[tokio::test(start_paused = true)]
async fn r30_a_login_without_a_token_ends_the_one_in_memory() {
    let world = World::new();
    let (a, b) = (world.logged_in(1).await, world.process(2));
    b.session().await.unwrap();
    a.refresh().await.unwrap();
    a.logout(world.client(1)).await.unwrap();
    a.set(session("another"));
    a.save().await.unwrap();
    b.refresh().await.unwrap(); // adopts
    assert!(b.refresh().await.is_err());
    world.assert_no_fault();
}

/// R3: a save by hand does not hide from other processes that a token was rotated out.
#[tokio::test(start_paused = true)]
async fn r03_a_configured_token_is_not_presented_after_a_save() {
    let world = World::new();
    let login = world.server.login();
    let configured = login.refresh_token().unwrap().clone();
    let process = |id| {
        let client = world.client(id);
        let store = world.store.of(&client);
        let app = tower_salesforce_auth::oauth::App::new(
            tower_salesforce_auth::LoginUrl::production(),
            "3MVG9",
        );
        let flow = tower_salesforce_auth::flow::RefreshToken::new(client, app, configured.clone());
        SessionHandle::builder(flow).store(store, KEY).build()
    };
    let a = process(1);
    a.session().await.unwrap();
    a.set(session("another"));
    a.save().await.unwrap();
    let b = process(2);
    b.session().await.unwrap();
    b.logout(world.client(2)).await.unwrap();
    b.reset();
    assert!(b.session().await.is_err());
    assert_eq!(world.server.reuses(), 0);
}
