//! Where the explorations begin, and how often each thing can happen in them.

use crate::refresh::core::model::{
    process::Asked,
    values::Settings,
    world::{Action, How, Left, World},
};

const ALONE: Settings = Settings {
    has_store: false,
    requires_save: false,
};

const STORED: Settings = Settings {
    has_store: true,
    requires_save: false,
};

const SAVED_OR_FAILED: Settings = Settings {
    has_store: true,
    requires_save: true,
};

const NOTHING: Left = Left {
    requests: 0,
    expiries: 0,
    refusals: 0,
    refreshes: 0,
    proactive: 0,
    invalidations: 0,
    logins: 0,
    sets: 0,
    copies: 0,
    resets: 0,
    logouts: 0,
    saves: 0,
    bad_answers: 0,
    store_faults: 0,
    lost_locks: 0,
    notices: 0,
    rotations: 0,
    revocations: 0,
    kills: 0,
    stalls: 0,
    shutdowns: 0,
    passes: 0,
};

pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) processes: usize,
    pub(super) settings: Settings,
    start: fn(usize, Settings) -> World,
    left: Left,
}

impl Scenario {
    pub(super) fn world(&self) -> World {
        let mut world = (self.start)(self.processes, self.settings);
        assert!(world.violations.is_empty(), "{:?}", world.violations);
        world.left = self.left;
        world
    }
}

/// Processes with a session: it was set, or adopted from the store.
fn with_session(processes: usize, settings: Settings) -> World {
    let mut world = World::new(processes, settings);
    world.set(0, true);
    if settings.has_store {
        world.act(Action::Save(0));
        settle(&mut world);
        for p in 1..processes {
            world.act(Action::Request(p));
            settle(&mut world);
        }
    }
    world
}

/// Processes of which the first could not save its refresh token.
fn unsaved(processes: usize, settings: Settings) -> World {
    let mut world = with_session(processes, settings);
    world.act(Action::Refresh(0));
    while let Some(action) = world.cooperate() {
        let drivers = &world.process(0).drivers;
        let saving = drivers
            .iter()
            .find(|driver| matches!(driver.asked, Asked::Save { .. }));
        world.act(saving.map_or(action, |driver| Action::Drive(0, driver.id, How::Fails)));
    }
    world
}

/// A server that refuses a token that was used before, and does not end its grant.
fn lenient(processes: usize, settings: Settings) -> World {
    let mut world = with_session(processes, settings);
    world.server.is_strict = false;
    world
}

fn settle(world: &mut World) {
    while let Some(action) = world.cooperate() {
        world.act(action);
    }
}

macro_rules! scenarios {
    ($($name:ident: $start:path, $processes:literal, $settings:ident { $($what:ident: $left:literal),* };)*) => {
        pub(super) const SCENARIOS: &[Scenario] = &[$(
            Scenario {
                name: stringify!($name),
                processes: $processes,
                settings: $settings,
                start: $start,
                left: Left { $($what: $left,)* ..NOTHING },
            },
        )*];
    };
}

scenarios! {
    expiries: with_session, 1, ALONE { requests: 3, expiries: 2, refreshes: 1, proactive: 1, bad_answers: 2, passes: 2 };
    users: with_session, 1, ALONE { requests: 2, expiries: 1, logins: 1, sets: 1, resets: 1, logouts: 1, bad_answers: 1, passes: 1 };
    runtimes: with_session, 1, ALONE { requests: 2, expiries: 1, logins: 1, stalls: 1, shutdowns: 1, passes: 4 };
    breaker: with_session, 1, ALONE { requests: 4, expiries: 1, refusals: 3, refreshes: 1, invalidations: 1, passes: 1 };
    copies: with_session, 1, ALONE { requests: 2, expiries: 2, refreshes: 1, copies: 2, passes: 2 };
    first_login: World::new, 1, ALONE { requests: 3, expiries: 1, sets: 1, logouts: 1, bad_answers: 2, passes: 2 };
    first_login_in_vain: World::new, 1, ALONE { requests: 2, bad_answers: 5, passes: 5 };

    store_faults: with_session, 1, STORED { requests: 2, expiries: 2, bad_answers: 1, store_faults: 2, saves: 1 };
    store_users: with_session, 1, STORED { requests: 2, expiries: 1, logins: 1, sets: 1, resets: 1, logouts: 1, saves: 2, store_faults: 1 };
    store_required: with_session, 1, SAVED_OR_FAILED { requests: 2, expiries: 2, refreshes: 1, bad_answers: 1, store_faults: 2, passes: 1 };
    store_rotations: lenient, 1, STORED { requests: 3, expiries: 2, refreshes: 1, rotations: 2, store_faults: 1 };
    store_latched: with_session, 1, STORED { requests: 2, refreshes: 1, invalidations: 1, bad_answers: 2, store_faults: 1, passes: 1 };

    shared_expiries: with_session, 2, STORED { requests: 3, expiries: 2, bad_answers: 1, store_faults: 1 };
    shared_kills: with_session, 2, STORED { requests: 3, expiries: 2, kills: 1, store_faults: 1 };
    shared_users: with_session, 2, STORED { requests: 2, expiries: 1, logins: 1, sets: 1, resets: 1, saves: 1, logouts: 1 };
    shared_time: with_session, 2, STORED { requests: 2, expiries: 2, refreshes: 1, stalls: 1, passes: 4 };
    shared_breaker: with_session, 2, STORED { requests: 4, expiries: 1, refusals: 3, passes: 1 };
    shared_revocations: with_session, 2, STORED { requests: 3, expiries: 1, logins: 1, saves: 1, revocations: 1, store_faults: 1 };
    shared_unsaved: unsaved, 2, STORED { requests: 2, expiries: 1, logins: 1, saves: 1, revocations: 1 };
    shared_gone: with_session, 2, STORED { refreshes: 2, sets: 1, logouts: 1 };
    shared_saves: with_session, 2, STORED { refreshes: 3, logins: 1, saves: 1, store_faults: 1 };
    shared_logins: with_session, 2, STORED { requests: 1, refreshes: 2, logins: 1, saves: 1, revocations: 1, store_faults: 1 };
    shared_copies: with_session, 2, STORED { requests: 2, expiries: 2, copies: 1, saves: 1, store_faults: 1 };
    shared_proactive: with_session, 2, STORED { requests: 2, expiries: 1, proactive: 2, bad_answers: 1, kills: 1 };
    shared_required: with_session, 2, SAVED_OR_FAILED { requests: 2, expiries: 2, refreshes: 1, store_faults: 2 };
    shared_notices: with_session, 2, STORED { requests: 2, expiries: 2, notices: 2, sets: 1, logouts: 1 };
    shared_followed_logins: with_session, 2, STORED { requests: 2, refreshes: 1, notices: 2, logins: 1, saves: 1, bad_answers: 1, store_faults: 1 };
    shared_leases: with_session, 2, STORED { refreshes: 2, logins: 1, saves: 1, lost_locks: 1 };
    shared_lost_locks: with_session, 2, STORED { requests: 2, expiries: 2, refreshes: 1, lost_locks: 2 };
    shared_lost_saves: with_session, 2, SAVED_OR_FAILED { requests: 2, expiries: 1, refreshes: 1, lost_locks: 1, store_faults: 1, logouts: 1 };
    shared_lost_logins: with_session, 2, STORED { requests: 1, refreshes: 2, logins: 1, saves: 1, lost_locks: 2 };
    shared_first_login: World::new, 2, STORED { requests: 3, expiries: 1, kills: 1, logouts: 1, store_faults: 1 };

    three_kills: with_session, 3, STORED { requests: 4, expiries: 2, kills: 1 };
    three_logouts: with_session, 3, STORED { requests: 3, expiries: 1, logouts: 1, sets: 1, kills: 1 };
}
