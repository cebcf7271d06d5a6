//! `PostgresStore` on a real server.

use std::{
    future::{Future, poll_fn},
    task::Poll,
    time::Duration,
};

use tower_salesforce_auth::{
    RefreshContext, RefreshError, Session, SessionHandle,
    store::{
        EncryptionKey, PostgresStore, Record, Save, SessionStore, StoreErrorKind, conformance,
    },
};

use crate::servers::{pgbouncer::PgBouncer, postgres::Postgres};

pub(crate) const KEY: &str = "nightly-export";

pub(crate) fn record(access_token: &str) -> Record {
    let session = Session::new(access_token, "https://MyDomainName.my.salesforce.com").unwrap();
    Record::new(session.with_refresh_token(format!("refresh-{access_token}")))
}

/// A store whose table is there.
pub(crate) async fn store(postgres: &Postgres) -> PostgresStore {
    let store = PostgresStore::new(postgres.url()).unwrap();
    store.migrate().await.unwrap();
    store
}

pub(crate) async fn save(store: &PostgresStore, key: &str, record: &Record) {
    let mut lock = store.lock(key).await.unwrap();
    let replaces = lock.load().await.unwrap();
    let save = Save::new(record).replacing(replaces.as_ref().map(Record::version));
    lock.save(save).await.unwrap();
    lock.unlock().await;
}

pub(crate) async fn loaded(store: &PostgresStore, key: &str) -> String {
    let record = store.load(key).await.unwrap().expect("a record");
    record.session().access_token().expose().to_owned()
}

// === Conformance ===

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_store_conforms() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = store(&postgres).await;
    let open = || store.clone().lock_timeout(Duration::from_millis(100));
    conformance::check(open).await;
    let fresh = || {
        let store = PostgresStore::new(postgres.url()).unwrap();
        let store = store.encryption(EncryptionKey::new([7; 32])).connections(2);
        store.lock_timeout(Duration::from_millis(100))
    };
    conformance::check(fresh).await;
    conformance::check_notices(open).await;
    conformance::check_notices(fresh).await;
    // What is left is nothing.
    assert_eq!(
        postgres.sql("SELECT count(*) FROM salesforce_sessions"),
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r32_the_postgres_store_keeps_its_leases() {
    const LEASE: Duration = Duration::from_millis(1_500);
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = store(&postgres).await.lease(LEASE);
    let open = || store.clone().lock_timeout(Duration::from_millis(200));
    conformance::check_leases(open, LEASE).await;
}

// === The table ===

#[tokio::test(flavor = "multi_thread")]
async fn many_migrations_at_once_make_one_table() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    postgres.sql("CREATE SCHEMA apps");
    let mut migrations = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = PostgresStore::new(postgres.url()).unwrap();
        let store = store.table("apps.Sessions").unwrap();
        migrations.spawn(async move { store.migrate().await });
    }
    while let Some(migrated) = migrations.join_next().await {
        migrated.unwrap().unwrap();
    }
    assert_eq!(postgres.sql("SELECT count(*) FROM apps.\"Sessions\""), "0");
}

#[tokio::test]
async fn any_string_is_a_key_and_readable_for_people() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = store(&postgres).await;
    let long = "\u{1f511}".repeat(10_000);
    for (number, key) in ["", "a\0b", "Zo\u{eb}", "back\\slash", &long, "'; --"]
        .into_iter()
        .enumerate()
    {
        save(&store, key, &record(&format!("access-{number}"))).await;
    }
    for (number, key) in ["", "a\0b", "Zo\u{eb}", "back\\slash", &long, "'; --"]
        .into_iter()
        .enumerate()
    {
        assert_eq!(loaded(&store, key).await, format!("access-{number}"));
    }
    let keys = postgres.sql(
        "SELECT key FROM salesforce_sessions WHERE length(key) < 20 ORDER BY key COLLATE \"C\"",
    );
    assert_eq!(keys, "\n'; --\nZo\\u{eb}\na\\u{0}b\nback\\\\slash");
}

#[tokio::test]
async fn a_lifetime_is_a_column_for_the_one_who_cleans_up() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = store(&postgres).await;
    for (key, lifetime) in [
        ("short", Some(Duration::ZERO)),
        ("long", Some(Duration::MAX)),
        ("endless", None),
    ] {
        let mut lock = store.lock(key).await.unwrap();
        let record = record("access");
        let save = Save::new(&record).with_lifetime(lifetime);
        lock.save(save).await.unwrap();
        lock.unlock().await;
    }
    postgres.sql(
        "DELETE FROM salesforce_sessions \
         WHERE expires_at < now() AND (lease_until IS NULL OR lease_until < now())",
    );
    let keys = postgres.sql("SELECT key FROM salesforce_sessions ORDER BY key");
    assert_eq!(keys, "endless\nlong");
}

// === Connections ===

const CONNECTIONS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tower-salesforce-auth'";

/// What a pooler in transaction mode could not keep.
const SESSION_STATE: &str = "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') \
     + (SELECT count(*) FROM pg_stat_activity \
        WHERE application_name = 'tower-salesforce-auth' AND (state <> 'idle' OR backend_xid IS NOT NULL))";

#[tokio::test(flavor = "multi_thread")]
async fn r31_no_connection_is_held_during_the_token_call() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = store(&postgres).await.connections(1);
    let (begun, beginning) = tokio::sync::oneshot::channel();
    let (done, doing) = tokio::sync::oneshot::channel::<()>();
    let begun = std::sync::Mutex::new(Some((begun, doing)));
    let login = move |_: RefreshContext| {
        let (begun, doing) = begun.lock().unwrap().take().expect("one token call");
        async move {
            begun.send(()).unwrap();
            doing.await.unwrap();
            Ok::<_, RefreshError>(record("access").session().clone())
        }
    };
    let handle = SessionHandle::builder(login)
        .store(store.clone(), KEY)
        .build();
    let calling = tokio::spawn({
        let handle = handle.clone();
        async move { handle.session().await }
    });
    beginning.await.unwrap();
    // The only connection is free, and does nothing.
    assert_eq!(postgres.sql(SESSION_STATE), "0");
    save(&store, "another", &record("other")).await;
    assert_eq!(loaded(&store, "another").await, "other");
    assert_eq!(postgres.sql(CONNECTIONS), "1");
    done.send(()).unwrap();
    calling.await.unwrap().unwrap();
    assert_eq!(loaded(&store, KEY).await, "access");
    assert_eq!(
        postgres.sql("SELECT count(*) FROM pg_prepared_statements"),
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_calls_leave_no_lease_and_a_pool_that_works() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = store(&postgres).await.connections(2);
    for polls in 0..50 {
        let mut locking = store.lock(KEY);
        for _ in 0..polls % 7 {
            if poll_fn(|cx| Poll::Ready(locking.as_mut().poll(cx).is_ready())).await {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // Each lease was released, and none has to run out.
    let locked = store
        .clone()
        .lock_timeout(Duration::from_secs(5))
        .lock(KEY)
        .await;
    locked.unwrap().unlock().await;
    save(&store, KEY, &record("access")).await;
    assert_eq!(loaded(&store, KEY).await, "access");
    let connections: u32 = postgres.sql(CONNECTIONS).parse().unwrap();
    assert!(connections <= 4, "{connections}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_is_unavailable_and_then_usable() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let limit = Duration::from_millis(500);
    let store = store(&postgres).await.timeout(limit);
    save(&store, KEY, &record("access")).await;
    postgres.pause();
    for _ in 0..3 {
        let error = store.load(KEY).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(error.to_string().contains("within 500ms"), "{error}");
    }
    postgres.resume();
    let store = store.timeout(Duration::from_secs(10));
    assert_eq!(loaded(&store, KEY).await, "access");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_is_used_again() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = store(&postgres).await;
    save(&store, KEY, &record("access")).await;
    postgres.kill();
    let error = store.load(KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    postgres.start_again();
    // The first call may find the connection that the server has closed.
    let _ = store.load(KEY).await;
    assert_eq!(loaded(&store, KEY).await, "access");
}

#[tokio::test(flavor = "multi_thread")]
async fn r33_a_primary_that_became_read_only_is_left_for_the_next() {
    let (Some(first), Some(second)) = (Postgres::start(), Postgres::start()) else {
        return;
    };
    save(&store(&second).await, KEY, &record("access")).await;
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres",
        first.port(),
        second.port()
    );
    let store = PostgresStore::new(url).unwrap().connections(1);
    store.migrate().await.unwrap();
    assert!(store.load(KEY).await.unwrap().is_none());
    first.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    first.sql("SELECT pg_reload_conf()");
    // Until the server has read its settings, and a lock or an unlock was refused.
    while store.load(KEY).await.unwrap().is_none() {
        match store.lock(KEY).await {
            Ok(lock) => lock.unlock().await,
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::Unavailable),
        }
    }
    assert_eq!(loaded(&store, KEY).await, "access");
    store.lock(KEY).await.unwrap().unlock().await;
}

// === TLS ===

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_and_binds_the_login() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    store(&postgres).await;
    let root = postgres.use_tls();
    postgres.sql("ALTER ROLE postgres PASSWORD 'password'");
    postgres.let_in("hostssl all all 127.0.0.1/32 scram-sha-256");
    let url = |host: &str, options: &str| {
        let port = postgres.port();
        format!("postgres://postgres:password@{host}:{port}/postgres?{options}")
    };
    let required = "sslmode=require&channel_binding=require";
    let store = PostgresStore::new(url("localhost", required)).unwrap();
    let trusting = store.clone().root_certificates(&root).unwrap();
    save(&trusting, KEY, &record("access")).await;
    assert_eq!(loaded(&trusting, KEY).await, "access");
    let mut told = trusting.changed(KEY, Some(record("access").version()));
    assert!(!is_over(&mut told).await);
    let offered = PostgresStore::new(url("localhost", "sslmode=prefer")).unwrap();
    let offered = offered.root_certificates(&root).unwrap();
    assert_eq!(loaded(&offered, KEY).await, "access");

    let by_address = PostgresStore::new(url("127.0.0.1", required)).unwrap();
    let by_address = by_address.root_certificates(&root).unwrap();
    for (store, why) in [(store, "UnknownIssuer"), (by_address, "not valid for name")] {
        let error = store.load(KEY).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        let text = error.to_string();
        assert!(
            text.contains(why) && text.contains("`root_certificates`"),
            "{text}"
        );
    }
    let next = record("access").followed_by(record("next").session().clone());
    save(&trusting, KEY, &next).await;
    told.await;
}

// === Notices ===

const LISTENING: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tower-salesforce-auth' \
     AND query LIKE 'LISTEN%' OR query LIKE '%ANY ($1)%' AND pid <> pg_backend_pid()";

/// Polls a future once.
async fn is_over(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
    poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_ready())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r34_one_connection_listens_for_all_waiters() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = store(&postgres).await;
    assert_eq!(postgres.sql(LISTENING), "0");
    let mut waiters = tokio::task::JoinSet::new();
    for number in 0..100 {
        let store = store.clone();
        waiters.spawn(async move { store.changed(&format!("key {number}"), None).await });
    }
    // Each of them is told, and only once its key changes.
    for number in 0..100 {
        save(&store, &format!("key {number}"), &record("access")).await;
        waiters.join_next().await.unwrap().unwrap();
    }
    assert_eq!(postgres.sql(LISTENING), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn r34_a_change_during_an_outage_is_noticed_afterwards() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = store(&postgres).await;
    let first = record("first");
    save(&store, KEY, &first).await;
    let mut told = store.changed(KEY, Some(first.version()));
    let mut untold = store.changed("another", None);
    assert!(!is_over(&mut told).await);
    assert!(!is_over(&mut untold).await);
    // It is told of this one only when it listens.
    save(&store, "third", &record("third")).await;
    store.changed("third", None).await;
    postgres.restart();
    // No notice of it is sent.
    postgres.sql("UPDATE salesforce_sessions SET version = '0' WHERE key = 'nightly-export'");
    told.await;
    assert!(!is_over(&mut untold).await);
}

// === A pooler ===

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_store_conforms_behind_a_pooler() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let Some(pooler) = PgBouncer::start(&postgres) else {
        return;
    };
    let store = PostgresStore::new(pooler.url()).unwrap();
    let store = store.notices_url(postgres.url()).unwrap().connections(16);
    store.migrate().await.unwrap();
    let open = || store.clone().lock_timeout(Duration::from_millis(100));
    conformance::check(open).await;
    conformance::check_notices(open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_leaves_no_state_in_a_session() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = store(&postgres).await.connections(1);
    let mut lock = store.lock(KEY).await.unwrap();
    lock.save(Save::new(&record("access"))).await.unwrap();
    lock.renew().await.unwrap();
    assert_eq!(postgres.sql(SESSION_STATE), "0");
    // Another connection goes on where this one was.
    postgres.sql(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'tower-salesforce-auth'",
    );
    let _ = store.load(KEY).await;
    lock.renew().await.unwrap();
    lock.unlock().await;
    assert_eq!(loaded(&store, KEY).await, "access");
}
