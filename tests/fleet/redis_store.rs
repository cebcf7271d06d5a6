//! `RedisStore` keeps the contract of a session store, at a real server.

use std::time::Duration;

use tokio::time::timeout;
use tower_salesforce_auth::store::{
    EncryptionKey, Record, RedisStore, Save, SessionStore, conformance,
};

use crate::{
    records::{KEY, first, put, session},
    servers::redis::Redis,
};

const LEASE: Duration = Duration::from_secs(1);

fn open(redis: &Redis) -> RedisStore {
    let store = RedisStore::new(redis.url()).unwrap();
    store.lock_timeout(Duration::from_millis(200))
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_store_conforms() {
    let Some(redis) = Redis::start() else { return };
    conformance::check(|| open(&redis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_store_with_encryption_conforms() {
    let Some(redis) = Redis::start() else { return };
    let key = EncryptionKey::new([7; 32]);
    conformance::check(|| open(&redis).encryption(key.clone())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_store_keeps_its_leases() {
    let Some(redis) = Redis::start() else { return };
    conformance::check_leases(|| open(&redis).lease(LEASE), LEASE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_store_tells_of_changes() {
    let Some(redis) = Redis::start() else { return };
    conformance::check_notices(|| open(&redis)).await;
}

/// The user that the documentation of `RedisStore` has.
const ACL: &str = "on >password resetkeys ~tower-salesforce-auth:* resetchannels &tower-salesforce-auth:* -@all +eval +evalsha \
                   +get +set +del +exists +pexpire +pttl +persist +hmget +hset +hdel +publish +subscribe +unsubscribe +ping \
                   +select";

#[tokio::test(flavor = "multi_thread")]
async fn redis_store_conforms_with_the_documented_permissions() {
    let Some(redis) = Redis::start() else { return };
    let rules: Vec<_> = ["ACL", "SETUSER", "sessions"]
        .into_iter()
        .chain(ACL.split_whitespace())
        .collect();
    redis.run(&rules);
    redis.run(&["ACL", "SETUSER", "default", "off"]);
    let url = format!("redis://sessions:password@127.0.0.1:{}/3", redis.port());
    let open = || {
        let store = RedisStore::new(&url).unwrap();
        store.lock_timeout(Duration::from_millis(200))
    };
    conformance::check(open).await;
    conformance::check_leases(|| open().lease(LEASE), LEASE).await;
    conformance::check_notices(open).await;
    let known = redis.commands(&[&["AUTH", "sessions", "password"], &["GET", "other"]]);
    assert!(known.starts_with("-NOPERM"), "{known}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_with_other_prefixes_or_databases_are_apart() {
    let Some(redis) = Redis::start() else { return };
    let first = first();
    put(&open(&redis), &first).await;
    let other = open(&redis).prefix("other:");
    assert!(other.load(KEY).await.unwrap().is_none());
    let second = RedisStore::new(format!("{}/1", redis.url())).unwrap();
    assert!(second.load(KEY).await.unwrap().is_none());
    assert_eq!(other.name(KEY), format!("other:{{key:{KEY}}}"));
}

/// R33: a store that was made of another one has none of its locks.
#[tokio::test(flavor = "multi_thread")]
async fn r33_a_kept_lock_stays_with_its_prefix() {
    let Some(redis) = Redis::start() else { return };
    let store = open(&redis);
    let other = store.clone().prefix("other:");
    let first = first();
    let mut lock = store.lock(KEY).await.unwrap();
    // The answer never comes.
    drop(timeout(Duration::ZERO, lock.save(Save::new(&first))).await);
    drop(lock);
    other.lock(KEY).await.unwrap().unlock().await;
    let mut lock = store.lock(KEY).await.unwrap();
    let stored = lock.load().await.unwrap().unwrap();
    assert_eq!(stored.version(), first.version());
    lock.unlock().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_expires_at_the_end_of_its_lifetime() {
    let Some(redis) = Redis::start() else { return };
    let store = open(&redis);
    let first = first();
    let mut lock = store.lock(KEY).await.unwrap();
    let lifetime = Duration::from_secs(1_000);
    let save = Save::new(&first).with_lifetime(lifetime);
    lock.save(save).await.unwrap();
    let left: u64 = redis.run(&["PTTL", &store.name(KEY)]).parse().unwrap();
    assert!((900_000..=1_000_000).contains(&left), "{left}");
    // A save without one keeps the record without end.
    let next = first.followed_by(session("T1"));
    let save = Save::new(&next).replacing(first.version());
    lock.save(save).await.unwrap();
    lock.unlock().await;
    assert_eq!(redis.run(&["PTTL", &store.name(KEY)]), "-1");
    for lifetime in [Duration::MAX, Duration::ZERO] {
        let stored = store.load(KEY).await.unwrap();
        let record = first.followed_by(session("T2"));
        let save = Save::new(&record)
            .replacing(stored.map(|stored| stored.version()))
            .with_lifetime(lifetime);
        let mut lock = store.lock(KEY).await.unwrap();
        lock.save(save).await.unwrap();
        lock.unlock().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_any_length_and_characters_are_apart() {
    let Some(redis) = Redis::start() else { return };
    let store = open(&redis);
    let long = "k".repeat(10_000);
    let keys = [
        "", "{", "}", "{}", "}{", "a}b", "a{b}c", " ", "\r\n", "\0", "*", "ключ", &long,
    ];
    for key in keys {
        assert!(store.load(key).await.unwrap().is_none(), "{key:?}");
        let mut lock = store.lock(key).await.unwrap();
        let record = Record::new(session("T0"));
        lock.save(Save::new(&record)).await.unwrap();
        lock.unlock().await;
    }
    let again = open(&redis);
    for key in keys {
        let mut lock = again.lock(key).await.unwrap();
        assert!(lock.load().await.unwrap().is_some(), "{key:?}");
        lock.delete().await.unwrap();
        lock.unlock().await;
    }
    assert_eq!(redis.run(&["DBSIZE"]), "0");
}
