//! The newest refresh token, in any order of refreshes, saves, `set` and `reset` (R3, R7).

use std::time::Duration;

use tokio::{task::JoinHandle, time::sleep};
use tower_salesforce_auth::{
    Error, ErrorKind, LiveSession, SessionHandle, observer::StoreOperation, store::OnSaveFailure,
};

use crate::{
    faulty::Fault,
    rotating::{Answer, Client, Flaw, session},
    world::{KEY, World},
};

fn token(handle: &SessionHandle) -> String {
    let token = handle.refresh_token();
    token.map_or_else(String::new, |token| token.expose().to_owned())
}

/// A manual refresh in a task of its own, whose token call is under way.
async fn refreshing(handle: &SessionHandle) -> JoinHandle<Result<LiveSession, Error>> {
    let refresh = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await }
    });
    sleep(Duration::from_millis(50)).await;
    refresh
}

// === A token call that is cut off ===

/// R3: a call that began in time, and a save after it, outlast the callers.
#[tokio::test(start_paused = true)]
async fn r03_a_call_and_a_slow_save_outlast_the_timeout() {
    let world = World::new();
    let handle = world.logged_in(1).await;
    world
        .server
        .answer([Answer::Busy(Some(14)), Answer::slow(5_000, 15_000)]);
    world.store.fault(
        StoreOperation::Save,
        [Fault::Takes(Duration::from_secs(20))],
    );
    assert!(
        world.expire(&handle).await.is_err(),
        "the callers waited for 30 s"
    );
    handle.quiesce().await.unwrap();
    assert_eq!(world.stored().await.as_deref(), Some(&*token(&handle)));
    world.expire(&handle).await.unwrap();
    world.assert_no_fault();
}

// === A session that is set ===

/// R3, R7: an access token is set during a refresh that fails and brings a token. A save leaves what others stored since.
#[tokio::test(start_paused = true)]
async fn r03_a_saved_access_token_keeps_the_newest_stored_token() {
    let after = Duration::from_millis(100);
    let flaws = Flaw::ALL.map(|flaw| Answer::Unusable(flaw, after));
    for answer in [Answer::slow(100, 100)].into_iter().chain(flaws) {
        let world = World::new();
        let (a, b) = (world.logged_in(1).await, world.process(2));
        b.session().await.unwrap();
        world.server.answer([Answer::slow(0, 100), answer]);
        // The first call is of A, so that B's comes while B has something to adopt.
        a.refresh().await.unwrap();
        b.refresh().await.unwrap();
        let refresh = refreshing(&b).await;
        b.set(session("another"));
        let _ = refresh.await.unwrap();
        b.quiesce().await.unwrap();
        a.refresh().await.unwrap();
        a.refresh().await.unwrap();
        let newest = world.stored().await;
        b.save().await.unwrap();
        assert_eq!(world.stored().await, newest, "{answer:?}");
        world.expire(&b).await.unwrap();
        world.assert_no_fault();
    }
}

/// R3: a login that was set, then refreshed, is a stored session like any other.
#[tokio::test(start_paused = true)]
async fn r03_a_refreshed_login_does_not_overwrite_later_records() {
    let world = World::new();
    let (a, b) = (world.process(1), world.process(2));
    a.set(world.server.login());
    a.refresh().await.unwrap();
    b.session().await.unwrap();
    b.refresh().await.unwrap();
    let newest = world.stored().await;
    a.save().await.unwrap();
    assert_eq!(world.stored().await, newest);
    world.expire(&a).await.unwrap();
    world.assert_no_fault();
}

/// R3: a copy of the present session is no login, whenever it is set during a refresh.
#[tokio::test(start_paused = true)]
async fn r03_a_copy_set_during_a_refresh_has_the_newest_token() {
    for at in (0..2_000).step_by(50) {
        let world = World::new();
        let (a, b) = (world.logged_in(1).await, world.process(2));
        world.server.answer([Answer::slow(100, 100)]);
        world.store.fault(
            StoreOperation::Lock,
            [Fault::Takes(Duration::from_millis(100))],
        );
        world.store.fail(StoreOperation::Save, 2);
        let copy = (*a.try_session().unwrap()).clone();
        let refresh = refreshing(&a).await;
        sleep(Duration::from_millis(at)).await;
        a.set(copy);
        let _ = refresh.await.unwrap();
        a.quiesce().await.unwrap();
        a.save().await.unwrap();
        world.expire(&b).await.unwrap();
        world.expire(&a).await.unwrap();
        world.assert_no_fault();
    }
}

/// R3: a copy from before another process refreshed is no login either, and its save does not overwrite the record.
#[tokio::test(start_paused = true)]
async fn r03_a_saved_copy_does_not_overwrite_a_newer_record() {
    let world = World::new();
    let (a, b) = (world.logged_in(1).await, world.process(2));
    b.session().await.unwrap();
    b.refresh().await.unwrap();
    let newest = world.stored().await;
    a.set((*a.try_session().unwrap()).clone());
    a.save().await.unwrap();
    assert_eq!(world.stored().await, newest);
    // Another process knows the record of the same access token, which had another refresh token.
    world.expire(&b).await.unwrap();
    world.expire(&a).await.unwrap();
    world.assert_no_fault();
}

/// R3: nor is a copy from before several refreshes, of this process or of another.
#[tokio::test(start_paused = true)]
async fn r03_an_older_copy_does_not_replace_the_newest_token() {
    for is_own in [true, false] {
        let world = World::new();
        let (a, b) = (world.logged_in(1).await, world.process(2));
        let copy = (*a.try_session().unwrap()).clone();
        for _ in 0..5 {
            world.expire(if is_own { &a } else { &b }).await.unwrap();
            world.expire(&a).await.unwrap();
        }
        let newest = token(&a);
        a.set(copy);
        assert_eq!(token(&a), newest);
        a.save().await.unwrap();
        world.expire(&b).await.unwrap();
        world.expire(&a).await.unwrap();
        world.assert_no_fault();
    }
}

/// R3: a save keeps the token of a new login, not that of the login before, which the store still has.
#[tokio::test(start_paused = true)]
async fn r03_a_save_keeps_the_token_of_a_new_login() {
    let world = World::new();
    drop(world.logged_in(1).await);
    for is_reset in [false, true] {
        let handle = world.process(2);
        let login = world.server.login();
        let newest = login.refresh_token().unwrap().clone();
        handle.set(login);
        handle.set(session("another"));
        if is_reset {
            handle.reset();
        }
        handle.save().await.unwrap();
        assert_eq!(token(&handle), newest.expose());
        assert_eq!(world.stored().await.as_deref(), Some(newest.expose()));
        drop(handle);
    }
}

/// R3: the same after a refresh of the new login failed, and after its token was marked as saved.
#[tokio::test(start_paused = true)]
async fn r03_a_save_keeps_a_token_that_is_not_stored() {
    let world = World::new();
    let before = world.process(1);
    before.set(world.server.login().with_issued_at(std::time::UNIX_EPOCH));
    before.save().await.unwrap();
    let handle = world.process(2);
    handle.set(
        world
            .server
            .login()
            .with_issued_at(std::time::UNIX_EPOCH + Duration::from_secs(2_000_000_000)),
    );
    world.store.fail(StoreOperation::Save, 3);
    handle.refresh().await.unwrap();
    let newest = token(&handle);
    handle.mark_saved(&handle.refresh_token().unwrap());
    handle.set(session("another"));
    handle.save().await.unwrap();
    assert_eq!(
        (token(&handle), world.stored().await),
        (newest.clone(), Some(newest))
    );
}

/// R7: a refresh that returns a refresh token and nothing else keeps it with the session that it belongs to.
#[tokio::test(start_paused = true)]
async fn r07_a_rotated_token_is_saved_with_its_own_session() {
    let world = World::new();
    let user = |id: &str| {
        let session = world.server.login();
        session.with_identity_url(format!("https://login.salesforce.com/id/00Dxx/{id}"))
    };
    let before = world.process(1);
    before.set(user("005xx1"));
    before.save().await.unwrap();
    let handle = world.process(2);
    let set = user("005xx2");
    let access_token = set.access_token().expose().to_owned();
    handle.set(set);
    let answer = Answer::Unusable(Flaw::Dpop, Duration::ZERO);
    world.server.answer([answer]);
    handle.refresh().await.unwrap_err();
    assert_eq!(world.stored().await, Some(token(&handle)));
    assert_eq!(world.store.access_token(KEY).await, Some(access_token));
}

// === Failures that are remembered ===

/// R3: each failure hands its rotated token over once, however often it is returned.
#[tokio::test(start_paused = true)]
async fn r03_a_latched_failure_has_no_refresh_token() {
    for flaw in Flaw::ALL {
        let answer = Answer::Unusable(flaw, Duration::ZERO);
        let world = World::new();
        let handle = world.process_that(1, OnSaveFailure::Fail);
        handle.set(world.server.login());
        handle.save().await.unwrap();
        world.server.answer([answer]);
        assert!(world.expire(&handle).await.is_err());
        world.store.fail(StoreOperation::Save, 3);
        assert!(handle.refresh().await.is_err(), "the save failed");
        let newest = token(&handle);
        // The latched failure is returned, by a search of the store and to callers.
        for _ in 0..3 {
            sleep(Duration::from_secs(20)).await;
            let _ = handle.session().await;
            assert_eq!(token(&handle), newest, "{answer:?}");
        }
        handle.refresh().await.unwrap();
        world.assert_no_fault();
    }
}

/// R3: the same with two processes, of which the other has refreshed since.
#[tokio::test(start_paused = true)]
async fn r03_a_latched_failure_gives_way_to_the_store() {
    let world = World::new();
    let (a, b) = (world.logged_in(1).await, world.process(2));
    world
        .server
        .answer([Answer::Unusable(Flaw::ForeignInstance, Duration::ZERO)]);
    assert!(world.expire(&a).await.is_err());
    world.server.answer([Answer::Busy(Some(40))]);
    assert!(a.refresh().await.is_err());
    world.expire(&b).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    a.session().await.unwrap();
    b.refresh().await.unwrap();
    a.refresh().await.unwrap();
    world.assert_no_fault();
}

// === Resets and outages ===

/// R3: a reset at any moment of a refresh whose saves fail takes no older record for a newer one.
#[tokio::test(start_paused = true)]
async fn r03_a_reset_during_a_refresh_revives_no_spent_token() {
    for at in (0..1_600).step_by(50) {
        let world = World::new();
        let handle = world.logged_in(1).await;
        world.server.answer([Answer::slow(100, 100)]);
        world.store.fault(
            StoreOperation::Lock,
            [Fault::Takes(Duration::from_millis(100))],
        );
        world.store.fault(
            StoreOperation::Load,
            [Fault::Takes(Duration::from_millis(100))],
        );
        world.store.fail(StoreOperation::Save, 3);
        world.store.unlock_takes(Duration::from_millis(200));
        let refresh = refreshing(&handle).await;
        sleep(Duration::from_millis(at)).await;
        handle.reset();
        refresh.await.unwrap().unwrap();
        for _ in 0..2 {
            world.expire(&handle).await.unwrap();
        }
        assert_eq!(world.server.reuses(), 0, "a reset after {at} ms");
    }
}

/// R3: a save that failed may have stored the token, and another process goes on from there.
#[tokio::test(start_paused = true)]
async fn r03_a_failed_save_that_was_stored_is_followed() {
    for by_hand in [false, true] {
        let world = World::new();
        let (a, b) = (world.logged_in(1).await, world.process(2));
        let afterwards = std::iter::repeat_n(Fault::FailsAfterwards, 3);
        world.store.fault(StoreOperation::Save, afterwards);
        if by_hand {
            a.set(world.server.login());
            assert!(a.save().await.is_err());
        } else {
            a.refresh().await.unwrap();
        }
        b.session().await.unwrap();
        b.refresh().await.unwrap();
        let newest = world.stored().await;
        if by_hand {
            a.save().await.unwrap();
            assert_eq!(world.stored().await, newest);
        }
        world.expire(&a).await.unwrap();
        world.assert_no_fault();
    }
}

/// R3: the same if the record was deleted before, so that the save that failed was the first of its login.
#[tokio::test(start_paused = true)]
async fn r03_a_failed_first_save_that_was_stored_is_followed() {
    let world = World::new();
    let (a, b) = (world.process(1), world.process(2));
    a.set(world.server.login());
    let afterwards = std::iter::repeat_n(Fault::FailsAfterwards, 3);
    world.store.fault(StoreOperation::Save, afterwards);
    a.refresh().await.unwrap();
    b.session().await.unwrap();
    b.refresh().await.unwrap();
    world.expire(&a).await.unwrap();
    world.assert_no_fault();
}

/// R3: the same if the session is set again before another process goes on.
#[tokio::test(start_paused = true)]
async fn r03_a_failed_save_is_followed_by_a_session_set_again() {
    let world = World::new();
    let (a, b) = (world.process(1), world.process(2));
    a.set(world.server.login());
    let afterwards = std::iter::repeat_n(Fault::FailsAfterwards, 3);
    world.store.fault(StoreOperation::Save, afterwards);
    a.refresh().await.unwrap();
    a.set((*a.try_session().unwrap()).clone());
    b.session().await.unwrap();
    b.refresh().await.unwrap();
    world.expire(&a).await.unwrap();
    world.assert_no_fault();
}

/// R3: a stored token that a save took over, and could not save again, is not presented once its record is gone.
#[tokio::test(start_paused = true)]
async fn r03_a_token_seen_by_a_failed_save_goes_with_its_record() {
    let world = World::new();
    let (a, b) = (world.logged_in(1).await, world.process(2));
    b.set(world.server.access_token());
    world.store.fail(StoreOperation::Save, 3);
    b.save().await.unwrap_err();
    a.refresh().await.unwrap();
    let org = Client::new(&world.server, 1);
    a.logout(org).await.unwrap();
    let gone = b.refresh().await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::LoggedOut);
    world.assert_no_fault();
}

/// R7: the store lock is free after a refresh, failed or not.
#[tokio::test(start_paused = true)]
async fn r07_no_refresh_keeps_the_store_lock() {
    let operations = [
        StoreOperation::Load,
        StoreOperation::Save,
        StoreOperation::Delete,
    ];
    let faults = [
        Fault::Hangs,
        Fault::Fails,
        Fault::AnswersAfter(Duration::from_secs(40)),
    ];
    for (operation, fault) in operations
        .into_iter()
        .flat_map(|operation| faults.map(|fault| (operation, fault)))
    {
        let world = World::new();
        let handle = world.logged_in(1).await;
        world.store.fault(operation, std::iter::repeat_n(fault, 4));
        let refresh = refreshing(&handle).await;
        let client = Client::new(&world.server, 1);
        tokio::spawn({
            let handle = handle.clone();
            async move { handle.logout(client).await }
        });
        let _ = refresh.await.unwrap();
        sleep(Duration::from_secs(200)).await;
        assert_eq!(world.store.held(), 0, "{operation:?} {fault:?}");
    }
}
