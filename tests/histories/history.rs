//! A history: its settings and steps, and how a failing one is made shorter.

use tower_salesforce_auth::store::OnSaveFailure;

use crate::{
    leased::Wrong,
    step::{Random, Step},
};

/// The store that the processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    /// Its locks end with their process.
    Locks,
    /// A `LeaseStore`, on a database that may be wrong.
    Leases(Wrong),
}

#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) store: Kind,
    /// Whether the processes follow the store.
    pub(crate) follows: bool,
    pub(crate) on_save_failure: OnSaveFailure,
    pub(crate) steps: Vec<Step>,
}

impl History {
    pub(crate) fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let store = match random.below(10) {
            0 => Kind::None,
            1..5 => Kind::Locks,
            _ => Kind::Leases(Wrong::Nowhere),
        };
        let follows = random.is(50);
        let on_save_failure = if random.is(70) {
            OnSaveFailure::Continue
        } else {
            OnSaveFailure::Fail
        };
        let steps = (0..4 + random.below(16)).map(|_| random.step()).collect();
        Self {
            store,
            follows,
            on_save_failure,
            steps,
        }
    }

    /// A history over a database that may be wrong.
    pub(crate) fn over(wrong: Wrong, steps: Vec<Step>) -> Self {
        Self {
            store: Kind::Leases(wrong),
            follows: false,
            on_save_failure: OnSaveFailure::Continue,
            steps,
        }
    }

    /// Leaves out steps for as long as the history fails. Since the crate adds jitter, each shorter one has several tries.
    pub(crate) fn shrink(
        mut self,
        mut fault: String,
        run: impl Fn(&Self) -> Result<(), String>,
    ) -> (Self, String) {
        const TRIES: usize = 10;
        let mut length = self.steps.len().div_ceil(2).max(1);
        loop {
            let mut is_shorter = false;
            let mut start = 0;
            while start < self.steps.len() {
                let mut shorter = self.clone();
                let end = (start + length).min(shorter.steps.len());
                shorter.steps.drain(start..end);
                match (0..TRIES).find_map(|_| run(&shorter).err()) {
                    Some(other) => {
                        (self, fault, is_shorter) = (shorter, other, true);
                    }
                    None => start += length,
                }
            }
            if length == 1 && !is_shorter {
                return (self, fault);
            }
            length = (length / 2).max(1);
        }
    }
}
