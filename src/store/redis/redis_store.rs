//! A session store in Redis or Valkey.

use std::{fmt, sync::Arc, time::Duration};

use super::{address, connections::Settings, redis_backend::RedisBackend};
#[cfg(feature = "encryption")]
use crate::store::encryption::EncryptionKey;
use crate::{
    error::{StoreError, StoreErrorKind},
    store::{
        lease::lease_store::LeaseStore,
        record::Record,
        session_store::{BoxFuture, SessionStore, StoreLock},
        version::Version,
    },
    tls,
};

const DEFAULT_PREFIX: &str = "tower-salesforce-auth:";

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A shorter one leaves no time to connect.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);

/// A longer one is none.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Keeps sessions in Redis or Valkey, for the processes of many machines.
///
/// ```no_run
/// use tower_salesforce_auth::{
///     SalesforceAuthLayer, SessionHandle,
///     flow::{HttpClient, RefreshToken},
///     oauth::App,
///     store::{RedisStore, StoreError},
/// };
///
/// fn layer(
///     http: impl HttpClient,
///     app: App,
///     refresh_token: String,
/// ) -> Result<SalesforceAuthLayer, StoreError> {
///     let store = RedisStore::new("rediss://sessions:password@redis.example.com")?;
///     let login = RefreshToken::new(http, app, refresh_token);
///     let handle = SessionHandle::builder(login)
///         .store(store, "nightly-export")
///         .follow_store()
///         .build();
///     Ok(handle.into())
/// }
/// ```
///
/// It does what a [`LeaseStore`](crate::store::LeaseStore) does. Each step is one Lua script, whose time is that of the server.
/// Clones share their connections.
///
/// # What is at the server
///
/// | key | what it is |
/// |---|---|
/// | `<prefix>{key:<key>}` | the record: a hash of `version` and `text` |
/// | `<prefix>{key:<key>}:lock` | the lock: a string that names its owner, and expires |
///
/// Each save and each deletion is published on a channel that is named as the record. Keys may have any length and any
/// characters. The part in braces is the hash tag: both keys of a record are in one slot of a cluster. A key of another type, and
/// a hash that is no record, stay as they are, and are an error ([`Corrupt`](StoreErrorKind::Corrupt)).
///
/// # What the server needs
///
/// - **Redis 6 or later, or Valkey**, with scripts. The tests run with Redis 7.0. A Sentinel is not asked: name the primary, for
///   example by a DNS name or a proxy that follows it.
/// - **`maxmemory-policy noeviction`**. With another policy the server may delete a session that nothing else has.
/// - **Persistence**, best `appendonly yes`. With `appendfsync everysec`, the default, a crash may lose the last second: then the
///   store has a refresh token that was used. `appendfsync always` loses nothing.
/// - **The primary.** A replica is an error, for loads as well, since it may be behind.
/// - **Memory** for 2 KiB to 16 KiB for each session, and two connections for each process: one for all calls, and one for the
///   notices, if the layer [follows the store](crate::handle::SessionHandleBuilder::follow_store).
///
/// A failover to a replica can lose the last writes, since replication is asynchronous. The layer refuses a record that is older
/// than one that it has seen. `min-replicas-to-write` makes such a loss rarer: the lock fails while the replicas are behind.
///
/// This is all that the user of the store needs:
///
/// ```text
/// ACL SETUSER sessions on >password resetkeys ~tower-salesforce-auth:*
///     resetchannels &tower-salesforce-auth:* -@all +eval +evalsha +get +set +del +exists +pexpire
///     +pttl +persist +hmget +hset +hdel +publish +subscribe +unsubscribe +ping +select
/// ```
///
/// In a cluster add `+asking`. Without `publish` there are no notices.
///
/// # TLS
///
/// `rediss://` connects with TLS 1.2 or 1.3. The certificate has to be for the host of the URL, and from an authority that the
/// platform trusts, or from one of the [added](Self::root_certificates). There is no way to skip the check. A client certificate
/// is not sent: set `tls-auth-clients no` or `optional`.
///
/// # When the server is away
///
/// The store connects with the first call, and again after a connection has failed. A call takes at most the
/// [`timeout`](Self::timeout), with connecting: then it fails with [`Unavailable`](StoreErrorKind::Unavailable), and its connection
/// is thrown away. An error names the server, and no user and no password.
///
/// The subscription is tested every 15 s. When it has failed, it is made again after a pause of 0.1 s to 10 s, and all that wait
/// look whether there was a change. It ends within 30 s after nothing waits any longer.
///
/// # Clusters
///
/// A URL of any server of a cluster is enough: the store follows where the cluster says that a slot is. [`cluster`](Self::cluster)
/// takes several, for the case that one of them is down.
#[derive(Clone)]
pub struct RedisStore {
    store: LeaseStore<RedisBackend>,
}

impl RedisStore {
    /// Creates a store on the server of this URL. It does not connect yet.
    ///
    /// The URL is `redis://[user[:password]@]host[:port][/database]`, or with `rediss` for TLS. `valkey` and `valkeys` mean the
    /// same. A socket is `redis+unix:///path[?db=…&user=…&pass=…]`. Default: port 6379, database 0.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Unavailable`] if the URL cannot be read. The error does not show it.
    pub fn new(url: impl AsRef<str>) -> Result<Self, StoreError> {
        Self::cluster([url])
    }

    /// Creates a store on a cluster, of which these URLs name some servers. It does not connect yet.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_salesforce_auth::store::RedisStore;
    ///
    /// let store = RedisStore::cluster(["redis://10.0.0.1", "redis://10.0.0.2", "redis://10.0.0.3"])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Unavailable`] if there is no URL, if one cannot be read, or if they do not have the same scheme, user,
    /// password and database.
    pub fn cluster<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Result<Self, StoreError> {
        let mut seeds = Vec::new();
        let mut login = None;
        for url in urls {
            let (address, own) = address::parse(url.as_ref())?;
            if login.get_or_insert_with(|| own.clone()) != &own {
                return Err(invalid(
                    "the URLs of a Redis cluster differ in their scheme, user, password or database: give them the same",
                ));
            }
            seeds.push(address);
        }
        let Some(login) = login else {
            return Err(invalid(
                "there is no URL of a Redis server: give one at least",
            ));
        };
        let settings = Settings {
            seeds,
            login,
            roots: Vec::new(),
            limit: DEFAULT_TIMEOUT,
        };
        let store = LeaseStore::new(RedisBackend::new(settings, DEFAULT_PREFIX.into()));
        Ok(Self { store })
    }

    /// Changes the settings, before the first call.
    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let backend = self.store.backend();
        let (mut settings, prefix) = (backend.settings().clone(), Arc::clone(backend.prefix()));
        change(&mut settings);
        let store = self.store.on(RedisBackend::new(settings, prefix));
        Self { store }
    }

    /// Sets what the names of all keys begin with. Default: `tower-salesforce-auth:`.
    ///
    /// Stores with different prefixes do not see each other's records. Braces in it are a hash tag of all keys.
    #[must_use]
    pub fn prefix(self, prefix: impl AsRef<str>) -> Self {
        let settings = self.store.backend().settings().clone();
        let backend = RedisBackend::new(settings, prefix.as_ref().into());
        let store = self.store.on(backend);
        Self { store }
    }

    /// Adds trusted root certificates: one or more in PEM (RFC 7468). Each call adds to the earlier ones. Default: none.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Unavailable`] if the text contains no certificate, or an unreadable one.
    pub fn root_certificates(self, pem: impl AsRef<[u8]>) -> Result<Self, StoreError> {
        let roots = tls::root_certificates(pem.as_ref()).map_err(|error| {
            invalid("the root certificates for the Redis server cannot be used").with_source(error)
        })?;
        Ok(self.with(|settings| settings.roots.extend(roots)))
    }

    /// Sets how long a call may take, with connecting. Default: 5 s.
    ///
    /// It should be shorter than half of the [lease](Self::lease). A shorter one than 0.1 s counts as 0.1 s.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.limit = timeout.clamp(SHORTEST_TIMEOUT, LONGEST_TIMEOUT))
    }

    /// Sets how long a lock lasts unless it is renewed: how long others wait for a process that was killed. Default: 15 s.
    ///
    /// The layer renews it each third of that time. It should be long enough for the server to fail over. A shorter one than 1 s
    /// counts as 1 s.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        let store = self.store.lease(lease);
        Self { store }
    }

    /// Sets how long to wait for a lock that is held elsewhere. Default: 10 s.
    ///
    /// It should be shorter than the refresh timeout.
    #[must_use]
    pub fn lock_timeout(self, lock_timeout: Duration) -> Self {
        let store = self.store.lock_timeout(lock_timeout);
        Self { store }
    }

    /// Encrypts saved records. The store refuses records that are not encrypted with this key, or with one of its
    /// [older keys](EncryptionKey::or).
    #[cfg(feature = "encryption")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
    #[must_use]
    pub fn encryption(self, key: EncryptionKey) -> Self {
        let store = self.store.encryption(key);
        Self { store }
    }

    /// The name of the record of this key at the server.
    pub fn name(&self, key: &str) -> String {
        self.store.backend().name(key)
    }
}

impl SessionStore for RedisStore {
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

fn invalid(message: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, message)
}

/// It shows no user and no password.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backend = self.store.backend();
        let servers = backend.settings().seeds.iter();
        let servers: Vec<_> = servers.map(ToString::to_string).collect();
        f.debug_struct("RedisStore")
            .field("servers", &servers)
            .field("prefix", backend.prefix())
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
