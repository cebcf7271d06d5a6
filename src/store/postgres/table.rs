//! The table, and the statements on it.

use crate::error::{StoreError, StoreErrorKind};

/// The longest identifier of PostgreSQL, in bytes.
const LONGEST_NAME: usize = 63;

/// The name of the table, and what is sent to the server. All time is the server's.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// As it was given, to be shown.
    pub(super) name: String,
    /// As it is sent.
    pub(super) quoted: String,
    pub(super) ddl: String,
    pub(super) check: String,
    pub(super) get: String,
    pub(super) acquire: String,
    pub(super) renew: String,
    pub(super) insert: String,
    pub(super) update: String,
    pub(super) version: String,
    pub(super) versions: String,
    pub(super) delete: String,
    pub(super) release: String,
}

impl Table {
    /// A table of this name, which may have a schema before it.
    pub(super) fn named(name: &str) -> Result<Self, StoreError> {
        let parts: Vec<_> = name.split('.').collect();
        if parts.len() > 2 || !parts.iter().all(|part| is_identifier(part)) {
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                format!(
                    "the name of the table for sessions is not valid: expected `table` or `schema.table`, each of ASCII letters, \
                     digits and `_`, not beginning with a digit, and of at most {LONGEST_NAME} characters"
                ),
            ));
        }
        let quoted: Vec<_> = parts.iter().map(|part| format!("\"{part}\"")).collect();
        Ok(Self::quoted(name, &quoted.join(".")))
    }

    fn quoted(name: &str, table: &str) -> Self {
        let is_owned = "key_hash = $1 AND owner = $2 AND lease_until > clock_timestamp()";
        Self {
            name: name.to_owned(),
            quoted: table.to_owned(),
            ddl: format!(
                "CREATE TABLE IF NOT EXISTS {table} (key_hash bytea PRIMARY KEY, key text NOT NULL, record bytea, version text, \
                 owner text, lease_until timestamptz, saved_at timestamptz, expires_at timestamptz)"
            ),
            check: check(table),
            get: format!("SELECT record, version FROM {table} WHERE key_hash = $1"),
            acquire: acquire(table),
            renew: format!(
                "UPDATE {table} SET lease_until = {} WHERE {is_owned} RETURNING 1",
                in_millis("$3")
            ),
            insert: with_notice(&insert(table)),
            update: with_notice(&format!(
                "UPDATE {table} SET record = $3, version = $4, saved_at = clock_timestamp(), expires_at = {} \
                 WHERE key_hash = $1 AND version = $2 RETURNING 1",
                in_millis("$5")
            )),
            version: format!("SELECT version FROM {table} WHERE key_hash = $1"),
            versions: format!("SELECT key_hash, version FROM {table} WHERE key_hash = ANY ($1)"),
            delete: with_notice(&format!(
                "UPDATE {table} SET record = NULL, version = NULL, saved_at = NULL, expires_at = NULL WHERE {is_owned} RETURNING 1"
            )),
            // A row without a record is of no use without a lease.
            release: format!(
                "WITH gone AS (DELETE FROM {table} WHERE key_hash = $1 AND owner = $2 AND record IS NULL AND version IS NULL) \
                 UPDATE {table} SET owner = NULL, lease_until = NULL \
                 WHERE key_hash = $1 AND owner = $2 AND (record IS NOT NULL OR version IS NOT NULL)"
            ),
        }
    }
}

/// Changes no row, and fails as the others do if the table has another shape, or if this user may not change it.
fn check(table: &str) -> String {
    format!(
        "INSERT INTO {table} (key_hash, key, record, version, owner, lease_until, saved_at, expires_at) \
         SELECT ''::bytea, ''::text, ''::bytea, ''::text, ''::text, now(), now(), now() \
         WHERE EXISTS (SELECT 1 FROM {table} WHERE false AND (key_hash, record) = (''::bytea, ''::bytea) \
         AND (key, version, owner) = (''::text, ''::text, ''::text) \
         AND (lease_until, saved_at, expires_at) = (now(), now(), now())) \
         ON CONFLICT (key_hash) DO UPDATE SET record = EXCLUDED.record, version = EXCLUDED.version, \
         owner = EXCLUDED.owner, lease_until = EXCLUDED.lease_until, saved_at = EXCLUDED.saved_at, \
         expires_at = EXCLUDED.expires_at RETURNING 1"
    )
}

/// A lease that lasts is seen by reading: waiting processes write nothing. A server that permits no write refuses the statement
/// in any case.
fn acquire(table: &str) -> String {
    let until = in_millis("$4");
    format!(
        "WITH taken AS (INSERT INTO {table} AS stored (key_hash, key, owner, lease_until) \
         SELECT $1, $2, $3, {until} WHERE NOT EXISTS \
         (SELECT 1 FROM {table} WHERE key_hash = $1 AND lease_until > clock_timestamp()) \
         ON CONFLICT (key_hash) DO UPDATE SET owner = EXCLUDED.owner, lease_until = {until} \
         WHERE stored.lease_until IS NULL OR stored.lease_until <= clock_timestamp() RETURNING 1) \
         SELECT EXISTS (SELECT 1 FROM taken), (SELECT ceil(extract(epoch FROM \
         least(lease_until, clock_timestamp() + interval '1 day') - clock_timestamp()) * 1000)::int8 \
         FROM {table} WHERE key_hash = $1)"
    )
}

/// Saves the first record of a key.
fn insert(table: &str) -> String {
    format!(
        "INSERT INTO {table} AS stored (key_hash, key, record, version, saved_at, expires_at) \
         VALUES ($1, $2, $3, $4, clock_timestamp(), {}) ON CONFLICT (key_hash) DO UPDATE SET record = EXCLUDED.record, \
         version = EXCLUDED.version, saved_at = EXCLUDED.saved_at, expires_at = EXCLUDED.expires_at \
         WHERE stored.version IS NULL AND stored.record IS NULL RETURNING 1",
        in_millis("$5")
    )
}

/// The time that is this many milliseconds from now.
fn in_millis(parameter: &str) -> String {
    format!("clock_timestamp() + {parameter} * interval '1 millisecond'")
}

/// The channel of the notices. Its name is the same for all tables of a database.
pub(super) const CHANNEL: &str = "tower_salesforce_auth";

/// Tells of the change in the same statement. The notice names a hash: its length is limited, and that of keys is not.
fn with_notice(change: &str) -> String {
    format!(
        "WITH changed AS ({change}) SELECT pg_notify('{CHANNEL}', encode($1, 'hex')) FROM changed"
    )
}

fn is_identifier(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.bytes().all(is_part)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}
