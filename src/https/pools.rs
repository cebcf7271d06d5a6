//! The connections of a client, apart for each runtime: a connection ends with the runtime that opened it.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use http_body::Body;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{
    runtime::{Handle, Id},
    task::AbortHandle,
};

use super::connector::Connector;
use crate::error::{Error, ErrorKind};

/// A pool of connections for each runtime that sends requests.
pub(super) struct Pools<B> {
    connector: Connector,
    idle_timeout: Duration,
    pools: Mutex<HashMap<Id, Pool<B>>>,
}

struct Pool<B> {
    client: Client<Connector, B>,
    /// Tells this pool from another one of the same runtime.
    identity: Arc<()>,
    /// Ends the task that waits for the end of the runtime.
    watch: AbortHandle,
}

impl<B> Pools<B> {
    pub(super) fn new(connector: Connector, idle_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            connector,
            idle_timeout,
            pools: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, Pool<B>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Pools<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    /// The client with the connections of the present runtime.
    pub(super) fn of_this_runtime(self: &Arc<Self>) -> Result<Client<Connector, B>, Error> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::new(
                ErrorKind::NoRuntime,
                "a request needs a tokio runtime with I/O and time",
            )
            .with_source(error)
            .with_remedy(Some("poll the future of the request inside of a runtime"))
        })?;
        let id = runtime.id();
        if let Some(pool) = self.lock().get(&id) {
            return Ok(pool.client.clone());
        }
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(self.idle_timeout)
            .pool_timer(TokioTimer::new())
            .build(self.connector.clone());
        let identity = Arc::new(());
        let guard = RuntimeGuard {
            pools: Arc::downgrade(self),
            id,
            identity: Arc::clone(&identity),
        };
        let watch = runtime.spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        let pool = Pool {
            client: client.clone(),
            identity,
            watch: watch.abort_handle(),
        };
        // Declared after `pool`: the lock ends before `pool` is dropped, whose task may end at once.
        let mut pools = self.lock();
        let taken = match pools.entry(id) {
            Entry::Vacant(place) => {
                place.insert(pool);
                return Ok(client);
            }
            // Another request was faster.
            Entry::Occupied(taken) => taken.get().client.clone(),
        };
        drop(pools);
        Ok(taken)
    }
}

impl<B> Drop for Pool<B> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Removes the connections of a runtime when the runtime ends.
struct RuntimeGuard<B> {
    pools: Weak<Pools<B>>,
    id: Id,
    identity: Arc<()>,
}

impl<B> Drop for RuntimeGuard<B> {
    fn drop(&mut self) {
        if let Some(pools) = self.pools.upgrade() {
            let mut listed = pools.lock();
            let is_own = |pool: &Pool<B>| Arc::ptr_eq(&pool.identity, &self.identity);
            let pool = listed
                .get(&self.id)
                .is_some_and(is_own)
                .then(|| listed.remove(&self.id));
            drop(listed);
            // Without the lock: connections end with it.
            drop(pool);
        }
    }
}
