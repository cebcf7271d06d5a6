//! What a core decides, going by the record.

use super::{
    time::now,
    values::{Error, Record, Session, Settings, Token},
};
use crate::refresh::core::{
    callers::{Caller, Reply},
    decide::{Decision, SaveDecision, SavedBy},
    effect::Turn,
    record::Relation,
    rules::{Cause, Stored},
    run::Input,
    state::Core,
};

const SETTINGS: Settings = Settings {
    has_store: true,
    requires_save: false,
};

#[expect(clippy::unnecessary_wraps, reason = "a session may have none")]
const fn token(number: u8) -> Option<Token> {
    Some(Token { grant: 0, number })
}

const fn session(access: u8, number: Option<u8>) -> Session {
    Session {
        access,
        refresh_token: match number {
            Some(number) => token(number),
            None => None,
        },
        is_rotated: false,
        is_trusted: true,
        has_time: true,
    }
}

fn turn() -> Turn<Settings> {
    Turn::new(now(), 0.0)
}

/// A core whose session and refresh token are those of this record.
fn of(record: &Record) -> Core<Settings> {
    let mut core = Core::new(SETTINGS);
    core.set(*record.session(), &mut turn());
    core.record_saved(record, true);
    core
}

/// A core that a call returned the second token of the record's login to, which it could not save.
fn unsaved(record: &Record) -> Core<Settings> {
    let mut core = of(record);
    let lineage = core.token.lineage();
    let presented = record.session().refresh_token;
    let returned = Token {
        grant: 0,
        number: 1,
    };
    assert!(core.token.advance(lineage, presented.as_ref(), &returned));
    core.record.not_saved();
    core
}

/// The access token that a core adopts. `None` if it makes a token call.
fn adopted(core: &mut Core<Settings>, stored: Option<&Record>) -> Option<u8> {
    match core.decide(stored) {
        Ok(Decision::Adopt(session)) => Some(session.access),
        Ok(Decision::Call) => None,
        Err(failure) => panic!("{failure:?}"),
    }
}

fn failed(core: &mut Core<Settings>, stored: Option<&Record>) -> Option<Error> {
    core.decide(stored).err()
}

/// What a save by the user stores in place of `stored`. `None` if nothing.
fn saved(core: &mut Core<Settings>, stored: Record) -> Option<Record> {
    match core.decide_save(Some(stored), SavedBy::User) {
        SaveDecision::Save(record, _) => Some(record),
        SaveDecision::Nothing | SaveDecision::Gone => None,
    }
}

#[test]
fn r07_a_newer_record_is_adopted_and_the_seen_one_is_not() {
    let first = Record::first(session(1, Some(0)));
    let next = first.followed_by(session(2, Some(1)));
    let mut core = of(&first);
    assert_eq!(adopted(&mut core, Some(&first)), None);
    assert_eq!(adopted(&mut core, Some(&next)), Some(2));
    assert_eq!(core.token.newest(), next.session().refresh_token.as_ref());
    // It counts from here on, published or not.
    assert_eq!(adopted(&mut core, Some(&next)), None);
}

#[test]
fn r07_an_older_record_is_an_error_until_a_reset() {
    let first = Record::first(session(1, Some(0)));
    let mut core = of(&first.followed_by(session(2, Some(1))));
    assert_eq!(
        failed(&mut core, Some(&first)),
        Some(Error::Of(Cause::Stale))
    );
    core.reset(&mut turn());
    assert_eq!(adopted(&mut core, Some(&first)), Some(1));
}

#[test]
fn r07_a_record_that_is_gone_is_an_error_until_a_reset() {
    let mut core = of(&Record::first(session(1, Some(0))));
    assert_eq!(failed(&mut core, None), Some(Error::Of(Cause::Gone)));
    assert!(matches!(
        core.decide_save(None, SavedBy::User),
        SaveDecision::Gone
    ));
    core.reset(&mut turn());
    assert_eq!(adopted(&mut core, None), None);
    assert!(matches!(
        core.decide_save(None, SavedBy::User),
        SaveDecision::Save(..)
    ));
}

#[test]
fn r03_a_token_of_the_store_is_not_presented_without_its_record() {
    let mut core = of(&Record::first(session(1, Some(0))));
    core.set(session(2, None), &mut turn());
    assert_eq!(failed(&mut core, None), Some(Error::Of(Cause::Gone)));
    assert!(matches!(
        core.decide_save(None, SavedBy::User),
        SaveDecision::Gone
    ));
    // The user's own token does not depend on the record.
    core.set(session(3, Some(7)), &mut turn());
    assert_eq!(adopted(&mut core, None), None);
}

#[test]
fn r03_an_unsaved_token_is_not_given_up_for_another_login() {
    let first = Record::first(session(1, Some(0)));
    let mut core = unsaved(&first);
    for record in [first, Record::first(session(9, Some(5)))] {
        assert_eq!(adopted(&mut core, Some(&record)), None);
    }
    assert!(core.token.is_unsaved());
    // What follows in the same login shows that the save was done.
    let next = first.followed_by(session(3, Some(2)));
    assert_eq!(adopted(&mut core, Some(&next)), Some(3));
    assert!(!core.token.is_unsaved());
}

#[test]
fn r03_what_follows_a_failed_save_that_was_done_is_adopted() {
    let first = Record::first(session(1, Some(0)));
    let attempted = first.followed_by(session(2, Some(1)));
    for record in [attempted, attempted.followed_by(session(3, Some(2)))] {
        let mut core = unsaved(&first);
        core.record.attempt(attempted.version());
        assert_eq!(
            adopted(&mut core, Some(&record)),
            Some(record.session().access)
        );
        assert_eq!(core.token.newest(), record.session().refresh_token.as_ref());
        assert!(!core.token.is_unsaved());
    }
}

#[test]
fn r03_a_set_session_gives_way_unless_it_was_issued_later() {
    let first = Record::first(session(1, Some(0)));
    for (set, expected) in [(session(3, Some(7)), Some(5)), (session(7, Some(7)), None)] {
        let mut core = of(&first);
        core.set(set, &mut turn());
        let stored = first.followed_by(session(5, Some(1)));
        assert_eq!(adopted(&mut core, Some(&stored)), expected);
    }
}

#[test]
fn r03_a_session_set_without_a_token_takes_that_of_the_store() {
    let first = Record::first(session(1, Some(0)));
    let mut core = of(&first);
    core.set(session(7, None), &mut turn());
    let stored = first.followed_by(session(5, Some(1)));
    assert_eq!(adopted(&mut core, Some(&stored)), None);
    assert_eq!(core.token.newest(), stored.session().refresh_token.as_ref());
}

#[test]
fn r03_a_token_that_the_user_set_is_not_given_up_for_the_store() {
    let first = Record::first(session(1, Some(0)));
    let mut core = of(&first);
    core.set(session(7, Some(7)), &mut turn());
    core.set(session(8, None), &mut turn());
    let stored = first.followed_by(session(5, Some(1)));
    assert_eq!(adopted(&mut core, Some(&stored)), None);
    assert_eq!(core.token.newest(), token(7).as_ref());
}

#[test]
fn r03_a_set_token_that_a_call_exchanged_is_the_users_no_longer() {
    let first = Record::first(session(1, Some(0)));
    let mut core = of(&first);
    core.set(session(7, Some(7)), &mut turn());
    let caller = Caller {
        has_runtime: true,
        is_inside: false,
    };
    let Reply::Wait(id) = core.refresh(caller, &mut turn()) else {
        panic!("no refresh");
    };
    for input in [
        Input::Begin,
        Input::Loaded(Ok(Some(first))),
        Input::Locked(Ok(())),
        Input::Loaded(Ok(Some(first))),
        Input::Called(Err(Error::Untrusted(token(8)))),
    ] {
        core.step(id, input, &mut turn());
    }
    assert_eq!(core.token.newest(), token(8).as_ref());
    let relation = Relation::SetByUser {
        has_own_token: false,
    };
    assert_eq!(core.record.relation, relation);
}

#[test]
fn r24_after_a_refusal_a_login_of_the_user_gives_way() {
    let mut core = Core::new(SETTINGS);
    core.set(session(7, Some(7)), &mut turn());
    let other = Record::first(session(2, Some(1)));
    let decision = core.decide_after_refusal(Some(&other));
    assert!(matches!(decision, Some(Decision::Adopt(_))));
}

#[test]
fn r24_after_a_refusal_only_news_with_another_token_counts() {
    let first = Record::first(session(1, Some(0)));
    let mut core = of(&first);
    assert!(core.decide_after_refusal(None).is_none());
    assert!(core.decide_after_refusal(Some(&first)).is_none());
    let same = first.followed_by(session(2, Some(0)));
    assert!(core.decide_after_refusal(Some(&same)).is_none());
    let other = first.followed_by(session(2, Some(1)));
    let decision = core.decide_after_refusal(Some(&other));
    assert!(matches!(decision, Some(Decision::Adopt(session)) if session.access == 2));
}

#[test]
fn r24_an_unsaved_token_is_not_given_up_for_the_one_it_replaced() {
    let first = Record::first(session(1, Some(0)));
    assert!(unsaved(&first).decide_after_refusal(Some(&first)).is_none());
}

#[test]
fn r10_a_search_makes_no_call_for_the_token_that_is_dead() {
    let first = Record::first(session(1, Some(0)));
    let mut core = of(&first);
    core.policy.latch(Error::InvalidGrant, &mut Vec::new());
    assert!(core.decide_after_search(Some(&first)).is_none());
    let same = first.followed_by(session(1, Some(0)));
    assert!(core.decide_after_search(Some(&same)).is_none());
    let other = same.followed_by(session(1, Some(1)));
    assert!(matches!(
        core.decide_after_search(Some(&other)),
        Some(Decision::Call)
    ));
}

#[test]
fn r10_a_search_adopts_another_login_after_any_failure() {
    let mut core = Core::new(SETTINGS);
    core.set(session(1, Some(0)), &mut turn());
    core.policy.latch(Error::Terminal, &mut Vec::new());
    // The user's token is not that of the store, and no call has replaced it.
    let other = Record::first(session(2, Some(7)));
    assert!(matches!(
        core.decide_after_search(Some(&other)),
        Some(Decision::Adopt(_))
    ));
}

#[test]
fn r10_a_search_ends_a_latched_store_failure() {
    let first = Record::first(session(1, Some(0)));
    let mut core = of(&first);
    core.policy.latch(Error::Unreadable, &mut Vec::new());
    assert!(matches!(
        core.decide_after_search(Some(&first)),
        Some(Decision::Call)
    ));
}

#[test]
fn r03_a_search_does_not_give_up_a_later_login_of_the_user() {
    let mut core = of(&Record::first(session(1, Some(0))));
    core.set(session(7, Some(7)), &mut turn());
    core.policy.latch(Error::Unreadable, &mut Vec::new());
    let earlier = Record::first(session(5, Some(1)));
    let decision = core.decide_after_search(Some(&earlier));
    assert!(matches!(decision, Some(Decision::Call)));
    assert_eq!(core.token.newest(), token(7).as_ref());
}

#[test]
fn r12_an_open_breaker_lets_a_search_adopt_only() {
    let first = Record::first(session(1, Some(0)));
    let mut core = of(&first);
    core.policy.record_useless_refresh(now());
    let other = first.followed_by(session(1, Some(1)));
    assert!(core.decide_after_search(Some(&other)).is_none());
    let better = other.followed_by(session(2, Some(2)));
    assert!(matches!(
        core.decide_after_search(Some(&better)),
        Some(Decision::Adopt(_))
    ));
}

#[test]
fn r06_a_save_by_the_user_stores_what_a_refresh_could_not() {
    let first = Record::first(session(1, Some(0)));
    let record = saved(&mut unsaved(&first), first).unwrap();
    assert_eq!(record.session().refresh_token, token(1));
    // What others stored since is newer.
    let newer = first.followed_by(session(3, Some(2)));
    assert!(saved(&mut unsaved(&first), newer).is_none());
    // There is nothing to do for what a refresh saved.
    assert!(saved(&mut of(&first), first).is_none());
}

#[test]
fn r06_a_set_session_without_any_token_can_be_saved() {
    let mut core = of(&Record::first(session(1, None)));
    core.set(session(2, None), &mut turn());
    assert!(matches!(
        core.decide_save(None, SavedBy::User),
        SaveDecision::Save(..)
    ));
}

#[test]
fn r03_a_save_by_the_user_keeps_the_newest_token() {
    let first = Record::first(session(1, Some(0)));
    let stored = first.followed_by(session(2, Some(1)));
    // That of the store, if the one in memory is an older one of the store.
    let mut core = of(&first);
    core.set(session(3, None), &mut turn());
    let record = saved(&mut core, stored).unwrap();
    assert_eq!(
        (record.session().access, record.session().refresh_token),
        (3, stored.session().refresh_token)
    );
    // That of the user's last login, if there was one.
    let mut core = of(&first);
    core.set(session(3, Some(7)), &mut turn());
    core.set(session(4, None), &mut turn());
    let record = saved(&mut core, stored).unwrap();
    assert_eq!(record.session().refresh_token, token(7));
}

#[test]
fn r30_a_save_after_a_logout_has_to_be_deleted() {
    let first = Record::first(session(1, Some(0)));
    let mut core = of(&first);
    core.set(session(2, Some(7)), &mut turn());
    let SaveDecision::Save(record, save) = core.decide_save(Some(first), SavedBy::User) else {
        panic!("nothing to save");
    };
    core.log_out(false, &mut turn());
    assert!(core.saved_by_user(&record, save));
    assert_eq!(core.record.relation, Relation::InStore);
}

#[test]
fn r30_a_save_of_a_new_login_replaces_the_record_of_a_logout() {
    let first = Record::first(session(1, Some(0)));
    let mut core = of(&first);
    let logout = core.log_out(true, &mut turn());
    core.set(session(2, Some(7)), &mut turn());
    let SaveDecision::Save(record, save) = core.decide_save(Some(first), SavedBy::User) else {
        panic!("nothing to save");
    };
    assert!(!core.saved_by_user(&record, save));
    assert_eq!(core.undeleted_logout(), None);
    // Its own token is not revoked with the old one.
    let pending = core.pending_logout(logout).unwrap();
    assert_eq!(
        pending.refresh_tokens,
        [Token {
            grant: 0,
            number: 0
        }]
    );
}
