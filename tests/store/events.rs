//! An observer that records events.

use std::sync::{Arc, Mutex};

use tower_salesforce_auth::{
    Secret,
    observer::{Observer, RefreshFailed, RefreshStarted, SessionAdopted, StoreFailed},
};

/// The events of an observer, as text.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<String>>>, Arc<Mutex<Option<Secret>>>);

impl Events {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The last refresh token that was reported without a session.
    pub(crate) fn last_refresh_token(&self) -> Option<Secret> {
        self.1.lock().unwrap().clone()
    }

    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

impl Observer for Events {
    fn refresh_started(&self, _: &RefreshStarted) {
        self.note("started".to_owned());
    }

    fn refresh_failed(&self, event: &RefreshFailed) {
        self.note(format!("failed {:?}", event.error().kind()));
    }

    fn session_adopted(&self, event: &SessionAdopted) {
        self.note(format!("adopted {:?}", event.reason()));
    }

    fn refresh_token_changed(&self, refresh_token: &Secret) {
        *self.1.lock().unwrap() = Some(refresh_token.clone());
    }

    fn store_failed(&self, event: &StoreFailed) {
        let (operation, kind) = (event.operation(), event.error().kind());
        self.note(format!("{operation:?} {kind:?} {}", event.attempts()));
    }
}
