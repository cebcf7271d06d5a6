//! A session store in PostgreSQL.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    backend::Backend, failure::unavailable, listener::Listener, pool::Pool, server::Server,
    table::Table, url,
};
#[cfg(feature = "encryption")]
use crate::store::encryption::EncryptionKey;
use crate::{
    error::StoreError,
    store::{
        lease::lease_store::LeaseStore,
        record::Record,
        session_store::{BoxFuture, SessionStore, StoreLock},
        version::Version,
    },
    tls,
};

const DEFAULT_TABLE: &str = "salesforce_sessions";

const DEFAULT_CONNECTIONS: usize = 4;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A shorter one would cut off every call.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);

/// A longer one is none.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// How often `migrate` tries: another process may create the table at the same time.
const MIGRATIONS: usize = 5;

const NO_TABLE: &str = "42P01";

/// Keeps each session in a row of a PostgreSQL table, for the processes of many machines.
///
/// ```no_run
/// use tower_salesforce_auth::{
///     SalesforceAuthLayer, SessionHandle,
///     flow::{HttpClient, RefreshToken},
///     oauth::App,
///     store::{EncryptionKey, PostgresStore},
/// };
///
/// # async fn layer(http: impl HttpClient, app: App, refresh_token: String, key: EncryptionKey)
/// # -> Result<SalesforceAuthLayer, Box<dyn std::error::Error>> {
/// // postgres://app:password@db.example.com/app
/// let store = PostgresStore::new(std::env::var("DATABASE_URL")?)?.encryption(key);
/// store.migrate().await?;
///
/// let login = RefreshToken::new(http, app, refresh_token);
/// let handle = SessionHandle::builder(login).store(store, "nightly-export").follow_store();
/// # Ok(handle.build().into())
/// # }
/// ```
///
/// Clones share their connections.
///
/// # The URL
///
/// `postgres://user:password@host:5432/database`, or `postgresql://…`. It may have several hosts, separated by commas. The store
/// loads and saves at the first one that takes writes, and so never at a standby, which may lag behind. After a failover it
/// finds the new primary by itself. A path in place of a host, percent-encoded, is the directory of a socket.
///
/// | option after `?` | meaning |
/// |---|---|
/// | `sslmode` | see [TLS](#tls) |
/// | `target_session_attrs` | `read-write`, which is the default and the only value |
/// | `channel_binding` | `disable`, `prefer` or `require` that the login is bound to the certificate of the server. Default: `prefer` |
/// | `connect_timeout` | the time for a TCP connection to one address, in seconds, within the [timeout](Self::timeout) |
/// | `application_name` | what the server shows in `pg_stat_activity`. Default: `tower-salesforce-auth` |
/// | `options` | settings of the server's session. Many poolers permit none |
/// | `host`, `port`, `user`, `password`, `dbname` | as in the URL itself |
///
/// # TLS
///
/// Records contain tokens, so a connection that leaves the machine is encrypted, unless the URL says otherwise. The certificate
/// is always verified, with the name of its host, against those of the operating system and the
/// [`root_certificates`](Self::root_certificates).
///
/// | `sslmode` | connections |
/// |---|---|
/// | none | TLS, but none to a loopback address, `localhost` or a socket |
/// | `require`, `verify-ca`, `verify-full` | TLS. Unlike in libpq, all three verify the certificate and the name |
/// | `prefer` | TLS if the server offers it. An attacker in the network can remove it |
/// | `disable` | no TLS |
///
/// # The table
///
/// [`migrate`](Self::migrate) creates it, if the user of the URL may. An administrator can create it too:
///
/// ```sql
/// CREATE TABLE IF NOT EXISTS "salesforce_sessions" (
///     key_hash    bytea PRIMARY KEY,   -- SHA-256 of the key
///     key         text NOT NULL,       -- the key for people; other than ASCII as \u{e4}
///     record      bytea,               -- the session, secret; NULL: there is none
///     version     text,                -- its version, for compare-and-swap
///     owner       text,                -- which lock has the lease; NULL: none
///     lease_until timestamptz,
///     saved_at    timestamptz,
///     expires_at  timestamptz          -- of no use afterwards; NULL: without end
/// );
/// GRANT SELECT, INSERT, UPDATE, DELETE ON "salesforce_sessions" TO app;
/// ```
///
/// The store needs no other permission. It deletes a row that never had a session, and the session of a row at a logout. Nothing
/// deletes sessions that no process uses: with a lifetime of records, run this now and then.
///
/// ```sql
/// DELETE FROM "salesforce_sessions"
/// WHERE expires_at < now() AND (lease_until IS NULL OR lease_until < now());
/// ```
///
/// All times are those of the server. The clocks of the clients do not matter.
///
/// # Connections and poolers
///
/// Each call is one statement, which commits by itself. Between calls the store holds no connection, no transaction, no
/// prepared statement and no advisory lock: also while a token call runs. So it works behind a pooler in transaction mode, such
/// as PgBouncer.
///
/// A process has at most 4 connections ([`connections`](Self::connections)), and closes one that is not used for a minute: a
/// process at rest has none. A refresh needs about six statements, so 4 connections serve hundreds of refreshes in a second.
///
/// With [`follow_store`](crate::handle::SessionHandleBuilder::follow_store), a process has one more connection, for all sessions
/// that it follows with this store and its clones. It listens (`LISTEN tower_salesforce_auth`) while any handle waits. Each save and
/// each logout sends a notice (`NOTIFY`) with the hash of the key, in the same statement. If the connection is lost, the store
/// connects again and compares the versions of what it follows.
///
/// `LISTEN` does not work through a pooler in transaction mode. Set a [`notices_url`](Self::notices_url) then, which leads to the
/// server itself. Without notices, a process adopts a session when its own is rejected.
///
/// # When it fails
///
/// Each call ends within the [timeout](Self::timeout), default 5 s, also if the server hangs or the network is cut. A
/// connection that did not answer in time is closed. Errors are [`Unavailable`](crate::store::StoreErrorKind::Unavailable), say
/// what to do, and show neither the password nor a record. A lock is only given where the server takes writes.
///
/// A call whose future is dropped ends in the background. PostgreSQL 12 or later is needed; the tests run with 15. Leave
/// `default_transaction_isolation` at `read committed`, and `synchronous_commit` at `on`: without that, a crash of the server may
/// lose a rotated refresh token.
#[derive(Clone)]
pub struct PostgresStore {
    settings: Settings,
    store: LeaseStore<Backend>,
}

/// What the database is made of.
#[derive(Clone)]
struct Settings {
    server: Server,
    /// Where notices come from. `None`: from `server`.
    notices: Option<Server>,
    table: Arc<Table>,
    connections: usize,
    timeout: Duration,
}

impl Settings {
    fn backend(&self) -> Backend {
        let table = &self.table;
        let notices = self.notices.as_ref().unwrap_or(&self.server).clone();
        Backend {
            pool: Arc::new(Pool::new(
                self.server.clone(),
                Arc::clone(table),
                self.connections,
                self.timeout,
            )),
            table: Arc::clone(table),
            listener: Arc::new(Listener::new(notices, Arc::clone(table), self.timeout)),
        }
    }
}

impl PostgresStore {
    /// Creates a store in the database of this [URL](Self#the-url). It connects at the first call.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable) if the URL is not valid. The error shows no part of it that may be secret.
    pub fn new(url: impl AsRef<str>) -> Result<Self, StoreError> {
        let settings = Settings {
            server: url::read(url.as_ref())?,
            notices: None,
            table: Arc::new(Table::named(DEFAULT_TABLE)?),
            connections: DEFAULT_CONNECTIONS,
            timeout: DEFAULT_TIMEOUT,
        };
        let store = LeaseStore::new(settings.backend());
        Ok(Self { settings, store })
    }

    /// Sets the table: `table` or `schema.table`, in which upper case and lower case differ. Default: `salesforce_sessions`.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable) if the name has other characters than ASCII letters, digits and `_`, or is too long.
    pub fn table(self, name: &str) -> Result<Self, StoreError> {
        let table = Arc::new(Table::named(name)?);
        Ok(self.with(|settings| settings.table = table))
    }

    /// Sets the most [connections](Self#connections-and-poolers) at a time, without the one for notices. Default: 4.
    #[must_use]
    pub fn connections(self, connections: usize) -> Self {
        self.with(|settings| settings.connections = connections)
    }

    /// Sets how long a call may take: the wait for a connection, connecting, and the answer together. Default: 5 s.
    ///
    /// It should be shorter than half of the [lease](Self::lease). A shorter one than 0.1 s counts as 0.1 s.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.timeout = timeout.clamp(SHORTEST_TIMEOUT, LONGEST_TIMEOUT))
    }

    /// Sets the URL of the server itself, for notices, if the other one is that of a
    /// [pooler](Self#connections-and-poolers). Default: the same URL.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn notices_url(self, url: impl AsRef<str>) -> Result<Self, StoreError> {
        let mut notices = url::read(url.as_ref())?;
        notices = notices.trusting(&self.settings.server.roots);
        Ok(self.with(|settings| settings.notices = Some(notices)))
    }

    /// Adds trusted root certificates: one or more in PEM (RFC 7468). Each call adds to the earlier ones. Default: none.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable) if the text contains no certificate, or an unreadable one.
    pub fn root_certificates(self, pem: impl AsRef<[u8]>) -> Result<Self, StoreError> {
        let added = tls::root_certificates(pem.as_ref()).map_err(|error| {
            unavailable("the root certificates for PostgreSQL are not usable").with_source(error)
        })?;
        let mut roots = self.settings.server.roots.clone();
        roots.extend(added);
        Ok(self.with(|settings| {
            settings.server = settings.server.trusting(&roots);
            settings.notices = settings
                .notices
                .as_ref()
                .map(|notices| notices.trusting(&roots));
        }))
    }

    /// Sets how long a lock lasts unless it is renewed: how long others wait for a process that was killed. Default: 15 s.
    ///
    /// The layer renews it each third of that time. It should be long enough for the database to fail over. A shorter one than
    /// 1 s counts as 1 s.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.store = self.store.lease(lease);
        self
    }

    /// Sets how long to wait for a lock that is held elsewhere. Default: 10 s.
    ///
    /// It should be shorter than the refresh timeout.
    #[must_use]
    pub fn lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.store = self.store.lock_timeout(lock_timeout);
        self
    }

    /// Encrypts saved records. The store refuses records that are not encrypted with this key, or with one of its
    /// [older keys](EncryptionKey::or).
    #[cfg(feature = "encryption")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
    #[must_use]
    pub fn encryption(mut self, key: EncryptionKey) -> Self {
        self.store = self.store.encryption(key);
        self
    }

    /// Creates the [table](Self#the-table) if there is none, and checks that it can be used. Several processes may do so at the
    /// same time, at each start.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable) if the database cannot be reached, if this user may not create the table, or if it has another shape.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let backend = self.store.backend();
        let (pool, table) = (&backend.pool, &backend.table);
        for _ in 1..MIGRATIONS {
            // Where it exists, the user needs no permission to create it.
            match pool.query(&table.check, &[]).await {
                Err(failure) if failure.code.as_deref() == Some(NO_TABLE) => {}
                checked => return Ok(checked.map(drop)?),
            }
            match pool.query(&table.ddl, &[]).await {
                Err(failure) if failure.code.as_deref().is_some_and(is_of_creation) => {}
                created => drop(created?),
            }
        }
        Ok(pool.query(&table.check, &[]).await.map(drop)?)
    }

    /// Changes a setting of the database. What is open belongs to the earlier settings.
    fn with(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(&mut self.settings);
        let store = self.store.on(self.settings.backend());
        Self { store, ..self }
    }
}

/// Whether `CREATE TABLE IF NOT EXISTS` fails so if another process creates the table at the same time: its name or its row type
/// exists.
fn is_of_creation(code: &str) -> bool {
    matches!(code, "42P07" | "42710" | "23505")
}

impl SessionStore for PostgresStore {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.store.load(key)
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        self.store.lock(key)
    }

    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        self.store.changed(key, since)
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = &self.settings.server.hosts;
        let places: Vec<_> = hosts.iter().map(|host| &host.place).collect();
        f.debug_struct("PostgresStore")
            .field("hosts", &places)
            .field("table", &self.settings.table.name)
            .field("connections", &self.settings.connections)
            .field("timeout", &self.settings.timeout)
            .finish_non_exhaustive()
    }
}
