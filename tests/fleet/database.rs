//! The database of a fleet: either server, with the faults that a test gives it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tower_salesforce_auth::store::{PostgresStore, RedisStore, SessionStore, StoreErrorKind};

use crate::{
    part::{KEY, Part},
    program::LIMIT,
    servers::{postgres::Postgres, redis::Redis},
};

/// Writes fail as on a disk that is full.
const FILL: &str = "
    CREATE OR REPLACE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
    END $$;
    CREATE TRIGGER no_space BEFORE INSERT OR UPDATE ON salesforce_sessions
        FOR EACH ROW EXECUTE FUNCTION no_space();
";
const EMPTY: &str = "DROP TRIGGER no_space ON salesforce_sessions";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Redis,
    Postgres,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Redis, Self::Postgres];
}

pub(crate) enum Database {
    Redis(Redis),
    Postgres(Postgres),
}

impl Database {
    /// Starts a server. `None` if it is not installed.
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Redis => Redis::start().map(Self::Redis),
            Kind::Postgres => Postgres::start().map(Self::Postgres),
        }
    }

    /// Creates what the store needs.
    pub(crate) async fn prepare(&self) {
        if let Self::Postgres(postgres) = self {
            let store = PostgresStore::new(postgres.url()).unwrap();
            store.migrate().await.unwrap();
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let port = match self {
            Self::Redis(redis) => redis.port(),
            Self::Postgres(postgres) => postgres.port(),
        };
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Its URL for a process that reaches it at this address.
    pub(crate) fn url_at(&self, address: SocketAddr) -> String {
        match self {
            Self::Redis(_) => format!("redis://{address}"),
            Self::Postgres(_) => format!("postgres://postgres@{address}/postgres"),
        }
    }

    pub(crate) fn kill(&self) {
        match self {
            Self::Redis(redis) => redis.kill(),
            Self::Postgres(postgres) => postgres.kill(),
        }
    }

    pub(crate) fn start_again(&self) {
        match self {
            Self::Redis(redis) => redis.start_again(),
            Self::Postgres(postgres) => postgres.start_again(),
        }
    }

    pub(crate) fn pause(&self) {
        match self {
            Self::Redis(redis) => redis.pause(),
            Self::Postgres(postgres) => postgres.pause(),
        }
    }

    pub(crate) fn resume(&self) {
        match self {
            Self::Redis(redis) => redis.resume(),
            Self::Postgres(postgres) => postgres.resume(),
        }
    }

    pub(crate) fn set_read_only(&self, is_read_only: bool) {
        match self {
            Self::Redis(redis) => {
                // Too few replicas to write.
                let replicas = if is_read_only { "3" } else { "0" };
                redis.run(&["CONFIG", "SET", "min-replicas-to-write", replicas]);
            }
            Self::Postgres(postgres) => {
                let value = if is_read_only { "on" } else { "off" };
                let setting = "default_transaction_read_only";
                postgres.sql(&format!("ALTER SYSTEM SET {setting} = {value}"));
                postgres.sql("SELECT pg_reload_conf()");
                while postgres.sql(&format!("SHOW {setting}")) != value {}
            }
        }
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        match self {
            Self::Redis(redis) => {
                let memory = if is_full { "1" } else { "0" };
                redis.run(&["CONFIG", "SET", "maxmemory", memory]);
            }
            Self::Postgres(postgres) => {
                postgres.sql(if is_full { FILL } else { EMPTY });
            }
        }
    }

    /// Makes it a replica of another server, which is not there, or the primary again.
    pub(crate) fn set_failed_over(&self, is_replica: bool) {
        match self {
            Self::Redis(redis) => {
                let of = if is_replica {
                    ["REPLICAOF", "127.0.0.1", "1"]
                } else {
                    ["REPLICAOF", "NO", "ONE"]
                };
                redis.run(&of);
            }
            // A standby refuses each write in the same way.
            Self::Postgres(_) => self.set_read_only(is_replica),
        }
    }

    /// Connections that are in a transaction, or that wait for something.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Redis(redis) => {
                let clients = redis.run(&["CLIENT", "LIST", "TYPE", "normal"]);
                let is_held = |client: &&str| {
                    let flags = field(client, "flags").unwrap_or_default();
                    flags.contains(['b', 'x', 'd']) || field(client, "multi") != Some("-1")
                };
                clients.lines().filter(is_held).count()
            }
            Self::Postgres(postgres) => clients(postgres, "state LIKE 'idle in%'"),
        }
    }

    /// Connections that subscribe to notices, once there are as many as are expected.
    pub(crate) async fn subscriptions(&self, expected: usize) -> usize {
        let waiting = async {
            while self.subscriptions_now() != expected {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = timeout(LIMIT, waiting).await;
        self.subscriptions_now()
    }

    fn subscriptions_now(&self) -> usize {
        match self {
            Self::Redis(redis) => {
                let clients = redis.run(&["CLIENT", "LIST", "TYPE", "pubsub"]);
                clients.lines().filter(|line| !line.is_empty()).count()
            }
            Self::Postgres(postgres) => {
                // A follower asks for the versions of its keys on the connection that listens.
                clients(
                    postgres,
                    "(query LIKE 'LISTEN%' OR query LIKE '%ANY ($1)%')",
                )
            }
        }
    }

    // === What is stored ===

    fn store(&self) -> Arc<dyn SessionStore> {
        let url = self.url_at(self.address());
        open(&url, Duration::from_secs(1), Duration::ZERO)
    }

    /// Waits until no process holds the lock: a lock that could not be released ends with its lease.
    pub(crate) async fn is_free(&self) {
        while self.is_locked().await {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether a process holds the lock.
    pub(crate) async fn is_locked(&self) -> bool {
        match self.store().lock(KEY).await {
            Ok(lock) => {
                lock.unlock().await;
                false
            }
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::LockBusy, "{error}");
                true
            }
        }
    }
}

/// How many clients of a server are so.
fn clients(postgres: &Postgres, condition: &str) -> usize {
    let clients = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
    let count = postgres.sql(&format!(
        "{clients} AND pid <> pg_backend_pid() AND {condition}"
    ));
    count.parse().unwrap()
}

/// A field of a line of `CLIENT LIST`.
fn field<'a>(client: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = client.split(' ').filter_map(|field| field.split_once('='));
    fields.find_map(|(field, value)| (field == name).then_some(value))
}

/// The store of a process.
pub(crate) fn open_store(part: &Part) -> Arc<dyn SessionStore> {
    open(
        &part.store_url,
        Duration::from_millis(part.lease_ms),
        Duration::from_millis(part.lock_timeout_ms),
    )
}

fn open(url: &str, lease: Duration, lock_timeout: Duration) -> Arc<dyn SessionStore> {
    if url.starts_with("redis:") {
        let store = RedisStore::new(url).unwrap();
        Arc::new(store.lease(lease).lock_timeout(lock_timeout))
    } else {
        let store = PostgresStore::new(url).unwrap();
        Arc::new(store.lease(lease).lock_timeout(lock_timeout))
    }
}
