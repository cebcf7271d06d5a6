//! Settings, servers, tables and records that `PostgresStore` cannot use: each error says what to do, and shows no secret.

use tower_salesforce_auth::store::{
    EncryptionKey, PostgresStore, SessionStore, StoreError, StoreErrorKind,
};

use crate::{
    postgres_store::{KEY, loaded, record, save, store},
    servers::postgres::Postgres,
};

const PASSWORD: &str = "pa55-w0rd-of-the-app";

/// Asserts that an error has these parts, is one line, and has no secret.
fn assert_says(error: &StoreError, parts: &[&str]) {
    let text = format!("{error} {error:?} {error:#?}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {error}");
    }
    for secret in [PASSWORD, "refresh-access"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(!error.to_string().contains('\n'), "{error}");
}

/// What a store says that no call can use, neither to load nor to lock.
async fn refusal(store: &PostgresStore) -> StoreError {
    let error = store.load(KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let locked = store.lock(KEY).await.err().expect("no lock");
    assert_eq!(locked.kind(), StoreErrorKind::Unavailable);
    error
}

async fn refused(url: impl Into<String>) -> StoreError {
    refusal(&PostgresStore::new(url.into()).unwrap()).await
}

// === The URL ===

#[test]
fn a_url_that_is_not_usable_is_refused() {
    for (url, part) in [
        ("mysql://app:PASSWORD@db/app", "scheme is `mysql`"),
        ("redis://app:PASSWORD@db/app", "scheme is `redis`"),
        ("jdbc:postgresql://app:PASSWORD@db/app", "JDBC"),
        ("host=db password=PASSWORD", "expected postgres://"),
        ("", "expected postgres://"),
        ("postgres://", "names no host"),
        ("postgres:///app", "names no host"),
        ("postgres://app:PASSWORD@db:0/app", "from 1 to 65535"),
        ("postgres://app:PASSWORD/x@db/app", "`/` as %2F"),
        ("postgres://app:PASSWORD?x@db/app", "from 1 to 65535"),
        ("postgres://app:PASSWORD#x@db/app", "`#` as %23"),
        (
            "postgres://app:PASSWORD%zz@db/app",
            "percent-encoding is broken",
        ),
        ("postgres://app:PASSWORD@d b/app", "host in it is not valid"),
        (
            "postgres://app:PASSWORD@db/app?sslmode=allow",
            "verify-full",
        ),
        (
            "postgres://app:PASSWORD@db/app?ssl=true",
            "the options are sslmode",
        ),
        (
            "postgres://app:PASSWORD@db/app?sslrootcert=ca.pem",
            "root_certificates",
        ),
        ("postgres://app:PASSWORD@db/app?port=1,2", "number of ports"),
        (
            "postgres://app:PASSWORD@db/app?target_session_attrs=any",
            "read-write",
        ),
    ] {
        let error = PostgresStore::new(url.replace("PASSWORD", PASSWORD)).unwrap_err();
        assert_says(&error, &[part]);
    }
    let url = format!("\"postgresql://app:{PASSWORD}@db1,[::1]:5433/app?sslmode=verify-full\"\n");
    let store = PostgresStore::new(url).unwrap();
    let shown = format!("{store:?}");
    assert!(shown.contains("\"db1:5432\", \"[::1]:5433\""), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
}

#[test]
fn a_table_and_root_certificates_that_are_not_usable_are_refused() {
    let store = PostgresStore::new("postgres://127.0.0.1").unwrap();
    for name in ["", "a.b.c", "x\"; --", "a.", "7", &"x".repeat(64)] {
        let error = store.clone().table(name).unwrap_err();
        assert_says(&error, &["`schema.table`"]);
    }
    for pem in ["", "-----BEGIN CERTIFICATE-----\nAA"] {
        let error = store.clone().root_certificates(pem).unwrap_err();
        assert_says(&error, &["root certificate", "-----BEGIN CERTIFICATE-----"]);
    }
}

// === The server ===

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    assert_says(
        &refused("postgres://app@127.0.0.1:1/app").await,
        &["127.0.0.1:1", "check the host and the port"],
    );
    assert_says(
        &refused("postgres://app@no-such-host.invalid/app?sslmode=disable").await,
        &["no-such-host.invalid:5432", "can look it up"],
    );
    assert_says(
        &refused("postgres://app@127.0.0.1:1,127.0.0.1:2/app").await,
        &[
            "no server of the URL takes writes",
            "127.0.0.1:1",
            "127.0.0.1:2",
        ],
    );
}

#[tokio::test]
async fn another_server_at_the_port_is_noticed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
            drop(tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await);
        }
    });
    let error = refused(format!("postgres://app@127.0.0.1:{port}/app")).await;
    assert_says(&error, &["check that PostgreSQL listens"]);
}

#[tokio::test]
async fn a_login_that_is_refused_says_why() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    store(&postgres).await;
    postgres.sql(&format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'"));
    postgres.let_in("host all all 127.0.0.1/32 scram-sha-256");
    let url = |user: &str| postgres.url_of(user);
    assert_says(&refused(url("app")).await, &["wants a password"]);
    assert_says(
        &refused(url("app:wrong-pa55")).await,
        &["28P01", "check the user and the password"],
    );
    let right = url(&format!("app:{PASSWORD}"));
    let elsewhere = right.replace("/postgres", "/elsewhere");
    assert_says(
        &refused(elsewhere).await,
        &["3D000", "name of the database"],
    );
    assert_says(
        &refused(&right).await,
        &["42501", "GRANT SELECT, INSERT, UPDATE, DELETE"],
    );
    postgres.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON salesforce_sessions TO app");
    let store = PostgresStore::new(&right).unwrap();
    store.migrate().await.unwrap();
    save(&store, KEY, &record("access")).await;
    assert_eq!(loaded(&store, KEY).await, "access");

    postgres.let_in("hostssl all all 127.0.0.1/32 scram-sha-256");
    let error = refused(&right).await;
    assert_says(&error, &["28000", "pg_hba.conf", "sslmode=require"]);
    let error = refused(format!("{right}?sslmode=require")).await;
    assert_says(&error, &["does not support TLS", "`sslmode=disable`"]);
}

#[tokio::test]
async fn a_server_without_room_for_a_connection_says_so() {
    let settings = ["max_connections=5", "superuser_reserved_connections=3"];
    let Some(postgres) = Postgres::start_with(&settings) else {
        return;
    };
    postgres.sql("CREATE ROLE app LOGIN; GRANT ALL ON SCHEMA public TO app");
    let stores: Vec<_> = (0..3)
        .map(|_| PostgresStore::new(postgres.url_of("app")).unwrap())
        .collect();
    stores[0].migrate().await.unwrap();
    stores[1].migrate().await.unwrap();
    let error = stores[2].load(KEY).await.unwrap_err();
    assert_says(&error, &["53300", "`max_connections`"]);
    // Where there is room again, it goes on.
    drop(stores.into_iter().next());
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn a_read_only_server_gives_no_lock() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = store(&postgres).await;
    save(&store, KEY, &record("access")).await;
    let mut held = store.lock("held").await.unwrap();
    postgres.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    postgres.sql("SELECT pg_reload_conf()");
    // The connection that is open serves reads, once the server has read its settings. The first write closes it.
    let error = loop {
        if let Err(error) = held.renew().await {
            break error;
        }
    };
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_says(&error, &["25006", "standby, or read-only"]);
    let error = store.lock(KEY).await.err().expect("no lock");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_says(&error, &["standby, or read-only"]);
    // A new one is not made.
    let error = PostgresStore::new(postgres.url()).unwrap().load(KEY).await;
    assert_says(
        &error.unwrap_err(),
        &["does not allow writes", "name the primary"],
    );
    let has_moved = format!(
        "postgres://postgres@127.0.0.1:{port},127.0.0.1:{port}/postgres",
        port = postgres.port()
    );
    assert_says(
        &refused(has_moved).await,
        &["no server of the URL takes writes"],
    );

    postgres.sql("ALTER SYSTEM RESET default_transaction_read_only");
    postgres.sql("SELECT pg_reload_conf()");
    loop {
        if let Ok(lock) = store.lock(KEY).await {
            break lock.unlock().await;
        }
    }
    assert_eq!(loaded(&store, KEY).await, "access");
}

// === The table ===

#[tokio::test]
async fn a_table_that_is_missing_or_of_another_shape_says_so() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = PostgresStore::new(postgres.url()).unwrap();
    let create = "CREATE TABLE IF NOT EXISTS \"salesforce_sessions\"";
    assert_says(
        &refusal(&store).await,
        &["42P01", "`PostgresStore::migrate`", create],
    );
    for (definition, part) in [
        ("id int", "42703"),
        (
            "key_hash text PRIMARY KEY, key text, record text, version text, owner text, \
          lease_until timestamptz, saved_at timestamptz, expires_at timestamptz",
            "42883",
        ),
        (
            "key_hash bytea, key text, record bytea, version text, owner text, \
          lease_until timestamptz, saved_at timestamptz, expires_at timestamptz",
            "42P10",
        ),
    ] {
        postgres.sql(&format!("CREATE TABLE salesforce_sessions ({definition})"));
        for error in [
            store.lock(KEY).await.err().expect("no lock"),
            store.migrate().await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), StoreErrorKind::Unavailable);
            let is_of_shape = error.to_string().contains("42");
            assert!(is_of_shape, "{part}: {error}");
            assert_says(&error, &["`PostgresStore::table`", create]);
        }
        postgres.sql("DROP TABLE salesforce_sessions");
    }
    let store = store.table("nowhere.sessions").unwrap();
    let error = store.migrate().await.unwrap_err();
    assert_says(&error, &["3F000", "create the schema"]);
}

#[tokio::test]
async fn a_user_who_may_not_create_the_table_says_how() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    postgres.sql("CREATE ROLE app LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let store = PostgresStore::new(postgres.url_of("app")).unwrap();
    let error = store.migrate().await.unwrap_err();
    assert_says(
        &error,
        &["42501", "CREATE TABLE IF NOT EXISTS", "GRANT SELECT"],
    );
}

// === Records ===

#[tokio::test]
async fn a_record_that_cannot_be_read_stays() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let store = store(&postgres).await;
    let key = EncryptionKey::new([7; 32]);
    let sealed = store.clone().encryption(key);
    let other = store.clone().encryption(EncryptionKey::new([8; 32]));
    save(&sealed, KEY, &record("access")).await;
    for store in [&store, &other] {
        let error = store.load(KEY).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Undecryptable);
    }
    assert_eq!(loaded(&sealed, KEY).await, "access");
    postgres.sql("DELETE FROM salesforce_sessions");

    save(&store, KEY, &record("access")).await;
    let whole = "SELECT record, version FROM salesforce_sessions";
    for (change, kind) in [
        ("record = 'broken'", StoreErrorKind::Corrupt),
        ("record = '\\xff'", StoreErrorKind::Corrupt),
        ("record = NULL", StoreErrorKind::Corrupt),
        ("version = NULL", StoreErrorKind::Corrupt),
        ("version = 'x'", StoreErrorKind::Corrupt),
        (
            "record = convert_to(replace(convert_from(record, 'UTF8'), '\"version\":2', '\"version\":99'), 'UTF8')",
            StoreErrorKind::UnsupportedVersion,
        ),
    ] {
        postgres.sql("CREATE TABLE kept AS SELECT * FROM salesforce_sessions");
        postgres.sql(&format!("UPDATE salesforce_sessions SET {change}"));
        let before = postgres.sql(whole);
        let error = store.load(KEY).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{change}: {error}");
        assert_says(&error, &[]);
        // A save does not replace it either.
        let mut lock = store.lock(KEY).await.unwrap();
        lock.load().await.unwrap_err();
        let newer = record("newer");
        let saved = lock
            .save(tower_salesforce_auth::store::Save::new(&newer))
            .await;
        saved.unwrap_err();
        lock.unlock().await;
        assert_eq!(postgres.sql(whole), before, "{change}");
        postgres.sql("DELETE FROM salesforce_sessions; INSERT INTO salesforce_sessions SELECT * FROM kept; DROP TABLE kept");
    }
    assert_eq!(loaded(&store, KEY).await, "access");
}
