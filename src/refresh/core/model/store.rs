//! The session store that the processes share: one record, and a lock with one holder.

use crate::refresh::core::{model::values::Record, run::RefreshId};

#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) record: Option<Record>,
    /// Who holds the lock.
    pub(super) holder: Option<Holder>,
    /// The access tokens of all records so far.
    pub(super) saved: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) process: usize,
    pub(super) by: By,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum By {
    Refresh(RefreshId),
    Save,
    Logout,
}

impl Holder {
    pub(super) fn new(process: usize, by: By) -> Self {
        Self { process, by }
    }
}

impl Store {
    pub(super) fn save(&mut self, record: Record) {
        self.record = Some(record);
        if !self.saved.contains(&record.session.access) {
            self.saved.push(record.session.access);
            self.saved.sort_unstable();
        }
    }

    pub(super) fn release(&mut self, holder: Holder) {
        self.holder.take_if(|held| *held == holder);
    }

    pub(super) fn release_all(&mut self, process: usize) {
        self.holder.take_if(|held| held.process == process);
    }
}
