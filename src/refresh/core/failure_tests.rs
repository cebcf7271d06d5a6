//! What the core counts and latches of rejections and failures.

use std::{io, time::Duration};

use tokio::time::Instant;

use crate::{
    error::{RefreshError, RefreshErrorKind},
    refresh::core::{
        callers::Reply,
        effect::Turn,
        fixtures::{CALLER, Rules, core, core_with_store, id, rejection, session, turn},
        rules::{Failure, Rules as _},
        run::{FIRST_LOGIN_LIMIT, Input, RefreshId, Step},
        state::{Core, Shown},
    },
    session::live::Generation,
    store::{StoreError, StoreErrorKind},
};

/// A core that a rejection has started a refresh of, which makes its token call.
fn calling(turn: &mut Turn<Rules>) -> (Core<Rules>, Generation, RefreshId) {
    let mut core = core();
    let generation = core.set(session("T0"), turn);
    let refresh = id(&core.reject(rejection(generation), CALLER, turn));
    core.step(refresh, Input::Begin, turn);
    (core, generation, refresh)
}

#[test]
fn r43_a_rejected_caller_counts_that_joins_another_refresh() {
    let mut core = core();
    let mut turn = turn();
    let generation = core.set(session("T0"), &mut turn);
    let refresh = id(&core.refresh(CALLER, &mut turn));
    let joined = core.reject(rejection(generation), CALLER, &mut turn);
    assert_eq!(id(&joined), refresh);
    // Another one by hand does not make it forget.
    assert_eq!(id(&core.refresh(CALLER, &mut turn)), refresh);
    core.step(refresh, Input::Begin, &mut turn);
    core.step(refresh, Input::Called(Ok(session("T1"))), &mut turn);
    core.reject_last(generation.next(), false, &mut turn);
    assert!(core.policy.is_open(turn.now));
}

#[test]
fn r43_a_late_session_counts_for_a_rejected_caller_of_the_next() {
    let mut turn = turn();
    let mut core = core();
    let generation = core.set(session("T0"), &mut turn);
    let late = id(&core.refresh(CALLER, &mut turn));
    core.step(late, Input::Begin, &mut turn);
    core.late(late, &mut turn);
    let next = id(&core.reject(rejection(generation), CALLER, &mut turn));
    core.step(late, Input::Called(Ok(session("T1"))), &mut turn);
    core.step(next, Input::Begin, &mut turn);
    core.reject_last(generation.next(), false, &mut turn);
    assert!(core.policy.is_open(turn.now));
}

#[test]
fn r14_a_late_call_is_waited_for_until_its_time_is_over() {
    let mut turn = turn();
    let (mut core, generation, late) = calling(&mut turn);
    core.late(late, &mut turn);
    let begins = core.set(session("T1"), &mut turn);
    assert_eq!(begins, generation.next());
    let next = id(&core.reject(rejection(begins), CALLER, &mut turn));
    let step = core.step(next, Input::Begin, &mut turn);
    let Step::AwaitPredecessor(_, Some(until)) = step else {
        panic!("it does not wait");
    };
    turn.now = until;
    let step = core.step(next, Input::PredecessorEnded, &mut turn);
    assert!(matches!(step, Step::Call { .. }));
}

#[test]
fn r10_a_store_failure_hides_no_other_that_is_latched() {
    let mut core = core_with_store();
    let mut turn = turn();
    let unreadable = || StoreError::new(StoreErrorKind::Corrupt, "the record is no record").into();
    let mut fail = |core: &mut Core<Rules>, failure| {
        let refresh = id(&core.refresh(CALLER, &mut turn));
        core.step(refresh, Input::Begin, &mut turn);
        let step = core.step(refresh, Input::Loaded(Err(failure)), &mut turn);
        assert!(matches!(step, Step::Stop));
        core.policy.latched().is_some_and(Failure::is_of_store)
    };
    assert!(fail(&mut core, unreadable()));
    assert!(!fail(
        &mut core,
        RefreshError::terminal("the grant is dead")
    ));
    assert!(!fail(&mut core, unreadable()));
}

#[test]
fn r12_a_session_that_a_replay_confirmed_is_not_useless() {
    let mut turn = turn();
    let (mut core, generation, refresh) = calling(&mut turn);
    core.step(refresh, Input::Called(Ok(session("T1"))), &mut turn);
    core.confirm(generation.next());
    core.reject_last(generation.next(), false, &mut turn);
    assert!(!core.policy.is_open(turn.now));
}

#[test]
fn r10_a_straggler_gets_the_failure_of_its_refresh() {
    let mut turn = turn();
    let (mut core, generation, refresh) = calling(&mut turn);
    core.late(refresh, &mut turn);
    let answer = core.reject(rejection(generation), CALLER, &mut turn);
    assert!(matches!(answer, Reply::Fail(_)));
}

#[test]
fn r11_a_request_waits_for_a_backoff_that_the_timeout_covers() {
    let mut turn = turn();
    for (beyond, waits) in [(0, true), (1, false)] {
        let mut core = core();
        let delay = core.rules.refresh_timeout() + Duration::from_nanos(beyond);
        let (busy, now) = (RefreshError::transient("busy"), turn.now);
        core.policy
            .back_off(busy, Some(delay), 0.0, now, &mut Vec::new());
        let answer = core.acquire(CALLER, &mut turn);
        assert_eq!(matches!(answer, Reply::Wait(_)), waits);
        assert_eq!(matches!(answer, Reply::Fail(_)), !waits);
    }
}

#[test]
fn r11_a_refresh_sleeps_if_time_for_an_attempt_is_left() {
    let mut turn = turn();
    for (short_by, sleeps) in [(1, true), (0, false)] {
        let mut core = core();
        let delay = core
            .rules
            .refresh_timeout()
            .saturating_sub(Duration::from_nanos(short_by));
        let (busy, now) = (RefreshError::transient("busy"), turn.now);
        core.policy
            .back_off(busy, Some(delay), 0.0, now, &mut Vec::new());
        let refresh = id(&core.acquire(CALLER, &mut turn));
        let step = core.step(refresh, Input::Begin, &mut turn);
        assert_eq!(matches!(step, Step::Sleep(_)), sleeps);
        assert_eq!(matches!(step, Step::Stop), !sleeps);

        // Likewise after its own attempt.
        let (mut core, _, refresh) = calling(&mut turn);
        let busy = RefreshError::transient("busy").with_retry_after(delay);
        core.step(refresh, Input::Called(Err(busy)), &mut turn);
        let step = core.step(refresh, Input::Unlocked(Ok(())), &mut turn);
        assert_eq!(matches!(step, Step::Sleep(_)), sleeps);
        assert_eq!(matches!(step, Step::Stop), !sleeps);
    }
}

/// A store that only runs out of time does not hide what the server said.
#[test]
fn a_store_failure_is_told_unless_it_came_too_late() {
    for (is_too_late, told) in [
        (false, RefreshErrorKind::Store),
        (true, RefreshErrorKind::Other),
    ] {
        let mut turn = turn();
        let mut core = core_with_store();
        let refresh = id(&core.acquire(CALLER, &mut turn));
        for input in [
            Input::Begin,
            Input::Loaded(Ok(None)),
            Input::Locked(Ok(())),
            Input::Loaded(Ok(None)),
            Input::Called(Err(RefreshError::transient("busy"))),
            Input::Unlocked(Ok(())),
        ] {
            core.step(refresh, input, &mut turn);
        }
        let step = core.step(refresh, Input::Woken, &mut turn);
        let Step::Load {
            until: Some(last), ..
        } = step
        else {
            panic!("no attempt");
        };
        if is_too_late {
            turn.now = last;
        }
        let down = StoreError::new(StoreErrorKind::Unavailable, "the store is down");
        core.step(refresh, Input::Loaded(Err(down.into())), &mut turn);
        let Shown::BackingOff(failure) = core.state() else {
            panic!("it did not fail");
        };
        assert_eq!(failure.kind(), told);
    }
}

/// A failure may hold values of the user's, whose drop is the user's code.
#[test]
fn no_failure_is_dropped_under_the_lock() {
    let mut turn = turn();
    let busy = |turn: &Turn<Rules>| {
        let kinds = turn.retired.iter().map(RefreshError::kind);
        kinds
            .filter(|kind| *kind == RefreshErrorKind::Other)
            .count()
    };
    let (mut core, _, refresh) = calling(&mut turn);
    let failed = || Input::Called(Err(RefreshError::transient("busy")));
    core.step(refresh, failed(), &mut turn);
    let step = core.step(refresh, Input::Unlocked(Ok(())), &mut turn);
    assert!(matches!(step, Step::Sleep(_)));
    // The policy kept one, and the sleeping refresh another.
    core.late(refresh, &mut turn);
    assert_eq!(busy(&turn), 2);
    // The refresh is gone, and its driver does not know.
    core.step(refresh, failed(), &mut turn);
    assert_eq!(busy(&turn), 3);
}

#[test]
fn a_refresh_that_returns_another_user_starts_a_new_lineage() {
    let user = |name, user| {
        let url = format!("https://login.salesforce.com/id/00Dxx0000001gEREAY/{user}");
        session(name).with_identity_url(url)
    };
    for (second, is_first) in [("005xx000001SwiUAAS", false), ("005xx000001SwiZAAS", true)] {
        let mut core = core();
        let mut turn = turn();
        core.set(user("T0", "005xx000001SwiUAAS"), &mut turn);
        let refresh = id(&core.refresh(CALLER, &mut turn));
        core.step(refresh, Input::Begin, &mut turn);
        let returned = Ok(user("T1", second));
        core.step(refresh, Input::Called(returned), &mut turn);
        let live = core.slot.latest().unwrap();
        assert_eq!(live.is_first_of_its_user(), is_first);
    }
}

/// An error of a client that could not connect.
fn unreachable() -> RefreshError {
    RefreshError::transient(io::Error::from(io::ErrorKind::ConnectionRefused)).with_findings()
}

/// Lets each token call of a refresh fail. Returns the times of the calls, and of the end.
fn fail_each_call(
    core: &mut Core<Rules>,
    refresh: RefreshId,
    failure: impl Fn() -> RefreshError,
    turn: &mut Turn<Rules>,
) -> Vec<Instant> {
    let mut times = Vec::new();
    let mut step = core.step(refresh, Input::Begin, turn);
    loop {
        let input = match step {
            Step::Call { .. } => {
                times.push(turn.now);
                Input::Called(Err(failure()))
            }
            Step::Sleep(until) => {
                turn.now = until;
                Input::Woken
            }
            Step::Stop => {
                times.push(turn.now);
                return times;
            }
            Step::Load { .. } => Input::Loaded(Ok(None)),
            Step::Lock(_) | Step::LockOrLoad { .. } => Input::Locked(Ok(())),
            _ => Input::Unlocked(Ok(())),
        };
        step = core.step(refresh, input, turn);
    }
}

#[test]
fn r11_a_first_login_that_reaches_no_server_ends_within_2_s() {
    for (jitter, has_store) in [(0.0, false), (0.5, false), (1.0, false), (0.5, true)] {
        let mut core = if has_store { core_with_store() } else { core() };
        let mut turn = Turn::new(Instant::now(), jitter);
        let began = turn.now;
        let refresh = id(&core.acquire(CALLER, &mut turn));
        let times = fail_each_call(&mut core, refresh, unreachable, &mut turn);
        let end = *times.last().unwrap();
        assert!(end - began < FIRST_LOGIN_LIMIT, "{:?}", end - began);
        assert!(times.len() > 2, "one more attempt at least");

        // The next caller does not wait longer.
        let next = id(&core.acquire(CALLER, &mut turn));
        let times = fail_each_call(&mut core, next, unreachable, &mut turn);
        let end = *times.last().unwrap() - began;
        assert!(end < 2 * FIRST_LOGIN_LIMIT, "{end:?}");
        assert!(matches!(core.state(), Shown::BackingOff(_)));
    }
}

#[test]
fn r11_a_server_that_was_reached_before_is_waited_for() {
    let busy = || RefreshError::transient("busy").with_findings();
    let lasts = |core: &mut Core<Rules>, failure: &dyn Fn() -> RefreshError| {
        let mut turn = turn();
        let began = turn.now;
        let refresh = id(&core.acquire(CALLER, &mut turn));
        let times = fail_each_call(core, refresh, failure, &mut turn);
        *times.last().unwrap() - began
    };
    let patience = lasts(&mut core(), &busy);
    assert!(patience > 5 * FIRST_LOGIN_LIMIT, "{patience:?}");
    // After a session that was set, or that a refresh returned or adopted.
    let mut with_session = core();
    let mut turn = turn();
    let generation = with_session.set(session("T0"), &mut turn);
    with_session.invalidate(generation, &mut turn);
    assert_eq!(lasts(&mut with_session, &unreachable), patience);
}
