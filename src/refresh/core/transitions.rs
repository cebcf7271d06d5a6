//! The changes of the state that is shown, as the guide draws them. Random histories show that the core makes these and no
//! others.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    error::{RefreshError, RefreshErrorKind},
    refresh::core::{
        callers::{Caller, Rejection},
        effect::{Effect, Turn},
        fixtures::{CALLER, Rules, core, core_with_store},
        run::{Input, RefreshId, Step},
        state::{Core, Shown},
    },
    session::session::Session,
    store::{Record, StoreError, StoreErrorKind},
};

/// Each change of the state: from, to, and what causes it, as the guide says it.
const TRANSITIONS: [(&str, &str, &str); 21] = [
    ("Empty", "Refreshing", "a request"),
    ("Refreshing", "Ready", "a session"),
    ("Refreshing", "BackingOff", "transient error"),
    ("Refreshing", "ReauthenticationRequired", "terminal error"),
    ("BackingOff", "Refreshing", "next attempt"),
    ("Ready", "Refreshing", "rejection"),
    ("Ready", "ReauthenticationRequired", "rejection"),
    ("Ready", "Empty", "invalidate"),
    ("ReauthenticationRequired", "Refreshing", "refresh"),
    ("ReauthenticationRequired", "Ready", "stored login"),
    (
        "ReauthenticationRequired",
        "BackingOff",
        "store works again",
    ),
    ("BackingOff", "Empty", "reset"),
    ("ReauthenticationRequired", "Empty", "reset"),
    ("LoggedOut", "Empty", "reset"),
    ("any", "Ready", "set, from any state"),
    ("any", "LoggedOut", "logout, from any state"),
    ("Empty", "Ready", "late result"),
    ("Empty", "BackingOff", "late result"),
    ("Empty", "ReauthenticationRequired", "late result"),
    ("BackingOff", "Ready", "late result"),
    ("BackingOff", "ReauthenticationRequired", "late result"),
];

const DIAGRAM: &str = include_str!("../../docs/session_states.svg");

const GUIDE: &str = include_str!("../../docs/how_it_works_state.md");

fn name(shown: &Shown<'_, RefreshError>) -> &'static str {
    match shown {
        Shown::Empty => "Empty",
        Shown::Refreshing => "Refreshing",
        Shown::BackingOff(_) => "BackingOff",
        Shown::ReauthenticationRequired(_) => "ReauthenticationRequired",
        Shown::Ready => "Ready",
        Shown::LoggedOut => "LoggedOut",
    }
}

/// A history of one process: its core, its drivers, and a store that others use too.
struct History {
    core: Core<Rules>,
    random: u64,
    now: Instant,
    drivers: BTreeMap<RefreshId, Driver>,
    stored: Option<Record>,
    sessions: u32,
    /// The changes of the state so far. What starts from any state has "any".
    seen: BTreeSet<(&'static str, &'static str)>,
}

/// The step that a driver carries out. `None` before its first.
type Driver = Option<Step<Rules>>;

impl History {
    fn new(seed: u64, has_store: bool) -> Self {
        Self {
            core: if has_store { core_with_store() } else { core() },
            random: seed,
            now: Instant::now(),
            drivers: BTreeMap::new(),
            stored: None,
            sessions: 0,
            seen: BTreeSet::new(),
        }
    }

    /// A number below `limit` (`SplitMix64`).
    fn draw(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn session(&mut self) -> Session {
        self.sessions += 1;
        let token = format!("T{}", self.sessions);
        let session = Session::new(token, "https://MyDomainName.my.salesforce.com").unwrap();
        match self.draw(3) {
            0 => session,
            _ => session.with_refresh_token(format!("R{}", self.sessions)),
        }
    }

    fn error(&mut self) -> RefreshError {
        match self.draw(4) {
            0 => RefreshError::new(RefreshErrorKind::Refused, true, "terminal")
                .with_error_code("invalid_grant"),
            1 => RefreshError::new(RefreshErrorKind::Refused, true, "terminal"),
            2 => RefreshError::transient(io::Error::from(io::ErrorKind::ConnectionRefused))
                .with_findings(),
            _ => RefreshError::new(RefreshErrorKind::Refused, false, "transient"),
        }
    }

    fn store_error(&mut self) -> RefreshError {
        let kind = match self.draw(6) {
            0 => StoreErrorKind::Corrupt,
            1 => StoreErrorKind::LockBusy,
            2 => StoreErrorKind::LockLost,
            3 => StoreErrorKind::Superseded,
            _ => StoreErrorKind::Unavailable,
        };
        StoreError::new(kind, "the store fails").into()
    }

    /// Makes one transition of the core, and records the change of the state.
    fn apply<T>(&mut self, transition: impl FnOnce(&mut Core<Rules>, &mut Turn<Rules>) -> T) -> T {
        self.apply_from(None, transition)
    }

    fn apply_from<T>(
        &mut self,
        from: Option<&'static str>,
        transition: impl FnOnce(&mut Core<Rules>, &mut Turn<Rules>) -> T,
    ) -> T {
        let before = name(&self.core.state());
        let mut turn = Turn::new(self.now, 0.5);
        let result = transition(&mut self.core, &mut turn);
        let after = name(&self.core.state());
        if before != after {
            self.seen.insert((from.unwrap_or(before), after));
        }
        for effect in turn.effects {
            match effect {
                Effect::Spawn { id, .. } => drop(self.drivers.insert(id, None)),
                Effect::Abort(id) => drop(self.drivers.remove(&id)),
                _ => {}
            }
        }
        result
    }

    fn advance(&mut self) {
        let running: Vec<RefreshId> = self.drivers.keys().copied().collect();
        match self.draw(20) {
            0..8 if !running.is_empty() => {
                let chosen = usize::try_from(self.draw(running.len() as u64)).unwrap();
                self.drive(running[chosen]);
            }
            8 if !running.is_empty() => self.interrupt(running[0]),
            9 if self.draw(2) == 0 => {
                let stored = self.stored.clone();
                self.apply(|core, turn| {
                    core.offer(stored.as_ref(), core.lineage(), turn);
                });
            }
            9 => self.user(),
            10 => {
                self.stored = match (self.draw(3), &self.stored) {
                    (0, _) => None,
                    (1, Some(stored)) => {
                        let stored = stored.clone();
                        Some(stored.followed_by(self.session()))
                    }
                    _ => Some(Record::new(self.session())),
                };
            }
            11..14 => {
                let pauses = [1, 600, 11_000, 40_000];
                let pause = pauses[usize::try_from(self.draw(4)).unwrap()];
                self.now += Duration::from_millis(pause);
            }
            _ => self.request(),
        }
    }

    fn request(&mut self) {
        let caller = Caller {
            has_runtime: self.draw(10) > 0,
            is_inside: false,
        };
        let Some(generation) = self.core.slot.generation() else {
            self.apply(|core, turn| drop(core.acquire(caller, turn)));
            return;
        };
        let rejection = Rejection {
            generation,
            is_first: self.draw(3) > 0,
            was_accepted: self.draw(2) > 0,
            has_served: self.draw(4) == 0,
        };
        match self.draw(6) {
            0 => self.apply(|core, turn| core.invalidate(generation, turn)),
            1 => self.apply(|core, turn| {
                core.refresh_due(generation, caller, turn);
            }),
            2 | 3 => self.apply(|core, turn| {
                drop(core.reject(rejection, caller, turn));
            }),
            _ => self.apply(|core, turn| drop(core.acquire(caller, turn))),
        }
    }

    fn user(&mut self) {
        let caller = CALLER;
        match self.draw(5) {
            0 => {
                let session = self.session();
                self.apply_from(Some("any"), |core, turn| {
                    core.set(session, turn);
                });
            }
            1 => self.apply(Core::reset),
            2 => {
                self.apply_from(Some("any"), |core, turn| {
                    core.log_out(true, turn);
                });
            }
            _ => self.apply(|core, turn| drop(core.refresh(caller, turn))),
        }
    }

    fn interrupt(&mut self, id: RefreshId) {
        match self.draw(3) {
            0 => self.apply(|core, turn| core.late(id, turn)),
            1 => self.apply(|core, turn| core.overdue(id, turn)),
            _ => {
                self.drivers.remove(&id);
                self.apply(|core, turn| core.ended(id, turn));
            }
        }
    }

    /// Lets a driver complete its step, and begin the next.
    fn drive(&mut self, id: RefreshId) {
        let step = self.drivers.remove(&id).flatten();
        let is_ok = self.draw(4) > 0;
        let input = match step {
            None => Input::Begin,
            Some(Step::AwaitPredecessor(..)) => Input::PredecessorEnded,
            Some(Step::Sleep(until)) => {
                self.now = self.now.max(until);
                Input::Woken
            }
            Some(Step::Load { .. }) if is_ok => Input::Loaded(Ok(self.stored.clone())),
            Some(Step::Load { .. }) => Input::Loaded(Err(self.store_error())),
            Some(Step::Lock(_) | Step::LockOrLoad { .. }) if is_ok => Input::Locked(Ok(())),
            Some(Step::Lock(_) | Step::LockOrLoad { .. }) => Input::Locked(Err(self.store_error())),
            Some(Step::Delete) => {
                self.stored = self.stored.take().filter(|_| !is_ok);
                Input::Deleted(if is_ok {
                    Ok(())
                } else {
                    Err(self.store_error())
                })
            }
            Some(Step::Call { .. }) if self.draw(8) == 0 => Input::NotCalled(self.store_error()),
            Some(Step::Call { .. }) if self.draw(2) > 0 => Input::Called(Ok(self.session())),
            Some(Step::Call { .. }) => Input::Called(Err(self.error())),
            Some(Step::Save { record, .. }) if is_ok => {
                self.stored = Some(record);
                Input::Saved(Ok(()))
            }
            Some(Step::Save { .. }) => Input::Saved(Err(self.store_error())),
            Some(Step::Unlock) => Input::Unlocked(Ok(())),
            Some(Step::Stop) => return,
        };
        match self.apply(|core, turn| core.step(id, input, turn)) {
            Step::Stop => self.apply(|core, turn| core.ended(id, turn)),
            step => drop(self.drivers.insert(id, Some(step))),
        }
    }
}

#[test]
fn the_core_changes_its_state_as_the_table_says() {
    let mut seen = BTreeSet::new();
    for seed in 0..6_000 {
        let mut history = History::new(seed, seed % 3 > 0);
        for _ in 0..200 {
            history.advance();
        }
        seen.append(&mut history.seen);
    }
    let table: BTreeSet<_> = TRANSITIONS.map(|(from, to, _)| (from, to)).into();
    assert_eq!(seen, table);
}

/// The value of an attribute of an SVG element, and what follows.
fn attribute<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let (_, value) = text.split_once(&format!("{name}=\""))?;
    value.split_once('"')
}

#[test]
fn the_diagram_of_the_guide_is_that_of_the_table() {
    let mut drawn = BTreeSet::new();
    let mut rest = DIAGRAM;
    while let Some((from, after)) = attribute(rest, "data-from") {
        let (to, after) = attribute(after, "data-to").unwrap();
        let (_, label) = after.split_once("<text").unwrap();
        let (_, label) = label.split_once('>').unwrap();
        let (label, after) = label.split_once('<').unwrap();
        // One arrow for several states is one without a beginning.
        drawn.extend(from.split(' ').map(|from| (from, to, label)));
        rest = after;
    }
    assert_eq!(drawn, BTreeSet::from(TRANSITIONS));
}

#[test]
fn the_diagram_and_the_guide_have_all_states() {
    let states: BTreeSet<&str> = TRANSITIONS
        .iter()
        .flat_map(|(from, to, _)| [*from, *to])
        .filter(|state| *state != "any")
        .collect();
    let mut drawn = BTreeSet::new();
    let mut rest = DIAGRAM;
    while let Some((state, after)) = attribute(rest, "data-state") {
        assert!(after.contains(&format!(">{state}</text>")), "{state}");
        drawn.insert(state);
        rest = after;
    }
    assert_eq!(drawn, states);
    let (explained, _) = GUIDE.split_once("The arrows:").unwrap();
    let explained: BTreeSet<&str> = explained
        .lines()
        .filter_map(|line| line.strip_prefix("- **`")?.split('`').next())
        .collect();
    assert_eq!(explained, states);
}

#[test]
fn the_guide_explains_each_arrow() {
    let (_, arrows) = GUIDE.split_once("The arrows:").unwrap();
    let arrows = arrows.replace('`', "").to_lowercase();
    for (_, _, label) in TRANSITIONS {
        let label = label.trim_end_matches(", from any state");
        assert!(arrows.contains(label), "{label}");
    }
}
