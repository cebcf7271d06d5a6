//! Follows the store: adopts what other processes save, before a request is rejected.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    runtime,
    time::{sleep, timeout},
};

use crate::{
    refresh::{
        panic::catch_panic,
        shared::{SessionCore, Shared},
    },
    store::{Record, StoreKey, Version},
};

/// Pause after a store that fails, or that tells of a change that was none. It doubles with each, up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Starts the task, if the settings want one and none runs. Outside of a runtime nothing happens.
pub(crate) fn start(shared: &Arc<Shared>) {
    let Some(store) = shared
        .settings
        .store
        .as_ref()
        .filter(|_| shared.settings.follows_store)
    else {
        return;
    };
    let Ok(runtime) = runtime::Handle::try_current() else {
        return;
    };
    shared.follower.start(|| {
        let following = follow(Arc::downgrade(shared), store.clone());
        runtime.spawn(following).abort_handle()
    });
}

async fn follow(shared: Weak<Shared>, store: StoreKey) {
    let mut pause = FIRST_PAUSE;
    // The version that was loaded last. The outer `None`: none was.
    let mut seen: Option<Option<Version>> = None;
    loop {
        let Some((limit, began)) = shared.upgrade().map(|shared| {
            let began = shared.read(SessionCore::lineage);
            (shared.settings.refresh_timeout, began)
        }) else {
            return;
        };
        // The store is called when these futures are polled, and not before, so that a panic is caught.
        let loading = catch_panic(async { store.store.load(&store.key).await });
        if let Ok(Ok(Ok(stored))) = timeout(limit, loading).await {
            let version = stored.as_ref().map(Record::version);
            if seen == Some(version) {
                // The notice was of no change.
                sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            } else {
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                let is_current =
                    shared.apply(|core, turn| core.offer(stored.as_ref(), began, turn));
                if !is_current {
                    continue;
                }
                seen = Some(version);
                pause = FIRST_PAUSE;
            }
            let changed = async { store.store.changed(&store.key, version).await };
            if catch_panic(changed).await.is_ok() {
                continue;
            }
        }
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}
