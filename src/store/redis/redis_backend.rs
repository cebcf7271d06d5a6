//! The statements of a lease store, at Redis.

use std::{str, sync::Arc, time::Duration};

use redis::Value;

use super::{
    connections::{Call, Connections, Settings},
    notices::{Next, Notices},
    scripts::{self, Statement},
};
use crate::{
    error::{StoreError, StoreErrorKind},
    secret::Secret,
    store::{
        lease::backend::{Acquired, LeaseBackend, Put, Stored},
        session_store::BoxFuture,
        version::Version,
    },
};

/// The longest time that is sent, ten years in milliseconds: Redis refuses some longer ones.
const LONGEST: u128 = 10 * 365 * 24 * 60 * 60 * 1_000;

/// The servers, and the names of the keys there. Clones share their connections.
#[derive(Clone)]
pub(super) struct RedisBackend {
    prefix: Arc<str>,
    connections: Arc<Connections>,
    notices: Arc<Notices>,
}

impl RedisBackend {
    pub(super) fn new(settings: Settings, prefix: Arc<str>) -> Self {
        let connections = Arc::new(Connections::new(settings));
        Self {
            prefix,
            notices: Arc::new(Notices::new(Arc::clone(&connections))),
            connections,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.connections.settings
    }

    pub(super) fn prefix(&self) -> &Arc<str> {
        &self.prefix
    }

    /// The name of the record at the server. The part in braces decides the server of a cluster. It is never empty.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{{key:{key}}}", self.prefix)
    }

    /// The name of the lock, in the same slot of a cluster.
    fn lock(&self, key: &str) -> String {
        format!("{}:lock", self.name(key))
    }

    async fn run(
        &self,
        statement: &Statement,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<Value, StoreError> {
        let call = Call {
            statement,
            keys,
            arguments,
        };
        self.connections.run(call).await
    }

    /// Runs a statement that returns a number.
    async fn number(
        &self,
        statement: &Statement,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<i64, StoreError> {
        match self.run(statement, keys, arguments).await? {
            Value::Int(number) => Ok(number),
            _ => Err(no_sense()),
        }
    }

    async fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let name = self.name(key);
        let Value::Array(values) = self.run(&scripts::GET, &[&name], &[]).await? else {
            return Err(no_sense());
        };
        match &values[..] {
            [Value::Int(0), ..] => Ok(None),
            [_, Value::BulkString(version), Value::BulkString(text)] => {
                let (Ok(version), Ok(text)) = (str::from_utf8(version), str::from_utf8(text))
                else {
                    return Err(corrupt(&name));
                };
                let text = text.to_owned();
                let version = version.parse().map_err(|_| corrupt(&name))?;
                Ok(Some(Stored::new(text, version)))
            }
            [_, ..] => Err(corrupt(&name)),
            [] => Err(no_sense()),
        }
    }

    async fn save(&self, key: &str, put: Put<'_>) -> Result<Option<Version>, StoreError> {
        let name = self.name(key);
        let replaces = put
            .replaces
            .map_or_else(|| scripts::NONE.to_owned(), |version| version.to_string());
        let lifetime = put.lifetime.map_or_else(|| "0".to_owned(), milliseconds);
        let version = put.version.to_string();
        let text: &Secret = put.text;
        let arguments = [
            version.as_bytes(),
            text.expose().as_bytes(),
            replaces.as_bytes(),
            lifetime.as_bytes(),
        ];
        match self.run(&scripts::PUT, &[&name], &arguments).await? {
            Value::BulkString(stored) if stored == scripts::NONE.as_bytes() => Ok(None),
            Value::BulkString(stored) => {
                let stored = str::from_utf8(&stored).ok();
                let version = stored.and_then(|text| text.parse().ok());
                version.map(Some).ok_or_else(|| corrupt(&name))
            }
            _ => Err(no_sense()),
        }
    }
}

/// At least one: Redis takes 0 for "now".
fn milliseconds(time: Duration) -> String {
    time.as_millis().clamp(1, LONGEST).to_string()
}

fn corrupt(name: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Corrupt,
        format!(
            "the hash {name:?} in Redis is not a session record, and stays as it is: restore its fields `version` and \
             `text`, set another prefix, or delete it to log in again"
        ),
    )
}

fn no_sense() -> StoreError {
    StoreError::new(
        StoreErrorKind::Unavailable,
        "the Redis server answers a script with a value of another type: check that it is Redis or Valkey",
    )
}

impl LeaseBackend for RedisBackend {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        Box::pin(self.load(key))
    }

    fn acquire<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        Box::pin(async move {
            let length = milliseconds(lease);
            let arguments = [owner.as_bytes(), length.as_bytes()];
            let left = self
                .number(&scripts::ACQUIRE, &[&self.lock(key)], &arguments)
                .await?;
            Ok(match u64::try_from(left) {
                Ok(0) => Acquired::Taken,
                Ok(left) => Acquired::HeldFor(Duration::from_millis(left)),
                // Another program has made a lock without an end.
                Err(_) => Acquired::HeldFor(lease),
            })
        })
    }

    fn renew<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let length = milliseconds(lease);
            let arguments = [owner.as_bytes(), length.as_bytes()];
            Ok(self
                .number(&scripts::RENEW, &[&self.lock(key)], &arguments)
                .await?
                == 1)
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        put: Put<'a>,
    ) -> BoxFuture<'a, Result<Option<Version>, StoreError>> {
        Box::pin(self.save(key, put))
    }

    fn delete<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let arguments = [owner.as_bytes()];
            Ok(self
                .number(
                    &scripts::DELETE,
                    &[&self.name(key), &self.lock(key)],
                    &arguments,
                )
                .await?
                == 1)
        })
    }

    fn release<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let arguments = [owner.as_bytes()];
            self.number(&scripts::RELEASE, &[&self.lock(key)], &arguments)
                .await?;
            Ok(())
        })
    }

    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let name = self.name(key);
            let known =
                since.map_or_else(|| scripts::NONE.to_owned(), |version| version.to_string());
            let mut wait = self.notices.wait(&name, &known);
            while wait.next().await == Next::Ask {
                // If it cannot be loaded, the caller finds out.
                let stored = self.load(key).await;
                let stored = stored.map(|stored| stored.map(|stored| stored.version));
                if stored.ok() != Some(since) {
                    return;
                }
            }
        })
    }
}
