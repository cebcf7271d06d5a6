//! The session store that the processes share: one record, and a lock with one holder and a lease.

use crate::{
    refresh::core::{
        model::values::{Error, Record},
        rules::Stored,
        run::RefreshId,
    },
    store::Version,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) record: Option<Record>,
    /// Who holds the lock.
    pub(super) holder: Option<Holder>,
    /// Whose leases ended before they released the lock. They have not noticed.
    pub(super) lost: Vec<Holder>,
    /// The access tokens of all records so far.
    pub(super) saved: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) process: usize,
    pub(super) by: By,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    pub(super) fn version(&self) -> Option<Version> {
        self.record.as_ref().map(Stored::version)
    }

    /// Whether a save in place of this version writes the record. It does not if the record is there already.
    pub(super) fn permits(
        &self,
        record: &Record,
        replaces: Option<Version>,
    ) -> Result<bool, Error> {
        match self.version() {
            stored if stored == Some(record.version()) => Ok(false),
            stored if stored == replaces => Ok(true),
            _ => Err(Error::Superseded),
        }
    }

    pub(super) fn save(&mut self, record: Record) {
        self.record = Some(record);
        if !self.saved.contains(&record.session.access) {
            self.saved.push(record.session.access);
            self.saved.sort_unstable();
        }
    }

    /// The lease of the holder ends.
    pub(super) fn end_lease(&mut self) {
        self.lost.extend(self.holder.take());
    }

    pub(super) fn has_lost(&self, holder: Holder) -> bool {
        self.lost.contains(&holder)
    }

    pub(super) fn take(&mut self, holder: Holder) {
        self.lost.retain(|lost| *lost != holder);
        self.holder = Some(holder);
    }

    pub(super) fn release(&mut self, holder: Holder) {
        self.holder.take_if(|held| *held == holder);
        self.lost.retain(|lost| *lost != holder);
    }

    pub(super) fn release_all(&mut self, process: usize) {
        self.holder.take_if(|held| held.process == process);
        self.lost.retain(|lost| lost.process != process);
    }
}
