//! A search of the store while the breaker is open, and a manual refresh that joins it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    refresh::{
        core::{
            callers::{Caller, Rejection, Reply},
            effect::{Effect, Turn},
            run::{Input, RefreshId, Step},
            state::Core,
        },
        settings::Settings,
    },
    session::session::Session,
    store::{MemoryStore, StoreError, StoreErrorKind, StoreKey},
};

type Rules = Arc<Settings>;

const CALLER: Caller = Caller {
    has_runtime: true,
    is_inside: false,
};

fn id(reply: &Reply<crate::RefreshError>) -> RefreshId {
    match reply {
        Reply::Wait(id) => *id,
        _ => panic!("no refresh runs"),
    }
}

/// A session in use, a latched failure of the store, an open breaker, and a search that a rejection has started.
fn searching(turn: &mut Turn<Rules>) -> (Core<Rules>, RefreshId) {
    let mut settings = Settings::new(true);
    settings.store = Some(StoreKey {
        store: Arc::new(MemoryStore::new()),
        key: "key".into(),
    });
    let mut core = Core::new(Arc::new(settings));
    let session = Session::new("T0", "https://MyDomainName.my.salesforce.com").unwrap();
    let generation = core.set(session.with_refresh_token("R0"), turn);

    let refresh = id(&core.refresh(CALLER, turn));
    assert!(matches!(
        core.step(refresh, Input::Begin, turn),
        Step::Lock(_)
    ));
    let corrupt = StoreError::new(StoreErrorKind::Corrupt, "the record is no record").into();
    let step = core.step(refresh, Input::Locked(Err(corrupt)), turn);
    assert!(matches!(step, Step::Stop));
    assert!(core.policy.latched().is_some());

    core.policy.record_useless_refresh(turn.now);
    let rejection = Rejection {
        generation,
        is_first: true,
        was_accepted: false,
        has_served: false,
    };
    let search = id(&core.reject(rejection, CALLER, turn));
    assert!(matches!(
        core.step(search, Input::Begin, turn),
        Step::Load {
            is_locked: false,
            ..
        }
    ));
    (core, search)
}

#[test]
fn r12_a_search_makes_no_call_while_the_breaker_is_open() {
    let mut turn = Turn::new(Instant::now(), 0.5);
    let (mut core, search) = searching(&mut turn);
    let step = core.step(search, Input::Loaded(Ok(None)), &mut turn);
    assert!(matches!(step, Step::Stop));
    // The caller gets the session in use, and the store works again.
    let finished = turn
        .effects
        .iter()
        .any(|effect| matches!(effect, Effect::Finish(finished, Ok(())) if *finished == search));
    assert!(finished);
    assert!(core.policy.latched().is_none());
}

#[test]
fn a_manual_refresh_that_joins_a_search_makes_a_call() {
    let mut turn = Turn::new(Instant::now(), 0.5);
    let (mut core, search) = searching(&mut turn);
    assert_eq!(id(&core.refresh(CALLER, &mut turn)), search);
    let step = core.step(search, Input::Loaded(Ok(None)), &mut turn);
    assert!(matches!(step, Step::Lock(_)));

    // Likewise if the store fails once more.
    let mut turn = Turn::new(Instant::now(), 0.5);
    let (mut core, search) = searching(&mut turn);
    core.refresh(CALLER, &mut turn);
    let failure = StoreError::new(StoreErrorKind::Unavailable, "down").into();
    let step = core.step(search, Input::Loaded(Err(failure)), &mut turn);
    assert!(matches!(step, Step::Lock(_)));
}
