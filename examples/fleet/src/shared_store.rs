//! Where the processes keep their session.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tower_salesforce_auth::store::{FileStore, RedisStore, SessionStore, StoreError};

/// The key that all processes use.
pub(crate) const KEY: &str = "integration-user";

#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Place {
    /// A Redis or a Valkey, by its URL.
    Redis(String),
    Directory(String),
}

impl Place {
    pub(crate) fn open(&self, prefix: &str) -> Result<Arc<dyn SessionStore>, StoreError> {
        Ok(match self {
            Self::Redis(url) => Arc::new(RedisStore::new(url)?.prefix(prefix)),
            Self::Directory(directory) => Arc::new(FileStore::open(directory)?),
        })
    }

    /// What it is, without the password of a URL.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Redis(url) => {
                let (_, host) = url
                    .rsplit_once('@')
                    .or(url.split_once("://"))
                    .unwrap_or_default();
                format!("the Redis at {host}")
            }
            Self::Directory(directory) => {
                format!("{directory}, since there is neither a URL nor REDIS_URL")
            }
        }
    }
}
