//! A search of the store while the breaker is open, and a manual refresh that joins it.

use crate::{
    refresh::core::{
        effect::{Effect, Turn},
        fixtures::{CALLER, Rules, core_with_store, id, rejection, session, turn},
        run::{Input, RefreshId, Step},
        state::Core,
    },
    store::{StoreError, StoreErrorKind},
};

/// A session in use, a latched failure of the store, an open breaker, and a search that a rejection has started.
fn searching(turn: &mut Turn<Rules>) -> (Core<Rules>, RefreshId) {
    let mut core = core_with_store();
    let generation = core.set(session("T0").with_refresh_token("R0"), turn);

    let refresh = id(&core.refresh(CALLER, turn));
    assert!(matches!(
        core.step(refresh, Input::Begin, turn),
        Step::Load {
            is_locked: false,
            ..
        }
    ));
    let corrupt = StoreError::new(StoreErrorKind::Corrupt, "the record is no record").into();
    let step = core.step(refresh, Input::Loaded(Err(corrupt)), turn);
    assert!(matches!(step, Step::Stop));
    assert!(core.policy.latched().is_some());

    core.policy.record_useless_refresh(turn.now);
    let search = id(&core.reject(rejection(generation), CALLER, turn));
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
    let mut turn = turn();
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
    let [mut turn, mut again] = [turn(), turn()];
    let (mut core, search) = searching(&mut turn);
    assert_eq!(id(&core.refresh(CALLER, &mut turn)), search);
    let step = core.step(search, Input::Loaded(Ok(None)), &mut turn);
    assert!(matches!(
        step,
        Step::Load {
            is_locked: false,
            ..
        }
    ));

    // Likewise if the store fails once more.
    let (mut core, search) = searching(&mut again);
    core.refresh(CALLER, &mut again);
    let failure = StoreError::new(StoreErrorKind::Unavailable, "down").into();
    let step = core.step(search, Input::Loaded(Err(failure)), &mut again);
    assert!(matches!(
        step,
        Step::Load {
            is_locked: false,
            ..
        }
    ));
}
