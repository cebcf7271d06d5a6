//! What is wrong with a Redis server, its URL or what it keeps: an error says what and what to do. No token is presented then,
//! and nothing is destroyed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tower_salesforce_auth::{
    RefreshContext, RefreshError, SessionHandle,
    store::{
        EncryptionKey, Record, RedisStore, Save, SessionStore, StoreError, StoreErrorKind, Version,
    },
};

use crate::{
    records::{KEY, first, put, session},
    servers::redis::Redis,
};

const PASSWORD: &str = "p4ssw0rd";

fn open(redis: &Redis) -> RedisStore {
    with_limit(&redis.url())
}

fn with_limit(url: &str) -> RedisStore {
    let store = RedisStore::new(url).unwrap();
    store.timeout(Duration::from_secs(2))
}

/// Checks an error: its kind, that it is one line that says all of this, and that it has no secret.
#[track_caller]
fn assert_told(error: &StoreError, kind: StoreErrorKind, parts: &[&str]) {
    let told = error.to_string();
    assert_eq!(error.kind(), kind, "{told}");
    assert!(!told.contains('\n'), "{told}");
    for part in parts {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    let all = format!("{told} {error:?} {error:#?}");
    for secret in [PASSWORD, "T0", "R-T0", "T1"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

/// Checks that a load and a lock fail so, and that the layer presents nothing.
async fn assert_unusable(store: &RedisStore, kind: StoreErrorKind, parts: &[&str]) {
    let error = store.load(KEY).await.unwrap_err();
    assert_told(&error, kind, parts);
    assert_nothing_presented(store).await;
}

/// Checks that the lock fails so, although a load may succeed, and that the layer presents nothing.
async fn assert_no_lock(store: &RedisStore, parts: &[&str]) {
    let error = store.lock(KEY).await.err().expect("a lock that fails");
    assert_told(&error, StoreErrorKind::Unavailable, parts);
    assert_nothing_presented(store).await;
}

/// A handle with a rejected session refreshes: no token call is made.
async fn assert_nothing_presented(store: &RedisStore) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let refresh = move |_: RefreshContext| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, RefreshError>(session("T1")) }
    };
    let handle = SessionHandle::builder(refresh)
        .store(store.clone(), KEY)
        .initial_session(session("T0"))
        .refresh_timeout(Duration::from_secs(1))
        .build();
    let generation = handle.try_session().unwrap().generation();
    handle.invalidate(generation);
    let error = handle.session().await.unwrap_err();
    assert!(error.store_error().is_some(), "{error}");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

// === The URL and the network ===

#[tokio::test]
async fn a_url_that_is_not_of_redis_is_refused() {
    for url in [
        format!("postgres://user:{PASSWORD}@127.0.0.1"),
        format!("user:{PASSWORD}@127.0.0.1"),
        format!("redis://user:{PASSWORD}@127.0.0.1/name"),
    ] {
        let error = RedisStore::new(&url).unwrap_err();
        assert_told(
            &error,
            StoreErrorKind::Unavailable,
            &["the URL of the Redis server", "Expected `redis://"],
        );
    }
    let no_url: [&str; 0] = [];
    let error = RedisStore::cluster(no_url).unwrap_err();
    assert_told(&error, StoreErrorKind::Unavailable, &["give one at least"]);
    let error = RedisStore::cluster(["redis://a", "rediss://b"]).unwrap_err();
    assert_told(&error, StoreErrorKind::Unavailable, &["give them the same"]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let port = crate::servers::free_port();
    let store = with_limit(&format!("redis://user:{PASSWORD}@127.0.0.1:{port}"));
    let server = format!("127.0.0.1:{port}");
    assert!(format!("{store:?}").contains(&server));
    assert!(!format!("{store:?} {store:#?}").contains(PASSWORD));
    assert_unusable(
        &store,
        StoreErrorKind::Unavailable,
        &[&server, "cannot be reached", "check the host and the port"],
    )
    .await;
    let store = with_limit("redis://no-such-host.invalid");
    assert_unusable(
        &store,
        StoreErrorKind::Unavailable,
        &["no-such-host.invalid:6379", "check the name of the host"],
    )
    .await;
    let store = with_limit("redis+unix:///no/such/socket");
    assert_unusable(&store, StoreErrorKind::Unavailable, &["check the path"]).await;
}

#[tokio::test]
async fn a_server_that_is_no_redis_is_told() {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
            drop(stream.write_all(answer).await);
        }
    });
    let store = with_limit(&format!("redis://127.0.0.1:{port}"));
    assert_unusable(
        &store,
        StoreErrorKind::Unavailable,
        &["check that a Redis server listens there"],
    )
    .await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_redis_is_unavailable_and_is_used_again() {
    let Some(redis) = Redis::start() else { return };
    let store = open(&redis).timeout(Duration::from_millis(300));
    let first = first();
    put(&store, &first).await;
    redis.pause();
    assert_unusable(
        &store,
        StoreErrorKind::Unavailable,
        &["did not answer within 300ms", "check the server"],
    )
    .await;
    redis.resume();
    let loaded = store.load(KEY).await.unwrap().unwrap();
    assert_eq!(loaded.version(), first.version());
    // The calls of the time in between took no lock that they would leave behind.
    store.lock(KEY).await.unwrap().unlock().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_call_may_take_any_time() {
    let Some(redis) = Redis::start() else { return };
    let store = open(&redis).timeout(Duration::MAX).lease(Duration::MAX);
    let store = store.lock_timeout(Duration::MAX);
    store.lock(KEY).await.unwrap().unlock().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_redis_is_used_without_an_error() {
    let Some(redis) = Redis::start() else { return };
    let store = open(&redis);
    let first = first();
    put(&store, &first).await;
    for _ in 0..3 {
        redis.restart();
        let loaded = store.load(KEY).await.unwrap().unwrap();
        assert_eq!(loaded.version(), first.version());
    }
    redis.kill();
    assert_unusable(&store, StoreErrorKind::Unavailable, &["cannot be reached"]).await;
}

// === Who may do what ===

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_wants_authentication_says_so() {
    let settings = ["--requirepass", PASSWORD];
    let Some(redis) = Redis::start_with(&settings) else {
        return;
    };
    assert_unusable(
        &open(&redis),
        StoreErrorKind::Unavailable,
        &["NOAUTH", "`redis://user:password@host`"],
    )
    .await;
    for login in ["user:wrong", ":wrong", "sessions:wrong"] {
        let url = format!("redis://{login}@127.0.0.1:{}", redis.port());
        assert_unusable(
            &with_limit(&url),
            StoreErrorKind::Unavailable,
            &["refuses the login", "check the user and the password"],
        )
        .await;
    }
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}", redis.port());
    put(&with_limit(&url), &first()).await;
    let url = format!("{url}/99");
    assert_unusable(
        &with_limit(&url),
        StoreErrorKind::Unavailable,
        &["check the database at the end of the URL"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_may_not_write_takes_no_lock() {
    let Some(redis) = Redis::start() else { return };
    put(&open(&redis), &first()).await;
    let rules = [
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">p4ssw0rd",
        "~*",
        "&*",
        "+@read",
        "+eval",
        "+evalsha",
    ];
    redis.run(&rules);
    let url = format!("redis://reader:{PASSWORD}@127.0.0.1:{}", redis.port());
    let store = with_limit(&url);
    assert!(store.load(KEY).await.unwrap().is_some());
    assert_no_lock(&store, &["the documentation of `RedisStore`"]).await;
    redis.run(&["ACL", "SETUSER", "reader", "-eval", "-evalsha"]);
    assert_unusable(
        &store,
        StoreErrorKind::Unavailable,
        &["NOPERM", "the documentation of `RedisStore`"],
    )
    .await;
}

// === The state of the server ===

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_memory_gives_no_lock() {
    let Some(redis) = Redis::start() else { return };
    let store = open(&redis);
    put(&store, &first()).await;
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(store.load(KEY).await.unwrap().is_some());
    assert_no_lock(&store, &["OOM", "raise its `maxmemory`"]).await;
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    store.lock(KEY).await.unwrap().unlock().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_its_replicas_gives_no_lock() {
    let Some(redis) = Redis::start() else { return };
    let store = open(&redis);
    put(&store, &first()).await;
    redis.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert!(store.load(KEY).await.unwrap().is_some());
    assert_no_lock(&store, &["NOREPLICAS", "start them"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_became_a_replica_is_refused() {
    let Some(redis) = Redis::start() else { return };
    let Some(primary) = Redis::start() else {
        return;
    };
    let store = open(&redis);
    put(&open(&primary), &first()).await;
    let port = primary.port().to_string();
    redis.run(&["REPLICAOF", "127.0.0.1", &port]);
    assert_unusable(
        &store,
        StoreErrorKind::Unavailable,
        &["READONLY", "use the address of the primary"],
    )
    .await;
    redis.run(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    primary.kill();
    let error = store.lock(KEY).await.err().expect("a replica");
    assert_told(
        &error,
        StoreErrorKind::Unavailable,
        &["the address of the primary"],
    );
    redis.run(&["REPLICAOF", "NO", "ONE"]);
    store.lock(KEY).await.unwrap().unlock().await;
}

// === What is stored ===

/// Everything that the server has.
fn dump(redis: &Redis, store: &RedisStore) -> String {
    let name = store.name(KEY);
    let kind = redis.run(&["TYPE", &name]);
    let value = match kind.as_str() {
        "+hash" => redis.run(&["HGETALL", &name]),
        "+list" => redis.run(&["LRANGE", &name, "0", "-1"]),
        _ => redis.run(&["GET", &name]),
    };
    format!("{kind} {value} {}", redis.run(&["DBSIZE"]))
}

/// Checks that a load, a save and the layer fail so, and change nothing.
async fn assert_kept(redis: &Redis, store: &RedisStore, kind: StoreErrorKind, parts: &[&str]) {
    let before = dump(redis, store);
    let error = store.load(KEY).await.unwrap_err();
    assert_told(&error, kind, parts);
    assert!(error.is_terminal());
    assert_nothing_presented(store).await;
    let mut lock = store.lock(KEY).await.unwrap();
    lock.load().await.unwrap_err();
    let record = Record::new(session("T1"));
    lock.save(Save::new(&record)).await.unwrap_err();
    lock.unlock().await;
    assert_eq!(dump(redis, store), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_shape_stays_as_it_is() {
    let Some(redis) = Redis::start() else { return };
    let store = open(&redis);
    let name = store.name(KEY);
    let version = first().version().to_string();
    let shapes: [(&[&str], &str); 6] = [
        (&["SET", &name, "text"], "is not a session record"),
        (&["RPUSH", &name, "a", "b"], "is not a session record"),
        (&["HSET", &name, "field", "value"], "restore its fields"),
        (&["HSET", &name, "version", &version], "restore its fields"),
        (&["HSET", &name, "text", "{}"], "restore its fields"),
        (
            &["HSET", &name, "version", "1", "text", "{}"],
            "restore its fields",
        ),
    ];
    for (shape, told) in shapes {
        redis.run(&["DEL", &name]);
        redis.run(shape);
        assert_kept(&redis, &store, StoreErrorKind::Corrupt, &[told]).await;
    }
    // A deletion destroys no key of another type.
    redis.run(&["DEL", &name]);
    redis.run(&["SET", &name, "text"]);
    let mut lock = store.lock(KEY).await.unwrap();
    let error = lock.delete().await.unwrap_err();
    assert_told(&error, StoreErrorKind::Corrupt, &["set another prefix"]);
    lock.unlock().await;
    assert_eq!(redis.run(&["GET", &name]), "text");
    // A lock of another type is told too.
    redis.run(&["RPUSH", &format!("{name}:lock"), "a"]);
    let error = store.lock(KEY).await.err().expect("a list");
    assert_told(&error, StoreErrorKind::Corrupt, &["set another prefix"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_stays_as_it_is() {
    let Some(redis) = Redis::start() else { return };
    let store = open(&redis);
    let name = store.name(KEY);
    let first = first();
    put(&store, &first).await;
    let text = redis.run(&["HGET", &name, "text"]);
    let version = first.version().to_string();
    let write = |version: &str, text: &str| {
        redis.run(&["HSET", &name, "version", version, "text", text]);
    };

    write(&version, &text[..text.len() / 2]);
    assert_kept(&redis, &store, StoreErrorKind::Corrupt, &[]).await;
    write(
        &version,
        &text.replacen("\"version\":2", "\"version\":999", 1),
    );
    assert_kept(&redis, &store, StoreErrorKind::UnsupportedVersion, &[]).await;
    let other: Version = first.followed_by(session("T0")).version();
    write(&other.to_string(), &text);
    assert_kept(
        &redis,
        &store,
        StoreErrorKind::Corrupt,
        &["another version"],
    )
    .await;

    write(&version, &text);
    let sealing = open(&redis).encryption(EncryptionKey::new([7; 32]));
    assert_kept(&redis, &sealing, StoreErrorKind::Undecryptable, &[]).await;
    redis.run(&["DEL", &name]);
    put(&sealing, &first).await;
    assert!(!redis.run(&["HGET", &name, "text"]).contains("R-T0"));
    assert_kept(&redis, &store, StoreErrorKind::Undecryptable, &[]).await;
    let other = open(&redis).encryption(EncryptionKey::new([8; 32]));
    assert_kept(&redis, &other, StoreErrorKind::Undecryptable, &[]).await;
    assert!(sealing.load(KEY).await.unwrap().is_some());
}
