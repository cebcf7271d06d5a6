//! The world of the model: processes, their store and their server.

use std::rc::Rc;

use crate::refresh::core::{
    model::{
        digest::digest,
        mutation::Mutation,
        process::Process,
        properties::Violation,
        server::{Answer, Server},
        store::{By, Store},
        values::Settings,
    },
    run::RefreshId,
};

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) server: Server,
    pub(super) store: Store,
    pub(super) processes: Vec<Rc<Process>>,
    /// The hash of each process. `None` if it has changed.
    digests: Vec<Option<u64>>,
    pub(super) left: Left,
    pub(super) violations: Vec<Violation>,
    /// A fault of the cores. `None` for cores as they are.
    pub(super) mutation: Option<Mutation>,
}

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Left {
    pub(super) requests: u8,
    pub(super) expiries: u8,
    /// Rejections of a valid session.
    pub(super) refusals: u8,
    pub(super) refreshes: u8,
    pub(super) proactive: u8,
    pub(super) invalidations: u8,
    /// Logins by the user.
    pub(super) logins: u8,
    /// Sessions without refresh token that the user sets.
    pub(super) sets: u8,
    /// Sessions that the user keeps, and sets later.
    pub(super) copies: u8,
    pub(super) resets: u8,
    pub(super) logouts: u8,
    pub(super) saves: u8,
    /// Bad answers to token calls.
    pub(super) bad_answers: u8,
    pub(super) store_faults: u8,
    /// Leases that end before their lock is released.
    pub(super) lost_locks: u8,
    /// Notices of a store that is followed.
    pub(super) notices: u8,
    /// Refreshes by a process that has lost the store lock, and does not know.
    pub(super) rotations: u8,
    /// Grants that an administrator ends.
    pub(super) revocations: u8,
    pub(super) kills: u8,
    pub(super) stalls: u8,
    pub(super) shutdowns: u8,
    /// How often time passes.
    pub(super) passes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A request begins, asks for a session, or gets its response.
    Request(usize),
    Ask(usize, usize),
    Respond {
        process: usize,
        request: usize,
        is_refused: bool,
    },
    Refresh(usize),
    RefreshDue(usize),
    Invalidate(usize),
    LogIn(usize),
    Set(usize),
    /// The user keeps the session in use, or sets the session that was kept.
    Keep(usize),
    SetKept(usize),
    Reset(usize),
    LogOut {
        process: usize,
        revokes: bool,
    },
    Save(usize),
    /// The step of a driver ends.
    Drive(usize, RefreshId, How),
    /// The server answers the call of a driver.
    Serve(usize, RefreshId, Answer),
    Late(usize, RefreshId),
    Overdue(usize),
    /// The driver of a refresh is dropped.
    Drop(usize, RefreshId),
    SaveStep(usize, How),
    LogoutStep(usize, How),
    EndLease,
    /// A process that follows the store loads the record.
    Notice(usize),
    Expire,
    RotateElsewhere,
    Revoke(u8),
    Kill(usize),
    Stall(usize),
    Revive(usize),
    ShutDown(usize),
    Pass,
    PassAnHour,
}

/// How a step ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Well,
    /// A record of another version came first.
    Changed,
    Fails,
    /// Another holder has the lock.
    Busy,
    /// It is done, and reported as failed.
    FailsButIsDone,
    TimesOut,
    Unreadable,
}

impl How {
    /// Whether the store has carried it out.
    pub(super) fn is_done(self) -> bool {
        matches!(self, Self::Well | Self::FailsButIsDone)
    }
}

impl World {
    pub(super) fn new(processes: usize, settings: Settings) -> Self {
        Self {
            server: Server::new(),
            store: Store::default(),
            processes: (0..processes)
                .map(|_| Rc::new(Process::new(settings)))
                .collect(),
            digests: vec![None; processes],
            left: Left::default(),
            violations: Vec::new(),
            mutation: None,
        }
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().map(Rc::as_ref)
    }

    pub(super) fn process(&self, index: usize) -> &Process {
        &self.processes[index]
    }

    pub(super) fn process_mut(&mut self, index: usize) -> &mut Process {
        self.digests[index] = None;
        Rc::make_mut(&mut self.processes[index])
    }

    /// Identifies the state. Worlds that differ in the order of their processes are one.
    pub(super) fn digest(&mut self) -> u64 {
        let mut digests = Vec::with_capacity(self.processes.len());
        for (index, process) in self.processes.iter().enumerate() {
            let digest = *self.digests[index].get_or_insert_with(|| digest(&**process));
            let holder = self.store.holder.filter(|holder| holder.process == index);
            let lost = self.store.lost.iter().filter(|lost| lost.process == index);
            let mut lost: Vec<By> = lost.map(|lost| lost.by).collect();
            lost.sort_unstable();
            digests.push((digest, holder.map(|holder| holder.by), lost));
        }
        digests.sort_unstable_by_key(|(digest, ..)| *digest);
        let store = (&self.store.record, &self.store.saved);
        digest(&(&self.server, store, digests, self.left))
    }
}
