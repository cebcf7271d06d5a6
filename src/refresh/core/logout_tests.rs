//! What a logout ends, what a record that is gone means, and what a save by the user marks as stored.

use crate::{
    error::{RefreshError, RefreshErrorKind},
    refresh::core::{
        callers::Reply,
        decide::{Decision, SaveDecision, SavedBy},
        effect::Turn,
        fixtures::{self, CALLER, Rules, core_with_store, turn},
        pending_logout::{PendingLogout, ServerEnd},
        record::{RecordState, Relation},
        rules::{Cause, Failure},
        run::{Fate, Input, RefreshId, Step},
        state::Core,
        token::TokenLineage,
    },
    session::{grant_token::GrantToken, session::Session},
    store::{Record, StoreError, StoreErrorKind},
};

fn session(name: &str) -> Session {
    fixtures::session(&format!("T{name}")).with_refresh_token(format!("R{name}"))
}

fn token(name: &str) -> GrantToken {
    GrantToken::unbound(format!("R{name}").into())
}

fn pending(relation: Relation, seen: Option<&Record>) -> PendingLogout<Rules> {
    PendingLogout {
        id: RefreshId::default().next(),
        lineage: TokenLineage::<GrantToken>::new().lineage(),
        sessions: vec![session("0")],
        refresh_tokens: vec![token("0")],
        record: Some(RecordState {
            relation,
            last_seen: seen.map(Record::version),
            ..RecordState::new()
        }),
        server: ServerEnd::Pending,
    }
}

// === The tokens that a logout ends ===

#[test]
fn r30_a_returned_token_replaces_the_presented_one() {
    let mut logout = pending(Relation::InStore, None);
    logout.refresh_tokens.push(token("other"));
    logout.advance(Some(&token("0")), &token("1"));
    assert_eq!(logout.refresh_tokens, [token("other"), token("1")]);
    logout.advance(None, &token("1"));
    assert_eq!(logout.refresh_tokens, [token("other"), token("1")]);
}

#[test]
fn r30_the_newer_of_two_stored_tokens_is_ended() {
    let seen = Record::new(session("0"));
    let newer = seen.followed_by(session("1"));
    let own = Relation::SetByUser {
        has_own_token: true,
    };
    for (relation, last_seen, record, ended) in [
        // The stored token is spent.
        (Relation::InStore, Some(&newer), &newer, vec![token("0")]),
        (Relation::NotSaved, Some(&newer), &newer, vec![token("0")]),
        // The token in memory is spent.
        (Relation::InStore, Some(&seen), &newer, vec![token("1")]),
        // They are of two logins.
        (
            Relation::NotSaved,
            Some(&seen),
            &newer,
            vec![token("0"), token("1")],
        ),
        (own, Some(&newer), &newer, vec![token("0"), token("1")]),
    ] {
        let mut logout = pending(relation, last_seen);
        logout.add(record);
        assert_eq!(logout.refresh_tokens, ended, "{relation:?}");
        // Its access token is ended in any case.
        assert_eq!(logout.sessions.len(), 2);
        logout.add(record);
        assert_eq!(logout.sessions.len(), 2);
    }
}

#[test]
fn r30_what_was_ended_is_not_ended_again() {
    let mut logout = pending(Relation::InStore, None);
    logout.sessions.push(session("1"));
    logout.refresh_tokens.push(token("1"));
    logout.revoked(&token("0"));
    assert_eq!(logout.refresh_tokens, [token("1")]);
    // The access tokens of the other login are not ended by that.
    let [left] = &logout.sessions[..] else {
        panic!("{} sessions", logout.sessions.len());
    };
    assert_eq!(left.access_token(), session("1").access_token());
    logout.session_ended(&session("0"));
    assert_eq!(logout.sessions.len(), 1);
    logout.session_ended(&session("1"));
    assert_eq!(logout.sessions.len(), 0);
}

#[test]
fn r30_each_logout_is_ended_by_one_task() {
    let (mut core, mut turn) = (core_with_store(), turn());
    core.set(session("0"), &mut turn);
    let first = core.log_out(true, &mut turn);
    core.set(session("1"), &mut turn);
    let second = core.log_out(true, &mut turn);
    assert_eq!(core.begin_ending(first), [first]);
    // The first one is being ended already.
    assert_eq!(core.begin_ending(second), [second]);
    assert_eq!(core.begin_ending(second), []);
    core.ended_at_server(first, false);
    assert_eq!(core.begin_ending(second), [first]);
}

/// Starts a refresh, and lets it go on until its token call.
fn calling(core: &mut Core<Rules>, turn: &mut Turn<Rules>) -> RefreshId {
    let Reply::Wait(id) = core.refresh(CALLER, turn) else {
        panic!("no refresh");
    };
    for input in [
        Input::Begin,
        Input::Loaded(Ok(None)),
        Input::Locked(Ok(())),
        Input::Loaded(Ok(None)),
    ] {
        core.step(id, input, turn);
    }
    id
}

#[test]
fn r30_a_late_call_is_ended_by_a_logout_and_not_by_a_set() {
    let (mut core, mut turn) = (core_with_store(), turn());
    core.set(session("0"), &mut turn);
    let id = calling(&mut core, &mut turn);
    core.late(id, &mut turn);
    assert_eq!(core.draining[0].fate, Fate::Late);
    core.set(session("1"), &mut turn);
    assert_eq!(core.draining[0].fate, Fate::Superseded);
    core.log_out(true, &mut turn);
    core.set(session("2"), &mut turn);
    assert_eq!(core.draining[0].fate, Fate::LoggedOut);
}

#[test]
fn r30_a_returned_session_is_handed_to_one_logout_once() {
    let (mut core, mut turn) = (core_with_store(), turn());
    core.set(session("0"), &mut turn);
    let id = calling(&mut core, &mut turn);
    core.step(id, Input::Called(Ok(session("1"))), &mut turn);
    let first = core.log_out(true, &mut turn);
    let second = core.log_out(true, &mut turn);
    let mut sessions = |id| core.pending_logout(id).unwrap().sessions.len();
    assert_eq!((sessions(first), sessions(second)), (2, 0));
}

#[test]
fn r30_a_logout_does_not_wait_for_a_driver_that_does_not_run() {
    let (mut core, mut turn) = (core_with_store(), turn());
    core.set(session("0"), &mut turn);
    let id = calling(&mut core, &mut turn);
    core.overdue(id, &mut turn);
    let logout = core.log_out(true, &mut turn);
    assert!(core.is_draining(id) && !core.drains_for(logout));
}

#[test]
fn r30_a_token_concerns_the_logout_of_its_lineage() {
    let (mut core, mut turn) = (core_with_store(), turn());
    core.set(session("0"), &mut turn);
    let (before, lineage) = (core.last_id, core.token.lineage());
    let first = core.log_out(true, &mut turn);
    core.set(session("1"), &mut turn);
    let (between, next) = (core.last_id, core.token.lineage());
    let second = core.log_out(true, &mut turn);
    let mut of = |id, lineage| core.logout_of(id, lineage).map(|logout| logout.id);
    assert_eq!(of(before, lineage), Some(first));
    assert_eq!(of(between, next), Some(second));
    // It began after the logout of its lineage, or is of one that was not logged out.
    assert_eq!(of(second, next), None);
    assert_eq!(of(between, lineage), None);
}

// === Records ===

/// A core with a login after a logout, and a refresh that has the store lock.
fn locked_after_a_logout(turn: &mut Turn<Rules>) -> (Core<Rules>, RefreshId) {
    let mut core = core_with_store();
    core.set(session("0"), turn);
    core.log_out(true, turn);
    core.set(session("1"), turn);
    let Reply::Wait(id) = core.refresh(CALLER, turn) else {
        panic!("no refresh");
    };
    for input in [Input::Begin, Input::Locked(Ok(()))] {
        core.step(id, input, turn);
    }
    (core, id)
}

#[test]
fn r30_a_record_that_cannot_be_read_is_deleted_too() {
    let mut turn = turn();
    let (mut core, id) = locked_after_a_logout(&mut turn);
    let unreadable = StoreError::new(StoreErrorKind::Corrupt, "the record is no record");
    let step = core.step(id, Input::Loaded(Err(unreadable.into())), &mut turn);
    assert!(matches!(step, Step::Delete));
    // One that may be read later is not.
    let (mut core, id) = locked_after_a_logout(&mut turn);
    let down = StoreError::new(StoreErrorKind::Unavailable, "the store is down");
    let step = core.step(id, Input::Loaded(Err(down.into())), &mut turn);
    assert!(matches!(step, Step::Unlock));
}

#[test]
fn r03_no_call_begins_after_a_deletion_that_ends_late() {
    for is_late in [false, true] {
        let mut turn = turn();
        let (mut core, id) = locked_after_a_logout(&mut turn);
        let stored = Record::new(session("0"));
        let step = core.step(id, Input::Loaded(Ok(Some(stored))), &mut turn);
        assert!(matches!(step, Step::Delete));
        if is_late {
            core.late(id, &mut turn);
        }
        let step = core.step(id, Input::Deleted(Ok(())), &mut turn);
        assert_eq!(matches!(step, Step::Call { .. }), !is_late);
    }
}

#[test]
fn an_adopted_session_of_another_instance_is_of_another_user() {
    for (instance, is_first) in [("MyDomainName", false), ("Another", true)] {
        let (mut core, mut turn) = (core_with_store(), turn());
        core.set(session("0"), &mut turn);
        core.record_saved(&Record::new(session("0")), true);
        let url = format!("https://{instance}.my.salesforce.com");
        let stored = Session::new("T1", &url).unwrap().with_refresh_token("R1");
        let Reply::Wait(id) = core.refresh(CALLER, &mut turn) else {
            panic!("no refresh");
        };
        for input in [Input::Begin, Input::Loaded(Ok(Some(Record::new(stored))))] {
            core.step(id, input, &mut turn);
        }
        let live = core.slot.latest().unwrap();
        assert!(live.is_adopted);
        assert_eq!(live.is_first_of_its_user(), is_first);
    }
}

#[test]
fn r30_a_login_saved_after_a_logout_is_not_what_was_logged_out() {
    let (mut core, mut turn) = (core_with_store(), turn());
    core.set(session("0"), &mut turn);
    core.log_out(true, &mut turn);
    core.set(session("1"), &mut turn);
    let (before, after) = (Record::new(session("0")), Record::new(session("1")));
    core.record_saved(&after, true);
    assert!(!core.is_logged_out_record(Some(&after)));
    assert!(core.is_logged_out_record(Some(&before)) && core.is_logged_out_record(None));
}

/// The failure that a record which is gone means. `None` if it means a first login.
fn gone(core: &mut Core<Rules>) -> Option<RefreshErrorKind> {
    match core.decide(None) {
        Ok(Decision::Call) => None,
        Ok(Decision::Adopt(_)) => panic!("adopted nothing"),
        Err(failure) => Some(failure.kind()),
    }
}

#[test]
fn r30_a_record_that_is_gone_was_logged_out() {
    let kind = RefreshError::of(Cause::Gone).kind();
    let stored = Record::new(session("0"));

    // It was never seen.
    let (mut core, mut turn) = (core_with_store(), turn());
    core.set(session("0"), &mut turn);
    assert_eq!(gone(&mut core), None);

    // It was seen, and has the session in memory.
    core.record_saved(&stored, true);
    assert_eq!(gone(&mut core), Some(kind));

    // Another session was set since, with a refresh token of its own.
    core.set(session("1"), &mut turn);
    assert_eq!(gone(&mut core), None);
}

#[test]
fn r03_a_save_marks_what_it_saved_and_nothing_else() {
    for is_set_meanwhile in [false, true] {
        let (mut core, mut turn) = (core_with_store(), turn());
        core.set(session("0"), &mut turn);
        let SaveDecision::Save(record, save) = core.decide_save(None, SavedBy::User) else {
            panic!("nothing to save");
        };
        if is_set_meanwhile {
            core.set(session("1"), &mut turn);
        }
        assert!(!core.saved_by_user(&record, save));
        let is_stored = core.record.relation == Relation::InStore;
        assert_eq!(is_stored, !is_set_meanwhile);
    }
}

#[test]
fn r30_a_save_says_that_the_record_is_gone_until_a_refresh_has() {
    let (mut core, mut turn) = (core_with_store(), turn());
    core.set(session("0"), &mut turn);
    core.record_saved(&Record::new(session("0")), true);
    core.policy.latch(
        RefreshError::terminal("the app is blocked"),
        &mut Vec::new(),
    );
    assert!(matches!(
        core.decide_save(None, SavedBy::User),
        SaveDecision::Gone
    ));
    core.policy
        .latch(RefreshError::of(Cause::Gone), &mut Vec::new());
    // No user asks for what is done in the background.
    assert!(matches!(
        core.decide_save(None, SavedBy::Background),
        SaveDecision::Gone
    ));
    let SaveDecision::Save(record, _) = core.decide_save(None, SavedBy::User) else {
        panic!("nothing is saved");
    };
    // A late save that replaces the record before does not replace this one.
    assert_ne!(record.version(), Record::new(session("0")).version());
}

#[test]
fn r03_a_record_says_whether_a_token_was_rotated_out() {
    for is_rotated in [false, true] {
        let stored = if is_rotated {
            session("0").rotated()
        } else {
            session("0")
        };
        let mut core = core_with_store();
        let decision = core.decide(Some(&Record::new(stored)));
        assert!(matches!(decision, Ok(Decision::Adopt(_))));
        assert_eq!(core.token.has_spent(), is_rotated);
    }
    let first = Record::new(session("0"));
    assert!(!first.followed_by(session("1")).has_rotated());
    let rotated = first.followed_by(session("1").rotated());
    assert!(rotated.has_rotated() && rotated.followed_by(session("2")).has_rotated());
}

#[test]
fn r24_a_login_saved_after_an_adoption_is_news() {
    let (mut core, mut turn) = (core_with_store(), turn());
    core.set(session("1"), &mut turn);
    let SaveDecision::Save(record, save) = core.decide_save(None, SavedBy::User) else {
        panic!("nothing to save");
    };

    // Meanwhile a refresh adopts what another process stored.
    let other = Record::new(session("0"));
    let Reply::Wait(id) = core.refresh(CALLER, &mut turn) else {
        panic!("no refresh");
    };
    for input in [Input::Begin, Input::Loaded(Ok(Some(other)))] {
        core.step(id, input, &mut turn);
    }
    assert_eq!(core.refresh_token(), Some(&token("0")));
    assert!(!core.saved_by_user(&record, save));

    // The server refuses the adopted token, and the login in the store is there to go on with.
    let decision = core.decide_after_refusal(Some(&record));
    assert!(matches!(decision, Some(Decision::Adopt(_))));
}
