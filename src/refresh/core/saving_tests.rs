//! What follows a save whose store lock was lost.

use crate::{
    error::RefreshError,
    refresh::core::{
        decide::{SaveDecision, SavedBy},
        effect::Turn,
        fixtures::{self, CALLER, Rules, core_with_store, id, rejection, turn},
        run::{Input, RefreshId, Step},
        state::Core,
    },
    session::session::Session,
    store::{Record, StoreError, StoreErrorKind},
};

fn session(name: &str) -> Session {
    fixtures::session(&format!("T{name}")).with_refresh_token(format!("R{name}"))
}

fn failed(kind: StoreErrorKind) -> RefreshError {
    StoreError::new(kind, "another process was faster").into()
}

/// A refresh that saves its session in place of a record.
struct Saving {
    core: Core<Rules>,
    id: RefreshId,
    turn: Turn<Rules>,
}

impl Saving {
    fn in_place_of(record: &Record) -> Self {
        let mut turn = turn();
        let mut core = core_with_store();
        let adopting = id(&core.acquire(CALLER, &mut turn));
        core.step(adopting, Input::Begin, &mut turn);
        core.step(adopting, Input::Loaded(Ok(Some(record.clone()))), &mut turn);
        let live = core.slot.serving().unwrap().generation;
        let id = id(&core.reject(rejection(live), CALLER, &mut turn));
        let mut saving = Self { core, id, turn };
        saving.step(Input::Begin);
        saving.load(Some(record));
        saving.step(Input::Locked(Ok(())));
        saving.load(Some(record));
        let step = saving.step(Input::Called(Ok(session("new"))));
        assert!(matches!(step, Step::Save { .. }));
        saving
    }

    /// A refresh that has lost its lock, and is to release it.
    fn without_lock(record: &Record) -> Self {
        let mut saving = Self::in_place_of(record);
        let step = saving.step(Input::Saved(Err(failed(StoreErrorKind::LockLost))));
        assert!(matches!(step, Step::Unlock));
        saving
    }

    fn step(&mut self, input: Input<Rules>) -> Step<Rules> {
        self.core.step(self.id, input, &mut self.turn)
    }

    fn load(&mut self, record: Option<&Record>) -> Step<Rules> {
        self.step(Input::Loaded(Ok(record.cloned())))
    }

    /// Takes the lock again, and finds this record.
    fn compare(&mut self, record: Option<&Record>) -> Step<Rules> {
        self.step(Input::Unlocked(Ok(())));
        self.step(Input::Locked(Ok(())));
        self.load(record)
    }
}

#[test]
fn a_session_set_during_a_compared_save_is_not_gone() {
    let mut saving = Saving::without_lock(&Record::new(session("old")));
    let live = saving.core.set(session("login"), &mut saving.turn);
    saving.compare(None);
    saving.step(Input::Unlocked(Ok(())));

    let (core, turn) = (&mut saving.core, &mut saving.turn);
    saving.id = id(&core.reject(rejection(live), CALLER, turn));
    saving.step(Input::Begin);
    saving.load(None);
    saving.step(Input::Locked(Ok(())));
    assert!(matches!(saving.load(None), Step::Call { .. }));
}

#[test]
fn r03_a_draining_save_does_not_replace_a_session_set_and_saved() {
    let old = Record::new(session("old"));
    let mut saving = Saving::without_lock(&old);
    saving.core.set(session("login"), &mut saving.turn);
    // The lock is free, and the user saves.
    let SaveDecision::Save(login, save) = saving.core.decide_save(Some(old), SavedBy::User) else {
        panic!("nothing is saved");
    };
    assert!(!saving.core.saved_by_user(&login, save));
    assert!(matches!(saving.compare(Some(&login)), Step::Unlock));
}

#[test]
fn r03_an_older_record_does_not_replace_what_a_call_returned() {
    let older = Record::new(session("older"));
    let mut saving = Saving::in_place_of(&older.followed_by(session("old")));
    saving.step(Input::Saved(Err(failed(StoreErrorKind::Superseded))));
    // The store was restored from a backup during the call.
    assert!(matches!(saving.load(Some(&older)), Step::Unlock));
    saving.step(Input::Unlocked(Ok(())));
    let newest = saving.core.refresh_token();
    assert_eq!(newest, session("new").grant_token());
    assert!(saving.core.has_unsaved_refresh_token());
    assert!(saving.core.slot.serving().is_some());
}

#[test]
fn r03_a_record_with_the_spent_token_is_replaced() {
    let mut saving = Saving::without_lock(&Record::new(session("old")));
    // A session without a refresh token was set and saved elsewhere, with the token that was stored.
    let old = session("old").refresh_token().cloned().unwrap();
    let other = Record::new(fixtures::session("Tother").with_refresh_token(old));
    let Step::Save { record, replaces } = saving.compare(Some(&other)) else {
        panic!("nothing is saved");
    };
    assert_eq!(replaces, Some(other.version()));
    let saved = record.session().refresh_token();
    assert_eq!(saved, session("new").refresh_token());
}

#[test]
fn r27_a_record_of_another_user_does_not_replace_a_set_session() {
    let of = |name, user| session(name).with_ids("00Dxx0000001gER", user);
    let (me, other) = ("005xx000001SwiU", "005xx000001SwiV");
    let (mut core, mut turn) = (core_with_store(), turn());
    let live = core.set(of("mine", me), &mut turn);
    let id = id(&core.reject(rejection(live), CALLER, &mut turn));
    let mut saving = Saving { core, id, turn };
    let theirs = Record::new(of("theirs", other));
    saving.step(Input::Begin);
    saving.load(Some(&theirs));
    saving.step(Input::Locked(Ok(())));
    saving.load(Some(&theirs));
    saving.step(Input::Called(Ok(of("new", me))));
    saving.step(Input::Saved(Err(failed(StoreErrorKind::Superseded))));
    let later = theirs.followed_by(of("later", other));
    assert!(matches!(saving.load(Some(&later)), Step::Save { .. }));
}

#[test]
fn r30_a_record_saved_elsewhere_is_left_to_the_logout() {
    for kind in [StoreErrorKind::Superseded, StoreErrorKind::LockLost] {
        let mut saving = Saving::in_place_of(&Record::new(session("old")));
        saving.core.log_out(true, &mut saving.turn);
        // Its tokens are not known here.
        let step = saving.step(Input::Saved(Err(failed(kind))));
        assert!(matches!(step, Step::Unlock), "{kind:?}");
        assert!(saving.core.undeleted_logout().is_some());
    }
}

/// The record with the spent token gives way to the save, and meanwhile another process is faster once more.
#[test]
fn r03_a_second_save_gives_way_to_a_newer_record_too() {
    let old = Record::new(session("old"));
    let again = old.followed_by(session("old"));
    let mut saving = Saving::without_lock(&old);
    assert!(matches!(saving.compare(Some(&again)), Step::Save { .. }));
    let superseded = Input::Saved(Err(failed(StoreErrorKind::Superseded)));
    assert!(matches!(saving.step(superseded), Step::Load { .. }));
    let newer = again.followed_by(session("newer"));
    assert!(matches!(saving.load(Some(&newer)), Step::Unlock));
    saving.step(Input::Unlocked(Ok(())));
    let live = saving.core.slot.serving().unwrap();
    assert_eq!(live.session.access_token().expose(), "Tnewer");
    assert_eq!(
        saving.core.refresh_token().unwrap().token.expose(),
        "Rnewer"
    );
}
