//! The notices of `RedisStore`: one subscription for all keys of a store, which comes back.

use futures_util::future::join_all;
use tower_salesforce_auth::store::{Record, RedisStore, Save, SessionStore};

use crate::{
    records::{KEY, first, put, session},
    servers::redis::Redis,
};

/// The connections that subscribe.
fn subscribers(redis: &Redis) -> Vec<String> {
    let clients = redis.run(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    clients.lines().map(str::to_owned).collect()
}

/// Waits until so many connections subscribe.
async fn until_subscribed(redis: &Redis, count: usize) {
    while subscribers(redis).len() != count {
        tokio::task::yield_now().await;
    }
}

/// Waits until so many connections have run a new script last.
async fn until_asked(redis: &Redis, count: usize) {
    loop {
        let clients = redis.run(&["CLIENT", "LIST", "TYPE", "normal"]);
        if clients.matches("cmd=eval ").count() == count {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn save(store: &RedisStore, key: &str) -> Record {
    let record = Record::new(session("T0"));
    let mut lock = store.lock(key).await.unwrap();
    lock.save(Save::new(&record)).await.unwrap();
    lock.unlock().await;
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_share_one_subscription() {
    let Some(redis) = Redis::start() else { return };
    let (reader, writer) = (
        RedisStore::new(redis.url()).unwrap(),
        RedisStore::new(redis.url()).unwrap(),
    );
    let keys: Vec<_> = (0..50).map(|number| format!("user {number}")).collect();
    assert!(reader.load(KEY).await.unwrap().is_none());
    assert!(subscribers(&redis).is_empty());

    let waiting = tokio::spawn({
        let (reader, keys) = (reader.clone(), keys.clone());
        async move { join_all(keys.iter().map(|key| reader.changed(key, None))).await }
    });
    until_subscribed(&redis, 1).await;
    while !subscribers(&redis)[0].contains("sub=50 ") {
        tokio::task::yield_now().await;
    }
    for key in &keys {
        save(&writer, key).await;
    }
    waiting.await.unwrap();
    assert_eq!(subscribers(&redis).len(), 1);
    drop(reader);
    until_subscribed(&redis, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_during_a_lost_subscription_is_told() {
    let Some(redis) = Redis::start() else { return };
    let (reader, writer) = (
        RedisStore::new(redis.url()).unwrap(),
        RedisStore::new(redis.url()).unwrap(),
    );
    let first = first();
    put(&writer, &first).await;
    let version = first.version();
    let mut waiting = tokio::spawn({
        let reader = reader.clone();
        async move { reader.changed(KEY, Some(version)).await }
    });
    // The connections of the writer and of the reader.
    until_asked(&redis, 2).await;
    redis.restart();
    // Without a change the wait goes on.
    until_asked(&redis, 1).await;
    assert!(futures_util::poll!(&mut waiting).is_pending());

    redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let next = first.followed_by(session("T1"));
    let mut lock = writer.lock(KEY).await.unwrap();
    lock.save(Save::new(&next).replacing(version))
        .await
        .unwrap();
    lock.unlock().await;
    waiting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_begins_while_the_server_is_down() {
    let Some(redis) = Redis::start() else { return };
    let store = RedisStore::new(redis.url()).unwrap();
    let first = first();
    put(&store, &first).await;
    redis.kill();
    let version = first.version();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.changed(KEY, Some(version)).await }
    });
    tokio::task::yield_now().await;
    redis.start_again();
    until_subscribed(&redis, 1).await;
    let mut lock = store.lock(KEY).await.unwrap();
    lock.delete().await.unwrap();
    lock.unlock().await;
    waiting.await.unwrap();
}

#[test]
fn a_wait_outlives_the_runtime_that_subscribed() {
    let Some(redis) = Redis::start() else { return };
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let store = RedisStore::new(redis.url()).unwrap();
    let (first, second) = (runtime(), runtime());
    let wait = |store: RedisStore| async move { store.changed(KEY, None).await };
    first.spawn(wait(store.clone()));
    first.block_on(until_subscribed(&redis, 1));
    let waiting = second.spawn(wait(store.clone()));
    first.shutdown_timeout(std::time::Duration::from_secs(10));
    second.block_on(async {
        until_subscribed(&redis, 1).await;
        save(&store, KEY).await;
        waiting.await.unwrap();
    });
}
