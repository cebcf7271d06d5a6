//! Saves a refresh token that a refresh could not save, once the store is back.

use std::{sync::Arc, time::Duration};

use tokio::{runtime, time::sleep};

use crate::{
    error::ErrorKind,
    refresh::{
        core::decide::SavedBy,
        panic::catch_panic,
        save::save,
        shared::{SessionCore, Shared},
    },
    session::jitter::with_jitter,
    store::StoreKey,
};

/// Longest pause before the first try. It doubles with each, up to `LONGEST_PAUSE`. Of each pause, a random half is left out.
///
/// A lease that the store has kept is renewed by each try, and has to last until the next one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Starts the task, if the newest refresh token is not stored and none runs. Outside of a runtime nothing happens.
pub(super) fn start(shared: &Arc<Shared>) {
    let Some(store) = &shared.settings.store else {
        return;
    };
    if !shared.read(SessionCore::has_unsaved_refresh_token) {
        return;
    }
    let Ok(runtime) = runtime::Handle::try_current() else {
        return;
    };
    // The refresh has told of the failure, and the task tells of no other.
    let store = store.quiet();
    shared.saver.start(|| {
        // It keeps the session, also if all handles are dropped: the token may be the only valid one.
        let saving = save_again(Arc::clone(shared), store);
        runtime.spawn(saving).abort_handle()
    });
}

/// Saves the session, unless the store has a newer one.
async fn save_again(shared: Arc<Shared>, store: StoreKey) {
    let mut pause = FIRST_PAUSE;
    loop {
        sleep(with_jitter(pause)).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
        // A refresh or the user was faster.
        if !shared.read(SessionCore::has_unsaved_refresh_token) {
            return;
        }
        let under_way = shared.begin_save();
        let saved = catch_panic(save(&shared, &store, SavedBy::Background)).await;
        drop(under_way);
        match saved {
            Ok(Err(error)) if error.kind() == ErrorKind::Store => {}
            // Saved, or there is nothing to save any more.
            Ok(_) => return,
            // The store panicked. Its next answer may be another one.
            Err(_) => {}
        }
    }
}
