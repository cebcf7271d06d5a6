//! `RedisStore` on a cluster of two servers, between which a slot moves.

use std::time::Duration;

use tower_salesforce_auth::store::{RedisStore, Save, SessionStore, StoreErrorKind, conformance};

use crate::{
    records::{KEY, first, put, session},
    servers::{free_port, redis::Redis},
};

/// A server that is to be part of a cluster.
fn node() -> Option<(Redis, String)> {
    let bus = free_port().to_string();
    let settings = [
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-node-timeout",
        "2000",
    ];
    Some((Redis::start_with(&settings)?, bus))
}

/// A cluster of two servers, whose slots are all at the first one.
struct Cluster {
    servers: [Redis; 2],
    ids: [String; 2],
}

impl Cluster {
    fn start() -> Option<Self> {
        let ((first, _), (second, bus)) = (node()?, node()?);
        first.run(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        let port = second.port().to_string();
        first.run(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        for server in [&first, &second] {
            loop {
                let info = server.run(&["CLUSTER", "INFO"]);
                if info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2") {
                    break;
                }
                std::thread::yield_now();
            }
        }
        let ids = [&first, &second].map(|server| server.run(&["CLUSTER", "MYID"]));
        Some(Self {
            servers: [first, second],
            ids,
        })
    }

    fn store(&self, server: usize) -> RedisStore {
        let store = RedisStore::new(self.servers[server].url()).unwrap();
        store.lock_timeout(Duration::from_millis(200))
    }

    fn slot(&self, store: &RedisStore) -> String {
        self.servers[0].run(&["CLUSTER", "KEYSLOT", &store.name(KEY)])
    }

    /// Begins to move a slot from the first server to the second.
    fn begin_to_move(&self, slot: &str) {
        let [first, second] = &self.servers;
        second.run(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &self.ids[0]]);
        first.run(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &self.ids[1]]);
    }

    fn move_key(&self, name: &str) {
        let [first, second] = &self.servers;
        let port = second.port().to_string();
        first.run(&["MIGRATE", "127.0.0.1", &port, name, "0", "5000"]);
    }

    fn end_move(&self, slot: &str) {
        for server in self.servers.iter().rev() {
            server.run(&["CLUSTER", "SETSLOT", slot, "NODE", &self.ids[1]]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_store_conforms_on_a_cluster() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    // The second server has no slot, and names the first one.
    conformance::check(|| cluster.store(1)).await;
    conformance::check_notices(|| cluster.store(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_is_followed() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let stores = [cluster.store(0), cluster.store(1)];
    let mut last = first();
    put(&stores[0], &last).await;
    let (slot, name) = (cluster.slot(&stores[0]), stores[0].name(KEY));

    // The record is still at the first server, and a new lock at the second.
    cluster.begin_to_move(&slot);
    for step in ["before", "after", "end"] {
        for store in &stores {
            let mut lock = store
                .lock(KEY)
                .await
                .unwrap_or_else(|error| panic!("{step}: {error}"));
            let loaded = lock.load().await.unwrap().unwrap();
            assert_eq!(loaded.version(), last.version(), "{step}");
            let next = last.followed_by(session(step));
            let save = Save::new(&next).replacing(last.version());
            lock.save(save).await.unwrap();
            lock.renew().await.unwrap();
            lock.unlock().await;
            last = next;
        }
        match step {
            "before" => cluster.move_key(&name),
            _ => cluster.end_move(&slot),
        }
    }
    let there = cluster.servers[1].run(&["EXISTS", &name]);
    assert_eq!(there, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_a_slot_says_so() {
    let Some((redis, _)) = node() else { return };
    let store = RedisStore::new(redis.url()).unwrap();
    let error = store.load(KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let told = error.to_string();
    assert!(
        told.contains("CLUSTERDOWN") && told.contains("CLUSTER INFO"),
        "{told}"
    );

    let store = RedisStore::new(format!("{}/1", redis.url())).unwrap();
    let told = store.load(KEY).await.unwrap_err().to_string();
    assert!(told.contains("database 0 only"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_a_cluster_that_is_down_is_passed_over() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let nothing = format!("redis://127.0.0.1:{}", free_port());
    let urls = [nothing, cluster.servers[1].url()];
    let store = RedisStore::cluster(urls).unwrap();
    let first = first();
    put(&store, &first).await;
    let loaded = cluster.store(0).load(KEY).await.unwrap().unwrap();
    assert_eq!(loaded.version(), first.version());
}
