//! A `LeaseBackend` on two objects for each key: a Secret has the record, a Lease has the lock.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tower_salesforce_auth::store::{
    Acquired, BoxFuture, LeaseBackend, Put, StoreError, StoreErrorKind, Stored, Version,
};

use crate::api::{Api, Kind};

/// How often a step begins again because another process wrote in between.
const TRIES: usize = 5;

/// Counts how often a lease was taken or renewed. An update without a change would leave the `resourceVersion` as it is.
const BEAT: &str = "salesforce-session/beat";

/// Keeps sessions in the Secrets of a namespace.
///
/// The API server compares the `resourceVersion` of each update, and so each step is atomic. It does not compare times. As the
/// leader election of Kubernetes does, a process takes a lease over once it has seen the same `resourceVersion` for the whole
/// length of the lease, by its own monotonic clock. No clocks are compared. A lease begins for its holder before it is written,
/// and for all others when they see it: the holder stops first.
#[derive(Clone)]
pub(crate) struct KubernetesBackend {
    api: Api,
    /// The leases that this process has seen, by name.
    seen: Arc<Mutex<HashMap<String, Seen>>>,
}

struct Seen {
    version: Value,
    since: Instant,
}

impl KubernetesBackend {
    pub(crate) fn new(api: Api) -> Self {
        Self {
            api,
            seen: Arc::default(),
        }
    }

    /// Notes a lease. Returns how long this process has seen it without a change.
    fn see(&self, name: &str, lease: &Value, now: Instant) -> Duration {
        let version = &lease["metadata"]["resourceVersion"];
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match seen.get(name) {
            Some(seen) if seen.version == *version => seen.since.elapsed(),
            _ => {
                let version = version.clone();
                seen.insert(
                    name.to_owned(),
                    Seen {
                        version,
                        since: now,
                    },
                );
                Duration::ZERO
            }
        }
    }

    /// How long a lease lasts. `None`: it is free, or over.
    fn left(&self, name: &str, lease: &Value) -> Option<Duration> {
        let owner = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let length = lease["spec"]["leaseDurationSeconds"]
            .as_u64()
            .unwrap_or_default();
        let seen = self.see(name, lease, Instant::now());
        let left = Duration::from_secs(length).saturating_sub(seen);
        (!owner.is_empty() && !left.is_zero()).then_some(left)
    }

    async fn take(&self, key: &str, owner: &str, length: Duration) -> Result<Acquired, StoreError> {
        let (name, begun) = (name(key), Instant::now());
        let written = match self.api.get(Kind::Lease, &name).await? {
            None => {
                let lease = object(Kind::Lease, &name);
                self.api
                    .create(Kind::Lease, owned(lease, owner, length))
                    .await?
            }
            Some(lease) => {
                if let Some(left) = self.left(&name, &lease) {
                    return Ok(Acquired::HeldFor(left));
                }
                self.api
                    .replace(Kind::Lease, owned(lease, owner, length))
                    .await?
            }
        };
        Ok(match written {
            Some(lease) => {
                self.see(&name, &lease, begun);
                Acquired::Taken
            }
            // Another one was first.
            None => Acquired::HeldFor(length),
        })
    }

    /// Writes the lease of `owner`: for this length from now, or free. Returns whether `owner` had it.
    async fn change(
        &self,
        key: &str,
        owner: &str,
        next: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let name = name(key);
        for _ in 0..TRIES {
            let begun = Instant::now();
            let Some(lease) = self.api.get(Kind::Lease, &name).await? else {
                return Ok(false);
            };
            if lease["spec"]["holderIdentity"] != owner {
                return Ok(false);
            }
            let lease = match next {
                Some(length) => owned(lease, owner, length),
                None => owned(lease, "", Duration::ZERO),
            };
            if let Some(lease) = self.api.replace(Kind::Lease, lease).await? {
                self.see(&name, &lease, begun);
                return Ok(true);
            }
        }
        Err(busy())
    }

    async fn save(&self, key: &str, put: Put<'_>) -> Result<Option<Version>, StoreError> {
        let name = name(key);
        for _ in 0..TRIES {
            let found = self.api.get(Kind::Secret, &name).await?;
            let stored = found.as_ref().map(stored).transpose()?;
            let stored = stored.map(|stored| stored.version);
            if stored == Some(put.version) || stored != put.replaces {
                return Ok(stored);
            }
            let mut secret = found.unwrap_or_else(|| object(Kind::Secret, &name));
            secret["data"] = json!({
                "key": STANDARD.encode(key),
                "record": STANDARD.encode(put.text.expose()),
                "version": STANDARD.encode(put.version.to_string()),
            });
            let written = match stored {
                None => self.api.create(Kind::Secret, secret).await?,
                Some(_) => self.api.replace(Kind::Secret, secret).await?,
            };
            if written.is_some() {
                return Ok(Some(put.version));
            }
        }
        Err(busy())
    }

    async fn remove(&self, key: &str, owner: &str) -> Result<bool, StoreError> {
        let name = name(key);
        for _ in 0..TRIES {
            let found = self.api.get(Kind::Secret, &name).await?;
            // The lease was the owner's after the Secret was read, and what is deleted is what was read.
            let lease = self.api.get(Kind::Lease, &name).await?;
            let length = lease.and_then(|lease| lease["spec"]["leaseDurationSeconds"].as_u64());
            let length = Duration::from_secs(length.unwrap_or_default());
            if !self.change(key, owner, Some(length)).await? {
                return Ok(false);
            }
            let Some(secret) = found else {
                return Ok(true);
            };
            let version = &secret["metadata"]["resourceVersion"];
            if self.api.delete(Kind::Secret, &name, version).await? {
                return Ok(true);
            }
        }
        Err(busy())
    }
}

/// The name of both objects. Names have few characters, so it is a hash of the key.
fn name(key: &str) -> String {
    let hash = Sha256::digest(key.as_bytes());
    let hash = hash
        .iter()
        .take(16)
        .fold(0, |hash: u128, byte| hash << 8 | u128::from(*byte));
    format!("salesforce-session-{hash:032x}")
}

fn object(kind: Kind, name: &str) -> Value {
    match kind {
        Kind::Secret => json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": name },
            "type": "Opaque",
        }),
        Kind::Lease => json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": name },
        }),
    }
}

/// The lease of `owner`, in place of this one.
fn owned(mut lease: Value, owner: &str, length: Duration) -> Value {
    let beat = lease["metadata"]["annotations"][BEAT].as_str();
    let beat: u64 = beat.and_then(|beat| beat.parse().ok()).unwrap_or_default();
    lease["metadata"]["annotations"][BEAT] = json!(beat.wrapping_add(1).to_string());
    // Whole seconds, and one at least.
    let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
    lease["spec"] = json!({ "holderIdentity": owner, "leaseDurationSeconds": seconds.max(1) });
    lease
}

/// The record in a Secret.
fn stored(secret: &Value) -> Result<Stored, StoreError> {
    let field = |name: &str| {
        let raw = STANDARD.decode(secret["data"][name].as_str()?).ok()?;
        String::from_utf8(raw).ok()
    };
    match (field("record"), field("version")) {
        (Some(text), Some(version)) => Ok(Stored::new(text, version.parse()?)),
        _ => Err(StoreError::new(
            StoreErrorKind::Corrupt,
            "the Secret of the session has no record and version: restore it, or delete it to log in again",
        )),
    }
}

fn busy() -> StoreError {
    let message = "other processes change the objects of the session again and again";
    StoreError::new(StoreErrorKind::Unavailable, message)
}

impl LeaseBackend for KubernetesBackend {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        Box::pin(async move {
            let secret = self.api.get(Kind::Secret, &name(key)).await?;
            secret.as_ref().map(stored).transpose()
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        Box::pin(self.take(key, owner, lease))
    }

    fn renew<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.change(key, owner, Some(lease)))
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
        Box::pin(self.remove(key, owner))
    }

    fn release<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.change(key, owner, None).await.map(drop) })
    }
}
