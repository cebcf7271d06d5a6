//! What the tests of the core share: cores with and without a store, sessions and callers.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    RefreshError,
    refresh::{
        core::{
            callers::{Caller, Rejection, Reply},
            effect::Turn,
            run::RefreshId,
            state::Core,
        },
        settings::Settings,
    },
    session::{live::Generation, session::Session},
    store::{MemoryStore, StoreKey},
};

pub(super) type Rules = Arc<Settings>;

pub(super) const CALLER: Caller = Caller {
    has_runtime: true,
    is_inside: false,
};

pub(super) fn core() -> Core<Rules> {
    Core::new(Arc::new(Settings::new(true)))
}

pub(super) fn core_with_store() -> Core<Rules> {
    let mut settings = Settings::new(true);
    settings.store = Some(StoreKey::new(Arc::new(MemoryStore::new()), "key".into()));
    Core::new(Arc::new(settings))
}

/// A session without a refresh token.
pub(super) fn session(access_token: &str) -> Session {
    Session::new(access_token, "https://MyDomainName.my.salesforce.com").unwrap()
}

pub(super) fn turn() -> Turn<Rules> {
    Turn::new(Instant::now(), 0.5)
}

/// The first rejection of a request.
pub(super) fn rejection(generation: Generation) -> Rejection {
    Rejection {
        generation,
        is_first: true,
        was_accepted: false,
        has_served: false,
    }
}

/// The refresh that a caller waits for.
pub(super) fn id(reply: &Reply<RefreshError>) -> RefreshId {
    match reply {
        Reply::Wait(id) => *id,
        _ => panic!("no refresh runs"),
    }
}
